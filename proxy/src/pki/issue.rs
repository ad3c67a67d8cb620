//! Issuing: a CA of ten years, certificates of one year, all ECDSA P-256.

use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData as _,
};
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    pem::{Pem, parse_x509_pem},
};
use zeroize::Zeroizing;

use super::{
    PkiError,
    files::{exists, read_secret, write_secret},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Longer than the life of a machine; replacing a CA means touching every client.
const CA_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
const LEAF_VALIDITY: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Time for an operator to notice that renewing fails.
const RENEW_WITHIN: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Clocks of clients may be behind.
const BACKDATED: Duration = Duration::from_secs(60 * 60);

/// The CA, with or without its key: an operator may keep the key elsewhere until a certificate is due.
pub(super) struct Authority {
    subject: String,
    key: Option<KeyPair>,
    key_path: PathBuf,
    now: Now,
}

impl Authority {
    pub(super) fn find_or_make(cert: &Path, key: &Path, now: Now) -> Result<Self, PkiError> {
        let pair = if exists(key)? { Some(read_key(key)?) } else { None };
        if exists(cert)? {
            let subject = with_certificate(cert, common_name)?;
            let fits = with_certificate(cert, |x509| match &pair {
                Some(pair) => x509.public_key().raw == pair.subject_public_key_info(),
                None => true,
            })?;
            if !fits {
                return Err(PkiError::Damaged {
                    path: cert.to_owned(),
                    why: "it does not fit `ca-key.pem`".to_owned(),
                });
            }
            return Ok(Self { subject, key: pair, key_path: key.to_owned(), now });
        }
        let pair = match pair {
            Some(pair) => pair,
            None => new_key(key, "the CA")?,
        };
        // A name of its own tells the CAs of several installations apart.
        let mut id = [0u8; 4];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| PkiError::Randomness)?;
        let subject = format!("Keygate CA {:08x}", u32::from_be_bytes(id));
        let mut params = named(&subject, CA_VALIDITY, now);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let made = params.self_signed(&pair).map_err(issue_error("the CA"))?;
        write_secret(cert, made.pem().as_bytes())?;
        Ok(Self { subject, key: Some(pair), key_path: key.to_owned(), now })
    }

    fn issuer(&self) -> Result<Issuer<'_, &KeyPair>, PkiError> {
        let key =
            self.key.as_ref().ok_or_else(|| PkiError::NoAuthorityKey { path: self.key_path.clone() })?;
        Ok(Issuer::new(named(&self.subject, CA_VALIDITY, self.now), key))
    }
}

pub(super) enum Purpose {
    Server { hosts: Vec<String> },
    Client { user: &'static str },
    SelfSigned { hosts: Vec<String>, years: u32 },
}

impl Purpose {
    fn name(&self) -> &'static str {
        match self {
            Self::Server { .. } => "the server",
            Self::Client { user } => user,
            Self::SelfSigned { .. } => "the server (--auto-tls)",
        }
    }

    fn hosts(&self) -> &[String] {
        match self {
            Self::Server { hosts } | Self::SelfSigned { hosts, .. } => hosts,
            Self::Client { .. } => &[],
        }
    }

    fn params(&self, now: Now) -> Result<CertificateParams, PkiError> {
        use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        let (subject, validity, usages) = match self {
            Self::Server { .. } => ("keygate", LEAF_VALIDITY, vec![ServerAuth]),
            Self::Client { user } => (*user, LEAF_VALIDITY, vec![ClientAuth]),
            Self::SelfSigned { years, .. } => {
                ("keygate", LEAF_VALIDITY * *years, vec![ServerAuth, ClientAuth])
            }
        };
        let named = named(subject, validity, now);
        let mut params = CertificateParams::new(self.hosts()).map_err(issue_error(self.name()))?;
        params.distinguished_name = named.distinguished_name;
        params.not_before = named.not_before;
        params.not_after = named.not_after;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        Ok(params)
    }
}

/// A certificate with its key.
pub(super) struct Leaf<'a> {
    pub cert: &'a Path,
    pub key: &'a Path,
    pub purpose: Purpose,
}

impl Leaf<'_> {
    pub(super) fn find_or_issue(&self, authority: &Authority) -> Result<(), PkiError> {
        if self.is_good(Some(&authority.subject), authority.now)? {
            return Ok(());
        }
        let issuer = authority.issuer()?;
        let mut params = self.purpose.params(authority.now)?;
        params.use_authority_key_identifier_extension = true;
        // A new key with each certificate: one that leaked is worthless after a year.
        let key = KeyPair::generate().map_err(issue_error(self.purpose.name()))?;
        let made = params.signed_by(&key, &issuer).map_err(issue_error(self.purpose.name()))?;
        self.write(&key, &made)
    }

    pub(super) fn find_or_self_sign(&self, now: Now) -> Result<(), PkiError> {
        if self.is_good(None, now)? {
            return Ok(());
        }
        let key = KeyPair::generate().map_err(issue_error(self.purpose.name()))?;
        let made = self.purpose.params(now)?.self_signed(&key).map_err(issue_error(self.purpose.name()))?;
        self.write(&key, &made)
    }

    /// Key first: a crash in between leaves a pair that does not fit, which the next start sees and replaces.
    fn write(&self, key: &KeyPair, certificate: &rcgen::Certificate) -> Result<(), PkiError> {
        write_secret(self.key, Zeroizing::new(key.serialize_pem()).as_bytes())?;
        write_secret(self.cert, certificate.pem().as_bytes())
    }

    fn is_good(&self, issuer: Option<&str>, now: Now) -> Result<bool, PkiError> {
        if !exists(self.cert)? || !exists(self.key)? {
            return Ok(false);
        }
        let key = read_key(self.key)?;
        with_certificate(self.cert, |x509| {
            let fits = x509.public_key().raw == key.subject_public_key_info();
            let ours = issuer.is_none_or(|issuer| first_name(x509.issuer()) == issuer);
            let until = u64::try_from(x509.validity().not_after.timestamp()).unwrap_or(0);
            let lasts = until > (now.0 + RENEW_WITHIN).as_secs();
            let covered = covered_hosts(x509);
            let covers = self.purpose.hosts().iter().all(|host| covered.contains(&canonical(host)));
            fits && ours && lasts && covers
        })
    }
}

fn named(common_name: &str, validity: Duration, now: Now) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = rcgen::date_time_ymd(1970, 1, 1) + now.0;
    params.not_before = now - BACKDATED;
    params.not_after = now + validity;
    params
}

/// When it is looked whether something is due, since 1970.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now(Duration);

impl From<SystemTime> for Now {
    /// A clock before 1970 counts as 1970, which makes every certificate due.
    fn from(now: SystemTime) -> Self {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        // Whole seconds, and short of the year 9999, at which dates in certificates end.
        Self(Duration::from_secs(now.as_secs().min(2_900_000 * DAY.as_secs())))
    }
}

fn issue_error(what: &str) -> impl FnOnce(rcgen::Error) -> PkiError {
    move |source| PkiError::Issue { what: what.to_owned(), source }
}

fn new_key(path: &Path, what: &str) -> Result<KeyPair, PkiError> {
    let key = KeyPair::generate().map_err(issue_error(what))?;
    write_secret(path, Zeroizing::new(key.serialize_pem()).as_bytes())?;
    Ok(key)
}

fn read_key(path: &Path) -> Result<KeyPair, PkiError> {
    let text = read_secret(path)?;
    KeyPair::from_pem(&text)
        .map_err(|_| PkiError::Damaged { path: path.to_owned(), why: "no private key in PEM".to_owned() })
}

/// Reads the certificate at `path` and asks something of it.
fn with_certificate<T>(path: &Path, ask: impl FnOnce(&X509Certificate<'_>) -> T) -> Result<T, PkiError> {
    let damaged = || PkiError::Damaged { path: path.to_owned(), why: "no certificate in PEM".to_owned() };
    let text =
        fs::read(path).map_err(|source| PkiError::Io { what: "read", path: path.to_owned(), source })?;
    let (_, pem): (_, Pem) = parse_x509_pem(&text).map_err(|_| damaged())?;
    let x509 = pem.parse_x509().map_err(|_| damaged())?;
    Ok(ask(&x509))
}

fn common_name(x509: &X509Certificate<'_>) -> String {
    first_name(x509.subject())
}

fn first_name(name: &x509_parser::x509::X509Name<'_>) -> String {
    name.iter_common_name().find_map(|part| part.as_str().ok()).unwrap_or_default().to_owned()
}

fn covered_hosts(x509: &X509Certificate<'_>) -> BTreeSet<String> {
    let Ok(Some(names)) = x509.subject_alternative_name() else { return BTreeSet::new() };
    names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(canonical(name)),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
                16 => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
                _ => None,
            },
            _ => None,
        })
        .collect()
}

fn canonical(host: &str) -> String {
    host.parse::<IpAddr>().map_or_else(|_| host.to_ascii_lowercase(), |ip| ip.to_string())
}
