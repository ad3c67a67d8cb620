//! `tests/NAME.yaml`: what must be allowed and denied.

use super::condition::{Connection, Context};
use super::finding::{Finding, Rule};
use super::pattern::key_range;
use super::request::Request;
use keygate_core::KeyRange;
use serde::Deserialize;

/// Deeper or longer files are no tests of a policy.
const CASE_LIMIT: usize = 100_000;

/// One entry of a file.
#[derive(Clone, Debug)]
pub struct TestCase {
    pub file: String,
    /// Where the entry begins, where that can be told; else 0.
    pub line: u32,
    pub tenant: String,
    pub user: String,
    pub groups: Vec<String>,
    pub context: Context,
    pub allow: Vec<Request>,
    pub deny: Vec<Request>,
    pub filtered: Vec<Filtered>,
}

/// A request that must be answered without some keys.
#[derive(Clone, Debug)]
pub struct Filtered {
    pub request: Request,
    pub hidden: Vec<KeyRange>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCase {
    r#as: RawCaller,
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    deny: Vec<String>,
    #[serde(default)]
    filtered: Option<RawFilteredList>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCaller {
    #[serde(default = "default_tenant")]
    tenant: String,
    user: String,
    #[serde(default)]
    groups: Vec<String>,
    source: Option<String>,
    at: Option<String>,
    connection: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFiltered {
    request: String,
    hidden: Vec<String>,
}

/// One may be written without the list.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawFilteredList {
    One(RawFiltered),
    Many(Vec<RawFiltered>),
}

fn default_tenant() -> String {
    "default".to_owned()
}

/// Reads one file and reports everything wrong in it.
pub(crate) fn read(file: &str, bytes: &[u8], findings: &mut Vec<Finding>) -> Vec<TestCase> {
    let invalid = |line, message: String| Finding::new(Rule::TestInvalid, file, line, message);
    let Ok(text) = std::str::from_utf8(bytes) else {
        findings.push(Finding::new(Rule::FileEncoding, file, 0, "file is not UTF-8"));
        return Vec::new();
    };
    let raw: Vec<RawCase> = match serde_norway::from_str(text) {
        Ok(raw) => raw,
        Err(error) => {
            let line = error.location().and_then(|at| u32::try_from(at.line()).ok()).unwrap_or(0);
            let found = invalid(line, format!("tests cannot be read: {error}"));
            findings.push(found.accepted("a list of `as`, `allow`, `deny`, `filtered`"));
            return Vec::new();
        }
    };
    if raw.len() > CASE_LIMIT {
        findings.push(Finding::new(Rule::FileLimit, file, 0, format!("more than {CASE_LIMIT} tests")));
        return Vec::new();
    }
    let lines = entry_lines(text);
    let mut cases = Vec::with_capacity(raw.len());
    for (index, raw) in raw.into_iter().enumerate() {
        let line = lines.get(index).copied().unwrap_or(0);
        cases.push(case(file, line, raw, &mut |message| findings.push(invalid(line, message))));
    }
    cases
}

fn case(file: &str, line: u32, raw: RawCase, report: &mut dyn FnMut(String)) -> TestCase {
    let mut context = Context::default();
    let caller = raw.r#as;
    if let Some(text) = &caller.source {
        context.source = text.parse().map_err(|_| report(format!("`source: {text}` is no address"))).ok();
    }
    if let Some(text) = &caller.at {
        let instant = text.parse().map_err(|()| {
            report(format!("`at: {text}` is no time; accepted: {}", super::instant::ACCEPTED));
        });
        context.now = instant.ok();
    }
    if let Some(text) = &caller.connection {
        context.connection = Connection::from_name(text);
        if context.connection.is_none() {
            report(format!(
                "`connection: {text}` is no kind of connection; accepted: `plain`, `tls`, `mtls`"
            ));
        }
    }
    if !super::row_text::is_tenant_name(&caller.tenant) {
        report(format!("`tenant: {}` is no tenant's name", caller.tenant));
    }
    let mut requests = |texts: &[String]| -> Vec<Request> {
        let mut read = |text: &String| text.parse().map_err(|error| report(format!("{error}"))).ok();
        texts.iter().filter_map(&mut read).collect()
    };
    let (allow, deny) = (requests(&raw.allow), requests(&raw.deny));
    let many = match raw.filtered {
        None => Vec::new(),
        Some(RawFilteredList::One(one)) => vec![one],
        Some(RawFilteredList::Many(many)) => many,
    };
    let mut filtered = Vec::new();
    for raw in many {
        let request: Option<Request> = raw.request.parse().map_err(|error| report(format!("{error}"))).ok();
        let hidden: Vec<KeyRange> =
            raw.hidden.iter().filter_map(|text| key_range(text).map_err(&mut *report).ok()).collect();
        filtered.extend(request.map(|request| Filtered { request, hidden }));
    }
    TestCase {
        file: file.to_owned(),
        line,
        tenant: caller.tenant,
        user: caller.user,
        groups: caller.groups,
        context,
        allow,
        deny,
        filtered,
    }
}

/// Lines at which entries of the outermost list begin, in the usual block style.
fn entry_lines(text: &str) -> Vec<u32> {
    let lines = text.lines().zip(1..);
    lines.filter(|(line, _)| line.starts_with("- ") || *line == "-").map(|(_, number)| number).collect()
}
