//! Alarms, and what they forbid.

use super::effects::{Change, Effects};
use super::keyspace::Keyspace;
use super::meta;
use super::value::StoredValue;
use keygate_core::{
    AlarmAction, AlarmKind, AlarmMember, AlarmRequest, Answer, Operation, Refusal, Sealed, Txn, TxnOp,
};

impl Keyspace {
    /// A corrupt keyspace takes no change of data, a full one none that grows it. `of_store`: the alarms of what all
    /// keyspaces share.
    pub(super) fn check_alarms(
        &self,
        operation: &Operation<StoredValue>,
        of_store: &imbl::OrdSet<AlarmMember>,
    ) -> Result<(), Refusal> {
        if self.alarms.is_empty() && of_store.is_empty() {
            return Ok(());
        }
        let (changes_data, grows) = match operation {
            Operation::Put(_) | Operation::LeaseGrant(_) => (true, true),
            Operation::Txn(txn) => (true, may_put(txn)),
            Operation::DeleteRange(_)
            | Operation::Compact(_)
            | Operation::LeaseRevoke(_)
            | Operation::LeaseExpire(_) => (true, false),
            Operation::Range(_)
            | Operation::RangeStream(_)
            | Operation::Watch(_)
            | Operation::LeaseKeepAlive(_)
            | Operation::LeaseTimeToLive(_)
            | Operation::LeaseLeases
            | Operation::LeaseCheckpoint(_)
            | Operation::MemberList { .. }
            | Operation::Alarm(_)
            | Operation::Status
            | Operation::Snapshot
            | Operation::Defragment
            | Operation::Hash
            | Operation::HashKv { .. }
            | Operation::AuthEnable
            | Operation::AuthDisable
            | Operation::AuthStatus
            | Operation::Authenticate { .. }
            | Operation::UserAdd(_)
            | Operation::UserGet { .. }
            | Operation::UserList
            | Operation::UserDelete { .. }
            | Operation::UserChangePassword { .. }
            | Operation::UserGrantRole { .. }
            | Operation::UserRevokeRole { .. }
            | Operation::RoleAdd { .. }
            | Operation::RoleGet { .. }
            | Operation::RoleList
            | Operation::RoleDelete { .. }
            | Operation::RoleGrantPermission(_)
            | Operation::RoleRevokePermission(_)
            | Operation::TenantCreate(_)
            | Operation::TenantChange { .. }
            | Operation::TenantDelete { .. }
            | Operation::TenantGet { .. }
            | Operation::TenantList
            | Operation::QuotaSet(_)
            | Operation::QuotaShow(_)
            | Operation::QuotaRecount(_)
            | Operation::Observe(_)
            // An administrator must be able to repair a policy whatever else is wrong.
            | Operation::PolicyChange(_)
            | Operation::PolicyAsk(_)
            | Operation::Health => (false, false),
        };
        let raised = |kind| self.has_alarm(kind) || of_store.iter().any(|alarm| alarm.alarm == kind);
        if changes_data && raised(AlarmKind::Corrupt) {
            return Err(Refusal::Corrupt);
        }
        if grows && raised(AlarmKind::NoSpace) {
            return Err(Refusal::NoSpace);
        }
        Ok(())
    }

    /// As in etcd a member id of 0 is an id like others here; clients that mean every alarm list them first.
    pub(super) fn alarm(&mut self, request: &AlarmRequest, effects: &mut Effects) -> Answer<Sealed> {
        let alarm = AlarmMember { member: request.member, alarm: request.alarm };
        match request.action {
            AlarmAction::Get => {
                let asked =
                    |alarm: &AlarmMember| request.alarm == AlarmKind::None || alarm.alarm == request.alarm;
                Answer::Alarms(self.alarms.iter().copied().filter(asked).collect())
            }
            AlarmAction::Activate if request.alarm == AlarmKind::None => Answer::Alarms(Vec::new()),
            AlarmAction::Activate => {
                if self.alarms.insert(alarm).is_none() {
                    effects.changes.push(meta::put_alarm(self.id, &alarm));
                }
                Answer::Alarms(vec![alarm])
            }
            AlarmAction::Deactivate => {
                if self.alarms.remove(&alarm).is_none() {
                    return Answer::Alarms(Vec::new());
                }
                effects.changes.push(Change::DeleteMeta(meta::alarm_key(self.id, &alarm)));
                Answer::Alarms(vec![alarm])
            }
        }
    }
}

/// Whether either branch, on any level, has a put.
fn may_put(txn: &Txn<StoredValue>) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        TxnOp::Put(_) => true,
        TxnOp::Txn(nested) => may_put(nested),
        TxnOp::Range(_) | TxnOp::DeleteRange(_) => false,
    })
}
