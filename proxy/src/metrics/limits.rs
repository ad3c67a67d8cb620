//! Requests that met a limit.

use std::collections::BTreeMap;

use super::exposition::{Exposition, Kind};
use crate::http::Readers;
use crate::limit::{Limiter, LimitsFile};

pub(super) fn write(page: &mut Exposition, limiter: &Limiter, readers: Readers) {
    let mut series: BTreeMap<(String, &str, &str), [u64; 2]> = BTreeMap::new();
    for tally in limiter.tallies() {
        let tenant = match readers {
            Readers::Operators => tally.tenant.as_ref(),
            // Everybody's together.
            Readers::Anybody => "",
        };
        let counts = series.entry((tenant.to_owned(), tally.class, tally.rule)).or_default();
        counts[0] += tally.refused;
        counts[1] += tally.shadow;
    }
    for (index, name, help) in [
        (0, "keygate_limit_refusals_total", "Requests that a limit refused."),
        (
            1,
            "keygate_limit_shadow_total",
            "Requests that met a limit which only counts, or were delayed by one.",
        ),
    ] {
        page.family(name, Kind::Counter, help);
        for ((tenant, class, rule), counts) in series.iter().filter(|(_, counts)| counts[index] > 0) {
            page.labelled(name, &[("class", class), ("rule", rule), ("tenant", tenant)], counts[index]);
        }
    }
    let help = "Users and tenants whose requests are counted at the moment.";
    page.single("keygate_limit_accounts", Kind::Gauge, help, limiter.accounts());
}

pub(super) fn write_file(page: &mut Exposition, file: &LimitsFile) {
    let help = "Changed limits that could not be used; the previous ones stayed in force. The log says why.";
    page.single("keygate_limits_reload_failures_total", Kind::Counter, help, file.failures());
    page.single(
        "keygate_limits_file_unusable",
        Kind::Gauge,
        "1 while changed limits cannot be used and the previous ones stay in force.",
        u8::from(file.is_behind()),
    );
}
