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
use x509_parser::oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use super::TlsError;

/// What begins a list in a PEM file.
const PEM_LABEL: &[u8] = b"-----BEGIN X509 CRL-----";
/// What some editors put before everything else.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One authority's list.
#[derive(Clone, Debug)]
pub(super) struct RevocationList {
    pub(super) der: CertificateRevocationListDer<'static>,
    /// As people read it.
    pub(super) issuer: String,
    scope: Scope,
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
    let mut lists: Vec<RevocationList> = Vec::new();
    for (index, der) in split(&bytes).map_err(bad)?.into_iter().enumerate() {
        let list = parse(der, roots, algorithms).map_err(|why| bad(format!("list {}: {why}", index + 1)))?;
        if lists.iter().any(|other| other.der == list.der) {
            continue;
        }
        // The TLS library asks the first that it finds, be it older or by an earlier key.
        if let Some(other) = lists.iter().position(|other| other.scope.overlaps(&list.scope)) {
            return Err(bad(format!(
                "lists {} and {} are both of `{}`: leave the newest",
                other + 1,
                index + 1,
                list.issuer
            )));
        }
        lists.push(list);
    }
    Ok(lists)
}

/// The lists of a file: never none, because that would mean that nothing is revoked.
fn split(bytes: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let labels = bytes.windows(PEM_LABEL.len()).filter(|part| *part == PEM_LABEL).count();
    if labels == 0 {
        return Ok(vec![CertificateRevocationListDer::from(bytes.to_vec())]);
    }
    let lists = CertificateRevocationListDer::pem_slice_iter(bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("it is damaged PEM: {error:?}"))?;
    if lists.len() != labels {
        return Err(format!(
            "it is damaged PEM: {labels} lists begin, {} can be read; `-----BEGIN` and `-----END` stand at the start of a line",
            lists.len()
        ));
    }
    Ok(lists)
}

/// For what certificates a list is.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Scope {
    issuer: Vec<u8>,
    /// Contents of the extension that limits it. None: all of the issuer's.
    part: Option<Vec<u8>>,
}

impl Scope {
    fn overlaps(&self, other: &Self) -> bool {
        self.issuer == other.issuer
            && (self.part.is_none() || other.part.is_none() || self.part == other.part)
    }
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
        is_signed(algorithms, key, list.tbs_cert_list.as_ref(), &list.signature_value.data)
    };
    // That of an intermediate authority is checked when a chain through it is.
    if signers.peek().is_some() && !signers.any(is_signed_by) {
        return Err(format!("it is not signed by the authority `{issuer}` that it names"));
    }
    let next_update = list.next_update().and_then(|time| time_of(time.timestamp()));
    let part =
        list.extensions().iter().find(|extension| extension.oid == OID_X509_EXT_ISSUER_DISTRIBUTION_POINT);
    let part = part.map(|extension| extension.value.to_vec());
    let scope = Scope { issuer: list.issuer().as_raw().to_vec(), part };
    Ok(RevocationList { issuer, scope, next_update, der })
}

/// By whatever algorithm the key is for.
pub(super) fn is_signed(
    algorithms: &WebPkiSupportedAlgorithms,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    algorithms.all.iter().any(|algorithm| algorithm.verify_signature(key, message, signature).is_ok())
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
