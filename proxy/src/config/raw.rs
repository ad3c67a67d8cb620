//! What an operator wrote, before anybody asks what it means: texts by setting, each with the place it came from.
//!
//! The rules of precedence are etcd's: a file, when one is named, is read alone; otherwise a setting comes from its flag
//! or from its variable, and giving both is an error rather than a riddle.

use std::{collections::BTreeMap, ffi::OsString};

use super::{
    Mode, Warning, file,
    problem::{Problem, Problems, did_you_mean},
    table::{self, Effect, Flag, Kind, Renamed, Section},
};

/// Where a text was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Flag(&'static str),
    Variable(String),
    /// `section.key`.
    File(String),
}

impl Source {
    pub(super) fn path(&self) -> String {
        match self {
            Self::Flag(name) => format!("--{name}"),
            Self::Variable(name) => name.clone(),
            Self::File(path) => path.clone(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub text: String,
    pub source: Source,
}

/// Texts by the name of their flag.
#[derive(Debug, Default)]
pub(super) struct Raw {
    given: BTreeMap<&'static str, Given>,
    /// The section `limits:`, which is not made of single settings.
    pub(super) limits: Option<serde_norway::Value>,
    /// The configuration file that was read.
    pub(super) file: Option<std::path::PathBuf>,
}

impl Raw {
    pub(super) fn get(&self, flag: &str) -> Option<&Given> {
        self.given.get(flag)
    }

    /// Where to point when something about `flag` is wrong, whether it was written or not.
    pub(super) fn path(&self, flag: &str) -> String {
        self.get(flag).map_or_else(|| format!("--{flag}"), |given| given.source.path())
    }

    /// Later writers win, as with Go's flags; feature gates accumulate, because old flags turn into them.
    pub(super) fn put(&mut self, flag: &'static Flag, text: String, source: Source) {
        match self.given.get_mut(flag.name) {
            Some(earlier) if flag.name == "feature-gates" && !earlier.text.is_empty() => {
                earlier.text = format!("{},{text}", earlier.text);
            }
            _ => {
                self.given.insert(flag.name, Given { text, source });
            }
        }
    }
}

/// What a setting's written name stands for.
pub(super) enum Meaning {
    Flag(&'static Flag),
    /// An `experimental-` name that became a plain one.
    Renamed(&'static Flag),
    /// An `experimental-` name that became this feature gate.
    Gate(&'static str),
    Legacy,
    Unknown,
}

impl Meaning {
    pub(super) fn of(name: &str) -> Self {
        if let Some(flag) = table::by_name(name) {
            return Self::Flag(flag);
        }
        match table::renamed(name) {
            Some(Renamed::To(flag)) => Self::Renamed(flag),
            Some(Renamed::Gate(gate)) => Self::Gate(gate),
            None if table::is_legacy(name) => Self::Legacy,
            None => Self::Unknown,
        }
    }
}

/// The arguments after the command, split as Go's flag package splits them.
#[derive(Debug, Default)]
pub struct CommandLine {
    raw: Raw,
    warnings: Vec<Warning>,
    problems: Problems,
    /// Arguments that are not flags.
    stray: Vec<String>,
    pub help: bool,
    pub version: bool,
    pub config_file: Option<String>,
}

impl CommandLine {
    /// `-f v`, `--f v`, `-f=v`, `--f=v`; a boolean takes its value after `=` only. Never fails: what cannot be understood
    /// is kept as a problem, so that the rest is looked at too.
    pub fn parse(arguments: &[OsString]) -> Self {
        let mut line = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let Some(argument) = argument.to_str() else {
                line.usage("command line", format!("argument `{}` is not UTF-8", argument.to_string_lossy()));
                continue;
            };
            let name = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-'));
            let name = match name {
                None => {
                    line.stray.push(argument.to_owned());
                    continue;
                }
                // Go ends the flags at `--`, and whatever follows is no flag.
                Some("") => {
                    line.stray.extend(rest.by_ref().map(|stray| stray.to_string_lossy().into_owned()));
                    continue;
                }
                Some(name) => name,
            };
            if name.starts_with(['-', '=']) {
                line.usage(argument, "bad flag syntax".to_owned());
                continue;
            }
            let (name, inline) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, None),
            };
            if matches!(name, "h" | "help") {
                line.help = true;
                continue;
            }
            let meaning = Meaning::of(name);
            let boolean = match &meaning {
                Meaning::Flag(flag) | Meaning::Renamed(flag) => flag.kind == Kind::Bool,
                Meaning::Gate(_) | Meaning::Legacy => true,
                Meaning::Unknown => {
                    line.unknown(name);
                    continue;
                }
            };
            let value = match inline {
                Some(value) => value,
                None if boolean => "true".to_owned(),
                None => match rest.next().map(|value| value.to_str()) {
                    Some(Some(value)) => value.to_owned(),
                    Some(None) => {
                        line.usage(&format!("--{name}"), "its value is not UTF-8".to_owned());
                        continue;
                    }
                    None => {
                        line.usage(&format!("--{name}"), "flag needs an argument".to_owned());
                        continue;
                    }
                },
            };
            line.accept(name, meaning, value);
        }
        line
    }

    fn accept(&mut self, name: &str, meaning: Meaning, value: String) {
        let flag = match meaning {
            Meaning::Flag(flag) => flag,
            Meaning::Renamed(flag) => {
                self.warnings.push(renamed_warning(&format!("--{name}"), &format!("--{}", flag.name)));
                flag
            }
            Meaning::Gate(gate) => {
                self.warnings
                    .push(renamed_warning(&format!("--{name}"), &format!("--feature-gates={gate}=…")));
                let flag = table::by_name("feature-gates").expect("it is in the table");
                self.raw.put(flag, format!("{gate}={value}"), Source::Flag(flag.name));
                return;
            }
            Meaning::Legacy | Meaning::Unknown => {
                self.warnings.push(legacy_warning(&format!("--{name}")));
                return;
            }
        };
        match flag.name {
            "config-file" => self.config_file = Some(value).filter(|path| !path.is_empty()),
            "version" => match super::values::boolean(&value) {
                Ok(wanted) => self.version = wanted,
                Err(bad) => self.usage("--version", bad.0),
            },
            _ => {
                // Reported in full when values are read; here it only decides the exit code, as in etcd.
                if flag.kind.check(&value).is_err() {
                    self.problems.mark_usage();
                }
                self.raw.put(flag, value, Source::Flag(flag.name));
            }
        }
    }

    fn unknown(&mut self, name: &str) {
        let hint = did_you_mean(name, table::all().map(|flag| flag.name));
        let message = match hint {
            Some(hint) => format!("flag provided but not defined; did you mean `--{hint}`?"),
            None => "flag provided but not defined".to_owned(),
        };
        self.usage(&format!("--{name}"), message);
    }

    fn usage(&mut self, path: &str, message: String) {
        self.problems.mark_usage();
        self.problems.add(path, message);
    }
}

/// The variables of a process.
#[derive(Debug, Default)]
pub struct Environment {
    variables: Vec<(String, String)>,
    problems: Problems,
}

impl Environment {
    /// Keeps those that are ours by prefix. Values that are not UTF-8 are problems of their variable.
    pub fn new(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut environment = Self::default();
        for (name, value) in variables {
            let Some(name) = name.to_str() else { continue };
            if !name.starts_with("ETCD_") && !name.starts_with("KEYGATE_") {
                continue;
            }
            match value.into_string() {
                Ok(value) => environment.variables.push((name.to_owned(), value)),
                Err(_) => environment.problems.add(name, "its value is not UTF-8"),
            }
        }
        environment.variables.sort();
        environment
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Collects everything that was written, by the rules at the top of this file.
pub(super) fn gather(
    mode: Mode,
    line: &CommandLine,
    environment: &Environment,
) -> (Raw, Vec<Warning>, Problems) {
    let file = line
        .config_file
        .as_deref()
        .or_else(|| environment.get("ETCD_CONFIG_FILE"))
        .filter(|path| !path.is_empty());
    if let Some(path) = file {
        let (mut raw, mut warnings, in_file) = file::read(mode, path);
        raw.file = Some(path.into());
        let mut problems = line.problems.clone();
        problems.append(strays(line));
        problems.append(in_file);
        warnings.extend(overridden(line, environment));
        return (raw, warnings, problems);
    }
    let mut raw = Raw::default();
    let mut warnings = line.warnings.clone();
    let mut problems = line.problems.clone();
    problems.append(strays(line));
    problems.append(environment.problems.clone());
    for (name, given) in &line.raw.given {
        raw.given.insert(name, given.clone());
    }
    for (variable, value) in &environment.variables {
        from_variable(variable, value, line, &mut raw, &mut warnings, &mut problems);
    }
    (raw, warnings, problems)
}

fn strays(line: &CommandLine) -> Problems {
    let mut problems = Problems::default();
    for stray in &line.stray {
        problems.add("command line", format!("\"{stray}\" is not a valid flag"));
    }
    problems
}

fn from_variable(
    variable: &str,
    value: &str,
    line: &CommandLine,
    raw: &mut Raw,
    warnings: &mut Vec<Warning>,
    problems: &mut Problems,
) {
    let (prefix, rest) = variable.split_once('_').unwrap_or((variable, ""));
    let name = rest.to_ascii_lowercase().replace('_', "-");
    let source = Source::Variable(variable.to_owned());
    let flag = match Meaning::of(&name) {
        // Read before all others. `ETCD_VERSION` is none of ours: people keep the number of a release in it.
        Meaning::Flag(flag) if flag.name == "config-file" && prefix == "ETCD" => return,
        Meaning::Flag(flag) if matches!(flag.effect, Effect::CommandLine) => {
            warnings.push(unrecognized(variable));
            return;
        }
        Meaning::Flag(flag) if (flag.section == Section::Keygate) == (prefix == "KEYGATE") => flag,
        Meaning::Renamed(flag) if prefix == "ETCD" => {
            warnings.push(renamed_warning(variable, &flag.variable()));
            flag
        }
        Meaning::Gate(gate) if prefix == "ETCD" && !value.is_empty() => {
            warnings.push(renamed_warning(variable, &format!("ETCD_FEATURE_GATES={gate}=…")));
            let flag = table::by_name("feature-gates").expect("it is in the table");
            raw.put(flag, format!("{gate}={value}"), source);
            return;
        }
        // Told etcd which processors it may run on; ours are decided at build time.
        _ if variable == "ETCD_UNSUPPORTED_ARCH" => return,
        _ => {
            warnings.push(unrecognized(variable));
            return;
        }
    };
    if line.raw.get(flag.name).is_some() {
        problems.push(Problem {
            path: variable.to_owned(),
            message: "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))".to_owned(),
            accepted: None,
        });
    } else if !value.is_empty() {
        raw.put(flag, value.to_owned(), source);
    }
}

/// The value is not repeated: it may be a password that was meant for another program.
fn unrecognized(variable: &str) -> Warning {
    Warning { message: "unrecognized environment variable".to_owned(), path: variable.to_owned() }
}

/// One warning for all that a configuration file puts out of force.
fn overridden(line: &CommandLine, environment: &Environment) -> Option<Warning> {
    let flags = line.raw.given.keys().map(|name| format!("--{name}"));
    let known = |variable: &&(String, String)| {
        table::all().any(|flag| !matches!(flag.effect, Effect::CommandLine) && flag.variable() == variable.0)
    };
    let variables = environment.variables.iter().filter(known).map(|(name, _)| name.clone());
    let ignored: Vec<String> = flags.chain(variables).collect();
    (!ignored.is_empty()).then(|| Warning {
        message: "ignored, because a configuration file is read alone".to_owned(),
        path: ignored.join(", "),
    })
}

pub(super) fn renamed_warning(old: &str, new: &str) -> Warning {
    Warning { message: format!("this name was removed in etcd 3.7; use `{new}`"), path: old.to_owned() }
}

pub(super) fn legacy_warning(name: &str) -> Warning {
    Warning { message: "accepted, has no effect: etcd 3 does not use it".to_owned(), path: name.to_owned() }
}
