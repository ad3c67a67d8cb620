//! Which keys of a read its answer may tell of.
//!
//! A policy can answer a read as if some keys were not there. Which ones they are travels in the permit, and the engine
//! is given it with every read of keys. An ordinary read sees all of its range, and pays for this the size of a pointer.

use crate::range::KeyRange;
use bytes::Bytes;
use std::fmt;
use std::sync::{Arc, Weak};

/// Everything, or everything but some stretches of keys.
///
/// Who names [`Sight::WHOLE`] says that every key of what is read was decided.
#[derive(Clone, PartialEq, Eq)]
pub struct Sight(Option<Arc<Hidden>>);

/// A [`Sight`] for as long as somebody else has it. Of everything it is none.
#[derive(Clone, Default)]
pub struct WeakSight(Weak<Hidden>);

/// Ascending, and keys lie between any two.
#[derive(PartialEq, Eq)]
struct Hidden(Box<[Stretch]>);

/// Hidden keys without a visible one between them: `[start, end)`. Never empty.
#[derive(Clone, PartialEq, Eq)]
pub struct Stretch {
    start: Bytes,
    /// None: no end.
    end: Option<Bytes>,
}

impl Sight {
    pub const WHOLE: Self = Self(None);

    /// All keys but those of `ranges`, which may overlap and come in any order.
    pub fn without(ranges: impl IntoIterator<Item = KeyRange>) -> Self {
        let mut found: Vec<Stretch> = ranges.into_iter().filter_map(Stretch::of).collect();
        found.sort_by(|a, b| a.start.cmp(&b.start));
        let mut apart: Vec<Stretch> = Vec::with_capacity(found.len());
        for next in found {
            match apart.last_mut() {
                Some(last) if last.reaches(&next.start) => last.extend(next.end),
                Some(_) | None => apart.push(next),
            }
        }
        if apart.is_empty() { Self::WHOLE } else { Self(Some(Arc::new(Hidden(apart.into())))) }
    }

    pub fn is_whole(&self) -> bool {
        self.0.is_none()
    }

    pub fn downgrade(&self) -> WeakSight {
        WeakSight(self.0.as_ref().map(Arc::downgrade).unwrap_or_default())
    }

    /// Is it not only equal, but one and the same list in memory?
    pub fn is_shared_with(&self, other: &Self) -> bool {
        matches!((&self.0, &other.0), (Some(own), Some(other)) if Arc::ptr_eq(own, other))
    }

    /// What is hidden, ascending.
    pub fn hidden(&self) -> &[Stretch] {
        self.0.as_ref().map_or(&[], |hidden| &hidden.0)
    }

    pub fn hides(&self, key: &[u8]) -> bool {
        let hidden = self.hidden();
        let behind = hidden.partition_point(|stretch| stretch.start.as_ref() <= key);
        behind.checked_sub(1).and_then(|at| hidden.get(at)).is_some_and(|stretch| !stretch.is_before(key))
    }
}

impl WeakSight {
    /// None: nobody has it any more.
    pub fn upgrade(&self) -> Option<Sight> {
        self.0.upgrade().map(|hidden| Sight(Some(hidden)))
    }
}

impl Stretch {
    /// None: no key is in it.
    fn of(range: KeyRange) -> Option<Self> {
        match range {
            KeyRange::Single(key) => {
                let end = Bytes::from([key.as_ref(), b"\0"].concat());
                Some(Self { start: key, end: Some(end) })
            }
            KeyRange::Span { start, end } => (start < end).then_some(Self { start, end: Some(end) }),
            KeyRange::From(start) => Some(Self { start, end: None }),
        }
    }

    pub fn start(&self) -> &Bytes {
        &self.start
    }

    /// The first key behind it. None: it has no end.
    pub fn end(&self) -> Option<&Bytes> {
        self.end.as_ref()
    }

    /// Are all of its keys less than `key`?
    pub fn is_before(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_some_and(|end| end.as_ref() <= key)
    }

    /// Does it hold, or touch, what begins at `key`, which is not less than its own start?
    fn reaches(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_none_or(|end| key <= end.as_ref())
    }

    fn extend(&mut self, other: Option<Bytes>) {
        self.end = match (self.end.take(), other) {
            (Some(own), Some(other)) => Some(own.max(other)),
            (None, _) | (_, None) => None,
        };
    }
}

impl fmt::Debug for Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[`{}`, ", self.start.escape_ascii())?;
        match &self.end {
            Some(end) => write!(f, "`{}`)", end.escape_ascii()),
            None => f.write_str("end)"),
        }
    }
}

impl fmt::Debug for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("all"),
            Some(hidden) => write!(f, "all but {:?}", hidden.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: &'static str, end: &'static str) -> KeyRange {
        KeyRange::Span { start: start.into(), end: end.into() }
    }

    #[test]
    fn stretches_are_apart_and_in_order_however_they_came() {
        for (ranges, expected) in [
            (vec![], "all"),
            (vec![span("b", "a"), span("a", "a")], "all"),
            (vec![span("c", "d"), span("a", "b")], "all but [[`a`, `b`), [`c`, `d`)]"),
            (vec![span("b", "c"), span("a", "b")], "all but [[`a`, `c`)]"),
            (vec![span("a", "z"), span("b", "c")], "all but [[`a`, `z`)]"),
            (
                vec![KeyRange::Single("a".into()), KeyRange::Single("b".into())],
                "all but [[`a`, `a\\x00`), [`b`, `b\\x00`)]",
            ),
            (vec![KeyRange::From("c".into()), span("a", "d"), span("x", "y")], "all but [[`a`, end)]"),
        ] {
            assert_eq!(format!("{:?}", Sight::without(ranges)), expected);
        }
    }

    #[test]
    fn a_key_is_hidden_from_the_start_of_a_stretch_up_to_its_end() {
        let sight =
            Sight::without([span("b", "d"), KeyRange::Single("f".into()), KeyRange::From("x".into())]);
        let hidden: Vec<&str> = ["a", "b", "c\0", "cz", "d", "f", "f\0", "w", "x", "zz"]
            .into_iter()
            .filter(|key| sight.hides(key.as_bytes()))
            .collect();
        assert_eq!(hidden, ["b", "c\0", "cz", "f", "x", "zz"]);
        assert!(!Sight::WHOLE.hides(b"a"));
    }

    #[test]
    fn a_list_lasts_as_long_as_somebody_has_it() {
        let sight = Sight::without([span("b", "d")]);
        let kept = sight.downgrade();
        assert!(kept.upgrade().is_some_and(|again| again == sight && again.is_shared_with(&sight)));
        assert!(!sight.is_shared_with(&Sight::without([span("b", "d")])), "contrast: an equal one");
        drop(sight);
        assert!(kept.upgrade().is_none() && Sight::WHOLE.downgrade().upgrade().is_none());
    }

    #[test]
    fn an_ordinary_permit_pays_one_pointer() {
        assert_eq!(size_of::<Sight>(), size_of::<usize>());
    }
}
