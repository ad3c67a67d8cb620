//! Tokens that others sign: JWTs of the issuers in the identity rules.
//!
//! A token that names an issuer of ours is that issuer's or nobody's: it is never tried in another
//! way. Its algorithm must be one that was chosen for the issuer, which keyed hashes and `none`
//! cannot be, and none of its headers may be critical; `iss`, `aud` and `exp` must be there and fit,
//! `nbf` is heeded, and it may not live longer than the issuer's tokens may. Whom it names is the
//! rules' business.

mod fetch;
mod key_set;
mod remote;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use serde_json::{Map, Value};

pub use key_set::KeySet;
pub use remote::{Location, Standing};

use super::invalid::{Invalid, shown};
use super::rules::{IssuerSource, KeysFrom, Match, Rules};
use crate::tls::ReloadingTls;
use remote::Remotes;

/// Longer ones are refused unread.
const MAX_TOKEN_BYTES: usize = 8 << 10;

/// Checks tokens by the rules in force. One for the process.
pub struct Issuers {
    tls: Arc<ReloadingTls>,
    remotes: Arc<Remotes>,
}

/// What a verified token came to.
#[derive(Clone, Debug)]
pub struct Verified {
    pub matched: Match,
    /// Seconds since 1970, leeway included.
    expires: u64,
    /// With which it was checked.
    keys: Arc<KeySet>,
    issuer: Arc<str>,
    /// Of the rules by which it was named.
    generation: u64,
}

impl Verified {
    pub(super) fn is_expired(&self, now: u64) -> bool {
        now >= self.expires
    }

    pub(super) fn expires(&self) -> u64 {
        self.expires
    }
}

impl Issuers {
    /// Starts the thread that fetches keys. It ends with the process.
    pub fn start(tls: Arc<ReloadingTls>) -> std::io::Result<Self> {
        let remotes = Arc::new(Remotes::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (at, of) = (remotes.clone(), tls.clone());
        std::thread::Builder::new().name("issuer-keys".to_owned()).spawn(move || {
            runtime.block_on(async {
                loop {
                    let locations: Vec<_> = of.current().trust.rules().locations().cloned().collect();
                    at.round(&locations, remote::USUAL).await;
                }
            });
        })?;
        Ok(Self { tls, remotes })
    }

    /// None: it is not of an issuer that the rules name.
    pub(super) fn verify(&self, token: &str) -> Option<Result<Verified, Invalid>> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        // Before the rules are taken, so that newer ones are noticed.
        let generation = self.tls.generation();
        let loaded = self.tls.current();
        let rules = loaded.trust.rules();
        if rules.issuers.is_empty() {
            return None;
        }
        let issuer = issuer_of(rules, token)?;
        let Some(keys) = self.keys(issuer) else {
            return Some(Err(Invalid::NoKeys));
        };
        let checked = check(rules, issuer, &keys, token, now());
        if let (Err(Invalid::UnknownKey(_)), KeysFrom::Url(location)) = (&checked, &issuer.keys) {
            self.remotes.want(location);
        }
        let issuer = issuer.name.clone();
        Some(checked.map(|Checked { matched, expires }| Verified {
            matched,
            expires,
            keys,
            issuer,
            generation,
        }))
    }

    /// Whether what was found still is what would be found, but for the time.
    pub(super) fn still_holds(&self, verified: &Verified) -> bool {
        if verified.generation != self.tls.generation() {
            return false;
        }
        let loaded = self.tls.current();
        let issuer = loaded.trust.rules().issuers.iter().find(|issuer| issuer.name == verified.issuer);
        let keys = issuer.and_then(|issuer| self.keys(issuer));
        keys.is_some_and(|keys| Arc::ptr_eq(&keys, &verified.keys))
    }

    /// What the rules call the issuer that a token says it is of.
    pub(super) fn name_of(&self, token: &str) -> Option<Arc<str>> {
        let loaded = self.tls.current();
        issuer_of(loaded.trust.rules(), token).map(|issuer| issuer.name.clone())
    }

    /// Of those whose keys are fetched.
    pub fn standings(&self) -> Vec<(Arc<str>, Standing)> {
        let loaded = self.tls.current();
        let fetched = loaded.trust.rules().issuers.iter().filter_map(|issuer| match &issuer.keys {
            KeysFrom::File { .. } => None,
            KeysFrom::Url(location) => Some((issuer.name.clone(), self.remotes.standing(location))),
        });
        fetched.collect()
    }

    fn keys(&self, issuer: &IssuerSource) -> Option<Arc<KeySet>> {
        match &issuer.keys {
            KeysFrom::File { set, .. } => Some(set.clone()),
            KeysFrom::Url(location) => self.remotes.keys(location),
        }
    }
}

/// What a token has as `iss`; nothing is verified.
pub fn iss_of(token: &str) -> Option<String> {
    let said: Said = jsonwebtoken::dangerous::insecure_decode_claims(token).ok()?;
    Some(shown(&said.iss?.to_string()))
}

/// Of its claims, what is looked at of tokens that nobody here may have signed: the rest is passed over, as it costs time.
#[derive(serde::Deserialize)]
struct Said {
    iss: Option<Value>,
}

/// Which issuer a token says it is of; nothing is verified.
pub fn issuer_of<'a>(rules: &'a Rules, token: &str) -> Option<&'a IssuerSource> {
    let said: Said = jsonwebtoken::dangerous::insecure_decode_claims(token).ok()?;
    let iss = said.iss?;
    rules.issuers.iter().find(|issuer| Some(&*issuer.issuer) == iss.as_str())
}

/// A token that holds.
#[derive(Debug)]
pub struct Checked {
    pub matched: Match,
    /// Seconds since 1970, leeway included.
    pub expires: u64,
}

/// `now` in seconds since 1970; signature and times are the library's to check.
pub fn check(
    rules: &Rules,
    issuer: &IssuerSource,
    keys: &KeySet,
    token: &str,
    now: u64,
) -> Result<Checked, Invalid> {
    let header = jsonwebtoken::decode_header(token).map_err(|_| Invalid::header(token))?;
    if !issuer.algorithms.contains(&header.alg) {
        return Err(Invalid::Algorithm(format!("{:?}", header.alg)));
    }
    // Whoever does not know a critical header must refuse the token, and we know none (RFC 7515, 4.1.11).
    if let Some(critical) = &header.crit {
        return Err(Invalid::Critical(shown(&critical.join(", "))));
    }
    let id = header.kid.as_deref();
    let key = keys.find(id, header.alg).ok_or_else(|| {
        let id = id.unwrap_or_default().to_owned();
        if keys.has(Some(&id)) {
            Invalid::Algorithm(format!("{:?}", header.alg))
        } else {
            Invalid::UnknownKey(shown(&id))
        }
    })?;
    let validation = validation(issuer, header.alg);
    let decoded = jsonwebtoken::decode::<Map<String, Value>>(token, key, &validation).map_err(|error| {
        match error.kind() {
            // Without an id a key that is gone looks like a signature that is wrong.
            ErrorKind::InvalidSignature if id.is_none() => Invalid::UnknownKey(String::new()),
            _ => Invalid::of(&error, token, &validation),
        }
    })?;
    let claims = decoded.claims;
    let seconds = |name: &str| claims.get(name).and_then(super::jwt::whole_number);
    let leeway = issuer.leeway.as_secs();
    let expires = seconds("exp").ok_or(Invalid::Malformed)?;
    let most = issuer.max_lifetime.as_secs();
    let begun = seconds("iat").unwrap_or(now).min(now.saturating_add(leeway));
    if expires.saturating_sub(begun) > most || expires.saturating_sub(now) > most.saturating_add(leeway) {
        return Err(Invalid::LivesTooLong);
    }
    let matched = rules.token(&issuer.name, &claims)?;
    Ok(Checked { matched, expires: expires.saturating_add(leeway) })
}

fn validation(issuer: &IssuerSource, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = issuer.leeway.as_secs();
    validation.validate_nbf = true;
    validation.validate_aud = true;
    validation.set_audience(&issuer.audiences);
    validation.set_issuer(&[&issuer.issuer]);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
