//! `keygate top`: tenants by load, refusals and use of quotas, and users by load; in a terminal as it changes.
//!
//! All of it comes from the server's own services and its page of metrics, and nothing is guessed: what a source does
//! not tell, or the caller may not ask for, is left empty.

mod page;
mod screen;
mod snapshot;
mod table;
mod users;

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
    /// What is listed; JSON has both. In a terminal `u` and `t` switch
    #[arg(long, value_enum, default_value_t = View::Tenants)]
    view: View,
    /// What stands first: of tenants `changes` (the default), `refused`, `quota`, `keys`, `bytes`, `watches` or `name`, of
    /// users `requests` (the default), `refused`, `bytes`, `watches` or `name`. In a terminal `s` goes on to the next
    #[arg(long, value_enum, hide_possible_values = true)]
    sort: Option<Sort>,
    /// Rows at most, in JSON too; users are at most the 1000 that asked most since they were first seen
    #[arg(long, value_name = "ROWS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// An address of `--listen-metrics-urls`: only there refusals and watchers are told by tenant
    #[arg(long, value_name = "URL", env = "KEYGATE_METRICS_URL")]
    metrics_url: Option<String>,
    #[command(flatten)]
    remote: Remote,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// What is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum View {
    Tenants,
    Users,
}

/// What stands first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
    Changes,
    Requests,
    Refused,
    Quota,
    Keys,
    Bytes,
    Watches,
    Name,
}

impl View {
    /// The usual one first.
    fn sorts(self) -> &'static [Sort] {
        use Sort::{Bytes, Changes, Keys, Name, Quota, Refused, Requests, Watches};
        match self {
            Self::Tenants => &[Changes, Refused, Quota, Keys, Bytes, Watches, Name],
            Self::Users => &[Requests, Refused, Bytes, Watches, Name],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Tenants => "tenants",
            Self::Users => "users",
        }
    }
}

impl Sort {
    fn next(self, view: View) -> Self {
        let all = view.sorts();
        let at = all.iter().position(|of| *of == self).map_or(0, |at| at + 1);
        all.get(at).copied().unwrap_or(all[0])
    }

    fn name(self) -> &'static str {
        match self {
            Self::Changes => "changes",
            Self::Requests => "requests",
            Self::Refused => "refused",
            Self::Quota => "quota",
            Self::Keys => "keys",
            Self::Bytes => "bytes",
            Self::Watches => "watches",
            Self::Name => "name",
        }
    }
}

/// Which rows are shown, and in which order.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    view: View,
    tenants: Sort,
    users: Sort,
    limit: usize,
}

impl Wanted {
    fn sort(&self) -> Sort {
        match self.view {
            View::Tenants => self.tenants,
            View::Users => self.users,
        }
    }

    fn sort_by_the_next(&mut self) {
        let next = self.sort().next(self.view);
        match self.view {
            View::Tenants => self.tenants = next,
            View::Users => self.users = next,
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "seconds, from 0.1 to 3600".to_owned())
}

pub(super) fn run(top: &Top) -> ExitCode {
    remote::run(top.output, async { show(top).await.map(|()| ExitCode::SUCCESS) })
}

async fn show(top: &Top) -> Result<(), Failure> {
    let wanted = top.wanted().map_err(Failure::Unusable)?;
    let mut source =
        Source::connect(&top.remote, top.metrics_url.as_deref()).await.map_err(Failure::Unusable)?;
    let first = source.look().await.map_err(refused)?;
    let is_live = top.output == Output::Text && !top.once && std::io::stdout().is_terminal();
    if is_live {
        return screen::live(source, first, top.interval(), wanted).await.map_err(Failure::Unusable);
    }
    let mut last = first;
    loop {
        tokio::time::sleep(top.interval()).await;
        let now = source.look().await.map_err(refused)?;
        let snapshot = Snapshot::between(&last, &now, wanted);
        say(&match (top.output, top.watch) {
            (Output::Text, _) => table::text(&snapshot, wanted),
            (Output::Json, false) => format!("{:#}\n", table::json(&snapshot, wanted)),
            (Output::Json, true) => format!("{}\n", table::json(&snapshot, wanted)),
        });
        if !top.watch {
            return Ok(());
        }
        last = now;
    }
}

impl Top {
    fn wanted(&self) -> anyhow::Result<Wanted> {
        let of = |view: View| self.sort.filter(|sort| view.sorts().contains(sort));
        if let (Some(sort), None) = (self.sort, of(self.view)) {
            let names: Vec<_> = self.view.sorts().iter().map(|sort| sort.name()).collect();
            let (view, sort) = (self.view.name(), sort.name());
            anyhow::bail!("`--sort {sort}` is not for {view}, which are sorted by {}", names.join(", "));
        }
        let or_usual = |view: View| of(view).unwrap_or(view.sorts()[0]);
        let limit = self.limit.try_into()?;
        let (tenants, users) = (or_usual(View::Tenants), or_usual(View::Users));
        Ok(Wanted { view: self.view, tenants, users, limit })
    }

    fn interval(&self) -> Duration {
        Duration::from_secs_f64(self.interval)
    }
}

fn refused(status: tonic::Status) -> Failure {
    Failure::Refused(said(status))
}
