//! Causes become gRPC codes and etcd's exact texts: here and nowhere else.
//!
//! Clients in Go decide by text, all others by code, so both are etcd's, its oddities included:
//! some causes arrive as `Unknown` there, and so they do here.

mod limits;
mod quotas;

use keygate_core::{QuotaKind, Refusal};
use tonic::{Code, Status};

/// A text travels in a header, and few clients read headers of more than 8 KiB.
const BUNDLE_TEXT: usize = 1_500;

/// What a client reads for a refusal. The match is exhaustive on purpose.
pub fn of(refusal: &Refusal) -> Status {
    let (code, text) = code_and_text(refusal);
    match refusal {
        Refusal::Limited(limited) => limits::refused(limited),
        // What is wrong with a tenant's name or host is said with the name: whoever reads it asked.
        Refusal::TenantExists(_)
        | Refusal::TenantNotFound(_)
        | Refusal::TenantName { .. }
        | Refusal::HostName { .. }
        | Refusal::TooManyHosts { .. }
        | Refusal::HostTaken { .. }
        | Refusal::QuotaBelowUse(_)
        | Refusal::TooManyQuotas { .. } => {
            // A name that was refused may have any length.
            let told: String = format!("keygate: {refusal}").chars().take(300).collect();
            Status::new(code, told)
        }
        Refusal::QuotaReached(bound) => quotas::refused(code, text, bound),
        Refusal::BundleUnusable(_)
        | Refusal::BundleGives(_)
        | Refusal::BundlePartTooLarge { .. }
        | Refusal::BundleTooLarge { .. }
        | Refusal::PolicyMoved { .. }
        | Refusal::PolicyRevisionUnknown(_) => {
            let told: String = format!("keygate: {refusal}").chars().take(BUNDLE_TEXT).collect();
            Status::new(code, told)
        }
        Refusal::DecisionUnknown(_) => Status::new(code, format!("keygate: {refusal}")),
        Refusal::Denied { decision } => {
            let mut status = Status::new(code, text);
            if let Ok(id) = format!("{decision:016x}").parse() {
                status.metadata_mut().insert(DECISION_ID, id);
            }
            status
        }
        _ => Status::new(code, text),
    }
}

/// Beside the status of a denial: its number, for the operator.
pub const DECISION_ID: &str = "x-keygate-decision-id";

fn code_and_text(refusal: &Refusal) -> (Code, &'static str) {
    match refusal {
        Refusal::KeyNotProvided => (Code::InvalidArgument, "etcdserver: key is not provided"),
        Refusal::KeyNotFound => (Code::InvalidArgument, "etcdserver: key not found"),
        Refusal::ValueProvided => (Code::InvalidArgument, "etcdserver: value is provided"),
        Refusal::LeaseProvided => (Code::InvalidArgument, "etcdserver: lease is provided"),
        // Each level of nesting uses up operations, so etcd says the same of a txn that is too deep.
        Refusal::TooManyOperations | Refusal::TxnTooDeep { .. } => {
            (Code::InvalidArgument, "etcdserver: too many operations in txn request")
        }
        Refusal::DuplicateKey => (Code::InvalidArgument, "etcdserver: duplicate key given in txn request"),
        Refusal::InvalidSortOption => (Code::InvalidArgument, "etcdserver: invalid sort option"),
        Refusal::StreamSortUnsupported => {
            (Code::Unimplemented, "RangeStream does not support custom sort orders")
        }
        Refusal::StreamFilterUnsupported => {
            (Code::Unimplemented, "RangeStream does not support revision filters")
        }
        Refusal::RequestTooLarge { .. } => (Code::InvalidArgument, "etcdserver: request is too large"),
        Refusal::InvalidClientApiVersion => (Code::InvalidArgument, "etcdserver: invalid client api version"),

        Refusal::Compacted => (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
        Refusal::FutureRevision => {
            (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision")
        }

        Refusal::NoSpace => (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
        Refusal::QuotaReached(bound) => match bound.kind {
            QuotaKind::Keys => (Code::ResourceExhausted, "keygate: quota of keys is reached"),
            QuotaKind::Bytes | QuotaKind::History => {
                (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded")
            }
        },
        Refusal::QuotaBelowUse(_) => {
            (Code::FailedPrecondition, "keygate: more is used already than the quota allows")
        }
        Refusal::TooManyQuotas { .. } => (Code::ResourceExhausted, "keygate: too many prefixes with quotas"),
        // etcd maps this one through its client-side table, where the code gets lost.
        Refusal::TooManyRequests => (Code::Unknown, "etcdserver: too many requests"),

        Refusal::Limited(limited) => (Code::ResourceExhausted, limits::text(limited)),

        Refusal::LeaseNotFound => (Code::NotFound, "etcdserver: requested lease not found"),
        Refusal::LeaseExists => (Code::FailedPrecondition, "etcdserver: lease already exists"),
        Refusal::LeaseTtlTooLarge => (Code::OutOfRange, "etcdserver: too large lease TTL"),

        Refusal::MemberNotFound => (Code::NotFound, "etcdserver: member not found"),

        Refusal::RootUserMissing => (Code::FailedPrecondition, "etcdserver: root user does not exist"),
        Refusal::RootRoleMissing => {
            (Code::FailedPrecondition, "etcdserver: root user does not have root role")
        }
        Refusal::UserExists => (Code::FailedPrecondition, "etcdserver: user name already exists"),
        Refusal::UserEmpty => (Code::InvalidArgument, "etcdserver: user name is empty"),
        Refusal::UserNotFound => (Code::FailedPrecondition, "etcdserver: user name not found"),
        Refusal::RoleExists => (Code::FailedPrecondition, "etcdserver: role name already exists"),
        Refusal::RoleNotFound => (Code::FailedPrecondition, "etcdserver: role name not found"),
        Refusal::RoleEmpty => (Code::InvalidArgument, "etcdserver: role name is empty"),
        Refusal::PermissionNotGiven => (Code::InvalidArgument, "etcdserver: permission not given"),
        Refusal::RoleNotGranted => (Code::FailedPrecondition, "etcdserver: role is not granted to the user"),
        Refusal::PermissionNotGranted => {
            (Code::FailedPrecondition, "etcdserver: permission is not granted to the role")
        }
        Refusal::AuthNotEnabled => (Code::FailedPrecondition, "etcdserver: authentication is not enabled"),
        Refusal::InvalidAuthManagement => (Code::InvalidArgument, "etcdserver: invalid auth management"),
        Refusal::AuthDisableRefused => {
            (Code::FailedPrecondition, "keygate: auth cannot be disabled on this endpoint")
        }

        Refusal::AuthFailed => {
            (Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password")
        }
        Refusal::NoPasswordUser => {
            (Code::Unknown, "auth: authentication failed, password was given for no password user")
        }
        Refusal::InvalidToken => (Code::Unauthenticated, "etcdserver: invalid auth token"),
        // etcd asks the same of a request without a credential and of one with an empty user name.
        Refusal::Anonymous => (Code::InvalidArgument, "etcdserver: user name is empty"),
        Refusal::OldAuthRevision { .. } => {
            (Code::InvalidArgument, "etcdserver: revision of auth store is old")
        }
        Refusal::PermissionDenied | Refusal::Denied { .. } => {
            (Code::PermissionDenied, "etcdserver: permission denied")
        }
        // The gateway decides again before this can be seen. Should a client ever see it, then as
        // what it is to them: the request did not get through, and nothing was done.
        Refusal::StalePermit | Refusal::TimedOut => (Code::Unavailable, "etcdserver: request timed out"),
        Refusal::PasswordTooLong => (Code::Unknown, "bcrypt: password length exceeds 72 bytes"),
        Refusal::VerifyOnlyKey => (Code::Unknown, "auth: token signing attempted with verify-only key"),

        Refusal::TenantExists(_) => (Code::AlreadyExists, "keygate: tenant exists already"),
        Refusal::TenantNotFound(_) => (Code::NotFound, "keygate: there is no such tenant"),
        Refusal::TenantName { .. } => (Code::InvalidArgument, "keygate: not a tenant's name"),
        Refusal::HostName { .. } => (Code::InvalidArgument, "keygate: not a host name"),
        Refusal::TooManyHosts { .. } => (Code::InvalidArgument, "keygate: too many host names"),
        Refusal::HostTaken { .. } => (Code::AlreadyExists, "keygate: a host leads to another tenant"),
        Refusal::TenantSuspended => {
            (Code::FailedPrecondition, "keygate: tenant is suspended: it can be read, not changed")
        }

        Refusal::BundleGives(_) => (Code::PermissionDenied, "keygate: the bundle gives too much"),
        Refusal::BundleUnusable(_) => (Code::InvalidArgument, "keygate: the bundle cannot be used"),
        Refusal::BundleIncomplete => (
            Code::FailedPrecondition,
            "keygate: parts of the bundle are missing: it was not sent whole, or another one was sent meanwhile",
        ),
        Refusal::BundlePartTooLarge { .. } => (Code::InvalidArgument, "keygate: part is too large"),
        Refusal::BundleTooLarge { .. } => (Code::InvalidArgument, "keygate: bundle is too large"),
        Refusal::PolicyMoved { .. } => (Code::Aborted, "keygate: another policy revision is in force"),
        Refusal::DecisionUnknown(_) => (Code::NotFound, "keygate: no such decision is remembered"),
        Refusal::PolicyRevisionUnknown(_) => (Code::NotFound, "keygate: no such policy revision is kept"),

        Refusal::NoLeader => (Code::Unavailable, "etcdserver: no leader"),
        Refusal::Stopping => (Code::Unavailable, "etcdserver: server stopped"),
        Refusal::StoreUnavailable => (Code::Unavailable, "keygate: the store cannot be used for the moment"),
        Refusal::Corrupt => (Code::DataLoss, "etcdserver: corrupt cluster"),
        Refusal::Unimplemented => (Code::Unimplemented, "keygate: not supported by this server yet"),
        // The cause is the operator's, not the client's.
        Refusal::Internal { .. } => (Code::Internal, "keygate: internal failure"),
    }
}

/// Why a watch was not made, as it stands in the answer to its create request: etcd puts the text
/// of its Go error there, and clients up to 3.5 compare with it.
pub fn watch_create_reason(refusal: &Refusal) -> String {
    let (code, text) = match refusal {
        Refusal::InvalidToken | Refusal::OldAuthRevision { .. } | Refusal::Anonymous => {
            code_and_text(refusal)
        }
        // Within the stream: as the stream's end it would end all watchers of a Go client.
        Refusal::Limited(limited) => return limited.to_string(),
        // etcd tells a watcher nothing else.
        _ => code_and_text(&Refusal::PermissionDenied),
    };
    format!("rpc error: code = {code:?} desc = {text}")
}

/// Why an open watch ends.
pub fn watch_cancel_reason(refusal: &Refusal) -> &'static str {
    code_and_text(refusal).1
}

/// Why a watch ends whose client does not read.
pub fn watch_too_slow(backlog: u64, resume_revision: i64) -> String {
    format!("keygate: watch is too slow, {backlog} bytes wait for it: go on from revision {resume_revision}")
}

/// A path that names no RPC of ours, in the words of Go's gRPC server.
pub fn unknown_method(path: &str) -> Status {
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.rsplit_once('/')) else {
        return Status::unimplemented(format!("malformed method name: {:?}", printable(path)));
    };
    let (service, method) = (printable(service), printable(method));
    if keygate_proto::methods().iter().any(|known| known.service == service) {
        Status::unimplemented(format!("unknown method {method} for service {service}"))
    } else {
        Status::unimplemented(format!("unknown service {service}"))
    }
}

/// A foreign path is echoed, but not at any length.
fn printable(text: &str) -> String {
    text.chars().take(128).collect()
}

/// A message that the size limit stops before it is read.
pub fn message_too_large(size: usize, limit: usize) -> Status {
    Status::resource_exhausted(format!("grpc: received message larger than max ({size} vs. {limit})"))
}

/// A message for whose beginning there is no room.
pub fn no_room() -> Status {
    Status::resource_exhausted("keygate: too many messages are under way")
}

/// An answer that does not fit the protocol's own limit.
pub fn answer_too_large(size: usize, limit: usize) -> Status {
    Status::resource_exhausted(format!("grpc: trying to send message larger than max ({size} vs. {limit})"))
}

/// Bytes that are not the message they should be.
pub fn malformed(cause: &prost::DecodeError) -> Status {
    // prost says only by its text that the nesting, not the bytes, was wrong (a test holds it to that).
    // Only a txn nests; how deep it may is a matter of its operations to etcd.
    if cause.to_string().ends_with("recursion limit reached") {
        return of(&Refusal::TooManyOperations);
    }
    Status::internal("grpc: error unmarshalling request: malformed protobuf message")
}

/// An enum's number that means nothing where etcd has no text for it.
pub fn unknown_number(field: &str) -> Status {
    Status::invalid_argument(format!("keygate: unknown value of `{field}`"))
}

/// The name of a bundle that no bundle can have.
pub fn unusable_digest() -> Status {
    Status::invalid_argument("keygate: the digest is no SHA-256 of 32 bytes")
}

/// One request about more than it may be about.
pub fn too_many_names(most: usize) -> Status {
    Status::invalid_argument(format!("keygate: a request names up to {most} users"))
}

/// A `hashedPassword` that nobody could log in with, or that would keep a thread busy.
pub fn unusable_hash() -> Status {
    Status::invalid_argument("keygate: the password's hash is not one of bcrypt with a cost of 4 to 16")
}

/// The bytes around a message break gRPC's framing.
pub fn broken_framing(what: &'static str) -> Status {
    Status::internal(what)
}

/// A `grpc-timeout` that is none, in the words of Go's gRPC server.
pub fn malformed_timeout(why: &'static str) -> Status {
    Status::internal(format!("malformed grpc-timeout: transport: timeout string is {why}"))
}

/// The client waits no longer. In Go's words, as most clients say it themselves.
pub fn deadline_exceeded() -> Status {
    Status::deadline_exceeded("context deadline exceeded")
}

/// A compressed message. This server offers no compression.
pub fn compressed() -> Status {
    Status::unimplemented("grpc: Decompressor is not installed for grpc-encoding")
}

/// The client went away in the middle of its request. Nobody reads it, metrics count it.
pub fn client_gone() -> Status {
    Status::cancelled("context canceled")
}

/// The health service was asked about something it does not know.
pub fn unknown_health_service() -> Status {
    Status::not_found("unknown service")
}

#[cfg(test)]
mod tests;
