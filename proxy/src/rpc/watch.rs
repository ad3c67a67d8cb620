//! `Watch`: many watchers on one stream.
//!
//! No task of its own: the response body is the stream. HTTP/2 asks the body for more only when the
//! client's window has room, so a slow client holds back its own session, and events wait in the
//! engine's history instead of in our memory.
//!
//! Order: the answer to a create request is queued before the session is asked for anything else,
//! so it precedes the watcher's events; answers to requests keep the requests' order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::Response;
use http_body::Body;
use keygate_core::{Event, KeyspaceId, Operation, Refusal, Sealed};
use keygate_engine::{WatchCreateError, WatchSession, WatchUpdate};
use keygate_proto::etcdserverpb as pb;
use pb::watch_request::RequestUnion;
use prost::Message as _;
use prost::encoding::encoded_len_varint;
use tonic::Status;

use super::frame::{self, Messages};
use super::metadata::Metadata;
use super::meter::{Meter, Received};
use super::{Call, decode, encode, message_limit, read_many, refuse};
use crate::identify::ConnectionIdentity;
use crate::limit::{Payer, StreamSeat, WatcherSeat};
use crate::stack::{self, Context, Evidence, Watching};
use crate::{status, transform};

/// In the place of a watcher's id: no watcher, or all of them.
const NO_WATCHER: i64 = -1;

struct Watch<B> {
    context: Arc<Context>,
    connection: Arc<ConnectionIdentity>,
    metadata: Metadata,
    messages: Messages<B>,
    received: Received,
    session: WatchSession,
    keyspace: KeyspaceId,
    /// Ready to be sent.
    queue: VecDeque<pb::WatchResponse>,
    /// Watchers that were announced and have not ended.
    watchers: BTreeMap<i64, Place>,
    /// The client will ask for nothing more; what it has asked for goes on.
    requests_ended: bool,
    _place: Option<StreamSeat>,
}

/// What a watcher holds of its user's limits.
struct Place {
    payer: Option<Payer>,
    _seat: Option<WatcherSeat>,
}

pub(super) fn serve<B>(context: &Arc<Context>, call: Call<B>, meter: Meter) -> Response<tonic::body::Body>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    let Call { connection, metadata, body } = call;
    let evidence = Evidence { connection: &connection, metadata: &metadata };
    let keyspace = stack::keyspace_of(context, evidence);
    let place = match stack::lasting(context, evidence) {
        Ok(place) => place,
        Err(refusal) => return refuse(meter, &status::of(&refusal)),
    };
    let messages = read_many(context, evidence, body);
    let watch = Watch {
        session: context.port.watch_session(keyspace),
        messages,
        received: meter.received_counter(),
        context: context.clone(),
        connection,
        metadata,
        keyspace,
        queue: VecDeque::new(),
        watchers: BTreeMap::new(),
        requests_ended: false,
        _place: place,
    };
    let responses = stream::unfold(watch, |mut watch| async move {
        let response = watch.next().await.transpose()?;
        Some((response, watch))
    });
    frame::stream_response(responses, meter)
}

impl<B> Watch<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    async fn next(&mut self) -> Result<Option<pb::WatchResponse>, Status> {
        loop {
            if let Some(response) = self.queue.pop_front() {
                return Ok(Some(response));
            }
            if self.requests_ended && self.watchers.is_empty() {
                return Ok(None);
            }
            tokio::select! {
                message = self.messages.next(), if !self.requests_ended => match message? {
                    Some(message) => self.request(message)?,
                    None => self.requests_ended = true,
                },
                update = self.session.next() => self.update(update)?,
            }
        }
    }

    fn request(&mut self, message: Bytes) -> Result<(), Status> {
        self.received.count();
        let size = message.len();
        let pb::WatchRequest { request_union } =
            decode::message(message).map_err(|rejection| rejection.status())?;
        match request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(request, size),
            Some(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id })) => self.cancel(watch_id),
            Some(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})) if !self.watchers.is_empty() => {
                self.session.request_progress();
            }
            // Without a watcher there is no progress to tell of, and what a newer client may ask we
            // do not know: silence for both, as in etcd.
            Some(RequestUnion::ProgressRequest(_)) | None => {}
        }
        Ok(())
    }

    fn create(&mut self, request: pb::WatchCreateRequest, size: usize) {
        let request = decode::watch_create(request);
        // Before the policy is asked, as in etcd: it tells nothing.
        if request.start_revision < 0 {
            return self.not_created(create_error(&WatchCreateError::NegativeStart).to_owned());
        }
        let evidence = Evidence { connection: &self.connection, metadata: &self.metadata };
        let created =
            stack::watch(&self.context, &mut self.session, evidence, Operation::Watch(request), size);
        match created {
            Ok(Ok(Watching { created, seat, payer })) => {
                let header = self.header(created.revision);
                let watch_id = created.watch_id;
                self.watchers.insert(watch_id, Place { payer, _seat: seat });
                self.queue.push_back(pb::WatchResponse {
                    header,
                    watch_id,
                    created: true,
                    ..Default::default()
                });
            }
            Ok(Err(error)) => self.not_created(create_error(&error).to_owned()),
            Err(refusal) => self.not_created(status::watch_create_reason(&refusal)),
        }
    }

    fn not_created(&mut self, cancel_reason: String) {
        let revision =
            self.context.port.view().keyspace(self.keyspace).map_or(0, |keyspace| keyspace.revision());
        let header = self.header(revision);
        self.queue.push_back(pb::WatchResponse {
            header,
            watch_id: NO_WATCHER,
            created: true,
            canceled: true,
            cancel_reason,
            ..Default::default()
        });
    }

    /// An id that is not known gets no answer, as in etcd.
    fn cancel(&mut self, watch_id: i64) {
        if let Some(revision) = self.session.cancel(watch_id) {
            self.ended(pb::WatchResponse { header: self.header(revision), watch_id, ..Default::default() });
        }
    }

    fn update(&mut self, update: WatchUpdate) -> Result<(), Status> {
        if !self.is_for_open(&update) {
            return Ok(());
        }
        match update {
            WatchUpdate::Events { watch_id, revision, events, fragment_ok } => {
                let events = events
                    .into_iter()
                    .map(open_event)
                    .collect::<Result<Vec<_>, Refusal>>()
                    .map_err(|refusal| status::of(&refusal))?;
                if let Some(Place { payer: Some(payer), .. }) = self.watchers.get(&watch_id) {
                    payer.sent(events.iter().map(size_of_event).sum());
                }
                let header = self.header(revision);
                let response = pb::WatchResponse { header, watch_id, events, ..Default::default() };
                if fragment_ok {
                    split(response, message_limit(&self.context), &mut self.queue);
                } else {
                    self.queue.push_back(response);
                }
            }
            WatchUpdate::Progress { watch_id, revision } => {
                let header = self.header(revision);
                self.queue.push_back(pb::WatchResponse { header, watch_id, ..Default::default() });
            }
            WatchUpdate::Compacted { watch_id, compact_revision } => {
                let header = self.header(0);
                self.ended(pb::WatchResponse { header, watch_id, compact_revision, ..Default::default() });
            }
            WatchUpdate::TooSlow { watch_id, resume_revision, backlog } => {
                // All up to the header's revision was sent.
                let header = self.header(resume_revision - 1);
                let cancel_reason = status::watch_too_slow(backlog, resume_revision);
                self.ended(pb::WatchResponse { header, watch_id, cancel_reason, ..Default::default() });
            }
            WatchUpdate::Denied { watch_id, refusal, revision } => {
                let header = self.header(revision);
                let cancel_reason = status::watch_cancel_reason(&refusal).to_owned();
                self.ended(pb::WatchResponse { header, watch_id, cancel_reason, ..Default::default() });
            }
        }
        Ok(())
    }

    /// What was under way when its watcher was cancelled is not sent after the answer to that.
    fn is_for_open(&self, update: &WatchUpdate) -> bool {
        match update {
            WatchUpdate::Progress { watch_id: NO_WATCHER, .. } => true,
            WatchUpdate::Events { watch_id, .. }
            | WatchUpdate::Progress { watch_id, .. }
            | WatchUpdate::Compacted { watch_id, .. }
            | WatchUpdate::TooSlow { watch_id, .. }
            | WatchUpdate::Denied { watch_id, .. } => self.watchers.contains_key(watch_id),
        }
    }

    fn ended(&mut self, response: pb::WatchResponse) {
        self.watchers.remove(&response.watch_id);
        self.queue.push_back(pb::WatchResponse { canceled: true, ..response });
    }

    fn header(&self, revision: i64) -> Option<pb::ResponseHeader> {
        encode::header(self.context.identity, revision, self.context.port.view().term())
    }
}

fn open_event(event: Event<Sealed>) -> Result<keygate_proto::mvccpb::Event, Refusal> {
    transform::open_event(event).map(encode::event)
}

/// What limits count of it.
fn size_of_event(event: &keygate_proto::mvccpb::Event) -> usize {
    [&event.kv, &event.prev_kv].into_iter().flatten().map(|kv| kv.key.len() + kv.value.len()).sum()
}

/// Why a watch that was allowed was not made.
fn create_error(error: &WatchCreateError) -> &'static str {
    match error {
        WatchCreateError::DuplicateId => "mvcc: duplicate watch ID provided on the WatchStream",
        WatchCreateError::EmptyRange => "mvcc: watcher range is empty",
        WatchCreateError::NegativeStart => "etcdserver: mvcc: required revision has been compacted",
    }
}

/// Cuts a response that has reached `limit` into pieces below it. One event is never cut.
fn split(response: pb::WatchResponse, limit: usize, queue: &mut VecDeque<pb::WatchResponse>) {
    let whole = response.encoded_len();
    if whole < limit || response.events.len() < 2 {
        queue.push_back(response);
        return;
    }
    let pb::WatchResponse { header, watch_id, events, .. } = response;
    let empty = pb::WatchResponse { header, watch_id, fragment: true, ..Default::default() };
    let base = empty.encoded_len();
    let mut piece = empty.clone();
    let mut size = base;
    for event in events {
        let length = event.encoded_len();
        // A one-byte tag, the length, the event.
        let added = 1 + encoded_len_varint(length as u64) + length;
        if !piece.events.is_empty() && size + added >= limit {
            queue.push_back(std::mem::replace(&mut piece, empty.clone()));
            size = base;
        }
        size += added;
        piece.events.push(event);
    }
    piece.fragment = false;
    queue.push_back(piece);
}

#[cfg(test)]
mod tests {
    use super::*;
    use keygate_proto::mvccpb;

    fn response(values: &[usize]) -> pb::WatchResponse {
        let events = values.iter().enumerate().map(|(index, size)| mvccpb::Event {
            kv: Some(mvccpb::KeyValue {
                key: format!("key-{index}").into(),
                value: vec![0; *size].into(),
                ..Default::default()
            }),
            ..Default::default()
        });
        pb::WatchResponse { watch_id: 7, events: events.collect(), ..Default::default() }
    }

    fn pieces(values: &[usize], limit: usize) -> Vec<pb::WatchResponse> {
        let mut queue = VecDeque::new();
        split(response(values), limit, &mut queue);
        queue.into()
    }

    #[test]
    fn what_fits_is_not_cut() {
        assert_eq!(pieces(&[10, 10], 1000), [response(&[10, 10])]);
    }

    #[test]
    fn one_event_is_never_cut() {
        assert_eq!(pieces(&[5000], 1000), [response(&[5000])]);
    }

    #[test]
    fn pieces_stay_below_the_limit_and_only_the_last_is_marked_so() {
        let pieces = pieces(&[300; 10], 1000);
        assert!(pieces.len() > 2);
        let (last, others) = pieces.split_last().unwrap();
        assert!(!last.fragment);
        assert!(others.iter().all(|piece| piece.fragment));
        assert!(pieces.iter().all(|piece| piece.encoded_len() < 1000 && piece.watch_id == 7));
        let events: Vec<_> = pieces.into_iter().flat_map(|piece| piece.events).collect();
        assert_eq!(events, response(&[300; 10]).events);
    }
}
