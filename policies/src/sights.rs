//! Long lists of hidden keys, shared by all permits that leave out the same.
//!
//! A watch keeps its list for as long as it is open, and many may be open under the same rows. A list is the same for
//! whatever range it is asked for, so it is of all keys, and depends on whose rows apply and which of their conditions
//! hold. It is kept for as long as a permit has it; the newest ones also after that, because the next read of the same
//! people comes soon, and a list of a hundred thousand takes some ten milliseconds to make.

use ahash::AHashMap;
use keygate_core::{Sight, WeakSight};
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::collections::VecDeque;

/// With fewer in its range, a permit has a list of its own: making it costs no more than to find one.
pub(crate) const SHARED_FROM: usize = 64;

/// Different lists at once, after which those that nobody has are forgotten. If there are more that somebody has, further
/// ones are not shared.
const MOST: usize = 1024;

/// The sets of keys that are hidden: numbers of whose they are, and which of theirs.
pub(crate) type Hiding = SmallVec<[(u32, u32); 8]>;

/// Stretches in the lists that are kept though nobody has them: some 20 MB. And so many lists at most.
const KEPT_STRETCHES: usize = 1 << 17;
const KEPT: usize = 64;

#[derive(Default)]
pub(crate) struct Sights(Mutex<Known>);

#[derive(Default)]
struct Known {
    lists: AHashMap<Hiding, WeakSight>,
    /// Newest last.
    kept: VecDeque<Sight>,
    kept_stretches: usize,
}

impl Sights {
    /// `make` is called without the lock: others decide meanwhile.
    pub(crate) fn shared(&self, hiding: Hiding, make: impl FnOnce() -> Sight) -> Sight {
        if let Some(sight) = self.0.lock().find(&hiding) {
            return sight;
        }
        let sight = make();
        let mut known = self.0.lock();
        // Somebody else made it at the same time.
        if let Some(other) = known.find(&hiding) {
            return other;
        }
        let let_go = known.remember(hiding, &sight);
        drop(known);
        drop(let_go);
        sight
    }
}

impl Known {
    fn find(&self, hiding: &Hiding) -> Option<Sight> {
        self.lists.get(hiding).and_then(WeakSight::upgrade)
    }

    /// Answers with what is not kept any more, to be dropped without the lock.
    fn remember(&mut self, hiding: Hiding, sight: &Sight) -> Vec<Sight> {
        let mut let_go = Vec::new();
        if sight.hidden().len() <= KEPT_STRETCHES {
            self.kept_stretches += sight.hidden().len();
            self.kept.push_back(sight.clone());
        }
        while self.kept.len() > KEPT || self.kept_stretches > KEPT_STRETCHES {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.kept_stretches -= oldest.hidden().len();
            let_go.push(oldest);
        }
        if self.lists.len() >= MOST {
            self.lists.retain(|_, sight| sight.upgrade().is_some());
        }
        if self.lists.len() < MOST {
            self.lists.insert(hiding, sight.downgrade());
        }
        let_go
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{Bundle, Connection, Context, Files, Manifest};
    use crate::decision::{Asker, BundlePolicy};
    use crate::model::BUNDLE_MODEL;
    use keygate_core::KeyRange;
    use std::sync::Arc;

    fn policy(rows: &str) -> BundlePolicy {
        let mut files = Files::default();
        for (path, text) in [("model.conf", BUNDLE_MODEL), ("policy.csv", rows), ("roles.csv", "")] {
            files.insert(path, text.as_bytes().to_vec());
        }
        let manifest = Manifest::of(&files, 1);
        files.insert("manifest.json", manifest.to_bytes());
        BundlePolicy::compile(Arc::new(Bundle::read(&files).unwrap()))
    }

    const ANN: Asker<'_> = Asker { tenant: "pay", user: "ann", groups: &[] };

    fn plain() -> Context {
        Context { connection: Some(Connection::Plain), ..Context::default() }
    }

    /// A thousand watches over ten thousand hidden keys kept a list each: 1.2 GB, and 6 s to make.
    #[test]
    fn who_leaves_out_the_same_shares_one_list() {
        let mut rows = "p, user:*, pay, *, read, allow\n".to_owned();
        rows.push_str("p, user:ann, pay, =/mtls, read, deny, connection=mtls;on_partial=filter\n");
        for number in 0..10_000 {
            rows.push_str(&format!("p, user:ann, pay, =/k/{number:05}, read, deny, on_partial=filter\n"));
        }
        let policy = policy(&rows);
        let sight = |context: &Context, start: String, end: String| {
            let range = KeyRange::Span { start: start.into(), end: end.into() };
            policy.rule_sight(&ANN, context, &range).sight
        };
        let first = sight(&plain(), "/".into(), "0".into());
        let all: Vec<Sight> =
            (0..1_000).map(|n| sight(&plain(), format!("/k/{n:05}!"), format!("/z{n}"))).collect();
        assert!(all.iter().all(|sight| sight.is_shared_with(&first)));
        assert_eq!(first.hidden().len(), 10_000);
        for (key, hidden) in [("/k/00000", true), ("/k/09999", true), ("/k/10000", false), ("/mtls", false)] {
            assert_eq!(first.hides(key.as_bytes()), hidden, "{key}");
        }
        // Contrast: where little is hidden, and under other conditions.
        let few = sight(&plain(), "/k/00000".into(), "/k/00060".into());
        assert!(!few.is_shared_with(&first));
        assert_eq!(few.hidden().len(), 60);
        let mtls = Context { connection: Some(Connection::Mtls), ..Context::default() };
        let other = sight(&mtls, "/".into(), "0".into());
        assert!(other.hides(b"/mtls") && other.hides(b"/k/00000") && !other.is_shared_with(&first));
    }

    #[test]
    fn what_nobody_has_is_forgotten() {
        let sights = Sights::default();
        let policy =
            policy("p, user:*, pay, *, read, allow\np, user:*, pay, =a, read, deny, on_partial=filter\n");
        let everything = KeyRange::From("a".into());
        let make = || policy.rule_sight(&ANN, &plain(), &everything).sight;
        let name = |number| Hiding::from_slice(&[(number, 0)]);
        let kept = sights.shared(name(0), make);
        for number in 1..5_000 {
            drop(sights.shared(name(number), make));
        }
        assert!(sights.0.lock().lists.len() <= MOST);
        assert!(sights.shared(name(0), || panic!("it is there")).is_shared_with(&kept));
    }

    #[test]
    fn a_read_finds_the_list_of_the_read_before_while_lists_are_few() {
        let mut rows = "p, user:*, pay, *, read, allow\n".to_owned();
        for number in 0..20_000 {
            rows.push_str(&format!("p, user:ann, pay, =/k/{number:05}, read, deny, on_partial=filter\n"));
        }
        let (policy, sights) = (self::policy(&rows), Sights::default());
        let everything = KeyRange::Span { start: "/".into(), end: "0".into() };
        let first = policy.rule_sight(&ANN, &plain(), &everything).sight;
        assert_eq!(first.hidden().len(), 20_000);
        let weak = first.downgrade();
        drop(first);
        assert!(weak.upgrade().is_some(), "the next read has to make it again");

        let name = |number| Hiding::from_slice(&[(number, 0)]);
        // Another list each time, as long as the first.
        let list = || self::policy(&rows).rule_sight(&ANN, &plain(), &everything).sight;
        let weak: Vec<WeakSight> =
            (0..10).map(|number| sights.shared(name(number), list).downgrade()).collect();
        let kept: Vec<bool> = weak.iter().map(|weak| weak.upgrade().is_some()).collect();
        assert_eq!(kept, [false, false, false, false, true, true, true, true, true, true]);
    }
}
