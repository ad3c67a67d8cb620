//! A thousand readers of everything, and a server that has little memory: it says no to most, and goes on.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use keygate_proto::etcdserverpb as pb;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use support::{Caller, Server};
use tonic::{Code, Status};

const READERS: usize = 1000;
const CONNECTIONS: usize = 50;
const VALUES: usize = 16;
const VALUE: usize = 1 << 20;

/// What the kernel lets the server have, where a test may say so.
const GROUP_LIMIT: u64 = 512 << 20;

/// A control group of the older hierarchy; None where we may not make one.
struct Group(PathBuf);

impl Group {
    fn around(pid: u32) -> Option<Self> {
        let group = Self(format!("/sys/fs/cgroup/memory/keygate-test-{pid}").into());
        std::fs::create_dir(&group.0).ok()?;
        std::fs::write(group.0.join("memory.limit_in_bytes"), GROUP_LIMIT.to_string()).ok()?;
        std::fs::write(group.0.join("cgroup.procs"), pid.to_string()).ok()?;
        Some(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Only an empty group can go: the server was killed just before, and takes a moment.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The most that the process ever had in memory.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the server lives");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

async fn put(caller: &Caller, key: &str, size: usize) -> Result<(), Status> {
    let request =
        pb::PutRequest { key: key.to_owned().into(), value: vec![7; size].into(), ..Default::default() };
    KvClient::new(caller.signed()).put(request).await.map(drop)
}

/// How often a reader asks that was told to come again.
const TRIES: usize = 5;

/// What a reader was told in the end. Counts how often it was told to come again.
async fn read_patiently(caller: Caller, shed: Arc<AtomicUsize>) -> Result<usize, Status> {
    for _ in 1..TRIES {
        match read_all(caller.clone()).await {
            Err(status) if status.code() == Code::ResourceExhausted => {
                shed.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            outcome => return outcome,
        }
    }
    read_all(caller).await
}

async fn read_all(caller: Caller) -> Result<usize, Status> {
    let request = pb::RangeRequest { key: "big/".into(), range_end: "big0".into(), ..Default::default() };
    let mut client = KvClient::new(caller.signed()).max_decoding_message_size(64 << 20);
    Ok(client.range(request).await?.into_inner().kvs.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_readers_of_everything_are_shed_and_writers_go_on() {
    // Declared first, dropped last.
    let group;
    let server = Server::start(&["--memory-budget", "64MiB"]);
    group = Group::around(server.pid());
    if group.is_none() {
        println!("no control group can be made here: the peak alone is looked at");
    }
    let root = server.named("root").await;
    for index in 0..VALUES {
        put(&root, &format!("big/{index:02}"), VALUE).await.unwrap();
    }
    let lease = pb::LeaseGrantRequest { ttl: 10, id: 0 };
    let id = LeaseClient::new(root.signed()).lease_grant(lease).await.unwrap().into_inner().id;

    let done = Arc::new(AtomicBool::new(false));
    let others = {
        let (done, writer) = (done.clone(), server.named("root").await);
        tokio::spawn(async move {
            let (mut puts, mut kept, mut slowest) = (0, 0, Duration::ZERO);
            while !done.load(Ordering::Relaxed) {
                let begin = Instant::now();
                put(&writer, "small", 10).await.expect("a put is not shed");
                slowest = slowest.max(begin.elapsed());
                puts += 1;
                let once = tokio_stream::iter([pb::LeaseKeepAliveRequest { id }]);
                let mut answers =
                    LeaseClient::new(writer.signed()).lease_keep_alive(once).await.unwrap().into_inner();
                kept += usize::from(answers.message().await.unwrap().is_some_and(|answer| answer.ttl > 0));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            (puts, kept, slowest)
        })
    };

    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(server.named("root").await);
    }
    let told = Arc::new(AtomicUsize::new(0));
    let readers = (0..READERS)
        .map(|reader| tokio::spawn(read_patiently(connections[reader % CONNECTIONS].clone(), told.clone())));
    let readers: Vec<_> = readers.collect();
    let (mut served, mut given_up) = (0, 0);
    for reader in readers {
        match reader.await.unwrap() {
            Ok(found) => {
                assert_eq!(found, VALUES, "an answer is whole or none");
                served += 1;
            }
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
                given_up += 1;
            }
        }
    }
    done.store(true, Ordering::Relaxed);
    let shed = told.load(Ordering::Relaxed);
    let (puts, kept, slowest) = others.await.unwrap();
    let peak = peak(server.pid());
    println!(
        "{READERS} readers of {} MiB: {served} served, {given_up} gave up, shed {shed} times; {puts} puts (slowest {slowest:?}), {kept} keepalives; peak {} MiB",
        (VALUES * VALUE) >> 20,
        peak >> 20
    );
    assert!(served > 0 && shed > READERS / 2);
    assert_eq!(served + given_up, READERS);
    assert!(puts > 2 && kept == puts, "{puts} puts, {kept} keepalives");
    assert!(peak < GROUP_LIMIT, "{} MiB", peak >> 20);
    // It is there as before.
    assert_eq!(read_all(root).await.unwrap(), VALUES);
    drop(server);
    drop(group);
}
