//! `explain`, `can-i` and `who-can`.

use std::{path::Path, sync::Arc};

use keygate_policies::{
    Asker, BundlePolicy, Decision, Explanation, Outcome, RowId,
    bundle::{Conditions, Connection, Context, Effect, Instant, OnPartial, RangeText, Request},
    who_can as holders_of,
};
use keygate_proto::admin as pb;
use serde_json::{Value, json};

use super::{
    Caller, Output, Server, Unusable, Verdict, check::outcome_name, live, live::OfCaller, now, read, request,
    row_json, say, unusable,
};

/// What was asked, and what came of it.
struct Answer {
    policy: Arc<BundlePolicy>,
    request: Request,
    explanation: Explanation,
    why: Option<NoRow>,
}

/// What decides where no row does.
#[derive(Clone, Copy)]
enum NoRow {
    /// Neither the Auth API nor the bundle knows the caller.
    Unknown,
    /// The right is over what all tenants share, and the caller is in one of them.
    OfThePlatform,
    Everybodys,
    NotAllowed,
}

impl NoRow {
    fn name(self) -> &'static str {
        match self {
            Self::Unknown => "no user of this name is there, and no row names it or a group of it",
            Self::OfThePlatform => "no row of a tenant gives what is the platform's",
            Self::Everybodys => "no row: every user may, unless a row denies it",
            Self::NotAllowed => "no row: what no row allows is denied",
        }
    }
}

/// What is asked, about whom.
struct Question<'a> {
    policy: &'a Arc<BundlePolicy>,
    asker: Asker<'a>,
    context: Context,
    /// A server has a user of this name; true where none was asked.
    is_user: bool,
}

impl Question<'_> {
    fn answer(&self, request: Request) -> Answer {
        let Self { policy, asker, context, is_user } = self;
        let action = request.action;
        let mut explanation = policy.explain(asker, context, action, &request.keys);
        let why = if !is_user && !policy.names(asker) {
            // Rows for everybody are for everybody who is known.
            explanation.decision = Decision { outcome: Outcome::Deny, row: None };
            (explanation.matched, explanation.uncovered) = (Vec::new(), None);
            (explanation.hidden, explanation.nearest) = (Vec::new(), None);
            Some(NoRow::Unknown)
        } else if explanation.decision.row.is_some() {
            None
        } else if action.is_idle_in(asker.tenant) {
            Some(NoRow::OfThePlatform)
        } else if explanation.decision.outcome == Outcome::Allow {
            Some(NoRow::Everybodys)
        } else {
            Some(NoRow::NotAllowed)
        };
        Answer { policy: (*policy).clone(), request, explanation, why }
    }
}

fn answer(caller: &Caller) -> Result<Answer, Unusable> {
    let output = caller.output;
    let user = caller.user.as_deref().ok_or_else(|| unusable(output, "say who asks: `--user NAME`"))?;
    let request = request(&caller.request, output)?;
    let OfCaller { bundle, is_user } = match &caller.bundle {
        Some(path) => OfCaller { bundle: read(path, output)?, is_user: true },
        None => {
            let server = Server { remote: caller.reach.with_user_of_environment(), output };
            live::of_caller(&server, &caller.tenant, user)?
        }
    };
    let policy = Arc::new(BundlePolicy::compile(Arc::new(bundle)));
    let groups: Vec<&str> = caller.group.iter().map(String::as_str).collect();
    let asker = Asker { tenant: &caller.tenant, user, groups: &groups };
    let context = Context {
        source: caller.source,
        now: Some(caller.at.unwrap_or_else(now)),
        connection: caller.connection,
    };
    Ok(Question { policy: &policy, asker, context, is_user }.answer(request))
}

fn verdict(outcome: Outcome) -> Verdict {
    match outcome {
        Outcome::Allow => Verdict::Fine,
        // Not everything that was asked for.
        Outcome::Filter | Outcome::Deny => Verdict::Found,
    }
}

pub(super) fn can_i(caller: &Caller) -> Result<Verdict, Unusable> {
    let answer = answer(caller)?;
    let outcome = answer.explanation.decision.outcome;
    match caller.output {
        Output::Text => say(match outcome {
            Outcome::Allow => "yes\n",
            Outcome::Filter => "partial\n",
            Outcome::Deny => "no\n",
        }),
        Output::Json => say(&format!(
            "{:#}\n",
            json!({
                "request": answer.request.to_string(),
                "outcome": match outcome {
                    Outcome::Allow | Outcome::Deny => outcome_name(outcome),
                    Outcome::Filter => "partial",
                },
                "hidden": hidden_json(&answer.explanation),
            })
        )),
    }
    Ok(verdict(outcome))
}

pub(super) fn explain(caller: &Caller) -> Result<Verdict, Unusable> {
    if let (None, [id]) = (&caller.user, caller.request.as_slice())
        && let Ok(decision) = u64::from_str_radix(id, 16)
    {
        return denial(caller, decision);
    }
    let answer = answer(caller)?;
    match caller.output {
        Output::Text => say(&explanation_text(&answer)),
        Output::Json => say(&format!("{:#}\n", explanation_json(&answer))),
    }
    Ok(verdict(answer.explanation.decision.outcome))
}

/// Explains a denial of a server by what is in force there now.
fn denial(caller: &Caller, decision: u64) -> Result<Verdict, Unusable> {
    let output = caller.output;
    let server = Server { remote: caller.reach.with_user_of_environment(), output };
    let told = live::with_server(&server, |mut client| async move {
        let asked = client.denial(pb::PolicyDenialRequest { decision }).await;
        Ok(asked.map_err(|status| live::refused(output, status))?.into_inner())
    })?;
    let OfCaller { bundle, is_user } = live::of_caller(&server, &told.tenant, &told.user)?;
    let policy = Arc::new(BundlePolicy::compile(Arc::new(bundle)));
    let groups: Vec<&str> = told.groups.iter().map(String::as_str).collect();
    let asker = Asker { tenant: &told.tenant, user: &told.user, groups: &groups };
    let context = Context {
        source: told.source.parse().ok(),
        now: Some(Instant(told.at)),
        connection: Connection::from_name(&told.connection),
    };
    let question = Question { policy: &policy, asker, context, is_user };
    let mut answers = Vec::new();
    for text in &told.requests {
        answers.push(question.answer(text.parse().map_err(|error| unusable(output, error))?));
    }
    match output {
        Output::Text => {
            let mut text = format!(
                "{} at {}, by {}@{} from {} ({}), under policy revision {}\n",
                told.method,
                Instant(told.at),
                if told.user.is_empty() { "nobody" } else { &told.user },
                told.tenant,
                if told.source.is_empty() { "an unknown address" } else { &told.source },
                told.connection,
                told.policy_revision
            );
            answers.iter().for_each(|answer| text.push_str(&explanation_text(answer)));
            told.lacking.iter().for_each(|lacks| text.push_str(&format!("not held    {lacks}\n")));
            if !told.lacking.is_empty() {
                text.push_str("nobody hands on what they do not hold: the verb `escalate` would allow it\n");
            }
            say(&text);
        }
        Output::Json => say(&format!(
            "{:#}\n",
            json!({
                "method": told.method,
                "at": Instant(told.at).to_string(),
                "tenant": told.tenant,
                "user": told.user,
                "groups": told.groups,
                "source": told.source,
                "connection": told.connection,
                "policy_revision": told.policy_revision,
                "not_held": told.lacking,
                "requests": answers.iter().map(explanation_json).collect::<Vec<_>>(),
            })
        )),
    }
    Ok(Verdict::Found)
}

fn explanation_text(Answer { policy, request, explanation, why }: &Answer) -> String {
    let line =
        |id: RowId| policy.row(id).map(|row| format!("policy.csv:{}: {row}", row.line)).unwrap_or_default();
    let decision = explanation.decision;
    let mut text = format!("{request}: {}\n", outcome_name(decision.outcome));
    let filters = |id: RowId| {
        let row = policy.row(id).filter(|_| decision.outcome == Outcome::Filter);
        row.is_some_and(|row| matches!(row.effect, Effect::Deny(OnPartial::Filter)))
    };
    match decision.row {
        Some(row) if filters(row) => {}
        Some(row) => text.push_str(&format!("decided by  {}\n", line(row))),
        None => {
            text.push_str(&format!("decided by  {}\n", why.map_or("no row", NoRow::name)));
        }
    }
    for row in explanation.matched.iter().filter(|row| filters(**row)) {
        text.push_str(&format!("filtered by row {}\n", line(*row)));
    }
    for row in explanation.matched.iter().filter(|row| Some(**row) != decision.row && !filters(**row)) {
        text.push_str(&format!("matched     {}\n", line(*row)));
    }
    if let Some(keys) = explanation.uncovered.as_ref().filter(|_| !explanation.matched.is_empty()) {
        text.push_str(&format!("uncovered   {}\n", RangeText(keys)));
    }
    for keys in &explanation.hidden {
        text.push_str(&format!("hidden      {}\n", RangeText(keys)));
    }
    if let Some(nearest) = &explanation.nearest {
        let missing: Vec<&str> = nearest.missing.iter().map(|missing| missing.name()).collect();
        text.push_str(&format!("nearest     {} (does not fit: {})\n", line(nearest.row), missing.join(", ")));
    }
    let bundle = policy.bundle();
    text.push_str(&format!("bundle      revision {}, {}\n", bundle.revision(), bundle.digest()));
    text
}

fn explanation_json(Answer { policy, request, explanation, why }: &Answer) -> Value {
    let row = |id: RowId| policy.row(id).map(row_json);
    let nearest = explanation.nearest.as_ref().map(|nearest| {
        let missing: Vec<&str> = nearest.missing.iter().map(|missing| missing.name()).collect();
        json!({ "row": row(nearest.row), "missing": missing })
    });
    json!({
        "request": request.to_string(),
        "outcome": outcome_name(explanation.decision.outcome),
        "by": explanation.decision.row.and_then(row),
        "no_row": why.map(NoRow::name),
        "matched": explanation.matched.iter().filter_map(|id| row(*id)).collect::<Vec<_>>(),
        "uncovered": explanation.uncovered.as_ref().map(|keys| RangeText(keys).to_string()),
        "hidden": hidden_json(explanation),
        "nearest": nearest,
        "revision": policy.bundle().revision(),
        "digest": policy.bundle().digest(),
    })
}

fn hidden_json(explanation: &Explanation) -> Vec<String> {
    explanation.hidden.iter().map(|keys| RangeText(keys).to_string()).collect()
}

/// Nothing for what always holds.
fn when_text(circumstances: &[Conditions]) -> String {
    let when: Vec<String> = circumstances.iter().map(ToString::to_string).collect();
    if when.iter().any(|text| !text.is_empty()) {
        format!(" when {}", when.join(" or "))
    } else {
        String::new()
    }
}

pub(super) fn who_can(
    path: Option<&Path>,
    tenant: &str,
    words: &[String],
    server: &Server,
) -> Result<Verdict, Unusable> {
    let output = server.output;
    let request = request(words, output)?;
    let bundle = match path {
        Some(path) => read(path, output)?,
        None => live::of_tenant(server, tenant)?,
    };
    let policy = BundlePolicy::compile(Arc::new(bundle));
    let holders = holders_of(&policy, tenant, &request);
    match output {
        Output::Text => {
            let mut text = String::new();
            for holder in &holders {
                text.push_str(&format!("{}{}", holder.who, when_text(&holder.when)));
                if !holder.partly.is_empty() {
                    let joint = if holder.when.is_empty() { "" } else { "," };
                    text.push_str(&format!("{joint} partial{}", when_text(&holder.partly)));
                }
                if holder.rows.is_empty() {
                    text.push_str("  (every user, unless a row denies it)\n");
                    continue;
                }
                let lines: Vec<String> = holder
                    .rows
                    .iter()
                    .filter_map(|id| policy.row(*id))
                    .map(|row| row.line.to_string())
                    .collect();
                text.push_str(&format!("  (policy.csv:{})\n", lines.join(",")));
            }
            say(&text);
        }
        Output::Json => {
            let all: Vec<Value> = holders
                .iter()
                .map(|holder| {
                    json!({
                        "who": holder.who.to_string(),
                        "when": holder.when.iter().map(ToString::to_string).collect::<Vec<_>>(),
                        "partial_when": holder.partly.iter().map(ToString::to_string).collect::<Vec<_>>(),
                        "by": holder.rows.iter().filter_map(|id| policy.row(*id)).map(row_json).collect::<Vec<_>>(),
                    })
                })
                .collect();
            say(&format!("{:#}\n", json!({ "request": request.to_string(), "tenant": tenant, "who": all })));
        }
    }
    Ok(if holders.is_empty() { Verdict::Found } else { Verdict::Fine })
}
