//! A large range in pieces: no piece is larger than a message, all are of one revision.

use crate::Port;
use crate::view::View;
use bytes::Bytes;
use keygate_core::{
    Answer, KeyRange, Operation, Permit, PermitParts, Range, RangeAnswer, Refusal, Reply, Sealed, SortOrder,
    SortTarget,
};

/// Keys in the first piece, as etcd has it; later ones adapt to the size of what was found.
const FIRST_LIMIT: i64 = 10;
const MAX_LIMIT: i64 = 10_000;
/// How often a stream that has said nothing yet moves to a newer view, as often as the gateway decides
/// a read with one answer.
const FRESH_VIEWS: usize = 4;

pub struct RangeChunk {
    pub reply: Reply<Sealed>,
    /// Only the last piece's header, count and `more` mean anything.
    pub last: bool,
}

/// The pieces of one answer, in key order.
pub struct RangeChunks {
    port: Port,
    view: View,
    parts: Option<PermitParts<Sealed>>,
    max_bytes: usize,
    next: Option<Bytes>,
    limit: i64,
    sent: i64,
}

impl RangeChunks {
    pub(crate) fn new(port: Port, view: View, permit: Permit<Sealed>, max_bytes: usize) -> Self {
        Self {
            port,
            view,
            parts: Some(permit.into_parts()),
            max_bytes,
            next: None,
            limit: FIRST_LIMIT,
            sent: 0,
        }
    }

    /// None: all was said. An error ends the stream.
    pub async fn next(&mut self) -> Option<Result<RangeChunk, Refusal>> {
        let parts = self.parts.take()?;
        let Operation::RangeStream(request) = &parts.operation else {
            return Some(Err(Refusal::Internal { cause: "range stream without a range" }));
        };
        let chunk = self.chunk(&parts, request).await;
        if matches!(&chunk, Ok(chunk) if !chunk.last) {
            self.parts = Some(parts);
        }
        Some(chunk)
    }

    async fn chunk(&mut self, parts: &PermitParts<Sealed>, request: &Range) -> Result<RangeChunk, Refusal> {
        if request.count_only {
            return self.ask(parts, request.clone()).await.map(|reply| RangeChunk { reply, last: true });
        }
        let mut piece =
            Range { sort_order: SortOrder::None, sort_target: SortTarget::Key, ..request.clone() };
        if let Some(next) = &self.next {
            piece.range = rest_of(&request.range, next);
        }
        let wanted = if request.limit > 0 { request.limit - self.sent } else { i64::MAX };
        piece.limit = self.limit.min(wanted);
        let mut reply = self.ask(parts, piece).await?;
        let Answer::Range(found) = &mut reply.answer else {
            return Err(Refusal::Internal { cause: "a range was not answered by a range" });
        };
        let before = self.sent;
        self.sent += found.kvs.len() as i64;
        self.adapt(found);
        let complete = !found.more || (request.limit > 0 && self.sent >= request.limit);
        if complete {
            // `count` spans the whole range, also what an earlier piece or the limit took away.
            found.count += before;
            return Ok(RangeChunk { reply, last: true });
        }
        self.next = found.kvs.last().map(|kv| successor(&kv.key));
        found.more = false;
        found.count = 0;
        Ok(RangeChunk { reply, last: false })
    }

    /// Twice as many keys while the pieces are small, half as many when they grow too large.
    fn adapt(&mut self, found: &RangeAnswer<Sealed>) {
        let bytes: usize =
            found.kvs.iter().map(|kv| 64 + kv.key.len() + kv.value.as_ref().map_or(0, Sealed::len)).sum();
        if bytes * 2 < self.max_bytes {
            self.limit = (self.limit * 2).min(MAX_LIMIT);
        } else if bytes > self.max_bytes {
            self.limit = (self.limit / 2).max(1);
        }
    }

    async fn ask(&mut self, parts: &PermitParts<Sealed>, request: Range) -> Result<Reply<Sealed>, Refusal> {
        for _ in 0..FRESH_VIEWS {
            let (request, sight) = (request.clone(), parts.sight.clone());
            match crate::read::range(&self.port, &self.view, parts.keyspace, request, sight).await {
                Err(Refusal::StalePermit) if self.next.is_some() => {
                    // All pieces are of one revision, and that one is gone.
                    return Err(Refusal::Compacted);
                }
                Err(Refusal::StalePermit) if self.move_to_newest_view(parts) => {}
                answer => return answer,
            }
        }
        Err(Refusal::StalePermit)
    }

    /// False: policy has changed since the caller was decided, so that this permit says nothing there.
    fn move_to_newest_view(&mut self, parts: &PermitParts<Sealed>) -> bool {
        let newest = self.port.view();
        let fence = |view: &View| view.fence(parts.keyspace);
        let same_policy = fence(&newest) == fence(&self.view);
        if same_policy {
            self.view = newest;
        }
        same_policy
    }
}

fn successor(key: &Bytes) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

fn rest_of(range: &KeyRange, next: &Bytes) -> KeyRange {
    match range {
        // One key fits into the first piece.
        KeyRange::Single(key) => KeyRange::Single(key.clone()),
        KeyRange::Span { end, .. } => KeyRange::Span { start: next.clone(), end: end.clone() },
        KeyRange::From(_) => KeyRange::From(next.clone()),
    }
}
