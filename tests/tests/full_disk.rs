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
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use keygate_proto::etcdserverpb::{CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest};
use keygate_tests::harness::{
    Client, Plan, Program, Protection, Server,
    disks::{Place, SmallDisk, enter},
    peers::keygate,
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
                assert!(means_full(&status), "a client is told {status:?}");
                match status.code() {
                    Code::ResourceExhausted => self.refused += 1,
                    _ => self.unknown += 1,
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
            let found = self.client.kv().range(range).await;
            let found = found.unwrap_or_else(|status| panic!("{what}: reading `{key}`: {status:?}"));
            let found = found.into_inner().kvs;
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

/// Refused for want of room, or waiting for it: not a yes.
fn means_full(status: &Status) -> bool {
    let waited = status.code() == Code::Unavailable && status.message().contains("timed out");
    status.code() == Code::ResourceExhausted || waited
}

/// Deletes are refused last, when the log has no room either. These find nothing, but take some.
/// How many there were.
async fn until_the_log_is_full(client: &Client) -> usize {
    let started = Instant::now();
    let mut accepted = 0;
    loop {
        let delete = DeleteRangeRequest { key: Bytes::from(vec![b'x'; 1 << 20]), ..Default::default() };
        match client.kv().delete_range(delete).await {
            Ok(_) => accepted += 1,
            Err(status) if status.code() == Code::ResourceExhausted => return accepted,
            Err(status) => assert!(means_full(&status), "{status:?}"),
        }
        assert!(started.elapsed() < PATIENCE, "a full log is not noticed");
    }
}

/// Whether it can start without a byte of room or not: if not, it says why.
fn start_on_a_full_disk(server: &mut Server) {
    match server.launch() {
        Ok(()) => println!("it starts on a full disk"),
        Err(error) => {
            let text = format!("{error:#}");
            assert!(text.contains("no space left"), "{text}");
            println!("it does not start on a full disk, and says so");
        }
    }
    server.kill();
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
    let deletes = until_the_log_is_full(&writer.client).await;
    assert!(deletes > 0, "the log has room of its own from the beginning, and deletes may use it");
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
    until_the_log_is_full(&writer.client).await;
    server.kill();
    start_on_a_full_disk(&mut server);
    drop(ballast);
    server.launch().unwrap();
    writer.client = server.root().await.unwrap();
    writer.check("after SIGKILL on a full disk").await;
    writer.put().await.unwrap();
    assert!(server.stop().unwrap());
}

/// A bundle at which nothing is wrong, in `folder`.
fn bundle(folder: &Path, revision: u64) {
    fs::write(folder.join("model.conf"), include_str!("../../policies/model/bundle.conf")).unwrap();
    let row = format!("p, user:svc-{revision}, default, /pay/*, readwrite, allow\n");
    fs::write(folder.join("policy.csv"), row).unwrap();
    fs::write(folder.join("roles.csv"), "").unwrap();
    let mut digest = Command::new(keygate().unwrap());
    digest.args(["policy", "digest"]).arg(folder).args(["--revision", &revision.to_string()]);
    assert!(digest.output().unwrap().status.success());
}

/// Nobody touches the folder again: that it finds its way in is the server's own doing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_for_which_there_was_no_room_is_applied_when_there_is() {
    if enter("a_policy_for_which_there_was_no_room_is_applied_when_there_is") == Place::Outside {
        return;
    }
    let disk = SmallDisk::new(MEGABYTES).unwrap();
    let folder = tempfile::tempdir().unwrap();
    bundle(folder.path(), 1);
    let plan = Plan::new(Program::Keygate, Protection::Password)
        .flags(&["--bcrypt-cost", "4", "--policy-dir", folder.path().to_str().unwrap()])
        .data_dir(disk.path().join("data"));
    let mut server = Server::start(plan).await.unwrap();
    let mut writer = Writer::new(server.root().await.unwrap());
    let ballast = disk.fill().unwrap();
    writer.until_refused().await;
    until_the_log_is_full(&writer.client).await;
    bundle(folder.path(), 2);
    let until_said = async |what: &str, times: usize| {
        let started = Instant::now();
        while fs::read_to_string(server.log_path()).unwrap().matches(what).count() < times {
            assert!(started.elapsed() < PATIENCE, "`{what}` is not in the log:\n{}", server.log_tail());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    until_said("a policy bundle was not applied", 1).await;
    drop(ballast);
    // The first one at the start.
    until_said("the policy bundle was applied", 2).await;
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

    // Deletes go on as long as the log has room. Here it may have none left: it grew with the store.
    let gone: Vec<String> = writer.acknowledged.keys().skip(10).cloned().collect();
    let mut deleted = Vec::new();
    for key in gone {
        // Whatever is answered, it is not known to be there any more.
        writer.acknowledged.remove(&key);
        let delete = DeleteRangeRequest { key: Bytes::from(key.clone()), ..Default::default() };
        match writer.client.kv().delete_range(delete).await {
            Ok(_) => deleted.push(key),
            Err(status) => {
                assert!(means_full(&status), "{status:?}");
                break;
            }
        }
    }
    let nothing = RangeRequest { key: Bytes::from_static(b"x"), ..Default::default() };
    let header = writer.client.kv().range(nothing).await.unwrap().into_inner().header;
    let revision = header.unwrap().revision;
    if let Err(status) = writer.client.kv().compact(CompactionRequest { revision, physical: false }).await {
        assert!(means_full(&status), "{status:?}");
    }
    println!("{} deletes on the full disk", deleted.len());
    writer.check("after deletes").await;
    server.kill();
    start_on_a_full_disk(&mut server);
    disk.resize(2 * MEGABYTES).unwrap();
    server.launch().unwrap();
    writer.client = server.root().await.unwrap();
    writer.until_it_works(&server).await;
    writer.check("on a larger disk").await;
    for key in deleted {
        let range = RangeRequest { key: Bytes::from(key), count_only: true, ..Default::default() };
        assert_eq!(writer.client.kv().range(range).await.unwrap().into_inner().count, 0, "a delete is lost");
    }
    assert!(server.stop().unwrap());
}
