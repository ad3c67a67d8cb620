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
