//! Detached Ed25519 signatures over `manifest.json`, and through its digests over the bundle.

use super::escape::digit;
use super::files::Files;
use super::manifest::{MANIFEST, SIGNATURES};
use aws_lc_rs::digest;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use std::collections::BTreeSet;
use std::fmt;
use thiserror::Error;

/// Some hundred signatures; each of a trusted key costs a verification.
const LIMIT: usize = 64 << 10;
/// So that a signature of a manifest can never be one of something else.
const CONTEXT: &[u8] = b"keygate policy bundle v1\0";
/// A SubjectPublicKeyInfo of Ed25519 is these bytes and the key (RFC 8410).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why a bundle does not count as signed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SignatureError {
    #[error("SIGNATURES:{line}: line is not `ed25519 KEY SIGNATURE`")]
    Line { line: usize },
    #[error("SIGNATURES:{line}: key `{key}` did not sign this manifest.json")]
    Wrong { line: usize, key: String },
    #[error("bundle is signed by {found} of the keys and {needed} are needed")]
    TooFew { found: usize, needed: usize },
    #[error("SIGNATURES is longer than {LIMIT} bytes")]
    TooLong,
    #[error("bundle has no manifest.json")]
    NoManifest,
    #[error("key is no Ed25519 key")]
    Key,
}

/// A public key that an operator trusts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifyingKey([u8; 32]);

impl VerifyingKey {
    /// From the DER of a `PUBLIC KEY`, as openssl writes it.
    ///
    /// # Errors
    /// It is no Ed25519 key.
    pub fn from_spki(der: &[u8]) -> Result<Self, SignatureError> {
        let raw = der.strip_prefix(&SPKI).and_then(|raw| raw.try_into().ok());
        raw.map(Self).ok_or(SignatureError::Key)
    }

    /// What a line of SIGNATURES calls it.
    pub fn id(&self) -> String {
        let digest = digest::digest(&digest::SHA256, &self.0);
        crate::rows::hex(&digest.as_ref()[..8])
    }

    fn accepts(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

/// A private key. It is never printed.
pub struct SigningKey(Ed25519KeyPair);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

impl SigningKey {
    /// From the DER of a `PRIVATE KEY` (PKCS#8), as openssl writes it.
    ///
    /// # Errors
    /// It is no Ed25519 key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, SignatureError> {
        Ed25519KeyPair::from_pkcs8(der).map(Self).map_err(|_| SignatureError::Key)
    }

    pub fn verifying_key(&self) -> VerifyingKey {
        let mut raw = [0; 32];
        raw.copy_from_slice(self.0.public_key().as_ref());
        VerifyingKey(raw)
    }

    /// The text of SIGNATURES with this key's line added, or in place of its older one.
    ///
    /// # Errors
    /// There is no manifest to be signed.
    pub fn sign(&self, files: &Files) -> Result<String, SignatureError> {
        let manifest = files.get(MANIFEST).ok_or(SignatureError::NoManifest)?;
        let id = self.verifying_key().id();
        let old = String::from_utf8_lossy(files.get(SIGNATURES).unwrap_or_default()).into_owned();
        let mut text: String = old
            .lines()
            .filter(|line| line.split_whitespace().nth(1) != Some(id.as_str()))
            .map(|line| format!("{line}\n"))
            .collect();
        let signature = crate::rows::hex(self.0.sign(&message(manifest)).as_ref());
        text.push_str(&format!("ed25519 {id} {signature}\n"));
        Ok(text)
    }
}

/// Have at least `needed` of the keys signed? Answers with the ids of those that have.
///
/// # Errors
/// Too few have, or a line is broken, or a named key's signature is wrong.
pub fn verify(files: &Files, keys: &[VerifyingKey], needed: usize) -> Result<Vec<String>, SignatureError> {
    let manifest = message(files.get(MANIFEST).ok_or(SignatureError::NoManifest)?);
    let text = files.get(SIGNATURES).unwrap_or_default();
    if text.len() > LIMIT {
        return Err(SignatureError::TooLong);
    }
    let mut signed = BTreeSet::new();
    for (index, raw) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = index + 1;
        let content = raw.split(|byte| *byte == b'#').next().unwrap_or_default();
        let content = std::str::from_utf8(content).map_err(|_| SignatureError::Line { line })?;
        let words: Vec<&str> = content.split_whitespace().collect();
        let (id, signature) = match words.as_slice() {
            [] => continue,
            ["ed25519", id, signature] => (*id, unhex(signature).ok_or(SignatureError::Line { line })?),
            _ => return Err(SignatureError::Line { line }),
        };
        let Some(key) = keys.iter().find(|key| key.id() == id) else {
            continue;
        };
        if !key.accepts(&manifest, &signature) {
            return Err(SignatureError::Wrong { line, key: id.to_owned() });
        }
        signed.insert(id.to_owned());
    }
    // None needed would be no check at all.
    let needed = needed.max(1);
    if signed.len() < needed {
        return Err(SignatureError::TooFew { found: signed.len(), needed });
    }
    Ok(signed.into_iter().collect())
}

fn message(manifest: &[u8]) -> Vec<u8> {
    [CONTEXT, manifest].concat()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 128 {
        return None;
    }
    text.as_bytes().chunks(2).map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}
