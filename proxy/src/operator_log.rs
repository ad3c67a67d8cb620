//! One line in the log for each change of what is the operators': tenants, quotas and the policy. Who, what, and under
//! which revision. Keys, values and passwords are in none of them.

use std::net::SocketAddr;

use keygate_core::{
    Caller, DEFAULT_TENANT, LimitChange, Operation, PolicyChange, QuotaSet, TenantChange, TenantName,
    TenantState,
};
use keygate_engine::View;

/// To be called once it is done. `view` is asked for if there is something to tell.
pub fn note<V>(
    view: impl FnOnce() -> View,
    caller: &Caller,
    peer: SocketAddr,
    operation: &Operation<V>,
    revision: i64,
) {
    let Some(change) = what(operation) else { return };
    let view = view();
    let tenant = view.tenant_of(caller.keyspace()).map_or(DEFAULT_TENANT, |tenant| tenant.name.as_str());
    let user = caller.name().unwrap_or_default().escape_debug();
    tracing::info!(%user, tenant, remote_addr = %peer, revision, change, "an operator has changed something");
}

/// None: it is no such change.
fn what<V>(operation: &Operation<V>) -> Option<String> {
    Some(match operation {
        Operation::TenantCreate(create) => {
            format!("tenant `{}` created, {}", create.name, hosts(&create.hosts))
        }
        Operation::TenantChange { name, change: TenantChange::State(TenantState::Suspended) } => {
            format!("tenant `{name}` suspended")
        }
        Operation::TenantChange { name, change: TenantChange::State(TenantState::Active) } => {
            format!("tenant `{name}` resumed")
        }
        Operation::TenantChange { name, change: TenantChange::Hosts(to) } => {
            format!("tenant `{name}` has {}", hosts(to))
        }
        Operation::TenantDelete { name } => format!("tenant `{name}` deleted"),
        Operation::QuotaSet(set) => quota(set),
        Operation::PolicyChange(PolicyChange::Apply { digest, .. }) => {
            format!("policy bundle `{digest}` applied")
        }
        Operation::PolicyChange(PolicyChange::Rollback { to: Some(0), .. }) => {
            "policy rolled back to no bundle".to_owned()
        }
        Operation::PolicyChange(PolicyChange::Rollback { to: Some(to), .. }) => {
            format!("policy rolled back to revision {to}")
        }
        Operation::PolicyChange(PolicyChange::Rollback { to: None, .. }) => {
            "policy rolled back to the revision before".to_owned()
        }
        _ => return None,
    })
}

fn hosts(hosts: &[String]) -> String {
    if hosts.is_empty() { "no hosts".to_owned() } else { format!("hosts {}", hosts.join(", ")) }
}

fn quota(set: &QuotaSet) -> String {
    let tenant = set.tenant.as_ref().map_or(DEFAULT_TENANT, TenantName::as_str);
    let mut text = format!("quota of tenant `{tenant}`");
    if !set.prefix.is_empty() {
        text.push_str(&format!(", prefix `{}`", set.prefix.escape_ascii()));
    }
    for (name, change) in [("keys", set.keys), ("bytes", set.bytes), ("history-bytes", set.history)] {
        match change {
            LimitChange::Keep => {}
            LimitChange::Set(limit) => text.push_str(&format!(", {name} {limit}")),
            LimitChange::Lift => text.push_str(&format!(", {name} none")),
        }
    }
    if set.force {
        text.push_str(", forced");
    }
    text
}
