//! Which authorities a client's certificate may be of, and whom it names.
//!
//! Who asks for a host of a tenant is checked against that tenant's authorities alone, where it has
//! some; who asks for no tenant's host, against all. Each authority is asked for itself: whose
//! certificate it is does not follow from a name in it, but from who verified it.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::authority::{Authority, Revocation, Unlisted, Verdict};
use super::dates::Dated;
use super::{ClientCertificates, TlsError, TlsSources, kinship, refused};
use crate::identify::Lapse;
use crate::identify::rules::{CertificateNames, Match, PLATFORM, Rules, TenantOf, Unnamed};

/// Instead of a tenant's name, of which none has a dot: a listener that is the operators' alone, or the host of a
/// tenant without authorities. Only the platform's certificates are accepted there.
pub const PLATFORM_ONLY: &str = ".";

/// Names of authorities that a client is told, in bytes. A handshake message has room for 64 KiB.
const MAX_HINTS: usize = 16 << 10;

pub struct Trust {
    rules: Rules,
    /// The platform's first, if there is one.
    authorities: Vec<Authority>,
    /// Which of them rules give to tenants.
    of_tenants: HashMap<String, Vec<usize>>,
    required: bool,
}

/// What a certificate that was verified comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certified {
    pub authority: Arc<str>,
    pub whom: Result<Match, Unnamed>,
}

impl Trust {
    pub(super) fn load(sources: &TlsSources, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let (platform, required) = match &sources.client_certificates {
            ClientCertificates::Ignored => (None, false),
            ClientCertificates::Optional { ca } => (Some(ca), false),
            ClientCertificates::Required { ca } => (Some(ca), true),
        };
        Self::read(
            platform.map(|ca| (ca.as_path(), sources.revocation.as_ref())),
            sources.identity_rules.as_deref(),
            required,
            provider,
        )
    }

    pub(super) fn read(
        platform: Option<(&Path, Option<&Revocation>)>,
        rules: Option<&Path>,
        required: bool,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let file = rules;
        let rules = file.map(Rules::read).transpose()?.unwrap_or_else(Rules::without_file);
        if let (Some(file), Some(_)) = (file, platform)
            && !rules.says_of_platform()
        {
            return Err(TlsError::PlatformUnsaid { path: file.to_owned() });
        }
        let mut authorities = Vec::new();
        if let Some((ca, revocation)) = platform {
            authorities.push(Authority::load(PLATFORM.into(), ca, revocation.cloned(), provider)?);
        }
        for source in &rules.authorities {
            let revocation = source.crl.clone().map(|path| Revocation { path, unlisted: Unlisted::Refused });
            authorities.push(Authority::load(source.name.clone(), &source.ca, revocation, provider)?);
        }
        kinship::refuse(&authorities, &provider.signature_verification_algorithms)?;
        let indices: HashMap<_, _> =
            authorities.iter().enumerate().map(|(index, one)| (one.name.as_ref(), index)).collect();
        let mut of_tenants: HashMap<String, Vec<usize>> = HashMap::new();
        for (authority, tenant) in rules.pairs().filter(|(_, tenant)| *tenant != keygate_core::DEFAULT_TENANT)
        {
            let own = of_tenants.entry(tenant.to_owned()).or_default();
            if let Some(index) = indices.get(authority).filter(|index| !own.contains(index)) {
                own.push(*index);
            }
        }
        Ok(Self { rules, authorities, of_tenants, required })
    }

    /// Tenants that have authorities.
    pub(super) fn tenants(&self) -> impl Iterator<Item = &str> {
        self.of_tenants.keys().map(String::as_str)
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    pub fn dates(&self) -> impl Iterator<Item = &Dated> {
        self.authorities.iter().flat_map(|authority| &authority.dates)
    }

    /// None: no certificate is asked for.
    ///
    /// Names of authorities are told at a host of the tenant whose they are, and nowhere else: they
    /// would tell strangers which tenants there are.
    pub(super) fn verifier(&self, tenant: Option<&str>) -> Option<Arc<dyn ClientCertVerifier>> {
        let members: Vec<_> =
            self.of(tenant).into_iter().map(|authority| authority.newcomers.clone()).collect();
        let mut hints: Vec<DistinguishedName> = Vec::new();
        if tenant.is_some_and(|tenant| tenant != PLATFORM_ONLY) {
            hints.extend(members.iter().flat_map(|member| member.root_hint_subjects().to_vec()));
        }
        // Two bytes of length before each. None at all means any.
        if hints.iter().map(|name| name.as_ref().len() + 2).sum::<usize>() > MAX_HINTS {
            hints.clear();
        }
        let any = AnyOf { members, hints, required: self.required };
        (!any.members.is_empty()).then(|| Arc::new(any) as Arc<dyn ClientCertVerifier>)
    }

    /// Whose certificates may be shown at a host of `tenant`, or at one that is nobody's in particular.
    fn of(&self, tenant: Option<&str>) -> Vec<&Authority> {
        match tenant {
            None => self.authorities.iter().collect(),
            Some(tenant) => match self.of_tenants.get(tenant) {
                Some(own) => own.iter().filter_map(|index| self.authorities.get(*index)).collect(),
                // Without authorities of its own: the platform's, who are nobody there.
                None => self.authorities.iter().filter(|one| one.name.as_ref() == PLATFORM).collect(),
            },
        }
    }

    /// Whom a chain names that a handshake at this host has just accepted.
    ///
    /// All authorities are asked, those of other hosts too: a chain that one of them says something
    /// against, or that two could speak for, is nobody's.
    pub fn certify(&self, chain: &[CertificateDer<'_>], tenant: Option<&str>, now: SystemTime) -> Certified {
        if let [only] = self.authorities.as_slice() {
            // The handshake has asked it.
            return self.name(only, chain);
        }
        let mut holding = Vec::new();
        let mut against = Vec::new();
        for authority in &self.authorities {
            match authority.judge(chain, now) {
                Verdict::Holds => holding.push(authority),
                Verdict::Fails(why) => against.push(format!("`{}` ({why})", authority.name)),
                Verdict::Foreign if authority.lends_its_key_to(chain) => against.push(by_key_of(authority)),
                Verdict::Foreign => {}
            }
        }
        self.decide(&holding, against, chain, tenant)
    }

    /// The same for one that was accepted some time ago.
    pub fn certify_standing(
        &self,
        chain: &[CertificateDer<'_>],
        tenant: Option<&str>,
        now: SystemTime,
    ) -> Result<Certified, Lapse> {
        let mut lapse = Lapse::Untrusted;
        let mut holding = Vec::new();
        let mut against = Vec::new();
        for authority in &self.authorities {
            match authority.judge_standing(chain, now) {
                Verdict::Holds => holding.push(authority),
                // By a certificate of the chain that another authority may not need.
                Verdict::Fails(Lapse::Expired) => lapse = Lapse::Expired,
                Verdict::Fails(why) => return Err(why),
                Verdict::Foreign if authority.lends_its_key_to(chain) => against.push(by_key_of(authority)),
                Verdict::Foreign => {}
            }
        }
        if !holding.iter().any(|authority| self.is_asked_at(authority, tenant)) {
            return Err(lapse);
        }
        Ok(self.decide(&holding, against, chain, tenant))
    }

    fn is_asked_at(&self, authority: &Authority, tenant: Option<&str>) -> bool {
        self.of(tenant).iter().any(|asked| asked.name == authority.name)
    }

    fn decide(
        &self,
        holding: &[&Authority],
        against: Vec<String>,
        chain: &[CertificateDer<'_>],
        tenant: Option<&str>,
    ) -> Certified {
        let whom = match holding {
            [authority] if against.is_empty() && self.is_asked_at(authority, tenant) => {
                return self.name(authority, chain);
            }
            [_] if against.is_empty() => Unnamed::NoAuthority,
            [] => Unnamed::NoAuthority,
            _ => {
                let names = holding.iter().map(|authority| format!("`{}`", authority.name));
                let names: Vec<_> = names.chain(against).collect();
                Unnamed::SeveralAuthorities(names.join(", "))
            }
        };
        Certified { authority: "".into(), whom: Err(whom) }
    }

    fn name(&self, authority: &Authority, chain: &[CertificateDer<'_>]) -> Certified {
        let names = chain.first().and_then(CertificateNames::read).ok_or(Unnamed::Unreadable);
        let whom = names.and_then(|names| self.rules.certificate(&authority.name, &names));
        Certified { authority: authority.name.clone(), whom }
    }

    /// Why no authority at this host accepts a chain.
    pub fn admits(
        &self,
        chain: &[CertificateDer<'_>],
        tenant: Option<&str>,
        now: SystemTime,
    ) -> Result<(), Error> {
        first_that_accepts(self.of(tenant).into_iter().map(|authority| authority.admits(chain, now)))
    }
}

impl Certified {
    /// Whether it comes to the same person of the same authority, by whatever rule.
    pub fn is_same_as(&self, other: &Self) -> bool {
        let named = |whom: &Self| whom.whom.as_ref().ok().map(|found| found.named.clone());
        self.authority == other.authority
            && named(self) == named(other)
            && self.is_rejected() == other.is_rejected()
    }

    /// Whether rules were asked and gave no name; a common name that is missing is no such thing.
    pub fn is_rejected(&self) -> bool {
        self.whom.as_ref().is_err_and(|why| *why != Unnamed::NoCommonName)
    }

    pub fn tenant(&self) -> Option<&TenantOf> {
        self.whom.as_ref().ok().map(|found| &found.named.tenant)
    }
}

fn by_key_of(authority: &Authority) -> String {
    format!("`{}` (whose key it carries under another name)", authority.name)
}

/// What is known against a certificate is told rather than that others do not know it.
fn first_that_accepts(asked: impl Iterator<Item = Result<(), Error>>) -> Result<(), Error> {
    let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
    let mut why = unknown.clone();
    for answer in asked {
        match answer {
            Ok(()) => return Ok(()),
            Err(error) if error != unknown => why = error,
            Err(_) => {}
        }
    }
    Err(why)
}

/// Accepts what one of several authorities accepts.
struct AnyOf {
    members: Vec<Arc<dyn ClientCertVerifier>>,
    hints: Vec<DistinguishedName>,
    required: bool,
}

impl fmt::Debug for AnyOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyOf").field("members", &self.members.len()).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for AnyOf {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let ask = |member: &Arc<dyn ClientCertVerifier>| {
            member.verify_client_cert(end_entity, intermediates, now).map(drop)
        };
        first_that_accepts(self.members.iter().map(ask))
            .map(|()| ClientCertVerified::assertion())
            .inspect_err(|_| refused::note(end_entity))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let first = self.members.first().ok_or(Error::General("no authority".to_owned()))?;
        first.verify_tls12_signature(message, cert, dss).inspect_err(|_| refused::note(cert))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let first = self.members.first().ok_or(Error::General("no authority".to_owned()))?;
        first.verify_tls13_signature(message, cert, dss).inspect_err(|_| refused::note(cert))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.members.first().map(|first| first.supported_verify_schemes()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
