//! `keygate quota`: how much tenants may hold, and how much they do.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use keygate_proto::admin as pb;
use pb::quotas_client::QuotasClient;
use serde_json::json;

use super::remote::{self, Connection, Failure, Remote, said};
use super::{Output, say};
use crate::config::size;

#[derive(Debug, Args)]
pub(super) struct Quota {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    remote: Remote,
    #[arg(long, value_enum, default_value_t = Output::Text, global = true)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show limits and what is used of them
    Show {
        /// `default` is the platform's own keyspace; without a name it is the one of whoever asks
        tenant: Option<String>,
        /// Of the platform and of every tenant
        #[arg(long, conflicts_with = "tenant")]
        all: bool,
    },
    /// Limit what a tenant, or a prefix of its keys, may hold; other limits stay as they are
    Set {
        /// `default` is the platform's own keyspace
        tenant: String,
        /// Limit the keys that begin with this, instead of all
        #[arg(long, default_value = "")]
        prefix: String,
        /// Keys that exist at a time, or `none`
        #[arg(long, value_parser = number)]
        keys: Option<Limit>,
        /// Bytes of the keys and values that exist at a time (such as 512MiB), or `none`
        #[arg(long, value_parser = amount)]
        bytes: Option<Limit>,
        /// Bytes of what was overwritten or deleted and not compacted yet, or `none`
        #[arg(long, value_parser = amount)]
        history_bytes: Option<Limit>,
        /// Also to less than is used already: nothing is taken away, but nothing may grow
        #[arg(long)]
        force: bool,
    },
    /// Take all limits away from a tenant, or from a prefix of its keys
    Unset {
        tenant: String,
        #[arg(long, default_value = "")]
        prefix: String,
    },
    /// Count everything again and compare the counters with that; exits with 1 if they differ
    Recount {
        #[arg(required_unless_present = "all")]
        tenant: Option<String>,
        #[arg(long, conflicts_with = "tenant")]
        all: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    AtMost(u64),
    None,
}

fn number(text: &str) -> Result<Limit, String> {
    match text {
        "none" => Ok(Limit::None),
        _ => text.parse().map(Limit::AtMost).map_err(|_| "a whole number from 0, or `none`".to_owned()),
    }
}

fn amount(text: &str) -> Result<Limit, String> {
    match text {
        "none" => Ok(Limit::None),
        _ => {
            size(text).map(Limit::AtMost).ok_or_else(|| "bytes, a size such as 512MiB, or `none`".to_owned())
        }
    }
}

pub(super) fn run(quota: &Quota) -> ExitCode {
    remote::run(quota.output, async {
        Ok(match act(quota).await? {
            Found::AsExpected => ExitCode::SUCCESS,
            Found::Nothing => {
                if quota.output == Output::Text {
                    eprintln!("keygate: nothing was taken away: there are no limits of that prefix");
                }
                ExitCode::SUCCESS
            }
            Found::Differences => {
                eprintln!("keygate: counters differ from the count; please report it as a defect");
                ExitCode::FAILURE
            }
        })
    })
}

enum Found {
    AsExpected,
    /// Nothing was there that could be taken away.
    Nothing,
    Differences,
}

async fn act(quota: &Quota) -> Result<Found, Failure> {
    let Quota { action, remote, output } = quota;
    let request = request(action).map_err(Failure::Unusable)?;
    let mut client = QuotasClient::new(remote.connect().await.map_err(Failure::Unusable)?);
    let refused = |status| Failure::Refused(said(status));
    let before = match action {
        Action::Unset { tenant, .. } => {
            let show = pb::QuotaShowRequest { tenant: tenant.clone(), all: false };
            Some(ask(&mut client, Request::Show(show)).await.map_err(refused)?)
        }
        Action::Show { .. } | Action::Set { .. } | Action::Recount { .. } => None,
    };
    let quotas = ask(&mut client, request).await.map_err(refused)?;
    say(&match output {
        Output::Json => as_json(&quotas),
        Output::Text => table(&quotas),
    });
    if let (Some(before), Action::Unset { prefix, .. }) = (before, action) {
        let is_there = |quota: &pb::Quota| {
            let limits = quota.limits.unwrap_or_default();
            let any = limits.keys.or(limits.bytes).or(limits.history_bytes);
            quota.prefix == prefix.as_bytes() && any.is_some()
        };
        return Ok(if before.iter().any(is_there) { Found::AsExpected } else { Found::Nothing });
    }
    let differ = |quota: &pb::Quota| quota.counted.is_some() && quota.counted != quota.used;
    Ok(if quotas.iter().any(differ) { Found::Differences } else { Found::AsExpected })
}

enum Request {
    Show(pb::QuotaShowRequest),
    Set(pb::QuotaSetRequest),
    Recount(pb::QuotaRecountRequest),
}

fn request(action: &Action) -> anyhow::Result<Request> {
    let name = |tenant: &Option<String>| tenant.clone().unwrap_or_default();
    Ok(match action {
        Action::Show { tenant, all } => {
            Request::Show(pb::QuotaShowRequest { tenant: name(tenant), all: *all })
        }
        Action::Recount { tenant, all } => {
            Request::Recount(pb::QuotaRecountRequest { tenant: name(tenant), all: *all })
        }
        Action::Set { tenant, prefix, keys, bytes, history_bytes, force } => {
            let given = [
                (pb::QuotaKind::Keys, keys),
                (pb::QuotaKind::Bytes, bytes),
                (pb::QuotaKind::HistoryBytes, history_bytes),
            ];
            if given.iter().all(|(_, limit)| limit.is_none()) {
                bail!("nothing to set: give `--keys`, `--bytes` or `--history-bytes`");
            }
            let lift = given.iter().filter(|(_, limit)| **limit == Some(Limit::None));
            let at_most = |limit: &Option<Limit>| match limit {
                Some(Limit::AtMost(most)) => Some(*most),
                Some(Limit::None) | None => None,
            };
            let limits = pb::QuotaLimits {
                keys: at_most(keys),
                bytes: at_most(bytes),
                history_bytes: at_most(history_bytes),
            };
            Request::Set(pb::QuotaSetRequest {
                tenant: tenant.clone(),
                prefix: prefix.clone().into(),
                limits: Some(limits),
                lift: lift.map(|(kind, _)| (*kind).into()).collect(),
                force: *force,
            })
        }
        Action::Unset { tenant, prefix } => Request::Set(pb::QuotaSetRequest {
            tenant: tenant.clone(),
            prefix: prefix.clone().into(),
            limits: None,
            lift: [pb::QuotaKind::Keys, pb::QuotaKind::Bytes, pb::QuotaKind::HistoryBytes]
                .map(i32::from)
                .to_vec(),
            force: false,
        }),
    })
}

async fn ask(
    client: &mut QuotasClient<Connection>,
    request: Request,
) -> Result<Vec<pb::Quota>, tonic::Status> {
    let answer = match request {
        Request::Show(request) => client.show(request).await?,
        Request::Set(request) => client.set(request).await?,
        Request::Recount(request) => client.recount(request).await?,
    };
    Ok(answer.into_inner().quotas)
}

/// One counter: its name, the limit, what is used and what a count came to.
struct Line {
    kind: &'static str,
    limit: Option<u64>,
    used: u64,
    counted: Option<u64>,
}

fn lines(quota: &pb::Quota) -> [Line; 3] {
    let limits = quota.limits.unwrap_or_default();
    let used = quota.used.unwrap_or_default();
    let counted = |of: fn(&pb::QuotaUse) -> u64| quota.counted.as_ref().map(of);
    [
        Line { kind: "keys", limit: limits.keys, used: used.keys, counted: counted(|c| c.keys) },
        Line { kind: "bytes", limit: limits.bytes, used: used.bytes, counted: counted(|c| c.bytes) },
        Line {
            kind: "history-bytes",
            limit: limits.history_bytes,
            used: used.history_bytes,
            counted: counted(|c| c.history_bytes),
        },
    ]
}

fn table(quotas: &[pb::Quota]) -> String {
    let is_count = quotas.iter().any(|quota| quota.counted.is_some());
    let mut rows = vec![["TENANT", "PREFIX", "OF", "USED", "LIMIT", "SHARE"].map(str::to_owned).to_vec()];
    if is_count {
        rows[0].push("COUNTED".to_owned());
    }
    for quota in quotas {
        for Line { kind, limit, used, counted } in lines(quota) {
            let share = match limit {
                None => "-".to_owned(),
                Some(0) => if used == 0 { "100%" } else { "over" }.to_owned(),
                Some(limit) => format!("{}%", u128::from(used) * 100 / u128::from(limit)),
            };
            let prefix = quota.prefix.escape_ascii().to_string();
            let mut row = vec![
                quota.tenant.clone(),
                if prefix.is_empty() { "*".to_owned() } else { prefix },
                kind.to_owned(),
                used.to_string(),
                limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string()),
                share,
            ];
            if is_count {
                row.push(counted.map_or_else(|| "-".to_owned(), |counted| counted.to_string()));
            }
            rows.push(row);
        }
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn as_json(quotas: &[pb::Quota]) -> String {
    let told = |quota: &pb::Quota| {
        let mut told = json!({
            "tenant": quota.tenant,
            // Keys are bytes; those that are not ASCII are escaped as in the text form.
            "prefix": quota.prefix.escape_ascii().to_string(),
        });
        for Line { kind, limit, used, counted } in lines(quota) {
            let mut line = json!({ "used": used, "limit": limit });
            if let Some(counted) = counted {
                line["counted"] = counted.into();
            }
            told[kind.replace('-', "_")] = line;
        }
        told
    };
    let answer = json!({ "quotas": quotas.iter().map(told).collect::<Vec<_>>() });
    format!("{answer:#}\n")
}
