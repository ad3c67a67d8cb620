//! The API as the descriptor set has it, against `surface.txt`, which was compared with etcd 3.7.
//!
//! A difference is either a mistake or a deliberate change of what clients see. For the second,
//! replace `surface.txt` by the file that the failing test names.

use std::{collections::BTreeMap, fs, path::Path};

use keygate_proto::{descriptors, methods};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

/// One line for each field, enum number, empty message and RPC.
fn surface() -> String {
    let mut lines = Vec::new();
    for file in &descriptors().file {
        for message in &file.message_type {
            message_lines(file.package(), message, &mut lines);
        }
        for numbers in &file.enum_type {
            enum_lines(file.package(), numbers, &mut lines);
        }
    }
    for method in methods() {
        let stream = |on| if on { "stream " } else { "" };
        lines.push(format!(
            "rpc {}({}{}) returns ({}{})",
            method.path,
            stream(method.client_streaming),
            method.input,
            stream(method.server_streaming),
            method.output,
        ));
    }
    lines.join("\n") + "\n"
}

fn message_lines(scope: &str, message: &DescriptorProto, lines: &mut Vec<String>) {
    let name = format!("{scope}.{}", message.name());
    if message.field.is_empty() {
        lines.push(format!("{name} empty"));
    }
    lines.extend(message.field.iter().map(|f| field_line(&name, message, f)));
    for nested in &message.nested_type {
        message_lines(&name, nested, lines);
    }
    for numbers in &message.enum_type {
        enum_lines(&name, numbers, lines);
    }
}

fn field_line(name: &str, message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let repeated = if field.label() == Label::Repeated { "[]" } else { "" };
    let kind = match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    let oneof = match field.oneof_index {
        Some(index) => format!(" in {}", message.oneof_decl[index as usize].name()),
        None => String::new(),
    };
    format!("{name}.{}:{repeated}{kind}={}{oneof}", field.name(), field.number())
}

fn enum_lines(scope: &str, numbers: &EnumDescriptorProto, lines: &mut Vec<String>) {
    for value in &numbers.value {
        let (of, name, number) = (numbers.name(), value.name(), value.number());
        lines.push(format!("enum {scope}.{of}.{name}={number}"));
    }
}

#[test]
fn names_and_numbers_are_those_of_etcd() {
    let committed = include_str!("surface.txt");
    let actual = surface();
    if actual == committed {
        return;
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("surface.txt");
    fs::write(&path, &actual).unwrap();
    let gone = committed.lines().filter(|l| !actual.lines().any(|a| a == *l));
    let new = actual.lines().filter(|l| !committed.lines().any(|c| c == *l));
    let changes: Vec<String> = gone.map(|l| format!("- {l}")).chain(new.map(|l| format!("+ {l}"))).collect();
    panic!(
        "the surface changed (or its order did); the present one is in `{}`:\n{}",
        path.display(),
        changes.join("\n")
    );
}

#[test]
fn every_service_has_its_rpcs() {
    let mut counts = BTreeMap::new();
    for method in methods() {
        *counts.entry(method.service.as_str()).or_insert(0) += 1;
    }
    let expected = BTreeMap::from([
        ("etcdserverpb.Auth", 17),
        ("etcdserverpb.Cluster", 5),
        ("etcdserverpb.KV", 6),
        ("etcdserverpb.Lease", 5),
        ("etcdserverpb.Maintenance", 8),
        ("etcdserverpb.Watch", 1),
        ("grpc.health.v1.Health", 2),
        ("keygate.admin.v1.Limits", 1),
        ("keygate.admin.v1.Load", 1),
        ("keygate.admin.v1.Policies", 8),
        ("keygate.admin.v1.Quotas", 3),
        ("keygate.admin.v1.Tenants", 5),
        ("v3electionpb.Election", 5),
        ("v3lockpb.Lock", 2),
    ]);
    assert_eq!(counts, expected);
    let etcd: i32 = counts
        .iter()
        .filter(|(service, _)| service.starts_with("etcdserverpb."))
        .map(|(_, count)| count)
        .sum();
    assert_eq!(etcd, 42);
}

#[test]
fn streams_are_where_etcd_has_them() {
    let streaming: Vec<_> = methods()
        .iter()
        .filter(|m| m.client_streaming || m.server_streaming)
        .map(|m| (m.path.as_str(), m.client_streaming, m.server_streaming))
        .collect();
    let expected = [
        ("/etcdserverpb.KV/RangeStream", false, true),
        ("/etcdserverpb.Watch/Watch", true, true),
        ("/etcdserverpb.Lease/LeaseKeepAlive", true, true),
        ("/etcdserverpb.Maintenance/Snapshot", false, true),
        ("/grpc.health.v1.Health/Watch", false, true),
        ("/v3electionpb.Election/Observe", false, true),
    ];
    for stream in &expected {
        assert!(streaming.contains(stream), "{stream:?} in {streaming:?}");
    }
    assert_eq!(streaming.len(), expected.len(), "{streaming:?}");
}

#[test]
fn method_types_are_messages_of_the_set() {
    let known: Vec<String> = descriptors()
        .file
        .iter()
        .flat_map(|f| f.message_type.iter().map(move |m| format!("{}.{}", f.package(), m.name())))
        .collect();
    for method in methods() {
        assert!(known.contains(&method.input), "{method:?}");
        assert!(known.contains(&method.output), "{method:?}");
    }
}

#[test]
fn generated_servers_bear_the_names_of_the_set() {
    use keygate_proto::{admin, etcdserverpb as e, health, v3electionpb, v3lockpb};
    use tonic::server::NamedService;

    /// Only a name is asked of it.
    type Unserved = ();
    let mut generated = [
        e::kv_server::KvServer::<Unserved>::NAME,
        e::watch_server::WatchServer::<Unserved>::NAME,
        e::lease_server::LeaseServer::<Unserved>::NAME,
        e::cluster_server::ClusterServer::<Unserved>::NAME,
        e::maintenance_server::MaintenanceServer::<Unserved>::NAME,
        e::auth_server::AuthServer::<Unserved>::NAME,
        v3lockpb::lock_server::LockServer::<Unserved>::NAME,
        v3electionpb::election_server::ElectionServer::<Unserved>::NAME,
        health::health_server::HealthServer::<Unserved>::NAME,
        admin::limits_server::LimitsServer::<Unserved>::NAME,
        admin::load_server::LoadServer::<Unserved>::NAME,
        admin::policies_server::PoliciesServer::<Unserved>::NAME,
        admin::quotas_server::QuotasServer::<Unserved>::NAME,
        admin::tenants_server::TenantsServer::<Unserved>::NAME,
    ];
    generated.sort_unstable();
    let mut described: Vec<&str> = methods().iter().map(|m| m.service.as_str()).collect();
    described.sort_unstable();
    described.dedup();
    assert_eq!(described, generated);
}
