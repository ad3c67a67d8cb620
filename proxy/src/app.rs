//! A server's life: everything is started in order, serves until a signal or a fatal error, drains
//! and ends.
//!
//! Order matters. Ports are bound first: a second server on them ends without having touched
//! anything. The engine comes before certificates, because it holds the lock on the data directory
//! below which they are made. Nothing is accepted before the first root exists and auth is on.

mod bootstrap;
mod memory;
mod settings;

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use keygate_engine::Engine;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::accept::{
    Acceptor, Drain, Endpoint, Listening, MakeHandler, Shared, Stages, Strangers, Workers, bind,
};
use crate::config::{Config, ListenUrl, Mode, Scheme};
use crate::http::{Endpoints, EngineCondition, Pages};
use crate::identify::{Identifier, Issuers, Lockout, PasswordPool};
use crate::limit::{Limiter, LimitsFile};
use crate::metrics::Metrics;
use crate::notify::State;
use crate::policies::{self, Policies};
use crate::policy_files::{Following, PolicyFiles};
use crate::quota_watch::QuotaWatch;
use crate::quota_webhook::{self, Webhook};
use crate::rpc::GrpcService;
use crate::stack::Context;
use crate::tls::ReloadingTls;
use crate::{notify, pki, quota_watch};
use memory::Memory;

/// Serves until told to stop. An error is what the operator reads, in one line.
pub fn run(config: Config) -> anyhow::Result<()> {
    // Whoever makes a file here, a library too: it is its owner's alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let config = Arc::new(config);
    let mut signals = Signals::install()?;
    let sockets = bind_all(&config)?;
    let compiler = keygate_policies::Compiler::new().context("the policy model cannot be used")?;
    let compiler = Arc::new(if config.own.policy_recover { compiler.recovering() } else { compiler });
    let memory = Memory::of(config.own.memory_budget);
    let options = settings::engine(&config, memory);
    let compile = compiler.clone();
    let engine = tokio::task::spawn_blocking(move || Engine::open(options, compile)).await??;
    for why in compiler.unusable() {
        tracing::error!(%why, "it denies everything to all but the platform's root: apply another bundle, or roll back");
    }
    let trust = policies::trust(&config.own.policy_keys, config.own.policy_keys_needed)?;
    let policies = Arc::new(Policies::new(compiler, trust));

    let certificates = pki::prepare(&config, SystemTime::now().into())?;
    let passwords = PasswordPool::start(config.own.password_threads, config.bcrypt_cost)?;
    let lockout = Arc::new(Lockout::new(config.own.login_lockout, std::time::Instant::now()));
    let identifier = Identifier::new(settings::tokens(&config.auth_token)?, passwords);
    let identifier = Arc::new(identifier.locking_out(lockout.clone()));
    let first = match config.mode {
        Mode::Keygate => bootstrap::ensure_root(&config, &engine, &identifier, certificates.as_ref()).await?,
        Mode::Etcd => None,
    };
    let tls = match &certificates {
        Some(files) => Some(Arc::new(ReloadingTls::open(settings::tls(&config, files))?)),
        None => None,
    };

    let metrics = Arc::new(Metrics::of(policies.clone()));
    // Fresh, so nobody has set it.
    let _first = metrics.lockout.set(lockout);
    let _first = metrics.identifier.set(identifier.clone());
    if let Some(tls) = tls.as_ref().filter(|_| config.identity_rules_file.is_some()) {
        identifier.trust(Issuers::start(tls.clone())?);
    }
    if let Some(tls) = &tls {
        // Fresh, so nobody has set it.
        let _first = metrics.tls.set(tls.clone());
    }
    // Before anybody is served: a fresh server begins with its bundle.
    let policy_files = match config.own.policy_dir.clone() {
        Some(path) => {
            let named = || format!("the bundle of `{}` is not in force, and no other one is", path.display());
            let files = PolicyFiles::new(path.clone(), policies.clone(), engine.port());
            Some(files.start().await.with_context(named)?)
        }
        None => None,
    };
    let shared = Shared::new(settings::http(&config, memory), metrics.clone());
    let (drain, draining) = watch::channel(Drain::Serving);
    let limiter = Limiter::new(settings::limit_rules(&config)?);
    // The first and only one.
    let _set = metrics.limiter.set(limiter.clone());
    let make = handlers(&config, &engine, &identifier, &policies, &metrics, &limiter, &draining);
    let workers = Arc::new(Workers::start(config.own.threads, &shared, &make, &draining)?);
    let listening = listeners(sockets, tls.as_ref())?;
    let strangers = Strangers::new(config.own.max_unauthenticated_connections as usize);
    let acceptor = Acceptor::start(listening, strangers, workers.clone(), limiter.clone(), draining)?;
    let limits = Reloading::new(&config, limiter);
    if let Some(file) = &limits.file {
        let _first = metrics.limits_file.set(file.clone());
    }
    let member = engine.identity().member_id;
    let webhook = config.own.quota_webhook.clone();
    let webhook = webhook.map(|to| Webhook::start(to, member, quota_webhook::USUAL, metrics.webhook.clone()));
    let mut quotas = Quotas { watch: QuotaWatch::default(), webhook };

    tracing::info!("ready to serve client requests");
    tell(State::Ready);
    if let Some(steps) = first {
        // Nobody may be reading.
        let _gone = writeln!(std::io::stdout(), "{steps}");
    }

    let fatal =
        signals.wait(&engine, tls.as_deref(), &limits, &mut quotas, policy_files.as_ref(), &config).await;
    drop(policy_files);
    let deadline = match &fatal {
        // What cannot be written any more is not waited for.
        Some(_) => Instant::now(),
        None => {
            tell(State::Stopping);
            tracing::info!(grace = ?config.own.shutdown_grace, "stopping: no more connections, open requests may end");
            Instant::now() + config.own.shutdown_grace
        }
    };
    drain.send_replace(Drain::Until(deadline));
    let mut ending = tokio::task::spawn_blocking(move || {
        acceptor.join();
        if let Some(workers) = Arc::into_inner(workers) {
            workers.join();
        }
    });
    tokio::select! {
        _ = &mut ending => {}
        () = signals.stop() => {
            drain.send_replace(Drain::Until(Instant::now()));
            // Ends within a second; a panic there was reported by its hook.
            let _ended = ending.await;
        }
    }
    if let Some(cause) = fatal {
        anyhow::bail!("{cause}");
    }
    tokio::task::spawn_blocking(move || engine.shutdown()).await?;
    tracing::info!("stopped; everything is on disk");
    Ok(())
}

/// An address that is bound, before it is known how to serve it.
struct Bound {
    socket: std::net::TcpListener,
    url: ListenUrl,
    grpc: bool,
    pages: Pages,
}

fn bind_all(config: &Config) -> anyhow::Result<Vec<Bound>> {
    let pages = match config.mode {
        Mode::Keygate => Pages::Guarded,
        Mode::Etcd => Pages::All,
    };
    let client_pages = if config.listen_client_http.is_empty() { pages } else { Pages::None };
    let client = config.listen_client.iter().map(|url| (url, true, client_pages));
    let http = config.listen_client_http.iter().map(|url| (url, false, pages));
    let monitoring = config.listen_metrics.iter().map(|url| (url, false, Pages::Monitoring));
    let mut bound = Vec::new();
    for (url, grpc, pages) in client.chain(http).chain(monitoring) {
        let socket = bind(url.address)?;
        // With port 0 the system chose one.
        let url = ListenUrl { scheme: url.scheme, address: socket.local_addr()? };
        bound.push(Bound { socket, url, grpc, pages });
    }
    Ok(bound)
}

fn listeners(bound: Vec<Bound>, tls: Option<&Arc<ReloadingTls>>) -> anyhow::Result<Vec<Listening>> {
    let mut listening = Vec::new();
    for Bound { socket, url, grpc, pages } in bound {
        let tls = match url.scheme {
            Scheme::Http => None,
            Scheme::Https => {
                Some(tls.with_context(|| format!("`{url}` needs a certificate and a key"))?.clone())
            }
        };
        let traffic = if tls.is_some() {
            "serving client traffic securely"
        } else {
            "serving client traffic insecurely"
        };
        tracing::info!(address = %url.address, grpc, "{traffic}");
        listening.push(Listening { socket, endpoint: Arc::new(Endpoint { tls, grpc, pages }) });
    }
    Ok(listening)
}

/// Makes the stages of one serving thread, inside that thread.
fn handlers(
    config: &Config,
    engine: &Engine,
    identifier: &Arc<Identifier>,
    policies: &Arc<Policies>,
    metrics: &Arc<Metrics>,
    limiter: &Arc<Limiter>,
    draining: &watch::Receiver<Drain>,
) -> Arc<MakeHandler> {
    let rules = settings::rules(config);
    let (engine, identifier, metrics) = (engine.clone(), identifier.clone(), metrics.clone());
    let named_tenants = config.own.metrics_tenants as usize;
    let (policies, limiter, draining) = (policies.clone(), limiter.clone(), draining.clone());
    Arc::new(move || {
        let port = engine.port();
        let context = Context {
            port: port.clone(),
            identifier: identifier.clone(),
            policies: policies.clone(),
            identity: engine.identity(),
            endpoint: rules.endpoint,
            limits: rules.limits,
            limiter: limiter.clone(),
            max_request_bytes: rules.max_request_bytes,
            request_timeout: rules.request_timeout,
        };
        Arc::new(Stages {
            grpc: GrpcService::new(Arc::new(context), metrics.add_rpc()),
            pages: Endpoints::new(Arc::new(EngineCondition::new(port, named_tenants)), metrics.clone()),
            draining: draining.clone(),
        })
    })
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Keeps TLS files fresh until it is time to stop. The text is the cause when the engine cannot
    /// go on.
    async fn wait(
        &mut self,
        engine: &Engine,
        tls: Option<&ReloadingTls>,
        limits: &Reloading,
        quotas: &mut Quotas,
        policy_files: Option<&Following>,
        config: &Arc<Config>,
    ) -> Option<String> {
        // The first look was at the start.
        let mut daily = tokio::time::interval_at(Instant::now() + RENEWAL, RENEWAL);
        daily.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut fatal = std::pin::pin!(engine.fatal());
        loop {
            tokio::select! {
                cause = &mut fatal => return Some(cause),
                _ = self.interrupt.recv() => return None,
                _ = self.terminate.recv() => return None,
                _ = self.hangup.recv() => {
                    tracing::info!("SIGHUP: reading TLS files, identity rules, limits and the policy bundle again");
                    limits.reload();
                    if let Some(tls) = tls {
                        tls.reload();
                    }
                    if let Some(files) = policy_files {
                        files.ask();
                    }
                }
                _ = daily.tick() => renew(config.clone()),
                _ = tick.tick() => {
                    quotas.look(engine);
                    limits.tick();
                    if let Some(tls) = tls {
                        tls.reload_if_changed();
                    }
                }
            }
        }
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Quotas that are nearly used up, and who is told of them.
struct Quotas {
    watch: QuotaWatch,
    webhook: Option<Webhook>,
}

impl Quotas {
    fn look(&mut self, engine: &Engine) {
        let crossings = self.watch.look(engine.view().limited());
        quota_watch::tell(&crossings);
        if let Some(webhook) = &self.webhook {
            webhook.tell(&crossings);
        }
    }
}

/// Limits, and the file that they are in.
struct Reloading {
    limiter: Arc<Limiter>,
    file: Option<Arc<LimitsFile>>,
}

impl Reloading {
    fn new(config: &Config, limiter: Arc<Limiter>) -> Self {
        let file =
            config.limits_source.clone().map(|source| Arc::new(LimitsFile::new(source, limiter.clone())));
        Self { limiter, file }
    }

    fn reload(&self) {
        if let Some(file) = &self.file {
            file.reload();
        }
    }

    fn tick(&self) {
        self.limiter.sweep();
        if let Some(file) = &self.file {
            file.reload_if_changed();
        }
    }
}

/// How often it is looked whether a certificate of our own is due.
const RENEWAL: Duration = Duration::from_secs(86_400);

/// On a thread of its own; what it writes is found by the next look at the TLS files.
fn renew(config: Arc<Config>) {
    tokio::task::spawn_blocking(move || {
        if let Err(error) = pki::prepare(&config, SystemTime::now().into()) {
            tracing::error!(%error, "certificates cannot be renewed; trying again tomorrow");
        }
    });
}

fn tell(state: State) {
    if let Err(error) = notify::send(state) {
        tracing::warn!(%error, ?state, "the service manager could not be told");
    }
}

/// Each connection takes a descriptor; the soft limit of most systems, 1024, is for programs that
/// use `select`.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}
