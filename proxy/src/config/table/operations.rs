//! Settings of logs, metrics, checks, and of the command line itself.

use super::{
    Effect, Flag,
    Group::{Features, Logging, Member, Monitoring, Tracing},
    Kind, NOT_SERVED, ONE_MEMBER, OTHER_ENGINE,
};
use crate::config::{draft, url::Url, values};

pub(super) const FLAGS: &[Flag] = &[
    Flag::new(Monitoring, "enable-pprof", Kind::Bool, "false", "Serve Go's profiles.")
        .no_effect(OTHER_ENGINE),
    Flag::new(
        Monitoring,
        "metrics",
        Kind::Choice(&["basic", "extensive"]),
        "basic",
        "Detail of the metrics; `extensive` adds latency histograms of every RPC.",
    )
    .sets(draft::metrics),
    Flag::new(
        Monitoring,
        "listen-metrics-urls",
        Kind::Urls,
        "",
        "Further places at which metrics and health are served.",
    )
    .sets(|draft, text| draft::put(&mut draft.listen_metrics, Url::list(text))),
    Flag::new(Logging, "logger", Kind::Choice(&["zap"]), "zap", "Kept for etcd's sake.")
        .no_effect(OTHER_ENGINE),
    Flag::new(
        Logging,
        "log-outputs",
        Kind::List,
        "default",
        "Where logs go: `default` and `stderr`, `stdout`, or paths of files, several separated by commas.",
    )
    .sets(draft::log_outputs),
    Flag::new(
        Logging,
        "log-level",
        Kind::Choice(&["debug", "info", "warn", "error", "dpanic", "panic", "fatal"]),
        "info",
        "Least important level that is logged.",
    )
    .sets(draft::log_level),
    Flag::new(
        Logging,
        "log-format",
        Kind::Choice(&["json", "console"]),
        "json",
        "One JSON object a line, or text for people.",
    )
    .sets(draft::log_format),
    Flag::new(
        Logging,
        "enable-log-rotation",
        Kind::Bool,
        "false",
        "Rotate the log, which must then be a single file.",
    )
    .sets(|draft, text| draft::put(&mut draft.log_rotation, values::boolean(text))),
    Flag::new(
        Logging,
        "log-rotation-config-json",
        Kind::Text,
        r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#,
        "How the log is rotated: `maxsize` in MB, `maxage` in days, `maxbackups` a count, 0 for no limit.",
    )
    .sets(draft::log_rotation),
    Flag::new(
        Monitoring,
        "warning-apply-duration",
        Kind::Duration,
        "100ms",
        "Duration from which an apply is logged as slow.",
    )
    .no_effect(NOT_SERVED),
    Flag::new(
        Monitoring,
        "warning-unary-request-duration",
        Kind::Duration,
        "300ms",
        "Duration from which a request is logged as slow.",
    )
    .no_effect(NOT_SERVED),
    Flag::new(Tracing, "enable-distributed-tracing", Kind::Bool, "false", "Send traces.")
        .no_effect(NOT_SERVED),
    Flag::new(Tracing, "distributed-tracing-address", Kind::Text, "localhost:4317", "Where traces are sent.")
        .no_effect(NOT_SERVED),
    Flag::new(
        Tracing,
        "distributed-tracing-service-name",
        Kind::Text,
        "etcd",
        "Name of the service in traces.",
    )
    .no_effect(NOT_SERVED),
    Flag::new(Tracing, "distributed-tracing-instance-id", Kind::Text, "", "Name of this instance in traces.")
        .no_effect(NOT_SERVED),
    Flag::new(Tracing, "distributed-tracing-sampling-rate", Kind::Unsigned, "0", "Traces kept of a million.")
        .no_effect(NOT_SERVED),
    Flag::new(
        Features,
        "corrupt-check-time",
        Kind::Duration,
        "0s",
        "Pause between two comparisons of the members' data.",
    )
    .no_effect(ONE_MEMBER),
    Flag::new(
        Features,
        "compact-hash-check-time",
        Kind::Duration,
        "1m",
        "Pause between two comparisons of the members' compaction hashes.",
    )
    .no_effect(ONE_MEMBER),
    Flag::new(
        Features,
        "compaction-batch-limit",
        Kind::Unsigned,
        "1000",
        "Revisions removed in one step of a compaction.",
    )
    .no_effect(OTHER_ENGINE),
    Flag::new(
        Features,
        "compaction-sleep-interval",
        Kind::Duration,
        "10ms",
        "Pause between two steps of a compaction.",
    )
    .no_effect(OTHER_ENGINE),
    // Ten minutes, as etcd; Kubernetes asks for 5s.
    Flag::new(
        Features,
        "watch-progress-notify-interval",
        Kind::Duration,
        "10m",
        "Pause between two progress notes on a quiet watch; at least 100ms.",
    )
    .sets(|draft, text| draft::put(&mut draft.watch_progress_interval, values::duration(text))),
    Flag::new(
        Features,
        "downgrade-check-time",
        Kind::Duration,
        "5s",
        "Pause between two looks at the progress of a downgrade.",
    )
    .no_effect(ONE_MEMBER),
    Flag::new(
        Features,
        "bootstrap-defrag-threshold-megabytes",
        Kind::Unsigned,
        "0",
        "Space to be won from which the store is defragmented at start.",
    )
    .no_effect(OTHER_ENGINE),
    Flag::new(Features, "max-learners", Kind::Unsigned, "1", "Learners that the cluster may have.")
        .no_effect(ONE_MEMBER),
    Flag::new(
        Features,
        "snapshot-catchup-entries",
        Kind::Unsigned,
        "5000",
        "Log entries kept for members that are behind.",
    )
    .no_effect(ONE_MEMBER),
    command_line("config-file", Kind::Path, "", "Read this file, and neither flags nor environment."),
    command_line("version", Kind::Bool, "false", "Print the version and exit."),
];

const fn command_line(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Flag {
    let mut flag = Flag::new(Member, name, kind, default, doc);
    flag.effect = Effect::CommandLine;
    flag
}
