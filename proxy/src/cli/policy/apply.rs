//! `apply`, `rollback`, `log` and `show`: which policy revision is in force on a server.

use std::path::Path;

use bytes::Bytes;
use keygate_core::BUNDLE_STEP;
use keygate_policies::{
    bundle::{Bundle, Instant},
    digest_of_tar,
};
use keygate_proto::admin as pb;
use serde_json::{Value, json};

use super::live::{Client, bundle_files, refused, usable as usable_live, with_server};
use super::newcomers::{InForce, Newcomers};
use super::{Output, Server, Unusable, Verdict, open, row_json, say, unusable, usable};

pub(super) fn apply(path: &Path, expected: Option<u64>, server: &Server) -> Result<Verdict, Unusable> {
    let output = server.output;
    let files = open(path, output)?;
    // What is wrong is said here with all its lines; the server looks again.
    let new = usable(&files, path, output)?;
    let tar = Bytes::from(files.to_packed_tar().map_err(|error| unusable(output, error))?);
    let digest: Bytes = digest_of_tar(std::slice::from_ref(&tar)).0.to_vec().into();
    let (applied, newcomers) = with_server(server, |mut client| async move {
        let old = in_force(&mut client, output).await;
        let mut parts = 0;
        for start in (0..tar.len()).step_by(BUNDLE_STEP) {
            let content = tar.slice(start..tar.len().min(start + BUNDLE_STEP));
            let stage = pb::PolicyStageRequest { digest: digest.clone(), index: parts, content };
            client.stage(stage).await.map_err(|status| refused(output, status))?;
            parts += 1;
        }
        let applied = client.apply(pb::PolicyApplyRequest { digest, parts, expected }).await;
        // Not before: who takes a name while the bundle is on its way is found too.
        let newcomers = match &applied {
            Ok(_) => first_rights(&mut client, old, Ok(new), output).await,
            Err(_) => Err(String::new()),
        };
        Ok((applied, newcomers))
    })?;
    done(applied, newcomers, output)
}

/// What is in force; or why that is not known.
async fn in_force(client: &mut Client, output: Output) -> Result<Bundle, String> {
    let files = bundle_files(client, output).await.map_err(|error| error.message)?;
    usable_live(&files, output).map_err(|error| error.message)
}

/// Whom the new bundle gives something for the first time. No reason to call what was applied a failure.
async fn first_rights(
    client: &mut Client,
    old: Result<Bundle, String>,
    new: Result<Bundle, String>,
    output: Output,
) -> Result<Newcomers, String> {
    Newcomers::of(client, &old?, &new?, output).await.map_err(|error| error.message)
}

pub(super) fn rollback(to: Option<u64>, expected: Option<u64>, server: &Server) -> Result<Verdict, Unusable> {
    let request = pb::PolicyRollbackRequest { to, expected };
    let output = server.output;
    let (rolled, newcomers) = with_server(server, |mut client| async move {
        let old = in_force(&mut client, output).await;
        let rolled = client.rollback(request).await;
        let newcomers = match &rolled {
            Ok(_) => {
                let new = in_force(&mut client, output).await;
                first_rights(&mut client, old, new, output).await
            }
            Err(_) => Err(String::new()),
        };
        Ok((rolled, newcomers))
    })?;
    done(rolled, newcomers, output)
}

type Answered = Result<tonic::Response<pb::PolicyRevisionResponse>, tonic::Status>;

fn done(answer: Answered, newcomers: Result<Newcomers, String>, output: Output) -> Result<Verdict, Unusable> {
    match answer {
        Ok(answer) => {
            let revision = answer.into_inner().revision.unwrap_or_default();
            let first_rights = newcomers.as_ref().map_or(Value::Null, Newcomers::json);
            say(&match output {
                Output::Text => {
                    format!("policy revision {} is in force: {}\n", revision.revision, about(&revision))
                }
                Output::Json => {
                    let revision = revision_json(&revision);
                    format!(
                        "{:#}\n",
                        json!({ "ok": true, "revision": revision, "first_rights": first_rights })
                    )
                }
            });
            match newcomers {
                Ok(newcomers) => newcomers.warn(output, InForce::Already),
                Err(why) if output == Output::Text => {
                    eprintln!("keygate: which users it gives rights for the first time is not known: {why}");
                }
                Err(_) => {}
            }
            Ok(Verdict::Fine)
        }
        Err(status) => match output {
            Output::Text => {
                let message = status.message();
                let why = message.strip_prefix("keygate: ").unwrap_or(message);
                eprintln!("keygate: not applied, and nothing has changed: {why}");
                Ok(Verdict::Found)
            }
            Output::Json => {
                say(&format!("{:#}\n", json!({ "ok": false, "error": status.message() })));
                Ok(Verdict::Found)
            }
        },
    }
}

fn about(revision: &pb::PolicyRevision) -> String {
    match &revision.bundle {
        None => "no bundle".to_owned(),
        Some(bundle) => {
            format!("bundle {} ({} rows), {}", bundle.revision, bundle.rows, bundle.manifest)
        }
    }
}

fn revision_json(revision: &pb::PolicyRevision) -> Value {
    let bundle = revision.bundle.as_ref().map(|bundle| {
        json!({
            "revision": bundle.revision,
            "digest": bundle.manifest,
            "rows": bundle.rows,
            "links": bundle.links,
            "bytes": bundle.bytes,
        })
    });
    json!({
        "revision": revision.revision,
        "bundle": bundle,
        "at": Instant(revision.at).to_string(),
        "by": (!revision.by.is_empty()).then_some(&revision.by),
        "restores": revision.restores,
        "kept": revision.kept,
    })
}

async fn fetch_log(client: &mut Client, output: Output) -> Result<pb::PolicyLogResponse, Unusable> {
    let log = client.log(pb::PolicyLogRequest {}).await;
    Ok(log.map_err(|status| refused(output, status))?.into_inner())
}

pub(super) fn log(server: &Server) -> Result<Verdict, Unusable> {
    let output = server.output;
    let log = with_server(server, |mut client| async move { fetch_log(&mut client, output).await })?;
    match output {
        Output::Json => {
            let revisions: Vec<Value> = log.revisions.iter().map(revision_json).collect();
            say(&format!("{:#}\n", json!({ "in_force": log.in_force, "revisions": revisions })));
        }
        Output::Text => {
            let mut text = String::new();
            for own in &log.revisions {
                let mark = if own.revision == log.in_force { "*" } else { " " };
                let by = if own.by.is_empty() { "the server" } else { &own.by };
                let restores = own.restores.map_or(String::new(), |from| format!(", restores {from}"));
                let gone = if own.kept { "" } else { ", not kept" };
                text.push_str(&format!(
                    "{mark} {}  {}  by {by}: {}{restores}{gone}\n",
                    own.revision,
                    Instant(own.at),
                    about(own)
                ));
            }
            say(if text.is_empty() { "no bundle was ever applied\n" } else { &text });
        }
    }
    Ok(Verdict::Fine)
}

pub(super) fn show(server: &Server) -> Result<Verdict, Unusable> {
    let output = server.output;
    let (log, files) = with_server(server, |mut client| async move {
        let log = fetch_log(&mut client, output).await?;
        Ok((log, bundle_files(&mut client, output).await?))
    })?;
    let bundle = usable_live(&files, output)?;
    let own = log.revisions.first();
    match output {
        Output::Json => {
            let rows: Vec<Value> = bundle.rows().iter().map(row_json).collect();
            let links: Vec<String> = bundle.links().iter().map(ToString::to_string).collect();
            say(&format!(
                "{:#}\n",
                json!({ "in_force": own.map(revision_json), "rows": rows, "links": links })
            ));
        }
        Output::Text => {
            let mut text = match own {
                Some(own) => format!("# policy revision {}, {}\n", own.revision, about(own)),
                None => "# no bundle was ever applied\n".to_owned(),
            };
            bundle.rows().iter().for_each(|row| text.push_str(&format!("{row}\n")));
            bundle.links().iter().for_each(|link| text.push_str(&format!("{link}\n")));
            say(&text);
        }
    }
    Ok(Verdict::Fine)
}
