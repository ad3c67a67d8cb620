//! The one way from a decoded request to the engine. Every RPC passes here, streams included.
//!
//! Order matters:
//! - *identify* and *authorize* look at one view, so that the caller's token, the policy and the
//!   data that the policy asks about are of one moment.
//! - *limit* comes before *authorize*: what is asked too often is refused at the price of a counter, and a refusal
//!   costs a password's hash or a decision nothing.
//! - *authorize* comes before anything that costs: a caller without the right to add a user makes
//!   nobody hash a password.
//! - *transform* comes after it, because the permit owns the operation: what was decided is what
//!   is sealed and runs.
//! - *dispatch* takes the permit and nothing else. When policy overtook the permit it is all done
//!   again, unseen by the client.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use keygate_core::{
    Caller, Credential, KeyspaceId, Limits, Operation, Plaintext, PolicyChange, Refusal, Reply, TenantCreate,
    UserAdd,
};
use keygate_engine::{
    Answering, Identity, Port, RangeChunks, Standing, View, WatchCreateError, WatchCreated, WatchSession,
};

use crate::authorize::{self, Endpoint};
use crate::identify::{Asker, ConnectionIdentity, Identifier, keyspace_of_login};
use crate::limit::{Admission, Limiter, Payer, Request, StreamSeat, WatcherSeat};
use crate::policies::Policies;
use crate::policy_change::Ready;
use crate::{dispatch, operator_log, transform};

/// What the stages need. One for each serving thread.
pub struct Context {
    pub port: Port,
    pub identifier: Arc<Identifier>,
    pub policies: Arc<Policies>,
    pub identity: Identity,
    pub endpoint: Endpoint,
    pub limits: Limits,
    pub limiter: Arc<Limiter>,
    /// etcd's `--max-request-bytes`.
    pub max_request_bytes: usize,
    /// How long a write may wait for its log entry.
    pub request_timeout: Duration,
}

/// What the other side has shown: with its connection, and with this request.
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    pub connection: &'a ConnectionIdentity,
    pub metadata: &'a HeaderMap,
}

/// How often a request is decided again at once because the policy, or the keys of a lease that it concerns, changed
/// between decision and execution. Then others have their turn in between, until the request's time is over.
const AT_ONCE: usize = 4;

/// What came of a request, and who pays for the answer. The request is in flight until this is dropped.
pub struct Answered<'a> {
    pub reply: Reply<Plaintext>,
    pub admission: Admission<'a>,
}

/// A request with one answer, that came in a message of `size` bytes.
pub async fn run<'a>(
    context: &'a Context,
    evidence: Evidence<'_>,
    mut operation: Operation<Plaintext>,
    size: usize,
) -> Result<Answered<'a>, Refusal> {
    operation.check(&context.limits)?;
    let view = context.port.view();
    let caller = identify(context, &view, evidence, &operation)?;
    let request = Request { view: &view, caller: &caller, connection: evidence.connection };
    let admission = context.limiter.admit(request, &mut operation, size)?;
    if let Some(delay) = admission.delay {
        tokio::time::sleep(delay).await;
    }
    // What few requests need is kept apart: each request would be as large, and moved about.
    if has_password(&operation) {
        operation = Box::pin(hash_password(context, evidence, operation)).await?;
    }
    // Kept until the answer is there: who applies it finds it made.
    let mut bundle = if is_bundle(&operation) {
        Some(Box::new(Box::pin(prepare_bundle(context, evidence, &operation)).await?))
    } else {
        None
    };
    let asker = Asker::at(evidence.connection.peer());
    // While a bundle was made, much may have changed.
    let mut decided_on = bundle.is_none().then_some((view, caller));
    let mut deadline = None;
    for attempt in 1.. {
        let (view, caller) = match decided_on.take() {
            Some(first) => first,
            None => {
                let view = context.port.view();
                let caller = identify(context, &view, evidence, &operation)?;
                (view, caller)
            }
        };
        let (done, view) = match authorize::obtain(context.endpoint, &view, &caller, operation.clone()) {
            Ok(permit) if dispatch::is_write(permit.operation()) => {
                // Nobody waits for the log with a view of the past: it would keep alive what it alone still shows, and
                // the thread that serves would have to free that.
                drop(view);
                (dispatch::write(context, transform::seal(permit)?).await, None)
            }
            Ok(permit) => {
                let permit = transform::seal(permit)?;
                let bundle = bundle.as_deref_mut();
                let done = match dispatch::one(context, &view, asker, &caller, permit, bundle) {
                    Answering::Now(answered) => answered.into_inner(),
                    waits => waits.await,
                };
                (done, Some(view))
            }
            Err(refusal) => (Err(refusal), Some(view)),
        };
        // On which it was decided; for a write that is the newest.
        let view = || view.unwrap_or_else(|| context.port.view());
        match done {
            Err(Refusal::StalePermit) if has_passed(&mut deadline, context.request_timeout) => break,
            Err(Refusal::StalePermit) if attempt >= AT_ONCE => tokio::task::yield_now().await,
            Err(Refusal::StalePermit) => {}
            Err(Refusal::PermissionDenied) => {
                return Err(context.policies.denials.note(&view(), &caller, &operation));
            }
            Err(refusal) if is_bundle(&operation) => {
                context.policies.failed(&refusal);
                return Err(refusal);
            }
            outcome => {
                let reply = transform::open(outcome?)?;
                operator_log::note(view, &caller, evidence.connection.peer(), &operation, reply.revision);
                match admission.found(&reply.answer) {
                    // It is done: only reads are refused what they found.
                    Err(_) if operation.is_write() => {}
                    found => found?,
                }
                return Ok(Answered { reply, admission });
            }
        }
    }
    Err(Refusal::TimedOut)
}

/// Counts from when it is asked first. Few requests ask, and a clock costs.
fn has_passed(deadline: &mut Option<Instant>, timeout: Duration) -> bool {
    let now = Instant::now();
    now >= *deadline.get_or_insert(now + timeout)
}

/// Is it about putting a bundle in force?
fn is_bundle(operation: &Operation<Plaintext>) -> bool {
    matches!(operation, Operation::PolicyChange(PolicyChange::Apply { .. } | PolicyChange::Rollback { .. }))
}

/// A read whose answer comes in chunks; its values go out through [`transform::open`].
pub fn run_stream(
    context: &Context,
    evidence: Evidence<'_>,
    mut operation: Operation<Plaintext>,
    size: usize,
) -> Result<Chunks, Refusal> {
    operation.check(&context.limits)?;
    let view = context.port.view();
    let caller = identify(context, &view, evidence, &operation)?;
    let request = Request { view: &view, caller: &caller, connection: evidence.connection };
    let admission = context.limiter.admit(request, &mut operation, size)?;
    let permit = authorize::obtain(context.endpoint, &view, &caller, operation.clone());
    let permit = transform::seal(permit.map_err(|refusal| match refusal {
        Refusal::PermissionDenied => context.policies.denials.note(&view, &caller, &operation),
        refusal => refusal,
    })?)?;
    let payer = admission.into_payer(&context.limiter);
    Ok(Chunks { chunks: dispatch::stream(context, view, permit), payer })
}

/// A range that is told piece by piece.
pub struct Chunks {
    pub chunks: RangeChunks,
    pub payer: Option<Payer>,
}

/// A watch. Its events go out through [`transform::open_event`], and only while the policy of the
/// moment still allows it.
pub fn watch(
    context: &Context,
    session: &mut WatchSession,
    evidence: Evidence<'_>,
    mut operation: Operation<Plaintext>,
    size: usize,
) -> Result<Result<Watching, WatchCreateError>, Refusal> {
    operation.check(&context.limits)?;
    let view = context.port.view();
    let caller = identify(context, &view, evidence, &operation)?;
    let request = Request { view: &view, caller: &caller, connection: evidence.connection };
    let admission = context.limiter.admit(request, &mut operation, size)?;
    // Asked for first: if a right ends between the two, the watch is decided again at once instead of never.
    let until = authorize::decided_until(&view, &caller)?;
    let permit = authorize::obtain(context.endpoint, &view, &caller, operation.clone())?;
    let permit = transform::seal(permit)?;
    let seat = context.limiter.watcher(request, &admission)?;
    let payer = admission.into_payer(&context.limiter);
    let endpoint = context.endpoint;
    let caller = caller.begun();
    let decide = move |view: &View| {
        let until = authorize::decided_until(view, &caller)?;
        let permit = authorize::obtain(endpoint, view, &caller, operation.clone())?;
        Ok(Standing { sight: permit.sight().clone(), until })
    };
    let created = dispatch::watch(session, permit, until, Box::new(decide));
    // A watcher lasts: it has a limit of its own.
    let payer = payer.map(Payer::at_rest);
    Ok(created.map(|created| Watching { created, seat, payer }))
}

/// A watcher that was made: its place among those of its user, and who pays for its events.
pub struct Watching {
    pub created: WatchCreated,
    pub seat: Option<WatcherSeat>,
    pub payer: Option<Payer>,
}

/// A place among the streams of its connection, for one that lasts. Who it is that asks is decided at each request
/// of the stream.
pub fn lasting(context: &Context, evidence: Evidence<'_>) -> Result<Option<StreamSeat>, Refusal> {
    let view = context.port.view();
    let Ok(caller) = context.identifier.identify(evidence.connection, evidence.metadata, &view) else {
        return Ok(None);
    };
    context.limiter.stream(Request { view: &view, caller: &caller, connection: evidence.connection })
}

/// Has the other side shown who it is, where that is asked for? Says nothing about rights.
pub fn known(context: &Context, evidence: Evidence<'_>) -> Result<(), Refusal> {
    let view = context.port.view();
    let caller = context.identifier.identify(evidence.connection, evidence.metadata, &view)?;
    match caller {
        Caller::Anonymous { keyspace } => match view.keyspace(keyspace) {
            Some(keyspace) if !keyspace.auth().enabled => Ok(()),
            Some(_) | None => Err(Refusal::Anonymous),
        },
        Caller::User { .. } => Ok(()),
    }
}

/// The keyspace that a stream works in. Says nothing about rights: each request of the stream is
/// decided for itself, and refused when its caller is of another keyspace by then.
pub fn keyspace_of(context: &Context, evidence: Evidence<'_>) -> KeyspaceId {
    let view = context.port.view();
    match context.identifier.identify(evidence.connection, evidence.metadata, &view) {
        Ok(caller) => caller.keyspace(),
        // Even who is refused belongs to the host that they asked for.
        Err(_) => {
            let tenant = evidence.connection.server_name().and_then(|host| view.tenant_for_host(host));
            tenant.map_or(KeyspaceId::DEFAULT, |tenant| tenant.keyspace)
        }
    }
}

fn identify(
    context: &Context,
    view: &View,
    evidence: Evidence<'_>,
    operation: &Operation<Plaintext>,
) -> Result<Caller, Refusal> {
    let Evidence { connection, metadata } = evidence;
    match operation {
        // Whoever logs in says by that in which tenant. What else they show does not matter: a client
        // whose token has died must still be able to log in, and sends the dead one along.
        Operation::Authenticate { name, .. } => {
            let keyspace = keyspace_of_login(view, connection.server_name(), name);
            Ok(Caller::Anonymous { keyspace })
        }
        Operation::Health => Ok(Caller::Anonymous { keyspace: KeyspaceId::DEFAULT }),
        _ => context.identifier.identify(connection, metadata, view),
    }
}

/// Does it bring one that will be kept?
fn has_password(operation: &Operation<Plaintext>) -> bool {
    matches!(credential(operation), Some(Credential::Password(_)))
}

fn credential(operation: &Operation<Plaintext>) -> Option<&Credential> {
    match operation {
        Operation::UserAdd(UserAdd { credential, .. })
        | Operation::UserChangePassword { credential, .. }
        | Operation::TenantCreate(TenantCreate { root: credential, .. }) => Some(credential),
        _ => None,
    }
}

/// Replaces a password by its hash, so that no log can hold it. Decided beforehand with the
/// password in place; the hashed form is decided again like any other request.
async fn hash_password(
    context: &Context,
    evidence: Evidence<'_>,
    operation: Operation<Plaintext>,
) -> Result<Operation<Plaintext>, Refusal> {
    let Some(Credential::Password(password)) = credential(&operation) else { return Ok(operation) };
    let password = password.clone();
    let (view, caller) = decide_beforehand(context, evidence, &operation)?;
    let passwords = context.identifier.passwords();
    passwords.check(&password)?;
    check_user(&view, &caller, &operation)?;
    let hashed = Credential::Hashed(passwords.hash(Asker::at(evidence.connection.peer()), password).await?);
    Ok(match operation {
        Operation::UserAdd(UserAdd { name, .. }) => Operation::UserAdd(UserAdd { name, credential: hashed }),
        Operation::UserChangePassword { name, .. } => {
            Operation::UserChangePassword { name, credential: hashed }
        }
        Operation::TenantCreate(create) => Operation::TenantCreate(TenantCreate { root: hashed, ..create }),
        other => other,
    })
}

/// Makes ready what is to be put in force, for somebody who may. Who that is, and what it gives, is decided when it is there.
async fn prepare_bundle(
    context: &Context,
    evidence: Evidence<'_>,
    operation: &Operation<Plaintext>,
) -> Result<Ready, Refusal> {
    let Operation::PolicyChange(change) = operation else {
        return Err(Refusal::Internal { cause: "a change of the policy was expected" });
    };
    let view = decide_beforehand(context, evidence, operation)?.0;
    let ready = Ready::make(&context.policies, &view, change).await;
    ready.inspect_err(|refusal| context.policies.failed(refusal))
}

/// Refuses before something is done that costs much.
fn decide_beforehand(
    context: &Context,
    evidence: Evidence<'_>,
    operation: &Operation<Plaintext>,
) -> Result<(View, Caller), Refusal> {
    let view = context.port.view();
    let caller = identify(context, &view, evidence, operation)?;
    match authorize::obtain(context.endpoint, &view, &caller, operation.clone()) {
        Ok(_asked_again) => Ok((view, caller)),
        Err(Refusal::PermissionDenied) => Err(context.policies.denials.note(&view, &caller, operation)),
        Err(refusal) => {
            if is_bundle(operation) {
                context.policies.failed(&refusal);
            }
            Err(refusal)
        }
    }
}

/// Refuses what a password would be hashed for in vain. Who passes is looked at again where the
/// change is applied.
fn check_user(view: &View, caller: &Caller, operation: &Operation<Plaintext>) -> Result<(), Refusal> {
    let users = &authorize::keyspace(view, caller)?.auth().users;
    match operation {
        Operation::UserAdd(UserAdd { name, .. }) if name.is_empty() => Err(Refusal::UserEmpty),
        Operation::UserAdd(UserAdd { name, .. }) if users.contains_key(name) => Err(Refusal::UserExists),
        Operation::UserChangePassword { name, .. } if !users.contains_key(name) => Err(Refusal::UserNotFound),
        Operation::TenantCreate(TenantCreate { name, .. }) if view.tenant(name.as_str()).is_some() => {
            Err(Refusal::TenantExists(name.clone()))
        }
        _ => Ok(()),
    }
}
