//! `diff`.

use std::path::PathBuf;

use keygate_policies::{
    Delta, Outcome,
    bundle::{Action, Bundle, RangeText},
    diff as diff_bundles,
};
use serde_json::{Value, json};

use super::check::outcome_name;
use super::live::{bundle_files, usable, with_server};
use super::newcomers::{InForce, Newcomers};
use super::{Output, Server, Unusable, Verdict, read, say, unusable};

pub(super) fn diff(bundles: &[PathBuf], server: &Server) -> Result<Verdict, Unusable> {
    let output = server.output;
    let (old, new, newcomers) = match bundles {
        [old, new] => {
            let (old, new) = (read(old, output)?, read(new, output)?);
            let newcomers = Newcomers::unasked(&old, &new);
            (old, new, newcomers)
        }
        [new] => {
            let new = read(new, output)?;
            with_server(server, |mut client| async move {
                let old = usable(&bundle_files(&mut client, output).await?, output)?;
                let newcomers = Newcomers::of(&mut client, &old, &new, output).await?;
                Ok((old, new, newcomers))
            })?
        }
        _ => return Err(unusable(output, "say one bundle or two")),
    };
    let deltas = diff_bundles(&old, &new);
    let mut json = json!({ "equivalent": deltas.is_empty(), "deltas": deltas_json(&deltas) });
    json["first_rights"] = newcomers.json();
    newcomers.warn(output, InForce::NotYet);
    Ok(say_deltas(&deltas, &json, output))
}

/// A user of this name has a keyspace's own rights wherever users log in, whatever a bundle says: that is no drift.
const ROOT: &str = "user:root";

pub(super) fn drift(bundle: &Bundle, all: &Bundle, output: Output) -> Verdict {
    let mut deltas = diff_bundles(bundle, all);
    deltas.retain(|delta| {
        let roots_own = delta.who.iter().all(|who| who == ROOT) && delta.after == Outcome::Allow;
        !roots_own
    });
    let json = json!({ "equivalent": deltas.is_empty(), "deltas": deltas_json(&deltas) });
    say_deltas(&deltas, &json, output)
}

/// Nothing, if the two are equivalent.
fn say_deltas(deltas: &[Delta], json: &Value, output: Output) -> Verdict {
    match output {
        Output::Text => say(&deltas.iter().map(|delta| format!("{delta}\n")).collect::<String>()),
        Output::Json => say(&format!("{json:#}\n")),
    }
    if deltas.is_empty() { Verdict::Fine } else { Verdict::Found }
}

fn deltas_json(deltas: &[Delta]) -> Vec<Value> {
    deltas.iter().map(delta_json).collect()
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
