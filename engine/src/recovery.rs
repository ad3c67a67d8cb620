//! From files to a state machine: store first, then whatever the log has beyond it.

use crate::engine::{OpenError, Recovered};
use crate::identity::Identity;
use crate::mvcc::{Loader, Row};
use crate::options::EngineOptions;
use crate::rows::row_key;
use crate::storage::{Applied, Change, DataDir, Disk, LogOptions, OpenReport, RaftLog, Store};
use bytes::Bytes;
use keygate_core::Compile;
use raft::eraftpb::ConfState;
use raft::{Config, RawNode, Storage};
use std::sync::Arc;

/// Where the log keeps who this member is.
const IDENTITY_KEY: &[u8] = b"identity";
/// What redb may keep of the store. Current values are in our own memory; this serves history.
const STORE_CACHE: usize = 16 << 20;

pub(crate) fn recover(
    options: &EngineOptions,
    compile: &dyn Compile,
    disk: Arc<dyn Disk>,
) -> Result<Recovered, OpenError> {
    let directory = DataDir::open(&options.data_dir)?;
    let mut report = OpenReport::default();
    let mut log = RaftLog::open_on(disk.clone(), &directory.log(), LogOptions::default(), &mut report)?;
    let identity = identity(options, &mut log)?;
    let store = Arc::new(Store::open_on(disk, &directory.store(), STORE_CACHE, &mut report)?);
    for finding in &report.findings {
        tracing::warn!(file = %finding.file.display(), offset = finding.offset, what = %finding.what, "found at start");
    }

    let (loader, applied) = load(options, &store)?;
    // Only a store that was read whole can be believed about how far it is.
    log.covers(applied)?;
    raise_commit(&mut log, applied)?;
    let (state, leftovers) =
        loader.finish(compile).map_err(|error| OpenError::Inconsistent(error.to_string()))?;
    if !leftovers.is_empty() {
        let changes: Vec<Change> = leftovers.into_iter().map(crate::consensus::stored).collect();
        store.commit(&changes, applied)?;
    }
    let node = RawNode::new(&raft_config(options, identity, applied), log, &quiet_logger())
        .map_err(|error| OpenError::Inconsistent(error.to_string()))?;
    Ok(Recovered { directory, store, node, state, applied, identity })
}

/// The ids of the first start are kept; flags that would give others are refused.
fn identity(options: &EngineOptions, log: &mut RaftLog) -> Result<Identity, OpenError> {
    let configured = Identity::of_single_member(&options.peer_urls, &options.cluster_token);
    if let Some(bytes) = log.get_meta(IDENTITY_KEY) {
        return postcard::from_bytes(bytes)
            .map_err(|error| OpenError::Foreign(format!("its identity cannot be read: {error}")));
    }
    let initial = log.initial_state().map_err(|error| OpenError::Inconsistent(error.to_string()))?;
    if !initial.conf_state.voters.is_empty() {
        return Err(OpenError::Foreign("it has voters but no identity".to_owned()));
    }
    let bytes = postcard::to_stdvec(&configured)
        .map_err(|error| OpenError::Inconsistent(format!("identity cannot be written: {error}")))?;
    log.put_conf_state(&ConfState { voters: vec![configured.member_id], ..ConfState::default() })?;
    log.put_meta(IDENTITY_KEY, &bytes)?;
    Ok(configured)
}

/// What the store has applied was committed, though the log may have been written last before that
/// was known.
fn raise_commit(log: &mut RaftLog, applied: Applied) -> Result<(), OpenError> {
    let mut hard_state =
        log.initial_state().map_err(|error| OpenError::Inconsistent(error.to_string()))?.hard_state;
    if hard_state.commit < applied.index {
        hard_state.commit = applied.index;
        log.append(&[], Some(&hard_state), false)?;
    }
    Ok(())
}

fn load(options: &EngineOptions, store: &Store) -> Result<(Loader, Applied), OpenError> {
    let mut loader = Loader::new(options.memory_budget);
    let mut failed = None;
    store.for_each_meta(|key, value| {
        if failed.is_none() {
            failed = loader.meta(key, value).err().map(|error| error.to_string());
        }
    })?;
    let applied = store.load(
        |key, bytes| {
            if failed.is_none() {
                failed = match Row::decode(Bytes::copy_from_slice(bytes)) {
                    Ok(row) => loader.row(row_key(key), row).err().map(|error| error.to_string()),
                    Err(error) => Some(error.to_string()),
                };
            }
        },
        |_, _| {},
    )?;
    match failed {
        Some(what) => Err(OpenError::Inconsistent(what)),
        None => Ok((loader, applied)),
    }
}

fn raft_config(options: &EngineOptions, identity: Identity, applied: Applied) -> Config {
    Config {
        id: identity.member_id,
        election_tick: options.election_ticks,
        heartbeat_tick: 1,
        applied: applied.index,
        pre_vote: true,
        check_quorum: true,
        // Batches are bounded by what is proposed at once, not here.
        max_size_per_msg: 1 << 20,
        max_inflight_msgs: 256,
        max_committed_size_per_ready: 64 << 20,
        ..Config::default()
    }
}

/// Raft's own lines are for its developers; what an operator needs, the driver says itself.
fn quiet_logger() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}
