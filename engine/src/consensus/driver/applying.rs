//! From committed log entries to a new state, and to answers that wait for it to be seen.
//!
//! Promise: entries are applied once each, in the order of the log, whoever proposed them.

use super::Driver;
use crate::apply_times::kind_of;
use crate::consensus::patient_rows::PatientRows;
use crate::mvcc::{ApplyError, Command, LeaseEffect, RowError, StoredEvent};
use crate::port::{Answered, PortId};
use crate::storage::{Applied, StorageError};
use keygate_core::{Operation, Reply};
use raft::eraftpb::Entry;
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;

impl Driver {
    pub(super) fn apply(
        &mut self,
        entries: Vec<Entry>,
        events: &mut Vec<StoredEvent>,
    ) -> Result<(), StorageError> {
        if entries.is_empty() {
            return Ok(());
        }
        let rows = PatientRows::new(self.seams.store.clone(), self.seams.room.clone(), self.serving);
        let mut before = self.seams.clock.now();
        for entry in entries {
            if entry.index <= self.applied.index {
                // The store had it before the last stop.
                continue;
            }
            self.applied = Applied { index: entry.index, term: entry.term };
            let (command, from) = self.command_of(&entry)?;
            let Some(command) = command else { continue };
            let kind = kind_of(&command.operation);
            let expiring = match &command.operation {
                Operation::LeaseExpire(leases) => Some((command.keyspace, leases.clone())),
                _ => None,
            };
            let applied = self.state.apply(command, &rows, self.seams.compile.as_ref(), &mut self.effects);
            let applied = applied.map_err(|error| self.cannot_apply(entry.index, error))?;
            // One look at the clock for each command: where one ends the next begins.
            let now = self.seams.clock.now();
            let took = now.saturating_duration_since(std::mem::replace(&mut before, now));
            self.seams.counters.apply.record(kind, applied.outcome.is_ok(), took);
            if let (Some((keyspace, leases)), Err(_)) = (expiring, &applied.outcome) {
                // An alarm forbids it. They are proposed again until it no longer does.
                self.seams.leases.release(keyspace, &leases);
            }
            self.follow_leases();
            self.pruning |= !self.effects.compactions.is_empty() || !self.effects.ended.is_empty();
            self.effects.compactions.clear();
            for keyspace in &self.effects.ended {
                self.seams.leases.forget_all(*keyspace);
            }
            if let Some((port, asker)) = from {
                let term = self.node.raft.term;
                let answer = applied.outcome.map(|answer| Reply { revision: applied.revision, term, answer });
                self.outgoing[port.0].push((asker, answer));
            }
        }
        events.append(&mut self.effects.events);
        Ok(())
    }

    fn cannot_apply(&mut self, index: u64, error: ApplyError) -> StorageError {
        self.half_applied = true;
        // Whoever stops an engine that waits for its disk did not find damage.
        self.asked_to_stop |=
            matches!(error, ApplyError::Row(RowError::Unavailable(_))) && self.seams.room.is_stopping();
        StorageError::Fatal {
            path: self.seams.options.data_dir.clone(),
            what: format!("log entry {index} cannot be applied: {error}"),
        }
    }

    /// The command of an entry: the one that was proposed here, or the log's bytes decoded.
    #[expect(clippy::type_complexity, reason = "the pair is taken apart at once")]
    fn command_of(
        &mut self,
        entry: &Entry,
    ) -> Result<(Option<Command>, Option<(PortId, oneshot::Sender<Answered>)>), StorageError> {
        while let Some(pending) = self.pending.front() {
            if pending.index > entry.index {
                break;
            }
            let Some(pending) = self.pending.pop_front() else { break };
            if pending.index == entry.index && pending.term == entry.term {
                return Ok((Some(pending.command), pending.from));
            }
            // Another leader's entry took its place; dropping `from` tells the asker.
        }
        if entry.data.is_empty() {
            return Ok((None, None));
        }
        let command = Command::decode(&entry.data).map_err(|error| StorageError::Fatal {
            path: self.seams.options.data_dir.clone(),
            what: format!("log entry {} cannot be read: {error}", entry.index),
        })?;
        Ok((Some(command), None))
    }

    fn follow_leases(&mut self) {
        let counters = &self.seams.counters;
        for effect in self.effects.leases.drain(..) {
            match effect {
                LeaseEffect::Granted { keyspace, id, ttl } => {
                    counters.leases_granted.fetch_add(1, Ordering::Relaxed);
                    self.seams.leases.start(keyspace, id, ttl, ttl);
                }
                LeaseEffect::Revoked { keyspace, id } => {
                    counters.leases_revoked.fetch_add(1, Ordering::Relaxed);
                    self.seams.leases.forget(keyspace, id);
                }
                LeaseEffect::Checkpointed { .. } => {}
            }
        }
    }
}
