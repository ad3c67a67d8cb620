//! Files that operators hand to the server: settings, limits, identity rules and policy bundles.
//!
//! The first byte says which. Nothing panics or costs much, what is refused is refused with a reason, and of what is
//! accepted: a bundle that is written again reads the same, and one that counts as signed has the manifest that was.
#![no_main]

mod bounds;

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use keygate::config::{ClientTls, LimitsSource, ListenUrl, Mode, Scheme, load_text};
use keygate::identify::rules::{CertificateNames, Rules};
use keygate_core::KeyRange;
use keygate_policies::bundle::{
    Action, Bundle, Context, Draft, Files, Manifest, SigningKey, VerifyingKey, verify,
};
use keygate_policies::{Asker, BundlePolicy};
use libfuzzer_sys::fuzz_target;

/// Of a bundle that was signed.
struct Signed {
    files: Files,
    key: VerifyingKey,
}

static SIGNED: LazyLock<Signed> = LazyLock::new(|| {
    // PKCS#8 of Ed25519 is a fixed beginning and 32 bytes.
    let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    der.extend([9; 32]);
    let signer = SigningKey::from_pkcs8(&der).expect("a key");
    let mut files = Files::default();
    files.insert("manifest.json", MANIFEST.to_vec());
    files.insert("SIGNATURES", signer.sign(&files).expect("there is a manifest").into_bytes());
    Signed { files, key: signer.verifying_key() }
});

/// What was signed. A signature is of these bytes, whatever they say.
const MANIFEST: &[u8] = br#"{"format":1,"revision":7,"min_keygate":"0.1.0","files":{}}"#;

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    LazyLock::force(&SIGNED);
    bounds::bounded(|| match kind % 9 {
        0 => settings(Mode::Keygate, data),
        1 => settings(Mode::Etcd, data),
        2 => limits(&LimitsSource::File(PathBuf::new()), data),
        3 => limits(&LimitsSource::Section(PathBuf::new()), data),
        4 => identity_rules(data),
        5 => match Files::from_tar(data) {
            Ok(files) => tar(&files),
            Err(why) => assert!(!why.to_string().is_empty()),
        },
        // One file of a bundle as it may be: those of its manifest were refused for their digests.
        6 => listed(data),
        7 => manifest(data),
        _ => signatures(data),
    });
});

/// Files whose manifest has their digests.
fn example() -> Files {
    let mut files = Files::default();
    for (path, bytes) in [
        ("model.conf", include_bytes!("../../policies/cases/example/model.conf").as_slice()),
        ("policy.csv", include_bytes!("../../policies/cases/example/policy.csv")),
        ("roles.csv", include_bytes!("../../policies/cases/example/roles.csv")),
    ] {
        files.insert(path, bytes.to_vec());
    }
    files
}

fn settings(mode: Mode, data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match load_text(mode, text) {
        Ok(loaded) => {
            assert!(!loaded.config.listen_client.is_empty());
            let https = |url: &ListenUrl| url.scheme == Scheme::Https;
            let is_open =
                loaded.config.tls == ClientTls::Off || !loaded.config.listen_client.iter().all(https);
            assert!(mode == Mode::Etcd || !is_open, "Keygate would serve without TLS");
        }
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
}

fn limits(source: &LimitsSource, data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match source.parse(text) {
        Ok(rules) => assert!(source.parse(text).is_ok_and(|again| again == rules)),
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
}

fn identity_rules(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Of a folder without files: which ones a mutated text names is not to be tried.
    if text.contains("keys-file") {
        return;
    }
    let rules = match Rules::parse(text, Path::new("/nonexistent")) {
        Ok(rules) => rules,
        Err(problems) => {
            assert!(!problems.is_empty() && problems.iter().all(|problem| !problem.is_empty()));
            return;
        }
    };
    let texts = || vec!["root".to_owned(), "a.b.svc".to_owned()];
    for uri in ["spiffe://pay/root", "root", "spiffe://pay/ns/a/sa/b", "x"] {
        let names =
            CertificateNames { common_name: Some(uri.into()), dns: texts(), uris: vec![uri.to_owned()] };
        for authority in rules.authorities.iter().map(|one| one.name.clone()).chain(["platform".into()]) {
            if let Ok(found) = rules.certificate(&authority, &names) {
                // Two URIs are nobody, whoever one of them is.
                let twice = CertificateNames { uris: vec![uri.to_owned(); 2], ..names.clone() };
                assert!(found.rule.is_none() || rules.certificate(&authority, &twice).is_err());
            }
        }
    }
}

fn tar(files: &Files) {
    // A path can be longer than we write it.
    for again in [files.to_tar(), files.to_packed_tar()].into_iter().flatten() {
        assert!(Files::from_tar(&again).as_ref().ok() == Some(files), "files of a tar changed on their way");
    }
    bundle(files);
}

/// The input in the place of one of the files, and a manifest that lists it.
fn listed(data: &[u8]) {
    let Some((which, data)) = data.split_first() else { return };
    let mut files = example();
    let paths = ["policy.csv", "roles.csv", "model.conf", "tests/a.yaml", "README.md"];
    files.insert(paths[usize::from(*which) % paths.len()], data.to_vec());
    let manifest = Manifest::of(&files, 7);
    files.insert("manifest.json", manifest.to_bytes());
    bundle(&files);
}

fn bundle(files: &Files) {
    let bundle = match Bundle::read(files) {
        Ok(bundle) => bundle,
        Err(findings) => {
            assert!(!findings.is_empty(), "refused without a finding");
            for finding in findings {
                assert!(!finding.message.is_empty() && !finding.to_string().is_empty());
            }
            return;
        }
    };
    let mut again = files.clone();
    again.insert("policy.csv", lines(bundle.rows()).into_bytes());
    again.insert("roles.csv", lines(bundle.links()).into_bytes());
    again.remove("SIGNATURES");
    let manifest = Manifest::of(&again, bundle.revision());
    again.insert("manifest.json", manifest.to_bytes());
    let again = Draft::read(&again);
    assert_eq!(again.findings, Vec::new(), "what was written cannot be read");
    assert_eq!(lines(&again.rows), lines(bundle.rows()));
    assert_eq!(lines(&again.links), lines(bundle.links()));
    for (row, written) in bundle.rows().iter().zip(&again.rows) {
        assert_eq!((&row.keys, &row.conditions), (&written.keys, &written.conditions), "{row}");
    }
    let policy = BundlePolicy::compile(Arc::new(bundle));
    let asker = Asker { tenant: "pay", user: "ann", groups: &["ops"] };
    let everything = KeyRange::From(Default::default());
    for action in Action::all() {
        let _ = policy.decide(&asker, &Context::default(), action, &everything);
        let _ = policy.decided_until(&asker, &Context::default(), action);
    }
}

fn lines<T: std::fmt::Display>(rows: &[T]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

fn manifest(data: &[u8]) {
    let Some(manifest) = Manifest::read(data) else { return };
    assert_eq!(Manifest::read(&manifest.to_bytes()), Some(manifest));
}

/// Signatures, and behind a zero byte what they are to be of.
fn signatures(data: &[u8]) {
    let Signed { files: genuine, key } = &*SIGNED;
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let mut files = genuine.clone();
    files.insert("SIGNATURES", parts.next().unwrap_or_default().to_vec());
    if let Some(manifest) = parts.next() {
        files.insert("manifest.json", manifest.to_vec());
    }
    match verify(&files, std::slice::from_ref(key), 1) {
        Ok(ids) => {
            assert_eq!(ids, [key.id()]);
            assert_eq!(files.get("manifest.json"), genuine.get("manifest.json"), "nobody signed this");
        }
        Err(why) => assert!(!why.to_string().is_empty()),
    }
}
