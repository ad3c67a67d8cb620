//! From the text of a rules file to rules: all problems at once, each with its place.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keygate_core::{DEFAULT_TENANT, TenantName};
use serde::Deserialize;

use super::pattern::{Pattern, Shape, Template};
use super::{AuthoritySource, CertificateRule, Gives, PLATFORM, Rules, TenantOf};

/// Why a rules file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    #[error("cannot read the identity rules `{}`: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("identity rules `{}` cannot be used: {}", path.display(), problems.join("; "))]
    Unusable { path: PathBuf, problems: Vec<String> },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawFile {
    #[serde(default)]
    authorities: Vec<RawAuthority>,
    #[serde(default)]
    rules: Vec<RawRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawAuthority {
    name: String,
    ca_file: PathBuf,
    crl_file: Option<PathBuf>,
    tenant: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawRule {
    name: Option<String>,
    authority: String,
    common_name: Option<String>,
    dns: Option<String>,
    uri: Option<String>,
    tenant: Option<String>,
    user: String,
    #[serde(default)]
    groups: Vec<String>,
}

impl Rules {
    /// Files that it names are relative to its own folder.
    pub fn read(path: &Path) -> Result<Self, RulesError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| RulesError::Read { path: path.to_owned(), source })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, folder)
            .map_err(|problems| RulesError::Unusable { path: path.to_owned(), problems })
    }

    pub(super) fn parse(text: &str, folder: &Path) -> Result<Self, Vec<String>> {
        let raw: RawFile = serde_norway::from_str(text).map_err(|error| vec![error.to_string()])?;
        let mut reader = Reader::default();
        reader.authorities(raw.authorities, folder);
        for (index, rule) in raw.rules.into_iter().enumerate() {
            reader.rule(index, rule);
        }
        if reader.problems.is_empty() { Ok(reader.rules) } else { Err(reader.problems) }
    }
}

#[derive(Default)]
struct Reader {
    rules: Rules,
    problems: Vec<String>,
}

impl Reader {
    fn problem(&mut self, place: &str, why: impl std::fmt::Display) {
        self.problems.push(format!("{place}: {why}"));
    }

    fn authorities(&mut self, raw: Vec<RawAuthority>, folder: &Path) {
        for (index, RawAuthority { name, ca_file, crl_file, tenant }) in raw.into_iter().enumerate() {
            let place = format!("authorities[{index}]");
            if name == PLATFORM {
                self.problem(&place, "`platform` is the authority of --trusted-ca-file; take another name");
            } else if name.is_empty() {
                self.problem(&place, "a name is needed");
            } else if self.rules.authorities.iter().any(|other| other.name.as_ref() == name) {
                self.problem(&place, format!("authority `{name}` is there twice"));
            }
            let tenant = tenant.and_then(|tenant| self.tenant(&place, &tenant));
            let (ca, crl) = (folder.join(ca_file), crl_file.map(|file| folder.join(file)));
            self.rules.authorities.push(AuthoritySource { name: name.into(), ca, crl, tenant });
        }
    }

    fn tenant(&mut self, place: &str, name: &str) -> Option<TenantOf> {
        if name == DEFAULT_TENANT {
            return Some(TenantOf::Default);
        }
        if name.contains(['{', '}']) {
            let why = "a tenant is written out: a name in a certificate must not choose between two";
            self.problem(&format!("{place}.tenant"), why);
            return None;
        }
        let parsed = TenantName::parse(name).map(|name| TenantOf::Named(name.as_str().into()));
        if parsed.is_none() {
            let why = format!("`{name}` is no tenant's name: lowercase letters, digits and `-`, at most 63");
            self.problem(&format!("{place}.tenant"), why);
        }
        parsed
    }

    fn rule(&mut self, index: usize, raw: RawRule) {
        let place = format!("rules[{index}]");
        let before = self.problems.len();
        let name: Arc<str> = raw.name.clone().unwrap_or_else(|| place.clone()).into();
        let common_name = self.pattern(&place, "common-name", raw.common_name.as_deref(), Shape::Other);
        let dns = raw.dns.as_deref().map(str::to_ascii_lowercase);
        let dns = self.pattern(&place, "dns", dns.as_deref(), Shape::Host);
        let uri = self.pattern(&place, "uri", raw.uri.as_deref(), Shape::Other);
        let patterns: Vec<&Pattern> = [&common_name, &dns, &uri].into_iter().flatten().collect();
        if patterns.is_empty() && before == self.problems.len() {
            self.problem(&place, "it matches nothing: give `common-name`, `dns` or `uri`");
        }
        let mut captured = BTreeSet::new();
        for hole in patterns.iter().flat_map(|pattern| pattern.names()) {
            if !captured.insert(hole.to_owned()) {
                self.problems.push(format!("{place}: `{{{hole}}}` is captured twice"));
            }
        }
        let tenant = self.tenant_of_rule(&place, &raw);
        let user = self.template(&place, "user", &raw.user, &captured);
        let groups = raw.groups.iter().enumerate();
        let groups: Vec<_> = groups
            .filter_map(|(at, group)| self.template(&place, &format!("groups[{at}]"), group, &captured))
            .collect();
        let (Some(tenant), Some(user)) = (tenant, user) else { return };
        if before != self.problems.len() {
            return;
        }
        let gives = Gives { tenant, user, groups };
        let authority = raw.authority.into();
        let rule = CertificateRule { name, authority, common_name, dns, uri, gives };
        if let Some(first) = self.rules.certificate_rules.iter().find(|first| first.asks_the_same(&rule)) {
            let why = format!(
                "it matches what rule `{}` matches, which gives tenant `{}`; one of them must go",
                first.name,
                first.gives.tenant.name()
            );
            self.problem(&place, why);
            return;
        }
        self.rules.certificate_rules.push(rule);
    }

    fn tenant_of_rule(&mut self, place: &str, raw: &RawRule) -> Option<TenantOf> {
        let own = match &raw.tenant {
            Some(tenant) => Some(self.tenant(place, tenant)?),
            None => None,
        };
        let known = self.rules.authorities.iter().find(|known| known.name.as_ref() == raw.authority);
        let theirs = match known {
            Some(known) => known.tenant.clone(),
            None if raw.authority == PLATFORM => None,
            None => {
                let mut names: Vec<_> =
                    self.rules.authorities.iter().map(|known| format!("`{}`", known.name)).collect();
                names.push(format!("`{PLATFORM}`"));
                let why = format!("no authority `{}`; there are {}", raw.authority, names.join(", "));
                self.problem(&format!("{place}.authority"), why);
                return None;
            }
        };
        match (own, theirs) {
            (Some(own), Some(theirs)) if own != theirs => {
                let why = format!(
                    "it could match two tenants: `{}` here, and certificates of authority `{}` are of tenant `{}`",
                    own.name(),
                    raw.authority,
                    theirs.name()
                );
                self.problem(place, why);
                None
            }
            (Some(tenant), _) | (None, Some(tenant)) => Some(tenant),
            (None, None) => {
                let why = "which tenant is meant? give `tenant` here or at the authority; `default` is the platform's own";
                self.problem(place, why);
                None
            }
        }
    }

    fn pattern(&mut self, place: &str, field: &str, text: Option<&str>, shape: Shape) -> Option<Pattern> {
        match Pattern::parse(text?, shape) {
            Ok(pattern) => Some(pattern),
            Err(why) => {
                self.problem(&format!("{place}.{field}"), why);
                None
            }
        }
    }

    fn template(
        &mut self,
        place: &str,
        field: &str,
        text: &str,
        captured: &BTreeSet<String>,
    ) -> Option<Template> {
        let template = Template::parse(text).and_then(|template| {
            let missing = template.names().find(|name| !captured.contains(*name)).map(str::to_owned);
            match missing {
                Some(name) => Err(format!("`{{{name}}}` is captured nowhere in this rule")),
                None => Ok(template),
            }
        });
        match template {
            Ok(template) => Some(template),
            Err(why) => {
                self.problem(&format!("{place}.{field}"), why);
                None
            }
        }
    }
}

impl CertificateRule {
    fn asks_the_same(&self, other: &Self) -> bool {
        self.authority == other.authority
            && self.common_name == other.common_name
            && self.dns == other.dns
            && self.uri == other.uri
    }
}
