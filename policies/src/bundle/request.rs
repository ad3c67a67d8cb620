//! Requests as tests and tools write them: `put /a/b`, `range [/a/, /a0)`, `compact`.

use super::pattern;
use super::pattern::RangeText;
use super::row::{Action, Verb};
use keygate_core::KeyRange;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// One thing that somebody wants to do. For an administrative action the keys are everything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    pub action: Action,
    pub keys: KeyRange,
}

#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum RequestError {
    #[error(
        "request `{text}` begins with no action; accepted: `get`, `range`, `watch`, `read`, `put`, `delete`, `write`, or {}",
        verbs()
    )]
    Action { text: String },
    #[error("request `{text}` names no keys; accepted: `{text} KEYS`")]
    NoKeys { text: String },
    #[error("request `{text}`: `{verb}` is not about keys")]
    Keys { text: String, verb: &'static str },
    #[error("request `{text}`: a put is of one key")]
    Put { text: String },
    #[error("request `{text}`: {message}")]
    Pattern { text: String, message: String },
}

fn verbs() -> String {
    Verb::ALL.map(|verb| format!("`{}`", verb.name())).join(", ")
}

impl FromStr for Request {
    type Err = RequestError;

    fn from_str(text: &str) -> Result<Self, RequestError> {
        let text = text.trim();
        let owned = || text.to_owned();
        let (word, keys) = text.split_once([' ', '\t']).unwrap_or((text, ""));
        let keys = keys.trim();
        let action = match word {
            "get" | "range" | "watch" | "read" => Action::Read,
            "put" | "delete" | "write" => Action::Write,
            _ => {
                let verb = Verb::ALL.into_iter().find(|verb| verb.name() == word);
                let verb = verb.ok_or_else(|| RequestError::Action { text: owned() })?;
                if !keys.is_empty() {
                    return Err(RequestError::Keys { text: owned(), verb: verb.name() });
                }
                return Ok(Self { action: Action::Verb(verb), keys: KeyRange::everything() });
            }
        };
        if keys.is_empty() {
            return Err(RequestError::NoKeys { text: owned() });
        }
        let keys =
            pattern::key_range(keys).map_err(|message| RequestError::Pattern { text: owned(), message })?;
        if word == "put" && !matches!(keys, KeyRange::Single(_)) {
            return Err(RequestError::Put { text: owned() });
        }
        Ok(Self { action, keys })
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.action {
            Action::Verb(verb) => f.write_str(verb.name()),
            action => write!(f, "{} {}", action.name(), RangeText(&self.keys)),
        }
    }
}
