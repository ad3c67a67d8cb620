//! Answers to health checks.

use std::sync::atomic::{AtomicU64, Ordering};

use super::exposition::{Exposition, Kind};

/// Which of the probing pages asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probe {
    Livez,
    Readyz,
}

/// One thing that a probe looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Probe {
    pub fn name(self) -> &'static str {
        match self {
            Self::Livez => "livez",
            Self::Readyz => "readyz",
        }
    }

    /// In the order in which they are made.
    pub fn checks(self) -> &'static [Check] {
        match self {
            Self::Livez => &[Check::SerializableRead],
            Self::Readyz => {
                &[Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner]
            }
        }
    }
}

impl Check {
    pub fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }
}

#[derive(Default)]
pub struct HealthMetrics {
    success: AtomicU64,
    failures: AtomicU64,
    livez: [Outcomes; 4],
    readyz: [Outcomes; 4],
}

#[derive(Default)]
struct Outcomes {
    success: AtomicU64,
    error: AtomicU64,
    /// 1 when the last one was a success.
    last: AtomicU64,
}

impl HealthMetrics {
    /// An answer of `/health`.
    pub fn answered(&self, healthy: bool) {
        let counter = if healthy { &self.success } else { &self.failures };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub fn checked(&self, probe: Probe, check: Check, passed: bool) {
        let outcomes = &self.of(probe)[check as usize];
        let counter = if passed { &outcomes.success } else { &outcomes.error };
        counter.fetch_add(1, Ordering::Relaxed);
        outcomes.last.store(passed.into(), Ordering::Relaxed);
    }

    fn of(&self, probe: Probe) -> &[Outcomes; 4] {
        match probe {
            Probe::Livez => &self.livez,
            Probe::Readyz => &self.readyz,
        }
    }

    pub(super) fn write(&self, page: &mut Exposition) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        page.single(
            "etcd_server_health_success",
            Kind::Counter,
            "Health checks passed.",
            read(&self.success),
        );
        page.single(
            "etcd_server_health_failures",
            Kind::Counter,
            "Health checks failed.",
            read(&self.failures),
        );
        let all = || {
            [Probe::Livez, Probe::Readyz]
                .into_iter()
                .flat_map(|probe| probe.checks().iter().map(move |check| (probe, *check)))
        };
        page.family("etcd_server_healthcheck", Kind::Gauge, "Whether a check passed when it was last made.");
        for (probe, check) in all() {
            let labels = [("name", check.name()), ("type", probe.name())];
            page.labelled("etcd_server_healthcheck", &labels, read(&self.of(probe)[check as usize].last));
        }
        page.family("etcd_server_healthchecks_total", Kind::Counter, "Checks made.");
        for (probe, check) in all() {
            let outcomes = &self.of(probe)[check as usize];
            for (status, count) in [("error", read(&outcomes.error)), ("success", read(&outcomes.success))] {
                let labels = [("name", check.name()), ("status", status), ("type", probe.name())];
                page.labelled("etcd_server_healthchecks_total", &labels, count);
            }
        }
    }
}
