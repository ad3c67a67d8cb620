use super::*;
use std::collections::HashMap;
use std::sync::atomic::Ordering;

fn page(metrics: &Metrics) -> String {
    metrics.render(&moment())
}

fn moment() -> Moment {
    let engine = EngineStats { has_leader: true, is_leader: true, ..EngineStats::default() };
    Moment {
        policy_revision: 0,
        engine,
        identity: Identity { cluster_id: 1, member_id: 0xbac7_efc3_61f1_457e },
        alarms: vec![(7, "NOSPACE")],
        readers: crate::http::Readers::Operators,
        quotas_reached: [(80, 2), (95, 1), (100, 0)],
        tenants: Vec::new(),
        quota_bytes: Some(2 << 30),
    }
}

/// Every line is a comment of a family not seen before, or a sample of the last one.
fn parse(page: &str) -> HashMap<String, f64> {
    let mut samples = HashMap::new();
    let mut families = Vec::new();
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let name = help.split(' ').next().unwrap().to_owned();
            assert!(!families.contains(&name), "{name} twice");
            families.push(name);
            continue;
        }
        let family = families.last().unwrap();
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(name == family && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let suffix = name.strip_prefix(family.as_str()).unwrap();
        assert!(["", "_bucket", "_sum", "_count"].contains(&suffix), "{line}");
        let value = value.parse().unwrap();
        assert!(samples.insert(series.to_owned(), value).is_none(), "{series} twice");
    }
    samples
}

/// The bounds and cumulative counts of each histogram, by its name and other labels.
fn histograms(page: &str) -> HashMap<String, Vec<(f64, f64)>> {
    let mut histograms: HashMap<String, Vec<(f64, f64)>> = HashMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, count) = line.rsplit_once(' ').unwrap();
        let Some((name, labels)) = series.split_once("_bucket{") else { continue };
        let (others, bound) = labels.trim_end_matches('}').rsplit_once("le=").unwrap();
        let bound = match bound.trim_matches('"') {
            "+Inf" => f64::INFINITY,
            bound => bound.parse().unwrap(),
        };
        let key = match others.trim_end_matches(',') {
            "" => name.to_owned(),
            others => format!("{name}{{{others}}}"),
        };
        histograms.entry(key).or_default().push((bound, count.parse().unwrap()));
    }
    histograms
}

#[test]
fn every_histogram_adds_up() {
    let metrics = Metrics::default();
    let counters = metrics.add_rpc();
    crate::rpc::meter::tests::some_traffic(&counters);
    let text = page(&metrics);
    let samples = parse(&text);
    let histograms = histograms(&text);
    assert!(histograms.len() > keygate_proto::methods().len());
    for (series, buckets) in &histograms {
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{series}: {buckets:?}");
        let (name, labels) = series
            .split_once('{')
            .map_or((series.as_str(), String::new()), |(name, rest)| (name, format!("{{{rest}")));
        let (bound, count) = *buckets.last().unwrap();
        assert!(bound.is_infinite());
        assert_eq!(samples[&format!("{name}_count{labels}")], count, "{series}");
        assert_eq!(samples[&format!("{name}_sum{labels}")] > 0.0, count > 0.0, "{series}");
    }
    // One put that succeeded and one that did not, under each name that etcd has for them.
    let labels = "grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"";
    assert_eq!(samples[&format!("grpc_server_handling_seconds_count{{{labels}}}")], 2.0);
    for success in ["false", "true"] {
        let labels = format!("success=\"{success}\",type=\"Put\"");
        assert_eq!(samples[&format!("etcd_server_request_duration_seconds_count{{{labels}}}")], 1.0);
    }
}

#[test]
fn bounds_are_written_as_go_writes_them() {
    let metrics = Metrics::default();
    let text = page(&metrics);
    for line in [
        "etcd_server_range_duration_seconds_bucket{success=\"true\",le=\"0.0001\"} 0",
        "etcd_server_range_duration_seconds_bucket{success=\"true\",le=\"52.4288\"} 0",
        "etcd_mvcc_hash_rev_duration_seconds_bucket{le=\"163.84\"} 0",
        "etcd_disk_backend_defrag_duration_seconds_bucket{le=\"409.6\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "missing: {line}");
    }
}

#[test]
fn what_etcds_own_tests_look_for_is_there_word_for_word() {
    let metrics = Metrics::default();
    metrics.add_rpc();
    metrics.add_traffic().received.store(20, Ordering::Relaxed);
    metrics.add_traffic().received.store(3, Ordering::Relaxed);
    let text = page(&metrics);
    for line in [
        "etcd_server_version{server_version=\"3.7.1\"} 1",
        "etcd_cluster_version{cluster_version=\"3.7\"} 1",
        "etcd_server_id{server_id=\"bac7efc361f1457e\"} 1",
        "etcd_server_is_learner 0",
        "etcd_server_has_leader 1",
        "etcd_mvcc_put_total 0",
        "etcd_mvcc_delete_total 0",
        "etcd_debugging_mvcc_watch_stream_total 0",
        "etcd_network_client_grpc_received_bytes_total 23",
        "etcd_debugging_server_alarms{alarm_type=\"NOSPACE\",server_id=\"7\"} 1",
        "grpc_server_handled_total{grpc_code=\"Canceled\",grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"} 0",
        "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 0",
        "grpc_server_handling_seconds_bucket{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\",le=\"0.005\"} 0",
        "grpc_server_handling_seconds_bucket{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\",le=\"0.01\"} 0",
        "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"} 0",
        "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"8.192\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "missing: {line}");
    }
}

#[test]
fn a_full_disk_is_shown_with_the_way_out() {
    let room = Moment { engine: EngineStats::default(), ..moment() };
    let samples = parse(&Metrics::default().render(&room));
    assert_eq!((samples["keygate_log_disk_full"], samples["keygate_store_disk_full"]), (0.0, 0.0));
    for (log_disk_full, store_disk_full) in [(true, false), (false, true)] {
        let engine = EngineStats { log_disk_full, store_disk_full, ..EngineStats::default() };
        let text = Metrics::default().render(&Moment { engine, ..moment() });
        let samples = parse(&text);
        assert_eq!(samples["keygate_log_disk_full"] > 0.0, log_disk_full);
        assert_eq!(samples["keygate_store_disk_full"] > 0.0, store_disk_full);
        for name in ["keygate_log_disk_full", "keygate_store_disk_full"] {
            let help = text.lines().find(|line| line.starts_with(&format!("# HELP {name} "))).unwrap();
            assert!(help.contains("Make room on that device"), "{help}");
        }
    }
}

#[test]
fn the_page_is_well_formed_and_starts_with_every_method_and_code() {
    let metrics = Metrics::default();
    let samples = parse(&page(&metrics));
    let handled = samples.keys().filter(|series| series.starts_with("grpc_server_handled_total")).count();
    assert_eq!(handled, keygate_proto::methods().len() * 17);
    for family in [
        "etcd_server_proposals_failed_total",
        "etcd_server_leader_changes_seen_total",
        "etcd_server_quota_backend_bytes",
        "etcd_mvcc_db_total_size_in_bytes",
        "etcd_disk_wal_fsync_duration_seconds_count",
        "etcd_disk_backend_commit_duration_seconds_sum",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_start_time_seconds",
        "process_network_receive_bytes_total",
        "process_open_fds",
        "os_fd_used",
    ] {
        assert!(samples.contains_key(family), "missing: {family}");
    }
    assert!(samples["process_resident_memory_bytes"] > 1e6);
}
