//! Which client certificate was refused. rustls tells why, and not which one it was: an operator who reads that some
//! certificate of a thousand has expired needs its name.
//!
//! A certificate is checked within one turn of its connection's task, which then gets rustls's error in the same turn. So
//! it is noted for the thread, and whoever has the error takes it.

use std::cell::RefCell;
use std::fmt;

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Nobody vouches for these texts. More of one is left out.
const LONGEST: usize = 256;

thread_local! {
    static LAST: RefCell<Option<RefusedCertificate>> = const { RefCell::new(None) };
}

/// What a refused certificate says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RefusedCertificate {
    subject: String,
    issuer: String,
    serial: String,
}

impl RefusedCertificate {
    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let shown = |text: String| text.escape_debug().take(LONGEST).collect();
        Some(Self {
            subject: shown(parsed.subject().to_string()),
            issuer: shown(parsed.issuer().to_string()),
            serial: shown(parsed.raw_serial_as_string()),
        })
    }
}

impl fmt::Display for RefusedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, issuer, serial } = self;
        write!(f, "`{subject}` of `{issuer}`, serial {serial}")
    }
}

pub(super) fn note(certificate: &CertificateDer<'_>) {
    LAST.set(RefusedCertificate::of(certificate));
}

/// The one that this error of a handshake is about. For the turn that the error came in.
pub fn refused_certificate(error: &std::io::Error) -> Option<RefusedCertificate> {
    let noted = LAST.take();
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::InvalidCertificate(_))).then_some(noted).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_says_who_it_is_and_what_is_none_says_nothing() {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("a\u{1b}[31m{}", "x".repeat(300)));
        params.serial_number = Some(vec![0x0a, 0xff].into());
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let refused = RefusedCertificate::of(made.der()).unwrap();
        assert!(refused.subject.starts_with("CN=a\\u{1b}[31mxxx"), "{refused}");
        assert_eq!((refused.subject.len(), refused.serial.as_str()), (LONGEST, "0a:ff"));
        assert_eq!(RefusedCertificate::of(&CertificateDer::from(b"no certificate".as_slice())), None);
    }

    #[test]
    fn other_errors_are_about_no_certificate() {
        let made = rcgen::generate_simple_self_signed(Vec::new()).unwrap();
        let invalid = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        for (error, told) in [(invalid.clone(), true), (rustls::Error::DecryptError, false), (invalid, true)]
        {
            note(made.cert.der());
            let error = std::io::Error::other(error);
            assert_eq!(refused_certificate(&error).is_some(), told, "{error}");
            assert_eq!(refused_certificate(&error), None, "it was taken");
        }
    }
}
