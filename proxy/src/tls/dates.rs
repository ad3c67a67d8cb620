//! Until when what the TLS files hold is good.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::crl::time_of;

/// A certificate or list that ends some day.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dated {
    pub what: What,
    pub path: PathBuf,
    /// Whose it is, as people read it.
    pub name: String,
    /// None: it does not say, or says nothing that can be read.
    pub ends: Option<SystemTime>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum What {
    /// The server's own, or one that signed it.
    Server,
    /// Of an authority whose client certificates are accepted.
    Authority,
    /// A client's, on disk.
    Client,
    RevocationList,
}

impl What {
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Authority => "authority",
            Self::Client => "client",
            Self::RevocationList => "revocation-list",
        }
    }
}

impl Dated {
    pub(super) fn certificate(what: What, path: &Path, certificate: &CertificateDer<'_>) -> Self {
        let (name, ends) = match X509Certificate::from_der(certificate) {
            Ok((_, parsed)) => {
                (parsed.subject().to_string(), time_of(parsed.validity().not_after.timestamp()))
            }
            Err(_) => ("unreadable".to_owned(), None),
        };
        Self { what, path: path.to_owned(), name, ends }
    }
}
