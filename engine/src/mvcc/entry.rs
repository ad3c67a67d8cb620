//! All that memory knows of one key: its current version with the value, and where its older versions are.
//!
//! There is one [`Entry`] for each key, so its size is what a million keys cost: a test holds it small.

use super::revision::Revision;
use super::value::Kept;
use bytes::Bytes;
use keygate_core::{LeaseId, Sealed, SealedForm};
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};

/// One version of a key without its value. `version` 0 is a tombstone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Version {
    pub(super) create: i64,
    pub(super) main: i64,
    pub(super) version: i64,
    pub(super) sub: u32,
    /// Bytes of its value, in the room that alignment leaves.
    pub(super) length: u32,
}

impl Version {
    pub(super) fn revision(&self) -> Revision {
        Revision { main: self.main, sub: self.sub }
    }

    pub(super) fn is_tombstone(&self) -> bool {
        self.version == 0
    }
}

/// A value that an entry is given.
#[derive(Debug)]
pub(super) enum Held {
    Here(Kept),
    /// Only in the store; its length.
    Stored(u32),
    /// The key is deleted.
    Nothing,
}

/// Where an entry's value is. As long as a slice alone.
#[derive(Clone, Debug)]
enum Place {
    Memory(Box<[u8]>),
    /// In the store only, or nowhere if the key is deleted; its length.
    Store(usize),
}

impl Place {
    fn of(held: Held) -> (Self, Option<SealedForm>) {
        match held {
            Held::Here(kept) => {
                let (form, bytes) = kept.into_parts();
                (Self::Memory(bytes), Some(form))
            }
            Held::Stored(length) => (Self::Store(length as usize), None),
            Held::Nothing => (Self::Store(0), None),
        }
    }
}

/// What [`Entry::supersede`] took out of memory.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Replaced {
    pub(super) version: Version,
    pub(super) lease: LeaseId,
    /// None if only the store has it, and of a deleted key.
    pub(super) value: Option<Sealed>,
    pub(super) value_len: u64,
}

impl Replaced {
    /// How many bytes memory held.
    pub(super) fn held_bytes(&self) -> u64 {
        self.value.as_ref().map_or(0, |value| value.len() as u64)
    }
}

/// Lends the value of an entry, which stays alive with it.
struct Lent(EntryRef);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        match &self.0.place {
            Place::Memory(bytes) => bytes,
            Place::Store(_) => &[],
        }
    }
}

/// How the index holds an entry: snapshots share it. Nobody asks for weak references, so there is no count of them.
pub(super) type EntryRef = triomphe::Arc<Entry>;

#[derive(Debug)]
pub(super) struct Entry {
    create: i64,
    main: i64,
    version: i64,
    place: Place,
    /// What most keys do not have: a lease, older versions.
    more: Option<Box<More>>,
    sub: u32,
    /// Of the value, if memory has it.
    form: Option<SealedForm>,
    /// Read since the eviction's hand last passed. Not part of the state that members share.
    touched: AtomicBool,
}

#[derive(Clone, Debug)]
struct More {
    lease: LeaseId,
    past: Past,
}

/// Older versions, ascending. Most keys have few, and a hot one may have 100,000: appending to it must not copy them
/// though a snapshot shares them.
#[derive(Clone, Debug)]
enum Past {
    Few(Vec<Version>),
    Many(imbl::Vector<Version>),
}

const FEW: usize = 24;

impl Clone for Entry {
    fn clone(&self) -> Self {
        Self {
            create: self.create,
            main: self.main,
            version: self.version,
            sub: self.sub,
            place: self.place.clone(),
            more: self.more.clone(),
            form: self.form,
            touched: AtomicBool::new(self.touched.load(Ordering::Relaxed)),
        }
    }
}

impl Entry {
    pub(super) fn new(version: Version, lease: LeaseId, held: Held) -> Self {
        let more = (lease != LeaseId::NONE).then(|| Box::new(More { lease, past: Past::Few(Vec::new()) }));
        let (place, form) = Place::of(held);
        Self {
            create: version.create,
            main: version.main,
            version: version.version,
            sub: version.sub,
            place,
            more,
            form,
            touched: AtomicBool::new(true),
        }
    }

    pub(super) fn current(&self) -> Version {
        let length = u32::try_from(self.value_len()).unwrap_or(u32::MAX);
        Version { create: self.create, main: self.main, version: self.version, sub: self.sub, length }
    }

    pub(super) fn is_live(&self) -> bool {
        self.version != 0
    }

    pub(super) fn lease(&self) -> LeaseId {
        self.more.as_ref().map_or(LeaseId::NONE, |more| more.lease)
    }

    /// The version that a reader of revision `main` sees: none before the key's creation and after its deletion.
    pub(super) fn at(&self, main: i64) -> Option<Version> {
        let version = if self.main <= main { self.current() } else { self.last_past(|v| v.main <= main)? };
        (!version.is_tombstone()).then_some(version)
    }

    /// The version right before the one that was written at `revision`, tombstones included.
    pub(super) fn before(&self, revision: Revision) -> Option<Version> {
        let current = self.current();
        if current.revision() < revision {
            return Some(current);
        }
        self.last_past(|v| v.revision() < revision)
    }

    pub(super) fn past_len(&self) -> usize {
        self.more.as_ref().map_or(0, |more| more.past.len())
    }

    /// Length of the current value, wherever it is.
    pub(super) fn value_len(&self) -> u64 {
        match &self.place {
            Place::Memory(bytes) => bytes.len() as u64,
            Place::Store(length) => *length as u64,
        }
    }

    /// How many bytes of the value memory holds.
    pub(super) fn bytes_in_memory(&self) -> u64 {
        match &self.place {
            Place::Memory(bytes) => bytes.len() as u64,
            Place::Store(_) => 0,
        }
    }

    /// The current value, if memory holds it, without a copy.
    pub(super) fn value(slot: &EntryRef) -> Option<Sealed> {
        let form = slot.form?;
        Some(Sealed::recovered(form, Bytes::from_owner(Lent(slot.clone()))))
    }

    /// Leaves the value to the store, which must have it. Answers how many bytes that frees.
    pub(super) fn evict(slot: &mut EntryRef) -> u64 {
        let bytes = slot.bytes_in_memory();
        let Ok(length) = u32::try_from(bytes) else { return 0 };
        if bytes == 0 {
            return 0;
        }
        if let Some(entry) = EntryRef::get_mut(slot) {
            (entry.place, entry.form) = Place::of(Held::Stored(length));
        } else {
            let mut entry = Self::new(slot.current(), slot.lease(), Held::Stored(length));
            entry.more = slot.more.clone();
            *slot = EntryRef::new(entry);
        }
        bytes
    }

    /// Makes `next` the current version. Answers what was current.
    pub(super) fn supersede(slot: &mut EntryRef, next: Version, lease: LeaseId, held: Held) -> Replaced {
        let (version, old_lease, value_len) = (slot.current(), slot.lease(), slot.value_len());
        let value = if let Some(entry) = EntryRef::get_mut(slot) {
            entry.more_mut(lease).past.push(version);
            (entry.create, entry.main, entry.version, entry.sub) =
                (next.create, next.main, next.version, next.sub);
            *entry.touched.get_mut() = true;
            let (place, form) = Place::of(held);
            let old_form = mem::replace(&mut entry.form, form);
            match (mem::replace(&mut entry.place, place), old_form) {
                (Place::Memory(bytes), Some(form)) => Some(Sealed::recovered(form, bytes.into())),
                (Place::Memory(_) | Place::Store(_), _) => None,
            }
        } else {
            // A snapshot or a row that is not flushed shares the entry: they keep the old one, with the old value.
            let mut entry = Self::new(next, lease, held);
            entry.more = slot.more.clone();
            entry.more_mut(lease).past.push(version);
            Self::value(&mem::replace(slot, EntryRef::new(entry)))
        };
        Replaced { version, lease: old_lease, value, value_len }
    }

    fn more_mut(&mut self, lease: LeaseId) -> &mut More {
        let more = self.more.get_or_insert_with(|| Box::new(More { lease, past: Past::Few(Vec::new()) }));
        more.lease = lease;
        more
    }

    fn last_past(&self, holds: impl Fn(&Version) -> bool) -> Option<Version> {
        let past = &self.more.as_ref()?.past;
        past.get(past.partition(holds).checked_sub(1)?)
    }

    /// Drops versions that no reader of `main` or later can see, and tells their revisions.
    /// Answers true when the whole key is gone. A second call does nothing.
    pub(super) fn compact(slot: &mut EntryRef, main: i64, dropped: &mut dyn FnMut(Revision)) -> bool {
        let current = slot.current();
        if current.main <= main {
            let gone = current.is_tombstone();
            if slot.past_len() > 0 {
                let more = EntryRef::make_mut(slot).more.take();
                if let Some(more) = more {
                    more.past.each(&mut |v| dropped(v.revision()));
                    if more.lease != LeaseId::NONE {
                        EntryRef::make_mut(slot).more_mut(more.lease);
                    }
                }
            }
            if gone {
                dropped(current.revision());
            }
            return gone;
        }
        let Some(more) = &slot.more else { return false };
        let seen = more.past.partition(|v| v.main <= main);
        // The last of them is what a reader of `main` sees, unless that is a deletion.
        let keep =
            seen.checked_sub(1).and_then(|last| more.past.get(last)).is_some_and(|v| !v.is_tombstone());
        let drop = if keep { seen - 1 } else { seen };
        if drop > 0
            && let Some(more) = &mut EntryRef::make_mut(slot).more
        {
            more.past.drop_front(drop, dropped);
            if more.past.len() == 0 && more.lease == LeaseId::NONE {
                EntryRef::make_mut(slot).more = None;
            }
        }
        false
    }

    /// Where all versions that are known stand.
    pub(super) fn each_revision(&self, visit: &mut dyn FnMut(Revision)) {
        if let Some(more) = &self.more {
            more.past.each(&mut |version| visit(version.revision()));
        }
        visit(self.current().revision());
    }

    /// All versions that are known, ascending.
    pub(super) fn each_version(&self, visit: &mut dyn FnMut(Version)) {
        if let Some(more) = &self.more {
            more.past.each(visit);
        }
        visit(self.current());
    }

    /// Would [`Self::compact`] drop anything?
    pub(super) fn has_superseded(&self, main: i64) -> bool {
        if self.main <= main {
            return self.version == 0 || self.past_len() > 0;
        }
        self.more.as_ref().is_some_and(|more| more.past.get(0).is_some_and(|first| first.main <= main))
    }

    pub(super) fn touch(&self) {
        // Loading first keeps the cache line shared among readers.
        if !self.touched.load(Ordering::Relaxed) {
            self.touched.store(true, Ordering::Relaxed);
        }
    }

    /// Answers whether it was touched, and forgets it.
    pub(super) fn untouch(&self) -> bool {
        self.touched.load(Ordering::Relaxed) && self.touched.swap(false, Ordering::Relaxed)
    }
}

impl Past {
    fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
        }
    }

    fn get(&self, at: usize) -> Option<Version> {
        match self {
            Self::Few(few) => few.get(at).copied(),
            Self::Many(many) => many.get(at).copied(),
        }
    }

    /// How many of the first versions satisfy `holds`, which must be monotonous.
    fn partition(&self, holds: impl Fn(&Version) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.get(middle) {
                Some(version) if holds(&version) => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }

    fn push(&mut self, version: Version) {
        match self {
            Self::Few(few) if few.len() >= FEW => {
                let mut many: imbl::Vector<Version> = few.iter().copied().collect();
                many.push_back(version);
                *self = Self::Many(many);
            }
            Self::Few(few) => {
                // Most keys that have a past have a short one: grow without spare room at first.
                if few.len() < 4 {
                    few.reserve_exact(1);
                }
                few.push(version);
            }
            Self::Many(many) => many.push_back(version),
        }
    }

    fn each(&self, visit: &mut dyn FnMut(Version)) {
        match self {
            Self::Few(few) => few.iter().for_each(|version| visit(*version)),
            Self::Many(many) => many.iter().for_each(|version| visit(*version)),
        }
    }

    fn drop_front(&mut self, count: usize, dropped: &mut dyn FnMut(Revision)) {
        match self {
            Self::Few(few) => few.drain(..count).for_each(|version| dropped(version.revision())),
            Self::Many(many) => {
                let rest = many.split_off(count);
                many.iter().for_each(|version| dropped(version.revision()));
                *self =
                    if rest.len() < FEW { Self::Few(rest.into_iter().collect()) } else { Self::Many(rest) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use keygate_core::Plaintext;

    fn version(main: i64) -> Version {
        Version { create: 2, main, version: main - 1, sub: 0, length: 1 }
    }

    fn sealed() -> Sealed {
        Sealed::stored_in_clear(Plaintext::new(Bytes::from_static(b"v")))
    }

    fn value() -> Held {
        Held::Here(Kept::from(&sealed()))
    }

    #[test]
    fn an_entry_stays_small() {
        println!(
            "entry {} bytes, place {}, version {}",
            size_of::<Entry>(),
            size_of::<Place>(),
            size_of::<Version>()
        );
        // With its count it is 64: a size that allocators have.
        assert!(size_of::<Entry>() <= 56, "a million keys pay for each byte");
        assert_eq!(size_of::<Version>(), 32);
    }

    #[test]
    fn a_shared_entry_keeps_what_its_snapshot_saw() {
        let mut slot = EntryRef::new(Entry::new(version(2), LeaseId::NONE, value()));
        let snapshot = slot.clone();
        let old = Entry::supersede(&mut slot, version(5), LeaseId(7), Held::Stored(9));
        assert_eq!((old.value, old.value_len, old.lease), (Some(sealed()), 1, LeaseId::NONE));
        assert_eq!((slot.lease(), slot.value_len()), (LeaseId(7), 9));
        assert_eq!(
            (snapshot.current(), snapshot.lease(), snapshot.past_len()),
            (version(2), LeaseId::NONE, 0)
        );
        let newest = Version { length: 9, ..version(5) };
        assert_eq!((slot.at(1), slot.at(4), slot.at(5)), (None, Some(version(2)), Some(newest)));
    }

    #[test]
    fn a_value_that_was_read_outlives_its_entry() {
        let mut slot = EntryRef::new(Entry::new(version(2), LeaseId::NONE, value()));
        let read = Entry::value(&slot).unwrap();
        let old = Entry::supersede(&mut slot, version(3), LeaseId::NONE, Held::Nothing);
        assert_eq!(Entry::value(&slot), None);
        drop(slot);
        assert_eq!((read, old.value), (sealed(), Some(sealed())));
    }

    #[test]
    fn history_is_found_and_compacted_whatever_its_length() {
        for length in [1, 2, FEW as i64 - 1, FEW as i64, FEW as i64 + 1, 1000] {
            let mut slot = EntryRef::new(Entry::new(version(2), LeaseId(3), value()));
            for main in 1..length {
                Entry::supersede(&mut slot, version(2 + 2 * main), LeaseId(3), value());
            }
            for main in 2..2 + 2 * length {
                assert_eq!(slot.at(main), Some(version(main / 2 * 2)), "length {length}, revision {main}");
            }
            assert_eq!(slot.before(Revision { main: 2, sub: 0 }), None);
            let keep = length / 2 * 2;
            let mut dropped = Vec::new();
            assert!(!Entry::compact(&mut slot, keep + 1, &mut |revision| dropped.push(revision.main)));
            assert_eq!(dropped, (2..keep).step_by(2).collect::<Vec<_>>(), "length {length}");
            assert_eq!((slot.at(keep), slot.lease()), (Some(version(keep)).filter(|_| keep > 0), LeaseId(3)));
            assert!(!Entry::compact(&mut slot, keep + 1, &mut |_| panic!(
                "a second compaction does nothing"
            )));
        }
    }

    #[test]
    fn a_deletion_behind_the_horizon_takes_the_key_with_it() {
        let gone = Version { create: 0, main: 6, version: 0, sub: 0, length: 0 };
        let mut slot = EntryRef::new(Entry::new(version(2), LeaseId::NONE, value()));
        Entry::supersede(&mut slot, gone, LeaseId::NONE, Held::Nothing);
        assert_eq!((slot.at(5), slot.at(6)), (Some(version(2)), None));
        let mut dropped = Vec::new();
        assert!(!Entry::compact(&mut slot, 5, &mut |_| panic!("revision 5 still sees the key")));
        assert!(Entry::compact(&mut slot, 6, &mut |revision| dropped.push(revision.main)));
        assert_eq!(dropped, [2, 6]);
    }
}
