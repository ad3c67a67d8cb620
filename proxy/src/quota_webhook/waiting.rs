//! Documents that wait to be sent: in the order of what they tell, one for each quota, bounded.
//!
//! A newer document of a quota makes the older one pointless and takes its place at the end, so that one tenant that
//! goes back and forth over a threshold pushes nobody else's out.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use keygate_core::{QuotaKind, TenantName};
use tokio::time::Instant;

use crate::quota_watch::Crossing;

/// Documents; the oldest ones leave for those that come. Some 400 KiB.
pub(super) const MOST: usize = 1024;

/// The quota that a document is about.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    tenant: Option<TenantName>,
    prefix: Bytes,
    kind: QuotaKind,
}

#[derive(Clone)]
pub(super) struct Document {
    pub(super) since: Instant,
    pub(super) body: Bytes,
}

/// What became of the others when one came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Others {
    Stay,
    /// One that nothing newer stands for.
    OneLeft,
}

/// `order` and `at` hold the same places.
#[derive(Default)]
pub(super) struct Waiting {
    order: BTreeMap<u64, (Place, Document)>,
    at: HashMap<Place, u64>,
    next: u64,
}

impl From<&Crossing> for Place {
    fn from(crossing: &Crossing) -> Self {
        Self { tenant: crossing.tenant.clone(), prefix: crossing.prefix.clone(), kind: crossing.kind }
    }
}

impl Waiting {
    #[must_use]
    pub(super) fn push(&mut self, place: Place, document: Document) -> Others {
        let number = self.next;
        self.next += 1;
        if let Some(older) = self.at.insert(place.clone(), number) {
            self.order.remove(&older);
        }
        self.order.insert(number, (place, document));
        if self.order.len() <= MOST {
            return Others::Stay;
        }
        drop(self.pop());
        Others::OneLeft
    }

    pub(super) fn pop(&mut self) -> Option<Document> {
        let (_, (place, document)) = self.order.pop_first()?;
        self.at.remove(&place);
        Some(document)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(waiting: &mut Waiting, tenant: &str, kind: QuotaKind, text: String) -> Others {
        let place = Place { tenant: TenantName::parse(tenant), prefix: "jobs/".into(), kind };
        waiting.push(place, Document { since: Instant::now(), body: text.into() })
    }

    fn all(waiting: &mut Waiting) -> Vec<Bytes> {
        let bodies = std::iter::from_fn(|| waiting.pop()).map(|document| document.body).collect();
        assert!(waiting.at.is_empty());
        bodies
    }

    #[test]
    fn who_goes_back_and_forth_pushes_nobody_out() {
        let mut waiting = Waiting::default();
        assert_eq!(push(&mut waiting, "quiet", QuotaKind::Keys, "quiet".to_owned()), Others::Stay);
        for n in 0..2 * MOST {
            assert_eq!(push(&mut waiting, "busy", QuotaKind::Keys, format!("{n}")), Others::Stay);
        }
        assert_eq!(push(&mut waiting, "busy", QuotaKind::Bytes, "bytes".to_owned()), Others::Stay);
        assert_eq!(all(&mut waiting), ["quiet".into(), format!("{}", 2 * MOST - 1), "bytes".into()]);
    }

    #[test]
    fn a_newer_one_stands_behind_what_came_before_it() {
        let mut waiting = Waiting::default();
        for (tenant, text) in [("a", "a-1"), ("b", "b-1"), ("a", "a-2")] {
            assert_eq!(push(&mut waiting, tenant, QuotaKind::Keys, text.to_owned()), Others::Stay);
        }
        assert_eq!(all(&mut waiting), ["b-1", "a-2"]);
    }

    #[test]
    fn the_oldest_leave_when_too_many_quotas_wait() {
        let mut waiting = Waiting::default();
        for n in 0..MOST {
            assert_eq!(push(&mut waiting, &format!("t{n}"), QuotaKind::Keys, format!("{n}")), Others::Stay);
        }
        assert_eq!(push(&mut waiting, "t1", QuotaKind::Keys, "newer".to_owned()), Others::Stay);
        assert_eq!(push(&mut waiting, "more", QuotaKind::Keys, "more".to_owned()), Others::OneLeft);
        let all = all(&mut waiting);
        assert_eq!((all.len(), &all[0][..], &all[MOST - 2][..]), (MOST, &b"2"[..], &b"newer"[..]));
    }
}
