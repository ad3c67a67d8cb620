//! Signed tokens, as etcd's `--auth-token jwt,…` makes and checks them: claims `username`,
//! `revision` and `exp`, one fixed algorithm, one fixed key. `tenant` is ours: without it a token is
//! of the default keyspace.
//!
//! A token without `exp` is refused. `revision` may be missing, so that other issuers can be used;
//! what is there must be a whole number. No claim, however malformed, makes this panic.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair as _, RsaKeyPair,
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use keygate_core::{Refusal, Secret, Tenant};
use parking_lot::RwLock;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

use super::invalid::{Invalid, shown};

/// Longer ones are refused unread. HTTP/2 headers are bounded at twice this.
const MAX_TOKEN_BYTES: usize = 8 << 10;
/// About 1 KiB each.
const MAX_REMEMBERED: usize = 4096;

/// Why keys cannot be used. The file is named by whoever read it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtKeyError {
    #[error("neither a public nor a private key was given")]
    Missing,
    #[error("not a private key in PEM form (PKCS#8, PKCS#1 or SEC1) for `{method}`")]
    PrivateKey { method: &'static str },
    #[error("not a public key in PEM form for `{method}`")]
    PublicKey { method: &'static str },
    #[error("the public key does not belong to the private key")]
    Mismatch,
}

/// What a verified token says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Claims {
    pub(super) username: Arc<str>,
    pub(super) tenant: Option<OfTenant>,
    pub(super) revision: Option<u64>,
    /// Seconds since 1970.
    expires: u64,
}

/// The tenant that a token is of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct OfTenant {
    pub(super) name: Arc<str>,
    /// In our own tokens, so that they die with the tenant, though another takes its name.
    pub(super) keyspace: Option<u64>,
}

impl Claims {
    /// Seconds since 1970.
    pub(super) fn expires(&self) -> u64 {
        self.expires
    }

    pub(super) fn is_expired(&self) -> bool {
        now() >= self.expires
    }
}

pub struct JwtKeys {
    algorithm: Algorithm,
    verifying: DecodingKey,
    signing: Option<EncodingKey>,
    ttl: Duration,
    validation: Validation,
    /// Checking a signature costs 50 µs; a token is checked once.
    verified: RwLock<HashMap<Box<str>, Arc<Claims>, ahash::RandomState>>,
}

#[derive(Serialize)]
struct OwnClaims<'a> {
    username: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant_keyspace: Option<u32>,
    revision: u64,
    exp: u64,
}

/// Claims as anybody may have written them. `exp` is checked by the library as well.
#[derive(Deserialize)]
struct AnyClaims {
    #[serde(default)]
    username: serde_json::Value,
    tenant: Option<serde_json::Value>,
    tenant_keyspace: Option<serde_json::Value>,
    revision: Option<serde_json::Value>,
    #[serde(default)]
    exp: serde_json::Value,
}

impl JwtKeys {
    /// `public` and `private` are the contents of the key files; for HMAC either is the secret.
    pub fn new(
        algorithm: Algorithm,
        public: Option<&[u8]>,
        private: Option<&[u8]>,
        ttl: Duration,
    ) -> Result<Self, JwtKeyError> {
        let signing = private.map(|key| signing_key(algorithm, key)).transpose()?;
        let derived = signing.as_ref().map(|key| derived_key(algorithm, key)).transpose()?;
        let verifying = match public {
            Some(key) => verifying_key(algorithm, key)?,
            None => derived.ok_or(JwtKeyError::Missing)?,
        };
        let signing = match (signing, is_hmac(algorithm)) {
            (None, true) => public.map(EncodingKey::from_secret),
            (signing, _) => signing,
        };
        let mut validation = Validation::new(algorithm);
        validation.leeway = 0;
        validation.validate_nbf = true;
        // etcd does not look at the audience.
        validation.validate_aud = false;
        let keys = Self { algorithm, verifying, signing, ttl, validation, verified: RwLock::default() };
        if keys.signing.is_some() {
            let probe = keys
                .sign("probe", None, 0)
                .map_err(|_| JwtKeyError::PrivateKey { method: name(algorithm) })?;
            jsonwebtoken::decode::<AnyClaims>(
                probe.expose(),
                &keys.verifying,
                &keys.validation_of_signature(),
            )
            .map_err(|_| JwtKeyError::Mismatch)?;
        }
        Ok(keys)
    }

    pub(super) fn sign(
        &self,
        username: &str,
        tenant: Option<&Tenant>,
        revision: u64,
    ) -> Result<Secret, Refusal> {
        let Some(signing) = &self.signing else { return Err(Refusal::VerifyOnlyKey) };
        let claims = OwnClaims {
            username,
            tenant: tenant.map(|tenant| tenant.name.as_str()),
            tenant_keyspace: tenant.map(|tenant| tenant.keyspace.0),
            revision,
            exp: now().saturating_add(self.ttl.as_secs()),
        };
        jsonwebtoken::encode(&Header::new(self.algorithm), &claims, signing)
            .map(Secret::new)
            .map_err(|_| Refusal::Internal { cause: "signing a token failed" })
    }

    pub(super) fn verify(&self, token: &str) -> Result<Arc<Claims>, Invalid> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Invalid::Malformed);
        }
        if let Some(claims) = self.verified.read().get(token) {
            return Ok(claims.clone());
        }
        let decoded = jsonwebtoken::decode::<AnyClaims>(token, &self.verifying, &self.validation)
            .map_err(|error| Invalid::of(&error, token, &self.validation))?;
        // Whoever does not know a critical header must refuse the token, and we know none (RFC 7515, 4.1.11).
        if let Some(critical) = &decoded.header.crit {
            return Err(Invalid::Critical(shown(&critical.join(", "))));
        }
        let claims = Arc::new(read_claims(decoded.claims)?);
        let mut verified = self.verified.write();
        if verified.len() >= MAX_REMEMBERED {
            verified.retain(|_, claims| !claims.is_expired());
        }
        if verified.len() >= MAX_REMEMBERED {
            verified.clear();
        }
        verified.insert(token.into(), claims.clone());
        Ok(claims)
    }

    fn validation_of_signature(&self) -> Validation {
        let mut validation = self.validation.clone();
        validation.validate_exp = false;
        validation
    }
}

fn read_claims(claims: AnyClaims) -> Result<Claims, Invalid> {
    let missing = |name: &str| Invalid::Missing(name.to_owned());
    let number = |name: &str, value: &serde_json::Value| whole_number(value).ok_or_else(|| missing(name));
    let username = claims.username.as_str().filter(|name| !name.is_empty());
    let username = username.ok_or_else(|| missing("username"))?.into();
    let revision = claims.revision.as_ref().map(|value| number("revision", value)).transpose()?;
    let keyspace =
        claims.tenant_keyspace.as_ref().map(|value| number("tenant_keyspace", value)).transpose()?;
    let tenant = match &claims.tenant {
        None => None,
        Some(value) => {
            let name = value.as_str().ok_or_else(|| missing("tenant"))?.into();
            Some(OfTenant { name, keyspace })
        }
    };
    Ok(Claims { username, tenant, revision, expires: number("exp", &claims.exp)? })
}

/// JSON has one kind of number, and some issuers write `3.0` or `1.7e9`.
pub(super) fn whole_number(value: &serde_json::Value) -> Option<u64> {
    /// Above 2^53 a float is not exact any more.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if let Some(number) = value.as_u64() {
        return Some(number);
    }
    let number = value.as_f64()?;
    if !(0.0..=EXACT).contains(&number) {
        return None;
    }
    // A fraction of a second is rounded away, never up.
    Some(number.floor() as u64)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn is_hmac(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)
}

fn curve(algorithm: Algorithm) -> Option<&'static EcdsaSigningAlgorithm> {
    match algorithm {
        Algorithm::ES256 => Some(&ECDSA_P256_SHA256_FIXED_SIGNING),
        Algorithm::ES384 => Some(&ECDSA_P384_SHA384_FIXED_SIGNING),
        _ => None,
    }
}

/// etcd's word for it.
fn name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::HS256 => "HS256",
        Algorithm::HS384 => "HS384",
        Algorithm::HS512 => "HS512",
        Algorithm::ES256 => "ES256",
        Algorithm::ES384 => "ES384",
        Algorithm::RS256 => "RS256",
        Algorithm::RS384 => "RS384",
        Algorithm::RS512 => "RS512",
        Algorithm::PS256 => "PS256",
        Algorithm::PS384 => "PS384",
        Algorithm::PS512 => "PS512",
        Algorithm::EdDSA => "EdDSA",
        // The library may learn more; the configuration offers none of them.
        _ => "this algorithm",
    }
}

fn signing_key(algorithm: Algorithm, pem: &[u8]) -> Result<EncodingKey, JwtKeyError> {
    let refused = || JwtKeyError::PrivateKey { method: name(algorithm) };
    if is_hmac(algorithm) {
        return Ok(EncodingKey::from_secret(pem));
    }
    let der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| refused())?;
    if let Some(curve) = curve(algorithm) {
        // The library takes PKCS#8 only; openssl's `ecparam -genkey` writes SEC1.
        let pair = EcdsaKeyPair::from_private_key_der(curve, der.secret_der()).map_err(|_| refused())?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| refused())?;
        return Ok(EncodingKey::from_ec_der(pkcs8.as_ref()));
    }
    if algorithm == Algorithm::EdDSA {
        return EncodingKey::from_ed_pem(pem).map_err(|_| refused());
    }
    EncodingKey::from_rsa_pem(pem).map_err(|_| refused())
}

fn verifying_key(algorithm: Algorithm, pem: &[u8]) -> Result<DecodingKey, JwtKeyError> {
    let refused = |_| JwtKeyError::PublicKey { method: name(algorithm) };
    if is_hmac(algorithm) {
        Ok(DecodingKey::from_secret(pem))
    } else if curve(algorithm).is_some() {
        DecodingKey::from_ec_pem(pem).map_err(refused)
    } else if algorithm == Algorithm::EdDSA {
        DecodingKey::from_ed_pem(pem).map_err(refused)
    } else {
        DecodingKey::from_rsa_pem(pem).map_err(refused)
    }
}

/// The public half of a private key.
fn derived_key(algorithm: Algorithm, signing: &EncodingKey) -> Result<DecodingKey, JwtKeyError> {
    let refused = |_| JwtKeyError::PrivateKey { method: name(algorithm) };
    let der = signing.as_bytes();
    if is_hmac(algorithm) {
        return Ok(DecodingKey::from_secret(der));
    }
    if let Some(curve) = curve(algorithm) {
        let pair = EcdsaKeyPair::from_pkcs8(curve, der).map_err(refused)?;
        return Ok(DecodingKey::from_ec_der(pair.public_key().as_ref()));
    }
    if algorithm == Algorithm::EdDSA {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(refused)?;
        return Ok(DecodingKey::from_ed_der(pair.public_key().as_ref()));
    }
    let pair = RsaKeyPair::from_der(der).map_err(refused)?;
    Ok(DecodingKey::from_rsa_der(pair.public_key().as_ref()))
}

#[cfg(test)]
mod tests;
