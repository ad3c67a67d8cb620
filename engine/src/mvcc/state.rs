//! The whole state and the one way to change it.

use super::command::Command;
use super::compact::Pruning;
use super::effects::Effects;
use super::evict::Hand;
use super::keyspace::Keyspace;
use super::meta;
use super::platform::Platform;
use super::read::ReadError;
use super::row::{RowError, RowSource};
use super::tenants::Tenants;
use super::value::StoredValue;
use super::write::Writing;
use keygate_core::{
    AlarmKind, AlarmMember, Answer, Compile, KeyspaceId, LeaseFence, LeaseKeys, Operation, PlatformPolicy,
    Refusal, Sealed, decide_at_apply,
};
use std::sync::Arc;
use thiserror::Error;

/// A clone costs little and is a snapshot: later changes do not touch it.
#[derive(Clone)]
pub struct State {
    pub(super) keyspaces: imbl::OrdMap<KeyspaceId, Arc<Keyspace>>,
    /// Number of the newest sealed batch.
    pub(super) batch: u64,
    pub(super) pruning: Pruning,
    pub(super) hand: Hand,
    pub(super) tenants: Tenants,
    pub(super) platform: Platform,
}

/// What came of one command.
#[derive(Clone, PartialEq, Debug)]
pub struct Applied {
    /// A refused command has changed nothing.
    pub outcome: Result<Answer<Sealed>, Refusal>,
    /// The keyspace's revision behind the command.
    pub revision: i64,
}

/// Applying cannot go on, and must not: this member's data is not what it should be, or cannot be had.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ApplyError {
    #[error("a row that a command needs cannot be read: {0}")]
    Row(#[from] RowError),
    #[error("damaged data: {0}")]
    Corrupt(String),
}

/// Why an operation ends early.
#[derive(Debug)]
pub(super) enum Stop {
    Refused(Refusal),
    Fatal(ApplyError),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<RowError> for Stop {
    fn from(error: RowError) -> Self {
        Self::Fatal(error.into())
    }
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Refused(refusal) => Self::Refused(refusal),
            ReadError::NeedsStore => Self::Fatal(ApplyError::Row(RowError::NeedsStore)),
            ReadError::Outdated => {
                Self::Fatal(ApplyError::Corrupt("a row of the newest state is gone".to_owned()))
            }
            ReadError::Unavailable(text) => Self::Fatal(ApplyError::Row(RowError::Unavailable(text))),
            ReadError::Corrupt(text) => Self::Fatal(ApplyError::Corrupt(text)),
            ReadError::Abandoned => Self::Fatal(ApplyError::Row(RowError::Abandoned)),
        }
    }
}

impl State {
    /// What a member has before its first command: the default keyspace, empty.
    pub fn new(compile: &dyn Compile) -> Self {
        let default = Keyspace::compiled(KeyspaceId::DEFAULT, compile);
        Self::from_keyspaces(std::iter::once(default).collect())
    }

    pub(super) fn from_keyspaces(keyspaces: Vec<Keyspace>) -> Self {
        Self {
            keyspaces: keyspaces.into_iter().map(|keyspace| (keyspace.id, Arc::new(keyspace))).collect(),
            batch: 0,
            pruning: Pruning::default(),
            hand: Hand::default(),
            tenants: Tenants::default(),
            platform: Platform::default(),
        }
    }

    pub fn keyspace(&self, id: KeyspaceId) -> Option<&Keyspace> {
        self.keyspaces.get(&id).map(AsRef::as_ref)
    }

    /// Ascending by id.
    pub fn keyspaces(&self) -> impl Iterator<Item = &Keyspace> {
        self.keyspaces.values().map(AsRef::as_ref)
    }

    /// Makes an empty keyspace. One that exists stays as it is.
    pub fn create_keyspace(&mut self, id: KeyspaceId, compile: &dyn Compile, effects: &mut Effects) {
        if self.keyspaces.contains_key(&id) {
            return;
        }
        let keyspace = Keyspace::compiled(id, compile);
        effects.changes.push(meta::put_head(id, &keyspace.head()));
        self.keyspaces.insert(id, Arc::new(keyspace));
    }

    /// Applies the next command of the log.
    ///
    /// `rows` must be able to read the store. Nothing here comes from a configuration: a log that is replayed under
    /// another one gives the same state. An error is fatal: the state may hold half a command and must not be used any
    /// more.
    pub fn apply(
        &mut self,
        command: Command,
        rows: &dyn RowSource,
        compile: &dyn Compile,
        effects: &mut Effects,
    ) -> Result<Applied, ApplyError> {
        let of_store = self.alarms_of_store();
        let platform = self.platform_policy().clone();
        let Some(slot) = self.keyspaces.get_mut(&command.keyspace) else {
            // Its tenant was deleted in the meantime.
            return Ok(Applied { outcome: Err(Refusal::PermissionDenied), revision: 0 });
        };
        if is_about_tenants(&command.operation) {
            let revision = slot.revision;
            let outcome = slot
                .check_permit(&command, &platform)
                .and_then(|()| self.tenant_change(command.keyspace, &command.operation, compile, effects));
            return Ok(Applied { outcome, revision });
        }
        if let Operation::QuotaSet(set) = &command.operation {
            let revision = slot.revision;
            let allowed = slot.check_permit(&command, &platform).map_err(Stop::Refused);
            let outcome = match allowed.and_then(|()| self.quota_set(command.keyspace, set, rows, effects)) {
                Ok(answer) => Ok(answer),
                Err(Stop::Refused(refusal)) => Err(refusal),
                Err(Stop::Fatal(error)) => return Err(error),
            };
            return Ok(Applied { outcome, revision });
        }
        if let Operation::PolicyChange(change) = &command.operation {
            // Work without a caller is the server's own, whatever users call themselves.
            let by = command.attribution.as_deref().filter(|_| command.fence.is_some());
            let revision = slot.revision;
            let outcome = slot
                .check_permit(&command, &platform)
                .map_err(Stop::Refused)
                .and_then(|()| self.policy_change(command.keyspace, by, change, compile, effects));
            return Ok(Applied { outcome: refusable(outcome)?, revision });
        }
        let keyspace = Arc::make_mut(slot);
        if command.fence.is_some() && keyspace.suspended {
            return Ok(Applied { outcome: Err(Refusal::TenantSuspended), revision: keyspace.revision });
        }
        let outcome = keyspace
            .check_permit(&command, &platform)
            .and_then(|()| keyspace.check_alarms(&command.operation, &of_store))
            .map_err(Stop::Refused)
            .and_then(|()| keyspace.execute(&command.operation, rows, compile, effects));
        let outcome = refusable(outcome)?;
        if outcome.is_ok() && matches!(command.operation, Operation::Compact(_)) {
            self.pruning.start(keyspace.id);
        }
        Ok(Applied { outcome, revision: keyspace.revision })
    }

    /// Those of the platform's keyspace: they are about the store and the member, which all share.
    fn alarms_of_store(&self) -> imbl::OrdSet<AlarmMember> {
        self.keyspaces.get(&KeyspaceId::DEFAULT).map(|keyspace| keyspace.alarms.clone()).unwrap_or_default()
    }

    /// Whether an alarm forbids every change of this keyspace's data.
    pub fn is_corrupt(&self, keyspace: KeyspaceId) -> bool {
        let corrupt =
            |id: &KeyspaceId| self.keyspaces.get(id).is_some_and(|k| k.has_alarm(AlarmKind::Corrupt));
        corrupt(&KeyspaceId::DEFAULT) || corrupt(&keyspace)
    }

    /// Ends a batch of commands: its rows are kept, immutable, until [`Self::flushed`] names the number that is
    /// answered here. The same number again means that nothing was written since.
    pub fn seal_batch(&mut self) -> u64 {
        let next = self.batch + 1;
        let unsealed: Vec<KeyspaceId> =
            self.keyspaces.values().filter(|k| k.pending.has_open()).map(|k| k.id).collect();
        for id in unsealed {
            if let Some(slot) = self.keyspaces.get_mut(&id) {
                Arc::make_mut(slot).pending.seal(next);
                self.batch = next;
            }
        }
        self.batch
    }

    /// The store durably holds the changes of all batches up to `through`.
    pub fn flushed(&mut self, through: u64) {
        let waiting: Vec<KeyspaceId> = self
            .keyspaces
            .values()
            .filter(|k| k.pending.oldest().is_some_and(|batch| batch <= through))
            .map(|k| k.id)
            .collect();
        for id in waiting {
            if let Some(slot) = self.keyspaces.get_mut(&id) {
                let keyspace = Arc::make_mut(slot);
                if let Some(revision) = keyspace.pending.flushed(through) {
                    keyspace.flushed = revision;
                }
            }
        }
    }

    /// Bytes, estimated: index, current values, rows that are not flushed. Values that only snapshots hold are not in it.
    pub fn memory_used(&self) -> u64 {
        self.keyspaces.values().map(|keyspace| keyspace.memory_used()).sum()
    }
}

impl Keyspace {
    /// Is what the permit depended on still so? If not, this state decides: it is the one that the change is made to.
    /// So a revoke holds from its place in the log on, and changes of policy beside it refuse nobody who may write.
    ///
    /// What the bundle says is known to the gateway alone, which knows the caller's groups and address. It decides
    /// again when another bundle is in force, when keys have joined a lease, or when the tables alone do not suffice.
    fn check_permit(&self, command: &Command, platform: &PlatformPolicy) -> Result<(), Refusal> {
        let moved = |fence: &LeaseFence| self.attached(fence.lease, &mut |_| false) != fence.generation;
        let moved = command.leases.iter().any(moved);
        let Some(fence) = command.fence else {
            return if moved { Err(Refusal::StalePermit) } else { Ok(()) };
        };
        if fence.platform != platform.revision || (moved && platform.rules.is_some()) {
            return Err(Refusal::StalePermit);
        }
        if fence.keyspace == self.policy.fence().keyspace && !moved {
            return Ok(());
        }
        let name = command.attribution.as_deref();
        match decide_at_apply(self.policy.as_ref(), self, self.id, name, &command.operation) {
            Err(_) if platform.rules.is_some() => Err(Refusal::StalePermit),
            // Whoever was the platform's root when it was decided was not asked about by the bundle.
            Ok(()) if platform.rules.is_some() && self.id == KeyspaceId::DEFAULT => Err(Refusal::StalePermit),
            // What is handed on depends on tables and bundle together, for a tenant's root too.
            Ok(()) if platform.rules.is_some() && command.operation.hands_rights_on() => {
                Err(Refusal::StalePermit)
            }
            decided => decided,
        }
    }

    fn execute(
        &mut self,
        operation: &Operation<StoredValue>,
        rows: &dyn RowSource,
        compile: &dyn Compile,
        effects: &mut Effects,
    ) -> Result<Answer<Sealed>, Stop> {
        match operation {
            Operation::Put(put) => {
                self.check_put(put)?;
                self.check_quota_of_put(put)?;
                let mut writing = Writing::begin(self);
                let answer = self.put(put, &mut writing, rows, effects)?;
                self.commit(&writing);
                Ok(answer)
            }
            Operation::DeleteRange(delete) => {
                let mut writing = Writing::begin(self);
                let answer = self.delete_range(delete, &mut writing, rows, effects)?;
                self.commit(&writing);
                Ok(answer)
            }
            Operation::Txn(txn) => Ok(Answer::Txn(self.txn(txn, rows, effects)?)),
            Operation::Compact(compact) => Ok(self.compact(compact, effects)?),
            Operation::LeaseGrant(grant) => Ok(self.lease_grant(grant, effects)?),
            Operation::LeaseRevoke(revoke) => Ok(self.lease_revoke(revoke.id, effects)?),
            Operation::LeaseExpire(leases) => Ok(self.lease_expire(leases, effects)),
            Operation::LeaseCheckpoint(leases) => Ok(self.lease_checkpoint(leases, effects)),
            Operation::Alarm(alarm) => Ok(self.alarm(alarm, effects)),
            Operation::AuthEnable
            | Operation::AuthDisable
            | Operation::UserAdd(_)
            | Operation::UserDelete { .. }
            | Operation::UserChangePassword { .. }
            | Operation::UserGrantRole { .. }
            | Operation::UserRevokeRole { .. }
            | Operation::RoleAdd { .. }
            | Operation::RoleDelete { .. }
            | Operation::RoleGrantPermission(_)
            | Operation::RoleRevokePermission(_) => self
                .auth_change(operation, compile, effects)
                .unwrap_or(Err(NOT_FOR_THE_LOG))
                .map_err(Stop::Refused),
            Operation::Range(_)
            | Operation::RangeStream(_)
            | Operation::Watch(_)
            | Operation::LeaseKeepAlive(_)
            | Operation::LeaseTimeToLive(_)
            | Operation::LeaseLeases
            | Operation::MemberList { .. }
            | Operation::Status
            | Operation::Snapshot
            | Operation::Defragment
            | Operation::Hash
            | Operation::HashKv { .. }
            | Operation::AuthStatus
            | Operation::Authenticate { .. }
            | Operation::UserGet { .. }
            | Operation::UserList
            | Operation::RoleGet { .. }
            | Operation::RoleList
            | Operation::TenantCreate(_)
            | Operation::TenantChange { .. }
            | Operation::TenantDelete { .. }
            | Operation::TenantGet { .. }
            | Operation::TenantList
            | Operation::QuotaSet(_)
            | Operation::QuotaShow(_)
            | Operation::QuotaRecount(_)
            | Operation::Observe(_)
            | Operation::PolicyChange(_)
            | Operation::PolicyAsk(_)
            | Operation::Health => Err(NOT_FOR_THE_LOG.into()),
        }
    }
}

/// A refusal is an outcome; what is fatal is not.
fn refusable<T>(outcome: Result<T, Stop>) -> Result<Result<T, Refusal>, ApplyError> {
    match outcome {
        Ok(done) => Ok(Ok(done)),
        Err(Stop::Refused(refusal)) => Ok(Err(refusal)),
        Err(Stop::Fatal(error)) => Err(error),
    }
}

/// These change which keyspaces there are, and none of them.
fn is_about_tenants(operation: &Operation<StoredValue>) -> bool {
    matches!(
        operation,
        Operation::TenantCreate(_) | Operation::TenantChange { .. } | Operation::TenantDelete { .. }
    )
}

const NOT_FOR_THE_LOG: Refusal = Refusal::Internal { cause: "a read was proposed" };
