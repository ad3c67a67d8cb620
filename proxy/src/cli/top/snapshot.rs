//! Two looks at a server, and what happened between them.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use http_body_util::BodyExt as _;
use keygate_proto::admin as pb;
use pb::load_client::LoadClient;
use pb::quotas_client::QuotasClient;
use pb::tenants_client::TenantsClient;
use tonic::Code;
use tonic::client::GrpcService as _;

use super::page::Page;
use super::users::{self, User};
use super::{Sort, Wanted};
use crate::cli::remote::{Connection, Remote};

/// Codes of answers that say no: to who asks, or to how much.
const REFUSALS: [&str; 3] = ["PermissionDenied", "Unauthenticated", "ResourceExhausted"];

/// Where it is looked at.
pub(super) struct Source {
    server: Connection,
    /// The operators' page; without it the one that everybody may read.
    metrics: Option<Connection>,
}

/// One look.
pub(super) struct Sample {
    at: Instant,
    tenants: Vec<pb::Tenant>,
    quotas: Vec<pb::Quota>,
    /// None: the server does not tell, or not to who asks.
    users: Option<Vec<pb::UserLoad>>,
    /// None: that listener has no such page.
    page: Option<Page>,
}

impl Source {
    pub(super) async fn connect(remote: &Remote, metrics_url: Option<&str>) -> anyhow::Result<Self> {
        let server = remote.connect().await?;
        let metrics = match metrics_url {
            None => None,
            Some(url) => Some(remote.connect_to(url).await.with_context(|| format!("`{url}`"))?),
        };
        Ok(Self { server, metrics })
    }

    pub(super) async fn look(&mut self) -> Result<Sample, tonic::Status> {
        let at = Instant::now();
        let tenants = TenantsClient::new(self.server.clone()).list(pb::TenantListRequest {}).await?;
        let show = pb::QuotaShowRequest { tenant: String::new(), all: true };
        let quotas = QuotasClient::new(self.server.clone()).show(show).await?;
        let load = LoadClient::new(self.server.clone()).get(pb::LoadRequest { most: users::MOST }).await;
        let users = match load {
            Ok(load) => Some(load.into_inner().users),
            Err(status) if matches!(status.code(), Code::PermissionDenied | Code::Unimplemented) => None,
            Err(status) => return Err(status),
        };
        let page = page(self.metrics.as_ref().unwrap_or(&self.server)).await?;
        let (tenants, quotas) = (tenants.into_inner().tenants, quotas.into_inner().quotas);
        Ok(Sample { at, tenants, quotas, users, page })
    }
}

async fn page(from: &Connection) -> Result<Option<Page>, tonic::Status> {
    let failed = |error: &dyn std::error::Error| tonic::Status::unavailable(format!("`/metrics`: {error}"));
    let mut from = from.clone();
    std::future::poll_fn(|cx| from.poll_ready(cx)).await.map_err(|error| failed(&error))?;
    let mut request = http::Request::new(tonic::body::Body::empty());
    *request.uri_mut() = http::Uri::from_static("/metrics");
    let answer = from.call(request).await.map_err(|error| failed(&error))?;
    if !answer.status().is_success() {
        return Ok(None);
    }
    let body = answer.into_body().collect().await.map_err(|error| failed(&error))?;
    Ok(Some(Page::read(&String::from_utf8_lossy(&body.to_bytes()))))
}

/// The server as a whole. None: its page is not where it was looked for.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Whole {
    pub(super) requests: Option<f64>,
    pub(super) refused: Option<f64>,
    pub(super) processors: Option<f64>,
    pub(super) resident_bytes: Option<f64>,
    pub(super) connections: Option<f64>,
    pub(super) watchers: Option<f64>,
}

/// One keyspace.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    pub(super) tenant: String,
    pub(super) state: &'static str,
    /// Revisions in a second. None: of the platform's own keyspace, and of a tenant that is new.
    pub(super) changes: Option<f64>,
    /// Requests that a limit refused, in a second.
    pub(super) refused: Option<f64>,
    pub(super) keys: u64,
    pub(super) bytes: u64,
    pub(super) history_bytes: Option<u64>,
    pub(super) leases: Option<u64>,
    pub(super) users: Option<u64>,
    pub(super) watchers: Option<u64>,
    /// Parts of one, the highest of the keyspace's and of its prefixes'. None: no limit.
    pub(super) quota: Use,
}

/// How much of each quota is used.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) struct Use {
    pub(super) keys: Option<f64>,
    pub(super) bytes: Option<f64>,
    pub(super) history_bytes: Option<f64>,
}

impl Use {
    pub(super) fn most(&self) -> Option<f64> {
        [self.keys, self.bytes, self.history_bytes].into_iter().flatten().reduce(f64::max)
    }

    fn add(&mut self, quota: &pb::Quota) {
        let (limits, used) = (quota.limits.unwrap_or_default(), quota.used.unwrap_or_default());
        for (share, limit, used) in [
            (&mut self.keys, limits.keys, used.keys),
            (&mut self.bytes, limits.bytes, used.bytes),
            (&mut self.history_bytes, limits.history_bytes, used.history_bytes),
        ] {
            let Some(limit) = limit else { continue };
            // A limit of nothing is used up.
            let of = if limit == 0 { 1.0 } else { used as f64 / limit as f64 };
            *share = Some(share.map_or(of, |share| share.max(of)));
        }
    }
}

#[derive(Debug, PartialEq)]
pub(super) struct Snapshot {
    pub(super) seconds: f64,
    pub(super) whole: Whole,
    pub(super) rows: Vec<Row>,
    /// None: as in the sample.
    pub(super) users: Option<Vec<User>>,
}

impl Snapshot {
    pub(super) fn between(last: &Sample, now: &Sample, wanted: Wanted) -> Self {
        let passed = now.at.saturating_duration_since(last.at).max(Duration::from_millis(1));
        let seconds = passed.as_secs_f64();
        let loads = last.users.as_deref().zip(now.users.as_deref());
        let users = loads.map(|(last, now)| users::between(last, now, seconds));
        let rows = rows(last, now, seconds);
        let mut snapshot = Self { seconds, whole: whole(last, now, seconds), rows, users };
        snapshot.order(wanted);
        snapshot
    }

    pub(super) fn order(&mut self, wanted: Wanted) {
        order(&mut self.rows, wanted.tenants);
        if let Some(users) = &mut self.users {
            users::order(users, wanted.users);
        }
    }
}

/// A counter that a restart set back counts from there.
fn rate(last: Option<f64>, now: Option<f64>, seconds: f64) -> Option<f64> {
    let (last, now) = (last?, now?);
    Some(if now < last { now } else { now - last } / seconds)
}

fn whole(last: &Sample, now: &Sample, seconds: f64) -> Whole {
    let (Some(before), Some(page)) = (&last.page, &now.page) else { return Whole::default() };
    let all = |name| rate(before.sum(name), page.sum(name), seconds);
    let refused = |page: &Page| page.sum_where("grpc_server_handled_total", "grpc_code", &REFUSALS);
    Whole {
        requests: all("grpc_server_handled_total"),
        refused: rate(refused(before), refused(page), seconds),
        processors: all("process_cpu_seconds_total"),
        resident_bytes: page.sum("process_resident_memory_bytes"),
        connections: page.sum("keygate_connections_open"),
        watchers: page.sum("etcd_debugging_mvcc_watcher_total"),
    }
}

fn rows(last: &Sample, now: &Sample, seconds: f64) -> Vec<Row> {
    let before: BTreeMap<&str, &pb::Tenant> = last.tenants.iter().map(|it| (it.name.as_str(), it)).collect();
    let mut rows: Vec<Row> = now
        .tenants
        .iter()
        .map(|tenant| {
            // One of the same name that was made anew is another.
            let before = before.get(tenant.name.as_str()).filter(|before| before.keyspace == tenant.keyspace);
            Row {
                tenant: tenant.name.clone(),
                state: match tenant.state() {
                    pb::TenantState::Active => "active",
                    pb::TenantState::Suspended => "suspended",
                    pb::TenantState::Unspecified => "unknown",
                },
                changes: before.map(|before| (tenant.revision - before.revision).max(0) as f64 / seconds),
                refused: None,
                keys: tenant.keys,
                bytes: tenant.bytes,
                history_bytes: None,
                leases: Some(tenant.leases),
                users: Some(tenant.users),
                watchers: None,
                quota: Use::default(),
            }
        })
        .collect();
    for quota in &now.quotas {
        let at = rows.iter().position(|row| row.tenant == quota.tenant);
        let at = at.unwrap_or_else(|| {
            rows.push(platform(&quota.tenant));
            rows.len() - 1
        });
        let row = &mut rows[at];
        row.quota.add(quota);
        if quota.prefix.is_empty() {
            let used = quota.used.unwrap_or_default();
            (row.keys, row.bytes, row.history_bytes) = (used.keys, used.bytes, Some(used.history_bytes));
        }
    }
    if let (Some(before), Some(page)) = (&last.page, &now.page)
        && page.has("keygate_tenant_watchers")
    {
        for row in &mut rows {
            let of = |page: &Page, name| page.sum_where(name, "tenant", &[&row.tenant]);
            row.watchers = of(page, "keygate_tenant_watchers").map(|watchers| watchers as u64);
            // What was never refused is not on the page.
            let refused = |page| Some(of(page, "keygate_limit_refusals_total").unwrap_or(0.0));
            row.refused = rate(refused(before), refused(page), seconds);
        }
    }
    rows
}

/// The keyspace that is no tenant's.
fn platform(name: &str) -> Row {
    Row {
        tenant: name.to_owned(),
        state: "platform",
        changes: None,
        refused: None,
        keys: 0,
        bytes: 0,
        history_bytes: None,
        leases: None,
        users: None,
        watchers: None,
        quota: Use::default(),
    }
}

fn order(rows: &mut [Row], sort: Sort) {
    rows.sort_by(|one, other| one.tenant.cmp(&other.tenant));
    let most = |share: Option<f64>| Reverse(share.map_or(-1, |share| (share * 1000.0) as i64));
    match sort {
        Sort::Name => {}
        // Nobody tells how often a tenant asks.
        Sort::Changes | Sort::Requests => rows.sort_by_key(|row| most(row.changes)),
        Sort::Refused => rows.sort_by_key(|row| most(row.refused)),
        Sort::Quota => rows.sort_by_key(|row| most(row.quota.most())),
        Sort::Watches => rows.sort_by_key(|row| Reverse(row.watchers)),
        Sort::Keys => rows.sort_by_key(|row| Reverse(row.keys)),
        Sort::Bytes => rows.sort_by_key(|row| Reverse(row.bytes)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::View;
    use super::super::users::tests::load;
    use super::*;

    pub(in crate::cli::top) fn sample(at: Instant, revision: i64, page: &str) -> Sample {
        let tenant = |name: &str, revision| pb::Tenant {
            name: name.to_owned(),
            state: pb::TenantState::Active.into(),
            keyspace: 1,
            revision,
            keys: 1,
            ..Default::default()
        };
        let quota = |tenant: &str, prefix: &'static str, limit, keys| pb::Quota {
            tenant: tenant.to_owned(),
            prefix: prefix.into(),
            limits: Some(pb::QuotaLimits { keys: limit, ..Default::default() }),
            used: Some(pb::QuotaUse { keys, bytes: 10, history_bytes: 5 }),
            counted: None,
        };
        Sample {
            at,
            tenants: vec![tenant("pay", revision), tenant("shop", 5)],
            quotas: vec![
                quota("default", "", None, 3),
                quota("pay", "", Some(100), 10),
                quota("pay", "jobs/", Some(10), 9),
                quota("shop", "", Some(0), 0),
            ],
            users: Some(vec![
                load("pay", "alice", revision as u64 * 20),
                load("pay", "b\x1b[2Job\u{202e}", revision as u64),
                load("default", "", 3),
                load("a-tenant-of-a-name-that-is-as-long-as-a-name-of-one-may-be", "who-has-a-long-name", 2),
            ]),
            page: Some(Page::read(page)),
        }
    }

    pub(in crate::cli::top) fn wanted(view: View, sort: Sort) -> Wanted {
        Wanted { view, tenants: sort, users: sort, limit: 1000 }
    }

    pub(in crate::cli::top) fn snapshot(sort: Sort) -> Snapshot {
        let start = Instant::now();
        let before = sample(
            start,
            10,
            "grpc_server_handled_total{grpc_code=\"OK\"} 100\n\
             keygate_tenant_watchers{tenant=\"pay\"} 1\nprocess_cpu_seconds_total 9\n",
        );
        let after = sample(
            start + Duration::from_secs(2),
            30,
            "grpc_server_handled_total{grpc_code=\"OK\"} 300\n\
             grpc_server_handled_total{grpc_code=\"PermissionDenied\"} 4\n\
             keygate_limit_refusals_total{tenant=\"pay\",rule=\"writes\"} 6\n\
             keygate_tenant_watchers{tenant=\"pay\"} 7\nprocess_cpu_seconds_total 1\n",
        );
        Snapshot::between(&before, &after, wanted(View::Tenants, sort))
    }

    #[test]
    fn rates_are_of_the_time_between_two_looks() {
        let Snapshot { seconds, whole, rows, .. } = snapshot(Sort::Changes);
        assert_eq!(seconds, 2.0);
        assert_eq!((whole.requests, whole.refused), (Some(102.0), Some(2.0)));
        assert_eq!(whole.processors, Some(0.5), "the server was started anew");
        assert_eq!(whole.connections, None);
        let pay = &rows[0];
        assert_eq!((pay.tenant.as_str(), pay.changes, pay.refused), ("pay", Some(10.0), Some(3.0)));
        assert_eq!((pay.keys, pay.bytes, pay.history_bytes), (10, 10, Some(5)));
        assert_eq!((pay.watchers, pay.quota.keys), (Some(7), Some(0.9)), "that of the prefix is higher");
    }

    #[test]
    fn what_no_source_tells_is_empty() {
        let rows = snapshot(Sort::Name).rows;
        let names: Vec<_> = rows.iter().map(|row| row.tenant.as_str()).collect();
        assert_eq!(names, ["default", "pay", "shop"]);
        assert_eq!((rows[0].state, rows[0].changes, rows[0].leases), ("platform", None, None));
        assert_eq!((rows[0].keys, rows[0].quota.most()), (3, None));
        let start = Instant::now();
        let bare = |users: Option<()>| {
            let mut sample = sample(start, 1, "");
            sample.users = sample.users.filter(|_| users.is_some());
            sample
        };
        let bare = Snapshot::between(&bare(Some(())), &bare(None), wanted(View::Users, Sort::Name));
        assert_eq!(bare.users, None);
        assert_eq!(bare.rows[1].watchers, None);
        assert_eq!(bare.whole, Whole::default());
    }

    #[test]
    fn the_first_is_what_is_asked_for() {
        let first = |sort| snapshot(sort).rows[0].tenant.clone();
        assert_eq!(first(Sort::Changes), "pay");
        assert_eq!(first(Sort::Refused), "pay");
        assert_eq!(first(Sort::Quota), "shop", "a limit of nothing is used up");
        assert_eq!(first(Sort::Keys), "pay");
        assert_eq!(first(Sort::Name), "default");
    }
}
