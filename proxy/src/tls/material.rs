//! Certificates and keys from PEM files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::{TlsError, TlsSources};

pub(super) struct KeyPair {
    /// The server's own certificate first.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

pub(super) fn key_pair(sources: &TlsSources) -> Result<KeyPair, TlsError> {
    let chain = certificates(&sources.cert)?;
    if sources.private_key_only {
        let metadata = fs::metadata(&sources.key).map_err(|source| read_error(&sources.key, source))?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o037 != 0 {
            return Err(TlsError::KeyOpenToOthers { path: sources.key.clone(), mode });
        }
    }
    let text = Zeroizing::new(read(&sources.key)?);
    let key =
        PrivateKeyDer::from_pem_slice(&text).map_err(|_| TlsError::NoKey { path: sources.key.clone() })?;
    Ok(KeyPair { chain, key })
}

/// At least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let missing = || TlsError::NoCertificate { path: path.to_owned() };
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(|_| missing())?;
    if found.is_empty() { Err(missing()) } else { Ok(found) }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| read_error(path, source))
}

fn read_error(path: &Path, source: std::io::Error) -> TlsError {
    TlsError::Read { path: path.to_owned(), source }
}
