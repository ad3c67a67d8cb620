//! No authority speaks for another's clients: none has a certificate of another, and none signed one of another.
//!
//! Whose a certificate is follows from who verified it. With an authority below another one, each
//! client of the lower would be a client of the upper, too. What stands in no file, such as a
//! certificate between the two, is found when a client shows it.

use std::collections::HashMap;

use rustls::crypto::WebPkiSupportedAlgorithms;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::authority::Authority;
use super::{TlsError, crl};

pub(super) fn refuse(
    authorities: &[Authority],
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<(), TlsError> {
    let mut all = Vec::new();
    for authority in authorities {
        for certificate in &authority.certificates {
            let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| {
                TlsError::BadAuthority { path: authority.ca.clone(), why: error.to_string() }
            })?;
            all.push((authority, parsed));
        }
    }
    let mut by_subject: HashMap<&[u8], Vec<(&Authority, &X509Certificate<'_>)>> = HashMap::new();
    for (authority, certificate) in &all {
        by_subject.entry(certificate.subject().as_raw()).or_default().push((authority, certificate));
    }
    let others = |name: &[u8], than: &Authority| {
        let found = by_subject.get(name).into_iter().flatten();
        found.filter(|(other, _)| other.name != than.name).copied().collect::<Vec<_>>()
    };
    // By the key, not by the name: who holds it signs under either.
    let mut by_key: HashMap<&[u8], &Authority> = HashMap::new();
    for (authority, certificate) in &all {
        let other = *by_key.entry(certificate.public_key().raw).or_insert(*authority);
        if other.name != authority.name {
            return Err(TlsError::SharedAuthority {
                first: authority.name.to_string(),
                second: other.name.to_string(),
            });
        }
    }
    for (authority, certificate) in &all {
        for (upper, theirs) in others(certificate.issuer().as_raw(), authority) {
            let key = &theirs.public_key().subject_public_key.data;
            let message = certificate.tbs_certificate.as_ref();
            if crl::is_signed(algorithms, key, message, &certificate.signature_value.data) {
                return Err(TlsError::NestedAuthority {
                    lower: authority.name.to_string(),
                    upper: upper.name.to_string(),
                });
            }
        }
    }
    Ok(())
}
