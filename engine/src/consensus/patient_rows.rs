//! Rows for the thread that applies. It can neither go on without a row nor give up for a disk that does not answer:
//! an entry of the log is applied whole or the process ends.
//!
//! Promise: a row that cannot be read for the moment is waited for, and writers are refused meanwhile; damage is told at
//! once. The waiting ends without the row when the engine is stopped, or when the store will never be written again.

use super::full_disk::{Reminder, Room};
use crate::mvcc::{Revision, Row, RowError, RowKey, RowSource};
use crate::rows::StoreRows;
use crate::storage::Store;
use keygate_core::KeyspaceId;
use std::ops::ControlFlow;
use std::sync::Arc;

pub(super) struct PatientRows {
    rows: StoreRows,
    store: Arc<Store>,
    room: Arc<Room>,
    /// While starting nobody is served yet, and the start is what fails.
    patient: bool,
}

impl PatientRows {
    pub(super) fn new(store: Arc<Store>, room: Arc<Room>, patient: bool) -> Self {
        Self { rows: StoreRows::new(store.clone()), store, room, patient }
    }

    fn may_wait(&self) -> bool {
        self.patient && !self.store.has_failed() && !self.room.is_given_up()
    }
}

impl RowSource for PatientRows {
    fn row(&self, key: RowKey) -> Result<Row, RowError> {
        let mut reminder = Reminder::default();
        loop {
            match self.rows.row(key) {
                Err(RowError::Unavailable(error)) if self.may_wait() => {
                    self.room.set_apply_waits(true);
                    if reminder.is_due() {
                        tracing::error!(%error, "the store cannot be read: a write waits for it and all others are refused, reads of what memory holds go on; look after the disk, and writes go on by themselves");
                    }
                    self.room.wait_for_better();
                }
                result => {
                    if self.room.apply_waits() {
                        self.room.set_apply_waits(false);
                        tracing::info!("a write waits for the store no longer");
                    }
                    return result;
                }
            }
        }
    }

    /// Contract: not while applying, which asks for single rows.
    fn scan(
        &self,
        keyspace: KeyspaceId,
        from: Revision,
        to_exclusive: Revision,
        visit: &mut dyn FnMut(Revision, Row) -> ControlFlow<()>,
    ) -> Result<(), RowError> {
        self.rows.scan(keyspace, from, to_exclusive, visit)
    }
}
