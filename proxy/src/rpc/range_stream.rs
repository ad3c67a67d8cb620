//! `RangeStream`: a range in chunks of one revision.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::Response;
use http_body::Body;
use keygate_core::Refusal;
use keygate_proto::etcdserverpb as pb;
use tonic::Status;

use super::answer_room::Held;
use super::decode::Decode;
use super::frame;
use super::meter::Meter;
use super::{Call, encode, read_one, refuse};
use crate::stack::{self, Chunks, Context, Evidence};
use crate::{status, transform};

pub(super) async fn serve<B>(
    context: &Arc<Context>,
    call: Call<B>,
    decode: Decode,
    meter: Meter,
) -> Response<tonic::body::Body>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    let connection = call.connection.clone();
    match open(context, call, decode, &meter).await {
        Ok(opened) => {
            let identity = context.identity;
            let (room, connection) = (context.port.engine().answers().clone(), connection.clone());
            // The piece that is on its way: another one is asked for when it has left.
            let messages = stream::unfold((opened, None), move |(mut opened, last)| {
                let (room, connection) = (room.clone(), connection.clone());
                async move {
                    drop(last);
                    let mut held = None;
                    let response = match opened.chunks.next().await? {
                        Ok(chunk) => transform::open(chunk.reply).and_then(|reply| {
                            if let Some(payer) = &mut opened.payer {
                                payer.found(&reply.answer)?;
                            }
                            held = Held::take(&room, &connection, &reply.answer)?;
                            encode::range_chunk(identity, reply, chunk.last)
                        }),
                        Err(refusal) => Err(refusal),
                    };
                    Some((response.map_err(|refusal: Refusal| status::of(&refusal)), (opened, held)))
                }
            });
            frame::stream_response::<pb::RangeStreamResponse, _>(messages, meter)
        }
        Err(status) => refuse(meter, &status),
    }
}

async fn open<B>(context: &Context, call: Call<B>, decode: Decode, meter: &Meter) -> Result<Chunks, Status>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    let Call { connection, metadata, body } = call;
    let evidence = Evidence { connection: &connection, metadata: &metadata };
    let message = read_one(context, evidence, body).await?;
    meter.received();
    let size = message.len();
    let operation = decode(message, &context.limits).map_err(|rejection| rejection.status())?;
    stack::run_stream(context, evidence, operation, size).map_err(|refusal| status::of(&refusal))
}
