//! TLS of the client port: rustls over aws-lc-rs, TLS 1.2 and 1.3, ALPN for gRPC and HTTP/1.1.
//!
//! Certificate, key, authorities, revocation lists and identity rules are read again when their files
//! change. Connections that are open stay, unless the client's certificate does not hold any more or
//! names somebody else. New files that cannot be used are reported, and the old ones stay.
//!
//! Sessions are never resumed: a resumed one would skip the check of the client's certificate, and
//! connections of gRPC last long enough not to need it.

mod authority;
mod crl;
mod dates;
mod kinship;
mod material;
mod refused;
mod reload;
mod trust;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};
use rustls_pki_types::CertificateDer;

use crate::identify::rules::RulesError;

pub use authority::{Revocation, Unlisted};
pub use dates::{Dated, What};
pub use refused::{RefusedCertificate, refused_certificate};
pub use reload::ReloadingTls;
pub use trust::{Certified, PLATFORM_ONLY, Trust};

/// Where everything comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsSources {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub client_certificates: ClientCertificates,
    /// Which client certificates were revoked. None: nobody asks.
    pub revocation: Option<Revocation>,
    /// Further authorities, and who is whom.
    pub identity_rules: Option<PathBuf>,
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
    #[error("authorities `{first}` and `{second}` have a key in common: whose clients would be meant?")]
    SharedAuthority { first: String, second: String },
    #[error(
        "authority `{upper}` signed a certificate of authority `{lower}`: each client of `{lower}` would be one of `{upper}`, too; use a root of its own for one of them"
    )]
    NestedAuthority { lower: String, upper: String },
    #[error(
        "identity rules `{}` do not say whom certificates of the platform's authority name: write rules for `authority: platform`, or `platform: common-names` (each is a user of the platform), or `platform: nobody`",
        path.display()
    )]
    PlatformUnsaid { path: PathBuf },
    #[error(transparent)]
    Rules(#[from] RulesError),
    #[error("certificate in `{}` or its key cannot be used: {why}", path.display())]
    Unusable { path: PathBuf, why: String },
}

/// What was made of the files.
pub struct Loaded {
    pub trust: Trust,
    /// Of the server's own certificates; those of clients' authorities are `trust`'s.
    server: Vec<Dated>,
    /// At a host that is no tenant's.
    shared: Arc<ServerConfig>,
    /// At a host of a tenant without authorities, and at a listener that is the operators' alone.
    bare: Arc<ServerConfig>,
    of_tenants: HashMap<String, Arc<ServerConfig>>,
}

impl Loaded {
    /// Of a new connection to a host of `tenant`, or to one that is nobody's in particular.
    pub fn config(&self, tenant: Option<&str>) -> Arc<ServerConfig> {
        match tenant {
            None => self.shared.clone(),
            Some(tenant) => self.of_tenants.get(tenant).unwrap_or(&self.bare).clone(),
        }
    }

    pub fn dates(&self) -> impl Iterator<Item = &Dated> {
        self.server.iter().chain(self.trust.dates())
    }
}

/// Reads all files.
pub fn load(sources: &TlsSources) -> Result<Loaded, TlsError> {
    let provider = Arc::new(provider(&sources.cipher_suites));
    let trust = Trust::load(sources, &provider)?;
    let pair = material::key_pair(sources)?;
    let server = pair.chain.iter().map(|one| Dated::certificate(What::Server, &sources.cert, one)).collect();
    let config = |tenant: Option<&str>| server_config(sources, &provider, &trust, tenant, &pair);
    let (shared, bare) = (config(None)?, config(Some(PLATFORM_ONLY))?);
    let of_tenants = trust.tenants().map(|tenant| Ok((tenant.to_owned(), config(Some(tenant))?)));
    let of_tenants = of_tenants.collect::<Result<_, TlsError>>()?;
    Ok(Loaded { shared, bare, of_tenants, server, trust })
}

/// Authorities and rules alone, to ask them without a server.
pub fn load_trust(sources: &TrustSources) -> Result<Trust, TlsError> {
    let platform = sources.ca.as_deref().map(|ca| (ca, sources.revocation.as_ref()));
    Trust::read(platform, sources.identity_rules.as_deref(), false, &Arc::new(provider(&[])))
}

/// What it takes to know whom a certificate names.
#[derive(Clone, Debug, Default)]
pub struct TrustSources {
    pub ca: Option<PathBuf>,
    pub revocation: Option<Revocation>,
    pub identity_rules: Option<PathBuf>,
}

/// All certificates of a file.
pub fn certificates_of_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    material::certificates(path)
}

/// When the certificates of a file expire.
pub fn dates_of_file(path: &Path, what: What) -> Result<Vec<Dated>, TlsError> {
    let certificates = material::certificates(path)?;
    Ok(certificates.iter().map(|one| Dated::certificate(what, path, one)).collect())
}

fn server_config(
    sources: &TlsSources,
    provider: &Arc<CryptoProvider>,
    trust: &Trust,
    tenant: Option<&str>,
    pair: &material::KeyPair,
) -> Result<Arc<ServerConfig>, TlsError> {
    let unusable = |error: &dyn std::fmt::Display| TlsError::Unusable {
        path: sources.cert.clone(),
        why: error.to_string(),
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&protocol_versions(sources.versions))
        .map_err(|error| unusable(&error))?;
    let builder = match trust.verifier(tenant) {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier),
    };
    let (chain, key) = (pair.chain.clone(), pair.key.clone_key());
    let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::Mismatch { cert: sources.cert.clone(), key: sources.key.clone() }
        }
        other => unusable(&other),
    })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
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
