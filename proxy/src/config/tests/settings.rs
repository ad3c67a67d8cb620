//! The list of settings is whole, and every place that shows it agrees with it.

use super::*;

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
