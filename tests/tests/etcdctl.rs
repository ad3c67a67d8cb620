//! Stock etcdctl, three versions of it, against Keygate and against etcd 3.7.1: the same script,
//! the same words on the terminal, for the users of a tenant too.
//!
//! Each line of a script is a command. `%LEASE%` stands for the lease that the last `lease grant`
//! printed. What differs by nature (ids, terms, sizes, ports) is replaced before comparing.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::LazyLock,
    time::Duration,
};

use keygate_proto::admin::TenantCreateRequest;
use keygate_tests::harness::{
    Endpoint, Plan, Program, Protection, Server,
    peers::{Peer, skip},
};

const KV: &str = include_str!("scripts/kv.txt");
const LEASES: &str = include_str!("scripts/leases.txt");
const AUTH: &str = include_str!("scripts/auth.txt");
const OPERATOR: &str = include_str!("scripts/operator.txt");
/// Auth is already on where it is tested over TLS.
const SWITCHING_AUTH: &str = include_str!("scripts/switching_auth.txt");
/// What 3.4 does not know yet.
const SINCE_35: &str = include_str!("scripts/since_35.txt");

/// A command that hangs is ended; `check perf` alone takes a minute.
const PATIENCE: Duration = Duration::from_secs(120);

const VERSIONS: [Peer; 3] = [Peer::Etcdctl34, Peer::Etcdctl35, Peer::Etcdctl37];

/// What the root of a tenant may not do, since it is the platform's: it would touch the data of all
/// tenants. See `tenant-login` in docs/differences.md. `alarm disarm` asks first which alarms there are, and
/// with none that is all; no etcdctl asks for `hash`.
const PLATFORM: [&str; 1] = ["defrag"];

/// How clients reach the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Whole(Protection),
    /// Over TLS with a password, as the root of a tenant of Keygate.
    Tenant,
}

/// One etcdctl, one server.
struct Terminal {
    program: PathBuf,
    endpoint: Endpoint,
    /// As `--user` takes it, unless the command names somebody.
    login: Option<String>,
    presents_certificate: bool,
    lease: String,
}

/// What one command printed, ready to compare.
#[derive(Debug, PartialEq)]
struct Printed {
    command: String,
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Mode {
    fn protection(self) -> Protection {
        match self {
            Mode::Whole(protection) => protection,
            Mode::Tenant => Protection::Password,
        }
    }
}

impl Terminal {
    /// As the root of the whole server.
    fn of_root(program: &Path, server: &Server, protection: Protection) -> Terminal {
        let endpoint = server.endpoint.clone();
        let password = endpoint.root_password.as_ref().filter(|_| protection == Protection::Password);
        Terminal {
            program: program.to_owned(),
            login: password.map(|password| format!("root:{password}")),
            presents_certificate: protection == Protection::Certificate,
            lease: String::new(),
            endpoint,
        }
    }

    /// As the root of a tenant that is made for it.
    fn of_tenant(program: &Path, server: &Server) -> Terminal {
        let (name, password) = ("pay", "of the tenant's root");
        RUNTIME.block_on(async {
            let root = server.root().await.expect("log in as the platform's root");
            for other in ["shop", name] {
                let (name, password) = (other.to_owned(), password.to_owned());
                let create = TenantCreateRequest { name, password, ..Default::default() };
                root.tenants().create(create).await.expect("create a tenant");
            }
        });
        let login = Some(format!("root@{name}:{password}"));
        Terminal { login, ..Terminal::of_root(program, server, Protection::Password) }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("timeout");
        command.arg(PATIENCE.as_secs().to_string()).arg(&self.program);
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoint.url]);
        if let Some(tls) = &self.endpoint.tls {
            command.arg("--cacert").arg(&tls.ca);
            if self.presents_certificate {
                command.arg("--cert").arg(&tls.certificate).arg("--key").arg(&tls.key);
            }
        }
        let words = words(line, &self.lease);
        let names_a_user = words.iter().any(|word| word == "--user");
        if let (Some(login), false) = (&self.login, names_a_user) {
            command.args(["--user", login]);
        }
        command.args(words);
        command
    }

    /// `command`, or `command <<< input` with `|` for line ends.
    fn run(&mut self, line: &str) -> Printed {
        let (line, input) = line.split_once(" <<< ").unwrap_or((line, ""));
        let mut command = self.command(line);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start etcdctl");
        let mut stdin = child.stdin.take().expect("piped above");
        std::io::Write::write_all(&mut stdin, input.replace('|', "\n").as_bytes()).ok();
        drop(stdin);
        let Output { status, stdout, stderr } = child.wait_with_output().expect("wait for etcdctl");
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        if let Some(lease) = stdout.strip_prefix("lease ").filter(|rest| rest.contains("granted")) {
            lease.split(' ').next().unwrap_or_default().clone_into(&mut self.lease);
        }
        let (stdout, stderr) = (self.normalised(&stdout), self.normalised(&stderr));
        Printed { command: line.to_owned(), status: status.code(), stdout, stderr }
    }

    fn normalised(&self, text: &str) -> String {
        let mut text = text.replace(&self.endpoint.url, "<url>");
        if !self.lease.is_empty() {
            text = text.replace(&self.lease, "<lease>");
            if let Ok(decimal) = i64::from_str_radix(&self.lease, 16) {
                text = text.replace(&decimal.to_string(), "<lease>");
            }
        }
        for (field, name) in NUMBERS {
            text = mask_after(&text, field, name);
        }
        // The client's own log with its times, and where in it a crash happened (3.4 crashes on `lease(k)`).
        let lines = text
            .lines()
            .take_while(|line| !line.starts_with("goroutine "))
            .filter(|line| !line.starts_with("{\"level\":"));
        lines.map(|line| mask_prefix(line, "remaining(")).collect::<Vec<_>>().join("\n")
    }
}

/// A number behind any of these says nothing about behaviour.
const NUMBERS: [(&str, &str); 19] = [
    ("127.0.0.1:", "<port>"),
    ("\"ID\" : ", "<id>"),
    ("\"cluster_id\":", "<id>"),
    ("\"member_id\":", "<id>"),
    ("\"raft_term\":", "<n>"),
    ("\"ID\":", "<id>"),
    ("\"dbSize\":", "<n>"),
    ("\"dbSizeInUse\":", "<n>"),
    ("\"leader\":", "<id>"),
    ("\"raftIndex\":", "<n>"),
    ("\"raftTerm\":", "<n>"),
    ("\"raftAppliedIndex\":", "<n>"),
    ("\"memberID\":", "<id>"),
    ("\"ClusterID\" : ", "<id>"),
    ("\"MemberID\" : ", "<id>"),
    ("\"RaftTerm\" : ", "<n>"),
    ("took = ", "<time>"),
    ("]. took ", "<time>"),
    ("\"ttl\":", "<n>"),
];

fn mask_after(text: &str, field: &str, name: &str) -> String {
    let mut parts = text.split(field);
    let mut masked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.' || c == 'µ');
        masked.push_str(field);
        masked.push_str(name);
        masked.push_str(rest);
    }
    masked
}

/// `remaining(58s)` becomes `remaining(<n>s)`.
fn mask_prefix(line: &str, prefix: &str) -> String {
    mask_after(line, prefix, "<n>s")
}

/// Splits as a shell does, as far as the scripts need it: blanks, single quotes, `%LEASE%`.
fn words(line: &str, lease: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (number, part) in line.split('\'').enumerate() {
        match number % 2 {
            0 => words.extend(part.split_whitespace().map(|word| word.replace("%LEASE%", lease))),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

/// How many commands were compared, and the story of those that differed.
#[derive(Default)]
struct Comparison {
    compared: usize,
    differences: String,
}

/// Runs `script` on both servers, two etcdctl at a time.
fn compare(version: Peer, mode: Mode, terminals: &mut [Terminal; 2], script: &str) -> Comparison {
    let [oracle, subject] = terminals;
    let Comparison { mut compared, mut differences } = Comparison::default();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (theirs, ours) = std::thread::scope(|scope| {
            let theirs = scope.spawn(|| oracle.run(line));
            let ours = subject.run(line);
            (theirs.join().expect("no panic in run"), ours)
        });
        compared += 1;
        if mode == Mode::Tenant && PLATFORM.contains(&line) {
            let refused = format!("{ours:?}").contains("etcdserver: permission denied");
            assert!(refused && theirs.status == Some(0), "`{line}` as a tenant's root: {ours:?}");
        } else if is_old_authority(version, mode.protection(), line) {
            // `old-authority` in docs/differences.md. It must show, or the entry is out of date.
            let refused = format!("{ours:?}").contains("PROTOCOL_ERROR");
            assert!(refused, "docs/differences.md says that `{line}` fails with etcdctl 3.4 in the clear");
        } else if theirs != ours {
            differences.push_str(&format!(
                "{version:?} {mode:?}: {line}\n  etcd:    {theirs:?}\n  Keygate: {ours:?}\n"
            ));
        }
    }
    Comparison { compared, differences }
}

/// etcdctl 3.4 dials one endpoint without TLS with the whole URL as its `:authority`, which HTTP/2
/// does not allow and our HTTP library refuses.
fn is_old_authority(version: Peer, protection: Protection, line: &str) -> bool {
    let dials_one = ["endpoint status", "endpoint hashkv", "defrag"];
    matches!(version, Peer::Etcdctl34)
        && protection == Protection::Plain
        && dials_one.iter().any(|command| line.starts_with(command))
}

static RUNTIME: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Runtime::new().expect("start tokio"));

fn start(program: Program, protection: Protection) -> Server {
    let plan = Plan::new(program, protection).flags(&["--bcrypt-cost", "4"]).in_memory();
    RUNTIME
        .block_on(Server::start(plan))
        .unwrap_or_else(|error| panic!("{program:?} {protection:?}: {error:#}"))
}

/// All scripts that a version and a protection allow, each version on fresh servers.
fn run_all(test: &str, mode: Mode) {
    if Peer::Etcd.or_skip(test).is_none() {
        return;
    }
    // `KEYGATE_ETCDCTL_ORACLE_TWICE=1` compares etcd with itself: a check of the scripts.
    let itself = std::env::var_os("KEYGATE_ETCDCTL_ORACLE_TWICE").is_some();
    let subject = if itself { Program::Etcd } else { Program::Keygate };
    let protection = mode.protection();
    let mut differences = String::new();
    for version in VERSIONS {
        let Some(program) = version.or_skip(test) else { continue };
        let servers = [start(Program::Etcd, protection), start(subject, protection)];
        let mut terminals =
            [&servers[0], &servers[1]].map(|server| Terminal::of_root(&program, server, protection));
        if mode == Mode::Tenant {
            terminals[1] = Terminal::of_tenant(&program, &servers[1]);
        }
        // Hashes come before leases, whose ids are part of them.
        let mut scripts = match version {
            Peer::Etcdctl34 => vec![KV, OPERATOR, LEASES, AUTH],
            _ => vec![KV, SINCE_35, OPERATOR, LEASES, AUTH],
        };
        if protection == Protection::Plain {
            scripts.push(SWITCHING_AUTH);
        }
        let mut compared = 0;
        for script in scripts {
            let comparison = compare(version, mode, &mut terminals, script);
            compared += comparison.compared;
            differences.push_str(&comparison.differences);
        }
        println!("{version:?} {mode:?}: {compared} commands compared");
        assert!(compared >= 100, "only {compared} commands were compared");
    }
    assert!(differences.is_empty(), "\n{differences}");
}

#[test]
fn etcdctl_works_as_on_etcd_in_the_plain_mode() {
    run_all("etcdctl_works_as_on_etcd_in_the_plain_mode", Mode::Whole(Protection::Plain));
}

#[test]
fn etcdctl_works_as_on_etcd_over_tls_with_a_password() {
    run_all("etcdctl_works_as_on_etcd_over_tls_with_a_password", Mode::Whole(Protection::Password));
}

#[test]
fn etcdctl_works_as_on_etcd_over_tls_with_a_certificate() {
    run_all("etcdctl_works_as_on_etcd_over_tls_with_a_certificate", Mode::Whole(Protection::Certificate));
}

#[test]
fn etcdctl_works_in_a_tenant_as_on_an_etcd_of_its_own() {
    run_all("etcdctl_works_in_a_tenant_as_on_an_etcd_of_its_own", Mode::Tenant);
}

/// A watch prints what happens while it is open, from the past and live.
#[test]
fn etcdctl_watch_prints_past_and_live_events() {
    let test = "etcdctl_watch_prints_past_and_live_events";
    for version in VERSIONS {
        let Some(program) = version.or_skip(test) else { continue };
        let server = start(Program::Keygate, Protection::Password);
        let mut terminal = Terminal::of_root(&program, &server, Protection::Password);
        terminal.run("put w/1 past");
        let mut watch = terminal
            .command("watch --prefix w/ --rev 1 --prev-kv")
            .stdout(Stdio::piped())
            .spawn()
            .expect("start etcdctl");
        let lines =
            std::io::BufRead::lines(std::io::BufReader::new(watch.stdout.take().expect("piped above")));
        let mut lines = lines.map(|line| line.expect("read from etcdctl"));
        let past: Vec<String> = lines.by_ref().take(3).collect();
        assert_eq!(past, ["PUT", "w/1", "past"], "{version:?}");
        terminal.run("put w/1 live");
        terminal.run("del w/1");
        let live: Vec<String> = lines.by_ref().take(9).collect();
        assert_eq!(
            live,
            ["PUT", "w/1", "past", "w/1", "live", "DELETE", "w/1", "live", "w/1"],
            "{version:?}"
        );
        watch.kill().ok();
        watch.wait().ok();
    }
}

/// `check perf` takes a minute of load, so only CI runs it.
#[test]
fn etcdctl_check_perf_passes() {
    let test = "etcdctl_check_perf_passes";
    if std::env::var_os("KEYGATE_CHECK_PERF").is_none() {
        return skip_quietly(test);
    }
    let Some(program) = Peer::Etcdctl37.or_skip(test) else { return };
    let server = start(Program::Keygate, Protection::Password);
    let mut terminal = Terminal::of_root(&program, &server, Protection::Password);
    let printed = terminal.run("check perf --load s");
    assert!(printed.stdout.contains("PASS"), "{printed:?}");
}

fn skip_quietly(test: &str) {
    if !keygate_tests::harness::peers::peers_are_required() {
        skip(test, "KEYGATE_CHECK_PERF=1 and a minute");
    }
}
