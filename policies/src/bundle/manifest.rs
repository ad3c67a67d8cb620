//! `manifest.json`: what a bundle is, and which files are it.

use super::files::Files;
use super::finding::{Finding, Rule};
use aws_lc_rs::digest;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;

pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const SIGNATURES: &str = "SIGNATURES";
pub(crate) const MODEL: &str = "model.conf";
pub(crate) const README: &str = "README.md";
const FORMAT: u64 = 1;

/// What the file says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: u64,
    /// The author's count.
    pub revision: u64,
    min_keygate: String,
    #[serde(deserialize_with = "once")]
    files: BTreeMap<String, String>,
}

impl Manifest {
    /// A manifest of these files, for this version of Keygate and newer ones.
    pub fn of(files: &Files, revision: u64) -> Self {
        let listed = files.iter().filter(|(path, _)| is_listed(path));
        Self {
            format: FORMAT,
            revision,
            min_keygate: env!("CARGO_PKG_VERSION").to_owned(),
            files: listed.map(|(path, bytes)| (path.to_owned(), digest_of(bytes))).collect(),
        }
    }

    /// The same with the digests of these files.
    pub fn updated(&self, files: &Files, revision: u64) -> Self {
        Self { min_keygate: self.min_keygate.clone(), ..Self::of(files, revision) }
    }

    /// The revision that a manifest names, if it can be read.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

/// `sha256:` and the digest in hex.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", crate::rows::hex(digest::digest(&digest::SHA256, bytes).as_ref()))
}

fn is_listed(path: &str) -> bool {
    path != MANIFEST && path != SIGNATURES
}

fn is_known(path: &str) -> bool {
    let test = path.strip_prefix("tests/").and_then(|name| name.strip_suffix(".yaml"));
    matches!(path, MANIFEST | SIGNATURES | MODEL | README | "policy.csv" | "roles.csv")
        || test.is_some_and(|name| !name.is_empty() && !name.contains('/'))
}

/// Holds the files against the manifest and reports every difference.
pub(crate) fn check(files: &Files, findings: &mut Vec<Finding>) -> Option<Manifest> {
    for (path, _) in files.iter().filter(|(path, _)| !is_known(path)) {
        let found = Finding::new(Rule::FileUnknown, path, 0, "no file of a bundle has this name");
        findings.push(found.accepted(
            "manifest.json, model.conf, policy.csv, roles.csv, tests/NAME.yaml, README.md, SIGNATURES",
        ));
    }
    for path in [MODEL, "policy.csv", "roles.csv"] {
        if files.get(path).is_none() {
            findings.push(Finding::new(Rule::FileMissing, path, 0, "file is missing"));
        }
    }
    let Some(bytes) = files.get(MANIFEST) else {
        let found = Finding::new(Rule::FileMissing, MANIFEST, 0, "file is missing");
        findings.push(found.accepted("what `keygate policy digest` writes"));
        return None;
    };
    let manifest: Manifest = match serde_json::from_slice(bytes) {
        Ok(manifest) => manifest,
        Err(error) => {
            let line = u32::try_from(error.line()).unwrap_or(0);
            let found = Finding::new(
                Rule::ManifestInvalid,
                MANIFEST,
                line,
                format!("manifest cannot be read: {error}"),
            );
            findings.push(found.accepted("the fields `format`, `revision`, `min_keygate`, `files`"));
            return None;
        }
    };
    check_fields(&manifest, findings);
    for (path, bytes) in files.iter().filter(|(path, _)| is_known(path) && is_listed(path)) {
        match manifest.files.get(path) {
            None => findings.push(
                Finding::new(Rule::FileUnlisted, path, 0, "manifest.json does not list the file")
                    .accepted("what `keygate policy digest` writes"),
            ),
            Some(listed) => {
                let digest = digest_of(bytes);
                if *listed != digest {
                    let message = format!("the file is `{digest}`, manifest.json lists `{listed}`");
                    let found = Finding::new(Rule::FileDigest, path, 0, message);
                    findings.push(
                        found.accepted("the file that was meant, or what `keygate policy digest` writes"),
                    );
                }
            }
        }
    }
    for path in manifest.files.keys() {
        // The three that must be there have been reported.
        let required = matches!(path.as_str(), MODEL | "policy.csv" | "roles.csv");
        if files.get(path).is_none() && !required {
            findings.push(Finding::new(
                Rule::FileMissing,
                path,
                0,
                "manifest.json lists the file, and it is missing",
            ));
        }
    }
    Some(manifest)
}

fn check_fields(manifest: &Manifest, findings: &mut Vec<Finding>) {
    let mut invalid = |column, message, accepted: &str| {
        let found = Finding::new(Rule::ManifestInvalid, MANIFEST, 0, message);
        findings.push(found.column(column).accepted(accepted));
    };
    if manifest.format != FORMAT {
        invalid("format", format!("format {} is not supported", manifest.format), "1");
    }
    if manifest.revision == 0 {
        invalid("revision", "revision is 0".to_owned(), "1 or more");
    }
    let own = version(env!("CARGO_PKG_VERSION"));
    match version(&manifest.min_keygate) {
        None => {
            invalid("min_keygate", format!("`{}` is no version", manifest.min_keygate), "`MAJOR.MINOR.PATCH`")
        }
        Some(needed) if own.is_some_and(|own| own < needed) => {
            let message = format!(
                "the bundle needs Keygate {} and this is {}",
                manifest.min_keygate,
                env!("CARGO_PKG_VERSION")
            );
            findings.push(Finding::new(Rule::ManifestVersion, MANIFEST, 0, message).column("min_keygate"));
        }
        Some(_) => {}
    }
}

fn version(text: &str) -> Option<[u32; 3]> {
    let mut parts = text.split('.').map(|part| {
        let digits = !part.is_empty() && part.len() <= 6 && part.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| part.parse().ok()).flatten()
    });
    let version = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(version)
}

/// A map whose keys may not repeat: readers differ in which of two they take.
fn once<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Once;
    impl<'de> Visitor<'de> for Once {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of paths and digests")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((key, value)) = access.next_entry::<String, String>()? {
                if map.contains_key(&key) {
                    return Err(A::Error::custom(format_args!("`{}` is listed twice", key.escape_default())));
                }
                map.insert(key, value);
            }
            Ok(map)
        }
    }
    deserializer.deserialize_map(Once)
}
