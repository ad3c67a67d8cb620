//! Whose client certificates hold: those of an authority, without those that it revoked.
//!
//! A handshake and an open connection are asked differently. A list that has run out, or that is
//! missing, refuses every newcomer, because nobody knows what has been revoked since; those who are
//! in stay until something is known against them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertificateError, Error, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::crl;
use super::dates::{Dated, What};
use super::{TlsError, material};
use crate::identify::Lapse;

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

pub(super) struct Authority {
    pub(super) name: Arc<str>,
    pub(super) ca: PathBuf,
    pub(super) certificates: Vec<CertificateDer<'static>>,
    /// Of its certificates, whatever their names: each as SubjectPublicKeyInfo.
    keys: Vec<Vec<u8>>,
    pub(super) newcomers: Arc<dyn ClientCertVerifier>,
    standing: Arc<dyn ClientCertVerifier>,
    /// Asks no list: whether it signed a chain at all.
    signed: Arc<dyn ClientCertVerifier>,
    /// Of its certificates and lists.
    pub(super) dates: Vec<Dated>,
}

/// What a chain is to an authority.
pub(super) enum Verdict<Why> {
    Holds,
    /// It is of this authority, and does not hold.
    Fails(Why),
    Foreign,
}

impl Authority {
    pub(super) fn load(
        name: Arc<str>,
        ca: &Path,
        revocation: Option<Revocation>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let bad = |error: &dyn std::fmt::Display| TlsError::BadAuthority {
            path: ca.to_owned(),
            why: error.to_string(),
        };
        let certificates = material::certificates(ca)?;
        let keys = certificates.iter().map(|certificate| {
            let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| bad(&error))?;
            Ok(parsed.public_key().raw.to_vec())
        });
        let keys = keys.collect::<Result<_, TlsError>>()?;
        let mut roots = RootCertStore::empty();
        for root in &certificates {
            roots.add(root.clone()).map_err(|error| bad(&error))?;
        }
        let roots = Arc::new(roots);
        let algorithms = &provider.signature_verification_algorithms;
        let lists = match &revocation {
            Some(revocation) => crl::read(&revocation.path, &roots, algorithms)?,
            None => Vec::new(),
        };
        let ders = || lists.iter().map(|list| list.der.clone());
        let builder =
            || WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).with_crls(ders());
        let mut newcomers = builder().enforce_revocation_expiration();
        if revocation.as_ref().is_some_and(|revocation| revocation.unlisted == Unlisted::Accepted) {
            newcomers = newcomers.allow_unknown_revocation_status();
        }
        // The roots were taken one by one already: what cannot be used now is a list.
        let unusable = |error: VerifierBuilderError| match &revocation {
            Some(revocation) => {
                TlsError::BadRevocationList { path: revocation.path.clone(), why: error.to_string() }
            }
            None => bad(&error),
        };
        let standing = builder().allow_unknown_revocation_status().build().map_err(unusable)?;
        let newcomers = newcomers.build().map_err(unusable)?;
        let signed = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
        let signed = signed.build().map_err(|error| bad(&error))?;
        let mut dates: Vec<_> =
            certificates.iter().map(|one| Dated::certificate(What::Authority, ca, one)).collect();
        if let Some(Revocation { path, .. }) = &revocation {
            dates.extend(lists.into_iter().map(|list| Dated {
                what: What::RevocationList,
                path: path.clone(),
                name: list.issuer,
                ends: list.next_update,
            }));
        }
        let ca = ca.to_owned();
        Ok(Self { name, ca, certificates, keys, newcomers, standing, signed, dates })
    }

    /// Whether a certificate above the client's own carries a key of this authority: under another name, signed by
    /// another, it verifies what this one has signed, and says that it is the other's.
    pub(super) fn lends_its_key_to(&self, chain: &[CertificateDer<'_>]) -> bool {
        chain.iter().skip(1).any(|certificate| match X509Certificate::from_der(certificate) {
            Ok((_, parsed)) => self.keys.iter().any(|key| key == parsed.public_key().raw),
            // Nothing was verified by it.
            Err(_) => false,
        })
    }

    /// Whether a chain, the client's own certificate first, is let in.
    pub(super) fn admits(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<(), Error> {
        ask(&self.newcomers, chain, now)
    }

    /// A chain that somebody shows now.
    ///
    /// An expired one is foreign here: it is of nobody who could say more about it.
    pub(super) fn judge(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Verdict<Error> {
        let Err(why) = ask(&self.newcomers, chain, now) else { return Verdict::Holds };
        match ask(&self.signed, chain, now) {
            Err(error) if is_of_others(&error) || is_out_of_time(&error) => Verdict::Foreign,
            Ok(()) | Err(_) => Verdict::Fails(why),
        }
    }

    /// A chain that was let in once.
    pub(super) fn judge_standing(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Verdict<Lapse> {
        let Err(why) = ask(&self.standing, chain, now) else { return Verdict::Holds };
        match ask(&self.signed, chain, now) {
            Ok(()) if why == Error::InvalidCertificate(CertificateError::Revoked) => {
                Verdict::Fails(Lapse::Revoked)
            }
            // A list that cannot be checked says nothing against anybody.
            Ok(()) => Verdict::Holds,
            Err(error) if is_out_of_time(&error) => Verdict::Fails(Lapse::Expired),
            Err(error) if is_of_others(&error) => Verdict::Foreign,
            Err(_) => Verdict::Fails(Lapse::Untrusted),
        }
    }
}

/// No key of the authority signed the chain; another's of the same name may have.
fn is_of_others(error: &Error) -> bool {
    use CertificateError::{BadSignature, UnknownIssuer, UnsupportedSignatureAlgorithmForPublicKeyContext};
    matches!(
        error,
        Error::InvalidCertificate(
            UnknownIssuer | BadSignature | UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
        )
    )
}

fn is_out_of_time(error: &Error) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    matches!(
        error,
        Error::InvalidCertificate(Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
    )
}

fn ask(
    verifier: &Arc<dyn ClientCertVerifier>,
    chain: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<(), Error> {
    let missing = Error::InvalidCertificate(CertificateError::BadEncoding);
    let (certificate, intermediates) = chain.split_first().ok_or(missing)?;
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(since);
    verifier.verify_client_cert(certificate, intermediates, now).map(drop)
}
