//! Who is whom: ordered rules from what a certificate or token says to tenant, user and groups.
//!
//! An identity is a pair of authority (or issuer) and name: each rule is about one of these, so that no name
//! means anything in the mouth of another. A rule gives one tenant, written out; no name decides
//! about it. The first rule that matches counts, and where no rule matches, nobody is meant.

mod certificate;
mod issuer;
mod pattern;
mod read;
mod token;

use std::path::PathBuf;
use std::sync::Arc;

use keygate_core::Groups;

use pattern::{Captures, Pattern, Template};
use token::TokenRule;

use super::issuers::Location;

pub use certificate::CertificateNames;
pub use issuer::{IssuerSource, KeysFrom};
pub use read::RulesError;

/// The authority of `--trusted-ca-file`, or the one that Keygate made.
pub const PLATFORM: &str = "platform";

/// A file of rules, read and checked.
#[derive(Debug, Default)]
pub struct Rules {
    pub authorities: Vec<AuthoritySource>,
    pub issuers: Vec<IssuerSource>,
    /// What the file says in one word, instead of rules.
    platform: Option<Platform>,
    certificate_rules: Vec<CertificateRule>,
    token_rules: Vec<TokenRule>,
}

/// Whom certificates of the platform's authority name, without rules of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Platform {
    CommonNames,
    Nobody,
}

/// An authority that the file adds to the platform's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthoritySource {
    pub name: Arc<str>,
    pub ca: PathBuf,
    pub crl: Option<PathBuf>,
    /// Its certificates are of this tenant and of no other.
    pub tenant: Option<TenantOf>,
}

/// Which tenant a rule gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TenantOf {
    /// The platform's own keyspace, for which people say `default`.
    Default,
    Named(Arc<str>),
}

impl TenantOf {
    pub fn name(&self) -> &str {
        match self {
            Self::Default => keygate_core::DEFAULT_TENANT,
            Self::Named(name) => name,
        }
    }
}

#[derive(Debug)]
struct CertificateRule {
    /// As the operator named it, or its place.
    name: Arc<str>,
    authority: Arc<str>,
    common_name: Option<Pattern>,
    dns: Option<Pattern>,
    uri: Option<Pattern>,
    gives: Gives,
}

/// What a rule makes of a name.
#[derive(Debug)]
struct Gives {
    tenant: TenantOf,
    user: Template,
    groups: Vec<Template>,
}

/// Whom a certificate or token names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named {
    pub tenant: TenantOf,
    pub user: Arc<str>,
    pub groups: Groups,
}

/// A name, and the rule that gave it; none for a common name taken as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Match {
    pub named: Named,
    pub rule: Option<Arc<str>>,
}

/// Why nobody is meant.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unnamed {
    #[error("the certificate has no common name, or several")]
    NoCommonName,
    #[error("the certificate has `{0}` URI names; an identity is exactly one")]
    SeveralUris(usize),
    #[error("no rule for authority `{authority}` matches")]
    NoRule { authority: Arc<str> },
    #[error("no rule for issuer `{issuer}` matches")]
    NoTokenRule { issuer: Arc<str> },
    #[error("rule `{rule}` makes the name `root` of a pattern; give root a rule of its own")]
    RootByPattern { rule: Arc<str> },
    #[error("the certificate is of several authorities: {0}")]
    SeveralAuthorities(String),
    #[error("no authority of this host accepts the certificate any more")]
    NoAuthority,
    #[error("the certificate cannot be read")]
    Unreadable,
}

impl Rules {
    /// The common names of the platform's certificates are users.
    pub fn without_file() -> Self {
        Self { platform: Some(Platform::CommonNames), ..Self::default() }
    }

    /// Whether certificates of this authority are given names by rules; else its common names are users.
    fn maps(&self, authority: &str) -> bool {
        authority != PLATFORM || self.platform != Some(Platform::CommonNames)
    }

    /// Whether the file says whom the platform's certificates name. What a file that was cut off does
    /// not say must not be taken for an answer.
    pub fn says_of_platform(&self) -> bool {
        self.platform.is_some() || self.has_rules_for(PLATFORM)
    }

    fn has_rules_for(&self, authority: &str) -> bool {
        self.certificate_rules.iter().any(|rule| rule.authority.as_ref() == authority)
    }

    /// Where issuers publish their keys.
    pub fn locations(&self) -> impl Iterator<Item = &Location> {
        self.issuers.iter().filter_map(|issuer| match &issuer.keys {
            KeysFrom::Url(location) => Some(location),
            KeysFrom::File { .. } => None,
        })
    }

    /// Every file that the rules name.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let authorities = self.authorities.iter().flat_map(|one| [Some(&one.ca), one.crl.as_ref()]).flatten();
        let keys = self.issuers.iter().filter_map(|issuer| match &issuer.keys {
            KeysFrom::File { path, .. } => Some(path),
            KeysFrom::Url(_) => None,
        });
        authorities.chain(keys)
    }

    /// Authorities, and the tenants that rules give their certificates.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.certificate_rules.iter().map(|rule| (rule.authority.as_ref(), rule.gives.tenant.name()))
    }

    pub fn certificate(&self, authority: &Arc<str>, names: &CertificateNames) -> Result<Match, Unnamed> {
        if !self.maps(authority) {
            let user = names.common_name.clone().ok_or(Unnamed::NoCommonName)?;
            let named = Named { tenant: TenantOf::Default, user, groups: Groups::NONE };
            return Ok(Match { named, rule: None });
        }
        if names.uris.len() > 1 {
            return Err(Unnamed::SeveralUris(names.uris.len()));
        }
        for rule in self.certificate_rules.iter().filter(|rule| rule.authority == *authority) {
            let mut captures = Captures::new();
            if rule.matches(names, &mut captures) {
                return rule.gives.to(&captures, &rule.name, Vec::new());
            }
        }
        Err(Unnamed::NoRule { authority: authority.clone() })
    }
}

impl CertificateRule {
    fn matches(&self, names: &CertificateNames, captures: &mut Captures) -> bool {
        let mut fits = |pattern: &Option<Pattern>, texts: &[String]| match pattern {
            None => true,
            Some(pattern) => texts.iter().any(|text| pattern.capture(text, captures)),
        };
        let common_name: Vec<String> = names.common_name.iter().map(ToString::to_string).collect();
        fits(&self.common_name, &common_name) && fits(&self.dns, &names.dns) && fits(&self.uri, &names.uris)
    }
}

impl Gives {
    /// `more` are groups besides those that the rule makes.
    fn to(&self, captures: &Captures, rule: &Arc<str>, more: Vec<Arc<str>>) -> Result<Match, Unnamed> {
        let user = self.user.fill(captures);
        if user == keygate_core::ROOT && self.user.constant().is_none() {
            return Err(Unnamed::RootByPattern { rule: rule.clone() });
        }
        let groups = self.groups.iter().map(|group| Arc::from(group.fill(captures))).chain(more).collect();
        let named = Named { tenant: self.tenant.clone(), user: user.into(), groups };
        Ok(Match { named, rule: Some(rule.clone()) })
    }
}

#[cfg(test)]
mod tests;
