//! A disk that takes writes and fails their sync, as a broken or over-committed one does.
//!
//! Promised: the process ends, with a status and a line that say so, and tries no sync again; what was
//! acknowledged before is there when the disk is well again.

use std::{
    fs,
    time::{Duration, Instant},
};

use bytes::Bytes;
use keygate_proto::etcdserverpb::{PutRequest, RangeRequest};
use keygate_tests::harness::{
    Plan, Program, Protection, Server,
    disks::{LyingDisk, Place, enter},
};

const TEST: &str = "a_failed_sync_ends_the_process_and_loses_nothing_acknowledged";
/// Megabytes that the file system promises, and that it has.
const PROMISED: usize = 512;
const REAL: usize = 160;
const PATIENCE: Duration = Duration::from_secs(60);

fn value(number: usize) -> Bytes {
    Bytes::from(format!("{number:08}").repeat(4 << 10))
}

fn key(number: usize) -> Bytes {
    Bytes::from(format!("key/{number:06}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_ends_the_process_and_loses_nothing_acknowledged() {
    if enter(TEST) == Place::Outside {
        return;
    }
    let Some(disk) = LyingDisk::new(TEST, PROMISED, REAL).unwrap() else { return };
    let plan = Plan::new(Program::Keygate, Protection::Plain).data_dir(disk.path().join("data"));
    let mut server = Server::start(plan).await.unwrap();
    let mut kv = server.root().await.unwrap().kv();
    for number in 0..50 {
        kv.put(PutRequest { key: key(number), value: value(number), ..Default::default() }).await.unwrap();
    }
    let ballast = disk.fill_below().unwrap();
    let (started, mut acknowledged) = (Instant::now(), 50);
    while kv
        .put(PutRequest { key: key(acknowledged), value: value(acknowledged), ..Default::default() })
        .await
        .is_ok()
    {
        acknowledged += 1;
        assert!(started.elapsed() < PATIENCE, "no sync fails");
    }
    let success = server.wait_for_end(PATIENCE).unwrap();
    assert!(!success, "a process that ends so says that it failed");
    let log = fs::read_to_string(server.log_path()).unwrap();
    assert!(log.contains("must not be used any more"), "{}", server.log_tail());

    drop(ballast);
    disk.replug().unwrap();
    server.launch().unwrap();
    let mut kv = server.root().await.unwrap().kv();
    for number in 0..acknowledged {
        let found = kv.range(RangeRequest { key: key(number), ..Default::default() }).await.unwrap();
        let found = found.into_inner().kvs;
        assert_eq!(found.len(), 1, "{number} of {acknowledged} was acknowledged and is gone");
        assert_eq!(found[0].value, value(number));
    }
    println!("{acknowledged} acknowledged writes, 0 lost; the cause: {}", cause(&log));
    assert!(server.stop().unwrap());
}

fn cause(log: &str) -> &str {
    log.lines().find(|line| line.contains("must not be used any more")).unwrap_or_default()
}
