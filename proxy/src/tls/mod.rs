//! TLS of the client port: rustls over aws-lc-rs, TLS 1.2 and 1.3, ALPN for gRPC and HTTP/1.1.
//!
//! Certificate, key and CA are read again when their files change, without touching connections
//! that are open. New files that cannot be used are reported, and the old ones stay.
//!
//! Sessions are never resumed: a resumed one would skip the check of the client's certificate, and
//! connections of gRPC last long enough not to need it.

mod authority;
mod crl;
mod material;
mod reload;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};

use authority::{Authority, Demand};

pub use authority::{Lapse, Revocation, Unlisted};
pub use reload::ReloadingTls;

/// Where everything comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsSources {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub client_certificates: ClientCertificates,
    /// Which client certificates were revoked. None: nobody asks.
    pub revocation: Option<Revocation>,
    pub versions: Versions,
    /// IANA names of TLS 1.2 suites in the operator's order; empty leaves the choice to rustls.
    /// Those of TLS 1.3 are not up for choice, as in Go.
    pub cipher_suites: Vec<&'static str>,
    /// Refuse a key file that others than its owner and group can read.
    pub private_key_only: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientCertificates {
    Ignored,
    Optional { ca: PathBuf },
    Required { ca: PathBuf },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Versions {
    Tls12Only,
    Tls13Only,
    Both,
}

/// Why TLS cannot start with these files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read `{}`: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{}` holds no certificate in PEM form", path.display())]
    NoCertificate { path: PathBuf },
    #[error("`{}` holds no private key in PEM form", path.display())]
    NoKey { path: PathBuf },
    #[error("key file `{}` can be read by others (mode {mode:04o}): run `chmod 0600` on it", path.display())]
    KeyOpenToOthers { path: PathBuf, mode: u32 },
    #[error("the key in `{}` does not belong to the certificate in `{}`", key.display(), cert.display())]
    Mismatch { cert: PathBuf, key: PathBuf },
    #[error("certificate authority in `{}` cannot be used: {why}", path.display())]
    BadAuthority { path: PathBuf, why: String },
    #[error("revocation lists in `{}` cannot be used: {why}", path.display())]
    BadRevocationList { path: PathBuf, why: String },
    #[error("certificate in `{}` or its key cannot be used: {why}", path.display())]
    Unusable { path: PathBuf, why: String },
}

/// What was made of the files.
pub(crate) struct Loaded {
    /// Of a new connection.
    pub(crate) config: Arc<ServerConfig>,
    authority: Option<Authority>,
}

/// Reads all files.
pub(crate) fn load(sources: &TlsSources) -> Result<Loaded, TlsError> {
    let provider = Arc::new(provider(&sources.cipher_suites));
    let unusable = |error: &dyn std::fmt::Display| TlsError::Unusable {
        path: sources.cert.clone(),
        why: error.to_string(),
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&protocol_versions(sources.versions))
        .map_err(|error| unusable(&error))?;
    let authority = match &sources.client_certificates {
        ClientCertificates::Ignored => None,
        ClientCertificates::Optional { ca } => Some((ca, Demand::Optional)),
        ClientCertificates::Required { ca } => Some((ca, Demand::Required)),
    };
    let revocation = sources.revocation.as_ref();
    let authority =
        authority.map(|(ca, demand)| Authority::load(ca, revocation, demand, &provider)).transpose()?;
    let builder = match &authority {
        None => builder.with_no_client_auth(),
        Some(authority) => builder.with_client_cert_verifier(authority.newcomers.clone()),
    };
    let pair = material::key_pair(sources)?;
    let mut config = builder.with_single_cert(pair.chain, pair.key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::Mismatch { cert: sources.cert.clone(), key: sources.key.clone() }
        }
        other => unusable(&other),
    })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Loaded { config: Arc::new(config), authority })
}

fn protocol_versions(versions: Versions) -> Vec<&'static SupportedProtocolVersion> {
    match versions {
        Versions::Tls12Only => vec![&rustls::version::TLS12],
        Versions::Tls13Only => vec![&rustls::version::TLS13],
        Versions::Both => vec![&rustls::version::TLS13, &rustls::version::TLS12],
    }
}

/// Named here, so that no other crate's features can change which library does the cryptography.
fn provider(wanted: &[&'static str]) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    if wanted.is_empty() {
        return provider;
    }
    let is_tls13 = |suite: &SupportedCipherSuite| matches!(suite, SupportedCipherSuite::Tls13(_));
    let mut suites: Vec<_> = provider.cipher_suites.iter().filter(|suite| is_tls13(suite)).copied().collect();
    suites.extend(wanted.iter().filter_map(|name| {
        let named = |suite: &&SupportedCipherSuite| format!("{:?}", suite.suite()) == *name;
        provider.cipher_suites.iter().find(named).copied()
    }));
    provider.cipher_suites = suites;
    provider
}

#[cfg(test)]
mod tests;
