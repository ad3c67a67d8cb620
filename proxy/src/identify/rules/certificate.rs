//! What a certificate says of its holder.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Names as they stand in a certificate that was verified.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CertificateNames {
    /// None without a common name, or with several: which of them counted would be a guess.
    pub common_name: Option<Arc<str>>,
    pub dns: Vec<String>,
    pub uris: Vec<String>,
}

impl CertificateNames {
    /// None: it cannot be read, or not all of its names can: one that is left out might be a second URI.
    pub fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let mut names = parsed.subject().iter_common_name();
        let first = names.next().and_then(|name| name.as_str().ok()).filter(|name| !name.is_empty());
        let common_name = first.filter(|_| names.next().is_none()).map(Arc::from);
        let mut found = Self { common_name, ..Self::default() };
        for name in
            parsed.subject_alternative_name().ok()?.iter().flat_map(|names| &names.value.general_names)
        {
            match name {
                GeneralName::DNSName(host) => found.dns.push(host.to_ascii_lowercase()),
                GeneralName::URI(uri) => found.uris.push((*uri).to_owned()),
                GeneralName::Invalid(..) => return None,
                _ => {}
            }
        }
        Some(found)
    }
}
