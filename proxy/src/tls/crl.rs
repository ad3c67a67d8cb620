//! Lists of revoked certificates: PEM with any number of lists, or one list in DER.
//!
//! A list counts for certificates of the authority that signed it and for nobody else's: whether it
//! did is checked by the TLS library at each use. What is checked here, once, is that an operator's
//! new file can be used at all, so that a bad one does not take the place of a good one.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use super::TlsError;

/// What begins a list in a PEM file.
const PEM_LABEL: &[u8] = b"-----BEGIN X509 CRL-----";

/// One authority's list.
#[derive(Clone, Debug)]
pub(super) struct RevocationList {
    pub(super) der: CertificateRevocationListDer<'static>,
    /// As people read it.
    pub(super) issuer: String,
    /// From then on it says nothing any more. None: it does not say when.
    pub(super) next_update: Option<SystemTime>,
}

/// All lists of a file. Those of an authority in `roots` must be signed by it.
pub(super) fn read(
    path: &Path,
    roots: &RootCertStore,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<Vec<RevocationList>, TlsError> {
    let bytes = fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    let bad = |why: String| TlsError::BadRevocationList { path: path.to_owned(), why };
    let ders = if bytes.windows(PEM_LABEL.len()).any(|part| part == PEM_LABEL) {
        CertificateRevocationListDer::pem_slice_iter(&bytes)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| bad(format!("it is damaged PEM: {error:?}")))?
    } else {
        vec![CertificateRevocationListDer::from(bytes)]
    };
    ders.into_iter()
        .enumerate()
        .map(|(index, der)| {
            parse(der, roots, algorithms).map_err(|why| bad(format!("list {}: {why}", index + 1)))
        })
        .collect()
}

fn parse(
    der: CertificateRevocationListDer<'static>,
    roots: &RootCertStore,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<RevocationList, String> {
    let (rest, list) = CertificateRevocationList::from_der(&der)
        .map_err(|_| "it is neither PEM (`X509 CRL`) nor DER".to_owned())?;
    if !rest.is_empty() {
        return Err("bytes follow behind its end".to_owned());
    }
    let issuer = list.issuer().to_string();
    // The contents of a name, without the tag and length around them, as a trust anchor has them.
    let name = contents(list.issuer().as_raw());
    let mut signers = roots.roots.iter().filter(|root| Some(root.subject.as_ref()) == name).peekable();
    let is_signed_by = |root: &rustls_pki_types::TrustAnchor<'_>| {
        let Some(key) = public_key(&root.subject_public_key_info) else { return false };
        let (message, signature) = (list.tbs_cert_list.as_ref(), list.signature_value.data.as_ref());
        algorithms.all.iter().any(|algorithm| algorithm.verify_signature(key, message, signature).is_ok())
    };
    // That of an intermediate authority is checked when a chain through it is.
    if signers.peek().is_some() && !signers.any(is_signed_by) {
        return Err(format!("it is not signed by the authority `{issuer}` that it names"));
    }
    let next_update = list.next_update().and_then(|time| time_of(time.timestamp()));
    Ok(RevocationList { issuer, next_update, der })
}

/// The contents of a DER element that fills `der`.
fn contents(der: &[u8]) -> Option<&[u8]> {
    let (rest, any) = x509_parser::der_parser::asn1_rs::Any::from_der(der).ok()?;
    rest.is_empty().then_some(any.data)
}

/// The key bits of a SubjectPublicKeyInfo's contents.
fn public_key(spki: &[u8]) -> Option<&[u8]> {
    use x509_parser::der_parser::asn1_rs::Any;
    let (rest, _algorithm) = Any::from_der(spki).ok()?;
    let (_, bits) = Any::from_der(rest).ok()?;
    // The first byte counts unused bits: none.
    bits.data.strip_prefix(&[0])
}

pub(super) fn time_of(seconds: i64) -> Option<SystemTime> {
    u64::try_from(seconds).ok().and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
}
