//! `keygate policy …`: policy bundles on an operator's machine and in CI, without a server; and what is in force on one.
//!
//! Exit codes of all: 0 fine, 1 findings, failures, differences or a denial, 2 nothing could be said because
//! the input is unusable. A bundle is a folder or a tar; `docs/policy.md` is the guide.

mod apply;
mod ask;
mod check;
mod compare;
mod export;
mod live;
mod newcomers;
mod seal;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use keygate_policies::bundle::{Bundle, Connection, Files, Finding, Instant, Request, Row, Severity};
use serde_json::{Value, json};

use super::{
    Output, UNUSABLE,
    remote::{Reach, Remote},
    say,
};

/// Something was found, or the answer is no.
const FOUND: u8 = 1;

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Say everything that is wrong with a bundle or looks wrong
    Lint {
        bundle: PathBuf,
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Run the tests of a bundle, and name the rows that no test needs
    Test {
        bundle: PathBuf,
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Say who gains and loses what from one bundle to another, and which users gain something for the first time
    Diff {
        /// The old and the new one, folders or tars; with one, the old is what is in force on a server
        #[arg(required = true, num_args = 1..=2, value_names = ["OLD", "NEW"])]
        bundles: Vec<PathBuf>,
        #[command(flatten)]
        server: Server,
    },
    /// Say why a request is allowed or denied, and which row comes nearest to allowing it; without `--user`, REQUEST is
    /// the `x-keygate-decision-id` of a denial
    Explain {
        #[command(flatten)]
        caller: Caller,
    },
    /// Say whether a request is allowed
    #[command(name = "can-i")]
    CanI {
        #[command(flatten)]
        caller: Caller,
    },
    /// Say who may do something, and when
    #[command(name = "who-can")]
    WhoCan {
        /// A folder or tar; without it what is in force on a server, with what the Auth API holds
        #[arg(long, value_name = "PATH")]
        bundle: Option<PathBuf>,
        #[arg(long, default_value = "default")]
        tenant: String,
        #[command(flatten)]
        server: Server,
        /// Such as `put /a/b`, `range '[/a/, /a0)'`, `get '/a/*'` or `compact`
        #[arg(required = true, num_args = 1.., value_name = "REQUEST")]
        request: Vec<String>,
    },
    /// Put a bundle in force on a server
    Apply {
        /// A folder or tar
        bundle: PathBuf,
        /// Refuse unless this policy revision is in force; 0 is a server without a bundle
        #[arg(long, value_name = "REVISION")]
        if_revision: Option<u64>,
        #[command(flatten)]
        server: Server,
    },
    /// Put an earlier policy revision in force again
    Rollback {
        /// 0 is the server without a bundle; without it what was in force before
        #[arg(long, value_name = "REVISION")]
        to: Option<u64>,
        /// Refuse unless this policy revision is in force
        #[arg(long, value_name = "REVISION")]
        if_revision: Option<u64>,
        #[command(flatten)]
        server: Server,
    },
    /// List the policy revisions of a server, newest first
    Log {
        #[command(flatten)]
        server: Server,
    },
    /// Show the policy revision that is in force, and its rows
    Show {
        #[command(flatten)]
        server: Server,
    },
    /// Write what is in force on a server as a bundle: its bundle's rows and what the Auth API holds
    Export {
        /// A new folder
        folder: PathBuf,
        #[command(flatten)]
        server: Server,
    },
    /// Say what a server allows and denies beyond a bundle: what somebody has changed by the Auth API
    Drift {
        /// A folder or tar, such as the one in Git; without it the one that is in force
        bundle: Option<PathBuf>,
        #[command(flatten)]
        server: Server,
    },
    /// Write the digests of a folder's files to its manifest.json
    Digest {
        folder: PathBuf,
        /// The bundle's revision; without it that of the present manifest, or 1
        #[arg(long)]
        revision: Option<u64>,
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Sign a folder's manifest.json: a line in its SIGNATURES
    Sign {
        folder: PathBuf,
        /// An Ed25519 private key, PEM, as `openssl genpkey -algorithm ed25519` makes it
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Say whether a bundle is signed by the keys that are trusted
    Verify {
        bundle: PathBuf,
        /// An Ed25519 public key, PEM; may be repeated
        #[arg(long, value_name = "FILE", required = true)]
        key: Vec<PathBuf>,
        /// So many of the keys must have signed; without it all of them
        #[arg(long, value_name = "N")]
        need: Option<usize>,
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
}

/// Who asks for what, and how.
#[derive(Debug, Args)]
pub(super) struct Caller {
    /// A folder or tar; without it what is in force on a server, with what the Auth API holds
    #[arg(long, value_name = "PATH")]
    bundle: Option<PathBuf>,
    #[arg(long, default_value = "default")]
    tenant: String,
    /// Needed, but for `explain` of a decision id
    #[arg(long)]
    user: Option<String>,
    /// May be repeated
    #[arg(long)]
    group: Vec<String>,
    /// The client's address; without it rows with such a condition do not allow, and deny
    #[arg(long, value_name = "ADDRESS")]
    source: Option<IpAddr>,
    /// RFC 3339; without it now
    #[arg(long, value_name = "TIME", value_parser = instant)]
    at: Option<Instant>,
    /// `plain`, `tls` or `mtls`; without it rows with such a condition do not allow, and deny
    #[arg(long, value_parser = connection)]
    connection: Option<Connection>,
    #[command(flatten)]
    reach: Reach,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Such as `put /a/b`, `range '[/a/, /a0)'`, `get '/a/*'` or `compact`
    #[arg(required = true, num_args = 1.., value_name = "REQUEST")]
    request: Vec<String>,
}

/// A running server, where one is asked, and how the answer is written.
#[derive(Debug, Args)]
pub(super) struct Server {
    #[command(flatten)]
    remote: Remote,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

fn instant(text: &str) -> Result<Instant, String> {
    text.parse().map_err(|()| "accepted: `YYYY-MM-DDTHH:MM:SSZ`, or with `+HH:MM` for `Z`".to_owned())
}

fn connection(text: &str) -> Result<Connection, String> {
    Connection::from_name(text).ok_or_else(|| "accepted: `plain`, `tls`, `mtls`".to_owned())
}

pub(super) fn run(command: PolicyCommand) -> ExitCode {
    let done = match command {
        PolicyCommand::Lint { bundle, output } => check::lint(&bundle, output),
        PolicyCommand::Test { bundle, output } => check::test(&bundle, output),
        PolicyCommand::Diff { bundles, server } => compare::diff(&bundles, &server),
        PolicyCommand::Explain { caller } => ask::explain(&caller),
        PolicyCommand::CanI { caller } => ask::can_i(&caller),
        PolicyCommand::WhoCan { bundle, tenant, server, request } => {
            ask::who_can(bundle.as_deref(), &tenant, &request, &server)
        }
        PolicyCommand::Apply { bundle, if_revision, server } => apply::apply(&bundle, if_revision, &server),
        PolicyCommand::Rollback { to, if_revision, server } => apply::rollback(to, if_revision, &server),
        PolicyCommand::Log { server } => apply::log(&server),
        PolicyCommand::Show { server } => apply::show(&server),
        PolicyCommand::Export { folder, server } => export::export(&folder, &server),
        PolicyCommand::Drift { bundle, server } => export::drift(bundle.as_deref(), &server),
        PolicyCommand::Digest { folder, revision, output } => seal::digest(&folder, revision, output),
        PolicyCommand::Sign { folder, key, output } => seal::sign(&folder, &key, output),
        PolicyCommand::Verify { bundle, key, need, output } => seal::verify(&bundle, &key, need, output),
    };
    match done {
        Ok(Verdict::Fine) => ExitCode::SUCCESS,
        Ok(Verdict::Found) => ExitCode::from(FOUND),
        Err(Unusable { output, findings, message }) => {
            match output {
                Output::Text => {
                    findings.iter().for_each(|found| eprintln!("{found}"));
                    eprintln!("keygate: {message}");
                }
                Output::Json => {
                    let findings: Vec<Value> = findings.iter().map(finding_json).collect();
                    say(&format!("{:#}\n", json!({ "ok": false, "error": message, "findings": findings })));
                }
            }
            ExitCode::from(UNUSABLE)
        }
    }
}

/// What a command came to.
enum Verdict {
    Fine,
    Found,
}

/// Why a command could say nothing.
struct Unusable {
    output: Output,
    findings: Vec<Finding>,
    message: String,
}

fn unusable(output: Output, message: impl ToString) -> Unusable {
    Unusable { output, findings: Vec::new(), message: message.to_string() }
}

fn open(path: &Path, output: Output) -> Result<Files, Unusable> {
    Files::open(path).map_err(|error| unusable(output, error))
}

fn read(path: &Path, output: Output) -> Result<Bundle, Unusable> {
    usable(&open(path, output)?, path, output)
}

fn usable(files: &Files, path: &Path, output: Output) -> Result<Bundle, Unusable> {
    Bundle::read(files).map_err(|findings| Unusable {
        output,
        message: format!("`{}` is no usable bundle ({} found)", path.display(), findings.len()),
        findings,
    })
}

fn request(words: &[String], output: Output) -> Result<Request, Unusable> {
    words.join(" ").parse().map_err(|error| unusable(output, error))
}

fn finding_json(found: &Finding) -> Value {
    json!({
        "file": found.file,
        "line": found.line,
        "column": found.column,
        "severity": match found.severity() {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        "rule": found.rule.name(),
        "message": found.message,
        "accepted": found.accepted,
    })
}

fn row_json(row: &Row) -> Value {
    json!({ "file": "policy.csv", "line": row.line, "row": row.to_string() })
}

/// The wall clock; the only place here that looks at it.
fn now() -> Instant {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Instant(since.ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0))
}
