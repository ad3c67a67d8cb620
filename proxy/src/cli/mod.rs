//! What a person types: the commands of `keygate`, and the habits of `etcd` when the binary is called by that name.
//!
//! Everything up to a checked configuration and a running log happens here; the server itself is a function that the
//! caller hands in.

mod certs;
mod check;
mod identity;
mod limits;
mod policy;
mod quota;
mod remote;
mod serve;
mod tenant;
mod top;
mod version;

use std::{
    ffi::{OsStr, OsString},
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Arg, ArgAction, CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::config::{Config, Mode, help_text_of, table};

pub use version::{ETCD_CLUSTER_VERSION, ETCD_VERSION};

/// The configuration cannot be used, or the command line is wrong.
const UNUSABLE: u8 = 2;

#[derive(Debug, Parser)]
#[command(name = "keygate", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the server: TLS and authentication are on
    Serve {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
        flags: Vec<OsString>,
    },
    /// Say whether a configuration file can be used, and what every setting comes to
    CheckConfig {
        file: PathBuf,
        /// Whose rules to apply: those of `keygate serve`, or those of the binary called as `etcd`
        #[arg(long, value_enum, default_value_t = Rules::Keygate)]
        mode: Rules,
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Make, list, suspend and delete tenants of a running server
    Tenant(Box<tenant::Tenant>),
    /// Show which limits a running server has in force
    Limits(Box<limits::Limits>),
    /// Limit how much tenants may hold, and show how much they do
    Quota(Box<quota::Quota>),
    /// Show tenants by load, refusals and use of quotas, as it changes
    Top(Box<top::Top>),
    /// Check, test, compare and question policy bundles
    Policy {
        #[command(subcommand)]
        command: Box<policy::PolicyCommand>,
    },
    /// Say whom a certificate or token names
    Identity {
        #[command(subcommand)]
        command: identity::IdentityCommand,
    },
    /// Say which certificates and revocation lists are about to expire
    Certs {
        #[command(subcommand)]
        command: certs::CertsCommand,
    },
    /// Print the version
    Version {
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Print a completion script, to be sourced by the shell
    Completion { shell: Shell },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rules {
    Keygate,
    Etcd,
}

impl From<Rules> for Mode {
    fn from(rules: Rules) -> Self {
        match rules {
            Rules::Keygate => Self::Keygate,
            Rules::Etcd => Self::Etcd,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// The whole process: reads the command line, and calls `run` with the configuration when a server is to be started.
pub fn main(run: impl FnOnce(Config) -> anyhow::Result<()>) -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    let arguments: Vec<OsString> = arguments.collect();
    if is_etcd(&program) {
        return serve::serve(Mode::Etcd, &arguments, run);
    }
    // The flags of `serve` are read as etcd reads its own, not as clap would.
    if let Some((command, flags)) = arguments.split_first()
        && command == OsStr::new("serve")
    {
        return serve::serve(Mode::Keygate, flags, run);
    }
    let all = std::iter::once(program).chain(arguments);
    match command()
        .try_get_matches_from(all)
        .and_then(|matches| clap::FromArgMatches::from_arg_matches(&matches))
    {
        Err(error) => {
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(UNUSABLE))
        }
        Ok(Cli { command: Command::Serve { flags } }) => serve::serve(Mode::Keygate, &flags, run),
        Ok(Cli { command: Command::CheckConfig { file, mode, output } }) => {
            check::check(&file, mode.into(), output)
        }
        Ok(Cli { command: Command::Tenant(tenant) }) => tenant::run(&tenant),
        Ok(Cli { command: Command::Limits(limits) }) => limits::run(&limits),
        Ok(Cli { command: Command::Quota(quota) }) => quota::run(&quota),
        Ok(Cli { command: Command::Top(top) }) => top::run(&top),
        Ok(Cli { command: Command::Identity { command } }) => identity::run(command),
        Ok(Cli { command: Command::Certs { command } }) => certs::run(command),
        Ok(Cli { command: Command::Policy { command } }) => policy::run(*command),
        Ok(Cli { command: Command::Version { output } }) => {
            say(&version::version(output));
            ExitCode::SUCCESS
        }
        Ok(Cli { command: Command::Completion { shell } }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut with_serve_flags(Cli::command()), "keygate", &mut script);
            say(&String::from_utf8_lossy(&script));
            ExitCode::SUCCESS
        }
    }
}

fn is_etcd(program: &OsStr) -> bool {
    Path::new(program).file_name() == Some(OsStr::new("etcd"))
}

/// `keygate help serve` shows the real flags. Parsing never reaches them: `serve` was taken out before.
fn command() -> clap::Command {
    with_serve_flags(Cli::command())
}

fn with_serve_flags(command: clap::Command) -> clap::Command {
    let about =
        command.find_subcommand("serve").and_then(|serve| serve.get_about().cloned()).unwrap_or_default();
    let serve = table::all().fold(clap::Command::new("serve").about(about), |serve, flag| {
        let argument =
            Arg::new(flag.name).long(flag.name).help(help_text_of(flag)).help_heading(flag.group.title());
        serve.arg(match flag.kind {
            table::Kind::Bool => argument.action(ArgAction::SetTrue),
            table::Kind::Choice(choices) => {
                argument.value_parser(clap::builder::PossibleValuesParser::new(choices))
            }
            table::Kind::Path => argument.value_name("PATH").value_hint(clap::ValueHint::AnyPath),
            _ => argument.value_name("VALUE"),
        })
    });
    // `mut_subcommand` keeps the place in the list of commands.
    command.mut_subcommand("serve", |_| serve)
}

/// A configuration file as `serve` would read it.
fn configuration(file: &Path, rules: Rules) -> Result<Config, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read `{}`: {error}", file.display()))?;
    let loaded = crate::config::load_text(rules.into(), &text);
    loaded.map(|loaded| loaded.config).map_err(|problems| format!("`{}`: {problems}", file.display()))
}

/// Prints to stdout. A reader that has gone away (`| head`) is no error.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_etcd_makes_it_etcd() {
        for (program, expected) in [
            ("etcd", true),
            ("/usr/local/bin/etcd", true),
            ("./etcd", true),
            ("keygate", false),
            ("/opt/etcd/keygate", false),
            ("etcdctl", false),
        ] {
            assert_eq!(is_etcd(OsStr::new(program)), expected, "{program}");
        }
    }

    #[test]
    fn the_commands_and_their_generated_flags_hang_together() {
        command().debug_assert();
    }
}
