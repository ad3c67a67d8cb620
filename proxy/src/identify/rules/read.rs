//! From the text of a rules file to rules: all problems at once, each with its place.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keygate_core::{DEFAULT_TENANT, TenantName};
use serde::Deserialize;

use super::issuer::RawIssuer;
use super::pattern::{Pattern, Shape, Template};
use super::token::{ClaimPattern, TokenRule};
use super::{AuthoritySource, CertificateRule, Gives, PLATFORM, Platform, Rules, TenantOf};

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
    issuers: Vec<RawIssuer>,
    platform: Option<Platform>,
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
    authority: Option<String>,
    issuer: Option<String>,
    /// In the order of their names, so that problems are told in one order.
    #[serde(default)]
    claims: BTreeMap<String, String>,
    groups_claim: Option<String>,
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

    /// `folder` is where files are that the rules name. Problems come with their place.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, Vec<String>> {
        let raw: RawFile = serde_norway::from_str(text).map_err(|error| vec![error.to_string()])?;
        let mut reader = Reader::default();
        reader.authorities(raw.authorities, folder);
        reader.issuers(raw.issuers, folder);
        reader.rules.platform = raw.platform;
        if raw.rules.is_empty() && reader.problems.is_empty() {
            reader.problem("rules", "there are none; without rules the file names nobody");
        }
        for (index, rule) in raw.rules.into_iter().enumerate() {
            reader.rule(index, rule);
        }
        reader.unused();
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

    /// What no rule is about was forgotten, or its rules were cut off.
    fn unused(&mut self) {
        if !self.problems.is_empty() {
            return;
        }
        if self.rules.platform.is_some() && self.rules.has_rules_for(PLATFORM) {
            let why = "there are rules for `authority: platform`; leave out one of the two";
            self.problem("platform", why);
        }
        let with_rules: HashSet<_> = self.rules.pairs().map(|(authority, _)| authority).collect();
        let authorities = self.rules.authorities.iter().enumerate();
        let unused = authorities.filter(|(_, authority)| !with_rules.contains(authority.name.as_ref()));
        let unused: Vec<_> = unused.map(|(index, authority)| (index, authority.name.clone())).collect();
        for (index, name) in unused {
            let why = format!("no rule is about `{name}`: its certificates would name nobody");
            self.problem(&format!("authorities[{index}]"), why);
        }
    }

    fn issuers(&mut self, raw: Vec<RawIssuer>, folder: &Path) {
        for (index, raw) in raw.into_iter().enumerate() {
            let place = format!("issuers[{index}]");
            let tenant = raw.tenant.clone().and_then(|tenant| self.tenant(&place, &tenant));
            match raw.check(tenant, folder) {
                Err(problems) => problems.into_iter().for_each(|why| self.problem(&place, why)),
                Ok(issuer) => {
                    let mut others = self.rules.issuers.iter();
                    if others.any(|other| other.name == issuer.name || other.issuer == issuer.issuer) {
                        let why = format!("issuer `{}` (`{}`) is there twice", issuer.name, issuer.issuer);
                        self.problem(&place, why);
                    }
                    self.rules.issuers.push(issuer);
                }
            }
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
        match (&raw.authority, &raw.issuer) {
            (Some(authority), None) => {
                let authority = authority.as_str().into();
                self.certificate_rule(&place, raw, authority);
            }
            (None, Some(issuer)) => {
                let issuer = issuer.as_str().into();
                self.token_rule(&place, raw, issuer);
            }
            (Some(_), Some(_)) | (None, None) => {
                self.problem(
                    &place,
                    "give `authority`, for certificates, or `issuer`, for tokens; one of them",
                );
            }
        }
    }

    fn certificate_rule(&mut self, place: &str, raw: RawRule, authority: Arc<str>) {
        let before = self.problems.len();
        if !raw.claims.is_empty() || raw.groups_claim.is_some() {
            self.problem(place, "`claims` and `groups-claim` are about tokens; this rule has an `authority`");
        }
        let common_name = self.pattern(place, "common-name", raw.common_name.as_deref(), Shape::Other);
        let dns = raw.dns.as_deref().map(str::to_ascii_lowercase);
        let dns = self.pattern(place, "dns", dns.as_deref(), Shape::Host);
        let uri = self.pattern(place, "uri", raw.uri.as_deref(), Shape::Other);
        let patterns: Vec<&Pattern> = [&common_name, &dns, &uri].into_iter().flatten().collect();
        if patterns.is_empty() && before == self.problems.len() {
            self.problem(place, "it matches nothing: give `common-name`, `dns` or `uri`");
        }
        let tenant = self.tenant_of_rule(place, &raw);
        let Some(Made { name, gives }) = self.gives(place, &raw, &patterns, tenant) else { return };
        if before != self.problems.len() {
            return;
        }
        let rule = CertificateRule { name, authority, common_name, dns, uri, gives };
        if let Some(first) = self.rules.certificate_rules.iter().find(|first| first.asks_the_same(&rule)) {
            let why = matched_already(&first.name, &first.gives);
            self.problem(place, why);
            return;
        }
        self.rules.certificate_rules.push(rule);
    }

    fn token_rule(&mut self, place: &str, raw: RawRule, issuer: Arc<str>) {
        let before = self.problems.len();
        if raw.common_name.is_some() || raw.dns.is_some() || raw.uri.is_some() {
            self.problem(place, "names of certificates do not stand in tokens; this rule has an `issuer`");
        }
        let mut claims = Vec::new();
        for (claim, text) in &raw.claims {
            let field = format!("claims.{claim}");
            if let Some(pattern) = self.pattern(place, &field, Some(text), Shape::Other) {
                claims.push(ClaimPattern { claim: claim.clone(), pattern });
            }
        }
        if raw.claims.is_empty() {
            self.problem(place, "it matches every token: give `claims`");
        }
        let tenant = self.tenant_of_rule(place, &raw);
        let patterns: Vec<&Pattern> = claims.iter().map(|claim| &claim.pattern).collect();
        let Some(Made { name, gives }) = self.gives(place, &raw, &patterns, tenant) else { return };
        if before != self.problems.len() {
            return;
        }
        let groups_claim = raw.groups_claim;
        let rule = TokenRule { name, issuer, claims, gives, groups_claim };
        let mut others = self.rules.token_rules.iter();
        if let Some(first) = others.find(|first| first.issuer == rule.issuer && first.claims == rule.claims) {
            let why = matched_already(&first.name, &first.gives);
            self.problem(place, why);
            return;
        }
        self.rules.token_rules.push(rule);
    }

    /// None: something of it cannot be used, and was said.
    fn gives(
        &mut self,
        place: &str,
        raw: &RawRule,
        patterns: &[&Pattern],
        tenant: Option<TenantOf>,
    ) -> Option<Made> {
        let mut captured = BTreeSet::new();
        for hole in patterns.iter().flat_map(|pattern| pattern.names()) {
            if !captured.insert(hole.to_owned()) {
                self.problems.push(format!("{place}: `{{{hole}}}` is captured twice"));
            }
        }
        let user = self.template(place, "user", &raw.user, &captured);
        let groups = raw.groups.iter().enumerate();
        let groups = groups
            .filter_map(|(at, group)| self.template(place, &format!("groups[{at}]"), group, &captured))
            .collect();
        let name = raw.name.as_deref().unwrap_or(place).into();
        Some(Made { name, gives: Gives { tenant: tenant?, user: user?, groups } })
    }

    fn tenant_of_rule(&mut self, place: &str, raw: &RawRule) -> Option<TenantOf> {
        let own = match &raw.tenant {
            Some(tenant) => Some(self.tenant(place, tenant)?),
            None => None,
        };
        let (kind, name, known) = self.source_of_rule(raw);
        let theirs = match known {
            Ok(theirs) => theirs,
            Err(known) => {
                let why = format!("no {kind} `{name}`; there are {known}");
                self.problem(&format!("{place}.{kind}"), why);
                return None;
            }
        };
        match (own, theirs) {
            (Some(own), Some(theirs)) if own != theirs => {
                let why = format!(
                    "it could match two tenants: `{}` here, and what {kind} `{name}` signs is of tenant `{}`",
                    own.name(),
                    theirs.name()
                );
                self.problem(place, why);
                None
            }
            (Some(tenant), _) | (None, Some(tenant)) => Some(tenant),
            (None, None) => {
                let why = format!(
                    "which tenant is meant? give `tenant` here or at the {kind}; `default` is the platform's own"
                );
                self.problem(place, why);
                None
            }
        }
    }

    /// What a rule is about: its kind, its name, and the tenant it has; or those that there are.
    fn source_of_rule(&self, raw: &RawRule) -> (&'static str, String, Result<Option<TenantOf>, String>) {
        let listed = |names: Vec<String>| names.join(", ");
        if let Some(name) = &raw.issuer {
            let known = self.rules.issuers.iter().find(|issuer| issuer.name.as_ref() == name);
            let all =
                || listed(self.rules.issuers.iter().map(|issuer| format!("`{}`", issuer.name)).collect());
            return ("issuer", name.clone(), known.map(|issuer| issuer.tenant.clone()).ok_or_else(all));
        }
        let name = raw.authority.clone().unwrap_or_default();
        if name == PLATFORM {
            return ("authority", name, Ok(None));
        }
        let known = self.rules.authorities.iter().find(|authority| authority.name.as_ref() == name);
        let all = || {
            let own = self.rules.authorities.iter().map(|authority| format!("`{}`", authority.name));
            listed(own.chain([format!("`{PLATFORM}`")]).collect())
        };
        ("authority", name, known.map(|authority| authority.tenant.clone()).ok_or_else(all))
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

/// What a rule makes of what it matches.
struct Made {
    name: Arc<str>,
    gives: Gives,
}

fn matched_already(first: &str, gives: &Gives) -> String {
    format!(
        "it matches what rule `{first}` matches, which gives tenant `{}`; one of them must go",
        gives.tenant.name()
    )
}

impl CertificateRule {
    fn asks_the_same(&self, other: &Self) -> bool {
        self.authority == other.authority
            && self.common_name == other.common_name
            && self.dns == other.dns
            && self.uri == other.uri
    }
}
