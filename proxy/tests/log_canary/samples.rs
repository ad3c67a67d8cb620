//! Requests with secrets in them, made from the descriptors: an RPC or a field that is new is tried without anybody
//! remembering it.

use std::collections::BTreeMap;

use keygate_proto::{Method, descriptors};
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::{DescriptorProto, FieldDescriptorProto, field_descriptor_proto::Type};

/// Fields that hold secrets; `proto/tests/redaction.rs` makes sure that each field is known to be one or not.
const SECRET: &[&str] = &["blob", "hashedPassword", "password", "token", "value"];
/// Deep enough for a put in a txn in a txn.
const DEPTH: usize = 4;
/// Of one RPC: a txn has some hundreds.
const MOST: usize = 60;

/// Messages of this RPC with `secret` in one field each, then one message with all of it; what is no secret is `plain`.
pub(crate) fn of(method: &Method, secret: &str, plain: &str) -> Vec<Vec<u8>> {
    let all = messages();
    let name = format!(".{}", method.input.trim_start_matches('.'));
    let message = all.get(&name).unwrap_or_else(|| panic!("no message {name}"));
    let (secret, plain) = (secret.as_bytes(), plain.as_bytes());
    let mut samples =
        fields(&all, message, &|name| if SECRET.contains(&name) { secret } else { plain }, DEPTH);
    // Parts of a message behind each other are one message.
    let whole = samples.concat();
    // Those with a secret first.
    samples.sort_by_key(|sample| !sample.windows(secret.len()).any(|window| window == secret));
    samples.truncate(MOST);
    samples.push(whole);
    samples
}

fn messages() -> BTreeMap<String, &'static DescriptorProto> {
    let files = descriptors().file.iter();
    let named = files.flat_map(|file| {
        file.message_type.iter().map(|message| (format!(".{}.{}", file.package(), message.name()), message))
    });
    named.collect()
}

fn fields<'a>(
    all: &BTreeMap<String, &DescriptorProto>,
    message: &DescriptorProto,
    content: &dyn Fn(&str) -> &'a [u8],
    depth: usize,
) -> Vec<Vec<u8>> {
    message.field.iter().flat_map(|field| field_of(all, field, content, depth)).collect()
}

fn field_of<'a>(
    all: &BTreeMap<String, &DescriptorProto>,
    field: &FieldDescriptorProto,
    content: &dyn Fn(&str) -> &'a [u8],
    depth: usize,
) -> Vec<Vec<u8>> {
    let contents = match field.r#type() {
        Type::String | Type::Bytes => vec![content(field.name()).to_vec()],
        Type::Message if depth > 0 => match all.get(field.type_name()) {
            Some(message) => fields(all, message, content, depth - 1),
            None => Vec::new(),
        },
        _ => Vec::new(),
    };
    let wrapped = contents.into_iter().map(|content| {
        let mut wire = Vec::new();
        encode_key(u32::try_from(field.number()).unwrap(), WireType::LengthDelimited, &mut wire);
        encode_varint(content.len() as u64, &mut wire);
        wire.extend(content);
        wire
    });
    wrapped.collect()
}
