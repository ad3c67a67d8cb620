//! Every RPC × everybody who may call it: what each is answered, over TLS, by a real process.
//!
//! The rows come from the descriptors. An RPC without a row, or a row without an RPC, fails.
//! This is also the regression test of CVE-2026-33413: no RPC is left unguarded.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

use keygate_proto::{admin, authpb, etcdserverpb as pb, health};
use prost::Message;
use support::{Server, Shown};
use tonic::Code::{
    self, FailedPrecondition, InvalidArgument, NotFound, Ok, PermissionDenied, Unauthenticated, Unimplemented,
};

struct Row {
    path: &'static str,
    request: Vec<u8>,
    /// No certificate and no token.
    nobody: Code,
    /// A token that was never given.
    false_token: Code,
    /// A certificate that names no user.
    stranger: Code,
    /// A user who holds no role.
    powerless: Code,
    /// The root of a tenant, whose own keyspace is furnished like the platform's.
    tenant_root: Code,
    root: Code,
}

/// Open to everybody.
fn open(path: &'static str, request: impl Message) -> Row {
    let request = request.encode_to_vec();
    Row { path, request, nobody: Ok, false_token: Ok, stranger: Ok, powerless: Ok, tenant_root: Ok, root: Ok }
}

/// Open to every user.
fn users(path: &'static str, request: impl Message) -> Row {
    Row { powerless: Ok, ..guarded(path, request) }
}

/// Needs a right.
fn guarded(path: &'static str, request: impl Message) -> Row {
    Row {
        path,
        request: request.encode_to_vec(),
        // etcd's words for a request without a credential: the user name is empty.
        nobody: InvalidArgument,
        false_token: Unauthenticated,
        stranger: PermissionDenied,
        powerless: PermissionDenied,
        tenant_root: Ok,
        root: Ok,
    }
}

/// Needs a right that only the platform gives.
fn platform(path: &'static str, request: impl Message) -> Row {
    Row { tenant_root: PermissionDenied, ..guarded(path, request) }
}

/// Not there yet, for nobody.
fn later(path: &'static str) -> Row {
    Row {
        path,
        request: Vec::new(),
        nobody: Unimplemented,
        false_token: Unimplemented,
        stranger: Unimplemented,
        powerless: Unimplemented,
        tenant_root: Unimplemented,
        root: Unimplemented,
    }
}

const KEY: &str = "matrix/key";
/// Attached to a key that only root may touch. The second one is there to be revoked.
const LEASES: [i64; 2] = [4711, 4712];

#[expect(clippy::too_many_lines, reason = "one row for each RPC")]
fn rows() -> Vec<Row> {
    let key = || bytes::Bytes::from_static(KEY.as_bytes());
    let name = |name: &str| name.to_owned();
    let digest = || bytes::Bytes::from_static(&[7; 32]);
    let permission = authpb::Permission { perm_type: 0, key: key(), range_end: bytes::Bytes::new() };
    let watch = pb::WatchRequest {
        request_union: Some(pb::watch_request::RequestUnion::CreateRequest(pb::WatchCreateRequest {
            key: key(),
            ..Default::default()
        })),
    };
    vec![
        guarded("/etcdserverpb.KV/Range", pb::RangeRequest { key: key(), ..Default::default() }),
        guarded("/etcdserverpb.KV/RangeStream", pb::RangeRequest { key: key(), ..Default::default() }),
        guarded("/etcdserverpb.KV/Put", pb::PutRequest { key: key(), ..Default::default() }),
        guarded("/etcdserverpb.KV/DeleteRange", pb::DeleteRangeRequest { key: key(), ..Default::default() }),
        guarded(
            "/etcdserverpb.KV/Txn",
            pb::TxnRequest {
                compare: vec![pb::Compare { key: key(), ..Default::default() }],
                ..Default::default()
            },
        ),
        guarded("/etcdserverpb.KV/Compact", pb::CompactionRequest { revision: 2, physical: false }),
        // Answered within the stream: `created` and `canceled` at once is a no.
        guarded("/etcdserverpb.Watch/Watch", watch),
        users("/etcdserverpb.Lease/LeaseGrant", pb::LeaseGrantRequest { ttl: 60, id: 0 }),
        guarded("/etcdserverpb.Lease/LeaseRevoke", pb::LeaseRevokeRequest { id: LEASES[1] }),
        guarded("/etcdserverpb.Lease/LeaseKeepAlive", pb::LeaseKeepAliveRequest { id: LEASES[0] }),
        guarded(
            "/etcdserverpb.Lease/LeaseTimeToLive",
            pb::LeaseTimeToLiveRequest { id: LEASES[0], keys: true },
        ),
        guarded("/etcdserverpb.Lease/LeaseLeases", pb::LeaseLeasesRequest {}),
        later("/etcdserverpb.Cluster/MemberAdd"),
        later("/etcdserverpb.Cluster/MemberRemove"),
        later("/etcdserverpb.Cluster/MemberUpdate"),
        users("/etcdserverpb.Cluster/MemberList", pb::MemberListRequest { linearizable: true }),
        later("/etcdserverpb.Cluster/MemberPromote"),
        // Action 0 is Get.
        users("/etcdserverpb.Maintenance/Alarm", pb::AlarmRequest::default()),
        users("/etcdserverpb.Maintenance/Status", pb::StatusRequest {}),
        platform("/etcdserverpb.Maintenance/Defragment", pb::DefragmentRequest {}),
        platform("/etcdserverpb.Maintenance/Hash", pb::HashRequest {}),
        guarded("/etcdserverpb.Maintenance/HashKV", pb::HashKvRequest { revision: 0 }),
        // Not there yet, but not told to those who may not have it.
        Row { root: Unimplemented, ..platform("/etcdserverpb.Maintenance/Snapshot", pb::SnapshotRequest {}) },
        later("/etcdserverpb.Maintenance/MoveLeader"),
        later("/etcdserverpb.Maintenance/Downgrade"),
        guarded("/etcdserverpb.Auth/AuthEnable", pb::AuthEnableRequest {}),
        // Not even root: `keygate serve` never switches auth off.
        Row {
            tenant_root: FailedPrecondition,
            root: FailedPrecondition,
            ..guarded("/etcdserverpb.Auth/AuthDisable", pb::AuthDisableRequest {})
        },
        // As on etcd: open to who shows nothing, closed to who shows something false.
        Row {
            false_token: Unauthenticated,
            ..open("/etcdserverpb.Auth/AuthStatus", pb::AuthStatusRequest {})
        },
        open(
            "/etcdserverpb.Auth/Authenticate",
            pb::AuthenticateRequest { name: name("alice"), password: name("of alice") },
        ),
        guarded(
            "/etcdserverpb.Auth/UserAdd",
            pb::AuthUserAddRequest { name: name("new"), password: name("p"), ..Default::default() },
        ),
        guarded("/etcdserverpb.Auth/UserGet", pb::AuthUserGetRequest { name: name("root") }),
        guarded("/etcdserverpb.Auth/UserList", pb::AuthUserListRequest {}),
        guarded("/etcdserverpb.Auth/UserDelete", pb::AuthUserDeleteRequest { name: name("leaving") }),
        guarded(
            "/etcdserverpb.Auth/UserChangePassword",
            pb::AuthUserChangePasswordRequest {
                name: name("carol"),
                password: name("q"),
                ..Default::default()
            },
        ),
        guarded(
            "/etcdserverpb.Auth/UserGrantRole",
            pb::AuthUserGrantRoleRequest { user: name("carol"), role: name("reader") },
        ),
        guarded(
            "/etcdserverpb.Auth/UserRevokeRole",
            pb::AuthUserRevokeRoleRequest { name: name("carol"), role: name("writer") },
        ),
        guarded("/etcdserverpb.Auth/RoleAdd", pb::AuthRoleAddRequest { name: name("new role") }),
        guarded("/etcdserverpb.Auth/RoleGet", pb::AuthRoleGetRequest { role: name("reader") }),
        guarded("/etcdserverpb.Auth/RoleList", pb::AuthRoleListRequest {}),
        guarded("/etcdserverpb.Auth/RoleDelete", pb::AuthRoleDeleteRequest { role: name("leaving role") }),
        guarded(
            "/etcdserverpb.Auth/RoleGrantPermission",
            pb::AuthRoleGrantPermissionRequest { name: name("reader"), perm: Some(permission) },
        ),
        guarded(
            "/etcdserverpb.Auth/RoleRevokePermission",
            pb::AuthRoleRevokePermissionRequest {
                role: name("writer"),
                key: bytes::Bytes::from_static(b"w"),
                range_end: bytes::Bytes::new(),
            },
        ),
        platform(
            "/keygate.admin.v1.Tenants/Create",
            admin::TenantCreateRequest { name: name("new"), ..Default::default() },
        ),
        platform("/keygate.admin.v1.Tenants/Get", admin::TenantGetRequest { name: name("pay") }),
        platform("/keygate.admin.v1.Tenants/List", admin::TenantListRequest {}),
        platform(
            "/keygate.admin.v1.Tenants/Change",
            admin::TenantChangeRequest {
                name: name("pay"),
                change: Some(admin::tenant_change_request::Change::Hosts(admin::TenantHosts::default())),
            },
        ),
        platform("/keygate.admin.v1.Tenants/Delete", admin::TenantDeleteRequest { name: name("leaving") }),
        // Its own: what its root needs to know.
        platform("/keygate.admin.v1.Limits/Get", admin::LimitsRequest {}),
        platform("/keygate.admin.v1.Load/Get", admin::LoadRequest::default()),
        guarded("/keygate.admin.v1.Quotas/Show", admin::QuotaShowRequest::default()),
        platform(
            "/keygate.admin.v1.Quotas/Set",
            admin::QuotaSetRequest {
                tenant: name("pay"),
                limits: Some(admin::QuotaLimits { keys: Some(1_000), ..Default::default() }),
                ..Default::default()
            },
        ),
        platform(
            "/keygate.admin.v1.Quotas/Recount",
            admin::QuotaRecountRequest { tenant: name("pay"), all: false },
        ),
        platform(
            "/keygate.admin.v1.Policies/Stage",
            admin::PolicyStageRequest { digest: digest(), ..Default::default() },
        ),
        Row {
            // Nothing was sent before.
            root: FailedPrecondition,
            ..platform(
                "/keygate.admin.v1.Policies/Apply",
                admin::PolicyApplyRequest { digest: digest(), parts: 9, expected: None },
            )
        },
        platform(
            "/keygate.admin.v1.Policies/Rollback",
            admin::PolicyRollbackRequest { to: Some(0), expected: None },
        ),
        platform("/keygate.admin.v1.Policies/Log", admin::PolicyLogRequest {}),
        platform("/keygate.admin.v1.Policies/Part", admin::PolicyPartRequest::default()),
        Row {
            // Nothing has this number.
            root: NotFound,
            ..platform("/keygate.admin.v1.Policies/Denial", admin::PolicyDenialRequest { decision: 1 })
        },
        platform(
            "/keygate.admin.v1.Policies/Users",
            admin::PolicyUsersRequest { tenant: name("pay"), users: vec![name("root")] },
        ),
        platform("/keygate.admin.v1.Policies/Tables", admin::PolicyTablesRequest { tenant: name("pay") }),
        later("/v3lockpb.Lock/Lock"),
        later("/v3lockpb.Lock/Unlock"),
        later("/v3electionpb.Election/Campaign"),
        later("/v3electionpb.Election/Proclaim"),
        later("/v3electionpb.Election/Leader"),
        later("/v3electionpb.Election/Observe"),
        later("/v3electionpb.Election/Resign"),
        open("/grpc.health.v1.Health/Check", health::HealthCheckRequest::default()),
        open("/grpc.health.v1.Health/Watch", health::HealthCheckRequest::default()),
    ]
}

/// The users, roles, keys and leases that the rows speak of.
async fn furnish(root: &support::Caller) {
    let mut auth = pb::auth_client::AuthClient::new(root.signed());
    for role in ["reader", "writer", "leaving role"] {
        auth.role_add(pb::AuthRoleAddRequest { name: role.to_owned() }).await.unwrap();
    }
    let perm = authpb::Permission { perm_type: 1, key: "w".into(), range_end: bytes::Bytes::new() };
    let grant = pb::AuthRoleGrantPermissionRequest { name: "writer".to_owned(), perm: Some(perm) };
    auth.role_grant_permission(grant).await.unwrap();
    for user in ["alice", "carol", "leaving", "powerless"] {
        let (name, password) = (user.to_owned(), format!("of {user}"));
        let add = pb::AuthUserAddRequest { name, password, ..Default::default() };
        auth.user_add(add).await.unwrap_or_else(|status| panic!("{user}: {status}"));
    }
    let grant = pb::AuthUserGrantRoleRequest { user: "carol".to_owned(), role: "writer".to_owned() };
    auth.user_grant_role(grant).await.unwrap();
    let mut lease = pb::lease_client::LeaseClient::new(root.signed());
    let mut kv = pb::kv_client::KvClient::new(root.signed());
    for id in LEASES {
        lease.lease_grant(pb::LeaseGrantRequest { ttl: 600, id }).await.unwrap();
        let key = format!("matrix/lease-{id}").into();
        kv.put(pb::PutRequest { key, lease: id, ..Default::default() }).await.unwrap();
    }
}

/// Makes the tenants that the rows speak of, and logs in as the root of `pay`.
async fn tenant(server: &Server, root: &support::Caller) -> support::Caller {
    let mut tenants = admin::tenants_client::TenantsClient::new(root.signed());
    for name in ["pay", "leaving"] {
        let (name, password) = (name.to_owned(), "of the tenant".to_owned());
        tenants.create(admin::TenantCreateRequest { name, password, hosts: Vec::new() }).await.unwrap();
    }
    server.logged_in("root@pay", "of the tenant").await
}

/// What a caller is answered: the status, or for a watch the verdict within the stream.
async fn verdict(caller: &support::Caller, row: &Row) -> Code {
    let answer = match caller.raw(row.path, row.request.clone()).await {
        Result::Ok(answer) => answer,
        Err(status) => return status.code(),
    };
    if row.path != "/etcdserverpb.Watch/Watch" {
        return Ok;
    }
    let response = pb::WatchResponse::decode(answer).unwrap();
    assert!(response.created, "the first answer of a watch says what became of its request");
    match response.cancel_reason.as_str() {
        "" => Ok,
        "rpc error: code = PermissionDenied desc = etcdserver: permission denied" => PermissionDenied,
        "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token" => Unauthenticated,
        "rpc error: code = InvalidArgument desc = etcdserver: user name is empty" => InvalidArgument,
        other => panic!("unexpected reason `{other}`"),
    }
}

#[test]
fn every_rpc_has_a_row() {
    let mut described: Vec<_> = keygate_proto::methods().iter().map(|method| method.path.clone()).collect();
    let mut rows: Vec<_> = rows().iter().map(|row| row.path.to_owned()).collect();
    described.sort_unstable();
    rows.sort_unstable();
    assert_eq!(rows, described);
}

#[tokio::test]
async fn every_rpc_answers_every_caller_as_it_should() {
    let server = Server::start(&[]);
    let root = server.named("root").await;
    furnish(&root).await;
    let tenant_root = tenant(&server, &root).await;
    furnish(&tenant_root).await;
    let nobody = server.caller(Shown::default()).await;
    let false_token = Shown { token: Some("abcdefghijklmnop.7".to_owned()), certificate: None };
    let false_token = server.caller(false_token).await;
    let stranger = server.named("stranger").await;
    let powerless = server.named("powerless").await;
    let mut wrong = Vec::new();
    let mut asked = 0;
    // Root last: its requests change things.
    for row in rows() {
        let columns = [
            ("nobody", &nobody, row.nobody),
            ("false token", &false_token, row.false_token),
            ("stranger", &stranger, row.stranger),
            ("powerless", &powerless, row.powerless),
            ("tenant root", &tenant_root, row.tenant_root),
            ("root", &root, row.root),
        ];
        for (who, caller, expected) in columns {
            asked += 1;
            let code = verdict(caller, &row).await;
            if code != expected {
                wrong.push(format!("{} for {who}: {code:?} instead of {expected:?}", row.path));
            }
        }
    }
    println!("{asked} calls");
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(asked, keygate_proto::methods().len() * 6);
}
