//! From flags to a running server: `keygate serve`, and everything that `etcd` does.

use std::{ffi::OsString, process::ExitCode};

use super::{UNUSABLE, say, version};
use crate::{
    config::{self, CommandLine, Config, Environment, Loaded, LogOutput, Mode, Problems, Scheme},
    logging,
};

/// The server could not start or go on.
const FAILED: u8 = 1;

pub(super) fn serve(
    mode: Mode,
    arguments: &[OsString],
    run: impl FnOnce(Config) -> anyhow::Result<()>,
) -> ExitCode {
    if mode == Mode::Etcd
        && let Some(command @ ("gateway" | "grpc-proxy")) = arguments.first().and_then(|first| first.to_str())
    {
        eprintln!("etcd: Keygate has no `{command}`: clients reach it directly");
        return ExitCode::from(FAILED);
    }
    let line = CommandLine::parse(arguments);
    if line.help {
        say(&help(mode));
        return ExitCode::SUCCESS;
    }
    if line.version {
        say(&match mode {
            Mode::Etcd => version::etcd_version(),
            Mode::Keygate => version::version(super::Output::Text),
        });
        return ExitCode::SUCCESS;
    }
    let checked = config::load(mode, &line, &Environment::new(std::env::vars_os())).and_then(|loaded| {
        let problems = config::check_files(&loaded.config);
        if problems.is_empty() { Ok(loaded) } else { Err(problems) }
    });
    match checked {
        Err(problems) => refuse(mode, &problems),
        Ok(loaded) => start(loaded, run),
    }
}

fn refuse(mode: Mode, problems: &Problems) -> ExitCode {
    eprintln!("{problems}");
    match mode {
        Mode::Keygate => {
            eprintln!("keygate: the configuration cannot be used; `keygate serve --help` lists all settings");
            ExitCode::from(UNUSABLE)
        }
        Mode::Etcd => {
            eprintln!("etcd: the configuration cannot be used; `etcd --help` lists all settings");
            ExitCode::from(if problems.is_usage() { UNUSABLE } else { FAILED })
        }
    }
}

fn start(loaded: Loaded, run: impl FnOnce(Config) -> anyhow::Result<()>) -> ExitCode {
    let Loaded { config, warnings } = loaded;
    let guard = match logging::init(&config.log) {
        Ok(guard) => guard,
        Err(error) => {
            eprintln!("keygate: {error}");
            return ExitCode::from(FAILED);
        }
    };
    for warning in &warnings {
        tracing::warn!(setting = warning.path, "{}", warning.message);
    }
    if config.mode == Mode::Etcd {
        tracing::warn!(
            "called as etcd: the compatible mode, in which the flags alone decide about TLS and authentication; `keygate serve` has both always on"
        );
        if config.listen_client.iter().any(|url| url.scheme == Scheme::Http) {
            tracing::warn!("serving client traffic insecurely; this is strongly discouraged!");
        }
    }
    let settings: serde_json::Map<_, _> = config
        .effective
        .iter()
        .filter(|setting| setting.source != "default")
        .map(|setting| (setting.key.clone(), setting.value.clone().into()))
        .collect();
    tracing::info!(
        name = config.name,
        data_dir = %config.data_dir.display(),
        etcd_version = version::ETCD_VERSION,
        settings = %serde_json::Value::Object(settings),
        "starting an etcd server"
    );
    // When the log goes elsewhere, whoever started the server still sees why it ended.
    let seen = config.log.outputs.contains(&LogOutput::Stderr);
    let code = match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the server cannot start or go on");
            if !seen {
                eprintln!("keygate: {error:#}");
            }
            ExitCode::from(FAILED)
        }
    };
    drop(guard);
    code
}

fn help(mode: Mode) -> String {
    let usage = match mode {
        Mode::Keygate => {
            "Start the server: TLS and authentication are on.\n\n\
             Usage:\n  keygate serve [flags]\n  keygate serve --config-file FILE\n    Read etcd's YAML format, extended by the section `keygate:`; flags and environment are then ignored.\n\n\
             Each flag can be given as a variable instead: ETCD_ (KEYGATE_ for the group Keygate) and its name in capitals.\n"
        }
        Mode::Etcd => {
            "Usage:\n\n  etcd [flags]\n    Start an etcd server (Keygate in its compatible mode).\n\n  etcd --version\n    Show the version of etcd.\n\n  \
             etcd -h | --help\n    Show the help information about etcd.\n\n  etcd --config-file FILE\n    Read the configuration from a file; flags and environment are then ignored.\n"
        }
    };
    format!("{usage}{}", config::help(mode))
}
