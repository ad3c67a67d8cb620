//! Bundles made of texts.
#![allow(dead_code, reason = "each test binary uses a part")]

use keygate_policies::BUNDLE_MODEL;
use keygate_policies::bundle::{Bundle, Files, Manifest};

/// Files of a bundle whose manifest fits them.
pub(crate) fn files(policy: &str, roles: &str, tests: &str) -> Files {
    let mut files = Files::default();
    files.insert("model.conf", BUNDLE_MODEL.into());
    files.insert("policy.csv", policy.into());
    files.insert("roles.csv", roles.into());
    if !tests.is_empty() {
        files.insert("tests/all.yaml", tests.into());
    }
    sealed(files)
}

/// The same files with a manifest that fits them.
pub(crate) fn sealed(mut files: Files) -> Files {
    let manifest = Manifest::of(&files, 7);
    files.insert("manifest.json", manifest.to_bytes());
    files
}

pub(crate) fn bundle(policy: &str, roles: &str) -> Bundle {
    match Bundle::read(&files(policy, roles, "")) {
        Ok(bundle) => bundle,
        Err(findings) => panic!("{findings:#?}\nin\n{policy}\n{roles}"),
    }
}
