//! What cannot be, and how it is told.

use super::*;

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
        &["--client-cert-allowed-hostname=a"][..],
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
fn secrets_are_neither_shown_nor_repeated() {
    let loaded =
        loaded(Mode::Etcd, &["--discovery-password=hunter2", "--discovery-user=u:hunter2"], &[]).unwrap();
    let shown = format!("{:?} {:?}", loaded.config, loaded.warnings);
    assert!(!shown.contains("hunter2"), "{shown}");
}

/// Its path is what the services of others know their callers by.
#[test]
fn the_url_of_webhooks_is_neither_shown_nor_repeated() {
    let flag = |url: &str| format!("--quota-webhook-url={url}");
    let good = flag("https://hooks.example.com/services/hunter2?key=hunter2");
    let config = loaded(Mode::Keygate, &[&good], &[]).unwrap().config;
    let setting = config.effective.iter().find(|setting| setting.key.ends_with("quota-webhook-url")).unwrap();
    assert_eq!(setting.value, "(not shown)");
    let shown = format!("{config:?}");
    assert!(shown.contains("hooks.example.com") && !shown.contains("hunter2"), "{shown}");
    for bad in ["http://hooks.example.com/hunter2", "hunter2", "https://u:hunter2@x/", "https://x/hunter2 "] {
        let said = refused(Mode::Keygate, &[&flag(bad)], &[]);
        assert!(said.starts_with("--quota-webhook-url: ") && !said.contains("hunter2"), "{bad}: {said}");
    }
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

/// With a keyed hash `pub-key` is the secret that tokens are made with, and its mode was not looked at.
#[test]
fn a_shared_secret_is_private_whatever_it_is_called() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let [open, closed] = [("open", 0o644), ("closed", 0o600)].map(|(name, mode)| {
        let path = directory.path().join(name);
        std::fs::write(&path, "key").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    });
    for (method, problems) in [("HS256", 1), ("ES256", 0)] {
        let token = format!("--auth-token=jwt,sign-method={method},pub-key={open},priv-key={closed}");
        let config = loaded(Mode::Keygate, &[&token], &[]).unwrap().config;
        let text = check_files(&config).to_string();
        assert_eq!(text.matches("mode 0644").count(), problems, "{method}: {text}");
    }
}
