//! `keygate identity explain`: whom a certificate or token names, by the rules of a server, without one.
//!
//! Exit codes: 0 somebody, 1 nobody, 2 nothing could be said.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Output, UNUSABLE, say};
use crate::identify::issuers;
use crate::identify::rules::{CertificateNames, KeysFrom, Match, Rules};
use crate::tls::{self, Certified, Trust, TrustSources};

/// Nobody is meant.
const NOBODY: u8 = 1;

#[derive(Debug, Subcommand)]
pub(super) enum IdentityCommand {
    /// Say which authority or issuer and which rule decide about a certificate or token, and what they make of it
    Explain {
        #[command(flatten)]
        question: Question,
    },
}

#[derive(Debug, Args)]
pub(super) struct Question {
    /// A client's certificate in PEM, its own first, or a token (JWT), or a file that has it
    #[arg(value_name = "CERT|TOKEN")]
    subject: String,
    /// The configuration of a server
    #[arg(long, value_name = "FILE", required_unless_present_any = ["rules", "ca_file"])]
    config_file: Option<PathBuf>,
    /// Whose rules to read the configuration by
    #[arg(long, value_enum, default_value_t = super::Rules::Keygate)]
    mode: super::Rules,
    /// Identity rules, instead of those that the configuration names
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// The platform's authority, instead of the one that the configuration names
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// As at a host of this tenant; without it as at a host that is nobody's
    #[arg(long, value_name = "TENANT")]
    at: Option<String>,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(super) fn run(command: IdentityCommand) -> ExitCode {
    let IdentityCommand::Explain { question } = command;
    match explain(&question) {
        Ok(code) => code,
        Err(message) => {
            match question.output {
                Output::Text => eprintln!("keygate: {message}"),
                Output::Json => say(&format!("{:#}\n", json!({ "ok": false, "error": message }))),
            }
            ExitCode::from(UNUSABLE)
        }
    }
}

fn explain(question: &Question) -> Result<ExitCode, String> {
    let subject = Subject::of(&question.subject)?;
    let trust = tls::load_trust(&sources(question)?).map_err(|error| error.to_string())?;
    let found = match subject {
        Subject::Certificate(chain) => Found::of(&trust, &chain, question.at.as_deref()),
        Subject::Token(token) => Found::of_token(trust.rules(), &token, question.at.as_deref())?,
    };
    match question.output {
        Output::Text => say(&found.text()),
        Output::Json => say(&format!("{:#}\n", found.json())),
    }
    Ok(if found.outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(NOBODY) })
}

enum Subject {
    Certificate(Vec<CertificateDer<'static>>),
    Token(Zeroizing<String>),
}

impl Subject {
    fn of(text: &str) -> Result<Self, String> {
        let is_token = |text: &str| text.split('.').count() == 3 && !text.contains(char::is_whitespace);
        match std::fs::read_to_string(text) {
            Ok(file) if is_token(file.trim()) => Ok(Self::Token(Zeroizing::new(file.trim().to_owned()))),
            Ok(_) => tls::certificates_of_file(Path::new(text))
                .map(Self::Certificate)
                .map_err(|error| error.to_string()),
            Err(_) if is_token(text) && !text.contains('/') => {
                Ok(Self::Token(Zeroizing::new(text.to_owned())))
            }
            Err(error) => Err(format!("cannot read `{text}`, and it is no token: {error}")),
        }
    }
}

fn sources(question: &Question) -> Result<TrustSources, String> {
    let mut sources = match question.config_file.as_deref() {
        None => TrustSources::default(),
        Some(file) => configured(file, question.mode)?,
    };
    if question.rules.is_some() {
        sources.identity_rules = question.rules.clone();
    }
    if question.ca_file.is_some() {
        sources.ca = question.ca_file.clone();
    }
    Ok(sources)
}

fn configured(file: &Path, mode: super::Rules) -> Result<TrustSources, String> {
    Ok(super::certs::trust_sources(&super::configuration(file, mode)?))
}

/// An answer.
struct Found {
    names: Option<CertificateNames>,
    authority: Option<String>,
    rule: Option<String>,
    outcome: Result<Whom, String>,
}

struct Whom {
    tenant: String,
    user: String,
    groups: Vec<String>,
}

impl Found {
    fn of(trust: &Trust, chain: &[CertificateDer<'_>], tenant: Option<&str>) -> Self {
        let now = SystemTime::now();
        let mut found = Self {
            names: chain.first().and_then(CertificateNames::read),
            authority: None,
            rule: None,
            outcome: Err(String::new()),
        };
        if let Err(error) = trust.admits(chain, tenant, now) {
            found.outcome = Err(format!("the handshake fails: {error}"));
            return found;
        }
        let Certified { authority, whom } = trust.certify(chain, tenant, now);
        found.authority = Some(authority.to_string());
        match whom {
            Err(why) => found.outcome = Err(why.to_string()),
            Ok(matched) => found.take(matched, tenant),
        }
        found
    }

    /// An error: nothing can be said of it here.
    fn of_token(rules: &Rules, token: &str, tenant: Option<&str>) -> Result<Self, String> {
        let mut found = Self { names: None, authority: None, rule: None, outcome: Err(String::new()) };
        let Some(issuer) = issuers::issuer_of(rules, token) else {
            found.outcome = Err(match issuers::iss_of(token) {
                Some(iss) => format!("its `iss` is {iss}, which is that of no issuer in the rules"),
                None => "it is no JWT, or has no `iss`".to_owned(),
            });
            return Ok(found);
        };
        found.authority = Some(issuer.name.to_string());
        let KeysFrom::File { set, .. } = &issuer.keys else {
            return Err(format!(
                "the keys of issuer `{}` are at its `keys-url`, and nothing is fetched here, so nothing can be said of its tokens: fetch them and give `--rules` a file with a `keys-file`",
                issuer.name
            ));
        };
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        match issuers::check(rules, issuer, set, token, since.as_secs()) {
            Err(why) => found.outcome = Err(why.to_string()),
            Ok(checked) => found.take(checked.matched, tenant),
        }
        Ok(found)
    }

    fn take(&mut self, matched: Match, tenant: Option<&str>) {
        self.rule = matched.rule.map(|rule| rule.to_string());
        let named = matched.named;
        self.outcome = match tenant {
            Some(at) if at != named.tenant.name() => Err(format!(
                "it names `{}` of tenant `{}`, who is nobody at a host of `{at}`",
                named.user,
                named.tenant.name()
            )),
            Some(_) | None => Ok(Whom {
                tenant: named.tenant.name().to_owned(),
                user: named.user.to_string(),
                groups: named.groups.names().iter().map(ToString::to_string).collect(),
            }),
        };
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut put = |name: &str, value: &str| text.push_str(&format!("{name:<12} {value}\n"));
        if let Some(names) = &self.names {
            put("common name", names.common_name.as_deref().unwrap_or("none, or several"));
            names.dns.iter().for_each(|dns| put("dns", dns));
            names.uris.iter().for_each(|uri| put("uri", uri));
        }
        if let Some(authority) = &self.authority {
            put(if self.names.is_some() { "authority" } else { "issuer" }, authority);
            put("rule", self.rule.as_deref().unwrap_or("none"));
        }
        match &self.outcome {
            Ok(whom) => {
                put("tenant", &whom.tenant);
                put("user", &whom.user);
                put("groups", &whom.groups.join(", "));
            }
            Err(why) => put("nobody", why),
        }
        text
    }

    fn json(&self) -> Value {
        let names = self.names.as_ref().map(|names| {
            json!({ "common_name": names.common_name.as_deref(), "dns": names.dns, "uris": names.uris })
        });
        let (whom, why) = match &self.outcome {
            Ok(whom) => {
                (json!({ "tenant": whom.tenant, "user": whom.user, "groups": whom.groups }), Value::Null)
            }
            Err(why) => (Value::Null, json!(why)),
        };
        json!({
            "ok": self.outcome.is_ok(),
            "names": names,
            "authority": self.authority.as_ref().filter(|_| self.names.is_some()),
            "issuer": self.authority.as_ref().filter(|_| self.names.is_none()),
            "rule": self.rule,
            "identity": whom,
            "reason": why,
        })
    }
}
