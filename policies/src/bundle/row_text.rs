//! Lines of `policy.csv` and `roles.csv` to rows; every wrong column of a line is reported.

use super::condition::Conditions;
use super::condition_text;
use super::csv::Line;
use super::escape::unescape;
use super::finding::{Finding, Rule};
use super::pattern::{self, Bare};
use super::row::{Effect, Link, OnPartial, Row, RowAction, Subject, Tenant, Verb};
use keygate_core::KeyRange;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) const POLICY: &str = "policy.csv";
pub(crate) const ROLES: &str = "roles.csv";
const NAME_LIMIT: usize = 256;
const TENANT_LIMIT: usize = 63;
const SUBJECTS: &str = "`user:NAME`, `group:NAME`, `role:NAME`, `user:*`";

/// Makes rows, and keeps one copy of each name and condition.
#[derive(Default)]
pub(crate) struct Reader {
    names: BTreeSet<Arc<str>>,
    conditions: BTreeMap<String, (Arc<Conditions>, Option<OnPartial>)>,
}

impl Reader {
    pub(crate) fn row(&mut self, line: &Line<'_>, findings: &mut Vec<Finding>) -> Option<Row> {
        let (columns, conditions) = match line.columns.as_slice() {
            ["p", columns @ ..] if columns.len() == 5 => (columns, ""),
            ["p", columns @ .., conditions] if columns.len() == 5 => (columns, *conditions),
            ["p", ..] => {
                findings.push(arity(
                    POLICY,
                    line,
                    "`p, SUBJECT, TENANT, PATTERN, ACTION, EFFECT[, CONDITIONS]`",
                ));
                return None;
            }
            _ => {
                findings.push(section(POLICY, line, "g", "`p`; `g` rows are in roles.csv"));
                return None;
            }
        };
        let mut wrong = Wrong { file: POLICY, line: line.number, findings };
        let subject = self.subject(columns[0]).map_err(|error| wrong.push("SUBJECT", error));
        let tenant = self.tenant(columns[1]).map_err(|error| wrong.push("TENANT", error));
        let action = RowAction::from_name(columns[3]).ok_or_else(|| {
            let verbs = Verb::ALL.map(|verb| format!("`{}`", verb.name())).join(", ");
            let accepted = format!("`read`, `write`, `readwrite`, {verbs}");
            wrong.push("ACTION", value(format!("`{}` is no action", columns[3]), &accepted));
        });
        let keys = keys(columns[2], action.as_ref().ok()).map_err(|error| wrong.push("PATTERN", error));
        let read = self.conditions(conditions).map_err(|errors| {
            for error in errors {
                let accepted = Some(error.accepted);
                wrong.push(
                    "CONDITIONS",
                    Broken { rule: Rule::ConditionInvalid, message: error.message, accepted },
                );
            }
        });
        let effect = match columns[4] {
            "allow" => Ok(Effect::Allow),
            "deny" => Ok(Effect::Deny(OnPartial::Reject)),
            other => {
                let message = format!("`{other}` is no effect");
                let accepted = Some("`allow`, `deny`".to_owned());
                wrong.push("EFFECT", Broken { rule: Rule::EffectUnsupported, message, accepted });
                Err(())
            }
        };
        let (Ok(subject), Ok(tenant), Ok(action), Ok(keys), Ok((conditions, on_partial)), Ok(effect)) =
            (subject, tenant, action, keys, read, effect)
        else {
            return None;
        };
        let effect = match (effect, on_partial) {
            (effect, None) => effect,
            (Effect::Deny(_), Some(OnPartial::Filter)) if !action.includes(super::row::Action::Read) => {
                let broken = conflict("`on_partial=filter` on a row that is not about `read`");
                wrong.push("CONDITIONS", broken);
                return None;
            }
            (Effect::Deny(_), Some(on_partial)) => Effect::Deny(on_partial),
            (Effect::Allow, Some(_)) => {
                wrong.push("CONDITIONS", conflict("`on_partial` on an allow row"));
                return None;
            }
        };
        let lint_allowed = line.allowed.iter().map(|rule| (*rule).into()).collect();
        Some(Row { line: line.number, subject, tenant, keys, action, effect, conditions, lint_allowed })
    }

    pub(crate) fn link(&mut self, line: &Line<'_>, findings: &mut Vec<Finding>) -> Option<Link> {
        let columns = match line.columns.as_slice() {
            ["g", columns @ ..] if columns.len() == 3 => columns,
            ["g", ..] => {
                findings.push(arity(ROLES, line, "`g, MEMBER, role:NAME, TENANT`"));
                return None;
            }
            _ => {
                findings.push(section(ROLES, line, "p", "`g`; `p` rows are in policy.csv"));
                return None;
            }
        };
        let mut wrong = Wrong { file: ROLES, line: line.number, findings };
        let members = "`user:NAME`, `group:NAME`, `role:NAME`";
        let member = match self.subject(columns[0]) {
            Ok(Subject::Everybody) => {
                Err(value("`user:*` cannot hold a role: give it rows of its own".to_owned(), members))
            }
            other => other,
        };
        let member = member.map_err(|error| wrong.push("MEMBER", error));
        let role = match self.subject(columns[1]) {
            Ok(Subject::Role(name)) => Ok(name),
            Ok(other) => Err(value(format!("`{other}` is no role"), "`role:NAME`")),
            Err(error) => Err(error),
        };
        let role = role.map_err(|error| wrong.push("ROLE", error));
        let tenant = self.tenant(columns[2]).map_err(|error| wrong.push("TENANT", error));
        let (Ok(member), Ok(role), Ok(tenant)) = (member, role, tenant) else {
            return None;
        };
        let lint_allowed = line.allowed.iter().map(|rule| (*rule).into()).collect();
        Some(Link { line: line.number, member, role, tenant, lint_allowed })
    }

    fn subject(&mut self, text: &str) -> Result<Subject, Broken> {
        let Some((kind, name)) = text.split_once(':') else {
            return Err(value(format!("`{text}` does not say what it names"), SUBJECTS));
        };
        if !matches!(kind, "user" | "group" | "role") {
            return Err(value(format!("`{kind}` is no kind of subject"), SUBJECTS));
        }
        if text == "user:*" {
            return Ok(Subject::Everybody);
        }
        if name.contains('*') {
            let message =
                format!("`{text}` holds a `*`: only `user:*` is a wildcard, and the character is `\\x2a`");
            return Err(value(message, SUBJECTS));
        }
        let name = self.name(name, text)?;
        Ok(match kind {
            "user" => Subject::User(name),
            "group" => Subject::Group(name),
            _ => Subject::Role(name),
        })
    }

    fn name(&mut self, name: &str, text: &str) -> Result<Arc<str>, Broken> {
        let bytes = unescape(name).map_err(|_| {
            value(
                format!("`{text}` has a backslash that is neither `\\\\` nor `\\xNN`"),
                "a name with these escapes",
            )
        })?;
        let Ok(name) = std::str::from_utf8(&bytes) else {
            return Err(value(format!("`{text}` is not UTF-8"), "a name of UTF-8 text"));
        };
        if name.is_empty() {
            return Err(value(format!("`{text}` has no name"), SUBJECTS));
        }
        if name.len() > NAME_LIMIT {
            let message = format!("a name is longer than {NAME_LIMIT} bytes");
            return Err(Broken { rule: Rule::FileLimit, message, accepted: None });
        }
        Ok(self.kept(name))
    }

    fn tenant(&mut self, text: &str) -> Result<Tenant, Broken> {
        if text == "*" {
            return Ok(Tenant::Every);
        }
        if !is_tenant_name(text) {
            let accepted =
                "letters, digits, `.`, `_`, `-`, at most 63, the first a letter or digit; `default`; `*`";
            return Err(value(format!("`{text}` is no tenant's name"), accepted));
        }
        Ok(Tenant::Named(self.kept(text)))
    }

    fn kept(&mut self, name: &str) -> Arc<str> {
        if let Some(kept) = self.names.get(name) {
            return kept.clone();
        }
        let name: Arc<str> = name.into();
        self.names.insert(name.clone());
        name
    }

    fn conditions(
        &mut self,
        text: &str,
    ) -> Result<(Arc<Conditions>, Option<OnPartial>), Vec<condition_text::ConditionError>> {
        if let Some(kept) = self.conditions.get(text) {
            return Ok(kept.clone());
        }
        let column =
            if text.is_empty() { condition_text::Column::default() } else { condition_text::parse(text)? };
        // Different spellings of one condition share it too.
        let spelling = column.conditions.to_string();
        let kept = self.conditions.get(&spelling).filter(|kept| *kept.0 == column.conditions);
        let shared = kept.map_or_else(|| Arc::new(column.conditions), |kept| kept.0.clone());
        self.conditions.insert(text.to_owned(), (shared.clone(), column.on_partial));
        Ok((shared, column.on_partial))
    }
}

pub(crate) fn is_tenant_name(text: &str) -> bool {
    text.len() <= TENANT_LIMIT
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
}

fn keys(text: &str, action: Option<&RowAction>) -> Result<KeyRange, Broken> {
    match (action, text) {
        (Some(RowAction::Verb(_)), "-") => return Ok(KeyRange::everything()),
        (Some(RowAction::Verb(verb)), _) => {
            let message = format!("`{}` is not about keys", verb.name());
            return Err(Broken { rule: Rule::PatternInvalid, message, accepted: Some("`-`".to_owned()) });
        }
        // Which of the two is wrong cannot be known; the action has been reported.
        (None, "-") => return Ok(KeyRange::everything()),
        (Some(_) | None, _) => {}
    }
    pattern::parse(text, Bare::Refused).map_err(|error| Broken {
        rule: error.rule,
        message: error.message,
        accepted: Some(pattern::ACCEPTED.to_owned()),
    })
}

/// One wrong column.
struct Broken {
    rule: Rule,
    message: String,
    accepted: Option<String>,
}

fn value(message: String, accepted: &str) -> Broken {
    Broken { rule: Rule::RowValue, message, accepted: Some(accepted.to_owned()) }
}

fn conflict(message: &str) -> Broken {
    let accepted = Some("`on_partial` on deny rows of `read` or `readwrite`".to_owned());
    Broken { rule: Rule::ConditionInvalid, message: message.to_owned(), accepted }
}

struct Wrong<'a> {
    file: &'static str,
    line: u32,
    findings: &'a mut Vec<Finding>,
}

impl Wrong<'_> {
    fn push(&mut self, column: &'static str, broken: Broken) {
        let mut found = Finding::new(broken.rule, self.file, self.line, broken.message).column(column);
        found.accepted = broken.accepted;
        self.findings.push(found);
    }
}

fn arity(file: &str, line: &Line<'_>, accepted: &str) -> Finding {
    let message = format!("row has {} columns", line.columns.len());
    Finding::new(Rule::RowArity, file, line.number, message).accepted(accepted)
}

fn section(file: &str, line: &Line<'_>, other: &str, accepted: &str) -> Finding {
    let found = line.columns.first().copied().unwrap_or_default();
    let message = if found == other {
        format!("`{found}` rows do not belong here")
    } else {
        format!("`{found}` is no section")
    };
    Finding::new(Rule::RowSection, file, line.number, message).column("SECTION").accepted(accepted)
}
