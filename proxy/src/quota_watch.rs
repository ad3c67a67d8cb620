//! Tells the operator when a quota is nearly used up: one line for each crossing, not one for each write.
//!
//! A quota that moves about a threshold is told of once: it has to fall a good part below before it counts as crossed
//! again. Pure; who calls it looks at the newest view once a second.

use std::collections::HashMap;

use bytes::Bytes;
use keygate_core::{DEFAULT_TENANT, QuotaInfo, QuotaKind, TenantName};

/// In parts of a hundred, ascending: where a quota is told of, and where it must be below to be told of again.
const THRESHOLDS: [Threshold; 3] = [
    Threshold { at: 80, until: 75 },
    Threshold { at: 95, until: 90 },
    // Used up: writes are refused now.
    Threshold { at: 100, until: 97 },
];

/// Lines at a time. A thousand tenants that are filled at once are one event.
const LINES: usize = 20;

#[derive(Clone, Copy)]
struct Threshold {
    at: u64,
    until: u64,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Place {
    tenant: Option<TenantName>,
    prefix: Bytes,
    kind: QuotaKind,
}

/// What is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Crossing {
    pub tenant: Option<TenantName>,
    pub prefix: Bytes,
    pub kind: QuotaKind,
    pub used: u64,
    pub limit: u64,
    /// In parts of a hundred. None: it is below all thresholds again.
    pub threshold: Option<u64>,
}

/// Remembers what was told. Only quotas above a threshold take room.
#[derive(Default)]
pub struct QuotaWatch {
    /// How many thresholds are crossed, at least one.
    above: HashMap<Place, usize>,
}

impl QuotaWatch {
    /// Contract: `quotas` are all that there are.
    pub fn look(&mut self, quotas: impl Iterator<Item = QuotaInfo>) -> Vec<Crossing> {
        let before = std::mem::take(&mut self.above);
        let mut crossings = Vec::new();
        for QuotaInfo { tenant, prefix, limits, used, .. } in quotas {
            for kind in QuotaKind::ALL {
                let (Some(limit), used) = (limits.of(kind), used.of(kind)) else { continue };
                let place = Place { tenant: tenant.clone(), prefix: prefix.clone(), kind };
                let was = before.get(&place).copied().unwrap_or(0);
                let is = level(used, limit, was);
                if is != was && (is > was || is == 0) {
                    let threshold = is.checked_sub(1).map(|at| THRESHOLDS[at].at);
                    let (tenant, prefix) = (tenant.clone(), prefix.clone());
                    crossings.push(Crossing { tenant, prefix, kind, used, limit, threshold });
                }
                if is > 0 {
                    self.above.insert(place, is);
                }
            }
        }
        crossings
    }
}

/// How many thresholds count as crossed, when `was` did before.
fn level(used: u64, limit: u64, was: usize) -> usize {
    let reaches = |percent: u64| {
        // A limit of nothing is used up by nothing, which is what its operator meant: not worth a line.
        limit > 0 && u128::from(used) * 100 >= u128::from(limit) * u128::from(percent)
    };
    let holds = |(place, threshold): &(usize, &Threshold)| {
        reaches(if *place < was { threshold.until } else { threshold.at })
    };
    THRESHOLDS.iter().enumerate().take_while(holds).count()
}

/// How many quotas have reached each threshold, for metrics: (parts of a hundred, quotas).
pub fn reached(quotas: impl Iterator<Item = QuotaInfo>) -> [(u64, u64); 3] {
    let mut counts = THRESHOLDS.map(|threshold| (threshold.at, 0));
    for info in quotas {
        for kind in QuotaKind::ALL {
            let Some(limit) = info.limits.of(kind) else { continue };
            for (_, count) in counts.iter_mut().take(level(info.used.of(kind), limit, 0)) {
                *count += 1;
            }
        }
    }
    counts
}

pub fn tell(crossings: &[Crossing]) {
    for Crossing { tenant, prefix, kind, used, limit, threshold } in crossings.iter().take(LINES) {
        let tenant = tenant.as_ref().map_or(DEFAULT_TENANT, TenantName::as_str);
        let prefix = prefix.escape_ascii();
        match threshold {
            Some(percent @ 100..) => {
                tracing::warn!(tenant, %prefix, quota = %kind, used, limit, percent, "a quota is used up: what grows is refused until there is room, see `keygate quota show`");
            }
            Some(percent) => {
                tracing::warn!(tenant, %prefix, quota = %kind, used, limit, percent, "a quota is nearly used up");
            }
            None => {
                tracing::info!(tenant, %prefix, quota = %kind, used, limit, "a quota has room again");
            }
        }
    }
    if let Some(more) = crossings.len().checked_sub(LINES).filter(|more| *more > 0) {
        tracing::warn!(more, "more quotas have crossed a threshold, see `keygate quota show --all`");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keygate_core::{QuotaLimits, QuotaUse};

    fn quota(prefix: &'static str, keys: u64, limit: u64) -> QuotaInfo {
        QuotaInfo {
            tenant: TenantName::parse("pay"),
            prefix: prefix.into(),
            limits: QuotaLimits { keys: Some(limit), ..QuotaLimits::default() },
            used: QuotaUse { keys, bytes: 1 << 40, history: 1 << 40 },
            counted: None,
        }
    }

    fn thresholds(watch: &mut QuotaWatch, keys: u64, limit: u64) -> Vec<Option<u64>> {
        let crossings = watch.look([quota("", keys, limit)].into_iter());
        crossings.into_iter().map(|crossing| crossing.threshold).collect()
    }

    #[test]
    fn a_crossing_is_told_once_until_the_quota_is_well_below_again() {
        let mut watch = QuotaWatch::default();
        let story = [
            (79, vec![]),
            (80, vec![Some(80)]),
            (81, vec![]),
            (79, vec![]),
            (80, vec![]),
            (95, vec![Some(95)]),
            (94, vec![]),
            (96, vec![]),
            (100, vec![Some(100)]),
            (98, vec![]),
            (100, vec![]),
            // Down one by one says nothing, back up does.
            (89, vec![]),
            (95, vec![Some(95)]),
            (74, vec![None]),
            (60, vec![]),
            (120, vec![Some(100)]),
        ];
        for (step, (keys, expected)) in story.into_iter().enumerate() {
            assert_eq!(thresholds(&mut watch, keys, 100), expected, "step {step}: {keys}");
        }
        // Raised, or taken away: its next one is told of anew.
        assert_eq!(thresholds(&mut watch, 120, 1_000), [None]);
        assert_eq!(thresholds(&mut watch, 1_000, 1_000), [Some(100)]);
        assert_eq!(watch.look(std::iter::empty()), []);
        assert!(watch.above.is_empty());
        assert_eq!(thresholds(&mut watch, 0, 0), []);
    }

    #[test]
    fn quotas_are_told_apart_and_counted_by_threshold() {
        let quotas = || [quota("", 80, 100), quota("a/", 96, 100), quota("b/", 7, 5), quota("c/", 0, 5)];
        let mut watch = QuotaWatch::default();
        let told = watch.look(quotas().into_iter());
        let told: Vec<_> =
            told.iter().map(|crossing| (crossing.prefix.as_ref(), crossing.threshold)).collect();
        assert_eq!(told, [(&b""[..], Some(80)), (b"a/", Some(95)), (b"b/", Some(100))]);
        assert_eq!(watch.look(quotas().into_iter()), []);
        assert_eq!(reached(quotas().into_iter()), [(80, 3), (95, 2), (100, 1)]);
    }
}
