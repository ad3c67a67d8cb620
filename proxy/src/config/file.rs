//! The configuration file: etcd's YAML (or JSON) keys, with the section `keygate:` beside them.
//!
//! `keygate` refuses a key that it does not know, because a setting that is silently not applied is how servers end up
//! open. Called as `etcd` it does what etcd does and goes on, but says so.

use serde_norway::Value;

use super::{
    Mode, Warning, limits,
    problem::{Problem, Problems, did_you_mean},
    raw::{Meaning, Raw, Source, legacy_warning, renamed_warning},
    table::{self, Effect, Flag, Kind, Section},
    values,
};

/// Reads the file at `path`.
pub(super) fn read(mode: Mode, path: &str) -> (Raw, Vec<Warning>, Problems) {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(mode, &text),
        Err(error) => {
            let mut problems = Problems::default();
            problems.add(path, format!("cannot read the configuration file: {error}"));
            (Raw::default(), Vec::new(), problems)
        }
    }
}

pub(super) fn parse(mode: Mode, text: &str) -> (Raw, Vec<Warning>, Problems) {
    let mut reader =
        Reader { mode, raw: Raw::default(), warnings: Vec::new(), problems: Problems::default() };
    match serde_norway::from_str::<Value>(text) {
        Ok(Value::Null) => {}
        Ok(Value::Mapping(keys)) => reader.section(Section::Top, &keys),
        Ok(_) => reader.problems.add("configuration file", "not a list of `key: value` lines"),
        Err(error) => reader.problems.add("configuration file", format!("not YAML: {error}")),
    }
    (reader.raw, reader.warnings, reader.problems)
}

struct Reader {
    mode: Mode,
    raw: Raw,
    warnings: Vec<Warning>,
    problems: Problems,
}

impl Reader {
    fn section(&mut self, section: Section, keys: &serde_norway::Mapping) {
        for (key, value) in keys {
            let Some(key) = key.as_str() else {
                self.problems.add(section.name(), format!("a key must be a text, not {}", name_of(key)));
                continue;
            };
            let nested =
                Section::NESTED.into_iter().find(|nested| section == Section::Top && nested.name() == key);
            if section == Section::Top && key == limits::SECTION {
                self.raw.limits = Some(value.clone());
                continue;
            }
            match (nested, value) {
                (Some(_), Value::Null) => {}
                (Some(nested), Value::Mapping(keys)) => self.section(nested, keys),
                (Some(_), other) => {
                    self.problems.add(key, format!("a section of keys is expected, not {}", name_of(other)))
                }
                (None, value) => self.key(section, key, value),
            }
        }
    }

    fn key(&mut self, section: Section, key: &str, value: &Value) {
        let path = if section == Section::Top { key.to_owned() } else { format!("{}.{key}", section.name()) };
        let flag = match table::by_key(section, key) {
            Some(flag) => flag,
            None if section == Section::Top => match Meaning::of(key) {
                Meaning::Renamed(flag) if flag.section == Section::Top => {
                    self.warnings.push(renamed_warning(&path, flag.key));
                    flag
                }
                Meaning::Gate(gate) => {
                    self.warnings.push(renamed_warning(&path, &format!("feature-gates: {gate}=…")));
                    let flag = table::by_name("feature-gates").expect("it is in the table");
                    if let Value::Bool(on) = value {
                        self.raw.put(flag, format!("{gate}={on}"), Source::File(path));
                    } else {
                        self.wrong_kind(flag, path, Kind::Bool.accepted(), value);
                    }
                    return;
                }
                Meaning::Legacy if self.mode == Mode::Etcd => {
                    self.warnings.push(legacy_warning(&path));
                    return;
                }
                Meaning::Flag(_) | Meaning::Renamed(_) | Meaning::Legacy | Meaning::Unknown => {
                    return self.unknown(section, key, path);
                }
            },
            None => return self.unknown(section, key, path),
        };
        match as_text(flag, value) {
            Some(Some(text)) => self.raw.put(flag, text, Source::File(path)),
            // `key:` with nothing behind it is how etcd's own sample file leaves a setting alone.
            Some(None) => {}
            None => self.wrong_kind(flag, path, flag.kind.accepted(), value),
        }
    }

    fn wrong_kind(&mut self, flag: &Flag, path: String, accepted: Option<String>, value: &Value) {
        let accepted =
            accepted.or_else(|| Some(if flag.kind == Kind::List { "a list" } else { "a text" }.to_owned()));
        self.problems.push(Problem {
            path,
            message: format!("{} does not fit here", name_of(value)),
            accepted,
        });
    }

    fn unknown(&mut self, section: Section, key: &str, path: String) {
        let elsewhere = table::all().find(|flag| {
            !matches!(flag.effect, Effect::CommandLine)
                && (flag.name == key || flag.key == key)
                && flag.section != section
        });
        let here = table::all().filter(|flag| flag.section == section).map(|flag| flag.key);
        let sections = Section::NESTED.into_iter().map(Section::name).chain([limits::SECTION]);
        let sections = sections.filter(|_| section == Section::Top);
        let hint = match (elsewhere, did_you_mean(key, here.chain(sections))) {
            (Some(flag), _) => format!("; it is written `{}`", flag.path()),
            (None, Some(near)) => format!("; did you mean `{near}`?"),
            (None, None) => String::new(),
        };
        match self.mode {
            Mode::Keygate => self.problems.add(path, format!("unknown key{hint}")),
            Mode::Etcd => {
                self.warnings
                    .push(Warning { message: format!("unknown key, ignored as etcd does{hint}"), path });
            }
        }
    }
}

/// The text that a flag would have had. `Some(None)` is an empty value; `None` a value of another kind.
fn as_text(flag: &Flag, value: &Value) -> Option<Option<String>> {
    let scalar = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(on) => Some(on.to_string()),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => None,
    };
    match (flag.kind, value) {
        (_, Value::Null) => Some(None),
        (Kind::Bool, Value::Bool(on)) => Some(Some(on.to_string())),
        (Kind::Bool, _) | (_, Value::Mapping(_) | Value::Tagged(_)) => None,
        // etcd's file holds durations as integers of nanoseconds; texts such as `5s` are ours.
        (Kind::Duration, Value::Number(number)) => {
            let nanos = values::nanoseconds(number.as_u64()?.into())?;
            Some(Some(values::show_duration(nanos)))
        }
        (Kind::List | Kind::Urls, Value::Sequence(items)) => {
            let items = items.iter().map(scalar).collect::<Option<Vec<_>>>()?;
            Some(Some(items.join(",")))
        }
        (_, Value::Sequence(_)) => None,
        (Kind::Unsigned | Kind::Milliseconds | Kind::Size, Value::Bool(_)) => None,
        // An empty text leaves the default, as in etcd; where empty is itself a value, it is the default.
        (_, Value::String(text)) if text.is_empty() => Some(None),
        (_, value) => scalar(value).map(Some),
    }
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a section",
        Value::Tagged(_) => "a tagged value",
    }
}
