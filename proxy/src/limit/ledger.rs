//! Everybody who is counted at the moment: tenants, and their users.
//!
//! Bounded: an account that nobody holds and whose buckets are full again is as good as a new one, and is forgotten.
//! When there are too many even so, newcomers of a tenant share one account.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use ahash::AHashMap;
use keygate_core::KeyspaceId;
use parking_lot::Mutex;

use super::account::{Account, PrefixAccount};
use super::gcra::Ticks;
use super::rules::{LimitRules, Rules, TenantRules};

const SHARDS: usize = 16;

/// Some 850 bytes each: 107 MiB when it is full.
pub const MAX_ACCOUNTS: usize = 131_072;

/// Accounts of a tenant that logins under names that no user has share.
pub(super) const STRANGERS: u64 = 64;

pub(super) struct Ledger {
    server: Arc<Account>,
    shards: [Mutex<AHashMap<KeyspaceId, Home>>; SHARDS],
    count: AtomicUsize,
    max: usize,
    next_swept: AtomicUsize,
    /// Nobody outside can tell which made-up names share a bucket.
    strangers: ahash::RandomState,
}

/// A tenant and its users.
struct Home {
    account: Arc<Account>,
    /// Those who have not said who they are, and those for whom there is no room.
    nobody: Arc<Account>,
    users: AHashMap<Arc<str>, Arc<Account>>,
    /// Those who log in under names that no user has, by the hash of the name.
    strangers: AHashMap<u64, Arc<Account>>,
}

/// Whose account is asked for.
#[derive(Clone, Copy)]
pub(super) struct Who<'a> {
    pub(super) keyspace: KeyspaceId,
    pub(super) tenant: &'a str,
    pub(super) user: Option<&'a str>,
}

impl Ledger {
    pub(super) fn new(rules: &LimitRules, max: usize) -> Self {
        let (tenant, told) = (Arc::from(""), Arc::from("this server"));
        let server = Account::new(KeyspaceId(0), tenant, None, told, None, rules.server.clone());
        Self {
            server,
            shards: std::array::from_fn(|_| Mutex::default()),
            count: AtomicUsize::new(0),
            max,
            next_swept: AtomicUsize::new(0),
            strangers: ahash::RandomState::new(),
        }
    }

    fn shard(&self, keyspace: KeyspaceId) -> &Mutex<AHashMap<KeyspaceId, Home>> {
        &self.shards[keyspace.0 as usize % SHARDS]
    }

    /// The account of this caller, made when it is not there. `rules` is asked within the lock, so that no account
    /// keeps rules that were replaced meanwhile.
    pub(super) fn find(&self, who: Who<'_>, now: Ticks, rules: &dyn Fn() -> Arc<LimitRules>) -> Arc<Account> {
        let mut shard = self.shard(who.keyspace).lock();
        let home = self.home(&mut shard, who, now, rules);
        let Some(user) = who.user else { return home.nobody.clone() };
        if let Some(account) = home.users.get(user) {
            return account.clone();
        }
        if self.count.load(Relaxed) >= self.max {
            return home.nobody.clone();
        }
        let rules = rules();
        let rules = rules.of_tenant(who.tenant).of_user(user);
        let told = format!("user `{user}` of tenant `{}`", who.tenant);
        let user: Arc<str> = user.into();
        let account = Account::new(
            who.keyspace,
            home.account.tenant.clone(),
            Some(user.clone()),
            told.into(),
            Some(home.account.clone()),
            rules.clone(),
        );
        home.users.insert(user, account.clone());
        self.count.fetch_add(1, Relaxed);
        account
    }

    /// The account that a login under a name that no user has is counted at: one of a few, however many such names
    /// are made up. They get at most half of the room, so that users find some.
    pub(super) fn find_stranger(
        &self,
        who: Who<'_>,
        now: Ticks,
        rules: &dyn Fn() -> Arc<LimitRules>,
    ) -> Arc<Account> {
        let bucket = self.strangers.hash_one(who.user) % STRANGERS;
        let mut shard = self.shard(who.keyspace).lock();
        let home = self.home(&mut shard, who, now, rules);
        if let Some(account) = home.strangers.get(&bucket) {
            return account.clone();
        }
        if self.count.load(Relaxed) >= self.max / 2 {
            return home.nobody.clone();
        }
        let account = Account::new(
            who.keyspace,
            home.account.tenant.clone(),
            Some(format!("(stranger {bucket})").into()),
            format!("unknown users of tenant `{}`", who.tenant).into(),
            Some(home.account.clone()),
            rules().of_tenant(who.tenant).user.clone(),
        );
        home.strangers.insert(bucket, account.clone());
        self.count.fetch_add(1, Relaxed);
        account
    }

    fn home<'a>(
        &self,
        shard: &'a mut AHashMap<KeyspaceId, Home>,
        who: Who<'_>,
        now: Ticks,
        rules: &dyn Fn() -> Arc<LimitRules>,
    ) -> &'a mut Home {
        if self.count.load(Relaxed) >= self.max {
            self.forget_idle(shard, now);
        }
        shard.entry(who.keyspace).or_insert_with(|| {
            self.count.fetch_add(2, Relaxed);
            Home::new(who, &self.server, &rules())
        })
    }

    /// Looks through a sixteenth of all accounts and forgets the idle ones. To be called about once a second.
    pub(super) fn sweep(&self, now: Ticks) {
        let next = self.next_swept.fetch_add(1, Relaxed) % SHARDS;
        self.forget_idle(&mut self.shards[next].lock(), now);
    }

    fn forget_idle(&self, shard: &mut AHashMap<KeyspaceId, Home>, now: Ticks) {
        let mut gone = 0;
        let idle = |account: &Arc<Account>, holders: usize| {
            Arc::strong_count(account) == holders && account.is_idle(now)
        };
        shard.retain(|_, home| {
            let mut keep = |account: &Arc<Account>| {
                let keep = !idle(account, 1);
                gone += usize::from(!keep);
                keep
            };
            home.users.retain(|_, account| keep(account));
            home.strangers.retain(|_, account| keep(account));
            // Held by itself and by the account of nobody.
            let empty = home.users.is_empty() && home.strangers.is_empty();
            let keep = !empty || !idle(&home.nobody, 1) || !idle(&home.account, 2);
            gone += if keep { 0 } else { 2 };
            keep
        });
        self.count.fetch_sub(gone, Relaxed);
    }

    /// Other rules for everybody.
    pub(super) fn adopt(&self, rules: &LimitRules, now: Ticks) {
        self.server.adopt(&rules.server, now);
        for shard in &self.shards {
            for home in shard.lock().values() {
                let own = rules.of_tenant(&home.account.tenant);
                home.account.adopt(&own.tenant, now);
                home.set_prefixes(own, now);
                home.nobody.adopt(&own.user, now);
                home.strangers.values().for_each(|account| account.adopt(&own.user, now));
                for (name, account) in &home.users {
                    account.adopt(own.of_user(name), now);
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    pub(super) fn each(&self, visit: &mut dyn FnMut(&Account)) {
        for shard in &self.shards {
            for home in shard.lock().values() {
                visit(&home.nobody);
                home.users.values().chain(home.strangers.values()).for_each(|account| visit(account));
            }
        }
    }
}

impl Home {
    fn new(who: Who<'_>, server: &Arc<Account>, rules: &LimitRules) -> Self {
        let own = rules.of_tenant(who.tenant);
        let tenant: Arc<str> = who.tenant.into();
        let account = |user_told: String, parent: &Arc<Account>, rules: &Arc<Rules>| {
            let (told, parent) = (user_told.into(), Some(parent.clone()));
            Account::new(who.keyspace, tenant.clone(), None, told, parent, rules.clone())
        };
        let of_tenant = account(format!("tenant `{tenant}`"), server, &own.tenant);
        let nobody = account(format!("unnamed callers of tenant `{tenant}`"), &of_tenant, &own.user);
        let home = Self { account: of_tenant, nobody, users: AHashMap::new(), strangers: AHashMap::new() };
        home.set_prefixes(own, Ticks(0));
        home.nobody.settle();
        home
    }

    /// Prefixes that had limits keep their counts.
    fn set_prefixes(&self, rules: &TenantRules, now: Ticks) {
        let before = self.account.prefixes();
        let prefixes = rules.prefixes.iter().map(|(prefix, rules)| {
            let known = before.iter().find(|known| known.prefix.as_ref() == prefix.as_slice());
            if let Some(known) = known {
                known.account.adopt(rules, now);
                return known.clone();
            }
            let tenant = &self.account.tenant;
            let told = format!("prefix `{}` of tenant `{tenant}`", prefix.escape_ascii());
            let keyspace = self.account.keyspace;
            let account = Account::new(keyspace, tenant.clone(), None, told.into(), None, rules.clone());
            PrefixAccount { prefix: prefix.as_slice().into(), account }
        });
        self.account.set_prefixes(prefixes.collect());
    }
}
