//! The RPCs of every service, read from the descriptor set, so that routing tables and tests
//! cannot forget one.

use std::sync::LazyLock;

use prost::Message as _;
use prost_types::FileDescriptorSet;

/// One RPC.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Method {
    /// Full name of the service, e.g. `etcdserverpb.KV`.
    pub service: String,
    /// Name within the service, e.g. `Range`.
    pub name: String,
    /// The HTTP/2 path, e.g. `/etcdserverpb.KV/Range`.
    pub path: String,
    /// The caller sends a stream of requests.
    pub client_streaming: bool,
    /// The server sends a stream of responses.
    pub server_streaming: bool,
    /// Full name of the request message, e.g. `etcdserverpb.RangeRequest`.
    pub input: String,
    /// Full name of the response message.
    pub output: String,
}

static DESCRIPTORS: LazyLock<FileDescriptorSet> = LazyLock::new(|| {
    FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).expect("the build script encoded this very type")
});

static METHODS: LazyLock<Vec<Method>> = LazyLock::new(|| {
    let mut methods = Vec::new();
    for file in &descriptors().file {
        for service in &file.service {
            let full = format!("{}.{}", file.package(), service.name());
            methods.extend(service.method.iter().map(|method| Method {
                service: full.clone(),
                name: method.name().to_owned(),
                path: format!("/{full}/{}", method.name()),
                client_streaming: method.client_streaming(),
                server_streaming: method.server_streaming(),
                input: full_name(method.input_type()),
                output: full_name(method.output_type()),
            }));
        }
    }
    methods
});

/// Descriptors write a resolved type with a leading dot.
fn full_name(resolved: &str) -> String {
    resolved.trim_start_matches('.').to_owned()
}

/// [`FILE_DESCRIPTOR_SET`](crate::FILE_DESCRIPTOR_SET), decoded at first use.
pub fn descriptors() -> &'static FileDescriptorSet {
    &DESCRIPTORS
}

/// Every RPC of every service, in the order of the files and of their text.
pub fn methods() -> &'static [Method] {
    &METHODS
}
