//! The nouns of a request's life, and nothing that acts.
//!
//! A request becomes an [`Operation`], a [`Caller`] asks for it, a [`Permit`] proves that it was
//! allowed, a [`Sealed`] proves that its value went through the transform stage, an [`Answer`]
//! comes back or a [`Refusal`] says why not. [`Permit`] and [`Sealed`] can be made only here.
//!
//! No I/O, no clock, no runtime, no gRPC: everything else depends on this crate, it depends on
//! none of ours.

mod range;
mod value;

mod access;
mod auth;
mod caller;
mod check;
mod operation;
mod quota;
mod tenant;
mod walk;

mod bundle;
mod escalation;
mod permit;
mod policy;
mod sight;

mod answer;
mod limited;
mod observation;
mod refusal;

pub use access::{Access, AdminVerb, KeyAction};
pub use answer::{
    AlarmMember, Answer, AuthStatus, Event, KeyValue, LeaseDetail, MemberInfo, RangeAnswer, Reply,
    StatusAnswer, TxnAnswer,
};
pub use auth::{
    AuthTables, Credential, KeyspaceId, PasswordHash, Permission, PermissionKind, ROOT, Role, Secret, User,
};
pub use bundle::{
    Asking, BUNDLE_BYTES, BUNDLE_PART, BUNDLE_STEP, BundleAbout, BundleDigest, Denial, Gift, InForce,
    PlatformPolicy, PolicyAnswer, PolicyChange, PolicyQuestion, PolicyRevision, Rules, Ruling, SightRuling,
    StoredBundle,
};
pub use caller::{Caller, ConnectionKind, Evidence, Groups, Origin};
pub use check::{Limits, Nesting, some_key};
pub use escalation::{Grant, Reach, RightsOf};
pub use limited::{Limited, Retry};
pub use observation::{LimitInfo, LoadInfo, Observation};
pub use operation::{
    AlarmAction, AlarmKind, AlarmRequest, Compact, Compare, CompareOp, CompareTarget, DeleteRange,
    LeaseGrant, LeaseId, LeaseRevoke, LeaseTimeToLive, Operation, Put, PutLease, PutValue, Range, RoleGrant,
    RoleRevoke, SortOrder, SortTarget, Txn, TxnOp, UserAdd, WatchCreate,
};
pub use permit::{InternalReason, LeaseFence, Permit, PermitParts, Subject, decide_at_apply};
pub use policy::{Compile, Decision, Fence, LeaseKeys, Policy};
pub use quota::{
    LimitChange, MAX_QUOTA_PREFIXES, QuotaBound, QuotaInfo, QuotaKind, QuotaLimits, QuotaOf, QuotaSet,
    QuotaUse,
};
pub use range::KeyRange;
pub use refusal::Refusal;
pub use sight::{Sight, Stretch, WeakSight};
pub use tenant::{
    DEFAULT_TENANT, MAX_TENANT_HOSTS, Tenant, TenantChange, TenantCreate, TenantInfo, TenantName,
    TenantState, host_name,
};
pub use value::{Plaintext, Sealed, SealedForm};
pub use walk::{Cost, Summary, ValueSize};
