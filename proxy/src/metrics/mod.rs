//! What the process counts, and the page that shows it, in Prometheus's text format under etcd's names.
//!
//! Nothing is global and nothing on the way of a request is contended: each serving thread has
//! counters of its own, and whoever asks for the page adds them up. The page is served without a login, so no
//! name on it is a user's or a key's, and those of tenants are on the operator's own listeners only.

mod certificates;
mod connections;
mod engine;
mod exposition;
mod health;
mod latency;
mod limits;
mod lockouts;
mod process;
mod requests;
mod rpc;
mod tenants;
mod tokens;
mod webhook;

use std::sync::{Arc, OnceLock};

use keygate_engine::{EngineStats, Identity, TenantFigures};
use parking_lot::RwLock;

pub use connections::{ConnectionMetrics, Traffic};
pub use health::{Check, HealthMetrics, Probe};
pub(crate) use latency::{Latency, LatencyTotals};

use crate::cli::{ETCD_CLUSTER_VERSION, ETCD_VERSION};
use crate::http::Readers;
use crate::identify::{Identifier, Lockout};
use crate::limit::{Limiter, LimitsFile};
use crate::policies::Policies;
use crate::quota_webhook::Counts;
use crate::rpc::meter::RpcCounters;
use crate::tls::ReloadingTls;
pub use exposition::CONTENT_TYPE as PAGE_TYPE;
use exposition::{Exposition, Kind};

/// All counters of the process.
#[derive(Default)]
pub struct Metrics {
    rpc: RwLock<Vec<Arc<RpcCounters>>>,
    traffic: RwLock<Vec<Arc<Traffic>>>,
    pub health: HealthMetrics,
    pub connections: ConnectionMetrics,
    /// Set once there is TLS.
    pub tls: OnceLock<Arc<ReloadingTls>>,
    /// None: in tests.
    pub policies: Option<Arc<Policies>>,
    /// Set once, when the server starts.
    pub limiter: OnceLock<Arc<Limiter>>,
    /// Likewise.
    pub lockout: OnceLock<Arc<Lockout>>,
    /// Likewise.
    pub identifier: OnceLock<Arc<Identifier>>,
    /// Set if limits are in a file.
    pub limits_file: OnceLock<Arc<LimitsFile>>,
    pub webhook: Arc<Counts>,
}

/// What the page shows that others know.
pub struct Moment {
    pub engine: EngineStats,
    pub identity: Identity,
    /// (member id, etcd's name of the alarm).
    pub alarms: Vec<(u64, &'static str)>,
    pub quota_bytes: Option<u64>,
    /// Quotas of keyspaces by threshold: (parts of a hundred, how many).
    pub quotas_reached: [(u64, u64); 3],
    pub readers: Readers,
    /// Empty where tenants may read the page.
    pub tenants: Vec<TenantFigures>,
    /// Of the bundle that is in force; 0 for none.
    pub policy_revision: u64,
}

impl Metrics {
    pub fn of(policies: Arc<Policies>) -> Self {
        Self { policies: Some(policies), ..Self::default() }
    }

    /// RPC counters for one more serving thread.
    pub fn add_rpc(&self) -> Arc<RpcCounters> {
        let counters = Arc::new(RpcCounters::default());
        self.rpc.write().push(counters.clone());
        counters
    }

    /// Byte counters for one more serving thread.
    pub fn add_traffic(&self) -> Arc<Traffic> {
        let traffic = Arc::new(Traffic::default());
        self.traffic.write().push(traffic.clone());
        traffic
    }

    /// The page.
    pub fn render(&self, moment: &Moment) -> String {
        let mut page = Exposition::default();
        versions(&mut page, moment.identity);
        let rpcs = RpcCounters::totals(&self.rpc.read());
        engine::write(&mut page, moment, rpcs.proposals_failed);
        tenants::write_reached(&mut page, &moment.quotas_reached);
        tenants::write(&mut page, &moment.tenants);
        rpc::write(&mut page, &rpcs);
        requests::write(&mut page, &rpcs);
        connections::write_traffic(&mut page, &self.traffic.read());
        self.health.write(&mut page);
        write_policy(&mut page, moment, self.policies.as_deref());
        self.connections.write(&mut page);
        if let Some(tls) = self.tls.get() {
            certificates::write(&mut page, tls);
        }
        if let Some(limiter) = self.limiter.get() {
            limits::write(&mut page, limiter, moment.readers);
        }
        if let Some(file) = self.limits_file.get() {
            limits::write_file(&mut page, file);
        }
        if let Some(lockout) = self.lockout.get() {
            lockouts::write(&mut page, lockout);
        }
        if let Some(identifier) = self.identifier.get() {
            tokens::write(&mut page, identifier);
        }
        webhook::write(&mut page, &self.webhook);
        process::write(&mut page);
        page.finish()
    }
}

fn write_policy(page: &mut Exposition, moment: &Moment, policies: Option<&Policies>) {
    let help = "Revision of the policy that is in force beside users and roles; 0 for none.";
    page.single("keygate_policy_revision", Kind::Gauge, help, moment.policy_revision);
    let help = "Policy bundles that were refused; what was in force stayed. The log says why.";
    let failures = policies.map_or(0, Policies::failures);
    page.single("keygate_policy_apply_failures_total", Kind::Counter, help, failures);
}

fn versions(page: &mut Exposition, identity: Identity) {
    let cluster = ETCD_CLUSTER_VERSION.rsplit_once('.').map_or(ETCD_CLUSTER_VERSION, |(minor, _)| minor);
    page.family("etcd_server_version", Kind::Gauge, "The version of etcd whose API is served.");
    page.labelled("etcd_server_version", &[("server_version", ETCD_VERSION)], 1);
    page.family("etcd_cluster_version", Kind::Gauge, "The version that the cluster has agreed on.");
    page.labelled("etcd_cluster_version", &[("cluster_version", cluster)], 1);
    page.family("etcd_server_id", Kind::Gauge, "The id of this member, in hexadecimal.");
    page.labelled("etcd_server_id", &[("server_id", &format!("{:x}", identity.member_id))], 1);
    page.family("keygate_build_info", Kind::Gauge, "The version of Keygate.");
    page.labelled("keygate_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
}

#[cfg(test)]
mod tests;
