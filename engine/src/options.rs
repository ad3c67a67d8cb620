//! What an operator may set about the engine, with defaults that say why.

use std::path::PathBuf;
use std::time::Duration;

/// Everything that [`crate::Engine::open`] needs to know.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    pub data_dir: PathBuf,
    /// The member's name, as `member list` shows it.
    pub name: String,
    /// With the peer URLs, what member and cluster ids are made from at first start.
    pub cluster_token: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    /// Store size in bytes at which writes that grow it are refused. None: no limit.
    pub quota_bytes: Option<u64>,
    /// Bytes of current values that stay in memory; the others are read from the store.
    pub memory_budget: u64,
    /// Bytes that reads may take from the store, and that answers may take until they are sent.
    pub answer_bytes: usize,
    /// Seconds. etcd derives it from the election timeout: 1.5 × 1 s, rounded up.
    pub min_lease_ttl: i64,
    /// How often the remaining life of leases is written down, so that a restart does not renew them.
    pub lease_checkpoint: Duration,
    pub auto_compaction: AutoCompaction,
    pub progress_interval: Duration,
    /// Bytes of events that a watch may be owed since it fell behind; with more it is ended. None: any number.
    pub watch_backlog: Option<u64>,
    /// Bytes of events that may wait in memory for the watch streams of one keyspace. A stream may always have one batch
    /// waiting, and never more than 4 MiB of several.
    pub watch_memory: usize,
    /// Entries kept in the log behind the newest one that the store holds.
    pub log_keep_entries: u64,
    pub heartbeat: Duration,
    /// Heartbeats without which an election starts.
    pub election_ticks: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AutoCompaction {
    Off,
    /// Keep the revisions of this long.
    Periodic(Duration),
    /// Keep this many revisions.
    Revision(i64),
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("keygate.data"),
            name: "default".to_owned(),
            cluster_token: "etcd-cluster".to_owned(),
            peer_urls: vec!["http://localhost:2380".to_owned()],
            client_urls: Vec::new(),
            // etcd's default.
            quota_bytes: Some(2 << 30),
            // Values of the default quota fit whole.
            memory_budget: 1 << 30,
            // Half of what values may take.
            answer_bytes: 512 << 20,
            min_lease_ttl: 2,
            // A lease outlives a crash by at most this much.
            lease_checkpoint: Duration::from_secs(60),
            auto_compaction: AutoCompaction::Off,
            progress_interval: Duration::from_secs(600),
            // A quarter of the store's default quota: who is owed that much does not read.
            watch_backlog: Some(512 << 20),
            // 64 streams that do not read at all, or thousands that are a little slow.
            watch_memory: 256 << 20,
            log_keep_entries: 5_000,
            heartbeat: Duration::from_millis(100),
            election_ticks: 10,
        }
    }
}
