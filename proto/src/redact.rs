//! `Debug` for the messages that carry a value, password, digest, token or snapshot chunk:
//! lengths in place of content.
//!
//! Each message is taken apart in full, so a new field does not compile until it is put on one
//! side or the other. `tests/redaction.rs` finds messages that should be here and are not.

use std::fmt;

use crate::{
    admin::TenantCreateRequest,
    authpb::User,
    etcdserverpb::{
        AuthUserAddRequest, AuthUserChangePasswordRequest, AuthenticateRequest, AuthenticateResponse,
        Compare, PutRequest, SnapshotResponse,
        compare::{CompareResult, CompareTarget, TargetUnion},
    },
    mvccpb::KeyValue,
    v3electionpb::{CampaignRequest, ProclaimRequest},
};

/// Prints as `12 bytes`.
struct Length(usize);

impl fmt::Debug for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0)
    }
}

/// `message { shown fields } secret { redacted fields }`: together, all fields.
macro_rules! redact {
    ($($message:ident { $($shown:ident),* } secret { $($secret:ident),+ })+) => {$(
        impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Self { $($shown,)* $($secret),+ } = self;
                f.debug_struct(stringify!($message))
                    $(.field(stringify!($shown), $shown))*
                    $(.field(stringify!($secret), &Length($secret.len())))+
                    .finish()
            }
        }
    )+};
}

redact! {
    KeyValue { key, create_revision, mod_revision, version, lease } secret { value }
    PutRequest { key, lease, prev_kv, ignore_value, ignore_lease } secret { value }
    SnapshotResponse { header, remaining_bytes, version } secret { blob }
    AuthenticateRequest { name } secret { password }
    AuthenticateResponse { header } secret { token }
    AuthUserAddRequest { name, options } secret { password, hashed_password }
    TenantCreateRequest { name, hosts } secret { password }
    AuthUserChangePasswordRequest { name } secret { password, hashed_password }
    User { name, roles, options } secret { password }
    CampaignRequest { name, lease } secret { value }
    ProclaimRequest { leader } secret { value }
}

impl fmt::Debug for Compare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { result, target, key, range_end, target_union } = self;
        let mut out = f.debug_struct("Compare");
        // An open enum: a number that we do not know is shown as it is.
        match CompareResult::try_from(*result) {
            Ok(known) => out.field("result", &known),
            Err(_) => out.field("result", result),
        };
        match CompareTarget::try_from(*target) {
            Ok(known) => out.field("target", &known),
            Err(_) => out.field("target", target),
        };
        out.field("key", key).field("range_end", range_end).field("target_union", target_union).finish()
    }
}

impl fmt::Debug for TargetUnion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(number) => f.debug_tuple("Version").field(number).finish(),
            Self::CreateRevision(number) => f.debug_tuple("CreateRevision").field(number).finish(),
            Self::ModRevision(number) => f.debug_tuple("ModRevision").field(number).finish(),
            Self::Value(value) => f.debug_tuple("Value").field(&Length(value.len())).finish(),
            Self::Lease(number) => f.debug_tuple("Lease").field(number).finish(),
        }
    }
}

impl fmt::Debug for CompareResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str_name())
    }
}

impl fmt::Debug for CompareTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str_name())
    }
}
