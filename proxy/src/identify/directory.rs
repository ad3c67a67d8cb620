//! What identification needs to know of the state: which tenants there are, and their users.

use keygate_core::{AuthTables, KeyspaceId};
use keygate_engine::View;

/// One snapshot's tenants.
///
/// # Contract
/// Every answer is of the same moment. A keyspace that is named has tables.
pub trait Directory {
    fn auth(&self, keyspace: KeyspaceId) -> Option<&AuthTables>;
    /// `host` in lowercase. None: it is nobody's in particular.
    fn keyspace_of_host(&self, host: &str) -> Option<KeyspaceId>;
    fn keyspace_of_tenant(&self, name: &str) -> Option<KeyspaceId>;
}

impl Directory for View {
    fn auth(&self, keyspace: KeyspaceId) -> Option<&AuthTables> {
        self.keyspace(keyspace).map(|keyspace| keyspace.auth())
    }

    fn keyspace_of_host(&self, host: &str) -> Option<KeyspaceId> {
        self.tenant_for_host(host).map(|tenant| tenant.keyspace)
    }

    fn keyspace_of_tenant(&self, name: &str) -> Option<KeyspaceId> {
        self.tenant(name).map(|tenant| tenant.keyspace)
    }
}

/// Which keyspace a login is for: the one that the connection's host name leads to, else that of the
/// tenant in `user@tenant`, else the default one.
pub fn keyspace_of_login(directory: &dyn Directory, server_name: Option<&str>, name: &str) -> KeyspaceId {
    let by_host = server_name.and_then(|host| directory.keyspace_of_host(host));
    let by_name = || name.rsplit_once('@').and_then(|(_, tenant)| directory.keyspace_of_tenant(tenant));
    by_host.or_else(by_name).unwrap_or(KeyspaceId::DEFAULT)
}

/// The user's name within its tenant.
pub fn user_of_login<'a>(tenant: Option<&str>, name: &'a str) -> &'a str {
    let stripped =
        tenant.and_then(|tenant| name.strip_suffix(tenant)).and_then(|name| name.strip_suffix('@'));
    stripped.unwrap_or(name)
}
