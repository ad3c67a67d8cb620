//! Decisions by a bundle, and the reasons given for them.

mod bundles;

use keygate_policies::bundle::{Context, Request};
use keygate_policies::{Asker, BundlePolicy, Missing, Outcome};
use std::sync::Arc;

const POLICY: &str = "\
p, role:writer, pay, /pay/*, readwrite, allow
p, role:writer, pay, [/pay0, /pay5), read, allow
p, user:*, *, /pay/secret/*, read, deny, on_partial=filter
p, user:*, pay, =/pay/root, readwrite, deny
p, group:ops, *, -, compact, allow
p, group:ops, pay, /ops/*, write, allow, source=10.0.0.0/8;connection=mtls
p, user:temp, pay, /tmp/*, read, allow, until=2026-06-01T00:00:00Z
p, user:temp, pay, /tmp/x/*, read, deny, source=10.0.0.0/8
p, role:base, *, /base/*, read, allow
";
const ROLES: &str = "\
g, user:svc, role:lead, pay
g, role:lead, role:writer, pay
g, group:ops, role:base, *
g, role:writer, role:base, pay
";

struct Told<'a> {
    tenant: &'a str,
    user: &'a str,
    groups: &'a [&'a str],
}

const SVC: Told<'_> = Told { tenant: "pay", user: "svc", groups: &[] };
const OPS: Told<'_> = Told { tenant: "pay", user: "x", groups: &["ops"] };
const TEMP: Told<'_> = Told { tenant: "pay", user: "temp", groups: &[] };

fn policy() -> BundlePolicy {
    BundlePolicy::compile(Arc::new(bundles::bundle(POLICY, ROLES)))
}

fn context(source: &str, now: &str, connection: &str) -> Context {
    Context {
        source: source.parse().ok(),
        now: now.parse().ok(),
        connection: keygate_policies::bundle::Connection::from_name(connection),
    }
}

#[test]
fn decisions_and_the_lines_that_made_them() {
    let policy = policy();
    let inside = context("10.1.1.1", "2026-01-01T00:00:00Z", "mtls");
    let outside = context("192.168.1.1", "2026-06-01T00:00:00Z", "mtls");
    let untold = Context::default();
    let (allow, filter, deny) = (Outcome::Allow, Outcome::Filter, Outcome::Deny);
    for (told, context, request, outcome, line) in [
        (&SVC, &inside, "put /pay/a", allow, 1),
        (&SVC, &inside, "get /pay/a", allow, 1),
        // Together, two rows cover it; without a deny row in the way.
        (&SVC, &inside, "range [/pay/z, /pay1)", allow, 1),
        (&SVC, &inside, "range [/pay/z, /pay6)", deny, 0),
        (&SVC, &inside, "delete [/pay/z, /pay1)", deny, 0),
        // The roles' roles.
        (&SVC, &inside, "get /base/a", allow, 9),
        (&SVC, &inside, "get /pay/root", deny, 4),
        (&SVC, &inside, "range /pay/*", deny, 4),
        (&SVC, &inside, "range [/pay/s, /pay0)", filter, 3),
        (&SVC, &inside, "get /pay/secret/x", deny, 3),
        (&SVC, &inside, "range /pay/secret/*", deny, 3),
        (&SVC, &inside, "put /pay/secret/x", allow, 1),
        (&SVC, &inside, "compact", deny, 0),
        // A range without keys is decided as the key that it starts with.
        (&SVC, &inside, "put /pay/", allow, 1),
        (&OPS, &inside, "compact", allow, 5),
        (&OPS, &inside, "hash", deny, 0),
        (&OPS, &inside, "put /ops/a", allow, 6),
        (&OPS, &outside, "put /ops/a", deny, 0),
        (&OPS, &untold, "put /ops/a", deny, 0),
        (&OPS, &inside, "get /base/x", allow, 9),
        (&TEMP, &inside, "get /tmp/a", allow, 7),
        (&TEMP, &outside, "get /tmp/a", deny, 0),
        (&TEMP, &inside, "get /tmp/x/a", deny, 8),
        (&TEMP, &untold, "get /tmp/x/a", deny, 8),
        (&Told { tenant: "other", ..OPS }, &inside, "compact", allow, 5),
        (&Told { tenant: "other", ..OPS }, &inside, "get /base/x", allow, 9),
        (&Told { tenant: "other", ..SVC }, &inside, "get /base/x", deny, 0),
        (&Told { tenant: "other", ..SVC }, &inside, "put /pay/a", deny, 0),
        (&Told { user: "role:writer", ..SVC }, &inside, "put /pay/a", deny, 0),
        (&Told { user: "*", ..SVC }, &inside, "put /pay/a", deny, 0),
    ] {
        let read: Request = request.parse().unwrap();
        let asker = Asker { tenant: told.tenant, user: told.user, groups: told.groups };
        let decided = policy.decide(&asker, context, read.action, &read.keys);
        let found = decided.row.and_then(|row| policy.row(row)).map_or(0, |row| row.line);
        assert_eq!((decided.outcome, found), (outcome, line), "{}@{} {request}", told.user, told.tenant);
    }
}

#[test]
fn ranges_that_hold_no_key_are_decided_as_their_start() {
    let policy = policy();
    let asker = Asker { tenant: "pay", user: "svc", groups: &[] };
    for (start, outcome) in
        [("/pay/a", Outcome::Allow), ("/pay/root", Outcome::Deny), ("/other", Outcome::Deny)]
    {
        let keys = keygate_core::KeyRange::Span { start: start.into(), end: "/a".into() };
        let decided =
            policy.decide(&asker, &Context::default(), keygate_policies::bundle::Action::Write, &keys);
        assert_eq!(decided.outcome, outcome, "{start}");
    }
}

#[test]
fn explanations_name_what_is_nearest() {
    let policy = policy();
    let context = context("192.168.1.1", "2026-06-01T00:00:00Z", "mtls");
    for (told, request, line, missing) in [
        (&OPS, "put /ops/a", 6, vec![Missing::Conditions]),
        (&OPS, "get /ops/a", 6, vec![Missing::Conditions, Missing::Action]),
        (&TEMP, "get /tmp/a", 7, vec![Missing::Conditions]),
        (&TEMP, "put /pay/a", 1, vec![Missing::Subject]),
        (&SVC, "range /pa*", 1, vec![Missing::Keys]),
        (&SVC, "compact", 5, vec![Missing::Subject]),
    ] {
        let read: Request = request.parse().unwrap();
        let asker = Asker { tenant: told.tenant, user: told.user, groups: told.groups };
        let nearest = policy.explain(&asker, &context, read.action, &read.keys).nearest.expect(request);
        let found = policy.row(nearest.row).unwrap().line;
        assert_eq!((found, nearest.missing), (line, missing), "{request}");
    }
    let read: Request = "range [/pay/z, /pay6)".parse().unwrap();
    let asker = Asker { tenant: "pay", user: "svc", groups: &[] };
    let told = policy.explain(&asker, &context, read.action, &read.keys);
    assert_eq!(told.uncovered, keygate_policies::bundle::key_range("[/pay5, /pay6)").ok());
    assert_eq!(told.matched, [0, 1]);
    let read: Request = "range [/pay/s, /pay0)".parse().unwrap();
    let told = policy.explain(&asker, &context, read.action, &read.keys);
    assert_eq!(told.hidden, [keygate_policies::bundle::key_range("/pay/secret/*").unwrap()]);
    assert_eq!((told.uncovered, told.nearest), (None, None));
}

#[test]
fn decisions_stay_the_same_until_the_moment_that_is_named() {
    let policy = BundlePolicy::compile(Arc::new(bundles::bundle(
        "p, user:u, t, /a/*, read, allow, until=2026-06-01T00:00:00Z\n\
         p, user:u, t, /b/*, read, allow, time=Mon-Fri@08:00-18:30|Sun@23:00-01:00\n\
         p, user:u, t, /c/*, read, deny, from=2026-03-04T12:00:30Z\n\
         p, user:u, t, /c/*, read, allow\n\
         p, user:other, t, *, read, allow, until=2026-03-03T00:00:00Z\n",
        "",
    )));
    let asker = Asker { tenant: "t", user: "u", groups: &[] };
    let outcomes = |now| {
        let context = Context { now: Some(now), ..Context::default() };
        ["/a/", "/b/", "/c/"].map(|key| {
            let keys = keygate_core::KeyRange::Single(key.into());
            policy.decide(&asker, &context, keygate_policies::bundle::Action::Read, &keys).outcome
        })
    };
    let mut now: keygate_policies::bundle::Instant = "2026-03-02T07:59:50Z".parse().unwrap();
    let last: keygate_policies::bundle::Instant = "2026-06-03T00:00:00Z".parse().unwrap();
    let mut changes = 0;
    while now < last {
        let context = Context { now: Some(now), ..Context::default() };
        let until = policy.decided_until(&asker, &context, keygate_policies::bundle::Action::Read).unwrap();
        assert!(now < until, "{now}");
        for second in (now.0..until.0).step_by(601) {
            assert_eq!(outcomes(keygate_policies::bundle::Instant(second)), outcomes(now), "{now} {second}");
        }
        let before = keygate_policies::bundle::Instant(until.0 - 1);
        assert_eq!(outcomes(before), outcomes(now), "{now}");
        changes += u32::from(outcomes(until) != outcomes(now));
        now = until;
    }
    // Twelve edges in each of thirteen weeks, two more, and the end of a day that joins the next.
    assert!(changes > 13 * 12, "{changes}");
    let never = Asker { user: "nobody", ..asker };
    let context = Context { now: Some(now), ..Context::default() };
    assert_eq!(policy.decided_until(&never, &context, keygate_policies::bundle::Action::Read), None);
}

#[test]
fn equal_bundles_name_equal_rows() {
    let groups: Vec<String> = (0..40).map(|number| format!("g{number}")).collect();
    let rows = |effect| {
        groups.iter().map(move |group| format!("p, group:{group}, t, *, read, {effect}\n")).collect()
    };
    let asked: Vec<&str> = groups.iter().map(String::as_str).collect();
    let asker = Asker { tenant: "t", user: "u", groups: &asked };
    let everything = keygate_core::KeyRange::everything();
    for effect in ["allow", "deny"] {
        let text: String = rows(effect);
        for _ in 0..20 {
            let policy = BundlePolicy::compile(Arc::new(bundles::bundle(&text, "")));
            let decided = policy.decide(
                &asker,
                &Context::default(),
                keygate_policies::bundle::Action::Read,
                &everything,
            );
            assert_eq!(decided.row, Some(0));
        }
    }
    // A role's rows come in the bundle's order too, whichever way it is held.
    let text: String = (0..40).map(|number| format!("p, role:r{number}, t, *, read, deny\n")).collect();
    let roles: String = (0..40).rev().map(|number| format!("g, user:u, role:r{number}, t\n")).collect();
    for _ in 0..20 {
        let policy = BundlePolicy::compile(Arc::new(bundles::bundle(&text, &roles)));
        let asker = Asker { tenant: "t", user: "u", groups: &[] };
        let decided =
            policy.decide(&asker, &Context::default(), keygate_policies::bundle::Action::Read, &everything);
        assert_eq!(decided.row, Some(0));
    }
}
