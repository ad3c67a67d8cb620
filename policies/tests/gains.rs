//! What a bundle gives that whoever applies it does not hold: examples, and random pairs against brute force.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod bundles;
#[path = "bundles/generated.rs"]
mod generated;

use generated::{GROUPS, Generator, KEYS, SOURCES, TENANTS, TIMES, USERS};
use keygate_core::{AdminVerb, Asking, ConnectionKind, KeyAction, KeyRange, Origin, Rules, Ruling};
use keygate_policies::bundle::{Bundle, Instant, key_range};
use keygate_policies::{Asker, BundlePolicy, gains};
use std::sync::Arc;

fn texts(gains: Vec<keygate_policies::Delta>) -> Vec<String> {
    gains.iter().map(ToString::to_string).collect()
}

/// For `ops` of the platform, in `platform`, in 2026.
fn found(old: &str, new: &str, roles: &str) -> Vec<String> {
    let giver = Asker { tenant: "default", user: "ops", groups: &["platform"] };
    let now = "2026-06-01T00:00:00Z".parse().unwrap();
    // A role of the tables lets them read what is below /tables/.
    let tables = key_range("/tables/*").unwrap();
    let own = |access: &keygate_core::Access| match access {
        keygate_core::Access::Keys { action: KeyAction::Read, range } => {
            tables.contains(range.start()) && (matches!(range, KeyRange::Single(_)) || *range == tables)
        }
        _ => false,
    };
    texts(gains(&bundles::bundle(old, ""), &bundles::bundle(new, roles), &giver, now, &own).unwrap())
}

#[test]
fn whoever_applies_a_bundle_gives_only_what_they_hold() {
    const MINE: &str = "p, group:platform, default, /a/*, readwrite, allow\np, user:ops, default, -, policy, allow\n\
                        p, user:ops, default, /night/*, read, allow, connection=mtls\n";
    const BOUND: &str = "p, user:bob, default, /secret/*, read, deny\n";
    let with = |more: &str| format!("{MINE}{BOUND}{more}");
    let none: [&str; 0] = [];
    for (new, expected) in [
        (with(""), none.as_slice()),
        // Narrower, and elsewhere nothing.
        (format!("{BOUND}p, user:ops, default, -, policy, allow\n"), &[]),
        (with("p, user:bob, default, /a/b/*, read, allow\n"), &[]),
        (with("p, user:bob, default, /tables/*, read, allow\n"), &[]),
        (with("p, user:bob, default, -, policy, allow\n"), &[]),
        (with("p, user:bob, default, /night/*, read, allow, connection=mtls\n"), &[]),
        (with("p, user:bob, default, /b/*, read, allow, until=2020-01-01T00:00:00Z\n"), &[]),
        (with("p, user:bob, pay, -, defrag, allow\n"), &[]),
        (with("p, user:bob, default, /b/*, read, deny\n"), &[]),
        // Wider, for themselves or others.
        (with("p, user:ops, default, /b/*, read, allow\n"), &["default: user:ops gains read /b/*"]),
        (
            with("p, user:bob, default, /tables/*, write, allow\n"),
            &["default: user:bob gains write /tables/*"],
        ),
        (with("p, user:bob, default, -, escalate, allow\n"), &["default: user:bob gains escalate"]),
        (with("p, user:*, default, -, auth, allow\n"), &["default: user:* gains auth"]),
        (
            with("p, user:bob, default, /night/*, read, allow\n"),
            &["default: user:bob gains read /night/* when connection=plain|tls"],
        ),
        (with("p, user:bob, pay, /a/*, read, allow\n"), &["pay: user:bob gains read /a/*"]),
        (with("p, group:platform, *, -, defrag, allow\n"), &["default: group:platform gains defrag"]),
        // What the tables allow bob is behind the deny row that goes.
        (MINE.to_owned(), &["default: user:bob gains read /secret/*"]),
    ] {
        assert_eq!(found(&with(""), &new, ""), expected, "{new}");
    }
    // Rows for every tenant are for the default one too, whether it is named or not.
    let every = "p, group:x, *, -, defrag, allow\np, group:x, *, -, compact, allow\n";
    assert_eq!(
        found("", every, ""),
        [
            "every other tenant: group:x gains compact",
            "default: group:x gains compact",
            "default: group:x gains defrag"
        ]
    );
    // Through a role; and by being named at all, where everybody may do something.
    let role = with("p, role:r, default, /b/*, write, allow\n");
    assert_eq!(
        found(&with(""), &role, "g, user:eve, role:r, default\n"),
        ["default: user:eve gains write /b/*"]
    );
    let everybody = "p, user:*, pay, /public/*, read, allow\n";
    let named = format!("{everybody}p, user:eve, pay, /x/*, read, deny\n");
    assert_eq!(found(everybody, &named, ""), ["pay: user:eve gains read /public/*"]);
    // A link for every tenant names somebody in this one too, though its role has rows in another one only.
    let elsewhere = format!("{everybody}p, role:r, other, /x/*, read, deny\n");
    assert_eq!(
        found(everybody, &elsewhere, "g, user:eve, role:r, *\n"),
        ["pay: user:eve gains read /public/*"]
    );
}

/// Four hundred conditions of three kinds make a product that no server has memory for.
#[test]
fn what_cannot_be_compared_is_told_to_be_so() {
    let rows: String = (0..400)
        .map(|n| {
            format!(
                "p, user:u{n}, pay, =/x, read, deny, source=10.{}.{}.0/24;time=Mon@{:02}:{:02}-23:59;from=2027-01-01T{:02}:{:02}:00Z\n",
                n / 200, n % 200, n / 60, n % 60, n / 60, n % 60
            )
        })
        .collect();
    let giver = Asker { tenant: "default", user: "ops", groups: &[] };
    let now = "2026-06-01T00:00:00Z".parse().unwrap();
    let (old, new) = (bundles::bundle("", ""), bundles::bundle(&rows, ""));
    assert!(gains(&old, &new, &giver, now, &|_| false).is_none());
    assert!(gains(&old, &old, &giver, now, &|_| false).unwrap().is_empty());
}

/// None: a role is held that has lost its rows.
fn compiled(texts: &generated::Texts) -> Option<BundlePolicy> {
    let (policy, roles) = (texts.policy.join("\n") + "\n", texts.roles.join("\n") + "\n");
    let bundle = Bundle::read(&bundles::files(&policy, &roles, "")).ok()?;
    Some(BundlePolicy::compile(Arc::new(bundle)))
}

/// What can be asked about.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    Key(KeyAction, &'a KeyRange),
    Verb(AdminVerb),
}

fn ruling(policy: &BundlePolicy, asking: &Asking<'_>, wanted: Wanted<'_>) -> Ruling {
    match wanted {
        Wanted::Key(action, range) => policy.keys(asking, action, range),
        Wanted::Verb(verb) => policy.admin(asking, verb),
    }
}

/// If nothing is found, then whatever tables say, nobody may do behind the change what neither they nor the giver
/// could do before it.
#[test]
fn what_nothing_is_found_about_gives_nobody_more() {
    let mut generator = Generator::new(31);
    let giver_groups: keygate_core::Groups = [Arc::from("g")].into_iter().collect();
    let companies: [keygate_core::Groups; 4] = [&[][..], &GROUPS[..1], &GROUPS[1..], &GROUPS[..]]
        .map(|names| names.iter().map(|name| Arc::from(*name)).collect());
    let keys: Vec<KeyRange> = KEYS.iter().map(|key| key_range(&format!("={key}")).unwrap()).collect();
    let now: Instant = TIMES[0].parse().unwrap();
    let (mut free, mut found, mut questions) = (0, 0, 0_u64);
    for _ in 0..1_200 {
        let old_texts = generator.texts(6);
        let new_texts = generator.changed(&old_texts);
        let (Some(old), Some(new)) = (compiled(&old_texts), compiled(&new_texts)) else { continue };
        let giver = Asker { tenant: "one", user: "alice", groups: &["g"] };
        let gained = gains(old.bundle(), new.bundle(), &giver, now, &|_| false).unwrap();
        if !gained.is_empty() {
            found += 1;
            continue;
        }
        if old_texts == new_texts {
            continue;
        }
        free += 1;
        for (tenant, source, time) in TENANTS.iter().flat_map(|tenant| {
            SOURCES[..2]
                .iter()
                .flat_map(move |source| TIMES[..3].iter().map(move |time| (*tenant, *source, *time)))
        }) {
            let origin = Origin { source: source.parse().ok(), connection: Some(ConnectionKind::Mtls) };
            let now = time.parse::<Instant>().unwrap().0;
            let asking = |name, groups| Asking { tenant, name, groups, origin, now };
            let of_giver = asking("alice", &giver_groups);
            let wanted = keys
                .iter()
                .flat_map(|key| [KeyAction::Read, KeyAction::Write].map(|action| Wanted::Key(action, key)))
                .chain([AdminVerb::Compact, AdminVerb::Hash].map(Wanted::Verb));
            for wanted in wanted {
                if tenant == "one" && ruling(&old, &of_giver, wanted) == Ruling::Allow {
                    continue;
                }
                for (name, groups) in
                    USERS.iter().flat_map(|name| companies.iter().map(move |own| (*name, own)))
                {
                    let asking = asking(name, groups);
                    for (in_tables, by_tables) in [(false, false), (true, false), (true, true)] {
                        let may = |policy: &BundlePolicy| {
                            (in_tables || policy.knows(&asking))
                                && match ruling(policy, &asking, wanted) {
                                    Ruling::Allow => true,
                                    Ruling::Deny => false,
                                    Ruling::Silent => by_tables,
                                }
                        };
                        questions += 1;
                        assert!(
                            may(&old) || !may(&new),
                            "{name} with {groups:?} in {tenant} at {time} from {source}: \
                             {old_texts:#?}\n{new_texts:#?}"
                        );
                    }
                }
            }
        }
    }
    println!("{free} pairs without a gain, {found} with one, {questions} questions");
    assert!(free > 200 && found > 200 && questions > 1_000_000);
}
