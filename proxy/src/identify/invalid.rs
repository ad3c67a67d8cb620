//! Why a token is good for nothing, in words for operators; clients read etcd's text, whatever it was.
//!
//! Claims and headers are anybody's texts: they are cut, and told with what a terminal or a log would obey escaped. A
//! token itself, or its signature, is in none of them.

use jsonwebtoken::Validation;
use jsonwebtoken::errors::{Error, ErrorKind};
use keygate_policies::bundle::Instant;
use serde_json::{Map, Value};

use super::jwt::whole_number;
use super::rules::Unnamed;

/// Of a text that somebody chose.
const LONGEST: usize = 100;

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Invalid {
    #[error("it is no JWT")]
    Malformed,
    #[error("its algorithm is `none`: it is not signed")]
    Unsigned,
    #[error("algorithm `{0}` is not among those of its issuer")]
    Algorithm(String),
    #[error("its header marks `{0}` as critical, which is not known here")]
    Critical(String),
    #[error("the keys of its issuer are not there")]
    NoKeys,
    #[error("its issuer has no key `{0}`")]
    UnknownKey(String),
    #[error("its signature is not by the key that it names")]
    Signature,
    #[error("it expired at {at} (`exp` is {exp})")]
    Expired { at: String, exp: u64 },
    #[error("it is not good before {at} (`nbf` is {nbf})")]
    NotYet { at: String, nbf: u64 },
    #[error("it is for others: `aud` is {0}")]
    Audience(String),
    #[error("`iss` is {0}, which is nobody whose tokens are taken")]
    Issuer(String),
    #[error("it has no `{0}`, or one of the wrong kind")]
    Missing(String),
    #[error("it lives longer than the tokens of its issuer may")]
    LivesTooLong,
    #[error("{0}")]
    Unnamed(#[from] Unnamed),
    #[error("it is of a tenant that is not there, or not of the host that was asked for")]
    Tenant,
    #[error("it was never given out, or before a restart, or has ended")]
    Unknown,
    #[error("its user is gone, or has a new password")]
    Outdated,
}

/// What is counted. The names are those of a metric's label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    Malformed,
    Algorithm,
    Critical,
    NoKeys,
    UnknownKey,
    Signature,
    Expired,
    NotYet,
    Audience,
    Issuer,
    MissingClaim,
    Lifetime,
    NoRule,
    Tenant,
    Unknown,
    Outdated,
}

impl Reason {
    pub const ALL: [(Self, &str); 16] = [
        (Self::Malformed, "malformed"),
        (Self::Algorithm, "algorithm"),
        (Self::Critical, "critical"),
        (Self::NoKeys, "no_keys"),
        (Self::UnknownKey, "unknown_key"),
        (Self::Signature, "signature"),
        (Self::Expired, "expired"),
        (Self::NotYet, "not_yet"),
        (Self::Audience, "audience"),
        (Self::Issuer, "issuer"),
        (Self::MissingClaim, "missing_claim"),
        (Self::Lifetime, "lifetime"),
        (Self::NoRule, "no_rule"),
        (Self::Tenant, "tenant"),
        (Self::Unknown, "unknown"),
        (Self::Outdated, "outdated"),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

impl Invalid {
    pub fn reason(&self) -> Reason {
        match self {
            Self::Malformed => Reason::Malformed,
            Self::Unsigned | Self::Algorithm(_) => Reason::Algorithm,
            Self::Critical(_) => Reason::Critical,
            Self::NoKeys => Reason::NoKeys,
            Self::UnknownKey(_) => Reason::UnknownKey,
            Self::Signature => Reason::Signature,
            Self::Expired { .. } => Reason::Expired,
            Self::NotYet { .. } => Reason::NotYet,
            Self::Audience(_) => Reason::Audience,
            Self::Issuer(_) => Reason::Issuer,
            Self::Missing(_) => Reason::MissingClaim,
            Self::LivesTooLong => Reason::Lifetime,
            Self::Unnamed(_) => Reason::NoRule,
            Self::Tenant => Reason::Tenant,
            Self::Unknown => Reason::Unknown,
            Self::Outdated => Reason::Outdated,
        }
    }

    pub(super) fn expired(exp: u64) -> Self {
        Self::Expired { at: moment(exp), exp }
    }

    /// Of a header that the library does not read.
    pub(super) fn header(token: &str) -> Self {
        let header = token.split('.').next().unwrap_or_default();
        // The library reads what stands between the last two dots.
        let header = jsonwebtoken::dangerous::insecure_decode_claims(format!(".{header}."));
        let Ok(header): Result<Map<String, Value>, _> = header else { return Self::Malformed };
        match header.get("alg").and_then(Value::as_str) {
            Some(alg) if alg.eq_ignore_ascii_case("none") => Self::Unsigned,
            Some(alg) if alg.parse::<jsonwebtoken::Algorithm>().is_err() => Self::Algorithm(shown(alg)),
            Some(_) | None => Self::Malformed,
        }
    }

    /// In words. `validation` is what the token was held against.
    pub(super) fn of(error: &Error, token: &str, validation: &Validation) -> Self {
        let claims = || -> Map<String, Value> {
            jsonwebtoken::dangerous::insecure_decode_claims(token).unwrap_or_default()
        };
        let seconds = |name: &str| claims().get(name).and_then(whole_number).unwrap_or_default();
        let text = |name: &str| claims().get(name).map(|value| shown(&value.to_string())).unwrap_or_default();
        match error.kind() {
            ErrorKind::InvalidSignature => Self::Signature,
            ErrorKind::ExpiredSignature => Self::expired(seconds("exp")),
            ErrorKind::ImmatureSignature => {
                let nbf = seconds("nbf");
                Self::NotYet { at: moment(nbf), nbf }
            }
            ErrorKind::InvalidAudience => {
                let mut accepted: Vec<_> = validation.aud.iter().flatten().map(String::as_str).collect();
                accepted.sort_unstable();
                Self::Audience(format!("{}, not `{}`", text("aud"), accepted.join("` or `")))
            }
            ErrorKind::InvalidIssuer => Self::Issuer(text("iss")),
            ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => {
                Self::Missing(shown(claim))
            }
            ErrorKind::InvalidAlgorithm => match jsonwebtoken::decode_header(token) {
                Ok(header) => Self::Algorithm(format!("{:?}", header.alg)),
                Err(_) => Self::header(token),
            },
            _ => match jsonwebtoken::decode_header(token) {
                Ok(_) => Self::Malformed,
                Err(_) => Self::header(token),
            },
        }
    }
}

/// Cut, and with nothing in it that a terminal obeys.
pub(super) fn shown(text: &str) -> String {
    let cut = &text[..text.floor_char_boundary(LONGEST)];
    let more = if cut.len() < text.len() { "…" } else { "" };
    cut.chars().flat_map(escaped).chain(more.chars()).collect()
}

fn escaped(letter: char) -> impl Iterator<Item = char> {
    let obeyed = letter.is_control();
    letter.escape_debug().filter(move |_| obeyed).chain((!obeyed).then_some(letter))
}

fn moment(seconds: u64) -> String {
    match i64::try_from(seconds) {
        // After that years have five digits.
        Ok(seconds) if seconds < 253_402_300_800 => Instant(seconds).to_string(),
        _ => "a time that is not on calendars".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_where_their_numbers_say() {
        for (index, (reason, name)) in Reason::ALL.into_iter().enumerate() {
            assert_eq!((reason as usize, reason.name()), (index, name));
        }
    }

    #[test]
    fn what_somebody_chose_is_cut_and_escaped() {
        assert_eq!(shown("a\u{1b}[31m\n`ä"), "a\\u{1b}[31m\\n`ä");
        let long = "ä".repeat(LONGEST);
        assert!(shown(&long).len() <= LONGEST + "…".len() && shown(&long).ends_with('…'));
    }
}
