//! Settings of the cluster: who its members are and how they find each other.

use super::{
    Flag,
    Group::{Clustering, Unsafe},
    Kind, ONE_MEMBER, OTHER_ENGINE,
    Section::Discovery,
};
use crate::config::{draft, url::Url};

/// Members that each start a cluster of their own, where the operator asked for one, would take writes apart unseen.
const NO_DISCOVERY: &str =
    "a cluster cannot be discovered yet: one member is supported, and each would start alone";

pub(super) const FLAGS: &[Flag] = &[
    Flag::new(
        Clustering,
        "initial-advertise-peer-urls",
        Kind::Urls,
        "http://localhost:2380",
        "Peer URLs told to other members.",
    )
    .sets(|draft, text| draft::put(&mut draft.advertise_peer, Url::list(text))),
    Flag::new(
        Clustering,
        "initial-cluster",
        Kind::Text,
        "",
        "Members of a new cluster as name=URL,…; by default this member alone. One member is supported.",
    )
    .sets(|draft, text| {
        text.clone_into(&mut draft.initial_cluster);
        Ok(())
    }),
    Flag::new(
        Clustering,
        "initial-cluster-state",
        Kind::Choice(&["new", "existing"]),
        "new",
        "Whether the cluster is started or joined; read on the first start only.",
    )
    .sets(draft::cluster_state),
    Flag::new(
        Clustering,
        "initial-cluster-token",
        Kind::Text,
        "etcd-cluster",
        "Part of the cluster's id, so that two clusters cannot be taken for one.",
    )
    .sets(|draft, text| {
        text.clone_into(&mut draft.cluster_token);
        Ok(())
    }),
    Flag::new(
        Clustering,
        "advertise-client-urls",
        Kind::Urls,
        "http://localhost:2379",
        "Client URLs told to clients, which dial them.",
    )
    .keygate_default("https://127.0.0.1:2379")
    .sets(|draft, text| draft::put(&mut draft.advertise_client, Url::list(text))),
    Flag::new(
        Clustering,
        "discovery",
        Kind::Text,
        "",
        "URL of the discovery service of etcd 2, which etcd removed.",
    )
    .refused(NO_DISCOVERY),
    Flag::new(Clustering, "discovery-token", Kind::Text, "", "Token of the cluster to discover.")
        .in_section(Discovery, "token")
        .refused(NO_DISCOVERY),
    Flag::new(Clustering, "discovery-endpoints", Kind::List, "", "Endpoints of the discovery service.")
        .in_section(Discovery, "endpoints")
        .refused(NO_DISCOVERY),
    Flag::new(
        Clustering,
        "discovery-dial-timeout",
        Kind::Duration,
        "2s",
        "Timeout of dialling the discovery service.",
    )
    .in_section(Discovery, "dial-timeout")
    .no_effect(ONE_MEMBER),
    Flag::new(
        Clustering,
        "discovery-request-timeout",
        Kind::Duration,
        "5s",
        "Timeout of a request to the discovery service.",
    )
    .in_section(Discovery, "request-timeout")
    .no_effect(ONE_MEMBER),
    Flag::new(
        Clustering,
        "discovery-keepalive-time",
        Kind::Duration,
        "2s",
        "Pause between pings to the discovery service.",
    )
    .in_section(Discovery, "keepalive-time")
    .no_effect(ONE_MEMBER),
    Flag::new(
        Clustering,
        "discovery-keepalive-timeout",
        Kind::Duration,
        "6s",
        "Wait for the discovery service's answer to a ping.",
    )
    .in_section(Discovery, "keepalive-timeout")
    .no_effect(ONE_MEMBER),
    Flag::new(
        Clustering,
        "discovery-insecure-transport",
        Kind::Bool,
        "true",
        "Speak to the discovery service without TLS.",
    )
    .in_section(Discovery, "insecure-transport")
    .no_effect(ONE_MEMBER),
    Flag::new(
        Clustering,
        "discovery-insecure-skip-tls-verify",
        Kind::Bool,
        "false",
        "Do not check the discovery service's certificate.",
    )
    .in_section(Discovery, "insecure-skip-tls-verify")
    .no_effect(ONE_MEMBER),
    Flag::new(Clustering, "discovery-cert", Kind::Path, "", "Client certificate for the discovery service.")
        .in_section(Discovery, "cert")
        .no_effect(ONE_MEMBER),
    Flag::new(Clustering, "discovery-key", Kind::Path, "", "Key of that certificate.")
        .in_section(Discovery, "key")
        .no_effect(ONE_MEMBER),
    Flag::new(
        Clustering,
        "discovery-cacert",
        Kind::Path,
        "",
        "CA that the discovery service's certificate is checked against.",
    )
    .in_section(Discovery, "cacert")
    .no_effect(ONE_MEMBER),
    Flag::new(
        Clustering,
        "discovery-user",
        Kind::Text,
        "",
        "User at the discovery service, as name or name:password.",
    )
    .in_section(Discovery, "user")
    .secret()
    .no_effect(ONE_MEMBER),
    Flag::new(Clustering, "discovery-password", Kind::Text, "", "Password of that user.")
        .in_section(Discovery, "password")
        .secret()
        .no_effect(ONE_MEMBER),
    Flag::new(
        Clustering,
        "discovery-fallback",
        Kind::Choice(&["exit", "proxy"]),
        "exit",
        "What follows a failed discovery.",
    )
    .no_effect(ONE_MEMBER),
    Flag::new(Clustering, "discovery-proxy", Kind::Text, "", "HTTP proxy in front of the discovery service.")
        .no_effect(ONE_MEMBER),
    Flag::new(Clustering, "discovery-srv", Kind::Text, "", "DNS domain whose SRV records name the members.")
        .refused(NO_DISCOVERY),
    Flag::new(Clustering, "discovery-srv-name", Kind::Text, "", "Suffix of the SRV name.")
        .no_effect(ONE_MEMBER),
    Flag::new(
        Clustering,
        "strict-reconfig-check",
        Kind::Bool,
        "true",
        "Refuse changes of membership that would lose the quorum.",
    )
    .no_effect(ONE_MEMBER),
    Flag::new(
        Clustering,
        "pre-vote",
        Kind::Bool,
        "true",
        "Ask whether an election could be won before starting one.",
    )
    .no_effect(ONE_MEMBER),
    Flag::new(
        Clustering,
        "auto-compaction-retention",
        Kind::Text,
        "0",
        "History to keep: a duration (a bare number is hours), or a number of revisions; 0 keeps all.",
    )
    .sets(|draft, text| {
        text.clone_into(&mut draft.retention);
        Ok(())
    }),
    Flag::new(
        Clustering,
        "auto-compaction-mode",
        Kind::Text,
        "periodic",
        "Whether the retention is a time (periodic) or a number of revisions (revision).",
    )
    .sets(|draft, text| {
        text.clone_into(&mut draft.compaction_mode);
        Ok(())
    }),
    Flag::new(
        Clustering,
        "v2-deprecation",
        Kind::Choice(&["not-yet", "write-only", "write-only-skip-check", "write-only-drop-data", "gone"]),
        "write-only",
        "Phase of the removal of etcd 2's store.",
    )
    .no_effect(OTHER_ENGINE),
    Flag::new(Unsafe, "force-new-cluster", Kind::Bool, "false", "Make a cluster of this member alone.")
        .no_effect(ONE_MEMBER),
    Flag::new(Unsafe, "unsafe-no-fsync", Kind::Bool, "false", "Do not wait for the disk.")
        .no_effect("accepted, has no effect: every acknowledged write is on disk"),
];
