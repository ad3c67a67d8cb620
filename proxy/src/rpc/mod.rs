//! gRPC: requests become operations, answers become messages.
//!
//! Routing is one look into a table ([`methods`]). A unary request costs no task and no span, and a
//! timer only when its client set a deadline and must wait: it runs inside the connection's own task. Nothing here decides what a caller may do; every
//! operation goes through [`crate::stack`].

mod answer_room;
mod answers;
mod asked;
mod deadline;
pub mod decode;
mod encode;
mod frame;
mod health;
mod keep_alive;
mod metadata;
pub mod meter;
pub mod methods;
mod range_stream;
mod room;
mod watch;

pub use answers::Answers;
pub use room::{ConnectionRoom, MessageRoom};

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Body;
use keygate_core::Refusal;
use tonic::{Code, Status};
use zeroize::Zeroizing;

use crate::identify::{ConnectionIdentity, token_of};
use crate::stack::{self, Answered, Context, Evidence};
use crate::status;
use answer_room::{Held, holding};
use asked::Asked;
use deadline::Deadline;
use decode::Decode;
use encode::Encode;
use frame::Messages;
use metadata::Metadata;
use meter::{Meter, RpcCounters};
use methods::{Kind, Method};
use room::Full;

/// What etcd allows a message beyond `--max-request-bytes` before it refuses it unread.
const MESSAGE_OVERHEAD: usize = 512 << 10;

/// What is read of a message from somebody who has not shown who they are. A login, and every
/// request that is not made to cost memory, fits many times.
const STRANGERS_MESSAGE: usize = 64 << 10;

/// What a request that waits costs besides its message.
const REQUEST: usize = 8 << 10;

/// The gRPC side of one serving thread. Cheap to clone.
#[derive(Clone)]
pub struct GrpcService {
    context: Arc<Context>,
    counters: Arc<RpcCounters>,
}

/// One request on its way.
struct Call<B> {
    connection: Arc<ConnectionIdentity>,
    metadata: Metadata,
    body: B,
}

impl GrpcService {
    /// `counters` are this thread's own.
    pub fn new(context: Arc<Context>, counters: Arc<RpcCounters>) -> Self {
        Self { context, counters }
    }

    /// The tenant that a host name, in lowercase, leads to.
    pub fn tenant_of_host(&self, host: &str) -> Option<Arc<str>> {
        let view = self.context.port.view();
        view.tenant_for_host(host).map(|tenant| tenant.name.as_str().into())
    }

    /// Completes when the token that a request shows has ceased to hold. Never, for one that shows none
    /// or one that does not hold to begin with: that is for the request itself to find out.
    pub fn end_of_token(&self, metadata: &HeaderMap) -> impl Future<Output = ()> + Send + 'static {
        /// Nothing ends in less.
        const PAUSE: Duration = Duration::from_millis(100);
        let token = token_of(metadata).ok().flatten().map(|token| Zeroizing::new(token.to_owned()));
        let context = self.context.clone();
        async move {
            let lasts = |token: &str| context.identifier.token_lasts(token, &context.port.view());
            let begun = token.and_then(|token| lasts(&token).map(|wait| (token, wait)));
            let Some((token, mut wait)) = begun else { return std::future::pending().await };
            loop {
                tokio::time::sleep(wait.max(PAUSE)).await;
                match lasts(&token) {
                    Some(left) => wait = left,
                    None => return,
                }
            }
        }
    }

    /// Answers any gRPC request. Never fails: what goes wrong is in the answer's status.
    pub async fn call<B>(
        self,
        connection: Arc<ConnectionIdentity>,
        request: Request<B>,
    ) -> Response<tonic::body::Body>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let Begun { call, method, meter, deadline } = match self.begin(connection, request) {
            Ok(begun) => begun,
            Err(refused) => return *refused,
        };
        let mut answer = pin!(answer(&self.context, method, call, meter));
        let Some(deadline) = deadline else { return answer.await };
        let answer = deadline.bound(answer.as_mut()).await;
        if method.kind.is_stream() { deadline.bound_stream(answer) } else { answer }
    }

    /// What its head says. Err: an answer that refuses it.
    fn begin<B>(
        &self,
        connection: Arc<ConnectionIdentity>,
        request: Request<B>,
    ) -> Result<Begun<B>, Box<Response<tonic::body::Body>>> {
        let (head, body) = request.into_parts();
        if connection.proof().is_crowded() {
            let evidence = Evidence { connection: &connection, metadata: &head.headers };
            if stack::known(&self.context, evidence).is_err() {
                return Err(frame::refused(&status::no_room()).into());
            }
        }
        let asked = Asked::read(&head.headers);
        // Before the method is looked at, and not counted, as in Go's server.
        let deadline = asked.timeout.map(Deadline::read).transpose();
        let deadline = deadline.map_err(|status| frame::refused(&status))?.flatten();
        let path = head.uri.path();
        let id = methods::find(path).ok_or_else(|| frame::refused(&status::unknown_method(path)))?;
        let meter = Meter::start(&self.counters, id, deadline);
        if let Err(refusal) = asked.check(|| self.context.port.view().leader()) {
            return Err(refuse(meter, &status::of(&refusal)).into());
        }
        self.counters.asked(asked.client_version, id);
        let Ok(metadata) = Metadata::new(head.headers, connection.room()) else {
            return Err(refuse(meter, &status::no_room()).into());
        };
        Ok(Begun { call: Call { connection, metadata, body }, method: id.method(), meter, deadline })
    }
}

/// A request whose head was read.
struct Begun<B> {
    call: Call<B>,
    method: &'static Method,
    meter: Meter,
    deadline: Option<Deadline>,
}

/// What few requests need is kept apart: each request would be as large, and moved about.
async fn answer<B>(
    context: &Arc<Context>,
    method: &'static Method,
    call: Call<B>,
    meter: Meter,
) -> Response<tonic::body::Body>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    match &method.kind {
        Kind::Unary { decode, encode } => unary(context, call, *decode, *encode, meter).await,
        Kind::HealthCheck => Box::pin(health::check(context, call, meter)).await,
        Kind::RangeStream { decode } => Box::pin(range_stream::serve(context, call, *decode, meter)).await,
        Kind::Watch => watch::serve(context, call, meter),
        Kind::LeaseKeepAlive => keep_alive::serve(context, call, meter),
        Kind::HealthWatch => Box::pin(health::watch(context, call, meter)).await,
        Kind::Later => refuse(meter, &later(method)),
    }
}

fn unary<B>(
    context: &Context,
    call: Call<B>,
    decode: Decode,
    encode: Encode,
    mut meter: Meter,
) -> impl Future<Output = Response<tonic::body::Body>>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    // Taken apart here, and not in the future, which would keep both the whole and the parts.
    let Call { connection, metadata, body } = call;
    async move {
        let evidence = Evidence { connection: &connection, metadata: &metadata };
        let outcome = ask(context, evidence, body, decode, encode, &mut meter).await;
        told(meter, outcome)
    }
}

async fn ask<B>(
    context: &Context,
    evidence: Evidence<'_>,
    body: B,
    decode: Decode,
    encode: Encode,
    meter: &mut Meter,
) -> Result<Bytes, Status>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    let message = read_one(context, evidence, body).await?;
    meter.received();
    let size = message.len();
    let operation = decode(message, &context.limits).map_err(|rejection| rejection.status())?;
    // What is only read may be as large as a message can be.
    let limit = context.max_request_bytes;
    if size > limit && operation.is_write() {
        return Err(status::of(&Refusal::RequestTooLarge { size, limit }));
    }
    if evidence.connection.slot().answers().lie() {
        Box::pin(wait_for_client(evidence.connection, size)).await?;
    }
    meter.begins(&operation);
    let is_write = operation.is_write();
    match stack::run(context, evidence, operation, size).await {
        Ok(Answered { reply, admission }) => {
            meter.done(&reply.answer);
            let room = context.port.engine().answers();
            let held = Held::take(room, evidence.connection, &reply.answer);
            let held = match held {
                // It is done, and whoever asked for it must hear so.
                Err(_) if is_write => None,
                held => held.map_err(|refusal| status::of(&refusal))?,
            };
            let message = encode(context.identity, reply)?;
            admission.sent(message.len());
            Ok(holding(message, held))
        }
        Err(refusal) => {
            if refusal == Refusal::TimedOut {
                meter.lost();
            }
            Err(status::of(&refusal))
        }
    }
}

/// Until the client has taken enough of what it was answered before. What waits takes of the connection's room.
async fn wait_for_client(connection: &ConnectionIdentity, message: usize) -> Result<(), Status> {
    let mut waiting = room::Held::none(connection.room().clone());
    waiting.resize(message + REQUEST).map_err(|Full| status::no_room())?;
    connection.slot().answers().taken().await;
    Ok(())
}

/// The message of a request that has one. A large one is read only of those who have shown who they
/// are: nobody else makes the server hold it.
async fn read_one<B>(context: &Context, evidence: Evidence<'_>, body: B) -> Result<Bytes, Status>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut messages = Messages::new(body, message_limit(context), evidence.connection.room().clone());
    if messages.announced().await? > STRANGERS_MESSAGE {
        stack::known(context, evidence).map_err(|refusal| status::of(&refusal))?;
    }
    messages.only().await
}

/// The messages of a request that has many.
fn read_many<B>(context: &Context, evidence: Evidence<'_>, body: B) -> Messages<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    let limit = match stack::known(context, evidence) {
        Ok(()) => message_limit(context),
        Err(_) => STRANGERS_MESSAGE,
    };
    Messages::new(body, limit, evidence.connection.room().clone())
}

fn message_limit(context: &Context) -> usize {
    context.max_request_bytes.saturating_add(MESSAGE_OVERHEAD)
}

fn told(mut meter: Meter, outcome: Result<Bytes, Status>) -> Response<tonic::body::Body> {
    match outcome {
        Ok(message) => {
            meter.sent();
            meter.handled(Code::Ok);
            frame::unary_response(message)
        }
        Err(status) => refuse(meter, &status),
    }
}

fn refuse(mut meter: Meter, status: &Status) -> Response<tonic::body::Body> {
    meter.handled(status.code());
    frame::refused(status)
}

/// etcd's answer to a method of a later version than its own.
fn later(method: &Method) -> Status {
    status::unknown_method(method.path)
}
