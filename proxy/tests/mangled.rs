//! Files that operators and issuers hand to the server, damaged in thousands of ways: each is taken or refused with a
//! reason, nothing panics, and nothing takes long.
//!
//! The damage follows from a seed, so that a failure comes again: bytes changed, removed, doubled, moved, cut off, and pieces
//! of one file in another.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
#[path = "support/authority.rs"]
mod authority;

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use authority::{Authority, Leaf};
use keygate::config::{Mode, load_text};
use keygate::identify::issuers::KeySet;
use keygate::identify::rules::CertificateNames;
use keygate::tls::{Revocation, TrustSources, Unlisted, load_trust};
use keygate_policies::bundle::{Bundle, Files};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustls::pki_types::CertificateDer;

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
    Story::of("a client's certificate", &[signed.chain[0].to_vec()], 10_000, |input| {
        let shown = CertificateDer::from(input.to_vec());
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
    // Digests of the manifest refuse nearly everything: so the files are damaged on their own as well.
    let mut taken = 0;
    Story::of("bundle, as tar", &[tar], 2_000, |input| {
        let files = Files::from_tar(input).map_err(|error| error.to_string())?;
        read(&files)
    });
    let paths: Vec<_> = files.iter().map(|(path, bytes)| (path.to_owned(), bytes.to_vec())).collect();
    for (path, bytes) in paths.iter().filter(|(_, bytes)| !bytes.is_empty()) {
        let mut random = StdRng::seed_from_u64(7);
        for _ in 0..300 {
            let mut damaged_files = files.clone();
            damaged_files.insert(path, damaged(&mut random, std::slice::from_ref(bytes)));
            taken += usize::from(read(&damaged_files).is_ok());
        }
    }
    println!("bundle, file by file: {taken} taken of {}", paths.len() * 300);
}
