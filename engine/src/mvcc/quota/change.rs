//! Limits are set by the platform, for any keyspace.

use super::super::effects::{Change, Effects};
use super::super::keyspace::Keyspace;
use super::super::meta;
use super::super::row::RowSource;
use super::super::state::{State, Stop};
use keygate_core::{
    Answer, KeyspaceId, MAX_QUOTA_PREFIXES, QuotaBound, QuotaKind, QuotaLimits, QuotaSet, QuotaUse, Refusal,
    Sealed,
};
use std::sync::Arc;

impl State {
    /// `from` must be the keyspace of whoever asks: only the platform's own can change limits.
    pub(in super::super) fn quota_set(
        &mut self,
        from: KeyspaceId,
        set: &QuotaSet,
        rows: &dyn RowSource,
        effects: &mut Effects,
    ) -> Result<Answer<Sealed>, Stop> {
        if from != KeyspaceId::DEFAULT {
            return Err(Refusal::PermissionDenied.into());
        }
        let id = match &set.tenant {
            None => KeyspaceId::DEFAULT,
            Some(name) => {
                self.tenant(name.as_str()).ok_or_else(|| Refusal::TenantNotFound(name.clone()))?.keyspace
            }
        };
        let slot =
            self.keyspaces.get_mut(&id).ok_or(Refusal::Internal { cause: "a tenant has no keyspace" })?;
        Arc::make_mut(slot).quota_set(set, rows, effects)?;
        let mut quotas = slot.quotas();
        quotas.retain(|info| info.prefix == set.prefix);
        quotas.iter_mut().for_each(|info| info.tenant = set.tenant.clone());
        Ok(Answer::Quotas(quotas))
    }
}

impl Keyspace {
    fn quota_set(&mut self, set: &QuotaSet, rows: &dyn RowSource, effects: &mut Effects) -> Result<(), Stop> {
        let prefix = &set.prefix;
        let scope = self.quota.scopes.iter().find(|scope| scope.prefix == *prefix);
        let old = if prefix.is_empty() {
            self.quota.limits
        } else {
            scope.map(|scope| scope.limits).unwrap_or_default()
        };
        let limits = QuotaLimits {
            keys: set.keys.applied_to(old.keys),
            bytes: set.bytes.applied_to(old.bytes),
            history: set.history.applied_to(old.history),
        };
        let is_new = !prefix.is_empty() && scope.is_none() && !limits.is_empty();
        if is_new && self.quota.scopes.len() >= MAX_QUOTA_PREFIXES {
            return Err(Refusal::TooManyQuotas { limit: MAX_QUOTA_PREFIXES }.into());
        }
        let counted = is_new.then(|| self.tally(prefix, rows)).transpose()?;
        let used = match (&counted, scope) {
            (Some(tally), _) => {
                QuotaUse { keys: tally.keys, bytes: tally.bytes, history: tally.history.bytes() }
            }
            (None, Some(scope)) => scope.used(),
            (None, None) => self.used(),
        };
        if !set.force {
            check_above(used, &old, &limits, set)?;
        }
        self.quota.limit(prefix, limits);
        if let (Some(tally), Ok(at)) =
            (counted, self.quota.scopes.binary_search_by(|scope| scope.prefix.cmp(prefix)))
        {
            let scope = Arc::make_mut(&mut self.quota.scopes[at]);
            (scope.keys, scope.bytes, scope.history) = (tally.keys, tally.bytes, tally.history);
        }
        effects.changes.push(if limits.is_empty() {
            Change::DeleteMeta(meta::quota_key(self.id, prefix))
        } else {
            meta::put_quota(self.id, prefix, &limits)
        });
        Ok(())
    }
}

/// Limits that stay as they were, or are raised, are not asked about.
fn check_above(used: QuotaUse, old: &QuotaLimits, new: &QuotaLimits, set: &QuotaSet) -> Result<(), Refusal> {
    for kind in QuotaKind::ALL {
        let Some(limit) = new.of(kind) else { continue };
        let lowered = old.of(kind).is_none_or(|old| limit < old);
        let used = used.of(kind);
        if lowered && used > limit {
            let prefix = set.prefix.clone();
            return Err(Refusal::QuotaBelowUse(Box::new(QuotaBound { kind, prefix, limit, used })));
        }
    }
    Ok(())
}
