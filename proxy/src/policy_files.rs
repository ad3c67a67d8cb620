//! `--policy-dir`: the bundle in a folder or tar is put in force when it changes, as `keygate policy apply` would.
//!
//! Looked at once a second, and at SIGHUP. Files are written one after the other, so a change is taken up when nothing
//! has moved for a second. What cannot be applied changes nothing; where the reason may pass (no room, no leader, a file
//! that cannot be read) and not the bundle is at fault, it is tried again, with growing pauses. A start does not apply again what was applied from
//! here last: an operator who has rolled it back meanwhile must not find it in force after a restart.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use keygate_core::{
    Answer, BUNDLE_STEP, InternalReason, KeyspaceId, Operation, Permit, PolicyAnswer, PolicyChange,
    PolicyRevision, Refusal, Sealed, StoredBundle,
};
use keygate_engine::Port;
use keygate_policies::{
    bundle::{Files, FilesError},
    digest_of_tar,
};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::policies::Policies;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);
/// Between two tries at the same bundle: the first pause, and the longest one. Each is twice as long as the one before.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

pub struct PolicyFiles {
    path: PathBuf,
    policies: Arc<Policies>,
    port: Port,
}

/// Dropping it ends the looking.
pub struct Following {
    task: JoinHandle<()>,
    asked: Arc<Notify>,
}

impl Following {
    /// Looks at once, and applies what is there unless it is in force.
    pub fn ask(&self) {
        self.asked.notify_one();
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PolicyFiles {
    pub fn new(path: PathBuf, policies: Arc<Policies>, port: Port) -> Self {
        Self { path, policies, port }
    }

    /// To be called before anybody is served, so that a fresh server begins with the bundle.
    ///
    /// # Errors
    /// The bundle cannot be put in force, and no other one is: nobody may be served without its deny rows.
    pub async fn start(self) -> Result<Following, Refusal> {
        let mut seen = stamps(&self.path);
        let since = self.port.view().platform_policy().revision;
        let mut failed = self.look(Occasion::Start, None).await.err();
        if let Some(why) = failed.take_if(|_| self.port.view().platform_policy().revision == 0) {
            return Err(why.refusal);
        }
        let asked = Arc::new(Notify::new());
        let listening = asked.clone();
        let task = tokio::spawn(async move {
            let mut settling = false;
            let mut again = Again::after(failed.as_ref(), Occasion::Start, None, (since, Instant::now()));
            loop {
                let was_asked = tokio::time::timeout(LOOK, listening.notified()).await.is_ok();
                let now = stamps(&self.path);
                let moved = std::mem::replace(&mut seen, now) != seen;
                let (occasion, last) = if was_asked {
                    (Occasion::Asked, None)
                } else if settling && !moved {
                    (Occasion::Changed, None)
                } else if moved {
                    // Another bundle, perhaps: nothing is owed to the one before.
                    (settling, again) = (true, None);
                    continue;
                } else {
                    // What an operator has put in force meanwhile is newer than what is still to be tried.
                    again.take_if(|again| again.since != self.port.view().platform_policy().revision);
                    match again.take_if(|again| again.due <= Instant::now()) {
                        Some(last) => (last.occasion, Some(last)),
                        None => continue,
                    }
                };
                settling = false;
                // What is in force stays so, and the log has the reason.
                let since = last
                    .as_ref()
                    .map_or_else(|| self.port.view().platform_policy().revision, |last| last.since);
                let failed = self.look(occasion, last.as_ref()).await.err();
                again = Again::after(failed.as_ref(), occasion, last.as_ref(), (since, Instant::now()));
            }
        });
        Ok(Following { task, asked })
    }

    /// Tells the log what came of it, unless it is what came of the last try.
    async fn look(&self, occasion: Occasion, last: Option<&Again>) -> Result<(), Failure> {
        let expected = last.map(|last| last.since);
        let applied = self.apply(occasion, expected).await.inspect_err(|failure| {
            match last.is_some_and(|last| last.why == failure.refusal) {
                true => self.policies.failed_again(),
                false => self.policies.failed(&failure.refusal),
            }
        })?;
        if let Some(revision) = applied {
            tracing::info!(path = %self.path.display(), revision = revision.revision, "the policy bundle was applied");
        }
        Ok(())
    }

    /// None: there is nothing to be done.
    async fn apply(
        &self,
        occasion: Occasion,
        expected: Option<u64>,
    ) -> Result<Option<PolicyRevision>, Failure> {
        let path = self.path.clone();
        let read =
            tokio::task::spawn_blocking(move || Files::open(&path).and_then(|files| files.to_packed_tar()));
        let tar = read.await.map_err(|_| Refusal::Internal { cause: "reading a bundle broke off" })?;
        let tar = Bytes::from(tar.map_err(|error| Failure {
            may_pass: matches!(error, FilesError::Unreadable { .. }),
            refusal: Refusal::BundleUnusable(error.to_string()),
        })?);
        let digest = digest_of_tar(std::slice::from_ref(&tar));
        if self.is_applied(occasion, |bundle| bundle.digest == digest) {
            return Ok(None);
        }
        // Before anything is sent to the log.
        let prepared = self.policies.check(&digest, vec![tar.clone()]).await?;
        if self.is_applied(occasion, |bundle| prepared.manifest() == Some(bundle.about.manifest.as_str())) {
            // The same files, packed by another version, or signed once more.
            return Ok(None);
        }
        let mut parts = 0;
        for start in (0..tar.len()).step_by(BUNDLE_STEP) {
            let content = tar.slice(start..tar.len().min(start + BUNDLE_STEP));
            self.propose(PolicyChange::Stage { digest, index: parts, content }).await?;
            parts += 1;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let at = i64::try_from(now).unwrap_or(i64::MAX);
        let apply = PolicyChange::Apply { digest, parts, expected, at };
        let _prepared = self.policies.prepare(&self.port.view(), &apply).await?;
        match self.propose(apply).await? {
            PolicyAnswer::InForce(revision) => Ok(Some(revision)),
            _ => Err(Refusal::Internal { cause: "the answer is not of the request's kind" }.into()),
        }
    }

    fn is_applied(&self, occasion: Occasion, is_it: impl Fn(&StoredBundle) -> bool) -> bool {
        let PolicyAnswer::Log { revisions, .. } = self.port.view().policy_log() else { return false };
        let from_here = |own: &&PolicyRevision| own.by.is_none() && own.restores.is_none();
        let last = match occasion {
            Occasion::Start => revisions.iter().find(from_here),
            Occasion::Changed | Occasion::Asked => revisions.first(),
        };
        last.and_then(|own| own.bundle.as_ref()).is_some_and(is_it)
    }

    async fn propose(&self, change: PolicyChange) -> Result<PolicyAnswer, Refusal> {
        let operation: Operation<Sealed> = Operation::PolicyChange(change);
        let permit = Permit::internal(InternalReason::PolicyFiles, KeyspaceId::DEFAULT, operation);
        match self.port.propose(permit).await?.answer {
            Answer::Policy(answer) => Ok(answer),
            _ => Err(Refusal::Internal { cause: "the answer is not of the request's kind" }),
        }
    }
}

/// Why a bundle is not in force.
struct Failure {
    refusal: Refusal,
    /// By itself: the bundle is not at fault.
    may_pass: bool,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let of_bundle = matches!(
            refusal,
            Refusal::BundleUnusable(_)
                | Refusal::BundleTooLarge { .. }
                | Refusal::BundlePartTooLarge { .. }
                | Refusal::PolicyMoved { .. }
        );
        Self { may_pass: !of_bundle && refusal != Refusal::Stopping, refusal }
    }
}

/// A try that is still to be made.
#[derive(Debug, PartialEq)]
struct Again {
    /// Of the first one.
    occasion: Occasion,
    /// What was in force before it.
    since: u64,
    why: Refusal,
    pause: Duration,
    due: Instant,
}

impl Again {
    /// What follows a try: nothing after success, or when only another bundle helps.
    fn after(
        failed: Option<&Failure>,
        occasion: Occasion,
        last: Option<&Self>,
        (since, now): (u64, Instant),
    ) -> Option<Self> {
        let why = failed.filter(|failed| failed.may_pass)?.refusal.clone();
        let [first, longest] = PAUSES;
        let pause = last.map_or(first, |last| (last.pause * 2).min(longest));
        Some(Self { occasion, since, why, pause, due: now + pause })
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Occasion {
    Start,
    Changed,
    Asked,
}

/// Enough to notice a change. What cannot be looked at is noticed when it is read.
#[derive(Clone, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    inode: u64,
    size: u64,
    changed: i64,
    changed_nanoseconds: i64,
}

fn stamps(path: &Path) -> Vec<Stamp> {
    let mut found = Vec::new();
    let tests = path.join("tests");
    for folder in [path, tests.as_path()] {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        found.extend(entries.flatten().filter_map(|entry| stamp(entry.path())));
    }
    found.extend(stamp(path.to_owned()));
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn stamp(path: PathBuf) -> Option<Stamp> {
    let metadata = fs::metadata(&path).ok()?;
    Some(Stamp {
        path,
        inode: metadata.ino(),
        size: metadata.len(),
        changed: metadata.ctime(),
        changed_nanoseconds: metadata.ctime_nsec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_again_with_growing_pauses() {
        let now = Instant::now();
        let (mut last, mut pauses) = (None, Vec::new());
        for _ in 0..9 {
            let failed = Failure::from(Refusal::NoSpace);
            let again = Again::after(Some(&failed), Occasion::Changed, last.as_ref(), (7, now)).unwrap();
            assert_eq!((again.occasion, &again.why), (Occasion::Changed, &Refusal::NoSpace));
            assert_eq!(again.due, now + again.pause);
            pauses.push(again.pause.as_secs());
            last = Some(again);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(Again::after(None, Occasion::Changed, last.as_ref(), (7, now)), None);
    }

    #[test]
    fn a_bundle_that_is_at_fault_is_not_tried_again() {
        for (refusal, may_pass) in [
            (Refusal::BundleUnusable("policy.csv:1".to_owned()), false),
            (Refusal::BundleTooLarge { limit: 1 }, false),
            (Refusal::Stopping, false),
            (Refusal::NoLeader, true),
            (Refusal::StoreUnavailable, true),
            (Refusal::BundleIncomplete, true),
            (Refusal::TooManyRequests, true),
            (Refusal::Internal { cause: "x" }, true),
        ] {
            let failed = Failure::from(refusal.clone());
            let again = Again::after(Some(&failed), Occasion::Start, None, (7, Instant::now()));
            assert_eq!(again.is_some(), may_pass, "{refusal:?}");
        }
    }
}
