//! The check of the log's files before raft-engine may open them.
//!
//! Promise: read only. Either every live byte was verified and the result is the log's true state, or the error names the
//! damaged file and offset. What the tail of the last file may hold is decided by seals, as `docs/formats/log.md` says.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use protobuf::Message;
use raft::eraftpb::Entry;

use super::framing::{self, Content};
use super::record::{self, LogId, SEAL_END_AT, SEAL_LEN, Seal};
use super::{Finding, StorageError};

/// The Raft group of everything we write; one log holds one group.
pub(super) const GROUP: u64 = 1;
pub(super) const SEAL_KEY: &[u8] = b"s";

/// The verified state of the log's files.
#[derive(Debug, Default)]
pub(super) struct Audit {
    /// The newest seal; none when nothing was ever written.
    pub(super) seal: Option<Seal>,
    /// Highest batch number seen anywhere, torn batches included.
    pub(super) highest_batch: u64,
    pub(super) findings: Vec<Finding>,
    /// Where the last file of a queue ends, when that is not at its end: a torn write is behind, or what a recycled file held
    /// before. 0: not even its header is whole.
    pub(super) ends: Vec<End>,
    /// Purged files that a crash left behind; nothing reads them any more.
    pub(super) forgotten: Vec<PathBuf>,
}

/// The end of what counts in a file.
#[derive(Debug)]
pub(super) struct End {
    pub(super) file: PathBuf,
    pub(super) offset: usize,
}

/// Verifies all files of the log directory.
pub(super) fn audit(directory: &Path, id: &LogId) -> Result<Audit, StorageError> {
    let mut walk = Walk {
        id: *id,
        append: VecDeque::new(),
        append_first: 1,
        rewritten: HashMap::new(),
        audit: Audit::default(),
    };
    let append = walk.files(directory, ".raftlog")?;
    let rewrite = walk.files(directory, ".rewrite")?;
    let torn_copies = walk.queue(&rewrite, Queue::Rewrite)?;
    let tail = walk.queue(&append, Queue::Append)?;
    if let Some(tail) = &tail {
        walk.judge_tail(tail)?;
    }
    walk.check_complete(directory)?;
    walk.audit.ends.extend(tail.iter().chain(&torn_copies).map(Tail::end));
    // Copies are cut only after the check that nothing depends on what is cut.
    if let Some(tail) = torn_copies.filter(|tail| tail.bytes[tail.offset..].iter().any(|byte| *byte != 0)) {
        walk.audit.findings.push(Finding {
            file: tail.file,
            offset: tail.offset as u64,
            what: format!("{}; an unfinished copy of old entries was cut", tail.reason),
        });
    }
    Ok(walk.audit)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queue {
    Append,
    Rewrite,
}

struct LogFile {
    path: PathBuf,
    number: u64,
}

/// The first place of a queue's last file where no good batch starts.
struct Tail {
    file: PathBuf,
    number: u64,
    offset: usize,
    reason: &'static str,
    bytes: Vec<u8>,
}

impl Tail {
    fn end(&self) -> End {
        End { file: self.file.clone(), offset: self.offset }
    }
}

#[derive(Debug, Clone, Copy)]
struct Located {
    term: u64,
    prev_term: u64,
}

struct Walk {
    id: LogId,
    append: VecDeque<Located>,
    append_first: u64,
    rewritten: HashMap<u64, Located>,
    audit: Audit,
}

impl Walk {
    /// The files of one queue in order, without those in front of a hole: raft-engine forgets these, they were purged.
    fn files(&mut self, directory: &Path, suffix: &str) -> Result<Vec<LogFile>, StorageError> {
        let fail = |e| StorageError::io(directory, "list", e);
        let mut found = Vec::new();
        for entry in fs::read_dir(directory).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let number = name.strip_suffix(suffix).filter(|digits| digits.len() == 16);
            if let Some(number) = number.and_then(|digits| digits.parse().ok()) {
                found.push(LogFile { path, number });
            }
        }
        found.sort_by_key(|file| file.number);
        let live =
            (1..found.len()).rev().find(|at| found[*at].number != found[at - 1].number + 1).unwrap_or(0);
        let live = found.split_off(live);
        self.audit.forgotten.extend(found.into_iter().map(|file| file.path));
        Ok(live)
    }

    fn queue(&mut self, files: &[LogFile], queue: Queue) -> Result<Option<Tail>, StorageError> {
        for (at, file) in files.iter().enumerate() {
            let bytes = fs::read(&file.path).map_err(|e| StorageError::io(&file.path, "read", e))?;
            if let Err((offset, reason)) = self.file(&bytes, file, queue) {
                let refused = |why| {
                    let what = format!("{reason}, and {why}");
                    Err(StorageError::corrupt(&file.path, format!("offset {offset}"), what))
                };
                if at + 1 < files.len() {
                    return refused("later files follow");
                }
                // A write that is torn is not whole, and what a recycled file held before has another number.
                let next = offset.max(framing::FILE_HEADER);
                if framing::read_batch(&bytes, next, file.number).is_ok() {
                    return refused("a write that is whole is there");
                }
                return Ok(Some(Tail {
                    file: file.path.clone(),
                    number: file.number,
                    offset,
                    reason,
                    bytes,
                }));
            }
        }
        Ok(None)
    }

    fn file(&mut self, bytes: &[u8], file: &LogFile, queue: Queue) -> Result<(), (usize, &'static str)> {
        framing::check_file_header(bytes).map_err(|reason| (0, reason))?;
        let mut offset = framing::FILE_HEADER;
        while offset < bytes.len() {
            let batch = framing::read_batch(bytes, offset, file.number).map_err(|reason| (offset, reason))?;
            self.batch(bytes, &batch, queue).map_err(|reason| (offset, reason))?;
            offset = batch.end;
        }
        Ok(())
    }

    fn batch(&mut self, bytes: &[u8], batch: &framing::Batch<'_>, queue: Queue) -> Result<(), &'static str> {
        // Verify the whole batch before any of it counts.
        let mut seal = None;
        let mut located = Vec::new();
        for item in batch.items.iter().filter(|item| item.group == GROUP) {
            match &item.content {
                Content::Put { key, value } if *key == SEAL_KEY => {
                    seal = Some(Seal::decode(&self.id, value)?)
                }
                Content::Entries { first, places } => {
                    for (index, place) in (*first..).zip(places) {
                        located.push((index, self.entry(index, &bytes[place.clone()])?));
                    }
                }
                _ => {}
            }
        }
        match (queue, seal) {
            (Queue::Append, None) => return Err("the batch has no seal"),
            (Queue::Append, Some(seal)) if seal.entries as usize != located.len() => {
                return Err("the batch does not hold what its seal says");
            }
            (Queue::Append, Some(seal)) => {
                let newest = self.audit.seal.map_or(0, |newest| newest.batch);
                if seal.batch <= newest || (newest > 0 && seal.previous != newest) {
                    return Err("the batch does not follow the one before it");
                }
                self.audit.seal = Some(seal);
                self.audit.highest_batch = self.audit.highest_batch.max(seal.batch);
            }
            (Queue::Rewrite, _) => {}
        }
        for (index, entry) in located {
            match queue {
                Queue::Append => self.append(index, entry),
                Queue::Rewrite => {
                    self.rewritten.insert(index, entry);
                }
            }
        }
        for item in batch.items.iter().filter(|item| item.group == GROUP && queue == Queue::Append) {
            match item.content {
                Content::Compact(index) => self.compact(index),
                Content::Clean => self.compact(u64::MAX),
                _ => {}
            }
        }
        Ok(())
    }

    fn entry(&self, index: u64, bytes: &[u8]) -> Result<Located, &'static str> {
        let mut stored = Entry::default();
        stored.merge_from_bytes(bytes).map_err(|_| "an entry cannot be read")?;
        let (entry, info) = record::unwrap(&self.id, stored)?;
        if entry.index != index {
            return Err("an entry is not where the batch says");
        }
        Ok(Located { term: info.term, prev_term: info.prev_term })
    }

    fn append(&mut self, index: u64, entry: Located) {
        let next = self.append_first + self.append.len() as u64;
        if index > next || index < self.append_first {
            self.append.clear();
            self.append_first = index;
        } else {
            self.append.truncate((index - self.append_first) as usize);
        }
        self.append.push_back(entry);
    }

    fn compact(&mut self, index: u64) {
        let gone = index.saturating_sub(self.append_first).min(self.append.len() as u64);
        self.append.drain(..gone as usize);
        self.append_first += gone;
    }

    /// A torn last write, or an acknowledged one that was damaged?
    fn judge_tail(&mut self, tail: &Tail) -> Result<(), StorageError> {
        let newest = self.audit.seal.map_or(0, |seal| seal.batch);
        let evidence = self.search(&tail.bytes[tail.offset..], newest);
        if evidence.durable > newest {
            let what = format!(
                "{}, and intact records behind it prove that it was acknowledged (batch {} of {})",
                tail.reason,
                newest + 1,
                evidence.durable
            );
            return Err(StorageError::corrupt(&tail.file, format!("offset {}", tail.offset), what));
        }
        let ours = framing::footer_belongs(&tail.bytes, tail.offset, tail.number);
        if evidence.newer || evidence.damaged || ours {
            self.audit.findings.push(Finding {
                file: tail.file.clone(),
                offset: tail.offset as u64,
                what: format!(
                    "{}; the last write before the stop was incomplete or damaged and was cut",
                    tail.reason
                ),
            });
        }
        self.audit.highest_batch = self.audit.highest_batch.max(evidence.highest_batch).max(newest + 1);
        Ok(())
    }

    fn search(&self, bytes: &[u8], newest: u64) -> Evidence {
        let magics = [self.id.envelope_magic(), self.id.seal_magic(), self.id.seal_end_magic()];
        let mut evidence = Evidence::default();
        let mut at = 0;
        while let Some(found) = find_any(&bytes[at..], &magics) {
            at += found;
            let rest = &bytes[at..];
            let record = if rest.starts_with(&magics[0]) {
                record::check_envelope(&self.id, rest).map(|info| (info.batch, 0, info.len))
            } else if rest.starts_with(&magics[1]) {
                Seal::decode(&self.id, rest).map(|seal| (seal.batch, seal.durable, SEAL_LEN))
            } else if at < SEAL_END_AT {
                // The end of an older seal in a recycled file, whose start a good batch has overwritten.
                at += 1;
                continue;
            } else {
                Err("a seal without its start")
            };
            match record {
                Ok((batch, durable, length)) => {
                    evidence.newer |= batch > newest;
                    evidence.highest_batch = evidence.highest_batch.max(batch);
                    evidence.durable = evidence.durable.max(durable);
                    at += length;
                }
                Err(_) => {
                    evidence.damaged = true;
                    at += 1;
                }
            }
        }
        evidence
    }

    /// Everything the newest seal speaks of is there, in one chain.
    fn check_complete(&self, directory: &Path) -> Result<(), StorageError> {
        let Some(seal) = self.audit.seal else {
            if self.rewritten.is_empty() {
                return Ok(());
            }
            return Err(StorageError::corrupt(
                directory,
                "the whole log",
                "copies of old entries exist, but no batch does",
            ));
        };
        let append_end = self.append_first + self.append.len() as u64;
        let mut previous_term = seal.truncated_term;
        for index in seal.truncated_index + 1..=seal.last_index {
            let found = if !self.append.is_empty() && (self.append_first..append_end).contains(&index) {
                self.append.get((index - self.append_first) as usize)
            } else {
                self.rewritten.get(&index)
            };
            let place = || format!("entry {index}");
            let entry =
                found.ok_or_else(|| StorageError::corrupt(directory, place(), "the entry is missing"))?;
            if entry.prev_term != previous_term {
                let what = "the entry does not follow the one before it";
                return Err(StorageError::corrupt(directory, place(), what));
            }
            previous_term = entry.term;
        }
        if previous_term != seal.last_term || (append_end > seal.last_index + 1 && !self.append.is_empty()) {
            return Err(StorageError::corrupt(
                directory,
                format!("entry {}", seal.last_index),
                "the log does not end where its last seal says",
            ));
        }
        Ok(())
    }
}

/// What the bytes behind the last good batch tell.
#[derive(Debug, Default)]
struct Evidence {
    /// An intact record of a batch newer than the last good one.
    newer: bool,
    damaged: bool,
    highest_batch: u64,
    durable: u64,
}

/// First place of any of three eight-byte patterns (Horspool: zeros and foreign bytes are passed eight at a time).
fn find_any(bytes: &[u8], patterns: &[[u8; 8]; 3]) -> Option<usize> {
    let mut skip = [8_usize; 256];
    for pattern in patterns {
        for (at, byte) in pattern[..7].iter().enumerate() {
            let distance = 7 - at;
            skip[*byte as usize] = skip[*byte as usize].min(distance);
        }
    }
    let mut at = 0;
    while let Some(window) = bytes.get(at..at + 8) {
        if patterns.iter().any(|pattern| pattern == window) {
            return Some(at);
        }
        at += skip[window[7] as usize];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::find_any;

    #[test]
    fn patterns_are_found_wherever_they_start() {
        let patterns = [*b"abcdabcd", *b"\x00\x01\x02\x03\x04\x05\x06\x07", *b"zyzyzzzy"];
        for pad in 0..40 {
            for pattern in &patterns {
                let mut bytes = pattern[1..1 + pad % 7].to_vec();
                bytes.truncate(pad);
                bytes.resize(pad, b'q');
                bytes.extend_from_slice(pattern);
                bytes.extend_from_slice(&[0; 9]);
                assert_eq!(find_any(&bytes, &patterns), Some(pad), "{pad}");
            }
        }
        assert_eq!(find_any(&[0; 100], &patterns), None);
    }
}
