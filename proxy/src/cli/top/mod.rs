//! `keygate top`: tenants by load, refusals and use of quotas; in a terminal as it changes.
//!
//! All of it comes from the server's own services and its page of metrics, and nothing is guessed: what a source does
//! not tell, or the caller may not ask for, is left empty.

mod page;
mod screen;
mod snapshot;
mod table;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::remote::{self, Failure, Remote, said};
use super::{Output, say};
use snapshot::{Snapshot, Source};

#[derive(Debug, Args)]
pub(super) struct Top {
    /// Seconds between two looks; what is told in a second is what happened between them
    #[arg(long, default_value_t = 2.0, value_parser = seconds, value_name = "SECONDS")]
    interval: f64,
    /// Print one table and end, in a terminal too
    #[arg(long, conflicts_with = "watch")]
    once: bool,
    /// Go on: with `--output json` one line for each look
    #[arg(long)]
    watch: bool,
    #[arg(long, value_enum, default_value_t = Sort::Changes)]
    sort: Sort,
    /// An address of `--listen-metrics-urls`: only there refusals and watchers are told by tenant
    #[arg(long, value_name = "URL", env = "KEYGATE_METRICS_URL")]
    metrics_url: Option<String>,
    #[command(flatten)]
    remote: Remote,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// What stands first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
    Changes,
    Refused,
    Quota,
    Keys,
    Bytes,
    Name,
}

impl Sort {
    fn next(self) -> Self {
        let all = Self::value_variants();
        let at = all.iter().position(|of| *of == self).map_or(0, |at| at + 1);
        all.get(at).copied().unwrap_or(Self::Changes)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Changes => "changes",
            Self::Refused => "refused",
            Self::Quota => "quota",
            Self::Keys => "keys",
            Self::Bytes => "bytes",
            Self::Name => "name",
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "seconds, from 0.1 to 3600".to_owned())
}

pub(super) fn run(top: &Top) -> ExitCode {
    remote::run(async { show(top).await.map(|()| ExitCode::SUCCESS) })
}

async fn show(top: &Top) -> Result<(), Failure> {
    let mut source =
        Source::connect(&top.remote, top.metrics_url.as_deref()).await.map_err(Failure::Unusable)?;
    let first = source.look().await.map_err(refused)?;
    let is_live = top.output == Output::Text && !top.once && std::io::stdout().is_terminal();
    if is_live {
        return screen::live(source, first, top.interval(), top.sort).await.map_err(Failure::Unusable);
    }
    let mut last = first;
    loop {
        tokio::time::sleep(top.interval()).await;
        let now = source.look().await.map_err(refused)?;
        let snapshot = Snapshot::between(&last, &now, top.sort);
        say(&match (top.output, top.watch) {
            (Output::Text, _) => table::text(&snapshot, top.sort),
            (Output::Json, false) => format!("{:#}\n", table::json(&snapshot)),
            (Output::Json, true) => format!("{}\n", table::json(&snapshot)),
        });
        if !top.watch {
            return Ok(());
        }
        last = now;
    }
}

impl Top {
    fn interval(&self) -> Duration {
        Duration::from_secs_f64(self.interval)
    }
}

fn refused(status: tonic::Status) -> Failure {
    Failure::Refused(said(status))
}
