//! Calls made before or after a run: log in, fill in users and roles, grant leases, count keys, wait for a server.

use crate::call::{Arrival, CallKind, Status};
use crate::connection::Connection;
use crate::driver::poll_through_signals;
use crate::keyspace::Keyspace;
use crate::messages::{self, Consistency, path};
use crate::transport::TlsSettings;
use crate::wire::{find_bytes, find_int};
use crate::workload::{Expectation, LEASE_TTL_SECONDS};
use anyhow::{Context, Result, bail, ensure};
use mio::{Events, Poll, Token};
use std::time::{Duration, Instant};

/// Longer than any single call should take, a full count of a million keys and a password check included.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
const RETRY_PAUSE: Duration = Duration::from_millis(2);

/// Where the servers are and how to speak to them.
pub(crate) struct Target {
    pub(crate) endpoints: Vec<String>,
    pub(crate) tls: Option<TlsSettings>,
}

impl Target {
    /// Connections take the endpoints in turn.
    pub(crate) fn endpoint(&self, connection: usize) -> &str {
        &self.endpoints[connection % self.endpoints.len()]
    }
}

/// A user and its password.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// One connection for calls one after the other.
pub(crate) struct Session {
    connection: Connection,
    poll: Poll,
}

impl Session {
    pub(crate) fn open(target: &Target, token: Option<&str>) -> Result<Self> {
        let mut connection = Connection::open(target.endpoint(0), target.tls.as_ref(), token)?;
        let poll = Poll::new().context("make a poll")?;
        connection.register(poll.registry(), Token(0))?;
        Ok(Session { connection, poll })
    }

    /// The answer's message. A status other than ok is the error, as a [`Status`].
    pub(crate) fn call(&mut self, path: &str, message: &[u8]) -> Result<Vec<u8>> {
        self.connection.start(0, CallKind::Unary, path, message);
        let deadline = Instant::now() + CALL_DEADLINE;
        let mut events = Events::with_capacity(8);
        let mut answer = None;
        loop {
            self.connection.flush()?;
            self.connection.receive(&mut |arrival| {
                if let Arrival::Answer { status, body, .. } = arrival {
                    answer = Some(if status.is_ok() { Ok(body.to_vec()) } else { Err(status) });
                }
            })?;
            if let Some(answer) = answer.take() {
                return answer
                    .map_err(|status: Status| anyhow::Error::new(status).context(format!("call `{path}`")));
            }
            ensure!(Instant::now() < deadline, "no answer to `{path}` within {CALL_DEADLINE:?}");
            // Settings and window updates that arrived may have queued acknowledgements.
            self.connection.flush()?;
            poll_through_signals(&mut self.poll, &mut events, Duration::from_millis(100))?;
        }
    }
}

/// One password check, whose token serves all connections of a run.
pub(crate) fn authenticate(target: &Target, login: &Login) -> Result<String> {
    let answer = Session::open(target, None)?
        .call(path::AUTHENTICATE, &messages::two_strings(&login.user, &login.password))
        .with_context(|| format!("log in as `{}`", login.user))?;
    let token = find_bytes(&answer, 2)?.context("log-in answered without a token")?;
    Ok(std::str::from_utf8(token).context("the token is not text")?.to_owned())
}

/// Grants `count` leases, which outlive the run.
pub(crate) fn grant_leases(target: &Target, token: Option<&str>, count: usize) -> Result<Vec<u64>> {
    let mut session = Session::open(target, token)?;
    let mut request = Vec::new();
    messages::lease_grant(&mut request, LEASE_TTL_SECONDS);
    let mut leases = Vec::with_capacity(count);
    for _ in 0..count {
        let answer = session.call(path::LEASE_GRANT, &request)?;
        let lease = find_int(&answer, 2)?;
        ensure!(lease != 0, "a lease without an id");
        leases.push(lease);
    }
    Ok(leases)
}

/// How many keys the server holds under the run's prefix.
pub(crate) fn count_keys(target: &Target, token: Option<&str>, keys: &Keyspace) -> Result<u64> {
    let mut request = Vec::new();
    messages::count(&mut request, keys.prefix(), &messages::prefix_end(keys.prefix()));
    let answer = Session::open(target, token)?.call(path::RANGE, &request)?;
    find_int(&answer, 4)
}

/// What an answering server must show to count as ready.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Readiness {
    /// A linearizable read succeeds.
    Answers,
    /// A linearizable read finds key number 0 with its right value.
    HoldsKeys,
}

/// Tries again and again, on a new connection each time, and returns how long it took.
pub(crate) fn wait_until_ready(
    target: &Target,
    login: Option<&Login>,
    keys: &Keyspace,
    readiness: Readiness,
    patience: Duration,
) -> Result<Duration> {
    let began = Instant::now();
    loop {
        match probe(target, login, keys, readiness) {
            Ok(()) => return Ok(began.elapsed()),
            Err(error) if began.elapsed() > patience => {
                return Err(error.context(format!("not ready within {patience:?}")));
            }
            Err(_) => std::thread::sleep(RETRY_PAUSE),
        }
    }
}

fn probe(target: &Target, login: Option<&Login>, keys: &Keyspace, readiness: Readiness) -> Result<()> {
    let token = login.map(|login| authenticate(target, login)).transpose()?;
    let (mut key, mut request) = (Vec::new(), Vec::new());
    keys.key(&mut key, 0);
    messages::range(&mut request, &key, &[], Consistency::Linearizable);
    let answer = Session::open(target, token.as_deref())?.call(path::RANGE, &request)?;
    match readiness {
        Readiness::Answers => Ok(()),
        Readiness::HoldsKeys => Expectation::Key(0).check(keys, &mut 0, &answer),
    }
}

/// The users and roles of a run with authorization.
pub(crate) struct AuthPlan {
    pub(crate) roles: usize,
    pub(crate) user: Login,
    /// Given where auth is still off: the root user to create before it is switched on.
    pub(crate) enable_with_root: Option<Login>,
}

/// Creates the roles, each with read and write on a prefix of its own (the last one on the run's keys), and one user
/// that holds them all; then switches authorization on if the plan says so.
pub(crate) fn set_up_auth(
    target: &Target,
    token: Option<&str>,
    keys: &Keyspace,
    plan: &AuthPlan,
) -> Result<()> {
    if plan.roles == 0 {
        bail!("`--roles` must be at least 1");
    }
    let mut session = Session::open(target, token)?;
    let user = &plan.user;
    session.call(path::USER_ADD, &messages::two_strings(&user.user, &user.password))?;
    for number in 0..plan.roles {
        let role = format!("bench-role-{number:04}");
        let prefix = match number + 1 == plan.roles {
            true => keys.prefix().to_vec(),
            false => format!("tenant-{number:04}/").into_bytes(),
        };
        session.call(path::ROLE_ADD, &messages::role_add(&role))?;
        session.call(path::ROLE_GRANT, &messages::role_grant_prefix(&role, &prefix))?;
        session.call(path::USER_GRANT_ROLE, &messages::two_strings(&user.user, &role))?;
    }
    if let Some(root) = &plan.enable_with_root {
        session.call(path::USER_ADD, &messages::two_strings(&root.user, &root.password))?;
        session.call(path::ROLE_ADD, &messages::role_add("root"))?;
        session.call(path::USER_GRANT_ROLE, &messages::two_strings(&root.user, "root"))?;
        session.call(path::AUTH_ENABLE, &[])?;
    }
    Ok(())
}
