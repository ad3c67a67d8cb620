//! The one line that a run prints.

use crate::driver::{Outcome, Plan};
use anyhow::Result;
use serde::Serialize;

/// Times are milliseconds unless the name says otherwise. `ops` is what the measured window counted: answers, or
/// events in a watch run; `errors` covers the whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) label: String,
    pub(crate) op: &'static str,
    pub(crate) tls: bool,
    pub(crate) auth: bool,
    pub(crate) connections: usize,
    pub(crate) clients: usize,
    pub(crate) watchers: usize,
    pub(crate) ops: u64,
    pub(crate) seconds: f64,
    pub(crate) ops_per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
    pub(crate) errors: u64,
    pub(crate) first_error: String,
    pub(crate) mib_in: f64,
    pub(crate) server_cpu_us_per_op: f64,
    pub(crate) server_cores: f64,
    pub(crate) client_cpu_us_per_op: f64,
    pub(crate) client_cores: f64,
    pub(crate) server_rss_mib: f64,
    pub(crate) connect_ms: f64,
}

/// What the command line knows about a run and the run itself does not.
pub(crate) struct Circumstances {
    pub(crate) label: String,
    pub(crate) op: &'static str,
    pub(crate) tls: bool,
    pub(crate) auth: bool,
    pub(crate) server_rss_mib: f64,
}

impl Report {
    pub(crate) fn new(plan: &Plan, outcome: &Outcome, circumstances: Circumstances) -> Self {
        let tally = &outcome.tally;
        let seconds = outcome.elapsed.as_secs_f64();
        let quantile = |q: f64| tally.latencies.value_at_quantile(q) as f64 / 1e6;
        let per_op = |total: f64| if tally.measured == 0 { 0.0 } else { total * 1e6 / tally.measured as f64 };
        let per_second = |total: f64| if seconds > 0.0 { total / seconds } else { 0.0 };
        let (server, client) = (outcome.server_cpu.as_secs_f64(), outcome.own_cpu.as_secs_f64());
        Report {
            label: circumstances.label,
            op: circumstances.op,
            tls: circumstances.tls,
            auth: circumstances.auth,
            connections: plan.connections,
            clients: plan.clients,
            watchers: plan.watchers,
            ops: tally.measured,
            seconds,
            ops_per_second: per_second(tally.measured as f64),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: tally.latencies.max() as f64 / 1e6,
            errors: tally.errors,
            first_error: tally.first_error.clone(),
            mib_in: tally.bytes_in as f64 / f64::from(1 << 20),
            server_cpu_us_per_op: per_op(server),
            server_cores: per_second(server),
            client_cpu_us_per_op: per_op(client),
            client_cores: per_second(client),
            server_rss_mib: circumstances.server_rss_mib,
            connect_ms: outcome.connecting.as_secs_f64() * 1e3,
        }
    }

    pub(crate) fn print(&self) -> Result<()> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}
