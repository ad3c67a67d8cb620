//! Who is in which tenant.

use super::*;
use keygate_core::{Tenant, TenantName, TenantState};

/// Two tenants, `pay` and `shop`, with a user of the same name and password, and the default
/// keyspace with one more.
struct Town {
    identifier: Identifier,
    default: AuthTables,
    tenants: Vec<(Tenant, AuthTables)>,
}

impl Directory for Town {
    fn auth(&self, keyspace: KeyspaceId) -> Option<&AuthTables> {
        if keyspace == KeyspaceId::DEFAULT {
            return Some(&self.default);
        }
        self.tenants.iter().find(|(tenant, _)| tenant.keyspace == keyspace).map(|(_, auth)| auth)
    }

    fn keyspace_of_host(&self, host: &str) -> Option<KeyspaceId> {
        let of = |(tenant, _): &&(Tenant, AuthTables)| tenant.hosts.iter().any(|own| own == host);
        self.tenants.iter().find(of).map(|(tenant, _)| tenant.keyspace)
    }

    fn keyspace_of_tenant(&self, name: &str) -> Option<KeyspaceId> {
        let of = |(tenant, _): &&(Tenant, AuthTables)| tenant.name.as_str() == name;
        self.tenants.iter().find(of).map(|(tenant, _)| tenant.keyspace)
    }
}

impl Town {
    async fn new(tokens: Tokens) -> Self {
        let passwords = PasswordPool::start(NonZeroUsize::MIN, 4).unwrap();
        let hash = passwords.hash(asker(), Secret::new("a".to_owned())).await.unwrap();
        let tables = || {
            let mut auth = AuthTables { enabled: true, ..AuthTables::default() };
            add(&mut auth, "alice", Some(hash.clone()), 3);
            auth
        };
        let tenant = |name: &str, keyspace| Tenant {
            name: TenantName::parse(name).unwrap(),
            keyspace: KeyspaceId(keyspace),
            state: TenantState::Active,
            hosts: vec![format!("{name}.kv.corp")],
        };
        let tenants = vec![(tenant("pay", 2), tables()), (tenant("shop", 3), tables())];
        let default = tables();
        Self { identifier: Identifier::new(tokens, passwords), default, tenants }
    }

    fn connection(server_name: Option<&str>, common_name: Option<&str>) -> ConnectionIdentity {
        let certificate = common_name.map_or(Shown::Nothing, shown);
        let proof = Box::new(Counted(Arc::default()));
        ConnectionIdentity::new("127.0.0.1:1".parse().unwrap(), true, server_name, certificate, proof)
    }

    async fn login(&self, server_name: Option<&str>, name: &str) -> Result<String, Refusal> {
        let keyspace = keyspace_of_login(self, server_name, name);
        let tenant = self.tenants.iter().map(|(tenant, _)| tenant).find(|tenant| tenant.keyspace == keyspace);
        let home = Home { keyspace, tenant, auth: self.auth(keyspace).unwrap() };
        let token = self.identifier.authenticate(asker(), home, name, Secret::new("a".to_owned())).await?;
        Ok(token.expose().to_owned())
    }

    fn who(&self, connection: &ConnectionIdentity, token: Option<&str>) -> Result<String, Refusal> {
        let mut map = HeaderMap::new();
        if let Some(token) = token {
            map.append("token", HeaderValue::from_str(token).unwrap());
        }
        let caller = self.identifier.identify(connection, &map, self)?;
        Ok(format!("{} in {}", caller.name().unwrap_or("nobody"), caller.keyspace().0))
    }
}

fn jwt() -> Tokens {
    let keys = JwtKeys::new(jsonwebtoken::Algorithm::HS256, Some(b"secret"), None, Duration::from_secs(300));
    Tokens::Jwt(keys.unwrap())
}

#[tokio::test]
async fn a_login_names_the_tenant_and_its_token_stays_there() {
    for tokens in [simple(), jwt()] {
        let town = Town::new(tokens).await;
        let anywhere = Town::connection(None, None);
        let pay = town.login(None, "alice@pay").await.unwrap();
        assert_eq!(town.who(&anywhere, Some(&pay)), Ok("alice in 2".to_owned()));
        let shop = town.login(Some("shop.kv.corp"), "alice").await.unwrap();
        assert_eq!(town.who(&anywhere, Some(&shop)), Ok("alice in 3".to_owned()));
        let also_shop = town.login(Some("shop.kv.corp"), "alice@shop").await.unwrap();
        assert_eq!(town.who(&anywhere, Some(&also_shop)), Ok("alice in 3".to_owned()));
        let default = town.login(None, "alice").await.unwrap();
        assert_eq!(town.who(&anywhere, Some(&default)), Ok("alice in 1".to_owned()));

        // The host's tenant takes its own tokens only, whichever order they are shown in.
        let at_pay = Town::connection(Some("PAY.kv.corp"), None);
        for (token, expected) in [
            (&default, Err(Refusal::InvalidToken)),
            (&shop, Err(Refusal::InvalidToken)),
            (&pay, Ok("alice in 2".to_owned())),
            (&shop, Err(Refusal::InvalidToken)),
        ] {
            assert_eq!(town.who(&at_pay, Some(token)), expected);
        }
        assert_eq!(town.who(&at_pay, None), Ok("nobody in 2".to_owned()));
    }
}

#[tokio::test]
async fn names_that_lead_nowhere_fail_like_wrong_passwords() {
    let town = Town::new(simple()).await;
    for (server_name, name) in
        [(None, "alice@nowhere"), (None, "alice@"), (None, "@pay"), (Some("pay.kv.corp"), "alice@shop")]
    {
        assert_eq!(town.login(server_name, name).await, Err(Refusal::AuthFailed), "{name}");
    }
}

#[tokio::test]
async fn the_platforms_certificates_are_nobody_within_a_tenant() {
    let town = Town::new(simple()).await;
    let by_certificate = |host| Town::connection(host, Some("alice"));
    assert_eq!(town.who(&by_certificate(None), None), Ok("alice in 1".to_owned()));
    assert_eq!(town.who(&by_certificate(Some("kv.corp")), None), Ok("alice in 1".to_owned()));
    assert_eq!(town.who(&by_certificate(Some("pay.kv.corp")), None), Ok("nobody in 2".to_owned()));
}

#[tokio::test]
async fn a_signed_token_dies_with_its_tenant_though_another_takes_the_name() {
    let mut town = Town::new(jwt()).await;
    let anywhere = Town::connection(None, None);
    let pay = town.login(None, "alice@pay").await.unwrap();
    town.tenants[0].0.keyspace = KeyspaceId(9);
    assert_eq!(town.who(&anywhere, Some(&pay)), Err(Refusal::InvalidToken));
    town.tenants.remove(0);
    assert_eq!(town.who(&anywhere, Some(&pay)), Err(Refusal::InvalidToken));
}

#[tokio::test]
async fn switching_auth_off_forgets_the_tokens_of_that_keyspace_only() {
    let mut town = Town::new(simple()).await;
    let (pay, shop) =
        (town.login(None, "alice@pay").await.unwrap(), town.login(None, "alice@shop").await.unwrap());
    town.tenants[0].1.enabled = false;
    assert_eq!(
        town.who(&Town::connection(Some("pay.kv.corp"), None), Some(&pay)),
        Ok("nobody in 2".to_owned())
    );
    town.tenants[0].1.enabled = true;
    let anywhere = Town::connection(None, None);
    assert_eq!(town.who(&anywhere, Some(&pay)), Err(Refusal::InvalidToken));
    assert_eq!(town.who(&anywhere, Some(&shop)), Ok("alice in 3".to_owned()));
}
