//! Whose client certificates hold: those of an authority, without those that it revoked.
//!
//! A handshake and an open connection are asked differently. A list that has run out, or that is
//! missing, refuses every newcomer, because nobody knows what has been revoked since; those who are
//! in stay until something is known against them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, Error, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::crl::{self, RevocationList};
use super::{TlsError, material};

/// A file of revocation lists, and what it means for those who are in none of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revocation {
    pub path: PathBuf,
    pub unlisted: Unlisted,
}

/// What becomes of certificates of an authority of which the file has no list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unlisted {
    Refused,
    /// As in etcd.
    Accepted,
}

/// Whether a client must show a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Demand {
    Optional,
    Required,
}

pub(super) struct Authority {
    pub(super) newcomers: Arc<dyn ClientCertVerifier>,
    standing: Arc<dyn ClientCertVerifier>,
    pub(super) lists: Vec<RevocationList>,
}

/// Why a certificate that held does not any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lapse {
    /// Revoked, or of an authority that is not trusted any more.
    Revoked,
    Expired,
}

impl Authority {
    pub(super) fn load(
        ca: &Path,
        revocation: Option<&Revocation>,
        demand: Demand,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let bad = |error: &dyn std::fmt::Display| TlsError::BadAuthority {
            path: ca.to_owned(),
            why: error.to_string(),
        };
        let mut roots = RootCertStore::empty();
        for root in material::authorities(ca)? {
            roots.add(root).map_err(|error| bad(&error))?;
        }
        let roots = Arc::new(roots);
        let algorithms = &provider.signature_verification_algorithms;
        let lists = match revocation {
            Some(revocation) => crl::read(&revocation.path, &roots, algorithms)?,
            None => Vec::new(),
        };
        let ders = || lists.iter().map(|list| list.der.clone());
        let builder =
            || WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).with_crls(ders());
        let mut newcomers = builder().enforce_revocation_expiration();
        if demand == Demand::Optional {
            newcomers = newcomers.allow_unauthenticated();
        }
        if revocation.is_some_and(|revocation| revocation.unlisted == Unlisted::Accepted) {
            newcomers = newcomers.allow_unknown_revocation_status();
        }
        // The roots were taken one by one already: what cannot be used now is a list.
        let unusable = |error: rustls::server::VerifierBuilderError| match revocation {
            Some(revocation) => {
                TlsError::BadRevocationList { path: revocation.path.clone(), why: error.to_string() }
            }
            None => bad(&error),
        };
        let standing = builder().allow_unknown_revocation_status().build().map_err(unusable)?;
        Ok(Self { newcomers: newcomers.build().map_err(unusable)?, standing, lists })
    }

    /// Whether a chain that was accepted once, the client's own certificate first, still holds.
    pub(super) fn still_holds(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<(), Lapse> {
        let Some((certificate, intermediates)) = chain.split_first() else { return Ok(()) };
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(since);
        match self.standing.verify_client_cert(certificate, intermediates, now) {
            Ok(_) => Ok(()),
            Err(Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => Err(Lapse::Expired),
            Err(_) => Err(Lapse::Revoked),
        }
    }
}
