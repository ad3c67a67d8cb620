//! What is promised of a full disk:
//!
//! - A client is never told that a write succeeded which did not: it is refused, or its outcome stays
//!   unknown.
//! - The process goes on: reads are served, nothing panics, and the log names the cause and the way out.
//! - When there is room again, writes succeed again without a restart.
//! - Everything that was acknowledged before, while and after is there, also after SIGKILL.
//! - A start that finds no room says so by name; nothing is lost by it.

#![expect(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use bytes::Bytes;
use keygate_proto::etcdserverpb::{CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest};
use keygate_tests::harness::{
    Client, Plan, Program, Protection, Server,
    disks::{Place, SmallDisk, enter},
};
use tonic::{Code, Status};

/// Room for the log's files and a store of some megabytes.
const MEGABYTES: usize = 128;
const VALUE: usize = 48 << 10;
/// Until a disk that was filled is found full, and one that was freed is written again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes under keys that are used once, and keeps what was acknowledged.
struct Writer {
    client: Client,
    number: usize,
    acknowledged: BTreeMap<String, usize>,
    refused: usize,
    unknown: usize,
}

impl Writer {
    fn new(client: Client) -> Writer {
        Writer { client, number: 0, acknowledged: BTreeMap::new(), refused: 0, unknown: 0 }
    }

    async fn put(&mut self) -> Result<(), Status> {
        self.number += 1;
        let key = format!("key/{:06}", self.number);
        let value = Bytes::from(text(self.number));
        let put = PutRequest { key: Bytes::from(key.clone()), value, ..Default::default() };
        match self.client.kv().put(put).await {
            Ok(_) => {
                self.acknowledged.insert(key, self.number);
                Ok(())
            }
            Err(status) => {
                match status.code() {
                    Code::ResourceExhausted => self.refused += 1,
                    // It waited for a log that could not be written: not a yes, and not a no.
                    Code::Unavailable if status.message().contains("timed out") => self.unknown += 1,
                    _ => panic!("a client is told {status:?}"),
                }
                Err(status)
            }
        }
    }

    async fn until_refused(&mut self) {
        let started = Instant::now();
        while self.refused == 0 {
            self.put().await.ok();
            assert!(started.elapsed() < PATIENCE, "a full disk is not noticed");
        }
    }

    async fn until_it_works(&mut self, server: &Server) {
        let started = Instant::now();
        while self.put().await.is_err() {
            assert!(started.elapsed() < PATIENCE, "writes do not come back:\n{}", server.log_tail());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn check(&self, what: &str) {
        for (key, number) in &self.acknowledged {
            let range = RangeRequest { key: Bytes::from(key.clone()), ..Default::default() };
            let found = self.client.kv().range(range).await.unwrap().into_inner().kvs;
            assert_eq!(found.len(), 1, "{what}: `{key}` was acknowledged and is gone");
            assert_eq!(found[0].value, text(*number).as_bytes(), "{what}: `{key}` has another value");
        }
        println!(
            "{what}: {} acknowledged writes are there; {} were refused, {} stayed unknown",
            self.acknowledged.len(),
            self.refused,
            self.unknown
        );
    }
}

/// Incompressible enough, and its key tells it.
fn text(number: usize) -> String {
    format!("{number:08}").repeat(VALUE / 8)
}

async fn start(disk: &SmallDisk) -> Server {
    let plan = Plan::new(Program::Keygate, Protection::Password)
        .flags(&["--bcrypt-cost", "4"])
        .data_dir(disk.path().join("data"));
    Server::start(plan).await.unwrap()
}

/// What the operator reads. Nothing in it may be a panic.
fn operator_reads(server: &Server, what: &str) {
    let log = fs::read_to_string(server.log_path()).unwrap();
    assert!(log.contains(what), "`{what}` is not in the log:\n{}", server.log_tail());
    assert!(!log.contains("panicked"), "{}", server.log_tail());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_fill_the_disk_and_make_room_again() {
    if enter("others_fill_the_disk_and_make_room_again") == Place::Outside {
        return;
    }
    let disk = SmallDisk::new(MEGABYTES).unwrap();
    let mut server = start(&disk).await;
    let mut writer = Writer::new(server.root().await.unwrap());
    for _ in 0..50 {
        writer.put().await.unwrap();
    }
    let ballast = disk.fill().unwrap();
    writer.until_refused().await;
    writer.check("while it is full").await;
    // Deletes are refused last, when the log has no room either. These find nothing, but take some.
    let started = Instant::now();
    loop {
        let key = Bytes::from(vec![b'x'; 1 << 20]);
        let delete = DeleteRangeRequest { key, ..Default::default() };
        match writer.client.kv().delete_range(delete).await {
            Ok(_) => assert!(started.elapsed() < PATIENCE, "a full log is not noticed"),
            Err(status) if status.code() == Code::ResourceExhausted => break,
            Err(status) => assert!(status.message().contains("timed out"), "{status:?}"),
        }
    }
    writer.check("while the log is full too").await;
    operator_reads(&server, "the log cannot be written");
    operator_reads(&server, "the disk is full and the");
    drop(ballast);
    writer.until_it_works(&server).await;
    writer.check("after it was").await;
    operator_reads(&server, "can be written again");

    let ballast = disk.fill().unwrap();
    writer.refused = 0;
    writer.until_refused().await;
    server.kill();
    drop(ballast);
    server.launch().unwrap();
    writer.client = server.root().await.unwrap();
    writer.check("after SIGKILL on a full disk").await;
    writer.put().await.unwrap();
    assert!(server.stop().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_fills_its_own_disk() {
    if enter("the_server_fills_its_own_disk") == Place::Outside {
        return;
    }
    let disk = SmallDisk::new(MEGABYTES).unwrap();
    let mut server = start(&disk).await;
    let mut writer = Writer::new(server.root().await.unwrap());
    writer.until_refused().await;
    writer.check("on a disk that it filled").await;
    operator_reads(&server, "the disk is full and the");

    // Deletes are not what needs room, as long as the log has some.
    let gone: Vec<String> = writer.acknowledged.keys().skip(10).cloned().collect();
    let mut deleted = 0;
    for key in gone {
        let delete = DeleteRangeRequest { key: Bytes::from(key.clone()), ..Default::default() };
        match server.root().await.unwrap().kv().delete_range(delete).await {
            Ok(_) => {
                writer.acknowledged.remove(&key);
                deleted += 1;
            }
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
                break;
            }
        }
    }
    let nothing = RangeRequest { key: Bytes::from_static(b"x"), ..Default::default() };
    let header = writer.client.kv().range(nothing).await.unwrap().into_inner().header;
    let revision = header.unwrap().revision;
    let compacted = writer.client.kv().compact(CompactionRequest { revision, physical: false }).await;
    println!("{deleted} deletes and a compaction on the full disk: {compacted:?}");
    writer.check("after deletes").await;
    server.kill();
    // Whether it can start without a byte of room or not: if not, it says why.
    if let Err(error) = server.launch() {
        let text = format!("{error:#}");
        assert!(text.contains("no space left"), "{text}");
        println!("a start on the full disk is refused by name");
        server.kill();
    } else {
        server.kill();
    }
    disk.resize(2 * MEGABYTES).unwrap();
    server.launch().unwrap();
    writer.client = server.root().await.unwrap();
    writer.until_it_works(&server).await;
    writer.check("on a larger disk").await;
    assert!(server.stop().unwrap());
}
