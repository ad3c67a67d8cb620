//! What clients and issuers hand to the server to say who somebody is: tokens, sets of keys, lists of revoked
//! certificates, and certificates.
//!
//! The first byte says which. Nothing panics or costs much, and nobody gets in: a token that holds is one of those that
//! were signed, with a damaged list too nobody is admitted who is on it, and a certificate that is accepted is one that
//! its authority made. The keys that signed what is in `identity/` exist no more.
#![no_main]

mod bounds;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue};
use jsonwebtoken::Algorithm;
use keygate::identify::issuers::{KeySet, check, issuer_of};
use keygate::identify::rules::{CertificateNames, Rules};
use keygate::identify::{
    ConnectionIdentity, Directory, Identifier, JwtKeys, PasswordPool, Proof, Shown, Tokens,
};
use keygate::tls::{Trust, TrustSources, load_trust};
use keygate_core::{AuthTables, Caller, KeyspaceId};
use libfuzzer_sys::fuzz_target;
use rustls_pki_types::CertificateDer;

/// Made by our own key: `ann`, `bob` of a tenant, `cyd`.
const OWN: &str = include_str!("identity/own.tokens");
/// Made by an issuer's three keys.
const ISSUED: &str = include_str!("identity/issued.tokens");
/// Somebody else's, with the same claims: of a key of his own, keyed with the public one, and not signed.
const FORGED: &str = include_str!("identity/forged.tokens");
const KEYS: &[u8] = include_bytes!("identity/keys.json");
const AUTHORITY_RULES: &[u8] = include_bytes!("identity/authority.yaml");
const AUTHORITY: &[u8] = include_bytes!("identity/authority.pem");
/// On the list, and not on it.
const REVOKED: &[u8] = include_bytes!("identity/revoked.der");
const HOLDER: &[u8] = include_bytes!("identity/holder.der");
const LIST: &[u8] = include_bytes!("identity/list.der");
/// 2026.
const NOW: u64 = 1_790_000_000;

struct World {
    identifier: Identifier,
    rules: Rules,
    keys: KeySet,
    trust: Trust,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let own = JwtKeys::new(
        Algorithm::EdDSA,
        Some(include_bytes!("identity/own.pem")),
        None,
        Duration::from_secs(60),
    );
    let passwords = PasswordPool::start(NonZeroUsize::MIN, 4).expect("a thread");
    let rules = Rules::parse(include_str!("identity/rules.yaml"), Path::new("")).expect("rules");
    let world = World {
        identifier: Identifier::new(Tokens::Jwt(own.expect("a key")), passwords),
        rules,
        keys: KeySet::parse(KEYS).expect("keys"),
        trust: trusting(LIST).expect("a list"),
    };
    // Else nothing below could fail.
    assert!(OWN.lines().all(|token| world.caller(token.as_bytes()).is_some()));
    assert!(ISSUED.lines().all(|token| world.issued(&world.keys, token)));
    assert!(FORGED.lines().all(|token| !world.issued(&world.keys, token)));
    assert!(is_admitted(&world.trust, HOLDER) && !is_admitted(&world.trust, REVOKED));
    world
});

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    let world = LazyLock::force(&WORLD);
    bounds::bounded(|| match kind % 5 {
        0 => world.token(data),
        1 => world.token(&composed(data)),
        2 => world.key_set(data),
        3 => list(data),
        _ => world.certificate(data),
    });
});

impl World {
    fn token(&self, token: &[u8]) {
        if let Some(name) = self.caller(token) {
            let text = std::str::from_utf8(token).expect("it was in a header");
            let text = text
                .get(..7)
                .filter(|scheme| scheme.eq_ignore_ascii_case("bearer "))
                .map_or(text, |_| &text[7..]);
            let number = OWN.lines().position(|own| own == text).expect("nobody made this token");
            assert_eq!(name, ["ann", "bob", "cyd"][number]);
        }
        let Ok(text) = std::str::from_utf8(token) else { return };
        if self.issued(&self.keys, text) {
            // A signature over a curve has two forms, so what was signed is looked at.
            let signed = |token: &str| token.rsplit_once('.').map(|(message, _)| message.to_owned());
            assert!(ISSUED.lines().any(|own| signed(own) == signed(text)), "no issuer made this token");
        }
    }

    /// Who our own check says it is.
    fn caller(&self, token: &[u8]) -> Option<String> {
        let mut metadata = HeaderMap::new();
        metadata.insert("token", HeaderValue::from_bytes(token).ok()?);
        let peer = SocketAddr::from(([10, 0, 0, 1], 1));
        let connection = ConnectionIdentity::new(peer, true, None, Shown::Nothing, Box::new(Nobody));
        match self.identifier.identify(&connection, &metadata, &Town::default()).ok()? {
            Caller::User { name, .. } => Some(name.to_string()),
            other => panic!("a token was taken for {other:?}"),
        }
    }

    fn issued(&self, keys: &KeySet, token: &str) -> bool {
        let Some(issuer) = issuer_of(&self.rules, token) else { return false };
        match check(&self.rules, issuer, keys, token, NOW) {
            Ok(_) => true,
            Err(why) => {
                assert!(!why.to_string().is_empty());
                false
            }
        }
    }

    fn key_set(&self, text: &[u8]) {
        match KeySet::parse(text) {
            Ok(keys) => {
                assert!((1..=100).contains(&keys.ids().count()));
                assert!(FORGED.lines().all(|token| !self.issued(&keys, token)), "a forged token was taken");
                assert!(ISSUED.lines().filter(|token| self.issued(&keys, token)).count() <= 3);
            }
            Err(why) => assert!(!why.is_empty()),
        }
    }

    fn certificate(&self, der: &[u8]) {
        let _ = CertificateNames::read(&CertificateDer::from(der));
        let admitted = is_admitted(&self.trust, der);
        // As the only one, and as one that should lead to another.
        let chain = [CertificateDer::from(HOLDER), CertificateDer::from(der)];
        let certified = self.trust.certify(&chain, None, SystemTime::now());
        assert_eq!(certified.whom.map(|found| found.named.user.to_string()), Ok("svc-holder".to_owned()));
        assert!(!admitted || der == HOLDER, "a certificate was accepted that nobody made");
        let _ = self.trust.certify(&[CertificateDer::from(der)], None, SystemTime::now());
    }
}

/// Header, claims and signature, a zero byte between them, as a token.
fn composed(data: &[u8]) -> Vec<u8> {
    let parts = data.splitn(3, |byte| *byte == 0).map(base64url);
    parts.collect::<Vec<_>>().join(".").into_bytes()
}

fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            text.push(char::from(LETTERS[(word >> (18 - 6 * at) & 63) as usize]));
        }
    }
    text
}

fn list(bytes: &[u8]) {
    match trusting(bytes) {
        Ok(trust) => assert!(!is_admitted(&trust, REVOKED), "somebody was admitted who is on the list"),
        Err(why) => assert!(!why.is_empty()),
    }
}

/// A tenant's authority with this list.
fn trusting(list: &[u8]) -> Result<Trust, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = folder.path().join("rules.yaml");
    for (path, bytes) in [("rules.yaml", AUTHORITY_RULES), ("authority.pem", AUTHORITY), ("list", list)] {
        std::fs::write(folder.path().join(path), bytes).expect("written");
    }
    let sources = TrustSources { ca: None, revocation: None, identity_rules: Some(rules) };
    load_trust(&sources).map_err(|error| error.to_string())
}

fn is_admitted(trust: &Trust, der: &[u8]) -> bool {
    trust.admits(&[CertificateDer::from(der)], None, SystemTime::now()).is_ok()
}

struct Nobody;

impl Proof for Nobody {
    fn given(&self) {}
}

/// A server with one tenant.
struct Town(AuthTables);

impl Default for Town {
    fn default() -> Self {
        Self(AuthTables { enabled: true, ..AuthTables::default() })
    }
}

impl Directory for Town {
    fn auth(&self, _: KeyspaceId) -> Option<&AuthTables> {
        Some(&self.0)
    }

    fn keyspace_of_host(&self, _: &str) -> Option<KeyspaceId> {
        None
    }

    fn keyspace_of_tenant(&self, name: &str) -> Option<KeyspaceId> {
        (name == "pay").then_some(KeyspaceId(7))
    }
}
