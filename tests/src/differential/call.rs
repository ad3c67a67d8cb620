//! One call and its answer, for every RPC that the differential makes.

use keygate_proto::etcdserverpb::*;
use prost::Message;
use tonic::Code;

use super::side::Side;

/// Who makes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// Without a token.
    Nobody,
    /// With the newest token of the user of this number, see [`super::generate::USERS`].
    User(usize),
    /// With a token that no server issued.
    Forged,
}

/// What came back.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Ok(Box<Reply>),
    Refused { code: Code, message: String },
}

macro_rules! calls {
    ($($name:ident: $service:ident.$method:ident($request:ty) -> $response:ty;)*) => {
        /// A request.
        #[derive(Clone, Debug, PartialEq)]
        pub(super) enum Call {
            $($name($request),)*
            RangeStream(RangeRequest),
            KeepAlive(LeaseKeepAliveRequest),
        }

        /// A response.
        #[derive(Clone, Debug, PartialEq)]
        pub(super) enum Reply {
            $($name($response),)*
            /// The chunks, merged by protobuf's rules.
            RangeStream(RangeResponse),
            KeepAlive(LeaseKeepAliveResponse),
        }

        impl Call {
            /// For counting and for messages.
            pub(super) fn name(&self) -> &'static str {
                match self {
                    $(Call::$name(_) => stringify!($name),)*
                    Call::RangeStream(_) => "RangeStream",
                    Call::KeepAlive(_) => "KeepAlive",
                }
            }

            /// Of the request's message.
            pub(super) fn encoded_len(&self) -> usize {
                match self {
                    $(Call::$name(request) => request.encoded_len(),)*
                    Call::RangeStream(request) => request.encoded_len(),
                    Call::KeepAlive(request) => request.encoded_len(),
                }
            }

            /// Makes this call on `side` as `caller`.
            pub(super) async fn make(self, side: &Side, caller: Caller) -> Answer {
                let client = side.client(caller);
                let result = match self {
                    $(Call::$name(request) => {
                        client.$service().$method(request).await.map(|reply| Reply::$name(reply.into_inner()))
                    })*
                    Call::RangeStream(request) => range_stream(&client, request).await,
                    Call::KeepAlive(request) => keep_alive(&client, request).await,
                };
                match result {
                    Ok(reply) => Answer::Ok(Box::new(reply)),
                    Err(status) => Answer::Refused { code: status.code(), message: status.message().to_owned() },
                }
            }
        }

        impl Reply {
            pub(super) fn header(&mut self) -> &mut Option<ResponseHeader> {
                match self {
                    $(Reply::$name(reply) => &mut reply.header,)*
                    Reply::RangeStream(reply) => &mut reply.header,
                    Reply::KeepAlive(reply) => &mut reply.header,
                }
            }
        }
    };
}

calls! {
    Range: kv.range(RangeRequest) -> RangeResponse;
    Put: kv.put(PutRequest) -> PutResponse;
    Delete: kv.delete_range(DeleteRangeRequest) -> DeleteRangeResponse;
    Txn: kv.txn(TxnRequest) -> TxnResponse;
    Compact: kv.compact(CompactionRequest) -> CompactionResponse;
    Grant: lease.lease_grant(LeaseGrantRequest) -> LeaseGrantResponse;
    Revoke: lease.lease_revoke(LeaseRevokeRequest) -> LeaseRevokeResponse;
    TimeToLive: lease.lease_time_to_live(LeaseTimeToLiveRequest) -> LeaseTimeToLiveResponse;
    Leases: lease.lease_leases(LeaseLeasesRequest) -> LeaseLeasesResponse;
    MemberList: cluster.member_list(MemberListRequest) -> MemberListResponse;
    Alarm: maintenance.alarm(AlarmRequest) -> AlarmResponse;
    Status: maintenance.status(StatusRequest) -> StatusResponse;
    Defragment: maintenance.defragment(DefragmentRequest) -> DefragmentResponse;
    Hash: maintenance.hash(HashRequest) -> HashResponse;
    HashKv: maintenance.hash_kv(HashKvRequest) -> HashKvResponse;
    AuthEnable: auth.auth_enable(AuthEnableRequest) -> AuthEnableResponse;
    AuthDisable: auth.auth_disable(AuthDisableRequest) -> AuthDisableResponse;
    AuthStatus: auth.auth_status(AuthStatusRequest) -> AuthStatusResponse;
    Authenticate: auth.authenticate(AuthenticateRequest) -> AuthenticateResponse;
    UserAdd: auth.user_add(AuthUserAddRequest) -> AuthUserAddResponse;
    UserGet: auth.user_get(AuthUserGetRequest) -> AuthUserGetResponse;
    UserList: auth.user_list(AuthUserListRequest) -> AuthUserListResponse;
    UserDelete: auth.user_delete(AuthUserDeleteRequest) -> AuthUserDeleteResponse;
    UserChangePassword: auth.user_change_password(AuthUserChangePasswordRequest) -> AuthUserChangePasswordResponse;
    UserGrantRole: auth.user_grant_role(AuthUserGrantRoleRequest) -> AuthUserGrantRoleResponse;
    UserRevokeRole: auth.user_revoke_role(AuthUserRevokeRoleRequest) -> AuthUserRevokeRoleResponse;
    RoleAdd: auth.role_add(AuthRoleAddRequest) -> AuthRoleAddResponse;
    RoleGet: auth.role_get(AuthRoleGetRequest) -> AuthRoleGetResponse;
    RoleList: auth.role_list(AuthRoleListRequest) -> AuthRoleListResponse;
    RoleDelete: auth.role_delete(AuthRoleDeleteRequest) -> AuthRoleDeleteResponse;
    RoleGrant: auth.role_grant_permission(AuthRoleGrantPermissionRequest) -> AuthRoleGrantPermissionResponse;
    RoleRevoke: auth.role_revoke_permission(AuthRoleRevokePermissionRequest) -> AuthRoleRevokePermissionResponse;
}

impl Answer {
    pub(super) fn ok(&self) -> Option<&Reply> {
        match self {
            Answer::Ok(reply) => Some(reply),
            Answer::Refused { .. } => None,
        }
    }
}

async fn range_stream(
    client: &crate::harness::Client,
    request: RangeRequest,
) -> Result<Reply, tonic::Status> {
    let mut chunks = client.kv().range_stream(request).await?.into_inner();
    let mut merged = RangeResponse::default();
    while let Some(chunk) = chunks.message().await? {
        let Some(part) = chunk.range_response else { continue };
        merged.kvs.extend(part.kvs);
        merged.header = part.header.or(merged.header);
        merged.more |= part.more;
        merged.count = if part.count == 0 { merged.count } else { part.count };
    }
    Ok(Reply::RangeStream(merged))
}

/// One request on a stream of its own; etcd answers each in order.
async fn keep_alive(
    client: &crate::harness::Client,
    request: LeaseKeepAliveRequest,
) -> Result<Reply, tonic::Status> {
    let mut answers = client.lease().lease_keep_alive(tokio_stream::once(request)).await?.into_inner();
    match answers.message().await? {
        Some(answer) => Ok(Reply::KeepAlive(answer)),
        None => Err(tonic::Status::unknown("the stream ended without an answer")),
    }
}
