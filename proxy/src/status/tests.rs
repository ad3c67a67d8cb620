use super::*;
use keygate_core::QuotaBound;
use tonic::Code::{
    Aborted, AlreadyExists, DataLoss, FailedPrecondition, Internal, InvalidArgument, NotFound, OutOfRange,
    PermissionDenied, ResourceExhausted, Unauthenticated, Unavailable, Unimplemented, Unknown,
};

/// Every refusal there is, with what goes over the wire. A new one does not compile in `position`
/// until it has a place, and fails the test until it has a row.
fn table() -> Vec<(Refusal, Code, &'static str)> {
    use Refusal as R;
    vec![
        (R::KeyNotProvided, InvalidArgument, "etcdserver: key is not provided"),
        (R::KeyNotFound, InvalidArgument, "etcdserver: key not found"),
        (R::ValueProvided, InvalidArgument, "etcdserver: value is provided"),
        (R::LeaseProvided, InvalidArgument, "etcdserver: lease is provided"),
        (R::TooManyOperations, InvalidArgument, "etcdserver: too many operations in txn request"),
        (R::DuplicateKey, InvalidArgument, "etcdserver: duplicate key given in txn request"),
        (R::InvalidSortOption, InvalidArgument, "etcdserver: invalid sort option"),
        (R::StreamSortUnsupported, Unimplemented, "RangeStream does not support custom sort orders"),
        (R::StreamFilterUnsupported, Unimplemented, "RangeStream does not support revision filters"),
        (R::RequestTooLarge { size: 2, limit: 1 }, InvalidArgument, "etcdserver: request is too large"),
        (R::TxnTooDeep { limit: 16 }, InvalidArgument, "etcdserver: too many operations in txn request"),
        (R::InvalidClientApiVersion, InvalidArgument, "etcdserver: invalid client api version"),
        (R::Compacted, OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
        (R::FutureRevision, OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
        (R::NoSpace, ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
        (R::TooManyRequests, Unknown, "etcdserver: too many requests"),
        (R::LeaseNotFound, NotFound, "etcdserver: requested lease not found"),
        (R::LeaseExists, FailedPrecondition, "etcdserver: lease already exists"),
        (R::LeaseTtlTooLarge, OutOfRange, "etcdserver: too large lease TTL"),
        (R::MemberNotFound, NotFound, "etcdserver: member not found"),
        (R::RootUserMissing, FailedPrecondition, "etcdserver: root user does not exist"),
        (R::RootRoleMissing, FailedPrecondition, "etcdserver: root user does not have root role"),
        (R::UserExists, FailedPrecondition, "etcdserver: user name already exists"),
        (R::UserEmpty, InvalidArgument, "etcdserver: user name is empty"),
        (R::UserNotFound, FailedPrecondition, "etcdserver: user name not found"),
        (R::RoleExists, FailedPrecondition, "etcdserver: role name already exists"),
        (R::RoleNotFound, FailedPrecondition, "etcdserver: role name not found"),
        (R::RoleEmpty, InvalidArgument, "etcdserver: role name is empty"),
        (R::PermissionNotGiven, InvalidArgument, "etcdserver: permission not given"),
        (R::RoleNotGranted, FailedPrecondition, "etcdserver: role is not granted to the user"),
        (R::PermissionNotGranted, FailedPrecondition, "etcdserver: permission is not granted to the role"),
        (R::AuthNotEnabled, FailedPrecondition, "etcdserver: authentication is not enabled"),
        (R::InvalidAuthManagement, InvalidArgument, "etcdserver: invalid auth management"),
        (R::AuthDisableRefused, FailedPrecondition, "keygate: auth cannot be disabled on this endpoint"),
        (R::AuthFailed, InvalidArgument, "etcdserver: authentication failed, invalid user ID or password"),
        (R::NoPasswordUser, Unknown, "auth: authentication failed, password was given for no password user"),
        (R::InvalidToken, Unauthenticated, "etcdserver: invalid auth token"),
        (R::Anonymous, InvalidArgument, "etcdserver: user name is empty"),
        (
            R::OldAuthRevision { token: 1, store: 2 },
            InvalidArgument,
            "etcdserver: revision of auth store is old",
        ),
        (R::PermissionDenied, PermissionDenied, "etcdserver: permission denied"),
        (R::StalePermit, Unavailable, "etcdserver: request timed out"),
        (R::VerifyOnlyKey, Unknown, "auth: token signing attempted with verify-only key"),
        (R::NoLeader, Unavailable, "etcdserver: no leader"),
        (R::Stopping, Unavailable, "etcdserver: server stopped"),
        (R::TimedOut, Unavailable, "etcdserver: request timed out"),
        (R::Corrupt, DataLoss, "etcdserver: corrupt cluster"),
        (R::Unimplemented, Unimplemented, "keygate: not supported by this server yet"),
        (R::Internal { cause: "secret of the operator" }, Internal, "keygate: internal failure"),
        (R::PasswordTooLong, Unknown, "bcrypt: password length exceeds 72 bytes"),
        (R::TenantExists(tenant()), AlreadyExists, "keygate: tenant `pay` exists already"),
        (R::TenantNotFound(tenant()), NotFound, "keygate: there is no tenant `pay`"),
        (
            R::TenantName { name: "A".to_owned() },
            InvalidArgument,
            "keygate: `A` is not a tenant's name: it takes 1 to 63 of a-z, 0-9 and `-`, neither beginning nor ending \
             with `-`, and is not `default`",
        ),
        (R::HostName { host: "*".to_owned() }, InvalidArgument, "keygate: `*` is not a host name"),
        (R::TooManyHosts { limit: 32 }, InvalidArgument, "keygate: more than `32` host names"),
        (
            R::HostTaken { host: "h".to_owned(), tenant: tenant() },
            AlreadyExists,
            "keygate: host `h` leads to tenant `pay` already",
        ),
        (R::TenantSuspended, FailedPrecondition, "keygate: tenant is suspended: it can be read, not changed"),
        (R::StoreUnavailable, Unavailable, "keygate: the store cannot be used for the moment"),
        (
            R::QuotaReached(bound(QuotaKind::Keys)),
            ResourceExhausted,
            "keygate: quota of 3 keys under `app/\\xff` is reached",
        ),
        (
            R::QuotaBelowUse(bound(QuotaKind::History)),
            FailedPrecondition,
            "keygate: 5 history-bytes are used already under `app/\\xff`, more than the new quota of 3: make room \
             first, or set it with `--force`, which takes nothing away but lets nothing grow",
        ),
        (R::TooManyQuotas { limit: 64 }, ResourceExhausted, "keygate: more than `64` prefixes with quotas"),
        (
            R::BundleUnusable("policy.csv:2: error: x".to_owned()),
            InvalidArgument,
            "keygate: the bundle cannot be used: policy.csv:2: error: x",
        ),
        (
            R::BundleIncomplete,
            FailedPrecondition,
            "keygate: parts of the bundle are missing: it was not sent whole, or another one was sent meanwhile",
        ),
        (
            R::BundlePartTooLarge { limit: 5 },
            InvalidArgument,
            "keygate: a part of a bundle takes up to `5` bytes",
        ),
        (R::BundleTooLarge { limit: 5 }, InvalidArgument, "keygate: a bundle takes up to `5` bytes"),
        (
            R::PolicyMoved { in_force: 2, expected: 1 },
            Aborted,
            "keygate: policy revision `2` is in force, not `1`: look at what changed and say that revision",
        ),
        (
            R::PolicyRevisionUnknown(3),
            NotFound,
            "keygate: there is no policy revision `3` whose bundle is kept",
        ),
        (R::Limited(limited()), ResourceExhausted, "etcdserver: too many requests"),
        (R::Denied { decision: 7 }, PermissionDenied, "etcdserver: permission denied"),
        (
            R::DecisionUnknown(7),
            NotFound,
            "keygate: decision `0000000000000007` is not remembered: the last 1000 denials since the start are",
        ),
        (
            R::BundleGives("default: user:ops gains write /x/*".to_owned()),
            PermissionDenied,
            "keygate: it gives what whoever applies it does not hold: default: user:ops gains write /x/*; the verb \
             `escalate` would allow it",
        ),
    ]
}

fn limited() -> Box<keygate_core::Limited> {
    let retry = keygate_core::Retry::WhenFreed;
    Box::new(keygate_core::Limited { rule: "in-flight", subject: "user `alice`".into(), limit: 7, retry })
}

fn tenant() -> keygate_core::TenantName {
    keygate_core::TenantName::parse("pay").unwrap()
}

fn bound(kind: QuotaKind) -> Box<QuotaBound> {
    Box::new(QuotaBound { kind, prefix: b"app/\xff".as_slice().into(), limit: 3, used: 5 })
}

const VARIANTS: usize = 70;

fn position(refusal: &Refusal) -> usize {
    use Refusal as R;
    match refusal {
        R::KeyNotProvided => 0,
        R::KeyNotFound => 1,
        R::ValueProvided => 2,
        R::LeaseProvided => 3,
        R::TooManyOperations => 4,
        R::DuplicateKey => 5,
        R::InvalidSortOption => 6,
        R::StreamSortUnsupported => 7,
        R::StreamFilterUnsupported => 8,
        R::RequestTooLarge { .. } => 9,
        R::TxnTooDeep { .. } => 10,
        R::InvalidClientApiVersion => 11,
        R::Compacted => 12,
        R::FutureRevision => 13,
        R::NoSpace => 14,
        R::TooManyRequests => 15,
        R::Limited(_) => 66,
        R::Denied { .. } => 67,
        R::DecisionUnknown(_) => 68,
        R::LeaseNotFound => 16,
        R::LeaseExists => 17,
        R::LeaseTtlTooLarge => 18,
        R::MemberNotFound => 19,
        R::RootUserMissing => 20,
        R::RootRoleMissing => 21,
        R::UserExists => 22,
        R::UserEmpty => 23,
        R::UserNotFound => 24,
        R::RoleExists => 25,
        R::RoleNotFound => 26,
        R::RoleEmpty => 27,
        R::PermissionNotGiven => 28,
        R::RoleNotGranted => 29,
        R::PermissionNotGranted => 30,
        R::AuthNotEnabled => 31,
        R::InvalidAuthManagement => 32,
        R::AuthDisableRefused => 33,
        R::AuthFailed => 34,
        R::NoPasswordUser => 35,
        R::InvalidToken => 36,
        R::Anonymous => 37,
        R::OldAuthRevision { .. } => 38,
        R::PermissionDenied => 39,
        R::StalePermit => 40,
        R::VerifyOnlyKey => 41,
        R::NoLeader => 42,
        R::Stopping => 43,
        R::TimedOut => 44,
        R::Corrupt => 45,
        R::Unimplemented => 46,
        R::Internal { .. } => 47,
        R::PasswordTooLong => 48,
        R::TenantExists(_) => 49,
        R::TenantNotFound(_) => 50,
        R::TenantName { .. } => 51,
        R::HostName { .. } => 52,
        R::TooManyHosts { .. } => 53,
        R::HostTaken { .. } => 54,
        R::TenantSuspended => 55,
        R::StoreUnavailable => 56,
        R::QuotaReached(_) => 57,
        R::QuotaBelowUse(_) => 58,
        R::TooManyQuotas { .. } => 59,
        R::BundleUnusable(_) => 60,
        R::BundleIncomplete => 61,
        R::BundlePartTooLarge { .. } => 62,
        R::BundleTooLarge { .. } => 63,
        R::PolicyMoved { .. } => 64,
        R::PolicyRevisionUnknown(_) => 65,
        R::BundleGives(_) => 69,
    }
}

#[test]
fn every_refusal_has_its_code_and_text() {
    let table = table();
    let positions: Vec<_> = table.iter().map(|(refusal, ..)| position(refusal)).collect();
    assert_eq!(positions, (0..VARIANTS).collect::<Vec<_>>());
    for (refusal, code, text) in table {
        let status = of(&refusal);
        assert_eq!((status.code(), status.message()), (code, text), "{refusal:?}");
    }
}

/// etcd's clients know this text; they would not know one that says more.
#[test]
fn a_quota_of_bytes_is_told_in_etcds_words() {
    for kind in [QuotaKind::Bytes, QuotaKind::History] {
        let status = of(&Refusal::QuotaReached(bound(kind)));
        assert_eq!(
            (status.code(), status.message()),
            (ResourceExhausted, "etcdserver: mvcc: database space exceeded")
        );
    }
}

#[test]
fn a_watch_that_is_not_made_says_so_in_the_words_of_gos_errors() {
    let reasons = [
        (
            Refusal::PermissionDenied,
            "rpc error: code = PermissionDenied desc = etcdserver: permission denied",
        ),
        (Refusal::InvalidToken, "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"),
        (
            Refusal::OldAuthRevision { token: 1, store: 2 },
            "rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old",
        ),
        (Refusal::Anonymous, "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"),
        (
            Refusal::Internal { cause: "not for clients" },
            "rpc error: code = PermissionDenied desc = etcdserver: permission denied",
        ),
    ];
    for (refusal, reason) in reasons {
        assert_eq!(watch_create_reason(&refusal), reason);
    }
}

#[test]
fn unknown_paths_are_told_apart_as_in_go() {
    let texts = [
        ("/etcdserverpb.KV/Rang", "unknown method Rang for service etcdserverpb.KV"),
        ("/etcdserverpb.KW/Range", "unknown service etcdserverpb.KW"),
        ("/nothing", "malformed method name: \"/nothing\""),
        ("*", "malformed method name: \"*\""),
    ];
    for (path, text) in texts {
        let status = unknown_method(path);
        assert_eq!((status.code(), status.message()), (Unimplemented, text));
    }
    assert!(unknown_method(&format!("/{}/x", "a".repeat(10_000))).message().len() < 200);
}
