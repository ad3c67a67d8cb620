//! From the wire to operations: every field counts, and what is wrong is refused as etcd does.

use bytes::Bytes;
use keygate::rpc::decode::{Rejection, decode};
use keygate_core::{
    Compare, CompareOp, CompareTarget, KeyRange, LeaseId, Limits, Operation, Plaintext, PutLease, PutValue,
    Refusal, TxnOp,
};
use keygate_proto::{admin, authpb, etcdserverpb as pb};
use prost::Message;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FieldDescriptorProto};
use std::collections::BTreeMap;

const LIMITS: Limits = Limits { txn_operations: 128, txn_depth: 16 };

type Decoded = Option<Result<Operation<Plaintext>, Rejection>>;

fn decoded(path: &str, message: &impl Message) -> Decoded {
    decode(path, message.encode_to_vec().into(), &LIMITS)
}

fn operation(path: &str, message: &impl Message) -> Operation<Plaintext> {
    decoded(path, message).expect("the RPC has an operation").expect("the request is well formed")
}

fn refusal(path: &str, message: &impl Message) -> Refusal {
    match decoded(path, message) {
        Some(Err(Rejection::Refused(refusal))) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

// ---- every field ----

/// Fields that have no part in the operation, each with what becomes of it.
const NOT_IN_THE_OPERATION: [(&str, &str); 1] = [(
    "etcdserverpb.WatchCancelRequest.watch_id",
    "the watch stream cancels; nothing is asked of the engine",
)];

struct Field<'a> {
    message: String,
    descriptor: &'a FieldDescriptorProto,
}

fn message_types() -> BTreeMap<String, &'static DescriptorProto> {
    let files = &keygate_proto::descriptors().file;
    let types = files.iter().flat_map(|file| {
        file.message_type.iter().map(|message| (format!("{}.{}", file.package(), message.name()), message))
    });
    types.collect()
}

/// Well-formed messages of a type, among which some field's change can be seen.
fn bases(message: &str) -> Vec<Vec<u8>> {
    let key = || Bytes::from_static(b"k");
    let digest = || Bytes::from_static(&[7; 32]);
    match message {
        "etcdserverpb.RangeRequest" => {
            vec![pb::RangeRequest { key: key(), ..Default::default() }.encode_to_vec()]
        }
        "etcdserverpb.PutRequest" => {
            vec![pb::PutRequest { key: key(), ..Default::default() }.encode_to_vec()]
        }
        "etcdserverpb.DeleteRangeRequest" => {
            vec![pb::DeleteRangeRequest { key: key(), ..Default::default() }.encode_to_vec()]
        }
        "etcdserverpb.Compare" => (0..5)
            .map(|target| pb::Compare { key: key(), target, ..Default::default() }.encode_to_vec())
            .collect(),
        // The server picks another id each time unless it is given one.
        "etcdserverpb.LeaseGrantRequest" => vec![pb::LeaseGrantRequest { id: 5, ttl: 5 }.encode_to_vec()],
        "authpb.Permission" => {
            vec![authpb::Permission { key: key(), ..Default::default() }.encode_to_vec()]
        }
        "etcdserverpb.AuthRoleGrantPermissionRequest" => {
            let perm = Some(authpb::Permission { key: key(), ..Default::default() });
            vec![pb::AuthRoleGrantPermissionRequest { perm, ..Default::default() }.encode_to_vec()]
        }
        "etcdserverpb.WatchRequest" => {
            let request_union = Some(pb::watch_request::RequestUnion::CreateRequest(Default::default()));
            vec![pb::WatchRequest { request_union }.encode_to_vec()]
        }
        "keygate.admin.v1.TenantCreateRequest" => {
            vec![admin::TenantCreateRequest { name: "pay".to_owned(), ..Default::default() }.encode_to_vec()]
        }
        "keygate.admin.v1.QuotaSetRequest" => {
            vec![admin::QuotaSetRequest { tenant: "pay".to_owned(), ..Default::default() }.encode_to_vec()]
        }
        "keygate.admin.v1.TenantChangeRequest" => {
            let change = Some(admin::tenant_change_request::Change::State(2));
            vec![admin::TenantChangeRequest { name: "pay".to_owned(), change }.encode_to_vec()]
        }
        "keygate.admin.v1.PolicyStageRequest" => {
            vec![admin::PolicyStageRequest { digest: digest(), ..Default::default() }.encode_to_vec()]
        }
        "keygate.admin.v1.PolicyApplyRequest" => {
            vec![admin::PolicyApplyRequest { digest: digest(), ..Default::default() }.encode_to_vec()]
        }
        _ => vec![Vec::new()],
    }
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn length_delimited(number: i32, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(((number as u64) << 3) | 2, &mut out);
    varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

/// The field with some value that is not its default.
fn changed(descriptor: &FieldDescriptorProto) -> Vec<u8> {
    match descriptor.r#type() {
        Type::Int64 | Type::Uint64 | Type::Uint32 | Type::Bool | Type::Enum => {
            let mut out = Vec::new();
            varint((descriptor.number() as u64) << 3, &mut out);
            varint(1, &mut out);
            out
        }
        Type::Fixed64 => {
            let mut out = Vec::new();
            varint((descriptor.number() as u64) << 3 | 1, &mut out);
            out.extend_from_slice(&1u64.to_le_bytes());
            out
        }
        Type::Bytes | Type::String => length_delimited(descriptor.number(), b"x7"),
        other => panic!("no request has a field of type {other:?} yet"),
    }
}

/// Puts the bytes of a message at some place into a whole request.
type Around<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;

/// Walks from a request message to each of its leaf fields.
fn walk(
    types: &BTreeMap<String, &'static DescriptorProto>,
    message: &str,
    above: &mut Vec<String>,
    around: Around<'_>,
    visit: &mut dyn FnMut(Field<'_>, Around<'_>),
) {
    if above.iter().any(|seen| seen == message) {
        return;
    }
    above.push(message.to_owned());
    let descriptor = types[message];
    for field in &descriptor.field {
        if field.r#type() == Type::Message {
            let inner = field.type_name().trim_start_matches('.').to_owned();
            let number = field.number();
            // Appended to a well-formed message, it replaces or joins what is there.
            let base = bases(message).remove(0);
            let nested = |content: &[u8]| {
                let mut whole = base.clone();
                whole.extend(length_delimited(number, content));
                around(&whole)
            };
            walk(types, &inner, above, &nested, visit);
        } else {
            visit(Field { message: message.to_owned(), descriptor: field }, around);
        }
    }
    above.pop();
}

#[test]
fn every_field_of_every_request_is_part_of_its_operation() {
    let types = message_types();
    let later: Vec<_> = keygate::rpc::methods::later().collect();
    let (mut seen, mut excused) = (0, 0);
    let mut lost = Vec::new();
    for method in keygate_proto::methods().iter().filter(|method| !later.contains(&method.path.as_str())) {
        walk(&types, &method.input, &mut Vec::new(), &|whole| whole.to_vec(), &mut |field, around| {
            seen += 1;
            let name = format!("{}.{}", field.message, field.descriptor.name());
            if NOT_IN_THE_OPERATION.iter().any(|(excused, _)| *excused == name) {
                excused += 1;
                return;
            }
            let counts = bases(&field.message).into_iter().any(|base| {
                let mut with = base.clone();
                with.extend(changed(field.descriptor));
                let before = decode(&method.path, around(&base).into(), &LIMITS);
                let after = decode(&method.path, around(&with).into(), &LIMITS);
                before != after
            });
            if !counts {
                lost.push(format!("{} {name}", method.path));
            }
        });
    }
    println!("{seen} fields of {} RPCs, {excused} excused", keygate_proto::methods().len() - later.len());
    assert_eq!(lost, Vec::<String>::new(), "fields that nobody mapped");
    assert!(seen > 100, "the walk found only {seen} fields");
    assert_eq!(excused, NOT_IN_THE_OPERATION.len());
}

// ---- what is wrong ----

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const DELETE: &str = "/etcdserverpb.KV/DeleteRange";
const TXN: &str = "/etcdserverpb.KV/Txn";

fn get(key: &'static str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), ..Default::default() }
}

fn op(request: pb::request_op::Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

#[test]
fn a_key_is_asked_for_before_anything_else() {
    assert_eq!(refusal(RANGE, &pb::RangeRequest { sort_order: 9, ..get("") }), Refusal::KeyNotProvided);
    let put = pb::PutRequest { value: "v".into(), ignore_value: true, ..Default::default() };
    assert_eq!(refusal(PUT, &put), Refusal::KeyNotProvided);
    assert_eq!(refusal(DELETE, &pb::DeleteRangeRequest::default()), Refusal::KeyNotProvided);
}

#[test]
fn unknown_sort_numbers_are_refused() {
    for request in [
        pb::RangeRequest { sort_order: 3, ..get("k") },
        pb::RangeRequest { sort_order: -1, ..get("k") },
        pb::RangeRequest { sort_target: 5, ..get("k") },
    ] {
        assert_eq!(refusal(RANGE, &request), Refusal::InvalidSortOption);
        let txn = pb::TxnRequest {
            failure: vec![op(pb::request_op::Request::RequestRange(request))],
            ..Default::default()
        };
        assert_eq!(refusal(TXN, &txn), Refusal::InvalidSortOption);
    }
}

#[test]
fn what_is_kept_cannot_be_given() {
    let put = pb::PutRequest { key: "k".into(), ..Default::default() };
    let value = pb::PutRequest { value: "v".into(), ignore_value: true, ..put.clone() };
    assert_eq!(refusal(PUT, &value), Refusal::ValueProvided);
    let lease = pb::PutRequest { lease: 1, ignore_lease: true, ..put.clone() };
    assert_eq!(refusal(PUT, &lease), Refusal::LeaseProvided);
    let keep = pb::PutRequest { ignore_value: true, ignore_lease: true, ..put };
    let Operation::Put(put) = operation(PUT, &keep) else { panic!("not a put") };
    assert_eq!((put.value, put.lease), (PutValue::Keep, PutLease::Keep));
}

#[test]
fn an_operation_of_no_kind_is_a_key_that_is_not_found() {
    let txn = pb::TxnRequest { success: vec![pb::RequestOp { request: None }], ..Default::default() };
    assert_eq!(refusal(TXN, &txn), Refusal::KeyNotFound);
}

#[test]
fn too_many_operations_are_told_before_their_faults() {
    let ops = vec![pb::RequestOp { request: None }; 129];
    let txn = pb::TxnRequest { success: ops, ..Default::default() };
    assert_eq!(refusal(TXN, &txn), Refusal::TooManyOperations);
}

fn nested(depth: usize) -> pb::TxnRequest {
    let mut txn = pb::TxnRequest::default();
    for _ in 1..depth {
        txn = pb::TxnRequest {
            success: vec![op(pb::request_op::Request::RequestTxn(txn))],
            ..Default::default()
        };
    }
    txn
}

#[test]
fn txns_nest_to_the_limit_and_no_further() {
    assert!(decoded(TXN, &nested(16)).unwrap().is_ok());
    assert_eq!(refusal(TXN, &nested(17)), Refusal::TxnTooDeep { limit: 16 });
    // Deeper than the wire decoder goes: still a clean answer, and no stack overflows.
    for depth in [60, 1000] {
        let rejection = decoded(TXN, &nested(depth)).unwrap().unwrap_err();
        let status = rejection.status();
        assert_eq!(
            (status.code(), status.message()),
            (tonic::Code::InvalidArgument, "etcdserver: too many operations in txn request")
        );
    }
}

#[test]
fn bytes_that_are_no_message_are_refused() {
    for bytes in [&b"\xff"[..], b"\x0a\x05k", b"\x08\x01\x0b"] {
        let rejection = decode(RANGE, Bytes::copy_from_slice(bytes), &LIMITS).unwrap().unwrap_err();
        assert_eq!(rejection.status().code(), tonic::Code::Internal);
    }
}

#[test]
fn fields_of_newer_clients_are_ignored() {
    let mut bytes = get("k").encode_to_vec();
    bytes.extend(length_delimited(900, b"from the future"));
    let known = operation(RANGE, &get("k"));
    assert_eq!(decode(RANGE, bytes.into(), &LIMITS), Some(Ok(known)));
}

fn compare(request: pb::Compare) -> Compare<Plaintext> {
    let txn = pb::TxnRequest {
        compare: vec![pb::Compare { key: "k".into(), ..request }],
        success: vec![op(pb::request_op::Request::RequestRange(get("k")))],
        ..Default::default()
    };
    let Operation::Txn(mut txn) = operation(TXN, &txn) else { panic!("not a txn") };
    assert!(matches!(txn.success[0], TxnOp::Range(_)));
    txn.compare.remove(0)
}

#[test]
fn a_compare_takes_its_operand_by_its_target() {
    use pb::compare::TargetUnion;
    let target = |target, operand| {
        let request = pb::Compare { target, target_union: Some(operand), ..Default::default() };
        compare(request).target
    };
    assert_eq!(target(2, TargetUnion::ModRevision(5)), CompareTarget::Mod(5));
    assert_eq!(target(2, TargetUnion::Version(5)), CompareTarget::Mod(0));
    assert_eq!(target(3, TargetUnion::Lease(5)), CompareTarget::Value(Plaintext::default()));
    let range = compare(pb::Compare { range_end: "\0".into(), ..Default::default() }).range;
    assert_eq!(range, KeyRange::From("k".into()));
}

#[test]
fn compares_of_unknown_numbers_are_what_etcd_makes_of_them() {
    let shape = |result, target| {
        let compare = compare(pb::Compare { result, target, ..Default::default() });
        (compare.op, compare.target)
    };
    let always = (CompareOp::Greater, CompareTarget::Version(-1));
    let never = (CompareOp::Less, CompareTarget::Version(-1));
    // An unknown result holds; of a value, where there is one.
    assert_eq!(shape(9, 0), always);
    assert_eq!(shape(9, 3), (CompareOp::Greater, CompareTarget::Version(0)));
    // An unknown target is equal to its operand.
    assert_eq!(shape(0, 9), always);
    assert_eq!([shape(1, 9), shape(2, 9), shape(3, 9)], [never.clone(), never.clone(), never]);
    assert_eq!(shape(9, 9), always);
}

#[test]
fn a_watch_without_a_key_starts_at_the_least_one() {
    let watch = |key: &'static str, range_end: &'static str| {
        let create =
            pb::WatchCreateRequest { key: key.into(), range_end: range_end.into(), ..Default::default() };
        let request_union = Some(pb::watch_request::RequestUnion::CreateRequest(create));
        match operation("/etcdserverpb.Watch/Watch", &pb::WatchRequest { request_union }) {
            Operation::Watch(watch) => watch.range,
            other => panic!("not a watch: {other:?}"),
        }
    };
    assert_eq!(watch("", ""), KeyRange::Single("\0".into()));
    assert_eq!(watch("", "\0"), KeyRange::From("\0".into()));
    assert_eq!(watch("k", ""), KeyRange::Single("k".into()));
    assert_eq!(watch("k", "k"), KeyRange::Span { start: "k".into(), end: "k".into() });
}

#[test]
fn a_lease_without_an_id_gets_a_positive_one_that_nobody_can_guess() {
    let ids: Vec<_> = (0..100)
        .map(|_| {
            let request = pb::LeaseGrantRequest { id: 0, ttl: 5 };
            match operation("/etcdserverpb.Lease/LeaseGrant", &request) {
                Operation::LeaseGrant(grant) => grant.id,
                other => panic!("not a grant: {other:?}"),
            }
        })
        .collect();
    assert!(ids.iter().all(|LeaseId(id)| *id > 0));
    assert!(ids.iter().any(|LeaseId(id)| *id > i64::from(u32::MAX)));
    assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), ids.len());
}

#[test]
fn a_grant_without_a_permission_is_refused() {
    let path = "/etcdserverpb.Auth/RoleGrantPermission";
    let request = pb::AuthRoleGrantPermissionRequest { name: "r".into(), perm: None };
    assert_eq!(refusal(path, &request), Refusal::PermissionNotGiven);
}
