//! `keygate certs check`: what expires soon, for CI and cron.
//!
//! Exit codes: 0 nothing does, 1 something does or has, 2 nothing could be said.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Subcommand;
use serde_json::json;

use super::{Output, Rules, UNUSABLE, say};
use crate::config::{Config, Mode};
use crate::pki;
use crate::tls::{self, Dated, Revocation, TrustSources, Unlisted, What};

/// Something expires.
const FOUND: u8 = 1;

#[derive(Debug, Subcommand)]
pub(super) enum CertsCommand {
    /// Say when certificates and revocation lists expire, and fail if it is soon
    Check {
        /// Certificates in PEM
        files: Vec<PathBuf>,
        /// Of a server: what it serves with, and what it checks clients against
        #[arg(long, value_name = "FILE")]
        config_file: Option<PathBuf>,
        /// Whose rules to read the configuration by
        #[arg(long, value_enum, default_value_t = Rules::Keygate)]
        mode: Rules,
        /// What is soon, such as `30d` or `12h`
        #[arg(long, value_name = "TIME", default_value = "30d", value_parser = span)]
        within: Duration,
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
}

pub(super) fn run(command: CertsCommand) -> ExitCode {
    let CertsCommand::Check { files, config_file, mode, within, output } = command;
    let dates = match gather(&files, config_file.as_deref(), mode) {
        Ok(dates) => dates,
        Err(message) => {
            match output {
                Output::Text => eprintln!("keygate: {message}"),
                Output::Json => say(&format!("{:#}\n", json!({ "ok": false, "error": message }))),
            }
            return ExitCode::from(UNUSABLE);
        }
    };
    let now = SystemTime::now();
    let states: Vec<_> = dates.iter().map(|dated| (dated, State::of(dated, now, within))).collect();
    let is_fine = states.iter().all(|(_, state)| *state == State::Fine);
    match output {
        Output::Text => {
            states.iter().for_each(|(dated, state)| say(&line(dated, *state, now)));
            if is_fine {
                say("ok\n");
            }
        }
        Output::Json => {
            let all: Vec<_> = states.iter().map(|(dated, state)| as_json(dated, *state, now)).collect();
            say(&format!("{:#}\n", json!({ "ok": is_fine, "certificates": all })));
        }
    }
    if is_fine { ExitCode::SUCCESS } else { ExitCode::from(FOUND) }
}

fn span(text: &str) -> Result<Duration, String> {
    let accepted = || "accepted: a whole number with `d`, `h`, `m` or `s` behind it".to_owned();
    let unit = text.chars().next_back().ok_or_else(accepted)?;
    let seconds = match unit {
        'd' => 86_400,
        'h' => 3_600,
        'm' => 60,
        's' => 1,
        _ => return Err(accepted()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| accepted())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(accepted)
}

fn gather(files: &[PathBuf], config: Option<&Path>, mode: Rules) -> Result<Vec<Dated>, String> {
    if files.is_empty() && config.is_none() {
        return Err("name certificates, or a configuration with --config-file".to_owned());
    }
    let mut dates = Vec::new();
    if let Some(file) = config {
        dates.extend(of_config(&super::configuration(file, mode)?)?);
    }
    for file in files {
        dates.extend(tls::dates_of_file(file, What::Client).map_err(|error| error.to_string())?);
    }
    Ok(dates)
}

fn of_config(config: &Config) -> Result<Vec<Dated>, String> {
    let Some(files) = pki::locate(config) else { return Ok(Vec::new()) };
    let say = |error: tls::TlsError| error.to_string();
    let mut dates = tls::dates_of_file(&files.cert, What::Server).map_err(say)?;
    if let Some(managed) = &files.managed {
        dates.extend(tls::dates_of_file(&managed.client_cert, What::Client).map_err(say)?);
    }
    let trust = tls::load_trust(&trust_sources(config)).map_err(say)?;
    dates.extend(trust.dates().cloned());
    Ok(dates)
}

/// What the configuration checks clients against.
pub(super) fn trust_sources(config: &Config) -> TrustSources {
    let unlisted = match config.mode {
        Mode::Keygate => Unlisted::Refused,
        Mode::Etcd => Unlisted::Accepted,
    };
    TrustSources {
        ca: pki::locate(config).and_then(|files| files.client_ca).map(|ca| ca.path),
        revocation: config.client_crl_file.clone().map(|path| Revocation { path, unlisted }),
        identity_rules: config.identity_rules_file.clone(),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Fine,
    Soon,
    Expired,
}

impl State {
    fn of(dated: &Dated, now: SystemTime, within: Duration) -> Self {
        match dated.ends {
            // A list may say nothing about its end; a certificate always does.
            None if dated.what == What::RevocationList => Self::Fine,
            None => Self::Expired,
            Some(ends) if ends <= now => Self::Expired,
            Some(ends) if ends.duration_since(now).is_ok_and(|left| left <= within) => Self::Soon,
            Some(_) => Self::Fine,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Soon => "soon",
            Self::Expired => "expired",
        }
    }
}

fn line(dated: &Dated, state: State, now: SystemTime) -> String {
    let when = match dated.ends {
        None => "does not say when it ends".to_owned(),
        Some(ends) => match ends.duration_since(now) {
            Ok(left) => format!("{} days left", left.as_secs() / 86_400),
            Err(past) => format!("ended {} days ago", past.duration().as_secs() / 86_400),
        },
    };
    let (what, path) = (dated.what.name(), dated.path.display());
    format!("{:<8}{what:<16}{when:<24}{path}  {}\n", state.name(), dated.name)
}

fn as_json(dated: &Dated, state: State, now: SystemTime) -> serde_json::Value {
    let seconds =
        |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs());
    json!({
        "what": dated.what.name(),
        "file": dated.path,
        "name": dated.name,
        "state": state.name(),
        "ends_unix": dated.ends.and_then(seconds),
        "seconds_left": dated.ends.map(|ends| match ends.duration_since(now) {
            Ok(left) => i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            Err(past) => i64::try_from(past.duration().as_secs()).map_or(i64::MIN, |past| -past),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_and_a_unit() {
        for (text, seconds) in [("30d", 2_592_000), ("12h", 43_200), ("5m", 300), ("0s", 0)] {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "d", "30", "-1d", "1.5d", "30 d", "1w", "ä", "99999999999999999d"] {
            assert!(span(text).is_err(), "{text}");
        }
    }
}
