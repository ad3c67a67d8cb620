use super::*;
use serde_json::json;

const SECRET: &[u8] = b"a secret of thirty-two bytes, ok";

fn hmac() -> JwtKeys {
    JwtKeys::new(Algorithm::HS256, None, Some(SECRET), Duration::from_secs(300)).unwrap()
}

fn signed(claims: &serde_json::Value) -> String {
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET)).unwrap()
}

fn ec_keys(curve: &'static rcgen::SignatureAlgorithm) -> (String, String) {
    let pair = rcgen::KeyPair::generate_for(curve).unwrap();
    (pair.serialize_pem(), pair.public_key_pem())
}

#[test]
fn claims_are_read_or_refused_but_never_cause_a_panic() {
    let soon = now() + 100;
    // etcd once panicked on tokens without username or revision (etcd issue 15676).
    let table = [
        (json!({"username": "alice", "revision": 3, "exp": soon}), Some(Some(3))),
        (json!({"username": "alice", "revision": 3.0, "exp": soon as f64 + 0.5}), Some(Some(3))),
        (json!({"username": "alice", "exp": soon}), Some(None)),
        (json!({"username": "alice", "revision": null, "exp": soon}), Some(None)),
        (json!({"username": "alice", "revision": u64::MAX, "exp": soon}), Some(Some(u64::MAX))),
        (json!({"username": "alice", "revision": "3", "exp": soon}), None),
        (json!({"username": "alice", "revision": -1, "exp": soon}), None),
        (json!({"username": "alice", "revision": 1e300, "exp": soon}), None),
        (json!({"username": "alice", "revision": [], "exp": soon}), None),
        (json!({"username": "alice", "revision": {"a": 1}, "exp": soon}), None),
        (json!({"username": "", "revision": 3, "exp": soon}), None),
        (json!({"username": 3, "revision": 3, "exp": soon}), None),
        (json!({"username": null, "revision": 3, "exp": soon}), None),
        (json!({"username": ["alice"], "revision": 3, "exp": soon}), None),
        (json!({"revision": 3, "exp": soon}), None),
        (json!({"username": "alice", "revision": 3}), None),
        (json!({"username": "alice", "revision": 3, "exp": null}), None),
        (json!({"username": "alice", "revision": 3, "exp": "soon"}), None),
        (json!({"username": "alice", "revision": 3, "exp": -5}), None),
        (json!({"username": "alice", "revision": 3, "exp": 0}), None),
        (json!({"username": "alice", "revision": 3, "exp": now() - 1}), None),
        (json!({"username": "alice", "revision": 3, "exp": soon, "nbf": now() + 50}), None),
        (json!({"username": "alice", "revision": 3, "exp": soon, "aud": "somebody"}), Some(Some(3))),
        (json!({}), None),
        (json!([]), None),
        (json!(null), None),
        (json!("alice"), None),
    ];
    for (claims, expected) in table {
        let found = hmac().verify(&signed(&claims)).ok().map(|claims| claims.revision);
        assert_eq!(found, expected, "{claims}");
    }
}

#[test]
fn rubbish_is_not_a_token() {
    let good = signed(&json!({"username": "alice", "revision": 3, "exp": now() + 100}));
    let parts: Vec<_> = good.split('.').collect();
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    let mut other = Header::new(Algorithm::HS384);
    other.typ = None;
    let other = jsonwebtoken::encode(
        &other,
        &json!({"username": "a", "exp": now() + 9}),
        &EncodingKey::from_secret(SECRET),
    );
    for token in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        "AAAAAAAAAAAAAAAA.1".to_owned(),
        format!("{}.{}", parts[0], parts[1]),
        format!("{}.{}.", parts[0], parts[1]),
        // The algorithm `none` is not one.
        format!("{none}.{}.", parts[1]),
        format!("{none}.{}.{}", parts[1], parts[2]),
        format!("{}.{}.{}", parts[0], parts[1], &parts[2][1..]),
        format!("{good}.x"),
        "\u{0}".to_owned(),
        "\u{1f600}.\u{1f600}.\u{1f600}".to_owned(),
        // Right key, an algorithm that was not configured.
        other.unwrap(),
        "x".repeat(MAX_TOKEN_BYTES + 1),
    ] {
        assert!(hmac().verify(&token).is_err(), "{token}");
    }
    assert!(hmac().verify(&good).is_ok());
}

#[test]
fn a_critical_header_that_nobody_here_knows_refuses_the_token() {
    let claims = json!({"username": "alice", "revision": 3, "exp": now() + 100});
    for crit in [vec![], vec!["exp".to_owned()], vec!["b64".to_owned(), "http://example.com/x".to_owned()]] {
        let header = Header { crit: Some(crit.clone()), ..Header::new(Algorithm::HS256) };
        let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(SECRET)).unwrap();
        assert!(hmac().verify(&token).is_err(), "{crit:?}");
    }
    assert!(hmac().verify(&signed(&claims)).is_ok());
}

#[test]
fn a_public_key_is_no_hmac_secret() {
    let (private, public) = ec_keys(&rcgen::PKCS_ECDSA_P256_SHA256);
    let keys = JwtKeys::new(Algorithm::ES256, Some(public.as_bytes()), None, Duration::from_secs(9)).unwrap();
    let claims = json!({"username": "alice", "revision": 3, "exp": now() + 100});
    let forged = jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &claims,
        &EncodingKey::from_secret(public.as_bytes()),
    );
    assert!(keys.verify(&forged.unwrap()).is_err());
    let honest =
        JwtKeys::new(Algorithm::ES256, None, Some(private.as_bytes()), Duration::from_secs(9)).unwrap();
    assert!(keys.verify(honest.sign("alice", None, 3).unwrap().expose()).is_ok());
}

#[test]
fn every_kind_of_key_signs_and_verifies() {
    let (p256, p256_public) = ec_keys(&rcgen::PKCS_ECDSA_P256_SHA256);
    let (p384, _) = ec_keys(&rcgen::PKCS_ECDSA_P384_SHA384);
    let (ed, ed_public) = ec_keys(&rcgen::PKCS_ED25519);
    let (rsa, rsa_public) = ec_keys(&rcgen::PKCS_RSA_SHA256);
    let secret = String::from_utf8(SECRET.to_vec()).unwrap();
    for (algorithm, private, public) in [
        (Algorithm::ES256, &p256, Some(&p256_public)),
        (Algorithm::ES256, &p256, None),
        (Algorithm::ES384, &p384, None),
        (Algorithm::EdDSA, &ed, Some(&ed_public)),
        (Algorithm::EdDSA, &ed, None),
        (Algorithm::RS256, &rsa, Some(&rsa_public)),
        (Algorithm::RS256, &rsa, None),
        (Algorithm::RS512, &rsa, None),
        (Algorithm::PS256, &rsa, Some(&rsa_public)),
        (Algorithm::PS384, &rsa, None),
        (Algorithm::HS256, &secret, None),
        (Algorithm::HS512, &secret, Some(&secret)),
    ] {
        let keys = JwtKeys::new(
            algorithm,
            public.map(|key| key.as_bytes()),
            Some(private.as_bytes()),
            Duration::from_secs(9),
        )
        .unwrap();
        let claims = keys.verify(keys.sign("alice", None, 5).unwrap().expose()).unwrap();
        assert_eq!(
            (claims.username.as_ref(), claims.revision, claims.is_expired()),
            ("alice", Some(5), false)
        );
    }
}

#[test]
fn wrong_keys_are_refused_at_the_start() {
    let (p256, p256_public) = ec_keys(&rcgen::PKCS_ECDSA_P256_SHA256);
    let (_, other_public) = ec_keys(&rcgen::PKCS_ECDSA_P256_SHA256);
    let make = |algorithm, public: Option<&str>, private: Option<&str>| {
        JwtKeys::new(algorithm, public.map(str::as_bytes), private.map(str::as_bytes), Duration::from_secs(9))
            .err()
            .unwrap()
    };
    assert_eq!(make(Algorithm::ES256, None, None), JwtKeyError::Missing);
    assert_eq!(make(Algorithm::RS256, None, Some(&p256)), JwtKeyError::PrivateKey { method: "RS256" });
    assert_eq!(make(Algorithm::ES384, None, Some(&p256)), JwtKeyError::PrivateKey { method: "ES384" });
    assert_eq!(make(Algorithm::EdDSA, Some(&p256_public), None), JwtKeyError::PublicKey { method: "EdDSA" });
    assert_eq!(make(Algorithm::ES256, Some("rubbish"), None), JwtKeyError::PublicKey { method: "ES256" });
    assert_eq!(make(Algorithm::ES256, Some(&other_public), Some(&p256)), JwtKeyError::Mismatch);
}

#[test]
fn with_a_public_key_alone_nothing_is_signed() {
    let (_, public) = ec_keys(&rcgen::PKCS_ECDSA_P256_SHA256);
    let keys = JwtKeys::new(Algorithm::ES256, Some(public.as_bytes()), None, Duration::from_secs(9)).unwrap();
    assert_eq!(keys.sign("alice", None, 1).err(), Some(Refusal::VerifyOnlyKey));
}

#[test]
fn a_key_as_openssl_writes_it_by_default_is_read() {
    // SEC1, from `openssl ecparam -name prime256v1 -genkey -noout`; made for this test.
    let sec1 = include_str!("sec1_key_for_tests.pem");
    let keys = JwtKeys::new(Algorithm::ES256, None, Some(sec1.as_bytes()), Duration::from_secs(9)).unwrap();
    assert!(keys.verify(keys.sign("alice", None, 1).unwrap().expose()).is_ok());
}
