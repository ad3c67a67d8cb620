//! Why a request was not done. One list for the whole product; `proxy`'s status stage alone turns
//! it into gRPC codes and etcd's texts.

use crate::limited::Limited;
use crate::quota::QuotaBound;
use crate::tenant::TenantName;
use thiserror::Error;

/// The message is for operators and logs; what a client reads is decided elsewhere.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Refusal {
    // The request is not well formed.
    #[error("key is not provided")]
    KeyNotProvided,
    #[error("key not found")]
    KeyNotFound,
    #[error("value is provided together with ignore_value")]
    ValueProvided,
    #[error("lease is provided together with ignore_lease")]
    LeaseProvided,
    #[error("too many operations in one txn")]
    TooManyOperations,
    #[error("a txn writes one key twice")]
    DuplicateKey,
    #[error("invalid sort option")]
    InvalidSortOption,
    #[error("range streams do not support custom sort orders")]
    StreamSortUnsupported,
    #[error("range streams do not support revision filters")]
    StreamFilterUnsupported,
    #[error("request of `{size}` bytes is larger than the limit of `{limit}`")]
    RequestTooLarge { size: usize, limit: usize },
    #[error("txns are nested deeper than `{limit}`")]
    TxnTooDeep { limit: usize },
    #[error("invalid client api version")]
    InvalidClientApiVersion,

    // Revisions.
    #[error("required revision has been compacted")]
    Compacted,
    #[error("required revision is a future revision")]
    FutureRevision,

    // Space.
    #[error("space quota exceeded")]
    NoSpace,
    #[error("too many requests are waiting")]
    TooManyRequests,
    /// Well formed and perhaps allowed, but more than the operator lets one have.
    #[error("{0}")]
    Limited(Box<Limited>),

    // Quotas.
    #[error("quota of {} {}{} is reached: {} are used", .0.limit, .0.kind, .0.place(), .0.used)]
    QuotaReached(Box<QuotaBound>),
    #[error(
        "{} {} are used already{}, more than the new quota of {}: make room first, or set it with `--force`, which takes nothing away but lets nothing grow",
        .0.used, .0.kind, .0.place(), .0.limit
    )]
    QuotaBelowUse(Box<QuotaBound>),
    #[error("more than `{limit}` prefixes with quotas")]
    TooManyQuotas { limit: usize },

    // Leases.
    #[error("lease not found")]
    LeaseNotFound,
    #[error("lease exists already")]
    LeaseExists,
    #[error("lease ttl is too large")]
    LeaseTtlTooLarge,

    // Members.
    #[error("member not found")]
    MemberNotFound,

    // Auth administration.
    #[error("user `root` does not exist")]
    RootUserMissing,
    #[error("user `root` does not have role `root`")]
    RootRoleMissing,
    #[error("user exists already")]
    UserExists,
    #[error("user name is empty")]
    UserEmpty,
    #[error("user not found")]
    UserNotFound,
    #[error("role exists already")]
    RoleExists,
    #[error("role not found")]
    RoleNotFound,
    #[error("role name is empty")]
    RoleEmpty,
    #[error("permission is not given")]
    PermissionNotGiven,
    #[error("role is not granted to the user")]
    RoleNotGranted,
    #[error("permission is not granted to the role")]
    PermissionNotGranted,
    #[error("authentication is not enabled")]
    AuthNotEnabled,
    #[error("`root` is protected while auth is on")]
    InvalidAuthManagement,
    /// This endpoint never switches auth off.
    #[error("auth cannot be disabled on this endpoint")]
    AuthDisableRefused,

    // Identity and decisions.
    #[error("authentication failed")]
    AuthFailed,
    #[error("a password was given for a user without one")]
    NoPasswordUser,
    #[error("token is not valid")]
    InvalidToken,
    /// No credential at all.
    #[error("no user name was given")]
    Anonymous,
    #[error("token was made under auth revision `{token}`, the store is at `{store}`")]
    OldAuthRevision { token: u64, store: u64 },
    #[error("permission denied")]
    PermissionDenied,
    /// The same, remembered under this number for the operator.
    #[error("permission denied, decision `{decision:016x}`")]
    Denied { decision: u64 },
    /// A permit was overtaken by a change of policy or of the keys that it looked at. Never reaches
    /// a client: the gateway decides again.
    #[error("policy changed between decision and execution")]
    StalePermit,
    /// bcrypt hashes no more.
    #[error("password is longer than 72 bytes")]
    PasswordTooLong,
    /// Tokens can be verified but not made here.
    #[error("token signing attempted with verify-only key")]
    VerifyOnlyKey,

    // Tenants.
    #[error("tenant `{0}` exists already")]
    TenantExists(TenantName),
    #[error("there is no tenant `{0}`")]
    TenantNotFound(TenantName),
    #[error(
        "`{name}` is not a tenant's name: it takes 1 to 63 of a-z, 0-9 and `-`, neither beginning nor ending with `-`, and is not `default`"
    )]
    TenantName { name: String },
    #[error("`{host}` is not a host name")]
    HostName { host: String },
    #[error("more than `{limit}` host names")]
    TooManyHosts { limit: usize },
    #[error("host `{host}` leads to tenant `{tenant}` already")]
    HostTaken { host: String, tenant: TenantName },
    #[error("the tenant is suspended")]
    TenantSuspended,

    // The platform's policy.
    /// Each finding on a line of its own, with file and line.
    #[error("the bundle cannot be used: {0}")]
    BundleUnusable(String),
    /// What it gives, in words.
    #[error("it gives what whoever applies it does not hold: {0}; the verb `escalate` would allow it")]
    BundleGives(String),
    #[error("parts of the bundle are missing: it was not sent whole, or another one was sent meanwhile")]
    BundleIncomplete,
    #[error("a part of a bundle takes up to `{limit}` bytes")]
    BundlePartTooLarge { limit: usize },
    #[error("a bundle takes up to `{limit}` bytes")]
    BundleTooLarge { limit: u64 },
    #[error(
        "policy revision `{in_force}` is in force, not `{expected}`: look at what changed and say that revision"
    )]
    PolicyMoved { in_force: u64, expected: u64 },
    #[error("decision `{0:016x}` is not remembered: the last 1000 denials since the start are")]
    DecisionUnknown(u64),
    #[error("there is no policy revision `{0}` whose bundle is kept")]
    PolicyRevisionUnknown(u64),

    // The server's own state.
    #[error("no leader")]
    NoLeader,
    #[error("server is stopping")]
    Stopping,
    #[error("request timed out")]
    TimedOut,
    #[error("data is corrupt")]
    Corrupt,
    /// The disk does not give or take what it should, and nothing says that data is damaged.
    #[error("the store cannot be used for the moment")]
    StoreUnavailable,
    #[error("not supported by this server yet")]
    Unimplemented,
    /// Something failed here; the operator's log has the cause under this name.
    #[error("internal failure: {cause}")]
    Internal { cause: &'static str },
}
