//! Tokens that did not hold, and how it stands with those who sign them. Issuers are called what the rules call them.

use super::exposition::{Exposition, Kind};
use crate::identify::Identifier;

pub(super) fn write(page: &mut Exposition, identifier: &Identifier) {
    const REFUSED: &str = "keygate_tokens_refused_total";
    page.family(REFUSED, Kind::Counter, "Tokens that did not hold, each time that one was shown.");
    for (reason, count) in identifier.refused().counts() {
        page.labelled(REFUSED, &[("reason", reason)], count);
    }
    let standings = identifier.issuers().map(|issuers| issuers.standings()).unwrap_or_default();
    const AGE: &str = "keygate_issuer_keys_age_seconds";
    page.family(AGE, Kind::Gauge, "Since the keys of an issuer were last fetched from its `keys-url`.");
    for (issuer, standing) in &standings {
        if let Some(age) = standing.age {
            page.labelled(AGE, &[("issuer", issuer)], age.as_secs());
        }
    }
    const USABLE: &str = "keygate_issuer_keys_usable";
    page.family(
        USABLE,
        Kind::Gauge,
        "1 while there are keys of an issuer that are not too old; 0: its tokens are refused.",
    );
    for (issuer, standing) in &standings {
        page.labelled(USABLE, &[("issuer", issuer)], u8::from(standing.usable));
    }
    const FAILURES: &str = "keygate_issuer_keys_fetch_failures_total";
    page.family(
        FAILURES,
        Kind::Counter,
        "Tries to fetch the keys of an issuer that failed. The log says why.",
    );
    for (issuer, standing) in &standings {
        page.labelled(FAILURES, &[("issuer", issuer)], standing.failures);
    }
}
