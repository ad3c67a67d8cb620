//! Tenants.

use keygate_core::{
    Credential, Operation, Refusal, Secret, TenantChange, TenantCreate, TenantName, TenantState,
};
use keygate_proto::admin as pb;
use pb::tenant_change_request::Change;

use super::{Decoded, Rejection};

pub(super) fn create(request: pb::TenantCreateRequest) -> Decoded {
    let pb::TenantCreateRequest { name, hosts, password } = request;
    let root = match password.as_str() {
        "" => Credential::NoPassword,
        _ => Credential::Password(Secret::new(password)),
    };
    let hosts = named_hosts(hosts)?;
    Ok(Operation::TenantCreate(TenantCreate { name: tenant_name(name)?, hosts, root }))
}

pub(super) fn get(request: pb::TenantGetRequest) -> Decoded {
    let pb::TenantGetRequest { name } = request;
    Ok(Operation::TenantGet { name: tenant_name(name)? })
}

pub(super) fn change(request: pb::TenantChangeRequest) -> Decoded {
    let pb::TenantChangeRequest { name, change } = request;
    let unknown = Rejection::UnknownNumber("TenantChangeRequest.state");
    let change = match change {
        Some(Change::State(state)) => TenantChange::State(match pb::TenantState::try_from(state) {
            Ok(pb::TenantState::Active) => TenantState::Active,
            Ok(pb::TenantState::Suspended) => TenantState::Suspended,
            Ok(pb::TenantState::Unspecified) | Err(_) => return Err(unknown),
        }),
        Some(Change::Hosts(pb::TenantHosts { hosts })) => TenantChange::Hosts(named_hosts(hosts)?),
        None => return Err(unknown),
    };
    Ok(Operation::TenantChange { name: tenant_name(name)?, change })
}

pub(super) fn delete(request: pb::TenantDeleteRequest) -> Decoded {
    let pb::TenantDeleteRequest { name } = request;
    Ok(Operation::TenantDelete { name: tenant_name(name)? })
}

/// The name that leads to a tenant is that of the TLS handshake, in which no address can stand (RFC 6066, 3). Asked
/// here and not where changes are applied, so that what was applied once is applied again.
fn named_hosts(hosts: Vec<String>) -> Result<Vec<String>, Refusal> {
    match hosts.iter().find(|host| host.parse::<std::net::IpAddr>().is_ok()) {
        Some(address) => Err(Refusal::HostName { host: address.clone() }),
        None => Ok(hosts),
    }
}

fn tenant_name(name: String) -> Result<TenantName, Refusal> {
    TenantName::parse(&name).ok_or(Refusal::TenantName { name })
}
