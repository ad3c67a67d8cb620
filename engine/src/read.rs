//! Everything that is answered without the log, but for a keepalive behind a checkpoint.
//!
//! What memory holds is answered on the calling thread. What needs the store, or walks over so many
//! keys that the thread's other connections would notice, goes to the blocking pool.

mod quota;

use crate::Engine;
use crate::answering::Answering;
use crate::lease_clock::{Checkpoint, Kept};
use crate::mvcc::{Keyspace, MemoryOnly, ReadError, RowSource, hash_kv};
use crate::port::{Answered, Port};
use crate::readers::Purpose;
use crate::view::View;
use keygate_core::{
    AlarmMember, Answer, AuthStatus, InternalReason, KeyRange, KeyspaceId, LeaseDetail, LeaseId,
    LeaseTimeToLive, MemberInfo, Operation, Permission, PermissionKind, Permit, ROOT, Range, Refusal, Reply,
    Role, Sealed, Sight, StatusAnswer, Txn,
};

/// Entries of the index that a serving thread walks over by itself: about half a millisecond.
pub(crate) const INLINE_ENTRIES: usize = 10_000;

pub(crate) fn read<'a>(port: &'a Port, view: &'a View, permit: Permit<Sealed>) -> Answering<'a> {
    let engine = port.engine();
    let parts = permit.into_parts();
    let id = parts.keyspace;
    let Some(keyspace) = view.keyspace(id) else { return Answering::now(Err(Refusal::PermissionDenied)) };
    let told = |answer| Reply { revision: keyspace.revision(), term: view.term(), answer };
    let found = |found: Result<_, Refusal>| Answering::now(found.map(told));
    let reply = |answer| found(Ok(answer));
    match parts.operation {
        Operation::Range(request) => range(port, view, id, request, parts.sight),
        Operation::Txn(txn) if txn.is_read_only() => read_txn(port, view, keyspace, txn),
        Operation::LeaseKeepAlive(lease) => match engine.leases().keep_alive(id, lease) {
            Some(Kept { ttl, checkpoint: Some(checkpoint) }) => Answering::later(async move {
                let ttl = if clear(port, id, lease, checkpoint).await? { ttl } else { 0 };
                Ok(told(Answer::LeaseKept { id: lease, ttl }))
            }),
            kept => reply(Answer::LeaseKept { id: lease, ttl: kept.map_or(0, |kept| kept.ttl) }),
        },
        Operation::LeaseTimeToLive(request) => reply(Answer::Lease(lease(engine, keyspace, id, request))),
        Operation::LeaseLeases => {
            Answering::later(async move { Ok(told(Answer::Leases(leases(port, view, id).await?))) })
        }
        // Cluster answers carry no revision.
        Operation::MemberList { .. } => {
            let answer = Answer::Members(vec![member(engine)]);
            Answering::now(Ok(Reply { revision: 0, term: view.term(), answer }))
        }
        Operation::Alarm(_) => reply(Answer::Alarms(alarms(view, keyspace))),
        Operation::Status => reply(Answer::Status(Box::new(status(engine, view, keyspace)))),
        Operation::Defragment => Answering::later(async move {
            engine.defragment().await?;
            Ok(told(Answer::Done))
        }),
        Operation::Hash => Answering::later(async move {
            let hash = engine.hash().await?;
            Ok(told(Answer::Hash { hash }))
        }),
        Operation::HashKv { revision } => Answering::later(hash_of_keys(port, view, id, revision)),
        Operation::AuthStatus => {
            let auth = keyspace.auth();
            reply(Answer::AuthStatus(AuthStatus { enabled: auth.enabled, revision: auth.revision }))
        }
        Operation::UserGet { name } => {
            let user = keyspace.auth().users.get(&name).ok_or(Refusal::UserNotFound);
            found(user.map(|user| Answer::UserRoles(user.roles.clone())))
        }
        Operation::UserList => reply(Answer::Names(keyspace.auth().users.keys().cloned().collect())),
        Operation::RoleGet { name } => {
            let role = keyspace.auth().roles.get(&name).ok_or(Refusal::RoleNotFound);
            // What `root` may do is not a matter of rows.
            let rows = |role: &Role| if name == ROOT { vec![everything()] } else { role.permissions.clone() };
            found(role.map(|role| Answer::Permissions(rows(role))))
        }
        Operation::RoleList => reply(Answer::Names(keyspace.auth().roles.keys().cloned().collect())),
        Operation::TenantGet { name } => {
            let tenant = view.tenant(name.as_str()).ok_or(Refusal::TenantNotFound(name));
            found(tenant.map(|tenant| Answer::Tenants(view.tenant_info(tenant).into_iter().collect())))
        }
        Operation::TenantList => {
            reply(Answer::Tenants(view.tenants().filter_map(|tenant| view.tenant_info(tenant)).collect()))
        }
        Operation::QuotaShow(of) => found(quota::show(view, id, of).map(Answer::Quotas)),
        Operation::QuotaRecount(of) => Answering::later(quota::recount(port, view, id, of)),
        Operation::Health => reply(Answer::Serving),
        // To those who may; the others are told that they may not, as by etcd.
        Operation::Snapshot => found(Err(Refusal::Unimplemented)),
        Operation::RangeStream(_)
        | Operation::Put(_)
        | Operation::DeleteRange(_)
        | Operation::Txn(_)
        | Operation::Compact(_)
        | Operation::Watch(_)
        | Operation::LeaseGrant(_)
        | Operation::LeaseRevoke(_)
        | Operation::LeaseExpire(_)
        | Operation::LeaseCheckpoint(_)
        | Operation::AuthEnable
        | Operation::AuthDisable
        | Operation::Authenticate { .. }
        | Operation::UserAdd(_)
        | Operation::UserDelete { .. }
        | Operation::UserChangePassword { .. }
        | Operation::UserGrantRole { .. }
        | Operation::UserRevokeRole { .. }
        | Operation::RoleAdd { .. }
        | Operation::RoleDelete { .. }
        | Operation::RoleGrantPermission(_)
        | Operation::RoleRevokePermission(_)
        | Operation::TenantCreate(_)
        | Operation::TenantChange { .. }
        | Operation::Observe(_)
        | Operation::TenantDelete { .. }
        | Operation::QuotaSet(_)
        | Operation::PolicyChange(_)
        // The gateway answers it.
        | Operation::PolicyAsk(_) => {
            found(Err(Refusal::Internal { cause: "an operation that is not a read was sent to be read" }))
        }
    }
}

/// The clock may not know one of this view any more, or not yet.
async fn leases(port: &Port, view: &View, id: KeyspaceId) -> Result<Vec<LeaseId>, Refusal> {
    let list = move |engine: &Engine, view: &View| {
        let keyspace = view.keyspace(id).ok_or(ReadError::Outdated)?;
        Ok(engine.leases().by_expiry(id, keyspace.leases().map(|(lease, _)| lease)))
    };
    let few = view.keyspace(id).is_some_and(|keyspace| keyspace.lease_count() <= INLINE_ENTRIES);
    let listed = if few {
        list(port.engine(), view)
    } else {
        let (engine, view) = (port.engine().clone(), view.clone());
        port.read_store(Purpose::Answer, move |_| list(&engine, &view)).await
    };
    listed.map_err(|error| port.explain(error))
}

pub(crate) fn range<'a>(
    port: &'a Port,
    view: &'a View,
    id: KeyspaceId,
    request: Range,
    sight: Sight,
) -> Answering<'a> {
    let Some(keyspace) = view.keyspace(id) else { return Answering::now(Err(Refusal::PermissionDenied)) };
    let inline = if keyspace.entry_count() <= INLINE_ENTRIES {
        Ok(true)
    } else {
        keyspace.range_walks_within(&request, &sight, INLINE_ENTRIES, &MemoryOnly)
    };
    let read = move |keyspace: &Keyspace, rows: &dyn RowSource| {
        keyspace.range(&request, &sight, rows).map(Answer::Range)
    };
    answer(port, view, keyspace, inline, read)
}

fn read_txn<'a>(port: &'a Port, view: &'a View, keyspace: &'a Keyspace, txn: Txn<Sealed>) -> Answering<'a> {
    let inline = keyspace.txn_walks_within(&txn, INLINE_ENTRIES, &MemoryOnly);
    let read =
        move |keyspace: &Keyspace, rows: &dyn RowSource| keyspace.txn_read(&txn, rows).map(Answer::Txn);
    answer(port, view, keyspace, inline, read)
}

/// Asks memory if that is quick, else, or if memory does not hold it all, the store off-thread.
fn answer<'a>(
    port: &'a Port,
    view: &'a View,
    keyspace: &'a Keyspace,
    inline: Result<bool, ReadError>,
    read: impl Fn(&Keyspace, &dyn RowSource) -> Result<Answer<Sealed>, ReadError> + Send + 'static,
) -> Answering<'a> {
    let inline = match inline {
        Ok(inline) => inline,
        Err(error) => return Answering::now(Err(port.explain(error))),
    };
    let reply = |answer| Reply { revision: keyspace.revision(), term: view.term(), answer };
    if inline {
        match read(keyspace, &MemoryOnly) {
            Ok(answer) => return Answering::now(Ok(reply(answer))),
            Err(ReadError::NeedsStore) => {}
            Err(error) => return Answering::now(Err(port.explain(error))),
        }
    }
    let (pinned, id) = (view.clone(), keyspace.id());
    let found = port.read_store(Purpose::Answer, move |rows| match pinned.keyspace(id) {
        Some(keyspace) => read(keyspace, rows),
        None => Err(ReadError::Refused(Refusal::PermissionDenied)),
    });
    Answering::later(async move { found.await.map(reply).map_err(|error| port.explain(error)) })
}

fn everything() -> Permission {
    Permission { kind: PermissionKind::ReadWrite, range: KeyRange::everything() }
}

/// Renewed time must outlive a crash, so a checkpoint that would shorten it is cleared in the log before the keepalive is
/// answered. Where the log cannot take that the caller is refused, though the lease lives on. False: it is gone.
async fn clear(port: &Port, id: KeyspaceId, lease: LeaseId, checkpoint: Checkpoint) -> Result<bool, Refusal> {
    let clear = Operation::LeaseCheckpoint(vec![(lease, 0)]);
    port.submit(Permit::internal(InternalReason::LeaseCheckpoint, id, clear)).await?;
    Ok(port.engine().leases().cleared(id, lease, checkpoint))
}

fn lease(engine: &Engine, keyspace: &Keyspace, id: KeyspaceId, request: LeaseTimeToLive) -> LeaseDetail {
    let gone = LeaseDetail { id: request.id, ttl: -1, granted_ttl: 0, keys: Vec::new() };
    let (Some(lease), Some(remaining)) =
        (keyspace.lease(request.id), engine.leases().remaining(id, request.id))
    else {
        return gone;
    };
    let keys = if request.keys { lease.keys.iter().cloned().collect() } else { Vec::new() };
    LeaseDetail { id: request.id, ttl: remaining.seconds, granted_ttl: lease.ttl, keys }
}

fn member(engine: &Engine) -> MemberInfo {
    let options = engine.options();
    MemberInfo {
        id: engine.identity().member_id,
        name: options.name.clone(),
        peer_urls: options.peer_urls.clone(),
        client_urls: options.client_urls.clone(),
        is_learner: false,
    }
}

/// Those of the keyspace, and those of the store, which lie on all.
fn alarms(view: &View, keyspace: &Keyspace) -> Vec<AlarmMember> {
    let mut alarms = keyspace.alarms();
    let of_store = view.keyspace(KeyspaceId::DEFAULT).map(Keyspace::alarms).unwrap_or_default();
    alarms.extend(of_store);
    alarms.sort_unstable();
    alarms.dedup();
    alarms
}

fn status(engine: &Engine, view: &View, keyspace: &Keyspace) -> StatusAnswer {
    // A tenant sees the size of its own data: that of the store would tell of the others.
    let (total, in_use) = if keyspace.id() == KeyspaceId::DEFAULT {
        let size = engine.size();
        (size.total, size.in_use)
    } else {
        (keyspace.current_bytes(), keyspace.current_bytes())
    };
    let quota = match keyspace.byte_quota() {
        Some(own) if keyspace.id() != KeyspaceId::DEFAULT => own,
        Some(_) | None => engine.options().quota_bytes.unwrap_or(0),
    };
    StatusAnswer {
        // etcdctl divides by it, and no etcd is ever quite empty.
        db_size: total.max(1) as i64,
        db_size_in_use: in_use.max(1) as i64,
        db_size_quota: i64::try_from(quota).unwrap_or(i64::MAX),
        leader: view.leader(),
        raft_index: engine.committed_index(),
        raft_term: view.term(),
        raft_applied_index: view.applied_index(),
        alarms: alarms(view, keyspace),
    }
}

/// etcd's HashKV of one keyspace at `revision` (0: the view's). It walks over all of the history that is kept.
async fn hash_of_keys(port: &Port, view: &View, id: KeyspaceId, revision: i64) -> Answered {
    let pinned = view.clone();
    let hashed = port.read_store(Purpose::Answer, move |rows| {
        let keyspace = pinned.keyspace(id).ok_or(ReadError::Refused(Refusal::PermissionDenied))?;
        hash_kv(keyspace, revision, rows)
    });
    let found = hashed.await.map_err(|error| port.explain(error))?;
    let current = view.keyspace(id).map_or(0, |keyspace| keyspace.revision());
    Ok(Reply {
        revision: current,
        term: view.term(),
        answer: Answer::HashKv {
            hash: found.hash,
            compact_revision: found.compact_revision,
            hash_revision: found.hash_revision,
        },
    })
}
