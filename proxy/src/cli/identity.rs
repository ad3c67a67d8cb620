//! `keygate identity explain`: whom a certificate names, by the rules of a server, without one.
//!
//! Exit codes: 0 somebody, 1 nobody, 2 nothing could be said.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};

use super::{Output, Rules, UNUSABLE, say};
use crate::identify::rules::CertificateNames;
use crate::tls::{self, Certified, Trust, TrustSources};

/// Nobody is meant.
const NOBODY: u8 = 1;

#[derive(Debug, Subcommand)]
pub(super) enum IdentityCommand {
    /// Say which authority and which rule decide about a certificate, and what they make of it
    Explain {
        #[command(flatten)]
        question: Question,
    },
}

#[derive(Debug, Args)]
pub(super) struct Question {
    /// A client's certificate in PEM, its own first
    certificate: PathBuf,
    /// The configuration of a server
    #[arg(long, value_name = "FILE", required_unless_present_any = ["rules", "ca_file"])]
    config_file: Option<PathBuf>,
    /// Whose rules to read the configuration by
    #[arg(long, value_enum, default_value_t = super::Rules::Keygate)]
    mode: Rules,
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
    let chain = tls::certificates_of_file(&question.certificate).map_err(|error| error.to_string())?;
    let trust = tls::load_trust(&sources(question)?).map_err(|error| error.to_string())?;
    let found = Found::of(&trust, &chain, question.at.as_deref());
    match question.output {
        Output::Text => say(&found.text()),
        Output::Json => say(&format!("{:#}\n", found.json())),
    }
    Ok(if found.outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(NOBODY) })
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

fn configured(file: &Path, mode: Rules) -> Result<TrustSources, String> {
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
        found.outcome = match whom {
            Err(why) => Err(why.to_string()),
            Ok(matched) => {
                found.rule = matched.rule.map(|rule| rule.to_string());
                let named = matched.named;
                let groups = named.groups.names().iter().map(ToString::to_string).collect();
                match tenant {
                    Some(at) if at != named.tenant.name() => Err(format!(
                        "it names `{}` of tenant `{}`, who is nobody at a host of `{at}`",
                        named.user,
                        named.tenant.name()
                    )),
                    Some(_) | None => Ok(Whom {
                        tenant: named.tenant.name().to_owned(),
                        user: named.user.to_string(),
                        groups,
                    }),
                }
            }
        };
        found
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
            put("authority", authority);
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
            "authority": self.authority,
            "rule": self.rule,
            "identity": whom,
            "reason": why,
        })
    }
}
