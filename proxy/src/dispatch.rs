//! Hands a permit to whoever does the work: nearly always the engine.

use keygate_core::{Answer, Caller, Operation, Permit, Refusal, Reply, Sealed};
use keygate_engine::{Answering, Decide, RangeChunks, View, WatchCreateError, WatchCreated, WatchSession};
use tokio::time::Instant;

use crate::identify::{Asker, Home};
use crate::policy_change::Ready;
use crate::stack::Context;

/// A request with one answer. Who asks [`is_write`] first can let go of the view.
///
/// `caller` is whom the permit was given to, on this view; `bundle` what it is about to put in force.
///
/// `Err(Refusal::StalePermit)`: nothing was done, and the permit must be obtained again.
pub fn one<'a>(
    context: &'a Context,
    view: &'a View,
    asker: Asker,
    caller: &'a Caller,
    permit: Permit<Sealed>,
    bundle: Option<&'a mut Ready>,
) -> Answering<'a> {
    match permit.operation() {
        Operation::Authenticate { .. } => Answering::later(authenticate(context, view, asker, permit)),
        Operation::PolicyAsk(question) => {
            let revision = view.keyspace(permit.keyspace()).map_or(0, |keyspace| keyspace.revision());
            let answer = context.policies.answer(view, question).map(Answer::Policy);
            Answering::now(answer.map(|answer| Reply { revision, term: view.term(), answer }))
        }
        Operation::PolicyChange(_) => Answering::later(change_policy(context, view, caller, permit, bundle)),
        Operation::Observe(observation) => {
            let answer = context.limiter.observe(*observation);
            Answering::now(Ok(Reply { revision: 0, term: view.term(), answer }))
        }
        operation if is_write(operation) => write(context, permit),
        _ => context.port.read(view, permit),
    }
}

/// A change to which the view that it was decided on does not matter any more.
pub fn is_write<V>(operation: &Operation<V>) -> bool {
    operation.is_write() && !matches!(operation, Operation::PolicyChange(_))
}

/// Through the log. As [`one`].
pub fn write(context: &Context, permit: Permit<Sealed>) -> Answering<'_> {
    let patient = waits_for_disk(permit.operation());
    match context.port.propose(permit) {
        answered @ Answering::Now(_) => answered,
        proposed if patient => proposed,
        proposed => Answering::later(async {
            let answered = tokio::time::timeout(context.request_timeout, proposed).await;
            answered.unwrap_or(Err(Refusal::TimedOut))
        }),
    }
}

async fn change_policy(
    context: &Context,
    view: &View,
    caller: &Caller,
    permit: Permit<Sealed>,
    bundle: Option<&mut Ready>,
) -> Result<Reply<Sealed>, Refusal> {
    if let (Some(bundle), Operation::PolicyChange(change)) = (bundle, permit.operation()) {
        bundle.check(&context.policies, view, caller, change).await?;
    }
    context.port.propose(permit).await
}

/// A read in chunks.
pub fn stream(context: &Context, view: View, permit: Permit<Sealed>) -> RangeChunks {
    context.port.range_stream(view, permit, context.max_request_bytes)
}

/// `decide` is asked again, with the view of the moment, before any event that follows a change of
/// policy.
pub fn watch(
    session: &mut WatchSession,
    permit: Permit<Sealed>,
    until: Option<Instant>,
    decide: Decide,
) -> Result<WatchCreated, WatchCreateError> {
    session.create_until(permit, until, decide)
}

/// A physical compaction is answered when space is free again, however long that takes.
fn waits_for_disk(operation: &Operation<Sealed>) -> bool {
    matches!(operation, Operation::Compact(compact) if compact.physical)
}

/// Passwords are no business of the engine: it holds hashes, the identifier compares and makes the
/// token.
async fn authenticate(
    context: &Context,
    view: &View,
    asker: Asker,
    permit: Permit<Sealed>,
) -> Result<Reply<Sealed>, Refusal> {
    let parts = permit.into_parts();
    let Operation::Authenticate { name, password } = parts.operation else {
        return Err(Refusal::Internal { cause: "a login was expected" });
    };
    let keyspace = view.keyspace(parts.keyspace).ok_or(Refusal::PermissionDenied)?;
    let home = Home {
        keyspace: parts.keyspace,
        tenant: view.tenant_of(parts.keyspace).map(AsRef::as_ref),
        auth: keyspace.auth(),
    };
    let token = context.identifier.authenticate(asker, home, &name, password).await?;
    Ok(Reply { revision: keyspace.revision(), term: view.term(), answer: Answer::Token(token) })
}
