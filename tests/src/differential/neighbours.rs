//! One tenant with and without neighbours: the same operations, answer by answer.
//!
//! On the quiet server the tenant is alone. On the crowded one a second tenant and the platform's own
//! keyspace draw random operations of their own all the while, and a third tenant holds every lease id
//! that the first may ask for. All are reached by host name, so that auth can be off and on in each.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use keygate_proto::{
    admin::TenantCreateRequest,
    etcdserverpb::{
        AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleDeleteRequest, AuthUserAddRequest,
        AuthUserDeleteRequest, AuthUserGrantRoleRequest, LeaseGrantRequest, StatusRequest,
        WatchCreateRequest,
    },
};
use tokio::task::JoinSet;

use super::{
    call::Call,
    driver::{Arena, Length, in_segments},
    generate::{Generator, Step},
    normalise,
    report::Report,
    side::{Other, Side, Tamper},
    watch,
};
use crate::harness::{Client, Plan, Program, Protection, Server};

/// Whose answers are compared.
const WATCHED: &str = "watched";
const BUSY: &str = "busy";
const KEEPER: &str = "keeper";

/// Every id that the generator grants leases by.
const LEASE_IDS: std::ops::RangeInclusive<i64> = 1..=40;

const PASSWORD: &str = "of a root that is soon gone";

/// Clients of each noisy keyspace, each of which waits for its answers.
const CLIENTS: u64 = 2;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Neighbourhood {
    /// The first segment's; the next ones count on.
    pub seed: u64,
    /// Of the tenant that is watched, in all segments together, at least.
    pub operations: usize,
    /// Of one pair of servers.
    pub segment: usize,
    /// Lies that the answers of the crowded server are given.
    pub tamper: Option<Tamper>,
}

/// What was compared, beside how much noise.
#[derive(Debug)]
pub struct NeighboursReport {
    pub watched: Report,
    /// Operations of the busy tenant while it was watched.
    pub busy: usize,
    /// Operations in the platform's own keyspace.
    pub platform: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Noise {
    busy: usize,
    platform: usize,
}

pub async fn run_beside_neighbours(plan: Neighbourhood) -> Result<NeighboursReport> {
    let Neighbourhood { seed, operations, segment, .. } = plan;
    let made: Arc<Mutex<Noise>> = Arc::default();
    let watched = in_segments(Length { seed, operations, segment }, |seed| {
        let made = Arc::clone(&made);
        async move {
            let (report, noise) = compare(plan, seed).await?;
            let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
            made.busy += noise.busy;
            made.platform += noise.platform;
            Ok(report)
        }
    })
    .await?;
    let Noise { busy, platform } = *made.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(NeighboursReport { watched, busy, platform })
}

async fn compare(plan: Neighbourhood, seed: u64) -> Result<(Report, Noise)> {
    let (quiet, crowded) = (start().await?, start().await?);
    found(&quiet, WATCHED).await?;
    // So that the number of the watched keyspace differs too.
    for tenant in [KEEPER, BUSY, WATCHED] {
        found(&crowded, tenant).await?;
    }
    hold_all_leases(&crowded).await?;
    let oracle = seat(&quiet, Some(WATCHED), None).await?;
    let subject = seat(&crowded, Some(WATCHED), plan.tamper).await?;

    let enough = Arc::new(AtomicBool::new(false));
    let mut neighbours = JoinSet::new();
    for client in 0..CLIENTS {
        for tenant in [Some(BUSY), None] {
            let side = seat(&crowded, tenant, None).await?;
            let noise = disturb(side, seed * 100 + client, Arc::clone(&enough));
            neighbours.spawn(Box::pin(async move { (tenant, noise.await) }));
        }
    }
    let report = Arena::new(oracle, subject, seed, &BTreeSet::new()).play(plan.segment).await;
    enough.store(true, Ordering::Relaxed);
    let mut made = Noise::default();
    while let Some(neighbour) = neighbours.join_next().await {
        let (tenant, operations) = neighbour?;
        let operations = operations.context("a neighbour")?;
        match tenant {
            Some(_) => made.busy += operations,
            None => made.platform += operations,
        }
    }
    Ok((report?, made))
}

async fn start() -> Result<Arc<Server>> {
    let plan = Plan::new(Program::Keygate, Protection::Open).flags(&["--bcrypt-cost", "4"]).in_memory();
    Ok(Arc::new(Server::start(plan).await?))
}

fn host(tenant: &str) -> String {
    format!("{tenant}.tenants.test")
}

/// A tenant as empty as a fresh etcd: without users, auth off.
async fn found(server: &Server, tenant: &str) -> Result<()> {
    let hosts = vec![host(tenant)];
    let create = TenantCreateRequest { name: tenant.to_owned(), hosts, password: PASSWORD.to_owned() };
    let platform = server.root().await?;
    // Tenants are made only where auth is on; the contest begins with it off everywhere.
    turn_auth_on(&platform).await.context("turn the platform's auth on")?;
    let administrator = platform.login("root", PASSWORD).await.context("log in as the platform's root")?;
    administrator.tenants().create(create).await.context("create a tenant")?;
    forget_auth(&administrator, &platform).await.context("turn the platform's auth off")?;
    let anyone = Client::connect_to_host(&server.endpoint, &host(tenant)).await?;
    let root = anyone.login("root", PASSWORD).await.context("log in as the tenant's root")?;
    forget_auth(&root, &anyone).await.context("turn auth off")
}

async fn turn_auth_on(anyone: &Client) -> Result<()> {
    let root = || "root".to_owned();
    let mut auth = anyone.auth();
    let add = AuthUserAddRequest { name: root(), password: PASSWORD.to_owned(), ..Default::default() };
    auth.user_add(add).await?;
    auth.role_add(AuthRoleAddRequest { name: root() }).await?;
    auth.user_grant_role(AuthUserGrantRoleRequest { user: root(), role: root() }).await?;
    auth.auth_enable(AuthEnableRequest {}).await?;
    Ok(())
}

/// Leaves neither users nor roles.
async fn forget_auth(root: &Client, anyone: &Client) -> Result<()> {
    root.auth().auth_disable(AuthDisableRequest {}).await?;
    let name = "root".to_owned();
    anyone.auth().user_delete(AuthUserDeleteRequest { name: name.clone() }).await?;
    anyone.auth().role_delete(AuthRoleDeleteRequest { role: name }).await?;
    Ok(())
}

async fn hold_all_leases(server: &Server) -> Result<()> {
    let keeper = Client::connect_to_host(&server.endpoint, &host(KEEPER)).await?;
    for id in LEASE_IDS {
        let granted = keeper.lease().lease_grant(LeaseGrantRequest { id, ttl: 100_000 }).await?;
        ensure!(granted.into_inner().id == id, "the keeper got another lease");
    }
    Ok(())
}

/// A place in a tenant, or in the platform's own keyspace.
async fn seat(server: &Arc<Server>, tenant: Option<&str>, tamper: Option<Tamper>) -> Result<Side> {
    let connection = match tenant {
        Some(tenant) => Client::connect_to_host(&server.endpoint, &host(tenant)).await?,
        None => server.root().await?,
    };
    Side::on(Arc::clone(server), connection, Other::SameProgram, tamper).await
}

/// Random operations, whatever is answered, until there are enough. How many there were.
async fn disturb(mut side: Side, seed: u64, enough: Arc<AtomicBool>) -> Result<usize> {
    let mut generator = Generator::new(seed);
    let mut operations = 0;
    while !enough.load(Ordering::Relaxed) {
        operations += 1;
        match generator.next() {
            // An alarm of the platform's is about the store and lies on all tenants, as it must.
            Step::Call { call, .. } if matches!(&*call, Call::Alarm(alarm) if alarm.action != 0) => {}
            Step::Call { caller, call } => {
                let mut answer = side.call((*call).clone(), caller).await;
                normalise::answer(&mut answer, &side);
                generator.learn(&call, &answer);
            }
            Step::OpenStream { caller } => {
                let all =
                    WatchCreateRequest { range_end: "\0".into(), key: "\0".into(), ..Default::default() };
                let stream = side.streams.open(&side.client(caller), watch::create(all)).await?;
                generator.opened(stream);
            }
            Step::CreateWatch { stream, request } => {
                if let Some(stream) = side.streams.get(stream) {
                    stream.send(watch::create(request));
                }
            }
            Step::CancelWatch { stream, watch_id } => {
                if let Some(stream) = side.streams.get(stream) {
                    stream.send(watch::cancel(watch_id));
                }
            }
            Step::TryWatch { caller, request } => {
                let stream = side.streams.open(&side.client(caller), watch::create(request)).await?;
                side.streams.close(stream);
            }
            // Nobody compares what came; it must only not pile up.
            Step::Barrier => {
                for stream in generator.open_streams() {
                    if let Some(stream) = side.streams.get(stream) {
                        stream.take();
                    }
                }
            }
            Step::CloseStreams => {
                for stream in generator.close_streams() {
                    side.streams.close(stream);
                }
            }
        }
    }
    let alive = side.client(super::call::Caller::Nobody).maintenance().status(StatusRequest {}).await;
    // Auth may be on by now; a server that is gone says neither.
    match alive {
        Ok(_) => Ok(operations),
        Err(status) if status.message().contains("user name is empty") => Ok(operations),
        Err(status) => Err(status).context("the crowded server no longer answers"),
    }
}
