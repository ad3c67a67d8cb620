//! The public keys of an issuer (JWKS, RFC 7517): those that sign, of algorithms that were chosen.

use jsonwebtoken::jwk::{JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};

/// More than any issuer has under way.
const MAX_KEYS: usize = 100;

/// Prints no key, and no secret is in it: keyed hashes are never taken.
pub struct KeySet {
    keys: Vec<Key>,
}

struct Key {
    id: Option<String>,
    /// None: the issuer does not say, and any chosen one of its family may be meant.
    algorithm: Option<String>,
    key: DecodingKey,
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeySet").field("ids", &self.ids().collect::<Vec<_>>()).finish()
    }
}

impl KeySet {
    /// Keys of other uses and kinds are left out, as the specification asks; one must be left.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let set: JwkSet = serde_json::from_slice(text)
            .map_err(|error| format!("it is not a set of keys (JWKS): {error}"))?;
        if set.keys.len() > MAX_KEYS {
            return Err(format!("it has {} keys, more than {MAX_KEYS}", set.keys.len()));
        }
        let signs = |jwk: &&jsonwebtoken::jwk::Jwk| {
            !matches!(&jwk.common.public_key_use, Some(use_) if *use_ != PublicKeyUse::Signature)
                && !matches!(jwk.algorithm, jsonwebtoken::jwk::AlgorithmParameters::OctetKey(_))
        };
        let keys = set.keys.iter().filter(signs).filter_map(|jwk| {
            Some(Key {
                id: jwk.common.key_id.clone(),
                algorithm: jwk.common.key_algorithm.map(|algorithm| algorithm.to_string()),
                key: DecodingKey::from_jwk(jwk).ok()?,
            })
        });
        let keys: Vec<_> = keys.collect();
        if keys.is_empty() {
            return Err("it has no public key that signs".to_owned());
        }
        Ok(Self { keys })
    }

    /// The key that a token's header means. Without an id there must be one candidate only.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        let name = format!("{algorithm:?}");
        let fits = |key: &&Key| {
            key.algorithm.as_ref().is_none_or(|own| *own == name) && key.key.family() == algorithm.family()
        };
        let mut found = self.keys.iter().filter(fits).filter(|key| id.is_none() || key.id.as_deref() == id);
        let first = found.next()?;
        found.next().is_none().then_some(&first.key)
    }

    pub(super) fn has(&self, id: Option<&str>) -> bool {
        self.keys.iter().any(|key| id.is_none() || key.id.as_deref() == id)
    }

    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| key.id.as_deref().unwrap_or("(without an id)"))
    }
}
