//! What each stage costs a request, one after another on one thread: nanoseconds, the middle and the slow end.
//!
//! `cargo run --release --package keygate --example stage_costs`
//!
//! A user with ten roles of ten permissions each, under limits of every scope, puts and reads 256 bytes. The two last
//! lines of each part are the whole of it: a read as the serving thread answers it, a write until it is on disk.

use std::error::Error;
use std::hint::black_box;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use keygate::authorize::{self, Endpoint};
use keygate::config::LimitsSource;
use keygate::identify::{ConnectionIdentity, Identifier, PasswordPool, Proof, Shown, SimpleTokens, Tokens};
use keygate::limit::{Limiter, Request};
use keygate::policies::Policies;
use keygate::rpc::decode::decode;
use keygate::stack::{self, Context, Evidence};
use keygate::{dispatch, transform};
use keygate_core::{
    Credential, InternalReason, KeyRange, KeyspaceId, Limits, Operation, Permission, PermissionKind, Permit,
    Plaintext, RoleGrant, Sealed, Secret, UserAdd,
};
use keygate_engine::{Engine, EngineOptions, Port};
use keygate_policies::Compiler;
use keygate_proto::etcdserverpb::{AuthenticateRequest, PutRequest, RangeRequest};
use prost::Message as _;

const SAMPLES: usize = 20_000;
const WRITES: usize = 200;
const LIMITS: &str = "limits:
  server: {requests: 1000000000, bytes-in: 900MiB}
  tenant:
    requests: 1000000000
    writes: 1000000000
    value-size: 1MiB
    prefixes:
      /apps/: {requests: 1000000000}
    user: {requests: 1000000000, in-flight: 1000000}
";

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let limits_file = directory.path().join("limits.yaml");
    std::fs::write(&limits_file, LIMITS)?;
    let rules = LimitsSource::File(limits_file).read().map_err(|problems| problems.to_string())?;
    let compiler = Arc::new(Compiler::new()?);
    let options = EngineOptions { data_dir: directory.path().join("data"), ..EngineOptions::default() };
    let compile = compiler.clone();
    let engine = tokio::task::spawn_blocking(move || Engine::open(options, compile)).await??;
    let passwords = PasswordPool::start(NonZeroUsize::MIN, 4)?;
    let identifier =
        Arc::new(Identifier::new(Tokens::Simple(SimpleTokens::new(Duration::from_secs(300))), passwords));
    let context = Context {
        port: engine.port(),
        identifier,
        policies: Arc::new(Policies::new(compiler, None)),
        identity: engine.identity(),
        endpoint: Endpoint { auth_can_be_disabled: false },
        limits: Limits { txn_operations: 128, txn_depth: 32 },
        limiter: Limiter::new(rules),
        max_request_bytes: 1 << 20,
        request_timeout: Duration::from_secs(7),
    };
    grant_rights(&context).await?;

    let peer = SocketAddr::from(([127, 0, 0, 1], 40_000));
    let connection = ConnectionIdentity::new(peer, true, None, Shown::Nothing, Box::new(Nobody));
    let metadata = HeaderMap::new();
    let token = log_in(&context, Evidence { connection: &connection, metadata: &metadata }).await?;
    let mut metadata = HeaderMap::new();
    metadata.insert("token", HeaderValue::from_str(&token)?);
    let evidence = Evidence { connection: &connection, metadata: &metadata };

    let key = Bytes::from_static(b"/apps/7/settings/colour");
    let put = PutRequest { key: key.clone(), value: vec![7; 256].into(), ..PutRequest::default() };
    stages(&context, evidence, "/etcdserverpb.KV/Put", put.encode_to_vec().into(), WRITES).await?;
    let range = RangeRequest { key, ..RangeRequest::default() };
    stages(&context, evidence, "/etcdserverpb.KV/Range", range.encode_to_vec().into(), SAMPLES).await?;
    tokio::task::spawn_blocking(move || engine.shutdown()).await?;
    Ok(())
}

/// One request, stage by stage as [`stack::run`] puts them together.
async fn stages(
    context: &Context,
    evidence: Evidence<'_>,
    path: &str,
    bytes: Bytes,
    whole: usize,
) -> Outcome<()> {
    println!("{path}");
    let read =
        || decode(path, bytes.clone(), &context.limits).and_then(Result::ok).ok_or("cannot be decoded");
    let operation = read()?;
    let view = context.port.view();
    let caller = context.identifier.identify(evidence.connection, evidence.metadata, &view)?;
    let asked = Request { view: &view, caller: &caller, connection: evidence.connection };

    each("decode", SAMPLES, || drop(black_box(read())));
    each("check", SAMPLES, || drop(black_box(operation.check(&context.limits))));
    each("view", SAMPLES, || drop(black_box(context.port.view())));
    each("identify", SAMPLES, || {
        drop(black_box(context.identifier.identify(evidence.connection, evidence.metadata, &view)));
    });
    let mut limited = operation.clone();
    each("limit", SAMPLES, || drop(black_box(context.limiter.admit(asked, &mut limited, bytes.len()))));
    each("authorize", SAMPLES, || {
        drop(black_box(authorize::obtain(context.endpoint, &view, &caller, operation.clone())));
    });
    let permit = authorize::obtain(context.endpoint, &view, &caller, operation.clone())?;
    each("transform", SAMPLES, || drop(black_box(transform::seal(permit.clone()))));

    let asker = keygate::identify::Asker::at(evidence.connection.peer());
    let mut spent = Vec::with_capacity(whole);
    for _ in 0..whole {
        let view = context.port.view();
        let permit =
            transform::seal(authorize::obtain(context.endpoint, &view, &caller, operation.clone())?)?;
        let began = Instant::now();
        black_box(dispatch::one(context, &view, asker, &caller, permit, None).await?);
        spent.push(began.elapsed());
    }
    tell("dispatch", spent);

    let mut spent = Vec::with_capacity(whole);
    for _ in 0..whole {
        let began = Instant::now();
        let operation = read()?;
        black_box(stack::run(context, evidence, operation, bytes.len()).await?.reply);
        spent.push(began.elapsed());
    }
    tell("all of it", spent);
    Ok(())
}

fn each(stage: &str, samples: usize, mut run: impl FnMut()) {
    let mut spent = Vec::with_capacity(samples);
    for _ in 0..samples {
        let began = Instant::now();
        run();
        spent.push(began.elapsed());
    }
    tell(stage, spent);
}

fn tell(stage: &str, mut spent: Vec<Duration>) {
    spent.sort_unstable();
    let at = |percent: usize| spent[(spent.len() - 1) * percent / 100].as_nanos();
    println!("  {stage:<10} {:>10} ns   p99 {:>10} ns", at(50), at(99));
}

/// No certificate was shown.
struct Nobody;

impl Proof for Nobody {
    fn given(&self) {}
}

/// A user `app` with ten roles of ten permissions, one of which fits.
async fn grant_rights(context: &Context) -> Outcome<()> {
    let hash = async |password: &str| {
        let nobody = keygate::identify::Asker::at(SocketAddr::from(([0, 0, 0, 0], 0)));
        context
            .identifier
            .passwords()
            .hash(nobody, Secret::new(password.to_owned()))
            .await
            .map(Credential::Hashed)
    };
    let mut changes = vec![Operation::RoleAdd { name: "root".to_owned() }];
    for name in ["root", "app"] {
        changes
            .push(Operation::UserAdd(UserAdd { name: name.to_owned(), credential: hash("secret").await? }));
    }
    let joins =
        |user: &str, role: &str| Operation::UserGrantRole { user: user.to_owned(), role: role.to_owned() };
    changes.push(joins("root", "root"));
    for role in 0..10 {
        let name = format!("role-{role}");
        changes.push(Operation::RoleAdd { name: name.clone() });
        for part in 0..10 {
            let (from, to) = (format!("/apps/{role}/{part}"), format!("/apps/{role}/{part}~"));
            let range = KeyRange::Span { start: from.into(), end: to.into() };
            let permission = Permission { kind: PermissionKind::ReadWrite, range };
            changes.push(Operation::RoleGrantPermission(RoleGrant { role: name.clone(), permission }));
        }
        changes.push(joins("app", &name));
    }
    let range = KeyRange::Span { start: "/apps/7/settings/".into(), end: "/apps/7/settings0".into() };
    let permission = Permission { kind: PermissionKind::ReadWrite, range };
    changes.push(Operation::RoleGrantPermission(RoleGrant { role: "role-7".to_owned(), permission }));
    changes.push(Operation::AuthEnable);
    for change in changes {
        propose(&context.port, change).await?;
    }
    Ok(())
}

async fn propose(port: &Port, operation: Operation<Sealed>) -> Outcome<()> {
    port.propose(Permit::internal(InternalReason::Bootstrap, KeyspaceId::DEFAULT, operation)).await?;
    Ok(())
}

async fn log_in(context: &Context, evidence: Evidence<'_>) -> Outcome<String> {
    let request = AuthenticateRequest { name: "app".to_owned(), password: "secret".to_owned() };
    let bytes = Bytes::from(request.encode_to_vec());
    let login: Operation<Plaintext> = decode("/etcdserverpb.Auth/Authenticate", bytes, &context.limits)
        .and_then(Result::ok)
        .ok_or("cannot be decoded")?;
    match stack::run(context, evidence, login, 0).await?.reply.answer {
        keygate_core::Answer::Token(token) => Ok(token.expose().to_owned()),
        _ => Err("a login gives a token".into()),
    }
}
