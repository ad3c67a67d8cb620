//! A data directory, damaged as the input says, and a start on it: refused with the place of the damage, or what is read
//! is what was once written. Never a panic, never content that was not. What is written then is there at the next start.
//!
//! Damage is what disks and crashes do (flipped bits, lost sectors, lost tails), not what a forger of checksums does.
#![no_main]

#[path = "recover/base.rs"]
mod base;

use arbitrary::Arbitrary;
use base::{Base, Opened, build, go_on, private_directory, start, write};
use keygate_engine::storage::StorageError;
use libfuzzer_sys::fuzz_target;
use std::panic::{self, PanicHookInfo};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

#[derive(Arbitrary, Debug)]
struct Input {
    after_kill: bool,
    first: Damage,
    /// At most this many more are done.
    more: [Option<Damage>; 2],
}

#[derive(Arbitrary, Debug)]
struct Damage {
    file: u8,
    /// Where in the file, modulo its size.
    at: u32,
    /// From the end instead.
    backwards: bool,
    kind: Kind,
}

#[derive(Arbitrary, Debug)]
enum Kind {
    Flip { bit: u8 },
    Byte { xor: u8 },
    Zeros { length: u16 },
    Cut,
    Remove,
}

static BASES: LazyLock<[Base; 2]> = LazyLock::new(|| [build(false), build(true)]);

fuzz_target!(
    init: {
        abort_only_on_our_panics();
        LazyLock::force(&BASES);
    },
    |input: Input| {
        let base = &BASES[usize::from(!input.after_kill)];
        let mut files: Files = base.files.iter().cloned().map(|(path, content)| (path, Some(content))).collect();
        let mut flips_only = true;
        for damage in std::iter::once(&input.first).chain(input.more.iter().flatten()) {
            flips_only &= matches!(damage.kind, Kind::Flip { .. } | Kind::Byte { .. });
            damage.apply(base, &mut files);
        }
        let directory = private_directory();
        write(&files, directory.path());
        match start(directory.path()) {
            Err(error) => refused(&error, directory.path(), &input),
            Ok(opened) => {
                served(base, &opened, flips_only, &input);
                goes_on(directory.path(), &opened, &input);
            }
        }
    }
);

/// Without content: removed.
type Files = Vec<(PathBuf, Option<Vec<u8>>)>;

impl Damage {
    fn apply(&self, base: &Base, files: &mut Files) {
        let number = base.damageable[usize::from(self.file) % base.damageable.len()];
        let Some(content) = files[number].1.as_mut().filter(|content| !content.is_empty()) else { return };
        let mut at = self.at as usize % content.len();
        if self.backwards {
            at = content.len() - 1 - at;
        }
        match self.kind {
            Kind::Flip { bit } => content[at] ^= 1 << (bit % 8),
            Kind::Byte { xor } => content[at] ^= xor,
            Kind::Zeros { length } => {
                let end = content.len().min(at + usize::from(length));
                content[at..end].fill(0);
            }
            Kind::Cut => content.truncate(at),
            Kind::Remove => files[number].1 = None,
        }
    }
}

fn refused(error: &StorageError, directory: &Path, input: &Input) {
    let text = error.to_string();
    assert!(error.is_corrupt() || matches!(error, StorageError::WrongVersion { .. }), "{input:?}: {error:?}");
    assert!(text.contains(directory.to_str().expect("ours")), "{input:?}: no file is named: {text}");
}

fn served(base: &Base, opened: &Opened, flips_only: bool, input: &Input) {
    let rows = base.commits.get(&opened.applied.index);
    assert_eq!(Some(&opened.rows), rows, "{input:?}: rows that were never committed together");
    let newest = base.logs.last().expect("a log has a state");
    if opened.log == *newest {
        return;
    }
    let past = base.logs.contains(&opened.log);
    assert!(past, "{input:?}: a log that never was: {:?}", opened.log);
    // A lost tail looks like writes that never were, and is one more thing than a single disk can tell. A flipped bit
    // looks like a torn write, which is reported.
    if flips_only {
        let told = opened.findings.iter().any(|finding| !base.findings.contains(&finding.what));
        assert!(told, "{input:?}: entries were cut and nothing was reported");
    }
}

fn goes_on(directory: &Path, opened: &Opened, input: &Input) {
    let gone_on = go_on(directory, &opened.log);
    let (killed, entries) =
        gone_on.unwrap_or_else(|error| panic!("{input:?}: nothing more can be written: {error}"));
    let again =
        start(killed.path()).unwrap_or_else(|error| panic!("{input:?}: the next start is refused: {error}"));
    assert_eq!(again.log.entries, entries, "{input:?}");
}

/// The storage catches panics of the libraries below it over damaged bytes; libFuzzer's own hook would end the process
/// before it can.
fn abort_only_on_our_panics() {
    let abort = panic::take_hook();
    panic::set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
        let library = |file: &str| file.contains("/registry/src/") || file.starts_with("/rustc/");
        if panic.location().is_none_or(|location| !library(location.file())) {
            abort(panic);
        }
    }));
}
