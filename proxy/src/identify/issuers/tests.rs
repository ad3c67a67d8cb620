use super::*;
use std::path::Path;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;

const NOW_IS_FINE: &str = "alice@default [ops,of-corp,a,b] by people";

struct Issuer {
    keys: Vec<(Option<&'static str>, EncodingKey)>,
}

pub(super) fn any_keys() -> Arc<KeySet> {
    Arc::new(Issuer::new(&[None]).published())
}

fn key() -> EncodingKey {
    EncodingKey::from_ec_der(&rcgen::KeyPair::generate().unwrap().serialize_der())
}

impl Issuer {
    fn new(ids: &[Option<&'static str>]) -> Self {
        Self { keys: ids.iter().map(|id| (*id, key())).collect() }
    }

    fn published(&self) -> KeySet {
        let keys = self.keys.iter().map(|(id, key)| {
            let mut jwk = Jwk::from_encoding_key(key, Algorithm::ES256).unwrap();
            jwk.common.key_id = id.map(str::to_owned);
            serde_json::to_value(jwk).unwrap()
        });
        KeySet::parse(json!({ "keys": keys.collect::<Vec<_>>() }).to_string().as_bytes()).unwrap()
    }

    fn token(&self, key: usize, claims: &Value) -> String {
        let (id, key) = &self.keys[key];
        let header = Header { kid: id.map(str::to_owned), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, key).unwrap()
    }
}

/// What a good token says, changed by `with`; null takes a claim away.
fn claims(with: Value) -> Value {
    let mut claims = json!({
        "iss": "https://login.test", "aud": ["other", "keygate"], "iat": now(), "exp": now() + 600,
        "email": "alice@corp", "groups": ["a", "b", 7],
    });
    for (name, value) in with.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name.as_str()] = value.clone(),
        }
    }
    claims
}

fn rules() -> Rules {
    let text = "
issuers:
  - {name: corp, issuer: 'https://login.test', audiences: [keygate], algorithms: [ES256, RS256], keys-url: 'https://login.test/jwks', max-lifetime: 1h, leeway: 10s}
rules:
  - {name: people, issuer: corp, claims: {email: '{user}@{domain}', groups: '{any}'}, tenant: default, user: '{user}', groups: [ops, 'of-{domain}'], groups-claim: groups}
";
    Rules::parse(text, Path::new("")).unwrap()
}

fn who(keys: &KeySet, token: &str) -> String {
    let rules = rules();
    let Some(issuer) = issuer_of(&rules, token) else { return "not of an issuer".to_owned() };
    match check(&rules, issuer, keys, token, now()) {
        Err(why) => why.to_string(),
        Ok(Checked { matched: Match { named, rule }, .. }) => {
            let groups = named.groups.names().join(",");
            format!("{}@{} [{groups}] by {}", named.user, named.tenant.name(), rule.unwrap())
        }
    }
}

#[test]
fn a_token_must_be_good_in_every_way() {
    let issuer = Issuer::new(&[Some("one")]);
    let keys = issuer.published();
    let past = |seconds: u64| now() - seconds;
    for (with, expected) in [
        (json!({}), NOW_IS_FINE),
        (json!({"aud": "keygate"}), NOW_IS_FINE),
        (json!({"exp": past(5)}), NOW_IS_FINE),
        (json!({"nbf": now() + 5}), NOW_IS_FINE),
        (json!({"iat": null}), NOW_IS_FINE),
        (
            json!({"exp": 1_000_000_000, "iat": 999_999_000}),
            "it expired at 2001-09-09T01:46:40Z (`exp` is 1000000000)",
        ),
        (json!({"exp": null}), "it has no `exp`, or one of the wrong kind"),
        (json!({"exp": "soon"}), "it has no `exp`, or one of the wrong kind"),
        (
            json!({"nbf": 253_402_300_799_u64}),
            "it is not good before 9999-12-31T23:59:59Z (`nbf` is 253402300799)",
        ),
        (json!({"aud": null}), "it has no `aud`, or one of the wrong kind"),
        (json!({"aud": "keygate.evil"}), "it is for others: `aud` is \"keygate.evil\", not `keygate`"),
        (
            json!({"aud": ["other", "\u{1b}[2J"]}),
            "it is for others: `aud` is [\"other\",\"\\u001b[2J\"], not `keygate`",
        ),
        (json!({"iss": null}), "not of an issuer"),
        (json!({"iss": "https://login.test/"}), "not of an issuer"),
        (json!({"iss": ["https://login.test"]}), "not of an issuer"),
        (json!({"exp": now() + 3700}), "it lives longer than the tokens of its issuer may"),
        (json!({"iat": past(3600)}), "it lives longer than the tokens of its issuer may"),
        (json!({"iat": null, "exp": now() + 3700}), "it lives longer than the tokens of its issuer may"),
        (
            json!({"iat": now() + 86_400, "exp": now() + 87_000}),
            "it lives longer than the tokens of its issuer may",
        ),
        (
            json!({"email": "root@corp"}),
            "rule `people` makes the name `root` of a pattern; give root a rule of its own",
        ),
        (json!({"email": "a/b@corp"}), "no rule for issuer `corp` matches"),
        (json!({"email": null}), "no rule for issuer `corp` matches"),
        (json!({"email": {"x": 1}}), "no rule for issuer `corp` matches"),
    ] {
        assert_eq!(who(&keys, &issuer.token(0, &claims(with.clone()))), expected, "{with}");
    }
}

/// A token under a header of somebody's own making.
fn forged(header: &Value, secret: &[u8]) -> String {
    use aws_lc_rs::hmac;
    let part = |value: &Value| base64url(value.to_string().as_bytes());
    let message = format!("{}.{}", part(header), part(&claims(json!({}))));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", base64url(tag.as_ref()))
}

fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            text.push(char::from(LETTERS[(word >> (18 - 6 * at) & 63) as usize]));
        }
    }
    text
}

#[test]
fn only_chosen_algorithms_with_their_own_keys_are_taken() {
    let issuer = Issuer::new(&[Some("one")]);
    let keys = issuer.published();
    // What everybody knows of the key, in the forms in which it might be taken for a secret.
    let public = issuer.keys[0].1.as_bytes().to_vec();
    for (header, expected) in [
        (json!({"alg": "HS256", "kid": "one"}), "algorithm `HS256` is not among those of its issuer"),
        (json!({"alg": "HS256"}), "algorithm `HS256` is not among those of its issuer"),
        (json!({"alg": "none"}), "its algorithm is `none`: it is not signed"),
        (json!({"alg": "None", "kid": "one"}), "its algorithm is `none`: it is not signed"),
        (json!({"alg": "X\u{7}"}), "algorithm `X\\u{7}` is not among those of its issuer"),
        (json!({"kid": "one"}), "it is no JWT"),
        (json!({"alg": "ES384", "kid": "one"}), "algorithm `ES384` is not among those of its issuer"),
        (json!({"alg": "RS256", "kid": "one"}), "algorithm `RS256` is not among those of its issuer"),
        (json!({"alg": "ES256", "kid": "one"}), "its signature is not by the key that it names"),
        (json!({"alg": "ES256", "kid": "two"}), "its issuer has no key `two`"),
    ] {
        assert_eq!(who(&keys, &forged(&header, &public)), expected, "{header}");
    }
    let good = issuer.token(0, &claims(json!({})));
    for bad in [&good[..good.len() - 4], &good[1..], "", "..", "a.b.c", &"x.".repeat(5000)] {
        assert_ne!(who(&keys, bad), NOW_IS_FINE, "{bad}");
    }
}

#[test]
fn a_critical_header_that_nobody_here_knows_refuses_the_token() {
    let issuer = Issuer::new(&[Some("one")]);
    let keys = issuer.published();
    let (id, key) = &issuer.keys[0];
    for (critical, expected) in [
        (vec!["b64"], "its header marks `b64` as critical, which is not known here"),
        (vec!["exp", "x"], "its header marks `exp, x` as critical, which is not known here"),
        (vec![], "its header marks `` as critical, which is not known here"),
    ] {
        let crit = critical.iter().map(ToString::to_string).collect();
        let kid = id.map(str::to_owned);
        let header = Header { kid, crit: Some(crit), ..Header::new(Algorithm::ES256) };
        let token = jsonwebtoken::encode(&header, &claims(json!({})), key).unwrap();
        assert_eq!(who(&keys, &token), expected);
    }
}

#[test]
fn a_token_without_an_id_of_its_key_needs_an_issuer_with_one_key() {
    let one = Issuer::new(&[None]);
    assert_eq!(who(&one.published(), &one.token(0, &claims(json!({})))), NOW_IS_FINE);
    let several = Issuer::new(&[None, None]);
    assert_eq!(who(&several.published(), &several.token(0, &claims(json!({})))), "its issuer has no key ``");
    // After a rotation it looks like this, and the keys are fetched again.
    assert_eq!(
        who(&Issuer::new(&[None]).published(), &one.token(0, &claims(json!({})))),
        "its issuer has no key ``"
    );
}

#[test]
fn sets_of_keys_are_looked_at() {
    for (text, why) in [
        ("nothing", "not a set of keys"),
        ("{}", "not a set of keys"),
        (r#"{"keys": []}"#, "no public key that signs"),
        (r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}]}"#, "no public key that signs"),
        (r#"{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB", "use": "enc"}]}"#, "no public key that signs"),
    ] {
        let error = KeySet::parse(text.as_bytes()).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
    let odd = r#"{"keys": [{"kty": "odd"}, {"kty": "EC", "crv": "P-256", "x": "!", "y": "!"}]}"#;
    assert!(KeySet::parse(odd.as_bytes()).is_err());
}

#[test]
fn issuers_that_would_take_too_much_are_refused() {
    let good = "{name: a, issuer: i, audiences: [k], algorithms: [RS256], keys-url: 'https://a/b'}";
    let rule = "rules: [{issuer: a, claims: {sub: x}, tenant: default, user: x}]";
    assert!(Rules::parse(&format!("issuers: [{good}]\n{rule}"), Path::new("")).is_ok());
    for (from, to, why) in [
        ("algorithms: [RS256]", "algorithms: [HS256]", "issuers[0]: algorithms: `HS256` is not accepted"),
        ("algorithms: [RS256]", "algorithms: [none]", "`none` is not accepted"),
        ("algorithms: [RS256]", "algorithms: []", "at least one is needed"),
        ("audiences: [k]", "audiences: []", "audiences: at least one is needed"),
        ("'https://a/b'", "'http://a/b'", "must begin with `https://`"),
        ("'https://a/b'", "'https://a/b', leeway: 61s", "leeway: at most 60s"),
        ("'https://a/b'", "'https://a/b', keys-usable-for: 59s", "at least 1m"),
        ("'https://a/b'", "'https://a/b', max-lifetime: long", "max-lifetime: `long` is not a duration"),
        ("'https://a/b'", "'https://a/b', keys-file: x", "one of them"),
        ("keys-url: 'https://a/b'", "keys-file: /no/such", "keys-file `/no/such`"),
        ("issuer: i", "issuer: ''", "`iss` is needed"),
    ] {
        let problems =
            Rules::parse(&format!("issuers: [{}]", good.replace(from, to)), Path::new("")).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(why), "{to}: {problems:?}");
    }
    let twice = format!("issuers: [{good}, {}]", good.replace("name: a", "name: b"));
    assert!(Rules::parse(&twice, Path::new("")).unwrap_err()[0].contains("there twice"));
}
