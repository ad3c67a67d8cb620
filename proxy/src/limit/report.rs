//! What operators are told: which limits are in force, and who asks for how much.

use std::cmp::Reverse;
use std::sync::atomic::Ordering::Relaxed;

use keygate_core::{Answer, LimitInfo, LoadInfo, Observation, Sealed};

use super::Limiter;
use super::account::Account;

/// However many are asked for, an answer stays small.
const MOST: usize = 1_000;

impl Limiter {
    pub fn observe(&self, observation: Observation) -> Answer<Sealed> {
        match observation {
            Observation::Limits => {
                let info =
                    |(path, value): &(String, String)| LimitInfo { path: path.clone(), value: value.clone() };
                Answer::Limits(self.rules().told.iter().map(info).collect())
            }
            Observation::Load { most } => Answer::Load(self.load(most.min(MOST))),
        }
    }

    /// Those that asked most, in requests and refusals.
    fn load(&self, most: usize) -> Vec<LoadInfo> {
        let mut found = Vec::new();
        self.each_account(&mut |account| {
            let info = told(account);
            if info.requests > 0 || info.watches > 0 {
                found.push(info);
            }
            // Twice as many as are wanted is all that is held of 100,000.
            if found.len() >= 2 * most.max(64) {
                keep(&mut found, most);
            }
        });
        keep(&mut found, most);
        found
    }
}

fn keep(found: &mut Vec<LoadInfo>, most: usize) {
    found.sort_unstable_by_key(|info| Reverse(info.requests));
    found.truncate(most);
}

fn told(account: &Account) -> LoadInfo {
    let load = account.load.totals();
    LoadInfo {
        tenant: account.tenant().to_owned(),
        user: account.user().unwrap_or_default().to_owned(),
        requests: load.requests,
        bytes_in: load.bytes_in,
        bytes_out: load.bytes_out,
        refusals: load.refusals,
        watches: account.watches.load(Relaxed),
        connections: account.connections.load(Relaxed),
    }
}
