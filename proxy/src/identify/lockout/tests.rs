use super::counts::{ACCOUNTS, GROUPS};
use super::proven::ENTRIES;
use super::*;

const MINUTE: Duration = Duration::from_secs(60);

struct Bench {
    lockout: Lockout,
    now: Instant,
}

fn bench(threshold: u32, user_threshold: u32) -> Bench {
    let rules = LockoutRules { threshold, user_threshold, duration: 5 * MINUTE, counter_reset: 15 * MINUTE };
    let now = Instant::now();
    Bench { lockout: Lockout::new(rules, now), now }
}

fn v4(last: u8) -> Source {
    Source::V4([10, 0, 0, last])
}

impl Bench {
    fn of(&self, user: &str, source: Source) -> Attempt {
        self.lockout.attempt(Name { keyspace: KeyspaceId(3), user, credential_revision: Some(1) }, source)
    }

    fn unknown(&self, user: &str, source: Source) -> Attempt {
        self.lockout.attempt(Name { keyspace: KeyspaceId(3), user, credential_revision: None }, source)
    }

    /// A wrong password, as the server treats it. True: it was compared.
    fn wrong(&self, attempt: Attempt) -> bool {
        if self.lockout.refuses(attempt, self.now) {
            return false;
        }
        self.lockout.failed(attempt, self.now);
        true
    }

    fn refuses(&self, attempt: Attempt) -> bool {
        self.lockout.refuses(attempt, self.now)
    }
}

#[test]
fn wrong_passwords_lock_a_user_for_one_source_and_for_a_while() {
    let mut bench = bench(3, 0);
    let root = bench.of("root", v4(1));
    assert_eq!(bench.lockout.failed(root, bench.now), None);
    assert_eq!(bench.lockout.failed(root, bench.now), None);
    assert!(!bench.refuses(root));
    assert_eq!(bench.lockout.failed(root, bench.now), Some(Locked::Source));
    // One that was compared at the same time locks nothing a second time.
    assert_eq!(bench.lockout.failed(root, bench.now), None);
    assert!(bench.refuses(root));
    let elsewhere = [bench.of("root", v4(2)), bench.of("alice", v4(1)), bench.of("root", Source::V6([0; 8]))];
    assert!(elsewhere.into_iter().all(|it| !bench.refuses(it)));
    let other_tenant = Name { keyspace: KeyspaceId(4), user: "root", credential_revision: Some(1) };
    assert!(!bench.refuses(bench.lockout.attempt(other_tenant, v4(1))));
    bench.now += 5 * MINUTE - Duration::from_millis(1);
    assert!(bench.refuses(root));
    bench.now += Duration::from_millis(1);
    assert!(!bench.refuses(root));
    // And from the beginning.
    assert!(bench.wrong(root) && bench.wrong(root) && !bench.refuses(root));
    assert!(bench.wrong(root) && bench.refuses(root));
    assert_eq!(bench.lockout.tally(), Lockouts { of_sources: 2, of_users: 0, refused: 3 });
}

#[test]
fn a_new_password_begins_anew() {
    let bench = bench(2, 0);
    assert!(bench.wrong(bench.of("root", v4(1))) && bench.wrong(bench.of("root", v4(1))));
    assert!(bench.refuses(bench.of("root", v4(1))));
    let changed = Name { keyspace: KeyspaceId(3), user: "root", credential_revision: Some(2) };
    assert!(!bench.refuses(bench.lockout.attempt(changed, v4(1))));
}

#[test]
fn old_mistakes_and_those_before_a_right_password_do_not_count() {
    let mut bench = bench(3, 0);
    let root = bench.of("root", v4(1));
    assert!(bench.wrong(root) && bench.wrong(root));
    bench.lockout.succeeded(root, bench.now);
    assert!(bench.wrong(root) && bench.wrong(root) && !bench.refuses(root));
    bench.now += 15 * MINUTE;
    assert!(bench.wrong(root) && bench.wrong(root) && !bench.refuses(root));
    // Contrast: a little sooner they count.
    bench.now += 15 * MINUTE - Duration::from_millis(1);
    assert!(bench.wrong(root) && bench.refuses(root));
}

#[test]
fn unknown_users_are_counted_as_known_ones_are() {
    for user_threshold in [0, 5] {
        let bench = bench(3, user_threshold);
        let story = |attempt: &dyn Fn(Source) -> Attempt| {
            let tries = (0..12).map(|n| bench.wrong(attempt(v4(if n < 6 { 1 } else { n }))));
            tries.collect::<Vec<_>>()
        };
        let known = story(&|source| bench.of("root", source));
        let unknown = story(&|source| bench.unknown("nobody", source));
        assert_eq!(known, unknown);
        assert_eq!(
            known.iter().filter(|compared| **compared).count(),
            if user_threshold == 0 { 9 } else { 5 }
        );
    }
}

#[test]
fn a_ceiling_for_a_user_counts_all_sources_and_no_success_takes_it_back() {
    let bench = bench(3, 5);
    for n in 0..4 {
        assert!(bench.wrong(bench.of("root", v4(n))));
        bench.lockout.succeeded(bench.of("root", v4(100)), bench.now);
    }
    assert_eq!(bench.lockout.failed(bench.of("root", v4(5)), bench.now), Some(Locked::User));
    assert!(bench.refuses(bench.of("root", v4(100))));
    assert!(!bench.refuses(bench.of("alice", v4(1))));
    assert_eq!(bench.lockout.tally().of_users, 1);
}

/// Names cost nothing to make up: they must not push out what the source has failed before.
#[test]
fn made_up_names_do_not_reset_a_count() {
    let bench = bench(10, 0);
    let root = bench.of("root", v4(1));
    let mut guesses = 0;
    for round in 0..200 {
        guesses += u32::from(bench.wrong(root));
        for n in 0..=ACCOUNTS {
            bench.wrong(bench.unknown(&format!("made-up-{round}-{n}"), v4(1)));
        }
    }
    assert!(guesses <= 10, "{guesses} guesses");
    // Who is at it has locked himself out of the tenant altogether; nobody else, and nobody of another tenant.
    assert!(bench.refuses(bench.of("anybody", v4(1))));
    let neighbour = Name { keyspace: KeyspaceId(4), user: "anybody", credential_revision: Some(1) };
    assert!(!bench.refuses(bench.lockout.attempt(neighbour, v4(1))));
    assert!(!bench.refuses(bench.of("root", v4(2))));
}

/// With an account of his own somebody could empty a place again and again.
#[test]
fn right_logins_between_do_not_reset_a_count() {
    let bench = bench(10, 0);
    let (root, own) = (bench.of("root", v4(1)), bench.of("mallory", v4(1)));
    for _ in 0..4 {
        for n in 0..ACCOUNTS - 1 {
            bench.wrong(bench.unknown(&n.to_string(), v4(1)));
        }
    }
    let mut guesses = 0;
    for _ in 0..100 {
        for _ in 0..3 {
            guesses += u32::from(bench.wrong(root));
        }
        if bench.wrong(own) {
            bench.lockout.succeeded(own, bench.now);
        }
    }
    assert!(guesses <= 10, "{guesses} guesses");
}

/// With sixteen accounts of his own somebody could push a count out of its place, and then make all places free.
#[test]
fn a_count_that_was_pushed_out_does_not_come_back_as_none() {
    let bench = bench(10, 0);
    let (root, owner) = (bench.of("root", v4(1)), |n: usize| bench.of(&format!("own-{n}"), v4(1)));
    let mut guesses = 0;
    for _ in 0..20 {
        for _ in 0..8 {
            guesses += u32::from(bench.wrong(root));
        }
        for n in 1..ACCOUNTS {
            for _ in 0..9 {
                bench.wrong(owner(n));
            }
        }
        bench.wrong(owner(ACCOUNTS));
        (1..ACCOUNTS).for_each(|n| bench.lockout.succeeded(owner(n), bench.now));
    }
    assert!(guesses <= 20, "{guesses} guesses");
}

#[test]
fn memory_is_bounded_whoever_tries() {
    let bench = bench(2, 2);
    for n in 0..100_000_u32 {
        let [a, b, c, d] = n.to_be_bytes();
        let source = Source::V4([a, b, c, d]);
        bench.wrong(bench.unknown(&n.to_string(), source));
        bench.wrong(bench.unknown(&(n / 2).to_string(), source));
    }
    let sources = || bench.lockout.sources.as_ref().unwrap().lock().len();
    let users = bench.lockout.users.as_ref().unwrap().lock().len();
    assert!(sources() <= 128 * GROUPS * 2, "{}", sources());
    assert!(users <= 4096 * ACCOUNTS, "{users}");
    for n in 0..200_000_u32 {
        bench.lockout.succeeded(bench.of(&n.to_string(), v4(1)), bench.now);
    }
    assert!(sources() <= 128 * GROUPS * 2 + 4096 * ENTRIES, "{}", sources());
}

/// Behind one address there may be a whole office: sixteen wrong names of one of them refused all.
#[test]
fn who_has_logged_in_from_an_address_is_not_refused_for_what_others_do_there() {
    let mut bench = bench(10, 0);
    let (ann, bob) = (bench.of("ann", v4(1)), bench.of("bob", v4(1)));
    bench.lockout.succeeded(ann, bench.now);
    // Who tries passwords may have an account of his own.
    let own = bench.of("mallory", v4(1));
    bench.lockout.succeeded(own, bench.now);
    let mut guesses = 0;
    for _ in 0..100 {
        for n in 0..40 {
            guesses += u32::from(bench.wrong(bench.of(&format!("made-up-{n}"), v4(1))));
        }
        assert!(bench.wrong(own));
        bench.lockout.succeeded(own, bench.now);
    }
    assert!(guesses <= 10 * 16, "{guesses} guesses");
    assert!(!bench.refuses(ann), "she has logged in from there");
    assert!(bench.refuses(bob), "contrast: he has not");
    assert!(bench.refuses(bench.of("made-up-50", v4(1))));
    // What she does wrong herself counts, and nobody else's mistakes with it.
    for _ in 0..9 {
        assert!(bench.wrong(ann));
    }
    assert!(!bench.refuses(ann));
    assert!(bench.wrong(ann) && bench.refuses(ann));
    bench.lockout.succeeded(ann, bench.now);
    assert!(bench.refuses(ann), "a login that was under way opens nothing");
    bench.now += 5 * MINUTE;
    assert!(!bench.refuses(ann));
    assert!((0..9).all(|_| bench.wrong(ann)) && !bench.refuses(ann), "from the beginning");
    bench.now += 15 * MINUTE;
    assert!((0..9).all(|_| bench.wrong(ann)) && !bench.refuses(ann), "old mistakes do not count");
    // A new password is to be shown once more.
    let changed = Name { keyspace: KeyspaceId(3), user: "ann", credential_revision: Some(2) };
    for n in 0..ACCOUNTS {
        for _ in 0..10 {
            bench.lockout.failed(bench.of(&n.to_string(), v4(1)), bench.now);
        }
    }
    assert!(bench.refuses(bench.lockout.attempt(changed, v4(1))) && !bench.refuses(ann));
}

#[test]
fn nothing_is_counted_where_nothing_is_asked_for() {
    let bench = bench(0, 0);
    let root = bench.of("root", v4(1));
    assert!((0..1000).all(|_| bench.wrong(root)));
    assert!(!bench.refuses(root));
}
