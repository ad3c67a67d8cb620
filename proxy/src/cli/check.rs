//! `keygate check-config FILE`: all problems, or `ok` and what every setting came to.

use std::{path::Path, process::ExitCode};

use serde_json::json;

use super::{Output, UNUSABLE, say};
use crate::config::{self, Loaded, Mode, Problems};

pub(super) fn check(file: &Path, mode: Mode, output: Output) -> ExitCode {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("keygate: cannot read `{}`: {error}", file.display());
            return ExitCode::from(UNUSABLE);
        }
    };
    let checked = config::load_text(mode, &text).and_then(|loaded| {
        let problems = config::check_files(&loaded.config);
        if problems.is_empty() { Ok(loaded) } else { Err(problems) }
    });
    match output {
        Output::Text => say(&as_text(&checked)),
        Output::Json => say(&as_json(&checked)),
    }
    if checked.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(UNUSABLE) }
}

fn as_text(checked: &Result<Loaded, Problems>) -> String {
    match checked {
        Err(problems) => format!("{problems}\n"),
        Ok(loaded) => {
            let mut text = "ok\n".to_owned();
            for warning in &loaded.warnings {
                text.push_str(&format!("warning: {}: {}\n", warning.path, warning.message));
            }
            for setting in &loaded.config.effective {
                let origin = if setting.source == "default" { "  # default" } else { "" };
                text.push_str(&format!("{}: {}{origin}\n", setting.key, setting.value));
            }
            text
        }
    }
}

fn as_json(checked: &Result<Loaded, Problems>) -> String {
    let answer = match checked {
        Err(problems) => json!({
            "ok": false,
            "problems": problems.iter().map(|problem| json!({
                "path": problem.path,
                "message": problem.message,
                "accepted": problem.accepted,
            })).collect::<Vec<_>>(),
        }),
        Ok(loaded) => json!({
            "ok": true,
            "problems": [],
            "warnings": loaded.warnings.iter().map(|warning| json!({
                "path": warning.path,
                "message": warning.message,
            })).collect::<Vec<_>>(),
            "settings": loaded.config.effective.iter().map(|setting| {
                (setting.key.clone(), json!({"value": setting.value, "source": setting.source}))
            }).collect::<serde_json::Map<_, _>>(),
        }),
    };
    format!("{answer:#}\n")
}
