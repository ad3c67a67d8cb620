//! `keygate limits`: which limits are in force on a running server.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use keygate_proto::admin as pb;
use pb::limits_client::LimitsClient;
use serde_json::json;

use super::remote::{self, Failure, Remote, said};
use super::{Output, say};

#[derive(Debug, Args)]
pub(super) struct Limits {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    remote: Remote,
    #[arg(long, value_enum, default_value_t = Output::Text, global = true)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show every limit that is in force, and where the configuration has it
    Show,
}

pub(super) fn run(limits: &Limits) -> ExitCode {
    remote::run(limits.output, async { show(limits).await.map(|()| ExitCode::SUCCESS) })
}

async fn show(limits: &Limits) -> Result<(), Failure> {
    let Limits { action: Action::Show, remote, output } = limits;
    let mut client = LimitsClient::new(remote.connect().await.map_err(Failure::Unusable)?);
    let answer = client.get(pb::LimitsRequest {}).await.map_err(|status| Failure::Refused(said(status)))?;
    let limits = answer.into_inner().limits;
    say(&match output {
        Output::Json => {
            let limits: Vec<_> =
                limits.iter().map(|limit| json!({"path": limit.path, "limit": limit.limit})).collect();
            format!("{:#}\n", json!({ "limits": limits }))
        }
        Output::Text if limits.is_empty() => "no limits are in force\n".to_owned(),
        Output::Text => limits.iter().map(|limit| format!("{}: {}\n", limit.path, limit.limit)).collect(),
    });
    Ok(())
}
