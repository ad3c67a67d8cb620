//! The command line, and its translation into what the other modules take.

use crate::driver::{Plan, Window};
use crate::keyspace::Keyspace;
use crate::setup::{Login, Readiness, Target};
use crate::transport::{ClientIdentity, TlsSettings};
use crate::workload::{KeyOrder, Operation, Workload};
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// Puts a measured load on an etcd v3 server and checks every answer.
///
/// Each client is a closed loop (one request in flight); clients share the connections in turn. A run prints one line
/// of JSON and exits with 1 if any answer was an error or wrong.
#[derive(Parser)]
#[command(name = "keygate-loadgen", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Write one key at a time.
    Put(RunArgs),
    /// Read one key at a time, linearizable.
    Range(RunArgs),
    /// Read one key at a time, serializable.
    Srange(RunArgs),
    /// Read `--scan` neighbouring keys at a time.
    Prefix(RunArgs),
    /// Compare and put.
    Txn(RunArgs),
    /// Clients write one key that `--watchers` watch; events are measured.
    Watch(RunArgs),
    LeaseGrant(RunArgs),
    /// Each client keeps one lease alive over one stream.
    LeaseKeepalive(RunArgs),
    /// `--read-percent` reads, the rest writes.
    Mix(RunArgs),
    /// Write all `--keys` once, in order, then count them.
    Load(RunArgs),
    /// Create roles and a user that holds them; with `--root-password`, a root user too, and switch auth on.
    SetupAuth(SetupArgs),
    /// Wait until the server answers a linearizable read.
    Ready(ReadyArgs),
    /// Write a throw-away authority and a server certificate for loopback.
    MakeCertificates {
        directory: PathBuf,
    },
}

#[derive(Args)]
pub(crate) struct TargetArgs {
    /// `host:port` of each server.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:2379")]
    endpoints: Vec<String>,
    /// PEM file of the authority to trust; switches TLS on.
    #[arg(long)]
    cacert: Option<PathBuf>,
    #[arg(long, requires = "key", requires = "cacert")]
    cert: Option<PathBuf>,
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,
    /// The name to find in the server's certificate, instead of the endpoint's host.
    #[arg(long, requires = "cacert")]
    server_name: Option<String>,
    /// Log in, once for the whole run.
    #[arg(long)]
    user: Option<String>,
    #[arg(long, requires = "user", conflicts_with = "password_file")]
    password: Option<String>,
    /// A file that holds the password and nothing else; a line break at its end is ignored.
    #[arg(long, requires = "user")]
    password_file: Option<PathBuf>,
}

impl TargetArgs {
    pub(crate) fn target(&self) -> Result<Target> {
        ensure!(
            self.endpoints.iter().all(|endpoint| !endpoint.is_empty()),
            "`--endpoints` names an empty endpoint"
        );
        let tls = match &self.cacert {
            Some(authority) => {
                let identity = match (&self.cert, &self.key) {
                    (Some(certificate), Some(key)) => Some(ClientIdentity { certificate, key }),
                    _ => None,
                };
                Some(TlsSettings::load(authority, identity, self.server_name.clone())?)
            }
            None => None,
        };
        Ok(Target { endpoints: self.endpoints.clone(), tls })
    }

    pub(crate) fn login(&self) -> Result<Option<Login>> {
        let Some(user) = self.user.clone() else { return Ok(None) };
        let password = match (&self.password, &self.password_file) {
            (Some(password), _) => password.clone(),
            (None, Some(path)) => {
                let text =
                    std::fs::read_to_string(path).with_context(|| format!("read `{}`", path.display()))?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
            (None, None) => bail!("`--user` needs `--password` or `--password-file`"),
        };
        Ok(Some(Login { user, password }))
    }
}

#[derive(Args)]
pub(crate) struct KeyArgs {
    #[arg(long, default_value = "k")]
    pub(crate) prefix: String,
    #[arg(long, default_value_t = 100_000)]
    pub(crate) keys: u64,
    #[arg(long, default_value_t = 16)]
    key_size: usize,
    #[arg(long, default_value_t = 256)]
    value_size: usize,
}

impl KeyArgs {
    pub(crate) fn keyspace(&self) -> Result<Keyspace> {
        Keyspace::new(&self.prefix, self.key_size, self.keys, self.value_size)
    }
}

#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
    #[arg(long, default_value_t = 1)]
    connections: usize,
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// How long to measure.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Measure exactly so many requests instead, without warm-up.
    #[arg(long)]
    total: Option<u64>,
    /// How long to run before measuring.
    #[arg(long, default_value_t = 0.5)]
    warmup_seconds: f64,
    #[arg(long, default_value_t = 100)]
    watchers: usize,
    /// Keys in one `prefix` read.
    #[arg(long, default_value_t = 1000)]
    scan: u64,
    #[arg(long, default_value_t = 80)]
    read_percent: u64,
    /// Take the keys in order.
    #[arg(long)]
    sequential: bool,
    /// Process ids of the server, for its CPU time and memory.
    #[arg(long, value_delimiter = ',')]
    pub(crate) pid: Vec<u32>,
    /// Copied into the report.
    #[arg(long, default_value = "")]
    pub(crate) label: String,
}

impl RunArgs {
    pub(crate) fn plan(&self, operation: Operation) -> Result<Plan> {
        ensure!(
            self.connections > 0 && self.clients > 0,
            "`--connections` and `--clients` must be at least 1"
        );
        ensure!(
            self.clients >= self.connections || operation == Operation::Watch,
            "more connections than clients"
        );
        let duration = |seconds: f64, flag: &str| {
            Duration::try_from_secs_f64(seconds).with_context(|| format!("`{flag}` is not a duration"))
        };
        let window = match (operation, self.total) {
            (Operation::Load, _) => Window::Requests(self.keys.keys),
            (_, Some(total)) => Window::Requests(total),
            (_, None) => Window::For(duration(self.seconds, "--seconds")?),
        };
        let warmup = match window {
            Window::Requests(_) => Duration::ZERO,
            Window::For(_) => duration(self.warmup_seconds, "--warmup-seconds")?,
        };
        Ok(Plan {
            connections: self.connections,
            clients: self.clients,
            watchers: if operation == Operation::Watch { self.watchers } else { 0 },
            warmup,
            window,
            server: self.pid.clone(),
        })
    }

    pub(crate) fn workload(&self, operation: Operation) -> Result<Workload> {
        ensure!(self.scan > 0, "`--scan` must be at least 1");
        let in_order = self.sequential || operation == Operation::Load;
        let order = if in_order { KeyOrder::Sequential } else { KeyOrder::Random };
        let mut workload = Workload::new(operation, self.keys.keyspace()?, order);
        workload.scan = self.scan;
        workload.read_percent = self.read_percent;
        Ok(workload)
    }
}

#[derive(Args)]
pub(crate) struct SetupArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
    #[arg(long, default_value_t = 100)]
    pub(crate) roles: usize,
    /// The user to create.
    #[arg(long, default_value = "bench")]
    pub(crate) new_user: String,
    #[arg(long)]
    pub(crate) new_password: String,
    /// Create `root` with this password and switch auth on.
    #[arg(long)]
    pub(crate) root_password: Option<String>,
}

#[derive(Args)]
pub(crate) struct ReadyArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
    /// Give up after so long.
    #[arg(long, default_value_t = 60.0)]
    pub(crate) patience_seconds: f64,
    /// Count as ready only when key number 0 is there with its right value.
    #[arg(long)]
    holds_keys: bool,
}

impl ReadyArgs {
    pub(crate) fn readiness(&self) -> Readiness {
        if self.holds_keys { Readiness::HoldsKeys } else { Readiness::Answers }
    }
}
