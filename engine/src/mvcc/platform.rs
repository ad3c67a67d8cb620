//! The platform's policy: which bundle is in force beside the tables of all keyspaces, and which ones were.
//!
//! A bundle comes in parts, which are only kept; one small command puts it in force. What is compiled comes from
//! the [`Compile`] port, which has it ready by then, so that nobody waits for a large bundle.

use super::effects::{Change, Effects, Erased};
use super::meta;
use super::state::{ApplyError, State, Stop};
use bytes::Bytes;
use keygate_core::{
    Answer, BUNDLE_BYTES, BUNDLE_PART, BundleDigest, Compile, KeyspaceId, PlatformPolicy, PolicyAnswer,
    PolicyChange, PolicyRevision, Refusal, Sealed, StoredBundle,
};
use std::sync::Arc;

/// Revisions that are told of.
const TOLD: usize = 100;
/// Bundles that are kept whole for a rollback, the one in force included, as long as they take no more than
/// [`KEPT_BYTES`] together.
const KEPT: usize = 10;
const KEPT_BYTES: u64 = 2 * BUNDLE_BYTES;

type PartId = (BundleDigest, u32);

#[derive(Clone, Debug, Default)]
pub(super) struct Platform {
    in_force: PlatformPolicy,
    /// Ascending; the last one is in force. Empty: nothing was ever applied.
    revisions: imbl::OrdMap<u64, Arc<PolicyRevision>>,
    parts: imbl::OrdMap<PartId, Bytes>,
    /// Whose parts are on their way.
    staged: Option<BundleDigest>,
}

impl Platform {
    /// From what the store held. An error says what is wrong, for the operator.
    pub(super) fn loaded(
        revisions: Vec<PolicyRevision>,
        parts: Vec<(PartId, Bytes)>,
        compile: &dyn Compile,
    ) -> Result<Self, String> {
        let mut all = Self {
            revisions: revisions.into_iter().map(|own| (own.revision, Arc::new(own))).collect(),
            parts: parts.into_iter().collect(),
            ..Self::default()
        };
        let named: Vec<_> = all.kept().into_iter().map(|(_, bundle)| bundle.digest).collect();
        all.staged = all.parts.keys().map(|(digest, _)| *digest).find(|digest| !named.contains(digest));
        if let Some((revision, newest)) = all.revisions.get_max().cloned() {
            let rules = newest.bundle.as_ref().map(|bundle| all.compiled(bundle, compile)).transpose();
            let digest = newest.bundle.as_ref().map(|bundle| bundle.digest.to_string()).unwrap_or_default();
            let unusable =
                |why| format!("bundle `{digest}` of policy revision {revision} cannot be used: {why}");
            let rules = rules.map_err(unusable)?;
            all.in_force = PlatformPolicy { revision, rules };
        }
        Ok(all)
    }

    fn compiled(
        &self,
        bundle: &StoredBundle,
        compile: &dyn Compile,
    ) -> Result<Arc<dyn keygate_core::Rules>, String> {
        let parts = self.parts_of(&bundle.digest, bundle.parts);
        // Without its parts it is another content than announced, and what becomes of such a bundle is not decided here.
        compile.bundle(&bundle.digest, &parts.unwrap_or_default())
    }

    fn parts_of(&self, digest: &BundleDigest, count: u32) -> Option<Vec<Bytes>> {
        (0..count).map(|index| self.parts.get(&(*digest, index)).cloned()).collect()
    }

    /// Newest first: revisions whose bundle is, or has to be, there.
    fn kept(&self) -> Vec<(u64, &StoredBundle)> {
        let mut kept: Vec<(u64, &StoredBundle)> = Vec::new();
        let (mut bundles, mut bytes) = (Vec::new(), 0);
        for (revision, own) in self.revisions.iter().rev() {
            let Some(bundle) = &own.bundle else { continue };
            if !bundles.contains(&bundle.digest) {
                bytes += bundle.bytes;
                if !bundles.is_empty() && (bundles.len() >= KEPT || bytes > KEPT_BYTES) {
                    break;
                }
                bundles.push(bundle.digest);
            }
            kept.push((*revision, bundle));
        }
        kept
    }

    fn expect(&self, expected: Option<u64>) -> Result<(), Refusal> {
        let in_force = self.in_force.revision;
        match expected {
            Some(expected) if expected != in_force => Err(Refusal::PolicyMoved { in_force, expected }),
            Some(_) | None => Ok(()),
        }
    }

    fn stage(&mut self, id: PartId, content: &Bytes, effects: &mut Effects) -> Result<PolicyAnswer, Refusal> {
        if content.len() > BUNDLE_PART {
            return Err(Refusal::BundlePartTooLarge { limit: BUNDLE_PART });
        }
        let has = self.parts.contains_key(&id);
        if self.staged != Some(id.0) && !(has && self.is_kept(&id.0)) {
            self.forget_staged(effects);
            self.staged = (!self.is_kept(&id.0)).then_some(id.0);
        }
        let staged: u64 =
            self.parts.range((id.0, 0)..=(id.0, u32::MAX)).map(|(_, part)| part.len() as u64).sum();
        if !has && staged + content.len() as u64 > BUNDLE_BYTES {
            return Err(Refusal::BundleTooLarge { limit: BUNDLE_BYTES });
        }
        if !has || self.staged == Some(id.0) {
            effects.changes.push(meta::put_bundle_part(&id, content));
            self.parts.insert(id, content.clone());
        }
        Ok(PolicyAnswer::Staged)
    }

    fn is_kept(&self, digest: &BundleDigest) -> bool {
        self.kept().iter().any(|(_, bundle)| bundle.digest == *digest)
    }

    fn forget_staged(&mut self, effects: &mut Effects) {
        if let Some(digest) = self.staged.take()
            && !self.is_kept(&digest)
        {
            self.forget_parts(&digest, effects);
        }
    }

    fn forget_parts(&mut self, digest: &BundleDigest, effects: &mut Effects) {
        let gone: Vec<PartId> =
            self.parts.range((*digest, 0)..=(*digest, u32::MAX)).map(|(id, _)| *id).collect();
        for id in gone {
            self.parts.remove(&id);
            effects.changes.push(Change::DeleteMeta(meta::bundle_part_key(&id)));
        }
    }

    /// The bundle of a revision that can be put in force again. `None` inside: no bundle.
    fn restorable(&self, revision: u64) -> Result<Option<StoredBundle>, Refusal> {
        if revision == 0 {
            return Ok(None);
        }
        let unknown = Refusal::PolicyRevisionUnknown(revision);
        match self.revisions.get(&revision) {
            Some(own) => match &own.bundle {
                None => Ok(None),
                Some(bundle) if self.is_kept(&bundle.digest) => Ok(Some(bundle.clone())),
                Some(_) => Err(unknown),
            },
            None => Err(unknown),
        }
    }

    fn put_in_force(
        &mut self,
        next: PolicyRevision,
        rules: Option<Arc<dyn keygate_core::Rules>>,
        effects: &mut Effects,
    ) -> PolicyAnswer {
        let before: Vec<BundleDigest> = self.kept().iter().map(|(_, bundle)| bundle.digest).collect();
        let replaced =
            std::mem::replace(&mut self.in_force, PlatformPolicy { revision: next.revision, rules });
        effects.erased.extend(replaced.rules.map(Erased::Rules));
        effects.changes.push(meta::put_policy_revision(&next));
        self.revisions.insert(next.revision, Arc::new(next.clone()));
        if self.staged.is_some_and(|digest| next.bundle.as_ref().is_some_and(|own| own.digest == digest)) {
            self.staged = None;
        }
        while self.revisions.len() > TOLD
            && let Some(oldest) = self.revisions.get_min().map(|(revision, _)| *revision)
        {
            self.revisions.remove(&oldest);
            effects.changes.push(Change::DeleteMeta(meta::policy_revision_key(oldest)));
        }
        for digest in before {
            if !self.is_kept(&digest) && self.staged != Some(digest) {
                self.forget_parts(&digest, effects);
            }
        }
        effects.policy_changed = true;
        PolicyAnswer::InForce(next)
    }
}

impl State {
    /// What is in force beside the tables.
    pub fn platform_policy(&self) -> &PlatformPolicy {
        &self.platform.in_force
    }

    /// Newest first.
    pub fn policy_log(&self) -> PolicyAnswer {
        PolicyAnswer::Log {
            in_force: self.platform.in_force.revision,
            revisions: self.platform.revisions.values().rev().map(|own| own.as_ref().clone()).collect(),
            kept: self.platform.kept().into_iter().map(|(revision, _)| revision).collect(),
        }
    }

    /// The parts of the bundle that has this many, if all have been sent.
    pub fn bundle_parts(&self, digest: &BundleDigest, parts: u32) -> Option<Vec<Bytes>> {
        self.platform.parts_of(digest, parts)
    }

    /// The bundle of a revision, if it is kept. `None` inside: the revision has none.
    pub fn bundle_of(&self, revision: u64) -> Result<Option<StoredBundle>, Refusal> {
        self.platform.restorable(revision)
    }

    /// The revision that a rollback without a name restores.
    pub fn previous_policy(&self) -> u64 {
        self.platform.revisions.keys().rev().nth(1).copied().unwrap_or(0)
    }

    /// `from` must be the keyspace of whoever asks, `by` their name.
    pub(super) fn policy_change(
        &mut self,
        from: KeyspaceId,
        by: Option<&str>,
        change: &PolicyChange,
        compile: &dyn Compile,
        effects: &mut Effects,
    ) -> Result<Answer<Sealed>, Stop> {
        if from != KeyspaceId::DEFAULT {
            return Err(Refusal::PermissionDenied.into());
        }
        let previous = self.previous_policy();
        let platform = &mut self.platform;
        let revision = platform.in_force.revision + 1;
        let by = by.map(str::to_owned);
        let (next, rules) = match change {
            PolicyChange::Stage { digest, index, content } => {
                return Ok(Answer::Policy(platform.stage((*digest, *index), content, effects)?));
            }
            PolicyChange::Apply { digest, parts, expected, at } => {
                platform.expect(*expected)?;
                let content = platform.parts_of(digest, *parts).filter(|parts| !parts.is_empty());
                let content = content.ok_or(Refusal::BundleIncomplete)?;
                if !compile.is_content_of(digest, &content) {
                    let why = format!(
                        "its parts are not the content of `{digest}`: they were sent again meanwhile"
                    );
                    return Err(Refusal::BundleUnusable(why).into());
                }
                // Whoever proposed it has compiled it. A member on which it does not compile must not go on without it.
                let rules =
                    compile.bundle(digest, &content).map_err(|why| Stop::Fatal(ApplyError::Corrupt(why)))?;
                let bytes = content.iter().map(|part| part.len() as u64).sum();
                let bundle = StoredBundle { digest: *digest, parts: *parts, bytes, about: rules.about() };
                let bundle = Some(bundle);
                (PolicyRevision { revision, bundle, at: *at, by, restores: None }, Some(rules))
            }
            PolicyChange::Rollback { to, expected, at } => {
                platform.expect(*expected)?;
                let to = to.unwrap_or(previous);
                let bundle = platform.restorable(to)?;
                let rules = bundle.as_ref().map(|bundle| platform.compiled(bundle, compile)).transpose();
                // It has been in force.
                let rules = rules.map_err(|why| Stop::Fatal(ApplyError::Corrupt(why)))?;
                (PolicyRevision { revision, bundle, at: *at, by, restores: Some(to) }, rules)
            }
        };
        Ok(Answer::Policy(platform.put_in_force(next, rules, effects)))
    }
}
