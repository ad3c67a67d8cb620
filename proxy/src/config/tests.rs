use std::{ffi::OsString, time::Duration};

use super::*;

fn arguments(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    Environment::new(variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
}

fn loaded(mode: Mode, words: &[&str], variables: &[(&str, &str)]) -> Result<Loaded, Problems> {
    load(mode, &CommandLine::parse(&arguments(words)), &environment(variables))
}

/// The problems of a command line, one a line.
fn refused(mode: Mode, words: &[&str], variables: &[(&str, &str)]) -> String {
    match loaded(mode, words, variables) {
        Ok(_) => "ok".to_owned(),
        Err(problems) => problems.to_string(),
    }
}

fn refused_file(mode: Mode, text: &str) -> String {
    match load_text(mode, text) {
        Ok(_) => "ok".to_owned(),
        Err(problems) => problems.to_string(),
    }
}

fn warnings(loaded: &Loaded) -> Vec<String> {
    loaded.warnings.iter().map(|warning| format!("{}: {}", warning.path, warning.message)).collect()
}

/// Without where each was written, which of course differs.
fn values(loaded: Loaded) -> Vec<(String, String)> {
    loaded.config.effective.into_iter().map(|setting| (setting.key, setting.value)).collect()
}

#[test]
fn every_default_is_accepted_by_its_own_setting() {
    for mode in [Mode::Keygate, Mode::Etcd] {
        let loaded = loaded(mode, &[], &[]).unwrap();
        assert_eq!(warnings(&loaded), Vec::<String>::new());
    }
    for flag in table::all() {
        for default in [flag.default_in(Mode::Keygate), flag.default_in(Mode::Etcd)] {
            flag.kind.check(default).unwrap_or_else(|bad| panic!("--{}: {}", flag.name, bad.0));
        }
    }
}

#[test]
fn names_keys_and_variables_are_each_used_once() {
    let unique = |mut names: Vec<String>| {
        names.sort();
        let before = names.clone();
        names.dedup();
        assert_eq!(before, names);
    };
    unique(table::all().map(|flag| flag.name.to_owned()).collect());
    unique(table::all().map(table::Flag::path).collect());
    unique(table::all().map(table::Flag::variable).collect());
}

/// Every flag of `etcd --help` as of 3.7.1, so that no command line of etcd's fails for a name.
const ETCD_FLAGS: &str = "advertise-client-urls auth-token auth-token-ttl auto-compaction-mode auto-compaction-retention \
    auto-tls backend-batch-interval backend-batch-limit backend-bbolt-freelist-type bcrypt-cost \
    bootstrap-defrag-threshold-megabytes cert-file cipher-suites client-cert-allowed-hostname client-cert-auth \
    client-cert-file client-crl-file client-key-file compact-hash-check-time compaction-batch-limit \
    compaction-sleep-interval config-file corrupt-check-time cors data-dir discovery discovery-cacert discovery-cert \
    discovery-dial-timeout discovery-endpoints discovery-fallback discovery-insecure-skip-tls-verify \
    discovery-insecure-transport discovery-keepalive-time discovery-keepalive-timeout discovery-key discovery-password \
    discovery-proxy discovery-request-timeout discovery-srv discovery-srv-name discovery-token discovery-user \
    distributed-tracing-address distributed-tracing-instance-id distributed-tracing-sampling-rate \
    distributed-tracing-service-name downgrade-check-time election-timeout enable-distributed-tracing \
    enable-grpc-gateway enable-log-rotation enable-pprof feature-gates force-new-cluster grpc-keepalive-interval \
    grpc-keepalive-min-time grpc-keepalive-timeout heartbeat-interval host-whitelist initial-advertise-peer-urls \
    initial-cluster initial-cluster-state initial-cluster-token initial-election-tick-advance key-file \
    listen-client-http-urls listen-client-urls listen-metrics-urls listen-peer-urls log-format log-level log-outputs \
    log-rotation-config-json logger max-concurrent-streams max-learners max-request-bytes max-snapshots max-txn-ops \
    max-wals memory-mlock metrics name peer-auto-tls peer-cert-allowed-cn peer-cert-allowed-hostname peer-cert-file \
    peer-client-cert-auth peer-client-cert-file peer-client-key-file peer-crl-file peer-key-file \
    peer-skip-client-san-verification peer-trusted-ca-file pre-vote quota-backend-bytes raft-read-timeout \
    raft-write-timeout self-signed-cert-validity snapshot-catchup-entries snapshot-count socket-reuse-address \
    socket-reuse-port strict-reconfig-check tls-max-version tls-min-version trusted-ca-file unsafe-no-fsync \
    v2-deprecation version wal-dir warning-apply-duration warning-unary-request-duration \
    watch-progress-notify-interval";

#[test]
fn every_flag_of_etcd_is_known_and_none_is_made_up() {
    let etcds: Vec<&str> = ETCD_FLAGS.split_whitespace().collect();
    for name in &etcds {
        assert!(table::by_name(name).is_some(), "--{name} is missing");
    }
    for flag in table::all().filter(|flag| flag.section != table::Section::Keygate) {
        assert!(etcds.contains(&flag.name), "--{} is not etcd's", flag.name);
    }
}

#[test]
fn flags_variables_and_file_lead_to_the_same_settings() {
    let flags = [
        "--name=n1",
        "-data-dir",
        "/var/lib/n1",
        "--listen-client-urls=http://10.0.0.1:2379,http://127.0.0.1:2379",
        "--advertise-client-urls=http://10.0.0.1:2379",
        "--initial-cluster=n1=http://10.0.0.1:2380",
        "--initial-advertise-peer-urls",
        "http://10.0.0.1:2380",
        "--peer-client-cert-auth",
        "--pre-vote=false",
        "--quota-backend-bytes=8GiB",
        "--watch-progress-notify-interval=5s",
        "--auto-compaction-retention=1",
        "--log-outputs=stderr,/tmp/n1.log",
        "--auth-token-ttl=60",
        "--memory-budget=64MiB",
    ];
    let variables = [
        ("ETCD_NAME", "n1"),
        ("ETCD_DATA_DIR", "/var/lib/n1"),
        ("ETCD_LISTEN_CLIENT_URLS", "http://10.0.0.1:2379,http://127.0.0.1:2379"),
        ("ETCD_ADVERTISE_CLIENT_URLS", "http://10.0.0.1:2379"),
        ("ETCD_INITIAL_CLUSTER", "n1=http://10.0.0.1:2380"),
        ("ETCD_INITIAL_ADVERTISE_PEER_URLS", "http://10.0.0.1:2380"),
        ("ETCD_PEER_CLIENT_CERT_AUTH", "true"),
        ("ETCD_PRE_VOTE", "false"),
        ("ETCD_QUOTA_BACKEND_BYTES", "8GiB"),
        ("ETCD_WATCH_PROGRESS_NOTIFY_INTERVAL", "5s"),
        ("ETCD_AUTO_COMPACTION_RETENTION", "1"),
        ("ETCD_LOG_OUTPUTS", "stderr,/tmp/n1.log"),
        ("ETCD_AUTH_TOKEN_TTL", "60"),
        ("KEYGATE_MEMORY_BUDGET", "64MiB"),
    ];
    let file = r#"
name: n1
data-dir: /var/lib/n1
listen-client-urls: http://10.0.0.1:2379,http://127.0.0.1:2379
advertise-client-urls: [http://10.0.0.1:2379]
initial-cluster: n1=http://10.0.0.1:2380
initial-advertise-peer-urls: http://10.0.0.1:2380
peer-transport-security:
  client-cert-auth: true
pre-vote: false
quota-backend-bytes: 8GiB
watch-progress-notify-interval: 5000000000
auto-compaction-retention: "1"
log-outputs: [stderr, /tmp/n1.log]
auth-token-ttl: 60
keygate:
  memory-budget: 64MiB
"#;
    let by_flags = loaded(Mode::Etcd, &flags, &[]).unwrap();
    assert_eq!(by_flags.config.watch_progress_interval, Duration::from_secs(5));
    assert_eq!(by_flags.config.auto_compaction, AutoCompaction::Periodic(Duration::from_secs(3600)));
    assert_eq!(by_flags.config.limits.quota_bytes, Some(8 << 30));
    assert_eq!(by_flags.config.own.memory_budget, 64 << 20);
    assert_eq!(by_flags.config.listen_client.len(), 2);
    assert_eq!(
        warnings(&by_flags),
        [
            "--peer-client-cert-auth: accepted, has no effect with one member",
            "--pre-vote: accepted, has no effect with one member"
        ]
        .map(str::to_owned)
        .to_vec()
        .into_iter()
        .rev()
        .collect::<Vec<_>>()
    );
    let by_flags = values(by_flags);
    assert_eq!(values(loaded(Mode::Etcd, &[], &variables).unwrap()), by_flags);
    assert_eq!(values(load_text(Mode::Etcd, file).unwrap()), by_flags);
}

#[test]
fn a_pause_between_pings_that_is_not_enforced_is_owned_up_to_once() {
    let with = |value| warnings(&loaded(Mode::Keygate, &[value], &[]).unwrap());
    assert!(with("--grpc-keepalive-min-time=5s").is_empty());
    let warnings = with("--grpc-keepalive-min-time=10s");
    assert!(
        warnings.len() == 1 && warnings[0].starts_with("--grpc-keepalive-min-time: accepted, has no effect")
    );
}

#[test]
fn all_problems_are_told_at_once_each_with_its_place() {
    let file = r#"
name: n1
data-dri: /x
listen-client-urls: http://example.com:2379
heartbeat-interval: 500
max-txn-ops: many
initial-cluster-state: perhaps
cert-file: /x.pem
client-transport-security:
  key-file: /k.pem
  client-cert-auth: 7
  colour: blue
keygate:
  memory-budget: huge
  threads: 2
"#;
    assert_eq!(
        refused_file(Mode::Keygate, file),
        "data-dri: unknown key; did you mean `data-dir`?\n\
         cert-file: unknown key; it is written `client-transport-security.cert-file`\n\
         client-transport-security.client-cert-auth: a number does not fit here (accepted: true, false)\n\
         client-transport-security.colour: unknown key\n\
         max-txn-ops: `many` is not a whole number from 0 to 18446744073709551615 (accepted: a whole number from 0)\n\
         initial-cluster-state: `perhaps` is not one of the accepted values (accepted: new, existing)\n\
         keygate.memory-budget: `huge` is not a size such as `1536`, `512MiB` or `1GiB` (accepted: bytes, or a size such as 512MiB)\n\
         listen-client-urls: expected IP in URL for binding (http://example.com:2379)\n\
         listen-client-urls: plain HTTP is never served: http://example.com:2379 (accepted: https://example.com:2379)\n\
         client-transport-security.key-file: a key needs its certificate: --cert-file is missing\n\
         --election-timeout: --election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[500ms]"
    );
}

#[test]
fn etcds_own_sentences_are_kept() {
    for (words, expected) in [
        (
            &["--listen-client-urls=http://127.0.0.1:1"][..],
            "--advertise-client-urls: --advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (&["--nmae=x"], "--nmae: flag provided but not defined; did you mean `--name`?"),
        (&["--audit-config-file=x"], "--audit-config-file: flag provided but not defined"),
        (&["stray"], "command line: \"stray\" is not a valid flag"),
        (&["--client-cert-auth", "false"], "command line: \"false\" is not a valid flag"),
        (&["--name"], "--name: flag needs an argument"),
        (
            &["--initial-cluster=x=http://localhost:2380"],
            "--initial-cluster: couldn't find local name \"default\" in the initial cluster configuration",
        ),
        (
            &[
                "--initial-cluster=default=http://localhost:9",
                "--initial-advertise-peer-urls=http://localhost:8",
            ],
            "--initial-cluster: --initial-cluster has http://localhost:9 but missing from --initial-advertise-peer-urls\n\
             --initial-advertise-peer-urls: --initial-advertise-peer-urls has http://localhost:8 but missing from --initial-cluster",
        ),
        (
            &["--election-timeout=60000"],
            "--election-timeout: --election-timeout[60000ms] is too long, and should be set less than 50000ms",
        ),
        (&["--heartbeat-interval=0"], "--heartbeat-interval: --heartbeat-interval must be >0 (set to 0ms)"),
        (
            &["--auto-compaction-mode=x"],
            "--auto-compaction-mode: unknown auto-compaction-mode \"x\" (accepted: periodic, revision)",
        ),
        (
            &["--auto-compaction-mode=revision", "--auto-compaction-retention=1h"],
            "--auto-compaction-retention: error parsing CompactionRetention: `1h` is not a number of revisions",
        ),
        (
            &["--cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "--tls-min-version=TLS1.3"],
            "--cipher-suites: cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        (
            &["--enable-log-rotation"],
            "--enable-log-rotation: --log-outputs requires a single file path when --log-rotate-config-json is defined",
        ),
    ] {
        assert_eq!(refused(Mode::Etcd, words, &[]), expected, "{words:?}");
    }
    let clash = refused(Mode::Etcd, &["--name=a"], &[("ETCD_NAME", "")]);
    assert!(
        clash.starts_with("ETCD_NAME: conflicting environment variable is shadowed by corresponding"),
        "{clash}"
    );
}

#[test]
fn only_a_malformed_command_line_is_a_usage_error() {
    let usage = |words: &[&str]| loaded(Mode::Etcd, words, &[]).unwrap_err().is_usage();
    assert!(usage(&["--foo"]));
    assert!(usage(&["--quota-backend-bytes=abc"]));
    assert!(usage(&["--listen-client-urls=ftp://a:1"]));
    assert!(!usage(&["--auto-compaction-mode=x"]));
    assert!(!usage(&["stray"]));
}

#[test]
fn what_would_be_unsafe_to_ignore_is_refused() {
    for words in [
        &["--client-crl-file=/crl.pem"][..],
        &["--client-cert-allowed-hostname=a"],
        &["--peer-crl-file=/crl.pem"],
        &["--discovery-token=t"],
        &["--discovery=https://discovery.etcd.io/x"],
        &["--discovery-srv=example.com"],
        &["--initial-cluster=default=http://localhost:2380,b=http://b:2380"],
        &["--auth-token=jwt"],
        &["--auth-token=jwt,sign-method=ES512,pub-key=a"],
        &["--auth-token=jwt,sign-method=HS256,pub-key=a"],
        &["--auth-token=none"],
        &["--listen-client-urls=https://127.0.0.1:1", "--advertise-client-urls=https://a:1"],
        &["--listen-client-urls=unix:///run/x", "--advertise-client-urls=http://a:1"],
        &["--feature-gates=Unheard=true"],
        &["--cipher-suites=TLS_RSA_WITH_RC4_128_SHA"],
    ] {
        assert_ne!(refused(Mode::Etcd, words, &[]), "ok", "{words:?}");
    }
    // The same settings, empty or at their default, ask for nothing.
    let harmless = ["--client-crl-file=", "--discovery-token=", "--auth-token=simple"];
    assert_eq!(refused(Mode::Etcd, &harmless, &[]), "ok");
}

#[test]
fn keygate_serves_no_plain_http_and_needs_no_certificate_of_its_own() {
    let config = loaded(Mode::Keygate, &[], &[]).unwrap().config;
    assert_eq!(config.listen_client[0].to_string(), "https://127.0.0.1:2379");
    assert_eq!(config.data_dir.to_str(), Some("keygate.data"));
    assert_eq!(
        config.tls,
        ClientTls::Managed { client_certificates: ClientCertificates::Optional { ca: Ca::Managed } }
    );
    for words in [
        &["--listen-client-urls=http://127.0.0.1:2379"][..],
        &["--listen-metrics-urls=http://127.0.0.1:2381"],
        &["--listen-client-http-urls=http://127.0.0.1:2381"],
    ] {
        assert!(refused(Mode::Keygate, words, &[]).contains("plain HTTP is never served"), "{words:?}");
    }
    // An address that can be dialled is its own advertisement; "any" is not.
    let config = loaded(Mode::Keygate, &["--listen-client-urls=https://10.1.2.3:2379"], &[]).unwrap().config;
    assert_eq!(config.advertise_client[0].to_string(), "https://10.1.2.3:2379");
    assert_ne!(refused(Mode::Keygate, &["--listen-client-urls=https://0.0.0.0:2379"], &[]), "ok");
}

#[test]
fn called_as_etcd_the_flags_decide() {
    let config = loaded(Mode::Etcd, &["--name=n"], &[]).unwrap().config;
    assert_eq!(config.listen_client[0].to_string(), "http://127.0.0.1:2379");
    assert_eq!(config.advertise_client[0].to_string(), "http://localhost:2379");
    assert_eq!(config.data_dir.to_str(), Some("n.etcd"));
    assert_eq!(config.tls, ClientTls::Off);
    let tls = [
        "--cert-file=c",
        "--key-file=k",
        "--listen-client-urls=https://127.0.0.1:1",
        "--advertise-client-urls=https://a:1",
    ];
    let with =
        |more: &[&str]| loaded(Mode::Etcd, &[&tls[..], more].concat(), &[]).map(|loaded| loaded.config.tls);
    let files =
        |client_certificates| ClientTls::Files { cert: "c".into(), key: "k".into(), client_certificates };
    assert_eq!(with(&[]).unwrap(), files(ClientCertificates::Ignored));
    // The CA alone is a demand, as in etcd.
    let required = files(ClientCertificates::Required { ca: Ca::File("ca".into()) });
    assert_eq!(with(&["--trusted-ca-file=ca"]).unwrap(), required);
    assert_eq!(with(&["--trusted-ca-file=ca", "--client-cert-auth"]).unwrap(), required);
    assert!(with(&["--client-cert-auth"]).is_err());
    let auto =
        ["--auto-tls", "--listen-client-urls=https://127.0.0.1:1", "--advertise-client-urls=https://a:1"];
    assert_eq!(
        loaded(Mode::Etcd, &auto, &[]).unwrap().config.tls,
        ClientTls::SelfSigned { validity_years: 1 }
    );
}

#[test]
fn unknown_variables_and_old_names_only_warn() {
    let loaded = loaded(
        Mode::Etcd,
        &[
            "--experimental-initial-corrupt-check=true",
            "--experimental-watch-progress-notify-interval=5s",
            "--v",
        ],
        &[
            ("ETCD_VERSION", "v3.5.9"),
            ("ETCD_LOG_OUTPUT", "stderr"),
            ("ETCD_UNSUPPORTED_ARCH", "arm"),
            ("ETCD_WAL_DIR", ""),
            ("ETCD_MEMORY_BUDGET", "1GiB"),
            ("ETCD_EXPERIMENTAL_MAX_LEARNERS", "1"),
        ],
    )
    .unwrap();
    assert_eq!(loaded.config.watch_progress_interval, Duration::from_secs(5));
    let paths: Vec<&str> = loaded.warnings.iter().map(|warning| warning.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "--experimental-initial-corrupt-check",
            "--experimental-watch-progress-notify-interval",
            "--v",
            "ETCD_EXPERIMENTAL_MAX_LEARNERS",
            "ETCD_LOG_OUTPUT",
            "ETCD_MEMORY_BUDGET",
            "ETCD_VERSION"
        ]
    );
    let gates = loaded.config.effective.iter().find(|setting| setting.key == "feature-gates").unwrap();
    assert_eq!(gates.value, "InitialCorruptCheck=true");
}

#[test]
fn a_file_is_read_alone_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("etcd.yml");
    std::fs::write(&path, "name: from-file\n").unwrap();
    let path = path.to_str().unwrap();
    let by_flag =
        loaded(Mode::Etcd, &["--config-file", path, "--name=x"], &[("ETCD_DATA_DIR", "/x")]).unwrap();
    assert_eq!(by_flag.config.name, "from-file");
    assert_eq!(by_flag.config.data_dir.to_str(), Some("from-file.etcd"));
    assert_eq!(
        warnings(&by_flag),
        ["--name, ETCD_DATA_DIR: ignored, because a configuration file is read alone".to_owned()]
    );
    let by_variable = loaded(Mode::Etcd, &[], &[("ETCD_CONFIG_FILE", path)]).unwrap();
    assert_eq!(by_variable.config.name, "from-file");
    assert!(
        refused(Mode::Etcd, &["--config-file=/nonexistent"], &[]).starts_with("/nonexistent: cannot read")
    );
}

/// The keys of the sample file that etcd ships, with its stale and its empty ones.
const SAMPLE: &str = r#"
name: 'default'
data-dir:
wal-dir:
snapshot-count: 10000
heartbeat-interval: 100
election-timeout: 1000
quota-backend-bytes: 0
listen-peer-urls: http://localhost:2380
listen-client-urls: http://localhost:2379
max-snapshots: 5
max-wals: 5
cors:
initial-advertise-peer-urls: http://localhost:2380
advertise-client-urls: http://localhost:2379
discovery:
discovery-fallback: 'exit'
discovery-proxy:
discovery-srv:
initial-cluster:
initial-cluster-token: 'etcd-cluster'
initial-cluster-state: 'new'
strict-reconfig-check: false
enable-pprof: true
proxy: 'off'
proxy-failure-wait: 5000
client-transport-security:
  cert-file:
  key-file:
  client-cert-auth: false
  trusted-ca-file:
  auto-tls: false
peer-transport-security:
  cert-file:
  allowed-cn:
  allowed-hostname:
self-signed-cert-validity: 1
log-level: debug
logger: zap
log-outputs: [stderr]
force-new-cluster: false
auto-compaction-mode: periodic
auto-compaction-retention: "1"
cipher-suites: [
  TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
  TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
]
tls-min-version: 'TLS1.2'
tls-max-version: 'TLS1.3'
"#;

#[test]
fn the_sample_file_of_etcd_can_be_used_as_etcd() {
    let loaded = load_text(Mode::Etcd, SAMPLE).unwrap();
    assert_eq!(loaded.config.data_dir.to_str(), Some("default.etcd"));
    assert_eq!(loaded.config.cipher_suites.len(), 2);
    assert_eq!(loaded.config.log.level, LogLevel::Debug);
    let unknown: Vec<&str> = (loaded.warnings.iter())
        .filter(|warning| warning.message.starts_with("unknown key"))
        .map(|warning| warning.path.as_str())
        .collect();
    assert_eq!(unknown, ["proxy", "proxy-failure-wait"]);
}

/// Command lines and environments as guides to etcd show them.
#[test]
fn what_operators_type_today_is_understood() {
    for words in [
        "--name etcd --data-dir=/var/lib/etcd --listen-client-urls http://0.0.0.0:2379 --advertise-client-urls http://10.0.0.1:2379 --listen-peer-urls http://0.0.0.0:2380 --initial-advertise-peer-urls http://10.0.0.1:2380 --initial-cluster etcd=http://10.0.0.1:2380 --initial-cluster-token etcd-cluster-1 --initial-cluster-state new",
        "--name=etcd1 --cert-file=/pki/server.crt --key-file=/pki/server.key --client-cert-auth=true --trusted-ca-file=/pki/ca.crt --peer-cert-file=/pki/peer.crt --peer-key-file=/pki/peer.key --peer-client-cert-auth=true --peer-trusted-ca-file=/pki/ca.crt --listen-client-urls=https://192.168.1.11:2379,https://127.0.0.1:2379 --advertise-client-urls=https://192.168.1.11:2379 --snapshot-count=5000 --heartbeat-interval=100 --election-timeout=500",
        "--advertise-client-urls=https://10.0.0.1:2379 --cert-file=/pki/server.crt --client-cert-auth=true --data-dir=/var/lib/etcd --experimental-initial-corrupt-check=true --experimental-watch-progress-notify-interval=5s --initial-advertise-peer-urls=https://10.0.0.1:2380 --initial-cluster=cp=https://10.0.0.1:2380 --key-file=/pki/server.key --listen-client-urls=https://127.0.0.1:2379,https://10.0.0.1:2379 --listen-metrics-urls=http://127.0.0.1:2381 --listen-peer-urls=https://10.0.0.1:2380 --name=cp --peer-cert-file=/pki/peer.crt --peer-client-cert-auth=true --peer-key-file=/pki/peer.key --peer-trusted-ca-file=/pki/ca.crt --snapshot-count=10000 --trusted-ca-file=/pki/ca.crt",
        "--data-dir=/var/lib/etcd-restore --force-new-cluster",
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        assert_eq!(refused(Mode::Etcd, &words, &[]), "ok", "{words:?}");
    }
    let variables = [
        ("ETCD_NAME", "etcd-docker"),
        ("ETCD_DATA_DIR", "/etcd-data"),
        ("ETCD_LISTEN_CLIENT_URLS", "https://0.0.0.0:2379"),
        ("ETCD_ADVERTISE_CLIENT_URLS", "https://10.0.0.1:2379"),
        ("ETCD_CERT_FILE", "/certs/server.pem"),
        ("ETCD_KEY_FILE", "/certs/server-key.pem"),
        ("ETCD_TRUSTED_CA_FILE", "/certs/ca.pem"),
        ("ETCD_CLIENT_CERT_AUTH", "true"),
        ("ETCD_PEER_CLIENT_CERT_AUTH", "true"),
        ("ETCD_LOG_LEVEL", "info"),
        ("ETCD_LOG_OUTPUT", "stderr"),
    ];
    assert_eq!(refused(Mode::Etcd, &[], &variables), "ok");
}

#[test]
fn secrets_are_neither_shown_nor_repeated() {
    let loaded =
        loaded(Mode::Etcd, &["--discovery-password=hunter2", "--discovery-user=u:hunter2"], &[]).unwrap();
    let shown = format!("{:?} {:?}", loaded.config, loaded.warnings);
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn files_are_looked_at_all_at_once() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key.pem");
    std::fs::write(&key, "key").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let words = [
        "--cert-file=/nonexistent/cert.pem",
        &format!("--key-file={}", key.display()),
        "--trusted-ca-file=/nonexistent/ca.pem",
    ];
    let config = loaded(Mode::Keygate, &words, &[]).unwrap().config;
    let problems = check_files(&config).to_string();
    let lines: Vec<&str> = problems.lines().collect();
    assert_eq!(lines.len(), 3, "{problems}");
    assert!(lines[0].starts_with("--cert-file: cannot read `/nonexistent/cert.pem`: "), "{problems}");
    assert!(lines[1].starts_with("--trusted-ca-file: cannot read `/nonexistent/ca.pem`: "), "{problems}");
    assert!(lines[2].starts_with("--key-file: ") && lines[2].contains("mode 0644"), "{problems}");
}

/// `UPDATE_DOCS=1` writes the page; without it an outdated page fails.
#[test]
fn the_page_about_configuration_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, show::documentation()).unwrap();
    }
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert!(page == show::documentation(), "run `UPDATE_DOCS=1 cargo test -p keygate --lib config`");
}

#[test]
fn passwords_get_a_quarter_of_the_cores_at_most_and_one_thread_at_least() {
    let threads = [1, 2, 3, 4, 7, 8, 64].map(resolve::password_threads);
    assert_eq!(threads, [1, 1, 1, 1, 1, 2, 16]);
}
