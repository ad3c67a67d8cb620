//! No secret reaches `Debug`.
//!
//! Samples are made on the wire from the descriptor set, so a new message or field is tried
//! without anyone remembering it: a message that is missing in the table below, or a text field
//! that nobody has classified, fails.

use std::collections::BTreeMap;

use keygate_proto::{admin, authpb, descriptors, etcdserverpb, health, mvccpb, v3electionpb, v3lockpb};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};
use prost_types::{DescriptorProto, FieldDescriptorProto, field_descriptor_proto::Type};

/// Names of `string` and `bytes` fields that `Debug` must not show.
const SECRET: &[&str] = &["blob", "hashedPassword", "password", "token", "value"];

/// Names of `string` and `bytes` fields that `Debug` shows.
const SHOWN: &[&str] = &[
    "by",
    "cancel_reason",
    "clientURLs",
    "connection",
    "content",
    "digest",
    "error",
    "errors",
    "groups",
    "hosts",
    "key",
    "keys",
    "lacking",
    "limit",
    "manifest",
    "method",
    "name",
    "path",
    "peerURLs",
    "policy",
    "prefix",
    "range_end",
    "requests",
    "role",
    "roles",
    "service",
    "source",
    "storageVersion",
    "targetVersion",
    "tenant",
    "tenants",
    "user",
    "users",
    "ver",
    "version",
];

const CANARY: &str = "CANARY-4711";
const PLAIN: &str = "plain-text";

/// Nested messages are filled this deep: enough for a put in a transaction in a transaction.
const DEPTH: usize = 5;

type Format = fn(&[u8]) -> [String; 2];

/// Decodes `wire` as `M` and prints it in both styles.
fn format<M: Message + Default + std::fmt::Debug>(wire: &[u8]) -> [String; 2] {
    let message = M::decode(wire).expect("samples are well formed");
    [format!("{message:?}"), format!("{message:#?}")]
}

/// The key is in lower case, because prost writes `HashKVRequest` as `HashKvRequest`.
macro_rules! formats {
    ($($package:literal $module:ident { $($message:ident)* })*) => {
        BTreeMap::from([$($((
            concat!($package, ".", stringify!($message)).to_lowercase(),
            format::<$module::$message> as Format,
        ),)*)*])
    };
}

fn formats() -> BTreeMap<String, Format> {
    formats! {
        "authpb" authpb { Permission Role User UserAddOptions }
        "mvccpb" mvccpb { Event KeyValue }
        "v3lockpb" v3lockpb { LockRequest LockResponse UnlockRequest UnlockResponse }
        "v3electionpb" v3electionpb {
            CampaignRequest CampaignResponse LeaderKey LeaderRequest LeaderResponse
            ProclaimRequest ProclaimResponse ResignRequest ResignResponse
        }
        "keygate.admin.v1" admin {
            Tenant TenantHosts TenantCreateRequest TenantGetRequest TenantListRequest TenantChangeRequest
            TenantDeleteRequest TenantResponse TenantListResponse TenantDeleteResponse
            LimitsRequest LimitsResponse Limit LoadRequest LoadResponse UserLoad
            QuotaLimits QuotaUse Quota QuotaShowRequest QuotaSetRequest QuotaRecountRequest QuotaResponse
            PolicyStageRequest PolicyStageResponse PolicyApplyRequest PolicyRollbackRequest PolicyLogRequest
            PolicyPartRequest PolicyTablesRequest PolicyRevision PolicyBundle PolicyRevisionResponse
            PolicyLogResponse PolicyPartResponse PolicyTablesResponse PolicyDenialRequest PolicyDenialResponse
            PolicyUsersRequest PolicyUsersResponse
        }
        "grpc.health.v1" health { HealthCheckRequest HealthCheckResponse }
        "etcdserverpb" etcdserverpb {
            ResponseHeader
            RangeRequest RangeResponse RangeStreamResponse PutRequest PutResponse
            DeleteRangeRequest DeleteRangeResponse RequestOp ResponseOp Compare
            TxnRequest TxnResponse CompactionRequest CompactionResponse
            WatchRequest WatchCreateRequest WatchCancelRequest WatchProgressRequest WatchResponse
            LeaseGrantRequest LeaseGrantResponse LeaseRevokeRequest LeaseRevokeResponse
            LeaseCheckpoint LeaseCheckpointRequest LeaseCheckpointResponse
            LeaseKeepAliveRequest LeaseKeepAliveResponse
            LeaseTimeToLiveRequest LeaseTimeToLiveResponse
            LeaseLeasesRequest LeaseStatus LeaseLeasesResponse
            Member MemberAddRequest MemberAddResponse MemberRemoveRequest MemberRemoveResponse
            MemberUpdateRequest MemberUpdateResponse MemberListRequest MemberListResponse
            MemberPromoteRequest MemberPromoteResponse
            AlarmRequest AlarmMember AlarmResponse StatusRequest StatusResponse DowngradeInfo
            DefragmentRequest DefragmentResponse HashRequest HashResponse
            HashKvRequest HashKvResponse SnapshotRequest SnapshotResponse
            MoveLeaderRequest MoveLeaderResponse DowngradeRequest DowngradeResponse
            DowngradeVersionTestRequest
            AuthEnableRequest AuthEnableResponse AuthDisableRequest AuthDisableResponse
            AuthStatusRequest AuthStatusResponse AuthenticateRequest AuthenticateResponse
            AuthUserAddRequest AuthUserAddResponse AuthUserGetRequest AuthUserGetResponse
            AuthUserListRequest AuthUserListResponse AuthUserDeleteRequest AuthUserDeleteResponse
            AuthUserChangePasswordRequest AuthUserChangePasswordResponse
            AuthUserGrantRoleRequest AuthUserGrantRoleResponse
            AuthUserRevokeRoleRequest AuthUserRevokeRoleResponse
            AuthRoleAddRequest AuthRoleAddResponse AuthRoleGetRequest AuthRoleGetResponse
            AuthRoleListRequest AuthRoleListResponse AuthRoleDeleteRequest AuthRoleDeleteResponse
            AuthRoleGrantPermissionRequest AuthRoleGrantPermissionResponse
            AuthRoleRevokePermissionRequest AuthRoleRevokePermissionResponse
        }
    }
}

/// Every message by its full name with a leading dot, as descriptors refer to it.
fn messages() -> BTreeMap<String, &'static DescriptorProto> {
    let mut all = BTreeMap::new();
    for file in &descriptors().file {
        for message in &file.message_type {
            assert!(message.nested_type.is_empty(), "teach `messages` to nest");
            all.insert(format!(".{}.{}", file.package(), message.name()), message);
        }
    }
    all
}

/// Encodings of `message`, each with one leaf set, so that every arm of a oneof has its turn.
fn samples(
    all: &BTreeMap<String, &DescriptorProto>,
    message: &DescriptorProto,
    depth: usize,
) -> Vec<Vec<u8>> {
    let fields = message.field.iter();
    fields.flat_map(|f| field_samples(all, f, depth)).collect()
}

fn field_samples(
    all: &BTreeMap<String, &DescriptorProto>,
    field: &FieldDescriptorProto,
    depth: usize,
) -> Vec<Vec<u8>> {
    let contents = match field.r#type() {
        Type::String | Type::Bytes if SECRET.contains(&field.name()) => vec![CANARY.into()],
        Type::String | Type::Bytes => vec![PLAIN.into()],
        Type::Message if depth == 0 => vec![],
        Type::Message => samples(all, all[field.type_name()], depth - 1),
        _ => return vec![],
    };
    let wrapped = contents.into_iter().map(|content: Vec<u8>| {
        let mut wire = Vec::new();
        encode_key(field.number() as u32, WireType::LengthDelimited, &mut wire);
        encode_varint(content.len() as u64, &mut wire);
        wire.extend(content);
        wire
    });
    wrapped.collect()
}

fn holds(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

/// The canary as text, or as a list of numbers in either style.
fn leaks(printed: &str) -> bool {
    let numbers: Vec<String> = CANARY.bytes().map(|b| b.to_string()).collect();
    let squeezed: String = printed.split_whitespace().collect();
    squeezed.contains(CANARY) || squeezed.contains(&numbers.join(","))
}

#[test]
fn every_text_field_is_classified() {
    for (name, message) in messages() {
        for field in &message.field {
            if matches!(field.r#type(), Type::String | Type::Bytes) {
                let field = field.name();
                assert_ne!(
                    SECRET.contains(&field),
                    SHOWN.contains(&field),
                    "decide whether Debug shows `{name}.{field}`: if not, add the message to \
                     `SECRET_BEARING` in build.rs and to src/redact.rs"
                );
            }
        }
    }
}

#[test]
fn every_message_is_in_the_table() {
    let table: Vec<String> = formats().into_keys().collect();
    let mut described: Vec<String> =
        messages().into_keys().map(|name| name.trim_start_matches('.').to_lowercase()).collect();
    described.sort();
    assert_eq!(described, table);
}

#[test]
fn debug_shows_no_secret_and_all_the_rest() {
    let formats = formats();
    let all = messages();
    let (mut secret, mut plain) = (0, 0);
    for (name, message) in &all {
        let format = formats[&name.trim_start_matches('.').to_lowercase()];
        for wire in samples(&all, message, DEPTH) {
            for printed in format(&wire) {
                if holds(&wire, CANARY) {
                    secret += 1;
                    assert!(!leaks(&printed), "{name}: {printed}");
                    let length = format!("{} bytes", CANARY.len());
                    assert!(printed.contains(&length), "{name}: {printed}");
                } else {
                    plain += 1;
                    assert!(printed.contains(PLAIN), "{name}: {printed}");
                }
            }
        }
    }
    // 13 secret fields stand in 11 messages; what contains those brings many more.
    assert!(secret > 100, "only {secret} samples with a secret");
    assert!(plain > 100, "only {plain} samples without");
}

#[test]
fn the_search_finds_a_leak() {
    assert!(leaks(&format!("{:?}", CANARY)));
    assert!(leaks(&format!("{:?}", bytes::Bytes::from(CANARY))));
    assert!(leaks(&format!("{:?}", CANARY.as_bytes())));
    assert!(leaks(&format!("{:#?}", CANARY.as_bytes())));
    assert!(!leaks("11 bytes"));
}

#[test]
fn a_put_tells_its_key_and_the_length_of_its_value() {
    let put = etcdserverpb::PutRequest {
        key: "tenant/a".into(),
        value: "hush".into(),
        lease: 7,
        ..Default::default()
    };
    assert_eq!(
        format!("{put:?}"),
        r#"PutRequest { key: b"tenant/a", lease: 7, prev_kv: false, ignore_value: false, ignore_lease: false, value: 4 bytes }"#
    );
}

#[test]
fn a_compare_tells_its_kind_and_unknown_numbers_as_they_are() {
    use etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
    let mut compare = etcdserverpb::Compare {
        result: CompareResult::NotEqual.into(),
        target: CompareTarget::Value.into(),
        key: "k".into(),
        target_union: Some(TargetUnion::Value("hush".into())),
        ..Default::default()
    };
    assert_eq!(
        format!("{compare:?}"),
        r#"Compare { result: NOT_EQUAL, target: VALUE, key: b"k", range_end: b"", target_union: Some(Value(4 bytes)) }"#
    );
    compare.result = 99;
    assert!(format!("{compare:?}").starts_with("Compare { result: 99,"));
}
