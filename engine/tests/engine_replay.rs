//! What a log says does not depend on the configuration under which it is read again.

#![expect(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

mod support;

use keygate_core::{Answer, LeaseId, LeaseTimeToLive, Operation};
use keygate_engine::storage::{Disk, DiskFile};
use keygate_engine::{Engine, EngineOptions, Surroundings};
use std::io::{Error, ErrorKind, Result};
use std::path::Path;
use std::sync::Arc;
use support::*;

/// The store is never written, so that a restart replays everything from the log.
#[derive(Debug)]
struct LogOnly;

impl Disk for LogOnly {
    fn before_write(&self, file: DiskFile, offset: u64) -> Result<()> {
        if file == DiskFile::Store && offset >= 4096 {
            return Err(Error::new(ErrorKind::StorageFull, "nospace"));
        }
        Ok(())
    }

    fn before_sync(&self, _: DiskFile) -> Result<()> {
        Ok(())
    }
}

fn open_granting(directory: &Path, min_lease_ttl: i64) -> Engine {
    let surroundings = Surroundings { disk: Arc::new(LogOnly), ..Surroundings::default() };
    let options = EngineOptions { min_lease_ttl, ..options(directory) };
    Engine::open_with(options, Arc::new(RootOnly), surroundings).unwrap()
}

async fn granted_ttl(engine: &Engine) -> i64 {
    let request = LeaseTimeToLive { id: LeaseId(1), keys: false };
    let answer = read(&engine.port(), Operation::LeaseTimeToLive(request)).await.unwrap().answer;
    let Answer::Lease(lease) = answer else { panic!("a lease is answered by a lease") };
    lease.granted_ttl
}

/// The floor used to be taken from the configuration when a grant was applied: a restart with another election timeout
/// gave a lease a ttl that nobody had been told.
#[tokio::test]
async fn a_lease_keeps_the_ttl_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    // An empty store first: the file is made on a disk that has room.
    open(directory.path()).shutdown();
    let engine = open_granting(directory.path(), 100);
    let answer = write(&engine.port(), grant(1, 5)).await.unwrap().answer;
    assert_eq!(answer, Answer::LeaseGranted { id: LeaseId(1), ttl: 100 });
    engine.shutdown();
    for min_lease_ttl in [2, 1_000] {
        let engine = open_granting(directory.path(), min_lease_ttl);
        assert_eq!(granted_ttl(&engine).await, 100, "replayed under a floor of {min_lease_ttl}");
        engine.shutdown();
    }
}
