//! `LeaseKeepAlive`: one answer to each request, in their order.
//!
//! Each is a request of its own to the funnel: a right that was withdrawn, or a token that died,
//! ends the stream at the next one.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::poll_immediate;
use futures_util::stream;
use http::Response;
use http_body::Body;
use keygate_core::Refusal;
use keygate_proto::etcdserverpb as pb;
use tonic::Status;

use super::frame::{self, Messages};
use super::metadata::Metadata;
use super::meter::{Meter, Received};
use super::{Call, decode, encode, read_many, refuse};
use crate::identify::ConnectionIdentity;
use crate::limit::StreamSeat;
use crate::stack::{self, Context, Evidence};
use crate::status;

struct KeepAlive<B> {
    context: Arc<Context>,
    connection: Arc<ConnectionIdentity>,
    metadata: Metadata,
    messages: Messages<B>,
    received: Received,
    _place: Option<StreamSeat>,
}

pub(super) fn serve<B>(context: &Arc<Context>, call: Call<B>, meter: Meter) -> Response<tonic::body::Body>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    let Call { connection, metadata, body } = call;
    let evidence = Evidence { connection: &connection, metadata: &metadata };
    let place = match stack::lasting(context, evidence) {
        Ok(place) => place,
        Err(refusal) => return refuse(meter, &status::of(&refusal)),
    };
    let messages = read_many(context, evidence, body);
    let received = meter.received_counter();
    // Boxed, as it goes into each message's future and comes out again.
    let stream = Box::new(KeepAlive {
        context: context.clone(),
        connection,
        metadata,
        messages,
        received,
        _place: place,
    });
    let answers = stream::unfold(stream, |mut stream| async move {
        let answer = stream.next().await.transpose()?;
        Some((answer, stream))
    });
    frame::stream_response(answers, meter)
}

impl<B> KeepAlive<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    async fn next(&mut self) -> Result<Option<pb::LeaseKeepAliveResponse>, Status> {
        let Some(message) = self.messages.next().await? else { return Ok(None) };
        self.received.count();
        let size = message.len();
        let request = decode::message(message).map_err(|rejection| rejection.status())?;
        let evidence = Evidence { connection: &self.connection, metadata: &self.metadata };
        let mut kept = pin!(stack::run(&self.context, evidence, decode::keep_alive(request), size));
        let kept = match poll_immediate(kept.as_mut()).await {
            Some(kept) => kept,
            // Behind a checkpoint it waits for the log, as long as a write would.
            None => {
                let kept = tokio::time::timeout(self.context.request_timeout, kept).await;
                kept.unwrap_or(Err(Refusal::TimedOut))
            }
        };
        kept.and_then(|answered| encode::lease_keep_alive(self.context.identity, answered.reply))
            .map(Some)
            .map_err(|refusal| status::of(&refusal))
    }
}
