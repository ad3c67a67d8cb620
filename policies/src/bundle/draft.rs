//! A bundle as far as it could be read, and a bundle that can be used.

use super::csv::lines;
use super::files::Files;
use super::finding::{Finding, Rule, Severity};
use super::manifest::{self, MODEL, Manifest};
use super::row::{Link, Row};
use super::row_text::{POLICY, ROLES, Reader};
use super::test_case::{self, TestCase};
use super::{manifest::digest_of, roles};
use crate::model::{self, BundleModelError};

/// Whatever of a bundle could be read, beside everything that is wrong with it.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    pub manifest: Option<Manifest>,
    pub rows: Vec<Row>,
    pub links: Vec<Link>,
    pub tests: Vec<TestCase>,
    /// Errors only; `lint` adds warnings.
    pub findings: Vec<Finding>,
    digest: String,
}

impl Draft {
    pub fn read(files: &Files) -> Self {
        let mut findings = Vec::new();
        let manifest = manifest::check(files, &mut findings);
        if let Some(bytes) = files.get(MODEL) {
            check_model(bytes, &mut findings);
        }
        let mut reader = Reader::default();
        let (mut rows, mut links, mut tests) = (Vec::new(), Vec::new(), Vec::new());
        lines(POLICY, files.get(POLICY).unwrap_or_default(), &mut findings, |line, findings| {
            rows.extend(reader.row(&line, findings));
        });
        lines(ROLES, files.get(ROLES).unwrap_or_default(), &mut findings, |line, findings| {
            links.extend(reader.link(&line, findings));
        });
        roles::check(&rows, &links, &mut findings);
        for (path, bytes) in files.iter() {
            if path.starts_with("tests/") && path.ends_with(".yaml") {
                tests.extend(test_case::read(path, bytes, &mut findings));
            }
        }
        findings.sort();
        let digest = digest_of(files.get(manifest::MANIFEST).unwrap_or_default());
        Self { manifest, rows, links, tests, findings, digest }
    }

    /// The bundle, if nothing is wrong with it.
    ///
    /// # Errors
    /// Everything that is.
    pub fn into_bundle(self) -> Result<Bundle, Vec<Finding>> {
        match self.manifest {
            Some(manifest) if self.findings.iter().all(|found| found.severity() != Severity::Error) => {
                Ok(Bundle {
                    manifest,
                    digest: self.digest,
                    rows: self.rows,
                    links: self.links,
                    tests: self.tests,
                })
            }
            _ => Err(self.findings),
        }
    }
}

/// A bundle in which nothing is wrong.
#[derive(Clone, Debug)]
pub struct Bundle {
    manifest: Manifest,
    digest: String,
    rows: Vec<Row>,
    links: Vec<Link>,
    tests: Vec<TestCase>,
}

impl Bundle {
    /// # Errors
    /// Everything that is wrong with the files.
    pub fn read(files: &Files) -> Result<Self, Vec<Finding>> {
        Draft::read(files).into_bundle()
    }

    /// Without rows: what is in force where there is no bundle.
    pub fn empty() -> Self {
        Self {
            manifest: Manifest::of(&Files::default(), 0),
            digest: String::new(),
            rows: Vec::new(),
            links: Vec::new(),
            tests: Vec::new(),
        }
    }

    pub fn revision(&self) -> u64 {
        self.manifest.revision
    }

    /// `sha256:` of the manifest, which names the whole bundle.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub fn links(&self) -> &[Link] {
        &self.links
    }

    pub fn tests(&self) -> &[TestCase] {
        &self.tests
    }
}

fn check_model(bytes: &[u8], findings: &mut Vec<Finding>) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        findings.push(Finding::new(Rule::FileEncoding, MODEL, 0, "file is not UTF-8"));
        return;
    };
    let Err(error) = model::check_bundle_model(text) else {
        return;
    };
    let (rule, section) = match &error {
        BundleModelError::DefaultAllow => (Rule::ModelDefaultAllow, "e"),
        BundleModelError::Effect { .. } => (Rule::EffectUnsupported, "e"),
        BundleModelError::Other(
            model::ModelError::Missing { section } | model::ModelError::Unsupported { section, .. },
        ) => (Rule::ModelUnsupported, *section),
        BundleModelError::Other(_) => (Rule::ModelUnsupported, ""),
    };
    // Where the section is defined, by its name before the `=`.
    let defines = |line: &str| line.split_once('=').is_some_and(|(name, _)| name.trim() == section);
    let line = text.lines().position(defines).and_then(|at| u32::try_from(at + 1).ok()).unwrap_or(0);
    let found = Finding::new(rule, MODEL, line, error.to_string());
    findings.push(found.accepted("the model of the format page, word for word"));
}
