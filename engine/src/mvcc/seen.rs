//! The walk over the index that a reader's sight allows.
//!
//! Hidden keys are not visited one by one: at the first of a stretch the walk goes on behind it. So it costs what is
//! visible, and one step more for each stretch that has keys.

use super::entry::EntryRef;
use super::key::Key;
use super::keyspace::Keyspace;
use imbl::ordmap::RangedIter;
use imbl::shared_ptr::DefaultSharedPtr;
use keygate_core::{KeyRange, Sight, Stretch};
use std::ops::Bound;

type Entries<'k> = RangedIter<'k, Key, EntryRef, DefaultSharedPtr>;

pub(super) enum Step<'k> {
    Seen(&'k Key, &'k EntryRef),
    /// Over a stretch of hidden keys. Walks that count what they cost count it.
    Jump,
}

pub(super) struct Seen<'k, 'r> {
    keyspace: &'k Keyspace,
    range: &'r KeyRange,
    entries: Option<Entries<'k>>,
    /// Those that are not behind the walk.
    hidden: &'r [Stretch],
}

impl Keyspace {
    /// Index entries of `range` that `sight` does not hide, ascending; deleted ones too.
    pub(super) fn seen<'k, 'r>(&'k self, range: &'r KeyRange, sight: &'r Sight) -> Seen<'k, 'r> {
        let start = Bound::Included(range.start().as_ref());
        let entries = (!range.is_empty()).then(|| self.index.range::<_, [u8]>((start, end_of(range))));
        // A range in pieces begins far behind most of them.
        let hidden = sight.hidden();
        let first = hidden.partition_point(|stretch| stretch.is_before(range.start()));
        Seen { keyspace: self, range, entries, hidden: &hidden[first..] }
    }
}

fn end_of(range: &KeyRange) -> Bound<&[u8]> {
    match range {
        KeyRange::Single(key) => Bound::Included(key),
        KeyRange::Span { end, .. } => Bound::Excluded(end),
        KeyRange::From(_) => Bound::Unbounded,
    }
}

impl Seen<'_, '_> {
    /// Goes on at `key`, which lies behind the walk.
    fn go_on_at(&mut self, key: Option<&[u8]>) {
        // Bounds that are the wrong way round are none.
        self.entries = key
            .filter(|key| self.range.contains(key))
            .map(|key| self.keyspace.index.range::<_, [u8]>((Bound::Included(key), end_of(self.range))));
    }
}

impl<'k> Iterator for Seen<'k, '_> {
    type Item = Step<'k>;

    fn next(&mut self) -> Option<Step<'k>> {
        let (key, entry) = self.entries.as_mut()?.next()?;
        while let [first, rest @ ..] = self.hidden {
            if first.is_before(key) {
                self.hidden = rest;
            } else if first.start().as_ref() <= key.as_ref() {
                self.hidden = rest;
                self.go_on_at(first.end().map(AsRef::as_ref));
                return Some(Step::Jump);
            } else {
                break;
            }
        }
        Some(Step::Seen(key, entry))
    }
}
