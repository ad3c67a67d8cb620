//! Flags, variables and files, today's and yesterday's, mean what they say.

use super::*;

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
