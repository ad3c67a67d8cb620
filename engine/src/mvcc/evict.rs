//! Keeps memory within its budget: current values that the store holds too are dropped, those not read lately first.

use super::entry::Entry;
use super::key::Key;
use super::keyspace::Keyspace;
use super::state::State;
use keygate_core::KeyspaceId;
use std::ops::Bound;
use std::sync::Arc;

/// Where the clock's hand stands.
#[derive(Clone, Default, Debug)]
pub(super) struct Hand {
    keyspace: Option<KeyspaceId>,
    after: Option<Key>,
}

impl State {
    /// Drops values until `memory_used() <= budget_bytes` or the hand has passed `max_steps` keys. Answers how many.
    pub fn evict(&mut self, budget_bytes: u64, max_steps: usize) -> usize {
        let mut used = self.memory_used();
        let mut steps = max_steps;
        let mut evicted = 0;
        // Twice round: the first pass may only take the marks off.
        let mut rounds = 2 * self.keyspaces.len() + 1;
        while used > budget_bytes && steps > 0 && rounds > 0 {
            let Some(id) = self.hand_keyspace() else { break };
            let Some(slot) = self.keyspaces.get_mut(&id) else { break };
            if slot.count.held_bytes == 0 {
                self.hand = Hand { keyspace: Some(id), after: None };
                self.next_keyspace();
                rounds -= 1;
                continue;
            }
            let (keys, last, looked) = slot.evictable(self.hand.after.as_ref(), used - budget_bytes, steps);
            steps -= looked.min(steps);
            if !keys.is_empty() {
                let keyspace = Arc::make_mut(slot);
                for key in &keys {
                    used = used.saturating_sub(keyspace.drop_value(key));
                }
                evicted += keys.len();
            }
            self.hand = Hand { keyspace: Some(id), after: last };
            if self.hand.after.is_none() {
                self.next_keyspace();
                rounds -= 1;
            }
        }
        evicted
    }

    fn hand_keyspace(&self) -> Option<KeyspaceId> {
        let at = self.hand.keyspace.unwrap_or(KeyspaceId(0));
        let next =
            self.keyspaces.range(at..).next().or_else(|| self.keyspaces.get_min().map(|(id, k)| (id, k)));
        next.map(|(id, _)| *id)
    }

    fn next_keyspace(&mut self) {
        self.hand.keyspace = self.hand.keyspace.map(|id| KeyspaceId(id.0.wrapping_add(1)));
    }
}

impl Keyspace {
    /// Keys after `after` whose values can go, enough for `excess` bytes; the last key passed (None at the end); how
    /// many were passed.
    fn evictable(
        &self,
        after: Option<&Key>,
        excess: u64,
        max_steps: usize,
    ) -> (Vec<Key>, Option<Key>, usize) {
        let start = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_ref()));
        let (mut keys, mut freed, mut looked) = (Vec::new(), 0, 0);
        for (key, entry) in self.index.range::<_, [u8]>((start, Bound::<&[u8]>::Unbounded)) {
            looked += 1;
            let bytes = entry.bytes_in_memory();
            // What is not in the store yet must stay.
            if bytes > 0 && entry.current().main <= self.flushed && !entry.untouch() {
                keys.push(key.clone());
                freed += bytes;
            }
            if looked == max_steps || freed >= excess {
                return (keys, Some(key.clone()), looked);
            }
        }
        (keys, None, looked)
    }

    /// Answers how many bytes that freed.
    fn drop_value(&mut self, key: &Key) -> u64 {
        let Some(slot) = self.index.get_mut::<[u8]>(key) else { return 0 };
        let bytes = Entry::evict(slot);
        self.count.held_bytes -= bytes;
        bytes
    }
}
