//! `/health`, `/livez` and `/readyz`: etcd's checks, texts and parameters.

use std::fmt::Write as _;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use keygate_core::AlarmKind;

use super::probe::{Condition, alarm_name};
use super::query::Query;
use super::{failure, page, plain};
use crate::metrics::{Check, HealthMetrics, Probe};

/// `/health`: alarms, leader, a read. `exclude` names alarms that do not count; `serializable=true`
/// asks for no leader.
pub(super) async fn respond(
    condition: &dyn Condition,
    metrics: &HealthMetrics,
    query: &Query,
) -> Response<Full<Bytes>> {
    let reason = sickness(condition, query).await;
    metrics.answered(reason.is_none());
    match reason {
        None => page(StatusCode::OK, "text/plain; charset=utf-8", r#"{"health":"true","reason":""}"#),
        Some(reason) => {
            let reason = serde_json::Value::String(reason);
            failure(StatusCode::SERVICE_UNAVAILABLE, &format!(r#"{{"health":"false","reason":{reason}}}"#))
        }
    }
}

async fn sickness(condition: &dyn Condition, query: &Query) -> Option<String> {
    let mut alarms: Vec<_> = condition.alarms().iter().filter_map(|alarm| alarm_name(alarm.alarm)).collect();
    // NOSPACE is named first when both are raised.
    alarms.sort_unstable_by(|a, b| b.cmp(a));
    if let Some(alarm) = alarms.iter().find(|alarm| !query.all("exclude").any(|excluded| excluded == **alarm))
    {
        return Some(format!("ALARM {alarm}"));
    }
    let serializable = query.is_true("serializable");
    if !serializable && !condition.has_leader() {
        return Some("RAFT NO LEADER".to_owned());
    }
    match condition.read(serializable).await {
        Ok(()) => None,
        Err(refusal) => Some(format!("RANGE ERROR:{refusal}")),
    }
}

pub(super) struct Asked {
    pub(super) probe: Probe,
    /// `/readyz/data_corruption` asks for one check, and nothing excludes it.
    pub(super) only: Option<Check>,
}

/// `verbose` shows every check; a failure shows them without being asked.
pub(super) async fn respond_to_probe(
    condition: &dyn Condition,
    metrics: &HealthMetrics,
    asked: Asked,
    query: &Query,
) -> Response<Full<Bytes>> {
    let mut report = String::new();
    let mut passed = true;
    for check in asked.probe.checks() {
        let wanted = match asked.only {
            Some(only) => only == *check,
            None => !query.all("exclude").any(|excluded| excluded == check.name()),
        };
        if !wanted {
            continue;
        }
        let outcome = make(condition, *check).await;
        metrics.checked(asked.probe, *check, outcome.is_ok());
        let name = check.name();
        // Writing to a string cannot fail.
        let _infallible = match outcome {
            Ok(()) => writeln!(report, "[+]{name} ok"),
            Err(why) => {
                passed = false;
                writeln!(report, "[-]{name} failed: {why}")
            }
        };
    }
    if !passed {
        return failure(StatusCode::SERVICE_UNAVAILABLE, &report);
    }
    if !query.has("verbose") {
        report.clear();
    }
    report.push_str("ok\n");
    plain(StatusCode::OK, report)
}

async fn make(condition: &dyn Condition, check: Check) -> Result<(), String> {
    match check {
        Check::DataCorruption => {
            let corrupt = condition.alarms().iter().any(|alarm| alarm.alarm == AlarmKind::Corrupt);
            if corrupt { Err("alarm activated: CORRUPT".to_owned()) } else { Ok(()) }
        }
        Check::SerializableRead => {
            condition.read(true).await.map_err(|refusal| format!("range error: {refusal}"))
        }
        Check::LinearizableRead => {
            condition.read(false).await.map_err(|refusal| format!("range error: {refusal}"))
        }
        // One member is never a learner.
        Check::NonLearner => Ok(()),
    }
}
