//! Files that operators and issuers hand to the server, and tokens, damaged in thousands of ways: each is taken or refused
//! with a reason, nothing panics, and nothing takes long. Damage lets nobody in: what is signed holds only as it was
//! signed, and nobody is admitted who is on a list that was taken.
//!
//! The damage follows from a seed, so that a failure comes again: bytes changed, removed, doubled, moved, cut off, and pieces
//! of one file in another.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
#[path = "support/authority.rs"]
mod authority;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use authority::{Authority, Leaf};
use http::{HeaderMap, HeaderValue};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use keygate::config::{LimitsSource, Mode, load_text};
use keygate::identify::issuers::{KeySet, check, issuer_of};
use keygate::identify::rules::{CertificateNames, Rules};
use keygate::identify::{
    ConnectionIdentity, Directory, Identifier, JwtKeys, PasswordPool, Proof, Shown, Tokens,
};
use keygate::tls::{Revocation, TrustSources, Unlisted, load_trust};
use keygate_core::{AuthTables, Caller, KeyspaceId};
use keygate_policies::bundle::{Bundle, Files, Manifest, SigningKey, verify};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

/// A damaged file that takes longer holds up the thread that reads it. Debug builds are slow, and machines busy.
const LONGEST: Duration = Duration::from_secs(10);

/// What came of the inputs of one kind.
#[derive(Default)]
struct Story {
    taken: usize,
    refused: usize,
    longest: Duration,
}

impl Story {
    /// `read` says why it refuses.
    fn of(
        kind: &str,
        seeds: &[Vec<u8>],
        rounds: usize,
        mut read: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Self {
        let mut story = Self::default();
        let mut random = StdRng::seed_from_u64(4711);
        for seed in seeds {
            assert_eq!(read(seed), Ok(()), "{kind}: what is not damaged is taken");
        }
        for round in 0..rounds {
            let input = damaged(&mut random, seeds);
            let began = Instant::now();
            match read(&input) {
                Ok(()) => story.taken += 1,
                Err(why) => {
                    assert!(!why.trim().is_empty(), "{kind}, round {round}: refused without a reason");
                    story.refused += 1;
                }
            }
            let took = began.elapsed();
            assert!(
                took < LONGEST,
                "{kind}, round {round}: {took:?} for {:?}",
                String::from_utf8_lossy(&input)
            );
            story.longest = story.longest.max(took);
        }
        println!("{kind}: {} taken, {} refused, {:?} at most", story.taken, story.refused, story.longest);
        // Else it is not damaged enough, or read not at all.
        assert!(story.refused * 4 > rounds && story.taken > 0, "{kind}: {} refused", story.refused);
        story
    }
}

fn damaged(random: &mut StdRng, seeds: &[Vec<u8>]) -> Vec<u8> {
    const TEXTS: &[&str] = &[
        "-",
        "\n",
        ": ",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "&a ",
        "*a",
        "!!binary ",
        "\0",
        "99999999999999999999",
        "-1",
        "1e999",
        "{x}{x}",
        "\u{feff}",
        "\u{202e}",
        "-----BEGIN X509 CRL-----\n",
        "-----END CERTIFICATE-----\n",
        "null",
        "~",
        "%",
        "'",
    ];
    let mut input = seeds[random.random_range(0..seeds.len())].clone();
    for _ in 0..random.random_range(1..5) {
        let end = input.len();
        let from = random.random_range(0..=end);
        let to = random.random_range(from..=(from + 40).min(end));
        match random.random_range(0..8) {
            0 => input.truncate(from),
            1 => drop(input.drain(from..to)),
            2 if from < end => input[from] = random.random(),
            3 if from < end => input[from] ^= 1 << random.random_range(0..8),
            4 => {
                let piece = input[from..to].repeat(random.random_range(1..50));
                drop(input.splice(from..from, piece));
            }
            5 => {
                let other = &seeds[random.random_range(0..seeds.len())];
                let at = random.random_range(0..=other.len());
                drop(input.splice(from..to, other[at..(at + 60).min(other.len())].to_vec()));
            }
            6 => {
                let text = TEXTS[random.random_range(0..TEXTS.len())];
                let piece = text.repeat(if random.random_ratio(1, 20) { 2_000 } else { 1 });
                drop(input.splice(from..from, piece.into_bytes()));
            }
            _ => input[from..].reverse(),
        }
    }
    input
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_damaged_configuration_is_refused_with_a_reason() {
    let seeds = [
        "name: a\nclient-transport-security: {client-cert-auth: true, trusted-ca-file: ca.pem}\nmax-txn-ops: 12\n",
        "keygate:\n  memory-budget: 2GiB\n  login-lockout-duration: 1h30m\nlog-outputs: [stderr]\nheartbeat-interval: 100\n",
        "limits:\n  tenant: {requests: 5000, writes: {rate: 10/s, burst: 30}, prefixes: {/hot/: {value-size: 4KiB}}}\n  tenants: {pay: {requests: none}}\n",
    ];
    let seeds = seeds.map(|seed| seed.as_bytes().to_vec());
    Story::of("configuration", &seeds, 4_000, |input| {
        load_text(Mode::Keygate, &text(input)).map(drop).map_err(|problems| problems.to_string())
    });
}

#[test]
fn damaged_limits_are_refused_with_a_reason() {
    let seeds = [
        "limits:\n  shadow: false\n  connections-per-source: 9\n  server: {requests: 9000}\n",
        "limits:\n  tenant: {requests: 5000, writes: {rate: 10/s, burst: 30}, prefixes: {/hot/: {value-size: 4KiB}}}\n  tenants: {pay: {requests: none, users: {ann: {requests: 3/m}}}}\n",
    ];
    let seeds = seeds.map(|seed| seed.as_bytes().to_vec());
    let file = LimitsSource::File(PathBuf::new());
    Story::of("limits", &seeds, 4_000, |input| {
        file.parse(&text(input)).map(drop).map_err(|problems| problems.to_string())
    });
}

#[test]
fn a_damaged_key_set_is_refused_with_a_reason() {
    let key = r#"{"kty":"OKP","crv":"Ed25519","kid":"k","alg":"EdDSA","use":"sig","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    let seeds =
        [format!(r#"{{"keys":[{key}]}}"#), format!(r#"{{"keys":[{key},{{"kty":"oct","k":"AAAA"}}]}}"#)];
    let seeds = seeds.map(String::into_bytes);
    Story::of("key set", &seeds, 10_000, |input| KeySet::parse(input).map(drop));
}

/// A tenant's authority, its list, and the rules that name them; one of them damaged at a time.
#[test]
fn damaged_rules_certificates_and_lists_are_refused_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| -> PathBuf { directory.path().join(name) };
    let authority = Authority::new("pay");
    let signed =
        authority.sign(&Leaf { common_name: "a", serial: 7, uris: &["spiffe://a/b"], ..Leaf::default() });
    let holder = authority.sign(&Leaf { common_name: "b", serial: 8, ..Leaf::default() });
    let list = authority.revoke(&[7], Duration::from_secs(86_400));
    let rules = "platform: nobody\nauthorities: [{name: pay-ca, ca-file: pay.pem, crl-file: pay.crl, tenant: pay}]\n\
        issuers:\n  - {name: login, issuer: \"https://login\", audiences: [k], algorithms: [EdDSA], keys-url: \"https://login/jwks\"}\n\
        rules:\n  - {authority: pay-ca, uri: \"spiffe://a/{x}\", user: \"svc-{x}\", groups: [g]}\n  \
        - {issuer: login, claims: {email: \"{p}@corp\"}, tenant: shop, user: \"{p}\"}\n";
    let whole = [
        ("rules.yaml", vec![rules.as_bytes().to_vec()], 3_000),
        ("pay.pem", vec![authority.pem().into_bytes()], 600),
        ("pay.crl", vec![list.pem().unwrap().into_bytes(), list.der().to_vec()], 600),
    ];
    for (name, seeds, _) in &whole {
        std::fs::write(at(name), &seeds[0]).unwrap();
    }
    let sources = TrustSources { ca: None, revocation: None, identity_rules: Some(at("rules.yaml")) };
    for (name, seeds, rounds) in &whole {
        Story::of(name, seeds, *rounds, |input| {
            std::fs::write(at(name), input).unwrap();
            let trust = load_trust(&sources).map_err(|error| error.to_string())?;
            // What was taken is asked.
            let _ = trust.certify(&signed.chain, None, SystemTime::now());
            // Damaged rules may name no list.
            let admitted = trust.admits(&signed.chain, None, SystemTime::now()).is_ok();
            assert!(!admitted || *name == "rules.yaml", "{name}: a revoked certificate was admitted");
            Ok(())
        });
        std::fs::write(at(name), &seeds[0]).unwrap();
    }
    // Of the platform, called as etcd: unlisted certificates are accepted there.
    let revocation = Revocation { path: at("pay.crl"), unlisted: Unlisted::Accepted };
    let sources =
        TrustSources { ca: Some(at("pay.pem")), revocation: Some(revocation), identity_rules: None };
    let trust = load_trust(&sources).unwrap();
    // What a client shows.
    let genuine = holder.chain[0].to_vec();
    assert!(trust.admits(&holder.chain, None, SystemTime::now()).is_ok());
    Story::of("a client's certificate", std::slice::from_ref(&genuine), 10_000, |input| {
        let shown = CertificateDer::from(input.to_vec());
        let admitted = trust.admits(std::slice::from_ref(&shown), None, SystemTime::now()).is_ok();
        assert!(!admitted || input == genuine, "a certificate was admitted that nobody made");
        let _ = trust.certify(&[shown.clone(), shown.clone()], None, SystemTime::now());
        CertificateNames::read(&shown).map(drop).ok_or_else(|| "unreadable".to_owned())
    });
}

#[test]
fn a_damaged_bundle_is_refused_with_a_reason() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/cases/example");
    let files = Files::open(folder.as_ref()).unwrap();
    let tar = files.to_tar().unwrap();
    let read = |files: &Files| {
        Bundle::read(files)
            .map(drop)
            .map_err(|findings| findings.iter().map(|it| it.message.clone()).collect::<Vec<_>>().join("\n"))
    };
    Story::of("bundle, as tar", &[tar], 2_000, |input| {
        let found = Files::from_tar(input).map_err(|error| error.to_string())?;
        read(&found)?;
        let same = files.iter().all(|(path, bytes)| path == MANIFEST || found.get(path) == Some(bytes));
        assert!(same, "a bundle was taken whose files are not those of its manifest");
        Ok(())
    });
    // Digests of the manifest refuse nearly everything: so the files are damaged on their own as well, and listed again.
    let paths: Vec<_> = files.iter().map(|(path, bytes)| (path.to_owned(), bytes.to_vec())).collect();
    for (path, bytes) in paths {
        Story::of(&format!("bundle, {path}"), std::slice::from_ref(&bytes), 600, |input| {
            let mut damaged_files = files.clone();
            damaged_files.insert(&path, input.to_vec());
            let refused = read(&damaged_files).err();
            if path == MANIFEST || input == bytes {
                return refused.map_or(Ok(()), Err);
            }
            assert!(refused.is_some(), "{path} was taken, and is not the one that the manifest lists");
            damaged_files.insert(MANIFEST, Manifest::of(&damaged_files, 7).to_bytes());
            read(&damaged_files)
        });
    }
}

const MANIFEST: &str = "manifest.json";

#[test]
fn a_damaged_signature_is_refused_with_a_reason() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let signer = SigningKey::from_pkcs8(&key.serialize_der()).unwrap();
    let mut files = Files::default();
    let manifest = Manifest::of(&files, 7).to_bytes();
    files.insert(MANIFEST, manifest.clone());
    let seed = signer.sign(&files).unwrap().into_bytes();
    let keys = [signer.verifying_key()];
    let genuine = text(&seed);
    let genuine: Vec<&str> = genuine.split_whitespace().collect();
    Story::of("signatures", std::slice::from_ref(&seed), 4_000, |input| {
        let mut files = files.clone();
        files.insert("SIGNATURES", input.to_vec());
        verify(&files, &keys, 1).map_err(|error| error.to_string())?;
        let input = text(input);
        let mut lines = input.lines().map(|line| line.split('#').next().unwrap_or(""));
        // Letters of either case are a digit of it.
        let is_genuine = |line: &str| line.to_lowercase().split_whitespace().eq(genuine.iter().copied());
        assert!(lines.any(is_genuine), "nobody signed this: {input}");
        Ok(())
    });
    Story::of("what was signed", std::slice::from_ref(&manifest), 2_000, |input| {
        let mut files = files.clone();
        files.insert("SIGNATURES", seed.clone());
        files.insert(MANIFEST, input.to_vec());
        verify(&files, &keys, 1).map_err(|error| error.to_string())?;
        assert_eq!(text(input), text(&manifest), "nobody signed this");
        Ok(())
    });
}

/// The server's own.
#[test]
fn a_damaged_token_is_nobodys() {
    let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
    let key = EncodingKey::from_ed_pem(pem.as_bytes()).unwrap();
    let soon = issued_at() + 86_400;
    let signed = |name: &str, claims: &Value| {
        (name.to_owned(), jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), claims, &key).unwrap())
    };
    let made = [
        signed("ann", &json!({"username": "ann", "revision": 1, "exp": soon})),
        signed("bob", &json!({"username": "bob", "tenant": "pay", "tenant_keyspace": 7, "exp": soon})),
    ];
    let keys = JwtKeys::new(Algorithm::EdDSA, None, Some(pem.as_bytes()), Duration::from_secs(60)).unwrap();
    let passwords = PasswordPool::start(NonZeroUsize::MIN, 4).unwrap();
    let identifier = Identifier::new(Tokens::Jwt(keys), passwords);
    let town = Town(AuthTables { enabled: true, ..AuthTables::default() });
    let seeds: Vec<_> = made.iter().map(|(_, token)| token.clone().into_bytes()).collect();
    Story::of("token", &seeds, 20_000, |input| {
        let mut metadata = HeaderMap::new();
        let value = HeaderValue::from_bytes(input).map_err(|error| error.to_string())?;
        metadata.insert("token", value);
        let peer = SocketAddr::from(([10, 0, 0, 1], 1));
        let connection = ConnectionIdentity::new(peer, true, None, Shown::Nothing, Box::new(Nobody));
        match identifier.identify(&connection, &metadata, &town) {
            Ok(Caller::User { name, .. }) => {
                let maker = made.iter().find(|(_, token)| token.as_bytes() == input);
                assert_eq!(maker.map(|(name, _)| name.as_str()), Some(&*name), "nobody made {}", text(input));
                Ok(())
            }
            Ok(other) => panic!("{} was taken for {other:?}", text(input)),
            Err(refusal) => Err(refusal.to_string()),
        }
    });
}

/// Those of an issuer, by two of its keys.
#[test]
fn a_damaged_token_of_an_issuer_is_nobodys() {
    let rules = "platform: nobody\nissuers:\n  - {name: corp, issuer: \"https://login\", audiences: [k], algorithms: [ES256, ES384], keys-url: \"https://login/jwks\"}\n\
        rules: [{issuer: corp, claims: {email: \"{p}@corp\"}, tenant: default, user: \"{p}\"}]\n";
    let rules = Rules::parse(rules, Path::new("")).unwrap();
    let now = issued_at();
    let kinds = [
        ("p256", Algorithm::ES256, &rcgen::PKCS_ECDSA_P256_SHA256),
        ("p384", Algorithm::ES384, &rcgen::PKCS_ECDSA_P384_SHA384),
    ];
    let (mut published, mut made) = (Vec::new(), Vec::new());
    for (id, algorithm, kind) in kinds {
        let pem = rcgen::KeyPair::generate_for(kind).unwrap().serialize_pem();
        let key = EncodingKey::from_ec_pem(pem.as_bytes()).unwrap();
        let mut public = Jwk::from_encoding_key(&key, algorithm).unwrap();
        public.common.key_id = Some(id.to_owned());
        published.push(serde_json::to_value(public).unwrap());
        let claims =
            json!({"iss": "https://login", "aud": ["k"], "exp": now + 600, "email": format!("{id}@corp")});
        let header = Header { kid: Some(id.to_owned()), ..Header::new(algorithm) };
        made.push(jsonwebtoken::encode(&header, &claims, &key).unwrap());
    }
    let keys = KeySet::parse(json!({ "keys": published }).to_string().as_bytes()).unwrap();
    // A signature over a curve has two forms: what was signed is looked at.
    let message = |token: &str| token.rsplit_once('.').map(|(message, _)| message.to_owned());
    let seeds: Vec<_> = made.iter().map(|token| token.clone().into_bytes()).collect();
    Story::of("an issuer's token", &seeds, 20_000, |input| {
        let token = text(input);
        let issuer = issuer_of(&rules, &token).ok_or("of no issuer")?;
        let checked = check(&rules, issuer, &keys, &token, now).map_err(|why| why.to_string())?;
        let maker =
            made.iter().position(|own| message(own) == message(&token)).expect("nobody made this token");
        assert_eq!(*checked.matched.named.user, *kinds[maker].0, "{token}");
        Ok(())
    });
}

fn issued_at() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

struct Nobody;

impl Proof for Nobody {
    fn given(&self) {}
}

/// A server with one tenant.
struct Town(AuthTables);

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
