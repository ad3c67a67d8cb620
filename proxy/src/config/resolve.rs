//! Whether the values fit together: everything that needs more than one setting, or a look at the disk. Where etcd has
//! a sentence for a problem, it is etcd's sentence, because scripts and people search for it.

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    AuthToken, AutoCompaction, Ca, ClientCertificates, ClientTls, ClusterState, Config, Jwt, JwtMethod,
    KeepAlive, Limits, Mode, Own, Setting, Warning,
    draft::{Draft, Log, LogOutput, LogRotation, TlsVersion},
    problem::{Problem, Problems},
    raw::Raw,
    table::{self, Effect},
    url::{ListenUrl, Scheme, Url},
    values,
};

/// etcd's default quota, and the size up to which it recommends to go.
const DEFAULT_QUOTA: u64 = 2 << 30;
const RECOMMENDED_QUOTA: u64 = 8 << 30;
/// etcd warns from here; so large a request holds up everybody else's.
const RECOMMENDED_REQUEST: u64 = 10 << 20;
/// One frame of HTTP/2 data must carry a request, and lengths are 32 bits wide.
const LARGEST_REQUEST: u64 = 1 << 30;

struct Resolver<'a> {
    mode: Mode,
    raw: &'a Raw,
    warnings: &'a mut Vec<Warning>,
    problems: &'a mut Problems,
}

/// Always yields a `Config`; it may be used only if `problems` stayed empty.
pub(super) fn resolve(
    mode: Mode,
    raw: &Raw,
    draft: Draft,
    warnings: &mut Vec<Warning>,
    problems: &mut Problems,
) -> Config {
    Resolver { mode, raw, warnings, problems }.config(draft)
}

impl Resolver<'_> {
    fn config(&mut self, draft: Draft) -> Config {
        let listen_client = self.listeners("listen-client-urls", &draft.listen_client);
        let listen_client_http = self.listeners("listen-client-http-urls", &draft.listen_client_http);
        let listen_metrics = self.listeners("listen-metrics-urls", &draft.listen_metrics);
        self.listeners("listen-peer-urls", &draft.listen_peer);
        if draft.listen_client.is_empty() {
            self.problem("listen-client-urls", "at least one URL is needed");
        }
        if draft.name.is_empty() {
            self.problem("name", "a name is needed");
        }
        let tls = self.tls(&draft, &[&listen_client[..], &listen_client_http, &listen_metrics].concat());
        self.cluster(&draft);
        self.timing(&draft);
        let data_dir = match draft.data_dir.as_str() {
            "" | "${name}.etcd" => PathBuf::from(format!("{}.etcd", draft.name)),
            path => PathBuf::from(path),
        };
        let advertise_client = self.advertised(&draft, &listen_client);
        let mut config = Config {
            mode: self.mode,
            data_dir,
            listen_client,
            listen_client_http,
            listen_metrics,
            advertise_client,
            tls,
            tls_min: draft.tls_min,
            tls_max: draft.tls_max,
            auth_token: self.auth_token(&draft),
            bcrypt_cost: self.bcrypt_cost(draft.bcrypt_cost),
            limits: self.limits(&draft),
            keep_alive: KeepAlive {
                interval: some_time(draft.keepalive_interval),
                timeout: some_time(draft.keepalive_timeout),
            },
            timing: draft.timing,
            auto_compaction: self.auto_compaction(&draft),
            watch_progress_interval: draft.watch_progress_interval,
            metrics: draft.metrics,
            own: self.own(&draft),
            log: self.log(draft.log_rotation, draft.rotation, draft.log),
            name: draft.name,
            cipher_suites: draft.cipher_suites,
            listen_peer: draft.listen_peer,
            advertise_peer: draft.advertise_peer,
            cluster_token: draft.cluster_token,
            cluster_state: draft.cluster_state,
            effective: Vec::new(),
        };
        config.effective = self.effective(&config);
        config
    }

    fn problem(&mut self, flag: &str, message: impl Into<String>) {
        self.problems.add(self.raw.path(flag), message);
    }

    fn warn(&mut self, flag: &str, message: impl Into<String>) {
        self.warnings.push(Warning { message: message.into(), path: self.raw.path(flag) });
    }

    fn listeners(&mut self, flag: &str, urls: &[Url]) -> Vec<ListenUrl> {
        let mut listeners = Vec::new();
        for url in urls {
            match ListenUrl::from_url(url) {
                Ok(listener) => listeners.push(listener),
                Err(bad) => self.problem(flag, bad.0),
            }
            if self.mode == Mode::Keygate && url.scheme == Scheme::Http && flag != "listen-peer-urls" {
                self.problems.push(Problem {
                    path: self.raw.path(flag),
                    message: format!("plain HTTP is never served: {url}"),
                    accepted: Some(format!("{}", Url { scheme: Scheme::Https, ..url.clone() })),
                });
            }
        }
        listeners
    }

    fn advertised(&mut self, draft: &Draft, listeners: &[ListenUrl]) -> Vec<Url> {
        if self.raw.get("advertise-client-urls").is_some() || self.raw.get("listen-client-urls").is_none() {
            if draft.advertise_client.is_empty() {
                self.problem("advertise-client-urls", "at least one URL is needed");
            }
            return draft.advertise_client.clone();
        }
        // An address that can be dialled is its own advertisement; etcd wants it said twice.
        let dialled =
            listeners.iter().all(|url| !url.address.ip().is_unspecified() && url.address.port() != 0);
        if self.mode == Mode::Keygate && dialled {
            return draft.listen_client.clone();
        }
        self.problem(
            "advertise-client-urls",
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        );
        Vec::new()
    }

    fn tls(&mut self, draft: &Draft, listeners: &[ListenUrl]) -> ClientTls {
        let needed = listeners.iter().any(|url| url.scheme == Scheme::Https);
        if draft.tls_min > draft.tls_max {
            self.problem("tls-min-version", "the oldest version is newer than --tls-max-version");
        }
        if draft.tls_min == TlsVersion::V1_3 && self.raw.get("cipher-suites").is_some() {
            self.problem("cipher-suites", "cipher suites cannot be configured when only TLS1.3 is enabled");
        }
        if !draft.dropped_suites.is_empty() {
            self.warn(
                "cipher-suites",
                format!("not offered, and left out: {}", draft.dropped_suites.join(", ")),
            );
        }
        let files = match (&draft.cert_file, &draft.key_file) {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            (None, None) => None,
            (Some(_), None) => {
                self.problem("cert-file", "a certificate needs its key: --key-file is missing");
                None
            }
            (None, Some(_)) => {
                self.problem("key-file", "a key needs its certificate: --cert-file is missing");
                None
            }
        };
        if !needed {
            if files.is_some() || draft.client_cert_auth || draft.auto_tls {
                self.warn(
                    "listen-client-urls",
                    "every client URL is http, so certificates are neither shown nor asked for",
                );
            }
            return ClientTls::Off;
        }
        match (files, self.mode) {
            (Some((cert, key)), _) => {
                if draft.auto_tls {
                    self.warn("auto-tls", "accepted, has no effect beside --cert-file");
                }
                let client_certificates = self.client_certificates(draft, None);
                ClientTls::Files { cert, key, client_certificates }
            }
            (None, Mode::Keygate) => {
                let client_certificates = self.client_certificates(draft, Some(Ca::Managed));
                ClientTls::Managed { client_certificates }
            }
            (None, Mode::Etcd) if draft.auto_tls => {
                if draft.client_cert_auth || draft.trusted_ca_file.is_some() {
                    self.problem("client-cert-auth", "client certificates cannot be asked for with --auto-tls; give --cert-file and --key-file");
                }
                if draft.self_signed_years == 0 {
                    self.problem("self-signed-cert-validity", "at least one year is needed");
                }
                ClientTls::SelfSigned { validity_years: draft.self_signed_years.min(100) }
            }
            (None, Mode::Etcd) => {
                if draft.cert_file.is_none() && draft.key_file.is_none() {
                    self.problem(
                        "listen-client-urls",
                        "https needs --cert-file and --key-file, or --auto-tls",
                    );
                }
                ClientTls::Off
            }
        }
    }

    fn client_certificates(&mut self, draft: &Draft, own: Option<Ca>) -> ClientCertificates {
        match (draft.trusted_ca_file.clone().map(Ca::File).or(own), draft.client_cert_auth) {
            (Some(ca), true) => ClientCertificates::Required { ca },
            // etcd takes the CA alone as a demand; whoever relied on that must not find the door open.
            (Some(ca), false) if self.mode == Mode::Etcd => ClientCertificates::Required { ca },
            (Some(ca), false) => ClientCertificates::Optional { ca },
            (None, false) => ClientCertificates::Ignored,
            (None, true) => {
                self.problem(
                    "client-cert-auth",
                    "--trusted-ca-file is missing: whose certificates shall be accepted?",
                );
                ClientCertificates::Ignored
            }
        }
    }

    fn cluster(&mut self, draft: &Draft) {
        if draft.advertise_peer.is_empty() {
            self.problem("initial-advertise-peer-urls", "at least one URL is needed");
        }
        if draft.initial_cluster.is_empty() {
            return;
        }
        let mut members: Vec<(String, Vec<Url>)> = Vec::new();
        for item in values::list(&draft.initial_cluster) {
            let parsed = item.split_once('=').map(|(name, url)| (name, Url::parse(url)));
            let (name, url) = match parsed {
                Some((name, Ok(url))) if !name.is_empty() => (name.to_owned(), url),
                Some((_, Err(bad))) => {
                    self.problem("initial-cluster", bad.0);
                    return;
                }
                Some((_, Ok(_))) | None => {
                    self.problem("initial-cluster", format!("`{item}` is not of the form name=URL"));
                    return;
                }
            };
            match members.iter_mut().find(|(known, _)| *known == name) {
                Some((_, urls)) => urls.push(url),
                None => members.push((name, vec![url])),
            }
        }
        if members.len() > 1 {
            let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
            self.problem(
                "initial-cluster",
                format!(
                    "{} members are named ({}), but clusters of several members are not supported yet: name this one alone, or remove the setting",
                    names.len(),
                    names.join(", ")
                ),
            );
            return;
        }
        let Some((_, urls)) = members.iter().find(|(name, _)| *name == draft.name) else {
            self.problem(
                "initial-cluster",
                format!("couldn't find local name \"{}\" in the initial cluster configuration", draft.name),
            );
            return;
        };
        let missing = |from: &[Url], of: &[Url]| -> Option<String> {
            let urls: Vec<String> = of
                .iter()
                .filter(|url| !from.iter().any(|known| known.same_place(url)))
                .map(Url::to_string)
                .collect();
            (!urls.is_empty()).then(|| urls.join(","))
        };
        if let Some(urls) = missing(&draft.advertise_peer, urls) {
            self.problem(
                "initial-cluster",
                format!("--initial-cluster has {urls} but missing from --initial-advertise-peer-urls"),
            );
        }
        if let Some(missing) = missing(urls, &draft.advertise_peer) {
            self.problem(
                "initial-advertise-peer-urls",
                format!("--initial-advertise-peer-urls has {missing} but missing from --initial-cluster"),
            );
        }
    }

    fn timing(&mut self, draft: &Draft) {
        let (heartbeat, election) = (draft.timing.heartbeat.as_millis(), draft.timing.election.as_millis());
        if heartbeat == 0 {
            self.problem("heartbeat-interval", "--heartbeat-interval must be >0 (set to 0ms)");
        } else if election == 0 {
            self.problem("election-timeout", "--election-timeout must be >0 (set to 0ms)");
        } else if 5 * heartbeat > election {
            self.problem(
                "election-timeout",
                format!(
                    "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
                ),
            );
        }
        if election > 50_000 {
            self.problem(
                "election-timeout",
                format!("--election-timeout[{election}ms] is too long, and should be set less than 50000ms"),
            );
        }
        if draft.watch_progress_interval < Duration::from_millis(100) {
            self.problem("watch-progress-notify-interval", "at least 100ms are needed");
        }
    }

    fn limits(&mut self, draft: &Draft) -> Limits {
        let quota_bytes = match u64::try_from(draft.quota_bytes) {
            Err(_) => None,
            Ok(0) => Some(DEFAULT_QUOTA),
            Ok(bytes) => Some(bytes),
        };
        if quota_bytes.is_some_and(|bytes| bytes > RECOMMENDED_QUOTA) {
            self.warn(
                "quota-backend-bytes",
                "more than the recommended 8 GiB: a start and a snapshot take long",
            );
        }
        if draft.max_request_bytes > RECOMMENDED_REQUEST {
            self.warn(
                "max-request-bytes",
                "more than the recommended 10 MiB: one request holds up all others",
            );
        }
        if !(1..=LARGEST_REQUEST).contains(&draft.max_request_bytes) {
            self.problem("max-request-bytes", "from 1 byte to 1 GiB can be allowed");
        }
        if draft.max_txn_ops == 0 {
            self.problem("max-txn-ops", "at least one operation must be allowed");
        }
        if draft.max_concurrent_streams == 0 {
            self.problem("max-concurrent-streams", "at least one stream must be allowed");
        }
        Limits {
            quota_bytes,
            request_bytes: draft.max_request_bytes,
            txn_ops: draft.max_txn_ops,
            concurrent_streams: draft.max_concurrent_streams,
        }
    }

    fn bcrypt_cost(&mut self, cost: u64) -> u32 {
        match u32::try_from(cost) {
            Ok(cost @ 4..=31) => cost,
            _ if self.mode == Mode::Etcd => {
                self.warn("bcrypt-cost", "use default bcrypt cost instead of the invalid given cost");
                10
            }
            _ => {
                self.problem("bcrypt-cost", format!("`{cost}` is not a cost from 4 to 31"));
                10
            }
        }
    }

    fn auto_compaction(&mut self, draft: &Draft) -> AutoCompaction {
        let text = draft.retention.as_str();
        match draft.compaction_mode.as_str() {
            "periodic" => match text.parse::<u64>().ok().map(|hours| hours.checked_mul(3600)) {
                Some(Some(0)) => AutoCompaction::Off,
                Some(Some(seconds)) => AutoCompaction::Periodic(Duration::from_secs(seconds)),
                Some(None) => self.bad_retention("a time", text),
                None => match values::duration(text) {
                    Ok(Duration::ZERO) => AutoCompaction::Off,
                    Ok(time) => AutoCompaction::Periodic(time),
                    Err(_) => self.bad_retention("hours or a duration such as 30m", text),
                },
            },
            "revision" => match text.parse::<u64>() {
                Ok(0) => AutoCompaction::Off,
                Ok(count) => AutoCompaction::Revision(count),
                Err(_) => self.bad_retention("a number of revisions", text),
            },
            other => {
                self.problems.push(Problem {
                    path: self.raw.path("auto-compaction-mode"),
                    message: format!("unknown auto-compaction-mode \"{other}\""),
                    accepted: Some("periodic, revision".to_owned()),
                });
                AutoCompaction::Off
            }
        }
    }

    fn bad_retention(&mut self, expected: &str, text: &str) -> AutoCompaction {
        self.problem(
            "auto-compaction-retention",
            format!("error parsing CompactionRetention: `{text}` is not {expected}"),
        );
        AutoCompaction::Off
    }

    fn auth_token(&mut self, draft: &Draft) -> AuthToken {
        let ttl = Duration::from_secs(u64::from(draft.auth_token_ttl));
        let mut parts = draft.auth_token.split(',');
        match (parts.next(), parts.next()) {
            (Some("simple"), None) => {
                if ttl.is_zero() {
                    self.problem("auth-token-ttl", "at least one second is needed");
                }
                AuthToken::Simple { ttl }
            }
            (Some("jwt"), _) => match jwt(draft.auth_token.split(',').skip(1)) {
                Ok(jwt) => AuthToken::Jwt(jwt),
                Err(why) => {
                    self.problems.push(Problem {
                        path: self.raw.path("auth-token"),
                        message: format!("auth: invalid auth options: {why}"),
                        accepted: None,
                    });
                    AuthToken::Simple { ttl }
                }
            },
            _ => {
                self.problems.push(Problem {
                    path: self.raw.path("auth-token"),
                    message: "auth: invalid auth options: unknown kind of token".to_owned(),
                    accepted: Some("simple, or jwt,pub-key=…,priv-key=…,sign-method=…,ttl=…".to_owned()),
                });
                AuthToken::Simple { ttl }
            }
        }
    }

    fn log(&mut self, rotate: bool, rotation: LogRotation, log: Log) -> Log {
        if !rotate {
            return log;
        }
        let files = log.outputs.iter().filter(|output| matches!(output, LogOutput::File(_))).count();
        if files != 1 {
            self.problem(
                "enable-log-rotation",
                "--log-outputs requires a single file path when --log-rotate-config-json is defined",
            );
        }
        Log { rotation: Some(rotation), ..log }
    }

    fn own(&mut self, draft: &Draft) -> Own {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let count = |number: u32, otherwise: usize| {
            let number = usize::try_from(number).unwrap_or(usize::MAX);
            NonZeroUsize::new(if number == 0 { otherwise } else { number }).unwrap_or(NonZeroUsize::MIN)
        };
        for (flag, number) in [("threads", draft.threads), ("password-threads", draft.password_threads)] {
            if number > 1024 {
                self.problem(flag, "more than 1024 threads");
            }
        }
        for (flag, time) in [("handshake-timeout", draft.handshake_timeout)] {
            if time < Duration::from_millis(100) {
                self.problem(flag, "at least 100ms are needed");
            }
        }
        if draft.max_unauthenticated == 0 {
            self.problem("max-unauthenticated-connections", "at least one connection must be allowed");
        }
        // Below this the index alone does not leave room for a single large value.
        if draft.memory_budget < 1 << 20 {
            self.problem("memory-budget", "at least 1MiB is needed");
        }
        Own {
            memory_budget: draft.memory_budget,
            threads: count(draft.threads, cores.get()),
            handshake_timeout: draft.handshake_timeout,
            max_unauthenticated_connections: draft.max_unauthenticated,
            password_threads: count(draft.password_threads, password_threads(cores.get())),
            shutdown_grace: draft.shutdown_grace,
        }
    }

    fn effective(&self, config: &Config) -> Vec<Setting> {
        let shown = |urls: &[Url]| urls.iter().map(Url::to_string).collect::<Vec<_>>().join(",");
        table::all()
            .filter(|flag| !matches!(flag.effect, Effect::CommandLine))
            .map(|flag| {
                let given = self.raw.get(flag.name);
                let written =
                    given.map_or_else(|| flag.default_in(self.mode).to_owned(), |given| given.text.clone());
                let value = match flag.name {
                    _ if flag.secret && !written.is_empty() => "(not shown)".to_owned(),
                    "data-dir" => config.data_dir.display().to_string(),
                    "advertise-client-urls" => shown(&config.advertise_client),
                    "initial-cluster" if written.is_empty() => config
                        .advertise_peer
                        .iter()
                        .map(|url| format!("{}={url}", config.name))
                        .collect::<Vec<_>>()
                        .join(","),
                    "threads" => config.own.threads.to_string(),
                    "password-threads" => config.own.password_threads.to_string(),
                    _ => written,
                };
                let source = given.map_or_else(|| "default".to_owned(), |given| given.source.path());
                Setting { key: flag.path(), value, source }
            })
            .collect()
    }
}

/// The least that is left to serving is three of four cores; rounding is in their favour, too.
pub(super) fn password_threads(cores: usize) -> usize {
    (cores / 4).max(1)
}

fn some_time(time: Duration) -> Option<Duration> {
    (!time.is_zero()).then_some(time)
}

/// `pub-key=FILE,priv-key=FILE,sign-method=METHOD,ttl=5m`, as etcd takes it.
fn jwt<'a>(options: impl Iterator<Item = &'a str>) -> Result<Jwt, String> {
    let (mut public_key, mut private_key, mut method, mut ttl) = (None, None, None, None);
    for option in options {
        let (name, value) =
            option.split_once('=').ok_or_else(|| format!("`{option}` is not of the form name=value"))?;
        let slot = match name {
            "pub-key" => &mut public_key,
            "priv-key" => &mut private_key,
            "sign-method" => &mut method,
            "ttl" => &mut ttl,
            _ => {
                return Err(format!(
                    "unknown option `{name}`; known are pub-key, priv-key, sign-method, ttl"
                ));
            }
        };
        if slot.replace(value).is_some() {
            return Err(format!("`{name}` is given twice"));
        }
    }
    let method = match method.ok_or("sign-method is missing")? {
        "RS256" => JwtMethod::Rs256,
        "RS384" => JwtMethod::Rs384,
        "RS512" => JwtMethod::Rs512,
        "PS256" => JwtMethod::Ps256,
        "PS384" => JwtMethod::Ps384,
        "PS512" => JwtMethod::Ps512,
        "ES256" => JwtMethod::Es256,
        "ES384" => JwtMethod::Es384,
        "EdDSA" => JwtMethod::EdDsa,
        "HS256" => JwtMethod::Hs256,
        "HS384" => JwtMethod::Hs384,
        "HS512" => JwtMethod::Hs512,
        other => {
            return Err(format!(
                "unknown sign-method `{other}`; known are RS, PS and HS with 256, 384, 512, ES256, ES384, EdDSA"
            ));
        }
    };
    let symmetric = matches!(method, JwtMethod::Hs256 | JwtMethod::Hs384 | JwtMethod::Hs512);
    if symmetric && private_key.is_none() {
        return Err("this sign-method needs its shared secret as priv-key".to_owned());
    }
    if public_key.is_none() && private_key.is_none() {
        return Err("pub-key or priv-key is missing".to_owned());
    }
    let ttl = match ttl {
        // etcd's default.
        None => Duration::from_secs(300),
        Some(text) => values::duration(text).map_err(|bad| bad.0)?,
    };
    if ttl.is_zero() {
        return Err("ttl must be longer than nothing".to_owned());
    }
    Ok(Jwt {
        method,
        public_key: public_key.map(PathBuf::from),
        private_key: private_key.map(PathBuf::from),
        ttl,
    })
}

/// Looks at the files that a configuration names: whether each can be read, and whether others can read a key. Apart
/// from [`super::load`], because a configuration may be checked on another machine than the one it is for.
pub fn check_files(config: &Config) -> Problems {
    let mut problems = Problems::default();
    let path_of = |key: &str| {
        let setting = config.effective.iter().find(|setting| setting.key == key);
        setting.map_or_else(|| key.to_owned(), |setting| setting.source.clone())
    };
    let mut public = Vec::new();
    let mut private = Vec::new();
    match &config.tls {
        ClientTls::Off | ClientTls::SelfSigned { .. } => {}
        ClientTls::Managed { client_certificates } => public.extend(ca_file(client_certificates)),
        ClientTls::Files { cert, key, client_certificates } => {
            public.push(("client-transport-security.cert-file", cert));
            private.push(("client-transport-security.key-file", key));
            public.extend(ca_file(client_certificates));
        }
    }
    if let AuthToken::Jwt(jwt) = &config.auth_token {
        public.extend(jwt.public_key.iter().map(|path| ("auth-token", path)));
        private.extend(jwt.private_key.iter().map(|path| ("auth-token", path)));
    }
    for (key, path) in public.iter().chain(&private) {
        if let Err(error) = fs::File::open(path) {
            problems.add(path_of(key), format!("cannot read `{}`: {error}", path.display()));
        }
    }
    if config.mode == Mode::Keygate {
        for (key, path) in private {
            if let Err(error) = crate::pki::private_file(path) {
                problems.add(path_of(key), error.to_string());
            }
        }
    }
    if config.cluster_state == ClusterState::Existing && is_fresh(&config.data_dir) {
        problems.add(
            path_of("initial-cluster-state"),
            "an existing cluster cannot be joined yet, and the data directory is empty: say `new` to start one",
        );
    }
    problems
}

fn ca_file(certificates: &ClientCertificates) -> Option<(&'static str, &PathBuf)> {
    match certificates {
        ClientCertificates::Optional { ca: Ca::File(path) }
        | ClientCertificates::Required { ca: Ca::File(path) } => {
            Some(("client-transport-security.trusted-ca-file", path))
        }
        _ => None,
    }
}

fn is_fresh(directory: &Path) -> bool {
    fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none())
}
