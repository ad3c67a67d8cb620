//! Users, roles and logins.

use keygate_core::{Answer, Permission, PermissionKind, Plaintext, Reply};
use keygate_engine::Identity;
use keygate_proto::{authpb, etcdserverpb as pb};

use super::{ANOTHER_ANSWER, Encoded, header_of};

/// Answers that say only that it was done.
macro_rules! done {
    ($($name:ident $message:ident)+) => {$(
        pub(in crate::rpc) fn $name(identity: Identity, reply: Reply<Plaintext>) -> Encoded<pb::$message> {
            let header = header_of(identity, &reply);
            let Answer::Done = reply.answer else { return Err(ANOTHER_ANSWER) };
            Ok(pb::$message { header })
        }
    )+};
}

done! {
    auth_enable AuthEnableResponse
    auth_disable AuthDisableResponse
    user_add AuthUserAddResponse
    user_delete AuthUserDeleteResponse
    user_change_password AuthUserChangePasswordResponse
    user_grant_role AuthUserGrantRoleResponse
    user_revoke_role AuthUserRevokeRoleResponse
    role_add AuthRoleAddResponse
    role_delete AuthRoleDeleteResponse
    role_grant_permission AuthRoleGrantPermissionResponse
    role_revoke_permission AuthRoleRevokePermissionResponse
}

pub(in crate::rpc) fn auth_status(
    identity: Identity,
    reply: Reply<Plaintext>,
) -> Encoded<pb::AuthStatusResponse> {
    let header = header_of(identity, &reply);
    let Answer::AuthStatus(status) = reply.answer else { return Err(ANOTHER_ANSWER) };
    Ok(pb::AuthStatusResponse { header, enabled: status.enabled, auth_revision: status.revision })
}

pub(in crate::rpc) fn authenticate(
    identity: Identity,
    reply: Reply<Plaintext>,
) -> Encoded<pb::AuthenticateResponse> {
    let header = header_of(identity, &reply);
    let Answer::Token(token) = reply.answer else { return Err(ANOTHER_ANSWER) };
    Ok(pb::AuthenticateResponse { header, token: token.expose().to_owned() })
}

pub(in crate::rpc) fn user_get(
    identity: Identity,
    reply: Reply<Plaintext>,
) -> Encoded<pb::AuthUserGetResponse> {
    let header = header_of(identity, &reply);
    let Answer::UserRoles(roles) = reply.answer else { return Err(ANOTHER_ANSWER) };
    Ok(pb::AuthUserGetResponse { header, roles })
}

pub(in crate::rpc) fn user_list(
    identity: Identity,
    reply: Reply<Plaintext>,
) -> Encoded<pb::AuthUserListResponse> {
    let header = header_of(identity, &reply);
    let Answer::Names(users) = reply.answer else { return Err(ANOTHER_ANSWER) };
    Ok(pb::AuthUserListResponse { header, users })
}

pub(in crate::rpc) fn role_list(
    identity: Identity,
    reply: Reply<Plaintext>,
) -> Encoded<pb::AuthRoleListResponse> {
    let header = header_of(identity, &reply);
    let Answer::Names(roles) = reply.answer else { return Err(ANOTHER_ANSWER) };
    Ok(pb::AuthRoleListResponse { header, roles })
}

pub(in crate::rpc) fn role_get(
    identity: Identity,
    reply: Reply<Plaintext>,
) -> Encoded<pb::AuthRoleGetResponse> {
    let header = header_of(identity, &reply);
    let Answer::Permissions(permissions) = reply.answer else { return Err(ANOTHER_ANSWER) };
    let perm = permissions.into_iter().map(permission).collect();
    Ok(pb::AuthRoleGetResponse { header, perm })
}

fn permission(permission: Permission) -> authpb::Permission {
    let Permission { kind, range } = permission;
    let kind = match kind {
        PermissionKind::Read => authpb::permission::Type::Read,
        PermissionKind::Write => authpb::permission::Type::Write,
        PermissionKind::ReadWrite => authpb::permission::Type::Readwrite,
    };
    authpb::Permission { perm_type: kind.into(), key: range.start().clone(), range_end: range.wire_end() }
}
