//! A connection to a running server, for the commands that need one.
//!
//! Without flags it is the server of `./keygate.data` on this machine, with the certificates that its first start made.
//! The words are etcdctl's.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::{Output, say};
use anyhow::{Context as _, bail};
use clap::Args;
use keygate_proto::etcdserverpb::{AuthenticateRequest, auth_client::AuthClient};
use tonic::Status;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::{Interceptor, interceptor::InterceptedService};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::UNUSABLE;

/// Why a command came to nothing.
pub(super) enum Failure {
    /// The command line, its files, the connection or the terminal.
    Unusable(anyhow::Error),
    /// The server said no.
    Refused(anyhow::Error),
}

/// Runs a command to its end; says why when it came to nothing.
pub(super) fn run(output: Output, command: impl Future<Output = Result<ExitCode, Failure>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tell(output, &error.to_string());
            return ExitCode::FAILURE;
        }
    };
    let (error, code) = match runtime.block_on(command) {
        Ok(code) => return code,
        Err(Failure::Unusable(error)) => (error, ExitCode::from(UNUSABLE)),
        Err(Failure::Refused(error)) => (error, ExitCode::FAILURE),
    };
    tell(output, &format!("{error:#}"));
    code
}

/// Why a command came to nothing, as `keygate policy` says it. What a terminal would obey is escaped: names in it may
/// be anybody's.
fn tell(output: Output, message: &str) {
    match output {
        Output::Text => eprintln!("keygate: {}", harmless(message)),
        Output::Json => say(&format!("{:#}\n", serde_json::json!({ "ok": false, "error": message }))),
    }
}

fn harmless(text: &str) -> String {
    let mut told = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' => told.push(letter),
            letter if letter.is_control() => told.extend(letter.escape_debug()),
            letter => told.push(letter),
        }
    }
    told
}

/// Where the server is, and who asks.
#[derive(Debug, Args)]
pub(super) struct Remote {
    #[command(flatten)]
    reach: Reach,
    /// Log in as `name` or `name:password`; without a password it is asked for
    #[arg(long, global = true, env = "KEYGATE_USER", hide_env_values = true, value_name = "NAME[:PASSWORD]")]
    user: Option<String>,
    /// Password of `--user`
    #[arg(long, global = true, env = "KEYGATE_PASSWORD", hide_env_values = true, requires = "user")]
    password: Option<String>,
}

/// Where the server is, and with which certificate it is asked.
#[derive(Debug, Clone, Args)]
pub(super) struct Reach {
    /// Addresses of the server; the first that answers is asked
    #[arg(
        long,
        global = true,
        env = "KEYGATE_ENDPOINTS",
        value_delimiter = ',',
        default_value = "https://127.0.0.1:2379"
    )]
    endpoints: Vec<String>,
    /// Take the certificates that the server's first start left in this directory, unless others are named
    #[arg(long, global = true, env = "KEYGATE_DATA_DIR", default_value = "keygate.data", value_hint = clap::ValueHint::DirPath)]
    data_dir: PathBuf,
    /// Verify the server's certificate with this CA
    #[arg(long, global = true, env = "KEYGATE_CACERT", value_hint = clap::ValueHint::FilePath)]
    cacert: Option<PathBuf>,
    /// Identify with this TLS certificate
    #[arg(long, global = true, env = "KEYGATE_CERT", requires = "key", value_hint = clap::ValueHint::FilePath)]
    cert: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, global = true, env = "KEYGATE_KEY", requires = "cert", value_hint = clap::ValueHint::FilePath)]
    key: Option<PathBuf>,
    /// How long to wait for a connection, in seconds
    #[arg(long, global = true, default_value_t = 5)]
    dial_timeout: u64,
    /// How long to wait for an answer, in seconds
    #[arg(long, global = true, default_value_t = 30)]
    command_timeout: u64,
}

/// The first byte of what a TLS server answers to whoever does not speak TLS.
const TLS_ALERT: u8 = 21;

/// A channel that shows its token with each call.
pub(super) type Connection = InterceptedService<Channel, ShowToken>;

#[derive(Clone)]
pub(super) struct ShowToken(Option<MetadataValue<Ascii>>);

impl Interceptor for ShowToken {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}

impl Reach {
    /// For commands whose `--user` is somebody else: who asks is named by `KEYGATE_USER` then.
    pub(super) fn with_user_of_environment(&self) -> Remote {
        let variable = |name| std::env::var(name).ok().filter(|text: &String| !text.is_empty());
        Remote { reach: self.clone(), user: variable("KEYGATE_USER"), password: variable("KEYGATE_PASSWORD") }
    }
}

impl Remote {
    /// The first endpoint, to be shown to people.
    pub(super) fn endpoint(&self) -> &str {
        self.reach.endpoints.first().map_or("", String::as_str)
    }

    pub(super) async fn connect(&self) -> anyhow::Result<Connection> {
        let tls = self.tls()?;
        let mut failures = Vec::new();
        for endpoint in &self.reach.endpoints {
            match self.dial(endpoint, &tls).await {
                Ok(channel) => {
                    let token = self.log_in(&channel).await?;
                    return Ok(InterceptedService::new(channel, ShowToken(token)));
                }
                Err(error) => failures.push(format!("`{endpoint}`: {error:#}")),
            }
        }
        bail!("no server could be reached: {}", failures.join("; "))
    }

    /// To another listener, with the same certificates and without a token.
    pub(super) async fn connect_to(&self, url: &str) -> anyhow::Result<Connection> {
        let channel = self.dial(url, &self.tls()?).await?;
        Ok(InterceptedService::new(channel, ShowToken(None)))
    }

    async fn dial(&self, endpoint: &str, tls: &ClientTlsConfig) -> anyhow::Result<Channel> {
        let url = if endpoint.contains("://") { endpoint.to_owned() } else { format!("https://{endpoint}") };
        let mut target = Endpoint::from_shared(url.clone())
            .context("not an address")?
            .connect_timeout(Duration::from_secs(self.reach.dial_timeout))
            .timeout(Duration::from_secs(self.reach.command_timeout));
        if url.starts_with("https://") {
            target = target.tls_config(tls.clone()).context("the TLS files cannot be used")?;
        }
        let channel = target.connect().await.map_err(|error| anyhow::anyhow!(root_cause(&error)))?;
        if url.starts_with("http://") {
            self.speaks_plainly(&url).await?;
        }
        Ok(channel)
    }

    /// A connection without TLS is made at once, and breaks at the first request when the other side waits for TLS.
    async fn speaks_plainly(&self, url: &str) -> anyhow::Result<()> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let Some(address) = url.parse::<http::Uri>().ok().and_then(|url| url.authority().cloned()) else {
            return Ok(());
        };
        let asked = async {
            let (host, port) = (address.host().trim_matches(['[', ']']), address.port_u16().unwrap_or(80));
            let mut stream = tokio::net::TcpStream::connect((host, port)).await?;
            stream.write_all(b"GET /version HTTP/1.1\r\nhost: keygate\r\nconnection: close\r\n\r\n").await?;
            let mut first = [0; 1];
            stream.read(&mut first).await.map(|read| first[0] == TLS_ALERT && read == 1)
        };
        let asked = tokio::time::timeout(Duration::from_secs(self.reach.dial_timeout), asked).await;
        if matches!(asked, Ok(Ok(true))) {
            bail!("the server speaks TLS: say `https://{address}`");
        }
        Ok(())
    }

    fn tls(&self) -> anyhow::Result<ClientTlsConfig> {
        let made =
            |name: &str| Some(self.reach.data_dir.join("pki").join(name)).filter(|path| path.is_file());
        let mut tls = ClientTlsConfig::new();
        if let Some(path) = self.reach.cacert.clone().or_else(|| made("ca.pem")) {
            tls = tls.ca_certificate(Certificate::from_pem(read(&path)?));
        } else if self.reach.endpoints.iter().any(|endpoint| !endpoint.starts_with("http://")) {
            bail!(
                "`{}` has no `pki/ca.pem`: name the CA with `--cacert`, or the data directory with `--data-dir`",
                self.reach.data_dir.display()
            );
        }
        let own = match (&self.reach.cert, &self.reach.key) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            // Who logs in by name does not want to be somebody else by certificate.
            _ if self.user.is_some() => None,
            _ => made("root.pem").zip(made("root-key.pem")),
        };
        if let Some((certificate, key)) = own {
            tls = tls.identity(Identity::from_pem(read(&certificate)?, read(&key)?));
        }
        Ok(tls)
    }

    async fn log_in(&self, channel: &Channel) -> anyhow::Result<Option<MetadataValue<Ascii>>> {
        let Some(user) = &self.user else { return Ok(None) };
        let (name, password) = match (&self.password, user.split_once(':')) {
            (Some(password), _) => (user.as_str(), password.clone()),
            (None, Some((name, password))) => (name, password.to_owned()),
            (None, None) => (user.as_str(), ask_password(&format!("Password of {user}: "))?),
        };
        let request = AuthenticateRequest { name: name.to_owned(), password };
        let answer = AuthClient::new(channel.clone()).authenticate(request).await.map_err(said)?;
        let mut token: MetadataValue<Ascii> = answer.into_inner().token.parse().context("unusable token")?;
        token.set_sensitive(true);
        Ok(Some(token))
    }
}

/// What the server said, as one line.
pub(super) fn said(status: Status) -> anyhow::Error {
    match status.message() {
        "" => anyhow::anyhow!("{:?}", status.code()),
        // Whoever prints it says who speaks.
        text => anyhow::anyhow!("{}", text.strip_prefix("keygate: ").unwrap_or(text)),
    }
}

/// A line from standard input. When that is a terminal, its echo is off meanwhile.
pub(super) fn ask_password(prompt: &str) -> anyhow::Result<String> {
    use std::io::{BufRead as _, Write as _};
    let mut stderr = std::io::stderr();
    write!(stderr, "{prompt}")?;
    stderr.flush()?;
    let mut line = String::new();
    let quiet = Quiet::begin();
    std::io::stdin().lock().read_line(&mut line)?;
    if quiet.is_some() {
        writeln!(stderr)?;
    }
    drop(quiet);
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// The terminal does not show what is typed until this is dropped.
struct Quiet(rustix::termios::Termios);

impl Quiet {
    fn begin() -> Option<Self> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Now, &silent).ok()?;
        Some(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        use rustix::termios::{OptionalActions, tcsetattr};
        // The terminal is gone: nothing is left to be restored.
        let _gone = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))
}

/// tonic says "transport error" and keeps the reason for those who look deeper.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
