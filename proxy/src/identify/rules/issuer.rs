//! Issuers of tokens, as the rules file has them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use jsonwebtoken::Algorithm;
use serde::Deserialize;

use super::TenantOf;
use crate::config;
use crate::identify::issuers::{KeySet, Location};

/// Who signs tokens, and which of them are good.
#[derive(Debug)]
pub struct IssuerSource {
    pub name: Arc<str>,
    /// The claim `iss`, letter by letter.
    pub issuer: String,
    /// A token's `aud` has one of them.
    pub audiences: Vec<String>,
    pub algorithms: Vec<Algorithm>,
    pub keys: KeysFrom,
    pub tenant: Option<TenantOf>,
    pub leeway: Duration,
    pub max_lifetime: Duration,
}

#[derive(Debug)]
pub enum KeysFrom {
    File { path: PathBuf, set: Arc<KeySet> },
    Url(Location),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawIssuer {
    pub(super) name: String,
    issuer: String,
    audiences: Vec<String>,
    algorithms: Vec<String>,
    keys_file: Option<PathBuf>,
    keys_url: Option<String>,
    keys_ca_file: Option<PathBuf>,
    keys_usable_for: Option<String>,
    pub(super) tenant: Option<String>,
    leeway: Option<String>,
    max_lifetime: Option<String>,
}

/// Clocks of machines differ by less.
const LEEWAY: Duration = Duration::from_secs(30);
const MAX_LEEWAY: Duration = Duration::from_secs(60);
/// A token cannot be taken back. A working day is long.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Time to notice an issuer that is down and to mend it, in the night too.
const USABLE_FOR: Duration = Duration::from_secs(4 * 3600);
const MIN_USABLE_FOR: Duration = Duration::from_secs(60);

impl RawIssuer {
    /// Problems come with their field.
    pub(super) fn check(self, tenant: Option<TenantOf>, folder: &Path) -> Result<IssuerSource, Vec<String>> {
        let mut problems = Vec::new();
        let mut span = |field: &str, text: &Option<String>, default: Duration| match text {
            None => default,
            Some(text) => config::duration(text).unwrap_or_else(|why| {
                problems.push(format!("{field}: {why}"));
                default
            }),
        };
        let leeway = span("leeway", &self.leeway, LEEWAY);
        let max_lifetime = span("max-lifetime", &self.max_lifetime, MAX_LIFETIME);
        let usable_for = span("keys-usable-for", &self.keys_usable_for, USABLE_FOR);
        if leeway > MAX_LEEWAY {
            problems.push("leeway: at most 60s".to_owned());
        }
        if usable_for < MIN_USABLE_FOR {
            problems
                .push("keys-usable-for: at least 1m, as keys are fetched twice a minute at most".to_owned());
        }
        if max_lifetime.is_zero() {
            problems.push("max-lifetime: longer than nothing".to_owned());
        }
        if self.issuer.is_empty() {
            problems.push("issuer: what its tokens have as `iss` is needed".to_owned());
        }
        if self.audiences.is_empty() || self.audiences.iter().any(String::is_empty) {
            problems
                .push("audiences: at least one is needed, or tokens for others would be taken".to_owned());
        }
        let mut algorithms = Vec::new();
        for name in &self.algorithms {
            match algorithm(name) {
                Some(algorithm) => algorithms.push(algorithm),
                None => problems.push(format!(
                    "algorithms: `{name}` is not accepted; there are RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA"
                )),
            }
        }
        if self.algorithms.is_empty() {
            problems.push("algorithms: at least one is needed".to_owned());
        }
        let ca = self.keys_ca_file.map(|file| folder.join(file));
        let keys = match (self.keys_file, self.keys_url) {
            (Some(file), None) => {
                if ca.is_some() || self.keys_usable_for.is_some() {
                    problems.push(
                        "keys-file: `keys-ca-file` and `keys-usable-for` are about `keys-url`".to_owned(),
                    );
                }
                key_file(folder.join(file))
            }
            (None, Some(url)) => key_url(&url).map(|url| KeysFrom::Url(Location { url, ca, usable_for })),
            (Some(_), Some(_)) | (None, None) => {
                Err("give `keys-file` or `keys-url`, one of them".to_owned())
            }
        };
        match keys {
            Ok(keys) if problems.is_empty() => Ok(IssuerSource {
                name: self.name.into(),
                issuer: self.issuer,
                audiences: self.audiences,
                algorithms,
                keys,
                tenant,
                leeway,
                max_lifetime,
            }),
            Ok(_) => Err(problems),
            Err(why) => {
                problems.push(why);
                Err(problems)
            }
        }
    }
}

fn key_file(path: PathBuf) -> Result<KeysFrom, String> {
    let place = |why: &dyn std::fmt::Display| format!("keys-file `{}`: {why}", path.display());
    let text = std::fs::read(&path).map_err(|error| place(&error))?;
    let set = Arc::new(KeySet::parse(&text).map_err(|why| place(&why))?);
    Ok(KeysFrom::File { path, set })
}

fn key_url(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|_| format!("keys-url: `{text}` is no address"))?;
    if uri.scheme_str() != Some("https") || uri.host().is_none_or(str::is_empty) {
        return Err(format!("keys-url: `{text}` must begin with `https://` and a host"));
    }
    Ok(uri)
}

/// Signatures only: who can check a keyed hash can make one, and `none` is no signature.
fn algorithm(name: &str) -> Option<Algorithm> {
    Some(match name {
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256,
        "PS384" => Algorithm::PS384,
        "PS512" => Algorithm::PS512,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "EdDSA" => Algorithm::EdDSA,
        _ => return None,
    })
}
