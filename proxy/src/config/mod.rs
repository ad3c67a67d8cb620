//! The configuration of a server: from what an operator writes (flags, environment, file) to one checked [`Config`].
//!
//! [`table`] declares every setting once; command line, environment, file, help and the documentation page are all read
//! off it. [`raw`] gathers texts and remembers where each was written, [`draft`] holds the values one by one, and
//! [`resolve`] turns them into a `Config` or into the list of everything that is wrong with them; [`files`] looks at what
//! is on the disk. Code outside this
//! module sees only values that fit together.

mod draft;
mod file;
mod files;
mod limits;
mod place;
mod problem;
mod raw;
mod resolve;
mod show;
pub(crate) mod table;
mod url;
mod values;

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

pub use self::{
    draft::{Log, LogFormat, LogLevel, LogOutput, LogRotation, MetricsDetail, TlsVersion},
    files::check_files,
    problem::{BadValue, Problem, Problems},
    raw::{CommandLine, Environment},
    show::help,
    url::{ListenUrl, Scheme, Url},
};

pub(crate) use self::show::help_text_of;

use crate::identify::LockoutRules;
use crate::limit::LimitRules;
use crate::quota_webhook::Receiver;

/// A duration as settings have it, such as `300ms` or `1h30m`. The error says so.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    values::duration(text).map_err(|bad| bad.0)
}

/// Bytes, as settings have them. None: it is not a size.
pub(crate) fn size(text: &str) -> Option<u64> {
    values::size_unsigned(text).ok()
}

/// Whose habits the process follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `keygate serve`: TLS and authentication are on and cannot be switched off.
    Keygate,
    /// Called as `etcd`: what the flags ask for, which by default is plain HTTP without authentication.
    Etcd,
}

/// Everything a server needs to know before it starts.
#[derive(Debug, Clone)]
pub struct Config {
    pub mode: Mode,
    pub name: String,
    pub data_dir: PathBuf,

    /// Where clients are served; never empty. Plain HTTP occurs in [`Mode::Etcd`] only.
    pub listen_client: Vec<ListenUrl>,
    /// When not empty, `/health`, `/metrics` and the like are served here and no longer on `listen_client`.
    pub listen_client_http: Vec<ListenUrl>,
    /// Further places for `/metrics` and `/health`.
    pub listen_metrics: Vec<ListenUrl>,
    /// What MemberList returns and clients dial.
    pub advertise_client: Vec<Url>,
    pub tls: ClientTls,
    /// Lists of revoked client certificates.
    pub client_crl_file: Option<PathBuf>,
    /// Further authorities of clients, and who is whom.
    pub identity_rules_file: Option<PathBuf>,
    pub tls_min: TlsVersion,
    pub tls_max: TlsVersion,
    /// IANA names, in the operator's order; empty means the library's own choice.
    pub cipher_suites: Vec<&'static str>,

    /// Kept for MemberList and the cluster id; nothing listens there while there is one member.
    pub listen_peer: Vec<Url>,
    pub advertise_peer: Vec<Url>,
    pub cluster_token: String,
    pub cluster_state: ClusterState,

    pub auth_token: AuthToken,
    /// 4 to 31; each step doubles the work of one password check.
    pub bcrypt_cost: u32,

    pub limits: Limits,
    pub keep_alive: KeepAlive,
    pub timing: Timing,
    pub auto_compaction: AutoCompaction,
    pub watch_progress_interval: Duration,
    pub metrics: MetricsDetail,
    pub log: Log,
    pub own: Own,
    /// What users and tenants may have of the server, and where that is written.
    pub limit_rules: LimitRules,
    pub limits_source: Option<LimitsSource>,

    /// Every setting as it was understood, in the order of the table; secrets are blanked.
    pub effective: Vec<Setting>,
}

/// TLS of the client port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientTls {
    /// No listener speaks TLS. [`Mode::Etcd`] only.
    Off,
    /// Keygate's own certificates below the data directory, made on first start (see `pki::ensure`). Its CA is the one
    /// that client certificates are checked against.
    Managed {
        client_certificates: ClientCertificates,
    },
    /// etcd's `--auto-tls`: a certificate that signs itself, in `<data-dir>/fixtures/client` (see `pki::ensure_auto`).
    SelfSigned {
        validity_years: u32,
    },
    Files {
        cert: PathBuf,
        key: PathBuf,
        client_certificates: ClientCertificates,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Not asked for.
    Ignored,
    /// Asked for; a client without one may still log in with a password or token.
    Optional { ca: Ca },
    /// A handshake without a valid one fails.
    Required { ca: Ca },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ca {
    /// The CA that Keygate made itself.
    Managed,
    File(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    New,
    Existing,
}

/// How a password login is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthToken {
    /// An opaque token, forgotten `ttl` after its last use.
    Simple {
        ttl: Duration,
    },
    Jwt(Jwt),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwt {
    pub method: JwtMethod,
    /// At least one of the two keys is there; with the public one alone, tokens are checked and never issued.
    pub public_key: Option<PathBuf>,
    pub private_key: Option<PathBuf>,
    pub ttl: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwtMethod {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
    Hs256,
    Hs384,
    Hs512,
}

impl JwtMethod {
    /// Who can check a token can make one: all its keys are secrets.
    pub fn is_symmetric(self) -> bool {
        match self {
            Self::Hs256 | Self::Hs384 | Self::Hs512 => true,
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => false,
            Self::Es256 | Self::Es384 | Self::EdDsa => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Size of the store, in bytes, at which the NOSPACE alarm rises; `None` lets it grow.
    pub quota_bytes: Option<u64>,
    /// Bytes of one request; the transport allows 512 KiB more, as etcd's does.
    pub request_bytes: u64,
    pub txn_ops: u64,
    pub concurrent_streams: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// Pause after which the server pings; `None` never pings.
    pub interval: Option<Duration>,
    /// Wait for the answer before the connection is closed; `None` waits for ever.
    pub timeout: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    pub heartbeat: Duration,
    /// At least five heartbeats. The shortest lease is one and a half of it.
    pub election: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoCompaction {
    Off,
    /// Keep this much history.
    Periodic(Duration),
    /// Keep this many revisions.
    Revision(u64),
}

/// The section `keygate:`, which etcd does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// Bytes of current values that may stay in memory.
    pub memory_budget: u64,
    /// Serving threads.
    pub threads: NonZeroUsize,
    pub handshake_timeout: Duration,
    pub max_unauthenticated_connections: u32,
    pub password_threads: NonZeroUsize,
    pub login_lockout: LockoutRules,
    /// Bytes of events that a watch may be owed before it is ended; 0 is any number.
    pub watch_backlog: u64,
    /// Bytes of events that may wait in memory for the watch streams of one tenant.
    pub watch_memory: u64,
    /// Tenants that have series of their own on the operators' page of metrics.
    pub metrics_tenants: u32,
    /// A bundle that is put in force when it changes.
    pub policy_dir: Option<PathBuf>,
    /// Public keys; with any, bundles must be signed by them.
    pub policy_keys: Vec<PathBuf>,
    /// 0: by all.
    pub policy_keys_needed: u32,
    /// Who is told when a quota crosses a threshold.
    pub quota_webhook: Option<Receiver>,
    /// A bundle in force that cannot be used any more denies everything, instead of keeping the server from starting.
    pub policy_recover: bool,
    /// How long open requests may take to finish after SIGTERM.
    pub shutdown_grace: Duration,
}

/// The file that limits are read from, at start and whenever it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitsSource {
    /// The section `limits:` of the configuration file.
    Section(PathBuf),
    /// `--limits-file`.
    File(PathBuf),
}

impl LimitsSource {
    pub fn path(&self) -> &PathBuf {
        match self {
            Self::Section(path) | Self::File(path) => path,
        }
    }

    /// Never a mix of old and new: all of it, or what is wrong with it.
    pub fn read(&self) -> Result<LimitRules, Problems> {
        let text = std::fs::read_to_string(self.path()).map_err(|error| {
            let mut problems = Problems::default();
            problems.add(self.path().display().to_string(), format!("cannot be read: {error}"));
            problems
        })?;
        self.parse(&text).map_err(|problems| problems.within(self.path(), &text))
    }

    /// The same of a text that was in such a file.
    pub fn parse(&self, text: &str) -> Result<LimitRules, Problems> {
        match self {
            Self::Section(_) => limits::parse_section_of(text),
            Self::File(_) => limits::parse_file(text),
        }
    }
}

/// One line of the effective configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// As it is written in the file, `section.key` for nested ones.
    pub key: String,
    pub value: String,
    /// `default`, or where it was written.
    pub source: String,
}

/// A usable configuration, and what the operator should be told about it.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<Warning>,
}

/// Something the operator wrote that has no effect, or not the expected one. Logged once, at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub message: String,
    /// The flag, variable or key that it is about.
    pub path: String,
}

/// Reads a server's configuration as `mode` does: command line and environment, or, if a file is named, the file alone.
pub fn load(mode: Mode, line: &CommandLine, environment: &Environment) -> Result<Loaded, Problems> {
    let (raw, mut warnings, problems) = raw::gather(mode, line, environment);
    finish(mode, &raw, &mut warnings, problems)
}

/// Reads the text of a configuration file by itself, as `check-config` does.
pub fn load_text(mode: Mode, text: &str) -> Result<Loaded, Problems> {
    let (raw, mut warnings, problems) = file::parse(mode, text);
    finish(mode, &raw, &mut warnings, problems)
}

fn finish(
    mode: Mode,
    raw: &raw::Raw,
    warnings: &mut Vec<Warning>,
    mut problems: Problems,
) -> Result<Loaded, Problems> {
    let draft = draft::Draft::from_raw(mode, raw, warnings, &mut problems);
    let config = resolve::resolve(mode, raw, draft, warnings, &mut problems);
    if problems.is_empty() {
        Ok(Loaded { config, warnings: std::mem::take(warnings) })
    } else {
        Err(problems)
    }
}

#[cfg(test)]
mod tests;
