//! The first start of `keygate serve`: a user `root` who holds the role `root`, then auth on. Each
//! step is skipped when it is done already, so a start that was killed half way is finished by the
//! next.

use std::net::SocketAddr;

use keygate_core::{
    AuthTables, Credential, InternalReason, KeyspaceId, Operation, Permit, ROOT, Refusal, Sealed, Secret,
    UserAdd,
};
use keygate_engine::{Engine, Port};

use crate::config::Config;
use crate::identify::{Asker, Identifier};
use crate::pki::{self, Serving};

/// Some text for the newcomer when auth was switched on just now.
pub(super) async fn ensure_root(
    config: &Config,
    engine: &Engine,
    identifier: &Identifier,
    certificates: Option<&Serving>,
) -> anyhow::Result<Option<String>> {
    let port = engine.port();
    let auth = tables(&port)?;
    if auth.enabled {
        return Ok(None);
    }
    let directory = pki::directory(config);
    if !auth.users.contains_key(ROOT) {
        let password = pki::first_password(&directory)?.password;
        // Before there is a connection nobody else waits.
        let nobody = Asker::at(SocketAddr::from(([0, 0, 0, 0], 0)));
        let hash = identifier.passwords().hash(nobody, Secret::new(password.to_string())).await?;
        let root = UserAdd { name: ROOT.to_owned(), credential: Credential::Hashed(hash) };
        propose(&port, Operation::UserAdd(root)).await?;
    }
    if !auth.roles.contains_key(ROOT) {
        propose(&port, Operation::RoleAdd { name: ROOT.to_owned() }).await?;
    }
    let has_role = auth.users.get(ROOT).is_some_and(|user| user.roles.iter().any(|role| role == ROOT));
    if !has_role {
        let grant = Operation::UserGrantRole { user: ROOT.to_owned(), role: ROOT.to_owned() };
        propose(&port, grant).await?;
    }
    propose(&port, Operation::AuthEnable).await?;
    tracing::info!("auth is on; user `root` has role `root`");
    let endpoint = config.advertise_client.first().map(ToString::to_string).unwrap_or_default();
    Ok(Some(match certificates.and_then(|files| files.managed.as_ref()) {
        Some(pki) => pki.first_steps(&endpoint),
        // The operator brought certificates, and knows how clients check them.
        None => pki::first_steps_by_password(&directory, &endpoint),
    }))
}

fn tables(port: &Port) -> anyhow::Result<AuthTables> {
    let view = port.view();
    let keyspace = view.keyspace(KeyspaceId::DEFAULT);
    keyspace
        .map(|keyspace| keyspace.auth().clone())
        .ok_or_else(|| anyhow::anyhow!("the default keyspace is missing"))
}

async fn propose(port: &Port, operation: Operation<Sealed>) -> Result<(), Refusal> {
    let permit = Permit::internal(InternalReason::Bootstrap, KeyspaceId::DEFAULT, operation);
    port.propose(permit).await.map(drop)
}
