//! The difference of two bundles is exact: against an evaluation of every caller, key and circumstance of a
//! small world, by code that shares nothing with the compiled form or the difference.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod bundles;
#[path = "bundles/generated.rs"]
mod generated;

use generated::{Generator, KEYS, TENANTS, Texts};
use keygate_core::KeyRange;
use keygate_policies::bundle::{
    Action, Bundle, Context, Effect, OnPartial, Row, Subject, Tenant, Verb, key_range,
};
use keygate_policies::{Delta, Outcome, diff, newcomers};
use rand::Rng;
use std::collections::{BTreeMap, BTreeSet};

const PAIRS: u64 = 10_000;
const FLOOR_DIFFERENT: u64 = PAIRS / 5;
const FLOOR_EQUAL: u64 = PAIRS / 20;

struct Caller {
    user: &'static str,
    groups: &'static [&'static str],
}

const CALLERS: [Caller; 12] = [
    Caller { user: "stranger", groups: &[] },
    Caller { user: "alice", groups: &[] },
    Caller { user: "role:r", groups: &[] },
    Caller { user: "stranger", groups: &["g"] },
    Caller { user: "stranger", groups: &["alice"] },
    Caller { user: "alice", groups: &["g"] },
    Caller { user: "alice", groups: &["alice"] },
    Caller { user: "role:r", groups: &["g"] },
    Caller { user: "role:r", groups: &["alice"] },
    Caller { user: "role:r", groups: &["g", "alice"] },
    Caller { user: "alice", groups: &["g", "alice"] },
    Caller { user: "stranger", groups: &["g", "alice"] },
];

impl Caller {
    fn name(&self) -> String {
        let user = (self.user != "stranger").then(|| format!("user:{}", self.user));
        let mut names: Vec<String> =
            self.groups.iter().map(|group| format!("group:{group}")).chain(user).collect();
        names.sort();
        if names.is_empty() { "user:*".to_owned() } else { names.join(" with ") }
    }
}

/// Every key at which a generated row can begin or end.
fn keys() -> BTreeSet<Vec<u8>> {
    let mut keys = BTreeSet::new();
    for text in KEYS.into_iter().chain(["never"]) {
        for form in [format!("={text}"), format!("{text}*")] {
            let range = key_range(&form).unwrap();
            keys.insert(range.start().to_vec());
            keys.insert([range.start().as_ref(), b"\0"].concat());
            if let KeyRange::Span { end, .. } = range {
                keys.insert(end.to_vec());
            }
        }
    }
    keys
}

fn contexts(bundles: [&Bundle; 2]) -> Vec<Context> {
    let conditions: BTreeSet<_> =
        bundles.iter().flat_map(|bundle| bundle.rows()).map(|row| row.conditions.clone()).collect();
    let mut classes: BTreeMap<Vec<bool>, Context> = BTreeMap::new();
    for source in ["10.1.2.3", "10.2.0.1", "10.200.0.1", "192.168.0.1", "2001:db8::1", "::1"] {
        // A Monday morning, a Saturday and a Sunday night, and a Wednesday evening before each edge and after.
        for month in ["2025-12", "2026-03", "2026-09", "2027-03"] {
            for day in 1..=8 {
                for hour in ["05:59:59", "12:00:00", "23:00:00"] {
                    for connection in keygate_policies::bundle::Connection::ALL {
                        let context = Context {
                            source: source.parse().ok(),
                            now: format!("{month}-{day:02}T{hour}Z").parse().ok(),
                            connection: Some(connection),
                        };
                        let class = conditions.iter().map(|own| own.hold(&context, false)).collect();
                        classes.insert(class, context);
                    }
                }
            }
        }
    }
    classes.into_values().collect()
}

fn applying<'a>(bundle: &'a Bundle, tenant: &str, caller: &Caller) -> Vec<&'a Row> {
    let within = |named: &Tenant| match named {
        Tenant::Every => true,
        Tenant::Named(name) => name.as_ref() == tenant,
    };
    let mut subjects: BTreeSet<Subject> =
        caller.groups.iter().map(|group| Subject::Group((*group).into())).collect();
    subjects.insert(Subject::User(caller.user.into()));
    subjects.insert(Subject::Everybody);
    loop {
        let before = subjects.len();
        for link in bundle.links().iter().filter(|link| within(&link.tenant)) {
            if subjects.contains(&link.member) {
                subjects.insert(Subject::Role(link.role.clone()));
            }
        }
        if subjects.len() == before {
            break;
        }
    }
    bundle.rows().iter().filter(|row| within(&row.tenant) && subjects.contains(&row.subject)).collect()
}

fn outcome(rows: &[&Row], context: &Context, action: Action, key: &[u8]) -> Outcome {
    let (mut allow, mut hide) = (false, false);
    for row in rows {
        if !row.action.includes(action) || !row.keys.contains(key) || !row.conditions.hold(context, false) {
            continue;
        }
        match row.effect {
            Effect::Allow => allow = true,
            Effect::Deny(OnPartial::Filter) if action == Action::Read => hide = true,
            Effect::Deny(_) => return Outcome::Deny,
        }
    }
    match (allow, hide) {
        (true, true) => Outcome::Filter,
        (true, false) => Outcome::Allow,
        (false, _) => Outcome::Deny,
    }
}

fn told<'a>(
    deltas: &'a [Delta],
    who: &str,
    tenant: Option<&str>,
    context: &Context,
    action: Action,
    key: &[u8],
) -> Option<&'a Delta> {
    let mut found = deltas.iter().filter(|delta| {
        delta.tenant.as_deref() == tenant
            && delta.action == action
            && delta.keys.contains(key)
            && delta.who.iter().any(|own| own == who)
            && delta.when.iter().any(|when| when.hold(context, false))
    });
    let first = found.next();
    assert!(found.next().is_none(), "two deltas say something about one point");
    first
}

/// Tenants that neither bundle names are told of together.
fn is_named(tenant: &str, bundles: [&Bundle; 2]) -> bool {
    let rows = bundles.iter().flat_map(|bundle| bundle.rows()).map(|row| &row.tenant);
    let links = bundles.iter().flat_map(|bundle| bundle.links()).map(|link| &link.tenant);
    rows.chain(links).any(|named| matches!(named, Tenant::Named(name) if name.as_ref() == tenant))
}

/// How many points of the small world differ.
fn check(old: &Bundle, new: &Bundle, keys: &BTreeSet<Vec<u8>>) -> u64 {
    let deltas = diff(old, new);
    let contexts = contexts([old, new]);
    let nothing: BTreeSet<Vec<u8>> = [Vec::new()].into();
    let mut differing = 0;
    for tenant in TENANTS {
        let named = is_named(tenant, [old, new]).then_some(tenant);
        for caller in &CALLERS {
            let rows = (applying(old, tenant, caller), applying(new, tenant, caller));
            let name = caller.name();
            let single = caller.groups.len() + usize::from(caller.user != "stranger") < 2;
            for (action, keys) in [
                (Action::Read, keys),
                (Action::Write, keys),
                (Action::Verb(Verb::Compact), &nothing),
                (Action::Verb(Verb::Hash), &nothing),
            ] {
                for (key, context) in
                    keys.iter().flat_map(|key| contexts.iter().map(move |context| (key, context)))
                {
                    let before = outcome(&rows.0, context, action, key);
                    let after = outcome(&rows.1, context, action, key);
                    differing += u64::from(before != after);
                    let own = told(&deltas, &name, named, context, action, key);
                    let here = || {
                        format!(
                            "{name} in {tenant}, {action:?} `{}`, {context:?}: {before:?} -> {after:?}\n{deltas:#?}",
                            key.escape_ascii()
                        )
                    };
                    if let Some(own) = own {
                        assert_eq!((own.before, own.after), (before, after), "{}", here());
                    } else if single && before != after {
                        let everybody = told(&deltas, "user:*", named, context, action, key);
                        assert!(
                            everybody.is_some_and(|own| (own.before, own.after) == (before, after)),
                            "{}",
                            here()
                        );
                    }
                }
            }
        }
    }
    assert_eq!(deltas.is_empty(), differing == 0, "{deltas:#?}");
    differing
}

fn read(texts: &Texts) -> Option<Bundle> {
    Bundle::read(&bundles::files(&texts.policy.join("\n"), &texts.roles.join("\n"), "")).ok()
}

#[test]
fn differences_are_those_of_every_decision_in_a_small_world() {
    let keys = keys();
    let workers = 2;
    let counts: Vec<(u64, u64, u64)> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..workers)
            .map(|seed| {
                let keys = &keys;
                scope.spawn(move || {
                    let mut generator = Generator::new(seed);
                    let (mut equal, mut different, mut points) = (0, 0, 0);
                    while equal + different < PAIRS / workers {
                        generator.conditions = if generator.rng.random_bool(0.3) { 0.4 } else { 0.0 };
                        let old = generator.texts(7);
                        let new = generator.changed(&old);
                        let (Some(old), Some(new)) = (read(&old), read(&new)) else { continue };
                        let differing = check(&old, &new, keys);
                        points += differing;
                        if differing == 0 { equal += 1 } else { different += 1 }
                    }
                    (equal, different, points)
                })
            })
            .collect();
        started.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let (equal, different): (u64, u64) = (counts.iter().map(|c| c.0).sum(), counts.iter().map(|c| c.1).sum());
    println!(
        "pairs={} equal={equal} different={different} points={}",
        equal + different,
        counts.iter().map(|c| c.2).sum::<u64>()
    );
    assert!(equal >= FLOOR_EQUAL && different >= FLOOR_DIFFERENT, "{equal} {different}");
}

fn lines(old: (&str, &str), new: (&str, &str)) -> Vec<String> {
    let (old, new) = (bundles::bundle(old.0, old.1), bundles::bundle(new.0, new.1));
    diff(&old, &new).iter().map(ToString::to_string).collect()
}

#[test]
fn differences_read_as_who_gains_and_loses_what() {
    let roles = "g, user:alice, role:r, pay\ng, user:bob, role:r, pay\n";
    let old = ("p, role:r, pay, /a/*, read, allow\n", roles);
    assert_eq!(
        lines(old, ("p, role:r, pay, /a/*, readwrite, allow, source=10.0.0.0/8\n", roles)),
        [
            "pay: user:alice, user:bob loses read /a/* when source=0.0.0.0/5|8.0.0.0/7|11.0.0.0/8|12.0.0.0/6|16.0.0.0/4|32.0.0.0/3|64.0.0.0/2|128.0.0.0/1|::/0",
            "pay: user:alice, user:bob gains write /a/* when source=10.0.0.0/8",
        ]
        .map(|line| line.to_owned())
    );
}

#[test]
fn equivalent_bundles_have_no_difference() {
    let roles = "g, user:alice, role:r, pay\n";
    for (old, new) in [
        (
            "p, role:r, pay, /a/*, read, allow\n",
            "p, role:r, pay, [/a/, /a/m), read, allow\np, role:r, pay, [/a/m, /a0), read, allow\n",
        ),
        (
            "p, role:r, pay, *, readwrite, allow\n",
            "p, user:alice, pay, *, read, allow\np, role:r, pay, *, write, allow\n",
        ),
        (
            "p, role:r, pay, =a, read, allow\n",
            "p, role:r, pay, =a, read, allow\np, role:r, pay, =b, read, deny\n",
        ),
        // No moment is in both the day and the window.
        (
            "p, role:r, pay, =a, read, allow\n",
            "p, role:r, pay, =a, read, allow\np, role:r, pay, =b, read, allow, from=2026-03-02T08:00:00Z;until=2026-03-02T09:00:00Z;time=Tue@08:00-09:00\n",
        ),
    ] {
        assert_eq!(lines((old, roles), (new, roles)), [""; 0], "{new}");
    }
}

#[test]
fn a_change_that_shows_in_company_only_is_told() {
    let old = "p, group:g, pay, =a, read, allow\np, group:h, pay, =a, read, deny\n";
    assert_eq!(
        lines((old, ""), ("p, group:g, pay, =a, read, allow\n", "")),
        ["pay: group:g with group:h gains read =a"]
    );
}

/// Refusing a range and leaving keys out of it are different rights.
#[test]
fn a_row_that_hides_instead_of_refusing_is_a_difference() {
    let bundle = |on_partial: &str| {
        let rows = format!(
            "p, user:a, pay, /a/*, readwrite, allow\np, user:a, pay, /a/x/*, readwrite, deny{on_partial}\n"
        );
        bundles::bundle(&rows, "")
    };
    let told = |before: &str, after: &str| -> Vec<String> {
        let (before, after) = (bundle(before), bundle(after));
        diff(&before, &after).iter().map(ToString::to_string).collect()
    };
    let filter = ", on_partial=filter";
    assert_eq!(told("", filter), ["pay: user:a may ask around, without seeing, read /a/x/*"]);
    assert_eq!(told(filter, ""), ["pay: user:a may no longer ask around read /a/x/*"]);
    assert!(told("", ", on_partial=reject").is_empty() && told(filter, filter).is_empty());
}

/// A user who is a member of a role, or whom every tenant's rows name, is as new as one with rows of its own.
#[test]
fn newcomers_are_users_whom_the_old_bundle_gave_nothing() {
    let rows = "p, user:old, pay, /a/*, read, allow\np, user:bound, pay, /a/*, read, deny\n";
    let old = bundles::bundle(rows, "");
    let more = "p, user:old, pay, /b/*, read, allow\np, user:bound, pay, /b/*, read, allow\n\
                p, user:kept, pay, /b/*, read, deny\np, group:g, pay, /b/*, read, allow\n\
                p, user:*, pay, /c/*, read, allow\np, role:r, pay, /b/*, read, allow\n\
                p, user:all, *, /b/*, read, allow\np, user:old, *, /b/*, read, allow\n";
    let new = bundles::bundle(&format!("{rows}{more}"), "g, user:member, role:r, pay\n");
    let found = newcomers(&old, &new);
    assert_eq!(
        found.named,
        BTreeMap::from([("pay".to_owned(), vec!["all".into(), "bound".into(), "member".into()])])
    );
    assert_eq!(found.elsewhere, ["all", "old"]);
    assert!(newcomers(&new, &new).is_empty() && newcomers(&new, &old).is_empty());
}
