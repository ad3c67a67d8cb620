//! `keygate tenant`: who may use this server as an etcd of their own.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use keygate_proto::admin as pb;
use pb::tenant_change_request::Change;
use pb::tenants_client::TenantsClient;
use serde_json::json;

use super::remote::{self, Connection, Failure, Remote, ask_password, said};
use super::{Output, say};

#[derive(Debug, Args)]
pub(super) struct Tenant {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    remote: Remote,
    #[arg(long, value_enum, default_value_t = Output::Text, global = true)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a tenant with a `root` of its own, and print how to log in
    Create {
        name: String,
        /// A host name that leads to this tenant (TLS SNI); may be repeated
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
        /// Ask for the password of the tenant's root, or read it from standard input, instead of making one up
        #[arg(long, conflicts_with = "no_password")]
        interactive: bool,
        /// The tenant's root cannot log in by password
        #[arg(long)]
        no_password: bool,
    },
    /// List all tenants
    #[command(visible_alias = "ls")]
    List,
    /// Show one tenant
    #[command(visible_aliases = ["describe", "get"])]
    Show { name: String },
    /// Let a tenant be read only
    Suspend { name: String },
    /// End a suspension
    Resume { name: String },
    /// Replace the host names that lead to a tenant
    SetHosts {
        name: String,
        /// All of them; `--none` takes the last one away
        #[arg(conflicts_with = "none")]
        hosts: Vec<String>,
        /// Let no host name lead there
        #[arg(long)]
        none: bool,
    },
    /// Delete a tenant with all its keys, leases and users
    Delete {
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

pub(super) fn run(tenant: &Tenant) -> ExitCode {
    remote::run(tenant.output, async { act(tenant).await.map(|()| ExitCode::SUCCESS) })
}

async fn act(tenant: &Tenant) -> Result<(), Failure> {
    let Tenant { action, remote, output } = tenant;
    if let Action::Delete { name, yes: false } = action {
        confirm(name).map_err(Failure::Unusable)?;
    }
    if let Action::SetHosts { name, hosts, none: false } = action
        && hosts.is_empty()
    {
        let why = anyhow::anyhow!("no hosts were given: say `--none` if no host name is to lead to `{name}`");
        return Err(Failure::Unusable(why));
    }
    let password = match action {
        Action::Create { interactive, no_password, name, .. } => {
            Some(password(*interactive, *no_password, name).map_err(Failure::Unusable)?)
        }
        _ => None,
    };
    let mut client = TenantsClient::new(remote.connect().await.map_err(Failure::Unusable)?);
    let told = ask(&mut client, action, password.as_deref().unwrap_or_default());
    let told = told.await.map_err(|status| Failure::Refused(said(status)))?;
    say(&match output {
        Output::Json => as_json(action, &told, password.as_deref()),
        Output::Text => as_text(action, &told, password.as_deref(), remote.endpoint()),
    });
    Ok(())
}

/// The tenants that the answer is about; none after a deletion.
async fn ask(
    client: &mut TenantsClient<Connection>,
    action: &Action,
    password: &str,
) -> Result<Vec<pb::Tenant>, tonic::Status> {
    let one = |answer: tonic::Response<pb::TenantResponse>| answer.into_inner().tenant.into_iter().collect();
    Ok(match action {
        Action::Create { name, hosts, .. } => {
            let (name, hosts, password) = (name.clone(), hosts.clone(), password.to_owned());
            one(client.create(pb::TenantCreateRequest { name, hosts, password }).await?)
        }
        Action::List => client.list(pb::TenantListRequest {}).await?.into_inner().tenants,
        Action::Show { name } => one(client.get(pb::TenantGetRequest { name: name.clone() }).await?),
        Action::Suspend { name } => one(client.change(state(name, pb::TenantState::Suspended)).await?),
        Action::Resume { name } => one(client.change(state(name, pb::TenantState::Active)).await?),
        Action::SetHosts { name, hosts, .. } => {
            let change = Some(Change::Hosts(pb::TenantHosts { hosts: hosts.clone() }));
            one(client.change(pb::TenantChangeRequest { name: name.clone(), change }).await?)
        }
        Action::Delete { name, .. } => {
            client.delete(pb::TenantDeleteRequest { name: name.clone() }).await?;
            Vec::new()
        }
    })
}

fn state(name: &str, state: pb::TenantState) -> pb::TenantChangeRequest {
    pb::TenantChangeRequest { name: name.to_owned(), change: Some(Change::State(state.into())) }
}

/// Empty: none.
fn password(interactive: bool, none: bool, tenant: &str) -> anyhow::Result<String> {
    if none {
        return Ok(String::new());
    }
    if !interactive {
        return Ok(crate::pki::random_password()?.to_string());
    }
    let password = ask_password(&format!("Password of root@{tenant}: "))?;
    if password.is_empty() {
        bail!("the password is empty; `--no-password` makes a root that cannot log in by password");
    }
    if std::io::stdin().is_terminal() && ask_password("The same again: ")? != password {
        bail!("the two passwords differ");
    }
    Ok(password)
}

/// Asks a person to type the name. Whoever is not a person says `--yes`.
fn confirm(name: &str) -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        bail!("deleting `{name}` cannot be undone: say `--yes`");
    }
    eprint!("This deletes all keys, leases and users of tenant `{name}`. Type its name to go on: ");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    if line.trim() != name { bail!("not deleted") } else { Ok(()) }
}

fn as_text(action: &Action, tenants: &[pb::Tenant], password: Option<&str>, endpoint: &str) -> String {
    match action {
        Action::Delete { name, .. } => format!("tenant `{name}` is deleted\n"),
        Action::List => table(tenants),
        Action::Create { name, no_password, interactive, .. } => {
            let mut text = tenants.iter().map(sheet).collect::<String>();
            // Who typed a password knows it.
            if !no_password && !interactive {
                let password = password.unwrap_or_default();
                text.push_str(&format!(
                    "\nIts root logs in as `root@{name}` with the password `{password}`, which is not shown again:\n\
                     etcdctl --endpoints={endpoint} --cacert=CA --user 'root@{name}:{password}' endpoint status\n"
                ));
            }
            text
        }
        Action::Show { .. } | Action::Suspend { .. } | Action::Resume { .. } | Action::SetHosts { .. } => {
            tenants.iter().map(sheet).collect()
        }
    }
}

fn state_of(tenant: &pb::Tenant) -> &'static str {
    match tenant.state() {
        pb::TenantState::Active => "active",
        pb::TenantState::Suspended => "suspended",
        pb::TenantState::Unspecified => "unknown",
    }
}

fn table(tenants: &[pb::Tenant]) -> String {
    let head = ["NAME", "STATE", "KEYS", "BYTES", "LEASES", "USERS", "REVISION", "HOSTS"].map(str::to_owned);
    let row = |tenant: &pb::Tenant| {
        [
            tenant.name.clone(),
            state_of(tenant).to_owned(),
            tenant.keys.to_string(),
            tenant.bytes.to_string(),
            tenant.leases.to_string(),
            tenant.users.to_string(),
            tenant.revision.to_string(),
            tenant.hosts.join(","),
        ]
    };
    let rows: Vec<[String; 8]> = std::iter::once(head).chain(tenants.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..8).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn sheet(tenant: &pb::Tenant) -> String {
    let compacted = match tenant.compact_revision {
        ..0 => "never".to_owned(),
        revision => revision.to_string(),
    };
    let hosts = if tenant.hosts.is_empty() { "none".to_owned() } else { tenant.hosts.join(", ") };
    format!(
        "name:      {}\nstate:     {}\nhosts:     {hosts}\nkeys:      {}\nbytes:     {}\nleases:    {}\n\
         users:     {}\nroles:     {}\nrevision:  {}\ncompacted: {compacted}\nkeyspace:  {}\n",
        tenant.name,
        state_of(tenant),
        tenant.keys,
        tenant.bytes,
        tenant.leases,
        tenant.users,
        tenant.roles,
        tenant.revision,
        tenant.keyspace,
    )
}

fn as_json(action: &Action, tenants: &[pb::Tenant], password: Option<&str>) -> String {
    let told = |tenant: &pb::Tenant| {
        json!({
            "name": tenant.name,
            "state": state_of(tenant),
            "hosts": tenant.hosts,
            "keyspace": tenant.keyspace,
            "revision": tenant.revision,
            "compact_revision": tenant.compact_revision,
            "keys": tenant.keys,
            "bytes": tenant.bytes,
            "leases": tenant.leases,
            "users": tenant.users,
            "roles": tenant.roles,
        })
    };
    let mut answer = match (action, tenants) {
        (Action::List, tenants) => json!({ "tenants": tenants.iter().map(told).collect::<Vec<_>>() }),
        (Action::Delete { name, .. }, _) => json!({ "deleted": name }),
        (_, [tenant, ..]) => told(tenant),
        (_, []) => json!({}),
    };
    if let (Action::Create { no_password: false, interactive: false, .. }, Some(password)) =
        (action, password)
    {
        answer["root_password"] = password.into();
    }
    format!("{answer:#}\n")
}
