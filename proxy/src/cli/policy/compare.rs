//! `diff`.

use std::path::Path;

use keygate_policies::{
    Delta,
    bundle::{Action, RangeText},
    diff as diff_bundles,
};
use serde_json::{Value, json};

use super::{Output, Unusable, Verdict, check::outcome_name, read, say};

pub(super) fn diff(old: &Path, new: &Path, output: Output) -> Result<Verdict, Unusable> {
    Ok(say_deltas(&diff_bundles(&read(old, output)?, &read(new, output)?), output))
}

/// Nothing, if the two are equivalent.
pub(super) fn say_deltas(deltas: &[Delta], output: Output) -> Verdict {
    match output {
        Output::Text => say(&deltas.iter().map(|delta| format!("{delta}\n")).collect::<String>()),
        Output::Json => {
            let all: Vec<Value> = deltas.iter().map(delta_json).collect();
            say(&format!("{:#}\n", json!({ "equivalent": deltas.is_empty(), "deltas": all })));
        }
    }
    if deltas.is_empty() { Verdict::Fine } else { Verdict::Found }
}

fn delta_json(delta: &Delta) -> Value {
    let keys = match delta.action {
        Action::Verb(_) => None,
        Action::Read | Action::Write => Some(RangeText(&delta.keys).to_string()),
    };
    json!({
        "tenant": delta.tenant,
        "who": delta.who,
        "action": delta.action.name(),
        "keys": keys,
        "when": delta.when.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "before": outcome_name(delta.before),
        "after": outcome_name(delta.after),
    })
}
