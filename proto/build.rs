//! Turns `proto/*.proto` into Rust and an encoded descriptor set, both in `OUT_DIR`.
//! No `protoc` is run: protox parses the text.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 10] = [
    "authpb.proto",
    "etcdserverpb.proto",
    "health.proto",
    "limits.proto",
    "mvccpb.proto",
    "policies.proto",
    "quotas.proto",
    "tenants.proto",
    "v3electionpb.proto",
    "v3lockpb.proto",
];

/// Messages that carry a value, password, digest or token. `src/redact.rs` formats them.
///
/// A path covers what is nested in it, so Compare's oneof and enums are formatted there too.
const SECRET_BEARING: [&str; 12] = [
    ".authpb.User",
    ".etcdserverpb.AuthUserAddRequest",
    ".etcdserverpb.AuthUserChangePasswordRequest",
    ".etcdserverpb.AuthenticateRequest",
    ".etcdserverpb.AuthenticateResponse",
    ".etcdserverpb.Compare",
    ".etcdserverpb.PutRequest",
    ".etcdserverpb.SnapshotResponse",
    ".keygate.admin.v1.TenantCreateRequest",
    ".mvccpb.KeyValue",
    ".v3electionpb.CampaignRequest",
    ".v3electionpb.ProclaimRequest",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut descriptors = protox::compile(FILES, ["proto"])?;

    // What is exported keeps etcd's names and drops the comments.
    let mut exported = descriptors.clone();
    for file in &mut exported.file {
        file.source_code_info = None;
    }
    fs::write(out.join("descriptors.bin"), exported.encode_to_vec())?;

    // prost would call `peerURLs` `peer_ur_ls`. Binary protobuf knows numbers only, so the copy
    // that Rust is generated from may spell it otherwise.
    for file in &mut descriptors.file {
        for field in file.message_type.iter_mut().flat_map(|m| &mut m.field) {
            let spelled = field.name().replace("URLs", "_urls");
            field.name = Some(spelled);
        }
    }
    tonic_prost_build::configure().bytes(".").skip_debug(SECRET_BEARING).compile_fds(descriptors)?;
    Ok(())
}
