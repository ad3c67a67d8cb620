//! The values of all settings, each read by itself; [`super::resolve`] then asks whether they fit together.

use std::{path::PathBuf, time::Duration};

use super::{
    ClusterState, Mode, Timing, Warning,
    problem::{BadValue, Problem, Problems},
    raw::Raw,
    table::{self, Effect, FEATURE_GATES},
    url::Url,
    values::{self, Parsed},
};
use crate::identify::LockoutRules;

/// Where and how the operational log is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
    /// Never empty.
    pub outputs: Vec<LogOutput>,
    /// Applies to the one file among the outputs.
    pub rotation: Option<LogRotation>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Console,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogOutput {
    Stderr,
    Stdout,
    File(PathBuf),
}

/// Zero means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRotation {
    pub max_bytes: u64,
    pub max_age_days: u32,
    pub max_backups: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsDetail {
    Basic,
    Extensive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

/// Values as they were written. Fields that another one decides the meaning of are still text.
pub(crate) struct Draft {
    pub name: String,
    pub data_dir: String,
    pub listen_client: Vec<Url>,
    pub listen_client_http: Vec<Url>,
    pub listen_metrics: Vec<Url>,
    pub listen_peer: Vec<Url>,
    pub advertise_client: Vec<Url>,
    pub advertise_peer: Vec<Url>,
    pub initial_cluster: String,
    pub cluster_state: ClusterState,
    pub cluster_token: String,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub trusted_ca_file: Option<PathBuf>,
    pub client_crl_file: Option<PathBuf>,
    pub identity_rules_file: Option<PathBuf>,
    pub client_cert_auth: bool,
    pub auto_tls: bool,
    pub self_signed_years: u32,
    pub tls_min: TlsVersion,
    pub tls_max: TlsVersion,
    pub cipher_suites: Vec<&'static str>,
    /// Suites that exist but that we do not offer.
    pub dropped_suites: Vec<String>,
    pub auth_token: String,
    pub auth_token_ttl: u32,
    pub bcrypt_cost: u64,
    pub quota_bytes: i64,
    pub max_request_bytes: u64,
    pub max_txn_ops: u64,
    pub max_concurrent_streams: u32,
    pub keepalive_interval: Duration,
    pub keepalive_timeout: Duration,
    pub timing: Timing,
    pub compaction_mode: String,
    pub retention: String,
    pub watch_progress_interval: Duration,
    pub metrics: MetricsDetail,
    pub log: Log,
    pub log_rotation: bool,
    pub rotation: LogRotation,
    pub memory_budget: u64,
    pub threads: u32,
    pub handshake_timeout: Duration,
    pub max_unauthenticated: u32,
    pub watch_backlog: u64,
    pub watch_memory: u64,
    pub metrics_tenants: u32,
    pub policy_dir: Option<PathBuf>,
    pub policy_keys: Vec<PathBuf>,
    pub policy_keys_needed: u32,
    pub quota_webhook_url: Option<http::Uri>,
    pub quota_webhook_ca: Option<PathBuf>,
    pub quota_webhook_secret: Option<PathBuf>,
    pub policy_recover: bool,
    pub password_threads: u32,
    pub login_lockout: LockoutRules,
    pub shutdown_grace: Duration,
    pub limits_file: Option<PathBuf>,
}

impl Draft {
    /// Sets every field from the table: the default first, then what the operator wrote. A value that is refused leaves
    /// the default in place, so that the other checks still have something to look at.
    pub(super) fn from_raw(
        mode: Mode,
        raw: &Raw,
        warnings: &mut Vec<Warning>,
        problems: &mut Problems,
    ) -> Self {
        let mut draft = Self::blank();
        for flag in table::all() {
            let default = flag.default_in(mode);
            if let Effect::Honoured(set) = flag.effect {
                set(&mut draft, default).expect("a test sets every default");
            }
            let Some(given) = raw.get(flag.name) else { continue };
            let kind = flag.kind.check(&given.text);
            // Kinds repeat what was written; what sets a secret does not.
            let kind = kind.map_err(|bad| match flag.secret {
                true => BadValue::new("this value cannot be used"),
                false => bad,
            });
            let checked = kind.and_then(|()| match flag.effect {
                Effect::Honoured(set) => set(&mut draft, &given.text),
                Effect::Inert(_) | Effect::Refused(_) | Effect::CommandLine => Ok(()),
            });
            let is_default = given.text == default;
            match (checked, &flag.effect) {
                (Err(BadValue(message)), _) => {
                    let accepted = flag.kind.accepted().filter(|_| !message.contains("URL"));
                    problems.push(Problem { path: given.source.path(), message, accepted });
                }
                (Ok(()), Effect::Inert(why)) if !is_default => {
                    warnings.push(Warning { message: (*why).to_owned(), path: given.source.path() });
                }
                (Ok(()), Effect::Refused(why)) if !is_default => problems.add(given.source.path(), *why),
                (Ok(()), _) => {}
            }
        }
        draft
    }

    /// Every field is set from the table's defaults before anybody reads it.
    fn blank() -> Self {
        Self {
            name: String::new(),
            data_dir: String::new(),
            listen_client: Vec::new(),
            listen_client_http: Vec::new(),
            listen_metrics: Vec::new(),
            listen_peer: Vec::new(),
            advertise_client: Vec::new(),
            advertise_peer: Vec::new(),
            initial_cluster: String::new(),
            cluster_state: ClusterState::New,
            cluster_token: String::new(),
            cert_file: None,
            key_file: None,
            trusted_ca_file: None,
            client_crl_file: None,
            identity_rules_file: None,
            client_cert_auth: false,
            auto_tls: false,
            self_signed_years: 0,
            tls_min: TlsVersion::V1_2,
            tls_max: TlsVersion::V1_3,
            cipher_suites: Vec::new(),
            dropped_suites: Vec::new(),
            auth_token: String::new(),
            auth_token_ttl: 0,
            bcrypt_cost: 0,
            quota_bytes: 0,
            max_request_bytes: 0,
            max_txn_ops: 0,
            max_concurrent_streams: 0,
            keepalive_interval: Duration::ZERO,
            keepalive_timeout: Duration::ZERO,
            timing: Timing { heartbeat: Duration::ZERO, election: Duration::ZERO },
            compaction_mode: String::new(),
            retention: String::new(),
            watch_progress_interval: Duration::ZERO,
            metrics: MetricsDetail::Basic,
            log: Log {
                level: LogLevel::Info,
                format: LogFormat::Json,
                outputs: vec![LogOutput::Stderr],
                rotation: None,
            },
            log_rotation: false,
            rotation: LogRotation { max_bytes: 0, max_age_days: 0, max_backups: 0 },
            memory_budget: 0,
            threads: 0,
            handshake_timeout: Duration::ZERO,
            max_unauthenticated: 0,
            watch_backlog: 0,
            watch_memory: 0,
            metrics_tenants: 0,
            policy_dir: None,
            policy_keys: Vec::new(),
            policy_keys_needed: 0,
            quota_webhook_url: None,
            quota_webhook_ca: None,
            quota_webhook_secret: None,
            policy_recover: false,
            password_threads: 0,
            login_lockout: LockoutRules::default(),
            shutdown_grace: Duration::ZERO,
            limits_file: None,
        }
    }
}

/// Puts a value where it belongs, if there is one.
pub(super) fn put<T>(slot: &mut T, value: Parsed<T>) -> Parsed<()> {
    value.map(|value| *slot = value)
}

/// Empty text is "no such file".
pub(super) fn path(slot: &mut Option<PathBuf>, text: &str) -> Parsed<()> {
    *slot = (!text.is_empty()).then(|| PathBuf::from(text));
    Ok(())
}

pub(super) fn webhook_url(draft: &mut Draft, text: &str) -> Parsed<()> {
    if !text.is_empty() {
        draft.quota_webhook_url = Some(crate::quota_webhook::usable_url(text).map_err(BadValue::new)?);
    }
    Ok(())
}

pub(super) fn cluster_state(draft: &mut Draft, text: &str) -> Parsed<()> {
    draft.cluster_state = if text == "existing" { ClusterState::Existing } else { ClusterState::New };
    Ok(())
}

fn tls_version(text: &str, otherwise: TlsVersion) -> TlsVersion {
    match text {
        "TLS1.2" => TlsVersion::V1_2,
        "TLS1.3" => TlsVersion::V1_3,
        _ => otherwise,
    }
}

pub(super) fn tls_min(draft: &mut Draft, text: &str) -> Parsed<()> {
    draft.tls_min = tls_version(text, TlsVersion::V1_2);
    Ok(())
}

pub(super) fn tls_max(draft: &mut Draft, text: &str) -> Parsed<()> {
    draft.tls_max = tls_version(text, TlsVersion::V1_3);
    Ok(())
}

/// What rustls with aws-lc-rs offers.
pub(super) const SUITES: &[&str] = &[
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// What etcd knows beyond that: CBC, RC4, and key exchange without forward secrecy.
const WEAK_SUITES: &[&str] = &[
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];

/// Weak suites in a list that also has good ones are dropped with a warning; alone they are refused.
pub(super) fn cipher_suites(draft: &mut Draft, text: &str) -> Parsed<()> {
    let (mut offered, mut dropped) = (Vec::new(), Vec::new());
    for name in values::list(text) {
        // Go's older names for two of them.
        let canonical = match name.as_str() {
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" => "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" => "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            other => other,
        };
        match SUITES.iter().find(|suite| **suite == canonical) {
            Some(suite) => offered.push(*suite),
            None if WEAK_SUITES.contains(&canonical) => dropped.push(name),
            None => return Err(unknown_suite(&format!("unknown cipher suite `{name}`"))),
        }
    }
    if offered.is_empty() && !dropped.is_empty() {
        return Err(unknown_suite("none of these cipher suites is offered"));
    }
    draft.cipher_suites = offered;
    draft.dropped_suites = dropped;
    Ok(())
}

fn unknown_suite(what: &str) -> BadValue {
    BadValue::new(format!("{what}; offered are {}", SUITES.join(", ")))
}

pub(super) fn feature_gates(_draft: &mut Draft, text: &str) -> Parsed<()> {
    for pair in values::list(text) {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(BadValue::new(format!("missing bool value for feature gate `{pair}`")));
        };
        if !FEATURE_GATES.contains(&name.trim()) {
            return Err(BadValue::new(format!(
                "unrecognized feature gate: {name}; known are {}",
                FEATURE_GATES.join(", ")
            )));
        }
        values::boolean(value.trim())?;
    }
    Ok(())
}

pub(super) fn metrics(draft: &mut Draft, text: &str) -> Parsed<()> {
    draft.metrics = if text == "extensive" { MetricsDetail::Extensive } else { MetricsDetail::Basic };
    Ok(())
}

pub(super) fn log_level(draft: &mut Draft, text: &str) -> Parsed<()> {
    draft.log.level = match text {
        "debug" => LogLevel::Debug,
        "warn" => LogLevel::Warn,
        "error" | "dpanic" | "panic" | "fatal" => LogLevel::Error,
        _ => LogLevel::Info,
    };
    Ok(())
}

pub(super) fn log_format(draft: &mut Draft, text: &str) -> Parsed<()> {
    draft.log.format = if text == "console" { LogFormat::Console } else { LogFormat::Json };
    Ok(())
}

pub(super) fn log_outputs(draft: &mut Draft, text: &str) -> Parsed<()> {
    let mut outputs = Vec::new();
    let items = values::list(text);
    if items.is_empty() {
        return Err(BadValue::new("at least one output is needed"));
    }
    for item in &items {
        let output = match item.as_str() {
            // etcd logs to stderr too where there is no journal; under systemd stderr is the journal.
            "default" | "stderr" | "systemd/journal" => LogOutput::Stderr,
            "stdout" => LogOutput::Stdout,
            path => LogOutput::File(PathBuf::from(path)),
        };
        if item == "default" && items.len() > 1 {
            return Err(BadValue::new("`default` cannot be combined with other outputs"));
        }
        if !outputs.contains(&output) {
            outputs.push(output);
        }
    }
    draft.log.outputs = outputs;
    Ok(())
}

pub(super) fn log_rotation(draft: &mut Draft, text: &str) -> Parsed<()> {
    /// etcd's names. Times are always UTC and old files are never compressed.
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Written {
        /// Megabytes; etcd reads 0 as its default.
        #[serde(default)]
        maxsize: u64,
        #[serde(default)]
        maxage: u32,
        #[serde(default)]
        maxbackups: u32,
        #[serde(default)]
        #[expect(dead_code, reason = "accepted for etcd's sake")]
        localtime: bool,
        #[serde(default)]
        #[expect(dead_code, reason = "accepted for etcd's sake")]
        compress: bool,
    }
    let written: Written = serde_json::from_str(text)
        .map_err(|error| BadValue::new(format!("not a log rotation in JSON: {error}")))?;
    let megabytes = if written.maxsize == 0 { 100 } else { written.maxsize };
    draft.rotation = LogRotation {
        max_bytes: megabytes.saturating_mul(1 << 20),
        max_age_days: written.maxage,
        max_backups: written.maxbackups,
    };
    Ok(())
}
