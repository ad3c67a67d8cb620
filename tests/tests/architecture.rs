//! The arrows between our crates, and the doors that only one of them may use.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests crate lies in the workspace").to_owned()
}

/// Names under `[dependencies]` of one of our crates.
fn dependencies(folder: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("a manifest");
    let mut inside = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        if line.starts_with('[') {
            inside = line.trim() == "[dependencies]";
        } else if inside && let Some((name, _)) = line.split_once(['.', '=', ' ']) {
            found.insert(name.trim().to_owned());
        }
    }
    assert!(!found.is_empty() || folder == "core", "no dependencies read from {folder}/Cargo.toml");
    found
}

fn ours(folder: &str) -> Vec<String> {
    dependencies(folder).into_iter().filter(|name| name.starts_with("keygate-")).collect()
}

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    fn walk(path: &Path, into: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(path).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file");
                into.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder).join("src"), &mut found);
    assert!(!found.is_empty(), "no sources in {folder}");
    found
}

#[test]
fn arrows_between_our_crates_point_as_drawn() {
    let drawn: [(&str, &[&str]); 5] = [
        ("core", &[]),
        ("proto", &[]),
        ("engine", &["keygate-core"]),
        ("policies", &["keygate-core"]),
        ("proxy", &["keygate-core", "keygate-engine", "keygate-policies", "keygate-proto"]),
    ];
    for (folder, expected) in drawn {
        assert_eq!(ours(folder), expected, "dependencies of {folder} on our own crates");
    }
}

#[test]
fn each_heavy_dependency_has_one_owner() {
    let owners = [
        ("casbin", "policies"),
        ("raft", "engine"),
        ("raft-engine", "engine"),
        ("redb", "engine"),
        ("jsonwebtoken", "proxy"),
        ("hyper", "proxy"),
    ];
    for (name, owner) in owners {
        for folder in ["core", "proto", "engine", "policies", "proxy"] {
            let has = dependencies(folder).contains(name);
            assert_eq!(has, folder == owner, "`{name}` belongs to {owner}; looked at {folder}");
        }
    }
}

#[test]
fn core_has_no_runtime_no_transport_and_no_clock() {
    let forbidden = ["tokio", "tonic", "hyper", "redb", "raft", "prost", "rand"];
    let found = dependencies("core");
    assert!(forbidden.iter().all(|name| !found.contains(*name)), "core depends on one of {forbidden:?}");
    for (path, text) in sources("core") {
        for word in ["SystemTime", "Instant::now", "std::fs", "std::net", "std::thread"] {
            assert!(!text.contains(word), "{} uses {word}", path.display());
        }
    }
}

#[test]
fn sealed_values_are_recovered_by_the_engines_decoder_only() {
    let mut callers = BTreeSet::new();
    for folder in ["engine", "policies", "proxy"] {
        for (path, text) in sources(folder) {
            if text.contains("Sealed::recovered") {
                let name = path.strip_prefix(root()).expect("below the root").display().to_string();
                callers.insert(name);
            }
        }
    }
    assert!(!callers.is_empty(), "nobody recovers a value: this test looks for the wrong name");
    assert!(
        callers.iter().all(|path| path.starts_with("engine/src/mvcc/")),
        "values are recovered outside the engine's decoder: {callers:?}"
    );
}

/// Files outside core that name `word` outside of comments.
fn files_naming(word: &str, folders: &[&str]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in folders {
        for (path, text) in sources(folder) {
            if text.lines().any(|line| names(line, word)) {
                found.insert(path.strip_prefix(root()).expect("below the root").display().to_string());
            }
        }
    }
    found
}

/// As a whole word, in code.
fn names(line: &str, word: &str) -> bool {
    let part =
        |text: &str, at: fn(&str) -> Option<char>| at(text).is_some_and(|c| c.is_alphanumeric() || c == '_');
    !line.trim_start().starts_with("//")
        && line.match_indices(word).any(|(at, _)| {
            !part(&line[..at], |text| text.chars().next_back())
                && !part(&line[at + word.len()..], |text| text.chars().next())
        })
}

/// Work without a caller passes no decision, so each place that has some is looked at by whoever changes this list.
/// `Permit::internal` cannot be called without naming an `InternalReason`.
#[test]
fn permits_without_a_caller_are_minted_where_they_are_listed() {
    let listed = [
        // The deadlines of leases, their checkpoints, compaction by schedule.
        "engine/src/consensus/housekeeping.rs",
        // The alarm of a full store.
        "engine/src/engine.rs",
        // A keepalive clears the checkpoint of its lease before it is acknowledged.
        "engine/src/read.rs",
        // `root` and its role, before anybody can log in.
        "proxy/src/app/bootstrap.rs",
        // A read whose answer nobody sees.
        "proxy/src/http/probe.rs",
        // The bundle of `--policy-dir`.
        "proxy/src/policy_files.rs",
    ];
    let found = files_naming("InternalReason", &["engine", "policies", "proxy"]);
    let listed = listed.map(str::to_owned).into_iter().collect();
    assert_eq!(found, listed, "work without a caller, and where this test expects it");
}

/// Who names it reads keys without asking a permit which of them may be told, so each place is looked at by whoever
/// changes this list. Everybody else hands on what the permit says.
#[test]
fn a_whole_sight_is_taken_for_granted_where_it_is_listed() {
    let listed = [
        // Txns: all of their keys were decided.
        "engine/src/mvcc/read.rs",
        "engine/src/mvcc/txn.rs",
        "engine/src/mvcc/walk.rs",
        // What rows say, when none of them hides anything.
        "policies/src/decision.rs",
        // Beside a refusal.
        "policies/src/recovering.rs",
    ];
    let found = files_naming("Sight::without", &["engine", "policies", "proxy"]);
    assert_eq!(found, ["policies/src/decision.rs".to_owned()].into(), "only a policy hides keys");
    let found = files_naming("WHOLE", &["engine", "policies", "proxy"]);
    assert_eq!(found, listed.map(str::to_owned).into_iter().collect());
}

/// A view is handed out for its policy, users and alarms. What keys hold is read by the engine alone, for a permit: the
/// state machine's own reads ask for a source of rows, and none can be named in the proxy.
#[test]
fn the_proxy_reads_no_keyspace_around_a_permit() {
    for word in ["MemoryOnly", "RowSource", "StoreRows"] {
        assert!(!files_naming(word, &["engine"]).is_empty(), "{word} is the wrong name to look for");
        let found = files_naming(word, &["proxy", "policies"]);
        assert!(found.is_empty(), "{word} is named in {found:?}");
    }
    for around in [
        "use keygate_engine::mvcc::State;",
        "use keygate_engine::{Engine, mvcc};",
        "let rows = keygate_engine::mvcc::MemoryOnly;",
        "use keygate_engine::*;",
        "use keygate_engine as engine;",
        "use keygate_engine::{Port, storage::Store};",
    ] {
        assert!(reach_into_engine(around).is_some(), "nobody would notice `{around}`");
    }
    assert_eq!(reach_into_engine("use keygate_engine::{Port, View}; let mvcc = 1;"), None);
    for (path, text) in sources("proxy") {
        let reach = reach_into_engine(&text);
        assert!(
            reach.is_none(),
            "{} reaches into the engine: `{}`",
            path.display(),
            reach.unwrap_or_default()
        );
    }
}

/// The first path that leads to the engine's inner modules, or that could hide that it does.
fn reach_into_engine(text: &str) -> Option<String> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let inner = |path: &str| {
        path.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '*')
            .any(|word| ["mvcc", "storage", "*", "as"].contains(&word))
    };
    code.split("keygate_engine").skip(1).find_map(|rest| {
        let imported = rest.starts_with("::{") || rest.trim_start().starts_with("as ");
        let end = if imported { rest.find(';') } else { rest.find([';', ' ', '(', ',', '>', '}']) };
        let path = &rest[..end.unwrap_or(rest.len())];
        inner(path).then(|| format!("keygate_engine{path}"))
    })
}

#[test]
fn the_state_machine_is_deterministic_by_construction() {
    for (path, text) in sources("engine") {
        if !path.components().any(|part| part.as_os_str() == "mvcc") {
            continue;
        }
        for word in ["HashMap", "HashSet", "SystemTime", "Instant", "rand::", "std::fs", "async fn", ".await"]
        {
            let uses = text.lines().any(|line| line.contains(word) && !line.trim_start().starts_with("//"));
            assert!(!uses, "{} uses {word}", path.display());
        }
    }
}

#[test]
fn no_page_of_the_project_names_a_place_outside_it() {
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"] {
        let path = root().join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("{name} is missing"));
        assert!(!text.contains("../"), "{name} points outside the repository");
    }
}
