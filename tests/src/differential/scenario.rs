//! Two short stories that random steps would tell too seldom, at the end of each segment.

use anyhow::{Context, Result};
use bytes::Bytes;
use keygate_proto::{
    authpb::{Permission, permission::Type},
    etcdserverpb::*,
};

use super::{
    allowance,
    call::{Call, Caller},
    driver::Arena,
    generate::USERS,
    watch::{Item, Log},
};

/// A watch over everything that starts with `prefix`.
fn watch_prefix(prefix: &'static str, watch_id: i64) -> WatchCreateRequest {
    let mut range_end = prefix.as_bytes().to_vec();
    *range_end.last_mut().expect("prefixes here are not empty") += 1;
    let key = Bytes::from_static(prefix.as_bytes());
    WatchCreateRequest { key, range_end: range_end.into(), watch_id, prev_kv: true, ..Default::default() }
}

fn put(key: &'static str, lease: i64) -> Call {
    Call::Put(PutRequest {
        key: Bytes::from_static(key.as_bytes()),
        value: Bytes::from_static(b"v"),
        lease,
        ..Default::default()
    })
}

fn seen(log: &Log, watch_id: i64) -> usize {
    log.watchers.get(&watch_id).map_or(0, Vec::len)
}

/// A lease with three keys runs out: they vanish in one revision, in key order.
pub(super) async fn leases_expire(arena: &mut Arena<'_>) -> Result<()> {
    let (id, watch_id) = (555, 5);
    let superuser = arena.generator.superuser();
    let stream = arena.open(superuser, watch_prefix("short/", watch_id)).await?;
    arena.call(superuser, Call::Grant(LeaseGrantRequest { ttl: 2, id })).await?;
    for key in ["short/b", "short/a", "short/c"] {
        arena.call(superuser, put(key, id)).await?;
    }
    arena.both_until(stream, |log| seen(log, watch_id) >= 6).await?;
    arena.compare_logs(stream)?;
    arena.call(superuser, Call::TimeToLive(LeaseTimeToLiveRequest { id, keys: true })).await?;
    arena.call(superuser, Call::KeepAlive(LeaseKeepAliveRequest { id })).await?;
    Ok(())
}

/// A user watches, loses the permission, and something changes. etcd goes on telling; a server
/// that decides again does not.
pub(super) async fn permission_is_revoked_under_a_watch(arena: &mut Arena<'_>) -> Result<()> {
    if arena.generator.model.auth_on {
        arena.call(Caller::User(0), Call::AuthDisable(AuthDisableRequest {})).await?;
    }
    let (number, watch_id) = (USERS.len() - 1, 6);
    let (user, role) = (USERS[number].to_owned(), "watchers".to_owned());
    let nobody = Caller::Nobody;
    let (key, range_end) = (Bytes::from_static(b"seen/"), Bytes::from_static(b"seen0"));
    let perm =
        Some(Permission { perm_type: Type::Read as i32, key: key.clone(), range_end: range_end.clone() });
    let password = "first".to_owned();
    let prepare = [
        Call::UserDelete(AuthUserDeleteRequest { name: user.clone() }),
        Call::UserAdd(AuthUserAddRequest {
            name: user.clone(),
            password: password.clone(),
            ..Default::default()
        }),
        Call::RoleAdd(AuthRoleAddRequest { name: role.clone() }),
        Call::RoleGrant(AuthRoleGrantPermissionRequest { name: role.clone(), perm }),
        Call::UserGrantRole(AuthUserGrantRoleRequest { user: user.clone(), role: role.clone() }),
    ];
    for call in prepare {
        arena.call(nobody, call).await?;
    }
    arena.generator.enable();
    while let Some(step) = arena.generator.queued() {
        arena.step(step).await?;
    }
    arena.call(nobody, Call::Authenticate(AuthenticateRequest { name: user, password })).await?;
    let root = Caller::User(0);
    let stream = arena.open(Caller::User(number), watch_prefix("seen/", watch_id)).await?;
    arena.call(root, put("seen/before", 0)).await?;
    arena.both_until(stream, |log| seen(log, watch_id) >= 1).await?;
    arena.compare_logs(stream)?;
    arena.call(root, Call::RoleRevoke(AuthRoleRevokePermissionRequest { role, key, range_end })).await?;
    arena.call(root, put("seen/after", 0)).await?;
    arena.both_until(stream, |log| seen(log, watch_id) >= 1 || log.ended.is_some()).await?;
    let items = |log: Log| -> Vec<Item> { log.watchers.get(&watch_id).cloned().unwrap_or_default() };
    let oracle = items(arena.oracle.streams.get(stream).context("open")?.take());
    let subject = items(arena.subject.streams.get(stream).context("open")?.take());
    if oracle == subject {
        return Ok(());
    }
    let tag = allowance::WATCH_IS_DECIDED_AGAIN;
    match arena.listed.contains(tag) && allowance::closed_after_revoke(&oracle, &subject) {
        true => *arena.report.documented.entry(tag).or_default() += 1,
        false => arena.differ("a watch after its permission was revoked", &oracle, &subject),
    }
    Ok(())
}
