use super::*;
use http::HeaderValue;
use keygate_core::PasswordHash;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn asker() -> Asker {
    Asker::at("127.0.0.1:1".parse().unwrap())
}

/// A certificate of the platform's authority with this common name.
fn shown(name: &str) -> Shown {
    Shown::Name(Named { tenant: rules::TenantOf::Default, user: name.into(), groups: Groups::NONE })
}

struct Counted(Arc<AtomicUsize>);

impl Proof for Counted {
    fn given(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Bench {
    identifier: Identifier,
    auth: AuthTables,
    proofs: Arc<AtomicUsize>,
}

impl Bench {
    async fn new(tokens: Tokens) -> Self {
        let passwords = PasswordPool::start(NonZeroUsize::MIN, 4).unwrap();
        let mut auth = AuthTables { enabled: true, ..AuthTables::default() };
        for (name, password) in [("alice", Some("a")), ("bob", Some("b")), ("carol", None)] {
            let password = match password {
                Some(password) => {
                    Some(passwords.hash(asker(), Secret::new(password.to_owned())).await.unwrap())
                }
                None => None,
            };
            add(&mut auth, name, password, 3);
        }
        Self { identifier: Identifier::new(tokens, passwords), auth, proofs: Arc::default() }
    }

    fn connection(&self, common_name: Option<&str>) -> ConnectionIdentity {
        let certificate = common_name.map_or(Shown::Nothing, shown);
        ConnectionIdentity::new(
            "127.0.0.1:1".parse().unwrap(),
            true,
            None,
            certificate,
            Box::new(Counted(self.proofs.clone())),
        )
    }

    fn who(
        &self,
        connection: &ConnectionIdentity,
        metadata: &[(&'static str, &str)],
    ) -> Result<String, Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in metadata {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let caller = self.identifier.identify(connection, &map, &self.auth)?;
        Ok(match caller {
            Caller::Anonymous { .. } => "nobody".to_owned(),
            Caller::User { name, evidence, .. } => format!("{name} by {evidence:?}"),
        })
    }

    async fn login(&self, name: &str, password: &str) -> Result<String, Refusal> {
        let token = self
            .identifier
            .authenticate(asker(), default_home(&self.auth), name, Secret::new(password.to_owned()))
            .await?;
        Ok(token.expose().to_owned())
    }
}

/// A server without tenants.
impl Directory for AuthTables {
    fn auth(&self, keyspace: KeyspaceId) -> Option<&AuthTables> {
        (keyspace == KeyspaceId::DEFAULT).then_some(self)
    }

    fn keyspace_of_host(&self, _: &str) -> Option<KeyspaceId> {
        None
    }

    fn keyspace_of_tenant(&self, _: &str) -> Option<KeyspaceId> {
        None
    }
}

fn default_home(auth: &AuthTables) -> Home<'_> {
    Home { keyspace: KeyspaceId::DEFAULT, tenant: None, auth }
}

fn add(auth: &mut AuthTables, name: &str, password: Option<PasswordHash>, credential_revision: u64) {
    let user = User { name: name.to_owned(), password, roles: Vec::new(), credential_revision };
    auth.users.insert(name.to_owned(), Arc::new(user));
}

fn simple() -> Tokens {
    Tokens::Simple(SimpleTokens::new(Duration::from_secs(300)))
}

#[tokio::test]
async fn a_login_gives_a_token_that_names_its_user() {
    let bench = Bench::new(simple()).await;
    let connection = bench.connection(None);
    let token = bench.login("alice", "a").await.unwrap();
    for metadata in [
        [("token", token.as_str())],
        [("authorization", token.as_str())],
        [("authorization", &format!("Bearer {token}"))],
        [("authorization", &format!("bearer {token}"))],
        [("token", &format!("Bearer {token}"))],
    ] {
        assert_eq!(bench.who(&connection, &metadata).unwrap(), "alice by SimpleToken");
    }
}

#[tokio::test]
async fn logins_fail_as_etcds_do() {
    let mut bench = Bench::new(simple()).await;
    assert_eq!(bench.login("alice", "b").await, Err(Refusal::AuthFailed));
    assert_eq!(bench.login("mallory", "a").await, Err(Refusal::AuthFailed));
    assert_eq!(bench.login("carol", "").await, Err(Refusal::NoPasswordUser));
    bench.auth.enabled = false;
    assert_eq!(bench.login("alice", "a").await, Err(Refusal::AuthNotEnabled));
}

#[tokio::test]
async fn evidence_is_taken_in_etcds_order_and_bad_evidence_is_final() {
    let bench = Bench::new(simple()).await;
    let (alice, bob) = (bench.login("alice", "a").await.unwrap(), bench.login("bob", "b").await.unwrap());
    let connection = bench.connection(Some("carol"));
    assert_eq!(bench.who(&connection, &[]).unwrap(), "carol by Certificate");
    let both = [("authorization", bob.as_str()), ("token", alice.as_str())];
    assert_eq!(bench.who(&connection, &both).unwrap(), "alice by SimpleToken");
    // Contrast: without the bad token the same request would be carol's, or bob's.
    for bad in ["", "x", "AAAAAAAAAAAAAAAA.1", "Bearer", "Bearer ", "\u{e9}"] {
        assert_eq!(bench.who(&connection, &[("token", bad)]), Err(Refusal::InvalidToken), "{bad}");
        let both = [("token", bad), ("authorization", bob.as_str())];
        assert_eq!(bench.who(&connection, &both), Err(Refusal::InvalidToken), "{bad}");
    }
    assert_eq!(bench.who(&bench.connection(None), &[]).unwrap(), "nobody");
}

#[tokio::test]
async fn a_token_dies_with_its_password_and_with_its_user() {
    let mut bench = Bench::new(simple()).await;
    let connection = bench.connection(None);
    let token = bench.login("alice", "a").await.unwrap();
    let metadata = [("token", token.as_str())];
    assert!(bench.who(&connection, &metadata).is_ok());
    let before = bench.auth.clone();
    add(&mut bench.auth, "alice", None, 4);
    assert_eq!(bench.who(&connection, &metadata), Err(Refusal::InvalidToken));
    bench.auth = before;
    bench.auth.users.remove("alice");
    assert_eq!(bench.who(&connection, &metadata), Err(Refusal::InvalidToken));
}

#[tokio::test]
async fn auth_off_asks_nobody_and_revokes_tokens() {
    let mut bench = Bench::new(simple()).await;
    let connection = bench.connection(Some("carol"));
    let token = bench.login("alice", "a").await.unwrap();
    bench.who(&connection, &[("token", &token)]).unwrap();
    bench.auth.enabled = false;
    assert_eq!(bench.who(&connection, &[("token", "rubbish")]).unwrap(), "nobody");
    bench.auth.enabled = true;
    assert_eq!(bench.who(&connection, &[("token", &token)]), Err(Refusal::InvalidToken));
}

#[tokio::test]
async fn a_connection_counts_as_proven_once_somebody_is_known() {
    let bench = Bench::new(simple()).await;
    let connection = bench.connection(None);
    bench.who(&connection, &[]).unwrap();
    bench.who(&connection, &[("token", "rubbish")]).unwrap_err();
    assert_eq!(bench.proofs.load(Ordering::Relaxed), 0);
    let token = bench.login("alice", "a").await.unwrap();
    bench.who(&connection, &[("token", &token)]).unwrap();
    assert_eq!(bench.proofs.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_signed_token_carries_the_auth_revision() {
    let keys = JwtKeys::new(
        jsonwebtoken::Algorithm::HS256,
        None,
        Some(b"0123456789abcdef0123456789abcdef"),
        Duration::from_secs(60),
    );
    let mut bench = Bench::new(Tokens::Jwt(keys.unwrap())).await;
    bench.auth.revision = 7;
    let connection = bench.connection(None);
    let token = bench.login("alice", "a").await.unwrap();
    for _ in 0..2 {
        assert_eq!(
            bench.who(&connection, &[("token", &token)]).unwrap(),
            "alice by Jwt { auth_revision: Some(7) }"
        );
    }
    assert_eq!(bench.who(&connection, &[("token", &token[1..])]), Err(Refusal::InvalidToken));
}

#[test]
fn the_common_name_is_read_when_there_is_exactly_one() {
    let with = |names: &[&str]| {
        let mut parameters = rcgen::CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        for name in names {
            parameters.distinguished_name.push(rcgen::DnType::CommonName, *name);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let names = rules::CertificateNames::read(certificate.der()).unwrap();
        names.common_name.map(|name| name.to_string())
    };
    assert_eq!(with(&["root"]), Some("root".to_owned()));
    assert_eq!(with(&["Zoë \u{4e2d}"]), Some("Zoë \u{4e2d}".to_owned()));
    assert_eq!(with(&[]), None);
    assert_eq!(with(&[""]), None);
    let rubbish = rustls_pki_types::CertificateDer::from(&b"\x30\x03rubbish"[..]);
    assert_eq!(rules::CertificateNames::read(&rubbish), None);
}

#[test]
fn nothing_secret_is_printed() {
    let connection = ConnectionIdentity::new(
        "127.0.0.1:1".parse().unwrap(),
        true,
        None,
        Shown::Nothing,
        Box::new(Counted(Arc::default())),
    );
    let tokens = SimpleTokens::new(Duration::from_secs(300));
    let token = tokens.issue(KeyspaceId::DEFAULT, "alice", 1).unwrap();
    connection.remember(token.expose(), Remembered::Simple(tokens.find(token.expose()).unwrap()));
    assert!(!format!("{connection:?} {token:?}").contains(token.expose()));
}

#[tokio::test]
async fn an_unknown_user_is_taken_for_the_same_one_each_time() {
    let mut bench = Bench::new(simple()).await;
    let auth = &mut bench.auth;
    let cost = |cost: u32| Some(PasswordHash(format!("$2a${cost:02}$nobody can log in with this")));
    add(auth, "alice", cost(4), 3);
    add(auth, "bob", cost(12), 3);
    let stand_in = |name: &str| bench.identifier.stand_in(&bench.auth, name).unwrap().0;
    let names: Vec<_> = (0..200).map(|n| format!("user-{n}")).collect();
    let first: Vec<_> = names.iter().map(|name| stand_in(name)).collect();
    assert_eq!(first, names.iter().map(|name| stand_in(name)).collect::<Vec<_>>());
    // Not all for one: then the others' cost would give them away.
    for prefix in ["$2a$04$", "$2a$12$"] {
        assert!(first.iter().filter(|hash| hash.starts_with(prefix)).count() > 20);
    }
    assert_eq!(bench.identifier.stand_in(&AuthTables::default(), "user-1"), None);
}

mod tenants;

/// While auth is off everybody may do everything, but for those who are known as somebody else.
#[tokio::test]
async fn where_nobody_is_asked_a_certificate_of_others_is_refused() {
    let mut bench = Bench::new(Tokens::Simple(SimpleTokens::new(Duration::from_secs(300)))).await;
    bench.auth.enabled = false;
    let of_pay = rules::TenantOf::Named("pay".into());
    let of_pay = Named { tenant: of_pay, user: "root".into(), groups: Groups::NONE };
    for (certificate, expected) in [
        (Shown::Nothing, Ok("nobody".to_owned())),
        (Shown::Nameless, Ok("nobody".to_owned())),
        (shown("alice"), Ok("nobody".to_owned())),
        (Shown::Rejected, Err(Refusal::PermissionDenied)),
        (Shown::Name(of_pay), Err(Refusal::PermissionDenied)),
    ] {
        let address = "127.0.0.1:1".parse().unwrap();
        let proof = Box::new(Counted(bench.proofs.clone()));
        let connection = ConnectionIdentity::new(address, true, None, certificate.clone(), proof);
        assert_eq!(bench.who(&connection, &[]), expected, "{certificate:?}");
        // A token is not looked at there, and changes nothing.
        assert_eq!(bench.who(&connection, &[("token", "any")]), expected, "{certificate:?}");
    }
}
