//! Settings that etcd does not have: the section `keygate:` of the file, variables `KEYGATE_*`.

use super::{Flag, Group::Keygate, Kind, Section};
use crate::config::{draft, values};

pub(super) const FLAGS: &[Flag] = &[
    // Room for a million values of 1 KiB, and a share of the smallest machine that etcd recommends (8 GiB).
    own(
        "memory-budget",
        Kind::Size,
        "1GiB",
        "Memory for current values; what does not fit is read from the store.",
    )
    .sets(|draft, text| draft::put(&mut draft.memory_budget, values::size_unsigned(text))),
    own("threads", Kind::Unsigned, "0", "Threads that serve connections; 0 is one for each core.")
        .sets(|draft, text| draft::put(&mut draft.threads, values::unsigned32(text))),
    // A client on a slow satellite link needs about 3 s for a TLS 1.2 handshake.
    own(
        "handshake-timeout",
        Kind::Duration,
        "10s",
        "Time in which a new connection must have finished its TLS handshake.",
    )
    .sets(|draft, text| draft::put(&mut draft.handshake_timeout, values::duration(text))),
    // Idle ones take some 50 KiB each. One that sends all it can takes half a MiB (measured), and is
    // not read any further: half a GiB in the hands of strangers at the very most.
    own(
        "max-unauthenticated-connections",
        Kind::Unsigned,
        "1024",
        "Connections that may be open without having proved who they are.",
    )
    .sets(|draft, text| draft::put(&mut draft.max_unauthenticated, values::unsigned32(text))),
    // A quarter of the cores, so that a flood of logins leaves the others to those who are logged in.
    own(
        "password-threads",
        Kind::Unsigned,
        "0",
        "Threads that hash passwords; 0 is one for every four cores, at least one.",
    )
    .sets(|draft, text| draft::put(&mut draft.password_threads, values::unsigned32(text))),
    // Vault's five are soon used up where several programs of one machine log in as one user.
    own(
        "login-lockout-threshold",
        Kind::Unsigned,
        "0",
        "Wrong passwords for a user from one address (of IPv6 from one /64) after which logins as that user from there are refused for a while, right or wrong; 0 is any number.",
    )
    .keygate_default("10")
    .sets(|draft, text| draft::put(&mut draft.login_lockout.threshold, values::unsigned32(text))),
    own(
        "login-lockout-user-threshold",
        Kind::Unsigned,
        "0",
        "The same for wrong passwords from all addresses together; 0 is any number. With it, strangers can lock a user out.",
    )
    .sets(|draft, text| draft::put(&mut draft.login_lockout.user_threshold, values::unsigned32(text))),
    // Ten guesses in five minutes are 2880 a day; who mistypes does not wait for long.
    own("login-lockout-duration", Kind::Duration, "5m", "How long logins are refused then.")
        .sets(|draft, text| draft::put(&mut draft.login_lockout.duration, values::duration(text))),
    own(
        "login-lockout-counter-reset",
        Kind::Duration,
        "15m",
        "Wrong passwords are forgotten so long after the last one.",
    )
    .sets(|draft, text| draft::put(&mut draft.login_lockout.counter_reset, values::duration(text))),
    // A quarter of the store's default quota: whoever is owed that much does not read.
    own(
        "watch-backlog-bytes",
        Kind::Size,
        "512MiB",
        "Bytes of new events that a watch may be behind; with more it is cancelled, and told from which revision to go on. 0 is any number.",
    )
    .sets(|draft, text| draft::put(&mut draft.watch_backlog, values::size_unsigned(text))),
    // 64 streams that do not read at all, or thousands that are a little slow.
    own(
        "watch-memory-bytes",
        Kind::Size,
        "256MiB",
        "Memory for events that wait for the watch streams of one tenant, 4MiB of it for one stream at most; beyond it they are read from the store again.",
    )
    .sets(|draft, text| draft::put(&mut draft.watch_memory, values::size_unsigned(text))),
    // Seven series each and up to three for quotas: a thousand for a hundred, what a scrape does not feel.
    own(
        "metrics-tenants",
        Kind::Unsigned,
        "100",
        "Tenants with series of their own on the pages of --listen-metrics-urls, the oldest first; others are added up. The client port's page names none.",
    )
    .sets(|draft, text| draft::put(&mut draft.metrics_tenants, values::unsigned32(text))),
    own(
        "identity-rules-file",
        Kind::Path,
        "",
        "Authorities of tenants, issuers of tokens, and rules from certificates and claims to tenants, users and groups, YAML. Read again when it changes.",
    )
    .sets(|draft, text| draft::path(&mut draft.identity_rules_file, text)),
    own(
        "limits-file",
        Kind::Path,
        "",
        "File with the section `limits:` (rates, sizes and counts for tenants and users); read again when it changes.",
    )
    .sets(|draft, text| draft::path(&mut draft.limits_file, text)),
    own(
        "policy-dir",
        Kind::Path,
        "",
        "Policy bundle, a folder or tar, that is put in force when it changes. Read again at SIGHUP.",
    )
    .sets(|draft, text| draft::path(&mut draft.policy_dir, text)),
    own(
        "policy-keys",
        Kind::List,
        "",
        "Files of Ed25519 public keys, PEM; with any, only bundles that they have signed are put in force.",
    )
    .sets(|draft, text| {
        draft.policy_keys = values::list(text).into_iter().map(Into::into).collect();
        Ok(())
    }),
    own("policy-keys-needed", Kind::Unsigned, "0", "So many of the policy keys must have signed; 0 is all.")
        .sets(|draft, text| draft::put(&mut draft.policy_keys_needed, values::unsigned32(text))),
    own(
        "quota-webhook-url",
        Kind::Text,
        "",
        "Where a JSON document is posted when a quota crosses 80, 95 or 100 %, or has room again: https, or http to this machine.",
    )
    // Chat services put their secret into the path.
    .secret()
    .sets(draft::webhook_url),
    own(
        "quota-webhook-ca-file",
        Kind::Path,
        "",
        "Authorities of which one must have signed the certificate of --quota-webhook-url; without it those that the system trusts.",
    )
    .sets(|draft, text| draft::path(&mut draft.quota_webhook_ca, text)),
    own(
        "quota-webhook-secret-file",
        Kind::Path,
        "",
        "Secret, its owner's alone (0600), by which each document is signed: HMAC-SHA256, in the header X-Keygate-Signature.",
    )
    .sets(|draft, text| draft::path(&mut draft.quota_webhook_secret, text)),
    own(
        "policy-recover",
        Kind::Bool,
        "false",
        "Start even if the bundle in force cannot be used any more: it then denies everything to all but the platform's root.",
    )
    .sets(|draft, text| draft::put(&mut draft.policy_recover, values::boolean(text))),
    // Well below the 90 s after which systemd kills, and the 30 s of Kubernetes.
    own("shutdown-grace", Kind::Duration, "10s", "Time that open requests have to finish after SIGTERM.")
        .sets(|draft, text| draft::put(&mut draft.shutdown_grace, values::duration(text))),
];

const fn own(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Flag {
    Flag::new(Keygate, name, kind, default, doc).in_section(Section::Keygate, name)
}
