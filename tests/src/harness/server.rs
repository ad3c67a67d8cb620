//! A server process: started, waited for, killed.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use keygate_proto::etcdserverpb::{
    AuthEnableRequest, AuthRoleAddRequest, AuthUserAddRequest, AuthUserGrantRoleRequest,
};
use tempfile::TempDir;

use super::{certificates, client::Client, peers};

/// Root's password on an etcd that [`Server::secure`] set up.
pub const ROOT_PASSWORD_FOR_ETCD: &str = "root-password-of-the-oracle";

/// Both programs print it once clients are served.
const READY: &str = "ready to serve client requests";

/// A start may include recovery of a large log on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Keygate,
    /// etcd 3.7.1.
    Etcd,
}

/// How a server guards itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// HTTP and no auth. Keygate is then called as `etcd`.
    Plain,
    /// TLS and no auth; the certificate is good for the hosts of `tenants.test` too. Keygate is then called as
    /// `etcd`.
    Open,
    /// TLS, auth on, a user shows a password.
    Password,
    /// TLS, auth on, a user shows a certificate.
    Certificate,
}

impl Protection {
    fn has_auth(self) -> bool {
        match self {
            Protection::Plain | Protection::Open => false,
            Protection::Password | Protection::Certificate => true,
        }
    }
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Plan {
    pub program: Program,
    pub protection: Protection,
    /// Flags beyond those of place and protection.
    pub flags: Vec<String>,
    /// Keep the data on a memory disk: for suites in which durability is not the subject.
    pub in_memory: bool,
    /// Where the data goes instead, for suites about disks.
    pub data_dir: Option<PathBuf>,
}

/// Where clients go.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub url: String,
    pub tls: Option<TlsFiles>,
    /// Of the user `root`, when auth is on.
    pub root_password: Option<String>,
}

/// PEM files; certificate and key are those of the user `root`.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A running server. Dropping it kills the process and removes its directory, unless the thread
/// is panicking: then the directory stays and its path is printed.
pub struct Server {
    plan: Plan,
    directory: Option<TempDir>,
    client_port: u16,
    peer_port: u16,
    child: Option<Child>,
    pub endpoint: Endpoint,
}

impl Plan {
    pub fn new(program: Program, protection: Protection) -> Plan {
        Plan { program, protection, flags: Vec::new(), in_memory: false, data_dir: None }
    }

    /// Whether the server is given a certificate instead of making one.
    fn brings_certificate(&self) -> bool {
        match self.protection {
            Protection::Plain => false,
            Protection::Open => true,
            Protection::Password | Protection::Certificate => self.program == Program::Etcd,
        }
    }

    pub fn flags(mut self, flags: &[&str]) -> Plan {
        self.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
        self
    }

    pub fn in_memory(mut self) -> Plan {
        self.in_memory = true;
        self
    }

    pub fn data_dir(mut self, data_dir: PathBuf) -> Plan {
        self.data_dir = Some(data_dir);
        self
    }
}

impl Server {
    /// Starts a fresh server and waits until it serves.
    pub async fn start(plan: Plan) -> Result<Server> {
        let memory = Path::new("/dev/shm");
        let directory = match plan.in_memory && memory.is_dir() {
            true => TempDir::with_prefix_in("keygate-test-", memory)?,
            false => TempDir::with_prefix("keygate-test-")?,
        };
        let client_port = free_port()?;
        let scheme = if plan.protection == Protection::Plain { "http" } else { "https" };
        let endpoint =
            Endpoint { url: format!("{scheme}://127.0.0.1:{client_port}"), tls: None, root_password: None };
        let peer_port = free_port()?;
        let mut server =
            Server { plan, directory: Some(directory), client_port, peer_port, child: None, endpoint };
        if server.plan.brings_certificate() {
            server.endpoint.tls = Some(certificates::write(&server.path().join("pki"))?);
        }
        server.launch()?;
        if server.plan.protection.has_auth() {
            server.secure().await?;
        }
        Ok(server)
    }

    /// Starts the process again on the same data and ports. It must have been killed or stopped.
    pub fn launch(&mut self) -> Result<()> {
        let mut command = self.command()?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start the server")?;
        let (lines, ready) = mpsc::channel();
        let log = File::options().create(true).append(true).open(self.log_path())?;
        relay(child.stdout.take().context("the server's stdout")?, log.try_clone()?, lines.clone());
        relay(child.stderr.take().context("the server's stderr")?, log, lines);
        self.child = Some(child);
        match ready.recv_timeout(START_DEADLINE) {
            Ok(()) => Ok(()),
            Err(RecvTimeoutError::Timeout) => {
                bail!("the server was not ready after {START_DEADLINE:?}:\n{}", self.log_tail())
            }
            // Both pipes are closed: the process ended.
            Err(RecvTimeoutError::Disconnected) => {
                bail!("the server ended instead of serving:\n{}", self.log_tail())
            }
        }
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// SIGTERM, and waits for the end. Whether it ended with status 0.
    pub fn stop(&mut self) -> Result<bool> {
        let mut child = self.child.take().context("no server is running")?;
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status().context("send SIGTERM")?;
        Ok(child.wait()?.success())
    }

    /// Waits for a server that ends by itself. Whether it ended with status 0.
    pub fn wait_for_end(&mut self, deadline: Duration) -> Result<bool> {
        let child = self.child.as_mut().context("no server is running")?;
        let started = Instant::now();
        while started.elapsed() < deadline {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                return Ok(status.success());
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("the server still runs after {deadline:?}:\n{}", self.log_tail())
    }

    /// A client as root when auth is on, and as nobody when it is off.
    pub async fn root(&self) -> Result<Client> {
        let client = match self.plan.protection {
            Protection::Certificate => return Client::connect_with_certificate(&self.endpoint).await,
            Protection::Plain | Protection::Open | Protection::Password => {
                Client::connect(&self.endpoint).await?
            }
        };
        match &self.endpoint.root_password {
            Some(password) => client.login("root", password).await.context("log in as root"),
            None => Ok(client),
        }
    }

    /// The server's own directory: data, certificates and log are below it.
    pub fn path(&self) -> &Path {
        self.directory.as_ref().expect("taken only by drop").path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.plan.data_dir.clone().unwrap_or_else(|| self.path().join("data"))
    }

    pub fn log_path(&self) -> PathBuf {
        self.path().join("server.log")
    }

    /// Process id, while one runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// What the server logged when it panicked, else the last lines of its log.
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let fatal = |line: &&str| line.contains("panic") || line.contains("\"fatal\"");
        let from = lines.iter().position(fatal).unwrap_or(lines.len().saturating_sub(30));
        lines.iter().skip(from).take(30).copied().collect::<Vec<&str>>().join("\n")
    }

    fn command(&self) -> Result<Command> {
        let as_etcd = !self.plan.protection.has_auth();
        let mut command = match self.plan.program {
            Program::Etcd => Command::new(peers::Peer::Etcd.find().context("etcd 3.7.1 is not installed")?),
            Program::Keygate if as_etcd => Command::new(self.etcd_link()?),
            Program::Keygate => {
                let mut command = Command::new(peers::keygate()?);
                command.arg("serve");
                command
            }
        };
        let url = &self.endpoint.url;
        command.current_dir(self.path());
        command.arg("--data-dir").arg(self.data_dir()).args([
            "--name",
            "solo",
            "--listen-client-urls",
            url,
            "--advertise-client-urls",
            url,
        ]);
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("solo={peer}")]);
        if self.plan.brings_certificate() {
            let pki = self.path().join("pki");
            command
                .arg("--cert-file")
                .arg(pki.join("server.pem"))
                .arg("--key-file")
                .arg(pki.join("server.key"));
            if self.plan.protection == Protection::Certificate {
                command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(pki.join("ca.pem"));
            }
        }
        command.args(&self.plan.flags);
        Ok(command)
    }

    /// Keygate's binary under the name `etcd`: called so it behaves as etcd does.
    fn etcd_link(&self) -> Result<PathBuf> {
        let link = self.path().join("etcd");
        if !link.exists() {
            std::os::unix::fs::symlink(fs::canonicalize(peers::keygate()?)?, &link)?;
        }
        Ok(link)
    }

    /// Turns auth on in etcd; learns what Keygate made on its first start.
    async fn secure(&mut self) -> Result<()> {
        if self.plan.program == Program::Keygate {
            let pki = self.data_dir().join("pki");
            let password =
                fs::read_to_string(pki.join("root-password")).context("read Keygate's root password")?;
            self.endpoint.root_password = Some(password.trim().to_owned());
            self.endpoint.tls = Some(TlsFiles {
                ca: pki.join("ca.pem"),
                certificate: pki.join("root.pem"),
                key: pki.join("root-key.pem"),
            });
            return Ok(());
        }
        let client = match self.plan.protection {
            Protection::Certificate => Client::connect_with_certificate(&self.endpoint).await?,
            Protection::Plain | Protection::Open | Protection::Password => {
                Client::connect(&self.endpoint).await?
            }
        };
        let (name, password) = ("root".to_owned(), ROOT_PASSWORD_FOR_ETCD.to_owned());
        let mut auth = client.auth();
        auth.user_add(AuthUserAddRequest {
            name: name.clone(),
            password: password.clone(),
            ..Default::default()
        })
        .await?;
        auth.role_add(AuthRoleAddRequest { name: name.clone() }).await?;
        auth.user_grant_role(AuthUserGrantRoleRequest { user: name.clone(), role: name }).await?;
        auth.auth_enable(AuthEnableRequest {}).await?;
        self.endpoint.root_password = Some(password);
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let kept = self.directory.take().map(TempDir::keep);
            eprintln!(
                "kept data and log of {:?} on port {} in {kept:?}",
                self.plan.program, self.client_port
            );
        }
    }
}

/// Copies a pipe into the log and reports the line that means ready. The sender is dropped at the
/// end of the pipe.
fn relay(pipe: impl Read + Send + 'static, mut log: File, ready: Sender<()>) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n') {
            let Ok(line) = line else { return };
            log.write_all(&line).and_then(|()| log.write_all(b"\n")).ok();
            if String::from_utf8_lossy(&line).contains(READY) {
                ready.send(()).ok();
            }
        }
    });
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| anyhow!("find a free port: {error}"))?;
    Ok(listener.local_addr()?.port())
}
