//! Numbers: times, sizes, counts and threads, each held to what works.

use std::{num::NonZeroUsize, time::Duration};

use super::Resolver;
use crate::config::{
    AutoCompaction, Limits, Mode, Own,
    draft::{Draft, Log, LogOutput, LogRotation},
    problem::Problem,
    values,
};
use crate::identify::LockoutRules;
use crate::quota_webhook::Receiver;

/// etcd's default quota, and the size up to which it recommends to go.
const DEFAULT_QUOTA: u64 = 2 << 30;
const RECOMMENDED_QUOTA: u64 = 8 << 30;
/// etcd warns from here; so large a request holds up everybody else's.
const RECOMMENDED_REQUEST: u64 = 10 << 20;
/// One frame of HTTP/2 data must carry a request, and lengths are 32 bits wide.
const LARGEST_REQUEST: u64 = 1 << 30;

impl Resolver<'_> {
    pub(super) fn timing(&mut self, draft: &Draft) {
        let (heartbeat, election) = (draft.timing.heartbeat.as_millis(), draft.timing.election.as_millis());
        if heartbeat == 0 {
            self.problem("heartbeat-interval", "--heartbeat-interval must be >0 (set to 0ms)");
        } else if election == 0 {
            self.problem("election-timeout", "--election-timeout must be >0 (set to 0ms)");
        } else if 5 * heartbeat > election {
            self.problem(
                "election-timeout",
                format!(
                    "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
                ),
            );
        }
        if election > 50_000 {
            self.problem(
                "election-timeout",
                format!("--election-timeout[{election}ms] is too long, and should be set less than 50000ms"),
            );
        }
        if draft.watch_progress_interval < Duration::from_millis(100) {
            self.problem("watch-progress-notify-interval", "at least 100ms are needed");
        }
    }

    pub(super) fn limits(&mut self, draft: &Draft) -> Limits {
        let quota_bytes = match u64::try_from(draft.quota_bytes) {
            Err(_) => None,
            Ok(0) => Some(DEFAULT_QUOTA),
            Ok(bytes) => Some(bytes),
        };
        if quota_bytes.is_some_and(|bytes| bytes > RECOMMENDED_QUOTA) {
            self.warn(
                "quota-backend-bytes",
                "more than the recommended 8 GiB: a start and a snapshot take long",
            );
        }
        if draft.max_request_bytes > RECOMMENDED_REQUEST {
            self.warn(
                "max-request-bytes",
                "more than the recommended 10 MiB: one request holds up all others",
            );
        }
        if !(1..=LARGEST_REQUEST).contains(&draft.max_request_bytes) {
            self.problem("max-request-bytes", "from 1 byte to 1 GiB can be allowed");
        }
        if draft.max_txn_ops == 0 {
            self.problem("max-txn-ops", "at least one operation must be allowed");
        }
        if draft.max_concurrent_streams == 0 {
            self.problem("max-concurrent-streams", "at least one stream must be allowed");
        }
        Limits {
            quota_bytes,
            request_bytes: draft.max_request_bytes,
            txn_ops: draft.max_txn_ops,
            concurrent_streams: draft.max_concurrent_streams,
        }
    }

    pub(super) fn bcrypt_cost(&mut self, cost: u64) -> u32 {
        match u32::try_from(cost) {
            Ok(cost @ 4..=31) => cost,
            _ if self.mode == Mode::Etcd => {
                self.warn("bcrypt-cost", "use default bcrypt cost instead of the invalid given cost");
                10
            }
            _ => {
                self.problem("bcrypt-cost", format!("`{cost}` is not a cost from 4 to 31"));
                10
            }
        }
    }

    pub(super) fn auto_compaction(&mut self, draft: &Draft) -> AutoCompaction {
        let text = draft.retention.as_str();
        match draft.compaction_mode.as_str() {
            "periodic" => match text.parse::<u64>().ok().map(|hours| hours.checked_mul(3600)) {
                Some(Some(0)) => AutoCompaction::Off,
                Some(Some(seconds)) => AutoCompaction::Periodic(Duration::from_secs(seconds)),
                Some(None) => self.bad_retention("a time", text),
                None => match values::duration(text) {
                    Ok(Duration::ZERO) => AutoCompaction::Off,
                    Ok(time) => AutoCompaction::Periodic(time),
                    Err(_) => self.bad_retention("hours or a duration such as 30m", text),
                },
            },
            "revision" => match text.parse::<u64>() {
                Ok(0) => AutoCompaction::Off,
                Ok(count) => AutoCompaction::Revision(count),
                Err(_) => self.bad_retention("a number of revisions", text),
            },
            other => {
                self.problems.push(Problem {
                    path: self.raw.path("auto-compaction-mode"),
                    message: format!("unknown auto-compaction-mode \"{other}\""),
                    accepted: Some("periodic, revision".to_owned()),
                });
                AutoCompaction::Off
            }
        }
    }

    fn bad_retention(&mut self, expected: &str, text: &str) -> AutoCompaction {
        self.problem(
            "auto-compaction-retention",
            format!("error parsing CompactionRetention: `{text}` is not {expected}"),
        );
        AutoCompaction::Off
    }

    pub(super) fn log(&mut self, rotate: bool, rotation: LogRotation, log: Log) -> Log {
        if !rotate {
            return log;
        }
        let files = log.outputs.iter().filter(|output| matches!(output, LogOutput::File(_))).count();
        if files != 1 {
            self.problem(
                "enable-log-rotation",
                "--log-outputs requires a single file path when --log-rotate-config-json is defined",
            );
        }
        Log { rotation: Some(rotation), ..log }
    }

    fn login_lockout(&mut self, rules: LockoutRules) -> LockoutRules {
        if rules.threshold > 0 || rules.user_threshold > 0 {
            for (flag, time) in [
                ("login-lockout-duration", rules.duration),
                ("login-lockout-counter-reset", rules.counter_reset),
            ] {
                if time < Duration::from_secs(1) {
                    self.problem(
                        flag,
                        "at least one second is needed; a threshold of 0 turns the lockout off",
                    );
                }
            }
        }
        if rules.user_threshold > 0 && rules.user_threshold < rules.threshold {
            self.problem(
                "login-lockout-user-threshold",
                "is below login-lockout-threshold, which could never be reached",
            );
        }
        rules
    }

    pub(super) fn own(&mut self, draft: &Draft) -> Own {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let count = |number: u32, otherwise: usize| {
            let number = usize::try_from(number).unwrap_or(usize::MAX);
            NonZeroUsize::new(if number == 0 { otherwise } else { number }).unwrap_or(NonZeroUsize::MIN)
        };
        for (flag, number) in [("threads", draft.threads), ("password-threads", draft.password_threads)] {
            if number > 1024 {
                self.problem(flag, "more than 1024 threads");
            }
        }
        for (flag, time) in [("handshake-timeout", draft.handshake_timeout)] {
            if time < Duration::from_millis(100) {
                self.problem(flag, "at least 100ms are needed");
            }
        }
        if draft.max_unauthenticated == 0 {
            self.problem("max-unauthenticated-connections", "at least one connection must be allowed");
        }
        // Below this the index alone does not leave room for a single large value.
        if draft.memory_budget < 1 << 20 {
            self.problem("memory-budget", "at least 1MiB is needed");
        }
        Own {
            memory_budget: draft.memory_budget,
            threads: count(draft.threads, cores.get()),
            handshake_timeout: draft.handshake_timeout,
            max_unauthenticated_connections: draft.max_unauthenticated,
            password_threads: count(draft.password_threads, password_threads(cores.get())),
            login_lockout: self.login_lockout(draft.login_lockout),
            watch_backlog: draft.watch_backlog,
            watch_memory: draft.watch_memory,
            metrics_tenants: draft.metrics_tenants,
            policy_dir: draft.policy_dir.clone(),
            policy_keys: draft.policy_keys.clone(),
            policy_keys_needed: draft.policy_keys_needed,
            quota_webhook: self.quota_webhook(draft),
            policy_recover: draft.policy_recover,
            shutdown_grace: draft.shutdown_grace,
        }
    }
}

impl Resolver<'_> {
    fn quota_webhook(&mut self, draft: &Draft) -> Option<Receiver> {
        let (ca, secret) = (draft.quota_webhook_ca.clone(), draft.quota_webhook_secret.clone());
        for (flag, file) in [("quota-webhook-ca-file", &ca), ("quota-webhook-secret-file", &secret)] {
            if file.is_some() && draft.quota_webhook_url.is_none() {
                self.problem(flag, "is of no use without --quota-webhook-url");
            }
        }
        let url = draft.quota_webhook_url.clone()?;
        if ca.is_some() && url.scheme_str() == Some("http") {
            self.problem("quota-webhook-ca-file", "is of no use: --quota-webhook-url is plain http");
        }
        Some(Receiver { url, ca, secret })
    }
}

/// The least that is left to serving is three of four cores; rounding is in their favour, too.
fn password_threads(cores: usize) -> usize {
    (cores / 4).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_get_a_quarter_of_the_cores_at_most_and_one_thread_at_least() {
        let threads = [1, 2, 3, 4, 7, 8, 64].map(password_threads);
        assert_eq!(threads, [1, 1, 1, 1, 1, 2, 16]);
    }
}
