//! Limits: how much of what a user, a tenant, the keys below a prefix, or everybody together may have.
//!
//! A request takes from all buckets of its chain (user, tenant, server, prefixes) or from none. What it costs is known
//! before it runs where that can be known; what only its answer shows is charged then, and paid by those that
//! follow. Who has no limits pays for one look at a flag and two counters.
//!
//! Strangers take from no tenant: whoever has shown nothing where that is asked for is counted nowhere, and is
//! refused by the policy. Their logins have a rule of their own.

mod account;
mod file;
mod gcra;
mod ledger;
mod load;
mod report;
mod rules;
mod shape;
mod slot;
mod sources;
mod tallies;

pub use account::{Account, Seat};
pub use file::LimitsFile;
pub use gcra::{Gcra, MAX_RATE, Taken, Ticks, Wait};
pub use ledger::MAX_ACCOUNTS;
pub use rules::{Cap, CapRule, LimitRules, Rate, RateRule, Rules, Scope, TenantRules, Unit};
pub use shape::{Class, Found};
pub use slot::{Counted as StreamSeat, Slot};
pub use sources::SourceSeat;
pub use tallies::Tally;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use keygate_core::{Answer, Caller, DEFAULT_TENANT, LeaseGrant, Operation, Plaintext, Refusal, Retry};
use keygate_engine::View;
use smallvec::SmallVec;

use crate::identify::{ConnectionIdentity, user_of_login};
use ledger::{Ledger, Who};
use shape::{Longest, reads_ranges, touches, txn_size};
use slot::Settled;
use sources::Sources;
use tallies::Tallies;

/// Longer a keepalive is not held back: clients send the next one behind it.
const LONGEST_DELAY: Duration = Duration::from_secs(1);

/// Prefixes that one request is counted at.
const MAX_PREFIXES: usize = 8;

/// One for the process.
pub struct Limiter {
    rules: ArcSwap<LimitRules>,
    ledger: Ledger,
    sources: Sources,
    tallies: Tallies,
    began: Instant,
}

/// A request that may go on. In flight until dropped.
pub struct Admission<'a> {
    limiter: &'a Limiter,
    settled: Option<Arc<Settled>>,
    class: Class,
    /// To be waited for before it goes on.
    pub delay: Option<Duration>,
    _in_flight: Option<Seat>,
    _granting: Option<Seat>,
}

/// Who asks for what, on which connection.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub view: &'a View,
    pub caller: &'a Caller,
    pub connection: &'a ConnectionIdentity,
}

impl Limiter {
    pub fn new(rules: LimitRules) -> Arc<Self> {
        Self::with_room_for(rules, MAX_ACCOUNTS)
    }

    fn with_room_for(rules: LimitRules, accounts: usize) -> Arc<Self> {
        let ledger = Ledger::new(&rules, accounts);
        let sources = Sources::default();
        Arc::new(Self {
            rules: ArcSwap::from_pointee(rules),
            ledger,
            sources,
            tallies: Tallies::default(),
            began: Instant::now(),
        })
    }

    /// Other rules from now on, for everybody and at once. What is in flight goes on.
    pub fn adopt(&self, rules: LimitRules) {
        let rules = Arc::new(rules);
        // First, so that accounts made meanwhile have them too.
        self.rules.store(rules.clone());
        self.ledger.adopt(&rules, self.now());
    }

    pub fn rules(&self) -> Arc<LimitRules> {
        self.rules.load_full()
    }

    /// To be called about once a second.
    pub fn sweep(&self) {
        self.ledger.sweep(self.now());
    }

    /// Those who are counted at the moment.
    pub fn accounts(&self) -> usize {
        self.ledger.len()
    }

    pub fn each_account(&self, visit: &mut dyn FnMut(&Account)) {
        self.ledger.each(visit);
    }

    /// Requests that met a limit, and those that met a shadow.
    pub fn tallies(&self) -> Vec<Tally> {
        self.tallies.all()
    }

    /// A connection from this address; None: there are as many as there may be.
    pub fn connect(&self, source: crate::identify::Source) -> Option<SourceSeat> {
        let cap = self.rules.load().connections_per_source;
        self.sources.take(source, cap, &mut |refuses| {
            self.tallies.count("", "connection", "connections-per-source", refuses);
        })
    }

    /// May this request go on? Changes a range or a lease that asks for more than it may have.
    pub fn admit(
        &self,
        request: Request<'_>,
        operation: &mut Operation<Plaintext>,
        bytes: usize,
    ) -> Result<Admission<'_>, Refusal> {
        let class = Class::of(operation);
        let mut admission =
            Admission { limiter: self, settled: None, class, delay: None, _in_flight: None, _granting: None };
        if class == Class::Health {
            return Ok(admission);
        }
        let login = match operation {
            Operation::Authenticate { name, .. } => Some(name.as_str()),
            _ => None,
        };
        let Some(settled) = self.settled(request, login, class)? else { return Ok(admission) };
        let account = &settled.account;
        let bytes = bytes as u64;
        account.load.asked(bytes);
        if account.is_limited() {
            let decided = self.decide(&mut admission, account, request, operation, bytes);
            if let Err(mut refusal) = decided {
                account.load.refused();
                // Who logs in is not told whether there is such a user.
                if let (Refusal::Limited(limited), Class::Login) = (&mut refusal, class) {
                    limited.subject = "this login".into();
                }
                return Err(refusal);
            }
        }
        admission.settled = Some(settled);
        Ok(admission)
    }

    fn decide(
        &self,
        admission: &mut Admission<'_>,
        account: &Arc<Account>,
        request: Request<'_>,
        operation: &mut Operation<Plaintext>,
        bytes: u64,
    ) -> Result<(), Refusal> {
        let class = admission.class;
        self.check_shape(account, class, operation)?;
        // A keepalive is paced instead: a lease that is lost costs more.
        if class != Class::KeepAlive && account.has_cap(CapRule::InFlight) {
            admission._in_flight = Some(self.seat(account, class, CapRule::InFlight, |it| &it.in_flight)?);
        }
        if matches!(operation, Operation::LeaseGrant(_)) {
            admission._granting = self.room_for_lease(account, request.view)?;
        }
        if class == Class::KeepAlive {
            admission.delay = self.pace(account);
            return Ok(());
        }
        self.take(account, class, operation, bytes)
    }

    /// None: a caller who has shown nothing where that is asked for.
    fn settled(
        &self,
        request: Request<'_>,
        login: Option<&str>,
        class: Class,
    ) -> Result<Option<Arc<Settled>>, Refusal> {
        let Request { view, caller, connection } = request;
        let keyspace = caller.keyspace();
        let user = caller.name().or(login);
        if user.is_none() && view.keyspace(keyspace).is_none_or(|keyspace| keyspace.auth().enabled) {
            return Ok(None);
        }
        // Who logs in is not yet who the connection belongs to.
        if login.is_none()
            && let Some(settled) = connection.slot().settled(keyspace, user, class != Class::KeepAlive)
        {
            return Ok(Some(settled));
        }
        let tenant = view.tenant_of(keyspace).map(|tenant| tenant.name.as_str());
        let user = if login.is_some() { user.map(|user| user_of_login(tenant, user)) } else { user };
        let who = Who { keyspace, tenant: tenant.unwrap_or(DEFAULT_TENANT), user };
        let rules = || self.rules.load_full();
        // Any name may be tried, so only those that users have get an account of their own.
        let is_user = |name| view.keyspace(keyspace).is_some_and(|it| it.auth().users.contains_key(name));
        let account = if login.is_some() && !user.is_some_and(is_user) {
            self.ledger.find_stranger(who, self.now(), &rules)
        } else {
            self.ledger.find(who, self.now(), &rules)
        };
        if login.is_some() {
            return Ok(Some(Settled::new(account, user, None)));
        }
        // A connection that only keeps leases alive is not refused: it is counted when it asks for something else.
        if class == Class::KeepAlive {
            let settled = Settled::new(account, user, None);
            connection.slot().remember(&settled);
            return Ok(Some(settled));
        }
        let seat = self.seat(&account, class, CapRule::Connections, |it| &it.connections)?;
        let settled = Settled::new(account, user, Some(seat));
        connection.slot().settle(settled.clone());
        Ok(Some(settled))
    }

    /// What does not depend on what others do.
    fn check_shape(
        &self,
        account: &Account,
        class: Class,
        operation: &mut Operation<Plaintext>,
    ) -> Result<(), Refusal> {
        match operation {
            Operation::Put(_) | Operation::Txn(_) => self.check_write(account, class, operation)?,
            Operation::Range(range) => {
                // One more shows that there are too many.
                if let Some(max) = account.smallest(CapRule::RangeRows)
                    && !range.count_only
                {
                    let enough = i64::try_from(max).unwrap_or(i64::MAX).saturating_add(1);
                    range.limit = if range.limit <= 0 { enough } else { range.limit.min(enough) };
                }
            }
            Operation::LeaseGrant(LeaseGrant { ttl, .. }) => {
                let asked = u64::try_from(*ttl).unwrap_or(0);
                self.cap(account, class, CapRule::LeaseTtlMax, asked, |_| Refusal::LeaseTtlTooLarge)?;
                if let Some(min) = account.largest(CapRule::LeaseTtlMin)
                    && asked < min
                    && *ttl > 0
                {
                    *ttl = i64::try_from(min).unwrap_or(i64::MAX);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn check_write(
        &self,
        account: &Account,
        class: Class,
        operation: &Operation<Plaintext>,
    ) -> Result<(), Refusal> {
        let too_large = |size: u64| {
            move |limit: u64| Refusal::RequestTooLarge { size: size as usize, limit: limit as usize }
        };
        let longest = Longest::of(operation, b"");
        for (rule, size) in [(CapRule::KeySize, longest.key), (CapRule::ValueSize, longest.value)] {
            self.cap(account, class, rule, size as u64, too_large(size as u64))?;
        }
        if let Operation::Txn(txn) = operation {
            let (operations, depth) = txn_size(txn);
            let too_many = |_| Refusal::TooManyOperations;
            self.cap(account, class, CapRule::TxnOperations, operations as u64, too_many)?;
            let too_deep = |limit: u64| Refusal::TxnTooDeep { limit: limit as usize };
            self.cap(account, class, CapRule::TxnDepth, depth as u64, too_deep)?;
        }
        for one in account.chain() {
            for prefix in one.prefixes().iter() {
                let longest = Longest::of(operation, &prefix.prefix);
                for (rule, size) in [(CapRule::KeySize, longest.key), (CapRule::ValueSize, longest.value)] {
                    self.cap(&prefix.account, class, rule, size as u64, too_large(size as u64))?;
                }
            }
        }
        Ok(())
    }

    /// Refuses what is larger than some account of the chain lets it be.
    fn cap(
        &self,
        account: &Account,
        class: Class,
        rule: CapRule,
        size: u64,
        refusal: impl Fn(u64) -> Refusal,
    ) -> Result<(), Refusal> {
        for one in account.chain() {
            let Some(cap) = one.rules().cap(rule) else { continue };
            if size > cap.max {
                self.tallies.count(&account.tenant, class.name(), rule.name(), !cap.shadow);
                if !cap.shadow {
                    return Err(refusal(cap.max));
                }
            }
        }
        Ok(())
    }

    fn seat(
        &self,
        account: &Arc<Account>,
        class: Class,
        rule: CapRule,
        of: fn(&Account) -> &std::sync::atomic::AtomicU64,
    ) -> Result<Seat, Refusal> {
        let seat = Seat::take(account, rule, of, &mut |_, refuses| {
            self.tallies.count(&account.tenant, class.name(), rule.name(), refuses);
        });
        seat.map_err(Refusal::Limited)
    }

    /// Exact: grants that the state does not show yet count too, once or, for a moment, twice.
    fn room_for_lease(&self, account: &Arc<Account>, view: &View) -> Result<Option<Seat>, Refusal> {
        let Some((owner, cap)) =
            account.chain().find_map(|one| Some((one, one.rules().cap(CapRule::Leases)?)))
        else {
            return Ok(None);
        };
        let granting = self.seat(account, Class::Write, CapRule::Leases, |it| &it.granting);
        let under_way = owner.granting.load(Relaxed);
        let there = view.keyspace(account.keyspace).map_or(0, |keyspace| keyspace.leases().count() as u64);
        if there.saturating_add(under_way) > cap.max {
            self.tallies.count(&account.tenant, Class::Write.name(), CapRule::Leases.name(), !cap.shadow);
            if !cap.shadow {
                let limited = owner.limited(CapRule::Leases.name(), cap.max, Retry::WhenFreed);
                return Err(Refusal::Limited(limited));
            }
        }
        granting.map(Some)
    }

    /// How long a keepalive waits.
    fn pace(&self, account: &Account) -> Option<Duration> {
        let (rule, now) = (RateRule::KeepAlives, self.now());
        let mut longest = Duration::ZERO;
        for one in account.chain() {
            let Some(rate) = one.rules().rate(rule).copied() else { continue };
            let Err(limited) = one.take(rule, &rate.gcra, now, 1) else { continue };
            self.tallies.count(&account.tenant, Class::KeepAlive.name(), rule.name(), false);
            if let (Retry::After { wait, .. }, false) = (limited.retry, rate.shadow) {
                longest = longest.max(wait);
                // Its turn comes then. Those who would wait longer than anybody does take no turn.
                if wait <= LONGEST_DELAY {
                    one.charge_own(rule, now, 1);
                }
            }
        }
        (!longest.is_zero()).then_some(longest.min(LONGEST_DELAY))
    }

    /// From all buckets or from none.
    fn take(
        &self,
        account: &Account,
        class: Class,
        operation: &Operation<Plaintext>,
        bytes: u64,
    ) -> Result<(), Refusal> {
        let now = self.now();
        let own = class.rule().map(|rule| (rule, 1));
        let any = (class != Class::Login).then_some((RateRule::Requests, 1));
        let size = (bytes > 0 && class != Class::Login).then_some((RateRule::BytesIn, bytes));
        // A txn that writes may look for as much as any range.
        let ranges = matches!(operation, Operation::Txn(txn) if class == Class::Write && reads_ranges(txn));
        let ranges = ranges.then_some((RateRule::Ranges, 1));
        // What these cost is charged afterwards: here it only matters that nothing is owed.
        let owed = |rule| (class != Class::Login).then_some((rule, 0));
        let costs = [own, ranges, any, size, owed(RateRule::BytesOut), owed(RateRule::RangeCost)];
        let touched = touched(account, operation);
        let mut taken: SmallVec<[(&Account, RateRule, u64); 12]> = SmallVec::new();
        for one in account.chain().chain(touched.iter().map(Arc::as_ref)) {
            let rules = one.rules();
            for (rule, cost) in costs.into_iter().flatten() {
                let Some(rate) = rules.rate(rule) else { continue };
                let limited = match one.take(rule, &rate.gcra, now, cost) {
                    Ok(moved) => {
                        taken.push((one, rule, moved));
                        continue;
                    }
                    Err(limited) => limited,
                };
                self.tallies.count(&account.tenant, class.name(), rule.name(), !rate.shadow);
                if !rate.shadow {
                    taken.iter().for_each(|(one, rule, moved)| one.give_back(*rule, *moved));
                    return Err(Refusal::Limited(limited));
                }
            }
        }
        Ok(())
    }

    fn now(&self) -> Ticks {
        Ticks::of(self.began.elapsed())
    }

    /// A watcher that is to be made: counted until it ends.
    pub fn watcher(
        &self,
        request: Request<'_>,
        admission: &Admission<'_>,
    ) -> Result<Option<WatcherSeat>, Refusal> {
        let Some(account) = admission.account() else { return Ok(None) };
        let rule = CapRule::ConnectionWatches;
        let on_connection = request.connection.slot().watcher();
        self.cap(account, Class::Read, rule, on_connection.count(), |max| {
            Refusal::Limited(account.limited(rule.name(), max, Retry::WhenFreed))
        })?;
        let seat = self.seat(account, Class::Read, CapRule::Watches, |it| &it.watches)?;
        Ok(Some(WatcherSeat { _seat: seat, _on_connection: on_connection }))
    }

    /// A stream that lasts: counted on its connection until it ends.
    pub fn stream(&self, request: Request<'_>) -> Result<Option<slot::Counted>, Refusal> {
        // It may be one of keepalives; the requests of others are counted for themselves.
        let Some(settled) = self.settled(request, None, Class::KeepAlive)? else { return Ok(None) };
        let account = &settled.account;
        let rule = CapRule::Streams;
        let stream = request.connection.slot().stream();
        self.cap(account, Class::Read, rule, stream.count(), |max| {
            Refusal::Limited(account.limited(rule.name(), max, Retry::WhenFreed))
        })?;
        Ok(Some(stream))
    }
}

/// A place among the watchers of a user, a tenant, the server and a connection.
pub struct WatcherSeat {
    _seat: Seat,
    _on_connection: slot::Counted,
}

impl Admission<'_> {
    fn account(&self) -> Option<&Arc<Account>> {
        self.settled.as_ref().map(|settled| &settled.account)
    }

    /// What was found, before it is sent.
    pub fn found(&self, answer: &Answer<Plaintext>) -> Result<(), Refusal> {
        let Some(account) = self.account().filter(|account| account.is_limited()) else { return Ok(()) };
        let found = Found::in_answer(answer);
        self.limiter.found(account, self.class, found, found)
    }

    /// What was sent.
    pub fn sent(&self, bytes: usize) {
        if let Some(account) = self.account() {
            self.limiter.sent(account, bytes);
        }
    }

    /// For an answer of many messages. `limiter` is the one that admitted.
    pub fn into_payer(self, limiter: &Arc<Limiter>) -> Option<Payer> {
        // The account alone: a stream may outlast whom its connection belongs to.
        let account = self.account()?.clone();
        let Self { class, _in_flight, .. } = self;
        Some(Payer { limiter: limiter.clone(), account, class, found: Found::default(), _in_flight })
    }
}

/// Pays for an answer of many messages, as they are sent.
pub struct Payer {
    limiter: Arc<Limiter>,
    account: Arc<Account>,
    class: Class,
    found: Found,
    _in_flight: Option<Seat>,
}

impl Payer {
    /// What it pays for from now on lasts, and is not a request at work.
    pub fn at_rest(self) -> Self {
        Self { _in_flight: None, ..self }
    }

    /// One more piece of a range. Refused when all pieces together are more than they may be.
    pub fn found(&mut self, answer: &Answer<Plaintext>) -> Result<(), Refusal> {
        let piece = Found::in_answer(answer);
        self.sent(piece.bytes as usize);
        self.found.rows += piece.rows;
        self.found.bytes += piece.bytes;
        self.limiter.found(&self.account, self.class, piece, self.found)
    }

    pub fn sent(&self, bytes: usize) {
        self.limiter.sent(&self.account, bytes);
    }
}

impl Limiter {
    fn sent(&self, account: &Account, bytes: usize) {
        let bytes = bytes as u64;
        account.load.answered(bytes);
        if account.is_limited() {
            account.charge(RateRule::BytesOut, self.now(), bytes);
        }
    }

    /// `piece` is paid for even when all of it together is refused: it was looked for.
    fn found(&self, account: &Account, class: Class, piece: Found, all: Found) -> Result<(), Refusal> {
        if !account.is_limited() || piece.rows == 0 {
            return Ok(());
        }
        account.charge(RateRule::RangeCost, self.now(), piece.cost());
        for (rule, size) in [(CapRule::RangeRows, all.rows), (CapRule::RangeBytes, all.bytes)] {
            self.cap(account, class, rule, size, |max| {
                account.load.refused();
                Refusal::Limited(account.limited(rule.name(), max, Retry::Never))
            })?;
        }
        Ok(())
    }
}

/// The prefixes with limits that a request touches.
fn touched(account: &Account, operation: &Operation<Plaintext>) -> Vec<Arc<Account>> {
    let mut found = Vec::new();
    for one in account.chain() {
        let touched = one.prefixes();
        let touched = touched.iter().filter(|prefix| touches(operation, &prefix.prefix));
        found.extend(touched.take(MAX_PREFIXES).map(|prefix| prefix.account.clone()));
    }
    found
}

#[cfg(test)]
mod tests;
