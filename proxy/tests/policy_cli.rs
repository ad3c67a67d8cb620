//! `keygate policy …` as a person or a CI job runs it: what it prints, and with which code it ends.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

use std::path::Path;
use std::process::Command;

const POLICY: &str = "\
p, role:app, pay, /pay/*, readwrite, allow
p, user:*, pay, /pay/secret/*, read, deny, on_partial=filter
p, role:app, pay, -, compact, allow, connection=mtls
";
const TESTS: &str = "\
- as: {tenant: pay, user: svc}
  allow: [\"put /pay/a\"]
  deny: [\"put /paypal\", compact]
  filtered: {request: \"range /pay/*\", hidden: [\"/pay/secret/*\"]}
";

struct Done {
    code: i32,
    out: String,
    err: String,
}

fn keygate(arguments: &[&str]) -> Done {
    let output = Command::new(env!("CARGO_BIN_EXE_keygate")).arg("policy").args(arguments).output().unwrap();
    Done {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn json(arguments: &[&str]) -> serde_json::Value {
    let done = keygate(&[arguments, &["--output", "json"]].concat());
    serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}: {}", done.out))
}

fn make(folder: &Path, policy: &str) {
    std::fs::create_dir_all(folder.join("tests")).unwrap();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/model/bundle.conf");
    std::fs::copy(model, folder.join("model.conf")).unwrap();
    for (name, text) in
        [("policy.csv", policy), ("roles.csv", "g, user:svc, role:app, pay\n"), ("tests/pay.yaml", TESTS)]
    {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let done = keygate(&["digest", folder.to_str().unwrap()]);
    assert_eq!(done.code, 0, "{}", done.err);
}

#[test]
fn a_bundle_is_made_linted_and_tested() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().to_str().unwrap();
    make(folder.path(), POLICY);
    let done = keygate(&["lint", bundle]);
    assert_eq!((done.code, done.out.as_str()), (0, "ok\n"));
    let done = keygate(&["test", bundle]);
    assert_eq!(
        (done.code, done.out.as_str()),
        (
            0,
            "policy.csv:3: no test needs `p, role:app, pay, -, compact, allow, connection=mtls`\n4 passed, 0 failed; 2 of 3 rows are needed by a test\n"
        )
    );
    let told = json(&["test", bundle]);
    assert_eq!(
        (&told["ok"], &told["passed"], &told["unexercised"][0]["line"]),
        (&true.into(), &4.into(), &3.into())
    );

    // The manifest is of the older file.
    std::fs::write(folder.path().join("policy.csv"), "p, role:app, pay, =/, read, allow\n").unwrap();
    let done = keygate(&["lint", bundle]);
    assert_eq!(done.code, 1);
    assert!(done.out.contains("policy.csv:0: error: ") && done.out.contains("[file-digest]"), "{}", done.out);
    assert!(
        done.out.contains("policy.csv:1: warning: PATTERN: ") && done.out.contains("[directory-as-key]"),
        "{}",
        done.out
    );
    let done = keygate(&["test", bundle]);
    assert_eq!((done.code, done.out.as_str()), (2, ""));
    assert!(done.err.contains("[file-digest]"), "{}", done.err);
    assert_eq!(json(&["test", bundle])["findings"][0]["rule"], "file-digest");
    keygate(&["digest", bundle, "--revision", "9"]);
    let done = keygate(&["test", bundle]);
    assert_eq!(done.code, 1);
    assert!(
        done.out
            .contains("tests/pay.yaml:1: svc@pay: `write =/pay/a` must be allowed and is denied by no row"),
        "{}",
        done.out
    );
    assert_eq!(keygate(&["lint", "/nowhere"]).code, 2);
}

#[test]
fn questions_are_answered_with_their_reasons() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path(), POLICY);
    let bundle = folder.path().to_str().unwrap();
    let ask = |command: &str, more: &[&str]| {
        keygate(&[&[command, "--bundle", bundle, "--tenant", "pay", "--user", "svc"], more].concat())
    };
    for (request, out, code) in [
        (&["put", "/pay/a"][..], "yes\n", 0),
        (&["put", "/pay"], "no\n", 1),
        (&["range", "[/pay/, /pay0)"], "partial\n", 1),
        (&["--connection", "mtls", "compact"], "yes\n", 0),
        (&["--connection", "tls", "compact"], "no\n", 1),
    ] {
        let done = ask("can-i", request);
        assert_eq!((done.out.as_str(), done.code), (out, code), "{request:?} {}", done.err);
    }
    let done = ask("explain", &["compact"]);
    assert_eq!(done.code, 1);
    assert!(done.out.contains("nearest     policy.csv:3: p, role:app, pay, -, compact, allow, connection=mtls (does not fit: conditions)"), "{}", done.out);
    let told = json(&["explain", "--bundle", bundle, "--tenant", "pay", "--user", "svc", "range", "/pay/*"]);
    assert_eq!(
        (&told["outcome"], &told["hidden"][0], &told["by"]["line"]),
        (&"filtered".into(), &"/pay/secret/*".into(), &2.into())
    );
    let asked = ["can-i", "--bundle", bundle, "--tenant", "pay", "--user", "svc", "range", "/pay/*"];
    let told = json(&asked);
    assert_eq!((&told["outcome"], &told["hidden"][0]), (&"partial".into(), &"/pay/secret/*".into()));
    let done = ask("explain", &["range", "/pay/*"]);
    assert!(
        done.out.contains("read /pay/*: filtered\nfiltered by row policy.csv:2: p, user:*"),
        "{}",
        done.out
    );
    assert!(done.out.contains("\nmatched     policy.csv:1"), "{}", done.out);
    let done = keygate(&["who-can", "--bundle", bundle, "--tenant", "pay", "range", "/pay/*"]);
    assert_eq!((done.code, done.out.as_str()), (0, "user:svc partial  (policy.csv:2)\n"));
    let done = keygate(&["who-can", "--bundle", bundle, "--tenant", "pay", "compact"]);
    assert_eq!((done.code, done.out.as_str()), (0, "user:svc when connection=mtls  (policy.csv:3)\n"));
    assert_eq!(keygate(&["who-can", "--bundle", bundle, "compact"]).code, 1);
    for broken in
        [&["fly", "/a"][..], &["put", "/a*"], &["--source", "x", "compact"], &["--at", "noon", "compact"]]
    {
        assert_eq!(ask("can-i", broken).code, 2, "{broken:?}");
    }
}

#[test]
fn differences_are_printed_and_counted_in_the_exit_code() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make(old.path(), POLICY);
    make(new.path(), &POLICY.replace("readwrite", "read"));
    let (old, new) = (old.path().to_str().unwrap(), new.path().to_str().unwrap());
    let done = keygate(&["diff", old, new]);
    assert_eq!((done.code, done.out.as_str()), (1, "pay: user:svc loses write /pay/*\n"));
    let told = json(&["diff", old, new]);
    assert_eq!((&told["equivalent"], &told["deltas"][0]["who"][0]), (&false.into(), &"user:svc".into()));
    assert_eq!(told["first_rights"], serde_json::json!([]));
    let done = keygate(&["diff", old, old]);
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "", ""));
    assert_eq!(json(&["diff", old, old])["equivalent"], true);
    // Whether somebody has taken the name is known to a server only.
    let newer = tempfile::tempdir().unwrap();
    make(newer.path(), &format!("{POLICY}p, user:deploy, pay, /pay/*, read, allow\n"));
    let newer = newer.path().to_str().unwrap();
    let told = json(&["diff", old, newer]);
    assert_eq!(
        told["first_rights"],
        serde_json::json!([{ "user": "deploy", "tenant": "pay", "exists": null }])
    );
    let done = keygate(&["diff", old, newer]);
    assert!(done.out.starts_with("pay: user:deploy gains read "), "{}", done.out);
    assert!(
        done.err.contains("`deploy` of `pay`. Which of these users are there already tells"),
        "{}",
        done.err
    );
}

/// PEM of an Ed25519 key whose 32 bytes are given: openssl's form, around a fixed beginning.
fn pem(label: &str, beginning: &[u8], key: &[u8]) -> String {
    let bytes = [beginning, key].concat();
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let number = chunk.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = alphabet[(number >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { digit.into() } else { '=' });
        }
    }
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

#[test]
fn bundles_are_signed_and_verified() {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    let folder = tempfile::tempdir().unwrap();
    let bundle_folder = folder.path().join("bundle");
    make(&bundle_folder, POLICY);
    let bundle = bundle_folder.to_str().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for (number, seed) in [[1_u8; 32], [2; 32]].iter().enumerate() {
        let private = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        let public = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).unwrap();
        std::fs::write(file(&format!("{number}.key")), pem("PRIVATE KEY", &private, seed)).unwrap();
        std::fs::write(
            file(&format!("{number}.pub")),
            pem("PUBLIC KEY", &public, pair.public_key().as_ref()),
        )
        .unwrap();
    }
    let verify = |more: &[&str]| keygate(&[&["verify", bundle], more].concat()).code;
    let (first, second) = (file("0.pub"), file("1.pub"));
    assert_eq!(verify(&["--key", &first]), 1);
    let done = keygate(&["sign", bundle, "--key", &file("0.key")]);
    assert!(done.code == 0 && done.out.starts_with("signed revision 1, sha256:"), "{}{}", done.out, done.err);
    assert_eq!(verify(&["--key", &first]), 0);
    assert_eq!(verify(&["--key", &first, "--key", &second]), 1);
    assert_eq!(verify(&["--key", &first, "--key", &second, "--need", "1"]), 0);
    assert_eq!(verify(&["--key", &first, "--key", &first, "--need", "2"]), 2);
    assert_eq!(verify(&["--key", &first, "--need", "0"]), 2);
    assert_eq!(verify(&["--key", &file("0.key")]), 2);
    assert_eq!(json(&["verify", bundle, "--key", &first])["ok"], true);
    assert_eq!(keygate(&["lint", bundle]).code, 0);
    std::fs::write(bundle_folder.join("README.md"), "new").unwrap();
    assert_eq!(verify(&["--key", &first]), 2);
    assert_eq!(keygate(&["sign", bundle, "--key", &file("0.key")]).code, 2);
    let refused = json(&["sign", bundle, "--key", &file("0.key")]);
    assert!(refused["ok"] == false && refused["findings"][0]["rule"] == "file-unlisted", "{refused}");
    let sealed = json(&["digest", bundle]);
    assert!(sealed["usable"] == true && sealed["revision"] == 1, "{sealed}");
    assert_eq!(verify(&["--key", &first]), 1);
    let signed = json(&["sign", bundle, "--key", &file("0.key")]);
    assert!(signed["ok"] == true && signed["digest"] == sealed["digest"], "{signed}");
    let verified = json(&["verify", bundle, "--key", &first]);
    assert!(verified["ok"] == true && verified["signed_by"][0] == signed["key"], "{verified}");
}
