//! One of those who are counted: a user, a tenant, or the server as a whole.
//!
//! All counts are atomics, so that the threads on which a user's connections live need no lock. A request that is
//! refused by one account of its chain gives back what the others gave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use keygate_core::{KeyspaceId, Limited, Retry};

use super::gcra::{Gcra, Ticks, Wait};
use super::load::Load;
use super::rules::{CapRule, RATES, RateRule, Rules};

pub struct Account {
    pub(super) keyspace: KeyspaceId,
    /// None: those who have not said who they are, a tenant, or the server.
    pub(super) user: Option<Arc<str>>,
    /// As the tenant is called in metrics and reports.
    pub(super) tenant: Arc<str>,
    /// As those are told whose request was refused.
    told: Arc<str>,
    parent: Option<Arc<Account>>,
    rules: ArcSwap<Rules>,
    /// Has it or one above it any rule at all?
    limited: AtomicBool,
    full_at: [AtomicU64; RATES],
    pub(super) in_flight: AtomicU64,
    pub(super) watches: AtomicU64,
    pub(super) connections: AtomicU64,
    /// Lease grants that are under way: the state does not count them yet.
    pub(super) granting: AtomicU64,
    /// Of a tenant: its prefixes that have limits.
    prefixes: ArcSwap<Vec<PrefixAccount>>,
    pub(super) load: Load,
}

/// Limits of the keys that begin with some bytes.
#[derive(Clone)]
pub(super) struct PrefixAccount {
    pub(super) prefix: Arc<[u8]>,
    pub(super) account: Arc<Account>,
}

impl Account {
    pub(super) fn new(
        keyspace: KeyspaceId,
        tenant: Arc<str>,
        user: Option<Arc<str>>,
        told: Arc<str>,
        parent: Option<Arc<Self>>,
        rules: Arc<Rules>,
    ) -> Arc<Self> {
        let account = Self {
            keyspace,
            user,
            tenant,
            told,
            parent,
            rules: ArcSwap::new(rules),
            limited: AtomicBool::new(false),
            full_at: std::array::from_fn(|_| AtomicU64::new(0)),
            in_flight: AtomicU64::new(0),
            watches: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            granting: AtomicU64::new(0),
            prefixes: ArcSwap::default(),
            load: Load::default(),
        };
        account.settle();
        Arc::new(account)
    }

    /// It and those above it, itself first.
    pub(super) fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |account| account.parent.as_deref())
    }

    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    pub(super) fn is_limited(&self) -> bool {
        self.limited.load(Relaxed)
    }

    /// Other rules from now on. What is counted stays.
    pub(super) fn adopt(&self, rules: &Arc<Rules>, now: Ticks) {
        self.rules.store(rules.clone());
        for rule in RateRule::ALL {
            if let Some(rate) = rules.rate(rule) {
                let bucket = &self.full_at[rule as usize];
                let full_at = Ticks(bucket.load(Relaxed));
                bucket.fetch_min(rate.gcra.adopt(full_at, now).0, Relaxed);
            }
        }
        self.settle();
    }

    /// To be called when rules of its own, of its prefixes or of one above it have changed.
    pub(super) fn settle(&self) {
        let limited = self
            .chain()
            .any(|account| !account.rules.load().is_empty() || !account.prefixes.load().is_empty());
        self.limited.store(limited, Relaxed);
    }

    pub(super) fn set_prefixes(&self, prefixes: Vec<PrefixAccount>) {
        self.prefixes.store(Arc::new(prefixes));
        self.settle();
    }

    pub(super) fn prefixes(&self) -> arc_swap::Guard<Arc<Vec<PrefixAccount>>> {
        self.prefixes.load()
    }

    pub(super) fn rules(&self) -> arc_swap::Guard<Arc<Rules>> {
        self.rules.load()
    }

    /// Nobody would notice if it were made anew.
    pub(super) fn is_idle(&self, now: Ticks) -> bool {
        let held = [&self.in_flight, &self.watches, &self.connections, &self.granting];
        held.iter().all(|held| held.load(Relaxed) == 0)
            && self.full_at.iter().all(|full_at| full_at.load(Relaxed) <= now.0)
    }

    /// The smallest of a chain's caps that are not shadows.
    pub(super) fn smallest(&self, rule: CapRule) -> Option<u64> {
        let own = self.chain().filter_map(|account| {
            let cap = account.rules.load().cap(rule)?;
            (!cap.shadow).then_some(cap.max)
        });
        own.min()
    }

    /// The largest, for rules that set a least.
    pub(super) fn largest(&self, rule: CapRule) -> Option<u64> {
        let own = self.chain().filter_map(|account| account.rules.load().cap(rule));
        own.filter(|cap| !cap.shadow).map(|cap| cap.max).max()
    }

    pub(super) fn has_cap(&self, rule: CapRule) -> bool {
        self.chain().any(|account| account.rules.load().cap(rule).is_some())
    }

    pub(super) fn limited(&self, rule: &'static str, limit: u64, retry: Retry) -> Box<Limited> {
        Box::new(Limited { rule, subject: self.told.clone(), limit, retry })
    }

    /// Takes `cost` from one bucket. What it moved the bucket by is what can be given back.
    pub(super) fn take(
        &self,
        rule: RateRule,
        gcra: &Gcra,
        now: Ticks,
        cost: u64,
    ) -> Result<u64, Box<Limited>> {
        let bucket = &self.full_at[rule as usize];
        let mut seen = bucket.load(Relaxed);
        loop {
            let taken = gcra.take(Ticks(seen), now, cost).map_err(|Wait(wait)| {
                let retry = Retry::After {
                    wait: wait.duration(),
                    remaining: gcra.remaining(Ticks(seen), now),
                    reset: Ticks(seen.saturating_sub(now.0)).duration(),
                };
                self.limited(rule.name(), gcra.per_second(), retry)
            })?;
            match bucket.compare_exchange_weak(seen, taken.full_at.0, Relaxed, Relaxed) {
                Ok(_) => return Ok(taken.moved),
                Err(newer) => seen = newer,
            }
        }
    }

    pub(super) fn give_back(&self, rule: RateRule, moved: u64) {
        // Other rules may have lowered it meanwhile by more than is given back.
        let given = |full_at: u64| Some(full_at.saturating_sub(moved));
        let _previous = self.full_at[rule as usize].fetch_update(Relaxed, Relaxed, given);
    }

    /// Charges what is known only afterwards, to the whole chain.
    pub(super) fn charge(&self, rule: RateRule, now: Ticks, cost: u64) {
        self.chain().for_each(|account| account.charge_own(rule, now, cost));
    }

    pub(super) fn charge_own(&self, rule: RateRule, now: Ticks, cost: u64) {
        if let Some(rate) = self.rules.load().rate(rule) {
            let charged = |seen| Some(rate.gcra.charge(Ticks(seen), now, cost).0);
            // Never refuses.
            let _previous = self.full_at[rule as usize].fetch_update(Relaxed, Relaxed, charged);
        }
    }
}

/// Something that is held: counted in an account's chain until dropped.
pub struct Seat {
    account: Arc<Account>,
    of: fn(&Account) -> &AtomicU64,
}

impl Seat {
    /// One more, unless some account of the chain has as many as it may. `refused` is told of each limit that was
    /// met, shadows included, and by the flag whether it refuses.
    pub(super) fn take(
        account: &Arc<Account>,
        rule: CapRule,
        of: fn(&Account) -> &AtomicU64,
        refused: &mut dyn FnMut(&Account, bool),
    ) -> Result<Self, Box<Limited>> {
        let give_back = |until: &Account| {
            let taken = account.chain().take_while(|one| !std::ptr::eq(*one, until));
            taken.chain(std::iter::once(until)).for_each(|one| {
                of(one).fetch_sub(1, Relaxed);
            });
        };
        for one in account.chain() {
            let before = of(one).fetch_add(1, Relaxed);
            let Some(cap) = one.rules.load().cap(rule) else { continue };
            if before >= cap.max {
                refused(one, !cap.shadow);
                if !cap.shadow {
                    give_back(one);
                    return Err(one.limited(rule.name(), cap.max, Retry::WhenFreed));
                }
            }
        }
        Ok(Self { account: account.clone(), of })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        for account in self.account.chain() {
            (self.of)(account).fetch_sub(1, Relaxed);
        }
    }
}
