//! The configuration as operators write it. Here is what its tests share.

mod limits;
mod modes;
mod refusals;
mod settings;
mod sources;

use std::{ffi::OsString, time::Duration};

use super::*;

fn arguments(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    Environment::new(variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
}

fn loaded(mode: Mode, words: &[&str], variables: &[(&str, &str)]) -> Result<Loaded, Problems> {
    load(mode, &CommandLine::parse(&arguments(words)), &environment(variables))
}

/// The problems of a command line, one a line.
fn refused(mode: Mode, words: &[&str], variables: &[(&str, &str)]) -> String {
    match loaded(mode, words, variables) {
        Ok(_) => "ok".to_owned(),
        Err(problems) => problems.to_string(),
    }
}

fn refused_file(mode: Mode, text: &str) -> String {
    match load_text(mode, text) {
        Ok(_) => "ok".to_owned(),
        Err(problems) => problems.to_string(),
    }
}

fn warnings(loaded: &Loaded) -> Vec<String> {
    loaded.warnings.iter().map(|warning| format!("{}: {}", warning.path, warning.message)).collect()
}

/// Without where each was written, which of course differs.
fn values(loaded: Loaded) -> Vec<(String, String)> {
    loaded.config.effective.into_iter().map(|setting| (setting.key, setting.value)).collect()
}
