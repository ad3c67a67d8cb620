//! Settings of the member: names, directories, listeners, limits.

use super::{Flag, Group::Member, Kind, NOT_SERVED, ONE_MEMBER, OTHER_ENGINE};
use crate::config::{draft, url::Url, values};

pub(super) const FLAGS: &[Flag] = &[
    Flag::new(Member, "name", Kind::Text, "default", "Name of this member, for people to read.").sets(|draft, text| {
        text.clone_into(&mut draft.name);
        Ok(())
    }),
    // etcd names the directory after the member; `keygate serve` wants one that a newcomer finds again.
    Flag::new(Member, "data-dir", Kind::Path, "${name}.etcd", "Directory that holds everything the server must not lose; made with mode 0700.")
        .keygate_default("keygate.data")
        .sets(|draft, text| {
            text.clone_into(&mut draft.data_dir);
            Ok(())
        }),
    Flag::new(Member, "wal-dir", Kind::Path, "", "Separate directory for the log.")
        .no_effect("accepted, has no effect: the log is kept below the data directory"),
    Flag::new(Member, "snapshot-count", Kind::Unsigned, "10000", "Transactions between two snapshots.").no_effect(OTHER_ENGINE),
    // 100 ms and 1 s are etcd's; the shortest lease and many clients' timeouts follow from the second.
    Flag::new(Member, "heartbeat-interval", Kind::Milliseconds, "100", "Milliseconds between two heartbeats of a leader.")
        .sets(|draft, text| draft::put(&mut draft.timing.heartbeat, values::milliseconds(text))),
    Flag::new(Member, "election-timeout", Kind::Milliseconds, "1000", "Milliseconds without a heartbeat after which a member stands for election; at least five heartbeats.")
        .sets(|draft, text| draft::put(&mut draft.timing.election, values::milliseconds(text))),
    Flag::new(Member, "initial-election-tick-advance", Kind::Bool, "true", "Shorten the first election.").no_effect(ONE_MEMBER),
    Flag::new(Member, "listen-peer-urls", Kind::Urls, "http://localhost:2380", "Where other members are listened for. Nothing is bound while there is one member.")
        .sets(|draft, text| draft::put(&mut draft.listen_peer, Url::list(text))),
    // The default port is etcd's. Only this machine can reach it until the operator says otherwise.
    Flag::new(Member, "listen-client-urls", Kind::Urls, "http://localhost:2379", "Where clients are listened for. `keygate serve` takes https only.")
        .keygate_default("https://127.0.0.1:2379")
        .sets(|draft, text| draft::put(&mut draft.listen_client, Url::list(text))),
    Flag::new(Member, "listen-client-http-urls", Kind::Urls, "", "Where HTTP (health, metrics, version) is served instead of on the client URLs.")
        .sets(|draft, text| draft::put(&mut draft.listen_client_http, Url::list(text))),
    Flag::new(Member, "max-snapshots", Kind::Unsigned, "5", "Snapshot files to keep.").no_effect(OTHER_ENGINE),
    Flag::new(Member, "max-wals", Kind::Unsigned, "5", "Log files to keep.").no_effect(OTHER_ENGINE),
    Flag::new(Member, "memory-mlock", Kind::Bool, "false", "Keep the memory of the server out of swap.").no_effect(OTHER_ENGINE),
    // 0 stands for 2 GiB, as in etcd.
    Flag::new(Member, "quota-backend-bytes", Kind::Size, "0", "Size of the store at which writes stop with the NOSPACE alarm; 0 is 2 GiB, a negative number sets no limit.")
        .sets(|draft, text| draft::put(&mut draft.quota_bytes, values::size(text))),
    Flag::new(Member, "backend-bbolt-freelist-type", Kind::Choice(&["map", "array"]), "map", "Form of bbolt's list of free pages.").no_effect(OTHER_ENGINE),
    Flag::new(Member, "backend-batch-interval", Kind::Duration, "0", "Longest wait before the backend commits.").no_effect(OTHER_ENGINE),
    Flag::new(Member, "backend-batch-limit", Kind::Unsigned, "0", "Operations after which the backend commits.").no_effect(OTHER_ENGINE),
    // etcd's numbers; Kubernetes and Patroni are written against them.
    Flag::new(Member, "max-txn-ops", Kind::Unsigned, "128", "Operations that one transaction may carry.")
        .sets(|draft, text| draft::put(&mut draft.max_txn_ops, values::unsigned(text))),
    Flag::new(Member, "max-request-bytes", Kind::Size, "1572864", "Largest request, in bytes.")
        .sets(|draft, text| draft::put(&mut draft.max_request_bytes, values::size_unsigned(text))),
    // No limit by default: Go clients open one stream for each of their watches and hang when there is no more.
    Flag::new(Member, "max-concurrent-streams", Kind::Unsigned, "4294967295", "Streams that one connection may have open.")
        .sets(|draft, text| draft::put(&mut draft.max_concurrent_streams, values::unsigned32(text))),
    Flag::new(Member, "grpc-keepalive-min-time", Kind::Duration, "5s", "Shortest pause between two pings of a client.")
        .no_effect("accepted, has no effect: no client is sent away for its pings, which cost it as much as the server"),
    Flag::new(Member, "grpc-keepalive-interval", Kind::Duration, "2h", "Pause between two pings of the server; 0 sends none.")
        .sets(|draft, text| draft::put(&mut draft.keepalive_interval, values::duration(text))),
    Flag::new(Member, "grpc-keepalive-timeout", Kind::Duration, "20s", "Wait for the answer to a ping before the connection is closed; 0 waits for ever.")
        .sets(|draft, text| draft::put(&mut draft.keepalive_timeout, values::duration(text))),
    Flag::new(Member, "socket-reuse-port", Kind::Bool, "false", "Let several processes listen on the same port.")
        .no_effect("accepted, has no effect: a second server on the same port would take clients away unseen"),
    Flag::new(Member, "socket-reuse-address", Kind::Bool, "false", "Listen although the port is still waiting to be free.")
        .no_effect("accepted, has no effect: listeners always do"),
    Flag::new(Member, "enable-grpc-gateway", Kind::Bool, "true", "Serve gRPC as JSON over HTTP.").no_effect(NOT_SERVED),
    Flag::new(Member, "raft-read-timeout", Kind::Duration, "5s", "Read timeout of connections between members.").no_effect(ONE_MEMBER),
    Flag::new(Member, "raft-write-timeout", Kind::Duration, "5s", "Write timeout of connections between members.").no_effect(ONE_MEMBER),
    Flag::new(Member, "feature-gates", Kind::Text, "", "etcd's feature gates, as Name=true,Other=false.").sets(draft::feature_gates),
];
