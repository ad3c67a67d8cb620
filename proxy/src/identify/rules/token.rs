//! Whom the claims of a verified token name.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::pattern::{Captures, Pattern};
use super::{Gives, Match, Rules, Unnamed};

#[derive(Debug)]
pub(super) struct TokenRule {
    pub(super) name: Arc<str>,
    pub(super) issuer: Arc<str>,
    /// All of them must fit.
    pub(super) claims: Vec<ClaimPattern>,
    pub(super) gives: Gives,
    /// A claim whose texts are groups, too.
    pub(super) groups_claim: Option<String>,
}

#[derive(PartialEq, Eq, Debug)]
pub(super) struct ClaimPattern {
    pub(super) claim: String,
    pub(super) pattern: Pattern,
}

/// More groups than anybody's policy names; the others are left out.
const MAX_GROUPS: usize = 200;

impl Rules {
    pub fn token(&self, issuer: &Arc<str>, claims: &Map<String, Value>) -> Result<Match, Unnamed> {
        for rule in self.token_rules.iter().filter(|rule| rule.issuer == *issuer) {
            let mut captures = Captures::new();
            if rule.claims.iter().all(|wanted| wanted.fits(claims, &mut captures)) {
                let own = rule.groups_claim.iter().flat_map(|claim| texts(claims.get(claim)));
                let own = own.take(MAX_GROUPS).map(Arc::from).collect();
                return rule.gives.to(&captures, &rule.name, own);
            }
        }
        Err(Unnamed::NoTokenRule { issuer: issuer.clone() })
    }
}

impl ClaimPattern {
    /// Of a list, one that fits is enough.
    fn fits(&self, claims: &Map<String, Value>, captures: &mut Captures) -> bool {
        texts(claims.get(&self.claim)).any(|text| self.pattern.capture(text, captures))
    }
}

/// A text, or the texts of a list; anything else is none.
fn texts(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let (one, many) = match value {
        Some(Value::String(text)) => (Some(text.as_str()), None),
        Some(Value::Array(values)) => (None, Some(values.iter().filter_map(Value::as_str))),
        _ => (None, None),
    };
    one.into_iter().chain(many.into_iter().flatten()).filter(|text| !text.is_empty())
}
