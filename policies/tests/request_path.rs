//! Requests never meet casbin, and no bytes can make a decision panic.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod generated;

use bytes::Bytes;
use generated::{Generator, KEYSPACE};
use keygate_core::KeyRange;
use keygate_policies::Compiler;
use rand::Rng;
use std::fs;
use std::path::Path;

/// What requests meet: the etcd form and that of bundles.
const ON_THE_PATH: [&str; 9] = [
    "compiled.rs",
    "group.rs",
    "interval.rs",
    "decision.rs",
    "membership.rs",
    "segments.rs",
    "bundle/condition.rs",
    "bundle/spans.rs",
    "bundle/instant.rs",
];

/// casbin evaluates a script for each row and panics on some keys, so it must stay where only start,
/// validation and tests go: in `model`. What requests meet must not even name that module.
#[test]
fn decisions_do_not_reach_casbin() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&sources, &mut files);
    let (mut with_casbin, mut met) = (Vec::new(), 0);
    for path in files {
        let name = path.strip_prefix(&sources).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let code = code.join("\n");
        if code.contains("casbin::") {
            with_casbin.push(name.clone());
        }
        if ON_THE_PATH.contains(&name.as_str()) {
            met += 1;
            for word in ["casbin", "crate::model", "crate::rows", "Oracle", "rhai", "String::from_utf8"] {
                assert!(!code.contains(word), "`{name}` names `{word}`");
            }
        }
        assert!(!code.contains("CachedEnforcer") && !code.contains("keyMatch"), "`{name}`");
    }
    with_casbin.sort();
    assert_eq!(with_casbin, ["model.rs", "model/bundle.rs"]);
    assert_eq!(met, ON_THE_PATH.len());
}

fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}

#[test]
fn any_bytes_are_decided() {
    let mut generator = Generator::new(5);
    let compiler = Compiler::new().unwrap();
    let mut decisions = 0_u32;
    for _ in 0..300 {
        generator.renew_keys();
        let policy = compiler.compile_policy(KEYSPACE, &generator.tables());
        for _ in 0..500 {
            let (key, end) = (noise(&mut generator), noise(&mut generator));
            let user = String::from_utf8_lossy(&noise(&mut generator)).into_owned();
            // As the wire decoder makes them, and forms that it never makes.
            for range in [
                KeyRange::from_wire(key.clone(), end.clone()),
                KeyRange::Span { start: key.clone(), end: end.clone() },
                KeyRange::Span { start: key.clone(), end: Bytes::new() },
                KeyRange::Span { start: key.clone(), end: Bytes::from_static(b"\0") },
                KeyRange::Span { start: key.clone(), end: key.clone() },
                KeyRange::Single(key.clone()),
                KeyRange::From(key.clone()),
            ] {
                let action = generator.action();
                policy.user_decide_keys(&user, action, &range);
                let name = generator.name();
                policy.user_decide_keys(&name, action, &range);
                decisions += 2;
            }
        }
    }
    println!("decisions={decisions}");
    assert!(decisions >= 2_000_000);
}

fn noise(generator: &mut Generator) -> Bytes {
    let length = generator.rng.random_range(0..12);
    (0..length).map(|_| generator.rng.random::<u8>()).collect()
}
