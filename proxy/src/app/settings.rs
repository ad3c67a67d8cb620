//! From the configuration's words to those of each part.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use jsonwebtoken::Algorithm;
use keygate_core::Limits;
use keygate_engine::EngineOptions;
use zeroize::Zeroizing;

use super::memory::Memory;
use crate::accept::HttpLimits;
use crate::authorize::Endpoint;
use crate::config::{AuthToken, AutoCompaction, Config, JwtMethod, LimitsSource, Mode, TlsVersion};
use crate::identify::{JwtKeys, SimpleTokens, Tokens};
use crate::limit::LimitRules;
use crate::pki::{Demand, Serving};
use crate::tls::{ClientCertificates, Revocation, TlsSources, Unlisted, Versions};

/// A txn in a txn in a txn …: deeper than any program writes, and far from what a stack bears.
const TXN_DEPTH: usize = 32;

/// Longer than any login waits. Monitoring that never logs in connects again each time.
const PROOF_TIMEOUT: Duration = Duration::from_secs(60);

/// What the stages of a request are told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) endpoint: Endpoint,
    pub(super) limits: Limits,
    pub(super) max_request_bytes: usize,
    pub(super) request_timeout: Duration,
}

pub(super) fn rules(config: &Config) -> Rules {
    Rules {
        endpoint: Endpoint { auth_can_be_disabled: config.mode == Mode::Etcd },
        limits: Limits { txn_operations: saturated(config.limits.txn_ops), txn_depth: TXN_DEPTH },
        max_request_bytes: saturated(config.limits.request_bytes),
        // As etcd: five seconds of its own, and time for a new leader to be found.
        request_timeout: Duration::from_secs(5) + 2 * config.timing.election,
    }
}

/// Those of a file of their own are read here; those of the section were read with it.
pub(super) fn limit_rules(config: &Config) -> anyhow::Result<LimitRules> {
    match &config.limits_source {
        Some(source @ LimitsSource::File(_)) => source.read().context("the limits cannot be used"),
        Some(LimitsSource::Section(_)) | None => Ok(config.limit_rules.clone()),
    }
}

pub(super) fn http(config: &Config, memory: Memory) -> HttpLimits {
    HttpLimits {
        handshake_timeout: config.own.handshake_timeout,
        proof_timeout: PROOF_TIMEOUT,
        unfinished_bytes: saturated(memory.messages),
        concurrent_streams: config.limits.concurrent_streams,
        ping_interval: config.keep_alive.interval,
        ping_timeout: config.keep_alive.timeout,
    }
}

pub(super) fn engine(config: &Config, memory: Memory) -> EngineOptions {
    let urls = |urls: &[crate::config::Url]| urls.iter().map(ToString::to_string).collect();
    let heartbeat = config.timing.heartbeat.max(Duration::from_millis(1));
    let election_ticks = (config.timing.election.as_millis() / heartbeat.as_millis()).max(1);
    // One and a half election timeouts, rounded up to seconds: a lease must outlive an election.
    let shortest_lease = (config.timing.election * 3 / 2).as_millis().div_ceil(1000).max(1);
    EngineOptions {
        data_dir: config.data_dir.clone(),
        name: config.name.clone(),
        cluster_token: config.cluster_token.clone(),
        peer_urls: urls(&config.advertise_peer),
        client_urls: urls(&config.advertise_client),
        quota_bytes: config.limits.quota_bytes,
        memory_budget: memory.values,
        answer_bytes: saturated(memory.answers),
        min_lease_ttl: i64::try_from(shortest_lease).unwrap_or(i64::MAX),
        auto_compaction: match config.auto_compaction {
            AutoCompaction::Off => keygate_engine::AutoCompaction::Off,
            AutoCompaction::Periodic(keep) => keygate_engine::AutoCompaction::Periodic(keep),
            AutoCompaction::Revision(keep) => {
                keygate_engine::AutoCompaction::Revision(i64::try_from(keep).unwrap_or(i64::MAX))
            }
        },
        progress_interval: config.watch_progress_interval,
        watch_backlog: Some(config.own.watch_backlog).filter(|bytes| *bytes > 0),
        watch_memory: saturated(config.own.watch_memory),
        heartbeat,
        election_ticks: usize::try_from(election_ticks).unwrap_or(usize::MAX),
        ..EngineOptions::default()
    }
}

pub(super) fn tls(config: &Config, files: &Serving) -> TlsSources {
    let client_certificates = match &files.client_ca {
        None => ClientCertificates::Ignored,
        Some(ca) => match ca.demand {
            Demand::Optional => ClientCertificates::Optional { ca: ca.path.clone() },
            Demand::Required => ClientCertificates::Required { ca: ca.path.clone() },
        },
    };
    let versions = match (config.tls_min, config.tls_max) {
        (TlsVersion::V1_2, TlsVersion::V1_2) => Versions::Tls12Only,
        (TlsVersion::V1_3, _) => Versions::Tls13Only,
        (TlsVersion::V1_2, TlsVersion::V1_3) => Versions::Both,
    };
    let unlisted = match config.mode {
        Mode::Keygate => Unlisted::Refused,
        Mode::Etcd => Unlisted::Accepted,
    };
    TlsSources {
        cert: files.cert.clone(),
        key: files.key.clone(),
        client_certificates,
        identity_rules: config.identity_rules_file.clone(),
        revocation: config.client_crl_file.clone().map(|path| Revocation { path, unlisted }),
        versions,
        cipher_suites: config.cipher_suites.clone(),
        private_key_only: config.mode == Mode::Keygate,
    }
}

pub(super) fn tokens(token: &AuthToken) -> anyhow::Result<Tokens> {
    let jwt = match token {
        AuthToken::Simple { ttl } => return Ok(Tokens::Simple(SimpleTokens::new(*ttl))),
        AuthToken::Jwt(jwt) => jwt,
    };
    let public = jwt.public_key.as_deref().map(key_file).transpose()?;
    let private = jwt.private_key.as_deref().map(key_file).transpose()?;
    let keys = JwtKeys::new(
        algorithm(jwt.method),
        public.as_ref().map(|key| key.as_slice()),
        private.as_ref().map(|key| key.as_slice()),
        jwt.ttl,
    );
    Ok(Tokens::Jwt(keys.context("the keys of `--auth-token jwt` cannot be used")?))
}

fn key_file(path: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let text = fs::read(path).with_context(|| format!("cannot read the key file `{}`", path.display()))?;
    Ok(Zeroizing::new(text))
}

fn algorithm(method: JwtMethod) -> Algorithm {
    match method {
        JwtMethod::Rs256 => Algorithm::RS256,
        JwtMethod::Rs384 => Algorithm::RS384,
        JwtMethod::Rs512 => Algorithm::RS512,
        JwtMethod::Ps256 => Algorithm::PS256,
        JwtMethod::Ps384 => Algorithm::PS384,
        JwtMethod::Ps512 => Algorithm::PS512,
        JwtMethod::Es256 => Algorithm::ES256,
        JwtMethod::Es384 => Algorithm::ES384,
        JwtMethod::EdDsa => Algorithm::EdDSA,
        JwtMethod::Hs256 => Algorithm::HS256,
        JwtMethod::Hs384 => Algorithm::HS384,
        JwtMethod::Hs512 => Algorithm::HS512,
    }
}

fn saturated(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
