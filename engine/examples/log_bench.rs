//! Records per second of the durable log with real `fdatasync`: batches of 1, 16 and 128, recycling and prefill on and off.
//!
//! `cargo run --release -p keygate-engine --example log_bench [directory] [seconds]`

use std::path::PathBuf;
use std::time::{Duration, Instant};

use keygate_engine::storage::{LogOptions, OpenReport, RaftLog};
use raft::eraftpb::{Entry, HardState};

const PAYLOAD: usize = 300;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let root: PathBuf = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds: f64 = arguments.next().map_or(Ok(2.0), |text| text.parse())?;
    for (name, recycle, prefill_bytes) in
        [("no recycling", false, 0), ("recycling", true, 0), ("recycling + prefill", true, 64 << 20)]
    {
        for batch in [1, 16, 128] {
            let directory = tempfile::tempdir_in(&root)?;
            let options = LogOptions { recycle, prefill_bytes, ..LogOptions::default() };
            let started = Instant::now();
            let mut log = RaftLog::open(directory.path(), options, &mut OpenReport::default())?;
            let open = started.elapsed();
            let (records, taken) = run(&mut log, batch, Duration::from_secs_f64(seconds))?;
            let per_second = records as f64 / taken.as_secs_f64();
            println!(
                "{name:20} batch {batch:4}: {per_second:9.0} records/s, {:7.1} us/fsync, first open {open:?}, size {} MiB",
                taken.as_secs_f64() * 1e6 * batch as f64 / records as f64,
                log.size() >> 20,
            );
            let closing = Instant::now();
            log.close()?;
            let closed = closing.elapsed();
            let started = Instant::now();
            let log = RaftLog::open(
                directory.path(),
                LogOptions { recycle, prefill_bytes, ..LogOptions::default() },
                &mut OpenReport::default(),
            )?;
            println!("{:20}   close {closed:?}, second open {:?}", "", started.elapsed());
            drop(log);
        }
    }
    Ok(())
}

fn run(log: &mut RaftLog, batch: u64, time: Duration) -> Result<(u64, Duration), Box<dyn std::error::Error>> {
    let started = Instant::now();
    let mut index = 0;
    let mut rounds = 0_u64;
    let payload = vec![b'x'; PAYLOAD];
    while started.elapsed() < time {
        let entries: Vec<Entry> = (0..batch)
            .map(|_| {
                index += 1;
                let mut entry = Entry::default();
                (entry.index, entry.term, entry.data) = (index, 1, payload.clone().into());
                entry
            })
            .collect();
        let mut state = HardState::default();
        (state.term, state.vote, state.commit) = (1, 1, index - batch);
        log.append(&entries, Some(&state), true)?;
        rounds += 1;
        // As the engine does: what the store holds is forgotten from time to time.
        if rounds.is_multiple_of(256) && index > 20_000 {
            log.compact_to(index - 10_000)?;
            log.purge()?;
        }
    }
    Ok((index, started.elapsed()))
}
