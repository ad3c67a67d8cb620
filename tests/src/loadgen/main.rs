//! `keygate-loadgen`: a load generator for etcd v3 servers, Keygate and etcd alike.
//!
//! One thread, one poll and hand-written HTTP/2 and protobuf, so that the generator takes a few microseconds of CPU
//! for each operation and leaves the machine to the server it measures. Every answer is checked: a fast wrong answer
//! is an error.
//!
//! Modules from the wire upwards: `transport`, `frame`, `hpack`, `call` and `connection` carry calls; `wire` and
//! `messages` know etcd's protobuf; `keyspace` and `workload` say what is asked and what must come back; `tally` and
//! `driver` run it; `report` prints it; `setup` and `certificates` prepare servers.

mod call;
mod certificates;
mod cli;
mod connection;
mod driver;
mod frame;
mod hpack;
mod keyspace;
mod messages;
mod process;
mod report;
mod setup;
mod tally;
mod transport;
mod wire;
mod workload;

use anyhow::{Context, Result};
use clap::Parser;
use cli::{Cli, Command, ReadyArgs, RunArgs, SetupArgs};
use report::{Circumstances, Report};
use setup::{AuthPlan, Login};
use std::process::ExitCode;
use std::time::Duration;
use workload::Operation;

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("keygate-loadgen: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Put(args) => measure(Operation::Put, &args),
        Command::Range(args) => measure(Operation::Range, &args),
        Command::Srange(args) => measure(Operation::SerializableRange, &args),
        Command::Prefix(args) => measure(Operation::Prefix, &args),
        Command::Txn(args) => measure(Operation::Txn, &args),
        Command::Watch(args) => measure(Operation::Watch, &args),
        Command::LeaseGrant(args) => measure(Operation::LeaseGrant, &args),
        Command::LeaseKeepalive(args) => measure(Operation::LeaseKeepAlive, &args),
        Command::Mix(args) => measure(Operation::Mix, &args),
        Command::Load(args) => measure(Operation::Load, &args),
        Command::SetupAuth(args) => set_up_auth(&args),
        Command::Ready(args) => wait_until_ready(&args),
        Command::MakeCertificates { directory } => {
            certificates::write(&directory)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn measure(operation: Operation, args: &RunArgs) -> Result<ExitCode> {
    let plan = args.plan(operation)?;
    let mut workload = args.workload(operation)?;
    let target = args.target.target()?;
    let token = args.target.login()?.map(|login| setup::authenticate(&target, &login)).transpose()?;
    let keys = workload.keys.clone();
    if operation == Operation::LeaseKeepAlive {
        workload.leases = setup::grant_leases(&target, token.as_deref(), plan.clients)?;
    }
    let mut outcome = driver::run(&plan, workload, &target, token.as_deref())?;
    if operation == Operation::Load {
        let (found, expected) = (setup::count_keys(&target, token.as_deref(), &keys)?, keys.count());
        if found != expected {
            outcome.tally.error(format!("{found} keys counted after {expected} were written"));
        }
    }
    let circumstances = Circumstances {
        label: args.label.clone(),
        op: operation.name(),
        tls: target.tls.is_some(),
        auth: token.is_some(),
        server_rss_mib: process::resident_mib(&args.pid)?,
    };
    Report::new(&plan, &outcome, circumstances).print()?;
    Ok(if outcome.tally.errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn set_up_auth(args: &SetupArgs) -> Result<ExitCode> {
    let target = args.target.target()?;
    let token = args.target.login()?.map(|login| setup::authenticate(&target, &login)).transpose()?;
    let login = |user: &str, password: &str| Login { user: user.to_owned(), password: password.to_owned() };
    let plan = AuthPlan {
        roles: args.roles,
        user: login(&args.new_user, &args.new_password),
        enable_with_root: args.root_password.as_deref().map(|password| login("root", password)),
    };
    setup::set_up_auth(&target, token.as_deref(), &args.keys.keyspace()?, &plan)?;
    Ok(ExitCode::SUCCESS)
}

fn wait_until_ready(args: &ReadyArgs) -> Result<ExitCode> {
    let target = args.target.target()?;
    let patience = Duration::try_from_secs_f64(args.patience_seconds)
        .context("`--patience-seconds` is not a duration")?;
    let login = args.target.login()?;
    let took =
        setup::wait_until_ready(&target, login.as_ref(), &args.keys.keyspace()?, args.readiness(), patience)?;
    println!("{{\"ready_after_seconds\":{:.6}}}", took.as_secs_f64());
    Ok(ExitCode::SUCCESS)
}
