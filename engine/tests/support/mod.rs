//! An engine in a temporary directory, driven without a gateway.
#![allow(dead_code, reason = "each file of tests uses a part")]

use bytes::Bytes;
use keygate_core::{
    Access, Answer, AuthTables, Caller, Compile, Decision, Fence, KeyAction, KeyRange, KeyspaceId,
    LeaseGrant, LeaseId, Operation, Permit, Plaintext, Policy, Put, PutLease, PutValue, Range, Refusal,
    Reply, Sealed, Sight,
};
use keygate_engine::{Engine, EngineOptions, Port, Standing, View};
use std::path::Path;
use std::sync::Arc;

/// A policy for tests of the engine: root may do everything, anybody else nothing.
pub(crate) struct RootOnly;

struct RootOnlyPolicy {
    enabled: bool,
    version: u64,
    users: Vec<String>,
}

impl Policy for RootOnlyPolicy {
    fn fence(&self) -> Fence {
        Fence { platform: 0, keyspace: self.version }
    }

    fn is_enabled(&self) -> bool {
        self.enabled
    }

    fn knows(&self, caller: &Caller) -> bool {
        self.users.iter().any(|name| Some(name.as_str()) == caller.name())
    }

    fn decide_keys(&self, caller: &Caller, _: KeyAction, _: &KeyRange) -> Decision {
        if caller.name() == Some("root") { Decision::Allow } else { Decision::Deny }
    }

    fn decide_other(&self, caller: &Caller, _: &Access) -> Decision {
        if caller.name() == Some("root") { Decision::Allow } else { Decision::Deny }
    }
}

impl Compile for RootOnly {
    fn compile(&self, _: KeyspaceId, tables: &AuthTables, _: Option<&Arc<dyn Policy>>) -> Arc<dyn Policy> {
        Arc::new(RootOnlyPolicy {
            enabled: tables.enabled,
            version: tables.policy_version,
            users: tables.users.keys().cloned().collect(),
        })
    }
}

pub(crate) fn options(directory: &Path) -> EngineOptions {
    EngineOptions { data_dir: directory.join("data"), ..EngineOptions::default() }
}

pub(crate) fn open(directory: &Path) -> Engine {
    Engine::open(options(directory), Arc::new(RootOnly)).expect("the engine opens")
}

pub(crate) fn nobody() -> Caller {
    Caller::Anonymous { keyspace: KeyspaceId::DEFAULT }
}

pub(crate) fn permit(port: &Port, operation: Operation<Plaintext>) -> Result<Permit<Sealed>, Refusal> {
    let view = port.view();
    let keyspace = view.keyspace(KeyspaceId::DEFAULT).expect("the default keyspace");
    let permit =
        Permit::obtain(keyspace.policy().as_ref(), keyspace, keyspace.auth().revision, &nobody(), operation)?;
    permit.try_map_values(&mut |_, value| Ok(Sealed::stored_in_clear(value)))
}

pub(crate) async fn write(port: &Port, operation: Operation<Plaintext>) -> Result<Reply<Sealed>, Refusal> {
    let permit = permit(port, operation)?;
    port.propose(permit).await
}

pub(crate) async fn read(port: &Port, operation: Operation<Plaintext>) -> Result<Reply<Sealed>, Refusal> {
    let permit = permit(port, operation)?;
    port.read(&port.view(), permit).await
}

/// A watch that nothing ends.
pub(crate) fn always(_: &View) -> Result<Standing, Refusal> {
    Ok(Standing { sight: Sight::WHOLE, until: None })
}

pub(crate) fn put(key: &str, value: &str) -> Operation<Plaintext> {
    put_with_lease(key, value, LeaseId::NONE)
}

pub(crate) fn put_with_lease(key: &str, value: &str, lease: LeaseId) -> Operation<Plaintext> {
    Operation::Put(Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: PutValue::Set(Plaintext::new(Bytes::copy_from_slice(value.as_bytes()))),
        lease: PutLease::Set(lease),
        prev_kv: false,
    })
}

pub(crate) fn grant(id: i64, ttl: i64) -> Operation<Plaintext> {
    Operation::LeaseGrant(LeaseGrant { id: LeaseId(id), ttl })
}

/// The value of a key at a revision (0: now).
pub(crate) async fn value_at(port: &Port, key: &str, revision: i64) -> Result<Option<String>, Refusal> {
    let mut range = Range::of(KeyRange::Single(Bytes::copy_from_slice(key.as_bytes())));
    range.revision = revision;
    let reply = read(port, Operation::Range(range)).await?;
    let Answer::Range(found) = reply.answer else { panic!("a range is answered by a range") };
    Ok(found.kvs.into_iter().next().map(|kv| {
        let value = kv.value.expect("values were asked for").open_clear().into_bytes();
        String::from_utf8(value.to_vec()).expect("text")
    }))
}
