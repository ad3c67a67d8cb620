//! Compiled bundles decide as casbin does: random bundles, callers, circumstances and requests. casbin is
//! given every row of the bundle and evaluates conditions itself, by functions of its own reading.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod bundles;
#[path = "bundles/generated.rs"]
mod generated;

use generated::{GROUPS, Generator, TENANTS, USERS};
use keygate_core::{Asking, Groups, KeyAction, KeyRange, Origin, Rules as _, Ruling, Sight};
use keygate_policies::bundle::{Action, Bundle, Context, Draft};
use keygate_policies::{Asker, BundleOracle, BundlePolicy, OracleAnswer, OracleCaller, Outcome};
use rand::Rng;
use std::collections::HashMap;
use std::sync::Arc;

const PAIRS: u64 = 200_000;
const QUESTIONS_PER_BUNDLE: u64 = 100;

#[derive(Default)]
struct Counts {
    bundles: u64,
    refused: u64,
    casbin: u64,
    answers: [u64; 3],
}

#[test]
fn compiled_bundles_decide_as_casbin_does() {
    let workers = 2;
    let counts: Vec<Counts> = std::thread::scope(|scope| {
        let started: Vec<_> =
            (0..workers).map(|seed| scope.spawn(move || compare(seed, PAIRS / workers))).collect();
        started.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let sum = |field: fn(&Counts) -> u64| counts.iter().map(field).sum::<u64>();
    let answers = [sum(|c| c.answers[0]), sum(|c| c.answers[1]), sum(|c| c.answers[2])];
    let pairs: u64 = answers.iter().sum();
    println!(
        "pairs={pairs} bundles={} refused={} casbin={} allow={} filter={} deny={}",
        sum(|c| c.bundles),
        sum(|c| c.refused),
        sum(|c| c.casbin),
        answers[0],
        answers[1],
        answers[2]
    );
    assert!(pairs >= PAIRS && sum(|c| c.casbin) >= PAIRS / 2);
    assert!(
        answers[0] >= PAIRS / 20 && answers[1] >= PAIRS / 1_000 && answers[2] >= PAIRS / 20,
        "{answers:?}"
    );
}

fn compare(seed: u64, pairs: u64) -> Counts {
    let mut generator = Generator::new(seed);
    let mut counts = Counts::default();
    let mut done = 0;
    while done < pairs {
        let texts = generator.texts(30);
        let files = bundles::files(&texts.policy.join("\n"), &texts.roles.join("\n"), "");
        let Ok(bundle) = Draft::read(&files).into_bundle() else {
            counts.refused += 1;
            assert!(counts.refused < 100 + counts.bundles, "most random bundles are refused: {texts:?}");
            continue;
        };
        counts.bundles += 1;
        done += ask(&mut generator, bundle, &mut counts);
    }
    counts
}

fn ask(generator: &mut Generator, bundle: Bundle, counts: &mut Counts) -> u64 {
    let bundle = Arc::new(bundle);
    let policy = BundlePolicy::compile(bundle.clone());
    let mut callers = Vec::new();
    for tenant in TENANTS {
        for user in USERS {
            let groups =
                GROUPS.into_iter().filter(|_| generator.rng.random_bool(0.4)).map(str::to_owned).collect();
            callers.push(OracleCaller { tenant: tenant.to_owned(), user: user.to_owned(), groups });
        }
    }
    let oracle = BundleOracle::new(&bundle, &callers).unwrap();
    let mut known = HashMap::new();
    for _ in 0..QUESTIONS_PER_BUNDLE {
        let number = generator.rng.random_range(0..callers.len());
        let caller = &callers[number];
        let (context, (action, keys)) = (generator.context(), generator.question());
        let groups: Vec<&str> = caller.groups.iter().map(String::as_str).collect();
        let asker = Asker { tenant: &caller.tenant, user: &caller.user, groups: &groups };
        let decided = policy.decide(&asker, &context, action, &keys);
        let expected =
            *known.entry((number, format!("{context:?}{action:?}{keys:?}"))).or_insert_with(|| {
                counts.casbin += 1;
                oracle.ask(number, &caller.tenant, &context, action, &keys).unwrap()
            });
        let same = match decided.outcome {
            Outcome::Allow => OracleAnswer::Allow,
            Outcome::Filter => OracleAnswer::Filter,
            Outcome::Deny => OracleAnswer::Deny,
        };
        assert_eq!(
            same,
            expected,
            "{caller:?} {context:?} {action:?} {keys:?} under {:#?} {:#?}",
            bundle.rows().iter().map(ToString::to_string).collect::<Vec<_>>(),
            bundle.links().iter().map(ToString::to_string).collect::<Vec<_>>()
        );
        check_row(&policy, decided, action, &keys);
        check_hidden(&policy, &asker, &context, action, &keys);
        check_server(&policy, caller, &context, action, &keys, decided.outcome);
        counts.answers[decided.outcome as usize] += 1;
    }
    QUESTIONS_PER_BUNDLE
}

/// A server, which asks as a [`Rules`], is told the same: hidden keys only for reads that can leave them out.
fn check_server(
    policy: &BundlePolicy,
    caller: &OracleCaller,
    context: &Context,
    action: Action,
    keys: &KeyRange,
    outcome: Outcome,
) {
    let groups: Groups = caller.groups.iter().map(|group| group.as_str().into()).collect();
    let asking = Asking {
        tenant: &caller.tenant,
        name: &caller.user,
        groups: &groups,
        origin: Origin { source: context.source, connection: context.connection },
        now: context.now.unwrap().0,
    };
    let key_action = match action {
        Action::Read => KeyAction::Read,
        Action::Write => KeyAction::Write,
        Action::Verb(_) => return,
    };
    // What no row allows is not denied there: other tables may allow it.
    let whole = policy.keys(&asking, key_action, keys) == Ruling::Allow;
    assert_eq!(whole, outcome == Outcome::Allow, "{keys:?}");
    if action == Action::Read {
        let told = policy.sight(&asking, keys);
        let hidden = policy
            .explain(
                &Asker {
                    tenant: &caller.tenant,
                    user: &caller.user,
                    groups: &caller.groups.iter().map(String::as_str).collect::<Vec<_>>(),
                },
                context,
                action,
                keys,
            )
            .hidden;
        assert_eq!(told.ruling == Ruling::Allow, outcome != Outcome::Deny, "{keys:?}");
        if outcome != Outcome::Deny {
            assert_eq!(told.sight, Sight::without(hidden), "{keys:?}");
            assert_eq!(told.sight.is_whole(), outcome == Outcome::Allow, "{keys:?}");
        }
    }
}

/// The row that a decision names has to do with the request.
fn check_row(
    policy: &BundlePolicy,
    decided: keygate_policies::Decision,
    action: keygate_policies::bundle::Action,
    keys: &keygate_core::KeyRange,
) {
    use keygate_policies::bundle::Effect;
    let Some(row) = decided.row else {
        assert_eq!(decided.outcome, Outcome::Deny);
        return;
    };
    let row = policy.row(row).unwrap();
    assert!(row.action.includes(action));
    match decided.outcome {
        Outcome::Allow => assert!(row.effect == Effect::Allow && row.keys.contains(keys.start())),
        Outcome::Filter | Outcome::Deny => assert!(matches!(row.effect, Effect::Deny(_))),
    }
}

/// Of a filtered range, exactly the keys are hidden that are denied by themselves.
fn check_hidden(
    policy: &BundlePolicy,
    asker: &Asker<'_>,
    context: &keygate_policies::bundle::Context,
    action: keygate_policies::bundle::Action,
    keys: &keygate_core::KeyRange,
) {
    let told = policy.explain(asker, context, action, keys);
    if told.decision.outcome != Outcome::Filter {
        assert!(told.hidden.is_empty());
        return;
    }
    let edges = policy.bundle().rows().iter().flat_map(|row| [row.keys.start().clone(), row.keys.wire_end()]);
    let after = |key: &bytes::Bytes| bytes::Bytes::from([key.as_ref(), b"\0"].concat());
    let edges: Vec<bytes::Bytes> =
        edges.flat_map(|key| [after(&key), key]).chain([keys.start().clone()]).collect();
    for key in edges.into_iter().filter(|key| keys.contains(key)) {
        let alone = policy.decide(asker, context, action, &keygate_core::KeyRange::Single(key.clone()));
        let hidden = told.hidden.iter().any(|range| range.contains(&key));
        assert_eq!(alone.outcome == Outcome::Deny, hidden, "{key:?} {keys:?} {:?}", told.hidden);
    }
}
