//! Watches.

use bytes::Bytes;
use keygate_core::{KeyRange, Operation, Plaintext, WatchCreate};
use keygate_proto::etcdserverpb as pb;
use pb::watch_create_request::FilterType;
use pb::watch_request::RequestUnion;

use super::Rejection;

pub(in crate::rpc) fn create(request: pb::WatchCreateRequest) -> WatchCreate {
    let pb::WatchCreateRequest {
        key,
        range_end,
        start_revision,
        progress_notify,
        filters,
        prev_kv,
        watch_id,
        fragment,
    } = request;
    // The one request that may leave its key out: it means the least one that there can be.
    let key = if key.is_empty() { Bytes::from_static(b"\0") } else { key };
    WatchCreate {
        range: KeyRange::from_wire(key, range_end),
        start_revision,
        progress_notify,
        // A filter that is not known filters nothing, as in etcd.
        no_put: filters.contains(&FilterType::Noput.into()),
        no_delete: filters.contains(&FilterType::Nodelete.into()),
        prev_kv,
        fragment,
        watch_id,
    }
}

/// The operation of a stream's message; None when it asks for something else than a watch.
pub(super) fn first(bytes: Bytes) -> Result<Option<Operation<Plaintext>>, Rejection> {
    let pb::WatchRequest { request_union } = super::message(bytes)?;
    Ok(match request_union {
        Some(RequestUnion::CreateRequest(request)) => Some(Operation::Watch(create(request))),
        Some(RequestUnion::CancelRequest(_) | RequestUnion::ProgressRequest(_)) | None => None,
    })
}
