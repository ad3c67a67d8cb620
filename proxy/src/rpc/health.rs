//! `grpc.health.v1`: is the server as a whole serving?

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::Response;
use http_body::Body;
use keygate_proto::health::{HealthCheckResponse, health_check_response::ServingStatus};
use tonic::Status;

use super::frame;
use super::meter::Meter;
use super::{Call, decode, encode, read_one, refuse, told};
use crate::stack::{self, Context, Evidence};
use crate::status;

pub(super) async fn check<B>(context: &Context, call: Call<B>, meter: Meter) -> Response<tonic::body::Body>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    let outcome = match ask(context, call, &meter).await {
        Ok(Some(response)) => frame::framed(&response),
        Ok(None) => Err(status::unknown_health_service()),
        Err(status) => Err(status),
    };
    told(meter, outcome)
}

/// Sends the status of the moment. It does not change before the connection ends, so nothing
/// follows.
pub(super) async fn watch<B>(context: &Context, call: Call<B>, meter: Meter) -> Response<tonic::body::Body>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    match ask(context, call, &meter).await {
        Ok(response) => {
            let unknown = HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() };
            let now = stream::iter([Ok(response.unwrap_or(unknown))]);
            frame::stream_response(now.chain(stream::pending()), meter)
        }
        Err(status) => refuse(meter, &status),
    }
}

/// None: a service that is not here.
async fn ask<B>(
    context: &Context,
    call: Call<B>,
    meter: &Meter,
) -> Result<Option<HealthCheckResponse>, Status>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    let Call { connection, metadata, body } = call;
    let evidence = Evidence { connection: &connection, metadata: &metadata };
    let message = read_one(context, evidence, body).await?;
    meter.received();
    let size = message.len();
    let Some(operation) = decode::health(message).map_err(|rejection| rejection.status())? else {
        return Ok(None);
    };
    let answered =
        stack::run(context, evidence, operation, size).await.map_err(|refusal| status::of(&refusal))?;
    encode::health(answered.reply).map(Some).map_err(|refusal| status::of(&refusal))
}
