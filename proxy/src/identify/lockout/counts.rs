//! How often each account has failed, in bounded memory.
//!
//! Accounts are in groups: those that one source has failed for are one group. A group that is full gives the place of
//! its lowest count to a newcomer, who goes on from that count. So a count may be too high for somebody who shares a
//! group with whom fails a lot, but never too low: who makes up names from one source does not get rid of what he has
//! failed before. A group in which everybody is locked refuses all others too. No group takes anything from another
//! until there are more than [`BUCKETS`] times [`GROUPS`] of them; then the least is forgotten that failed longest ago.

use super::{LockoutRules, millis};

const BUCKETS: u64 = 128;
/// Of a bucket.
pub(super) const GROUPS: usize = 128;
/// Of a group.
pub(super) const ACCOUNTS: usize = 16;

pub(super) struct Counts {
    threshold: u32,
    /// In milliseconds, as are all times here.
    duration: u64,
    counter_reset: u64,
    buckets: Vec<Vec<Group>>,
}

struct Group {
    key: u64,
    accounts: Vec<Account>,
}

struct Account {
    key: u64,
    failures: u32,
    /// So many of them were another's, whose place this is.
    inherited: u32,
    last: u64,
    locked_until: Option<u64>,
}

impl Counts {
    pub(super) fn new(threshold: u32, rules: &LockoutRules) -> Self {
        Self {
            threshold,
            duration: millis(rules.duration),
            counter_reset: millis(rules.counter_reset),
            buckets: (0..BUCKETS).map(|_| Vec::new()).collect(),
        }
    }

    pub(super) fn is_locked(&self, group: u64, account: u64, now: u64) -> bool {
        let Some(group) = self.bucket(group).iter().find(|it| it.key == group) else { return false };
        let locked = |it: &Account| it.locked_until.is_some_and(|until| now < until);
        match group.accounts.iter().find(|it| it.key == account) {
            Some(account) => locked(account),
            None => group.accounts.len() == ACCOUNTS && group.accounts.iter().all(locked),
        }
    }

    /// True: it is locked by this.
    pub(super) fn fail(&mut self, group: u64, account: u64, now: u64) -> bool {
        let (threshold, duration, counter_reset) = (self.threshold, self.duration, self.counter_reset);
        let group = self.group(group, now);
        group.forget_what_is_over(now, counter_reset);
        let account = group.account(account);
        if account.locked_until.is_some() {
            // Another login was compared at the same time.
            return false;
        }
        account.failures = account.failures.saturating_add(1);
        account.last = now;
        let locks = account.failures >= threshold;
        account.locked_until = locks.then(|| now.saturating_add(duration));
        locks
    }

    /// What was inherited stays: else a right login would make room for counts to be lost.
    pub(super) fn forgive(&mut self, group: u64, account: u64) {
        let bucket = self.bucket_mut(group);
        let Some(group) = bucket.iter_mut().find(|it| it.key == group) else { return };
        group.accounts.retain_mut(|it| {
            if it.key == account && it.locked_until.is_none() {
                it.failures = it.inherited;
            }
            it.failures > 0
        });
    }

    fn group(&mut self, key: u64, now: u64) -> &mut Group {
        let counter_reset = self.counter_reset;
        let bucket = self.bucket_mut(key);
        let index = match bucket.iter().position(|it| it.key == key) {
            Some(index) => index,
            None => {
                if bucket.len() >= GROUPS {
                    bucket.iter_mut().for_each(|it| it.forget_what_is_over(now, counter_reset));
                    bucket.retain(|it| !it.accounts.is_empty());
                }
                if bucket.len() >= GROUPS
                    && let Some(least) = (0..bucket.len()).min_by_key(|index| bucket[*index].weight())
                {
                    bucket.swap_remove(least);
                }
                bucket.push(Group { key, accounts: Vec::new() });
                bucket.len() - 1
            }
        };
        &mut bucket[index]
    }

    fn bucket(&self, group: u64) -> &Vec<Group> {
        &self.buckets[bucket_of(group)]
    }

    fn bucket_mut(&mut self, group: u64) -> &mut Vec<Group> {
        &mut self.buckets[bucket_of(group)]
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.buckets.iter().flatten().map(|group| group.accounts.len()).sum()
    }
}

fn bucket_of(group: u64) -> usize {
    usize::try_from(group % BUCKETS).unwrap_or(0)
}

impl Group {
    fn forget_what_is_over(&mut self, now: u64, counter_reset: u64) {
        self.accounts.retain(|it| match it.locked_until {
            Some(until) => now < until,
            None => now.saturating_sub(it.last) < counter_reset,
        });
    }

    /// The most that somebody in it has failed, and when.
    fn weight(&self) -> (u32, u64) {
        self.accounts.iter().map(|it| (it.failures, it.last)).max().unwrap_or_default()
    }

    fn account(&mut self, key: u64) -> &mut Account {
        let fresh = |inherited| Account { key, failures: inherited, inherited, last: 0, locked_until: None };
        // Who was pushed out of a place and comes back finds a free one: right logins of others made it.
        let pushed_out = self.accounts.iter().map(|it| it.inherited).max().unwrap_or(0);
        let index = match self.accounts.iter().position(|it| it.key == key) {
            Some(index) => index,
            None if self.accounts.len() < ACCOUNTS => {
                self.accounts.push(fresh(pushed_out));
                self.accounts.len() - 1
            }
            None => {
                let least = (0..ACCOUNTS).min_by_key(|index| {
                    let account = &self.accounts[*index];
                    (account.locked_until.is_some(), account.failures, account.last)
                });
                let least = least.unwrap_or(0);
                self.accounts[least] = fresh(self.accounts[least].failures);
                least
            }
        };
        &mut self.accounts[index]
    }
}
