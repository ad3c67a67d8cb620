//! etcd's simple tokens: opaque, kept in memory, forgotten some time after their last use and with
//! the process. Bounded in number for each user and in all; the least recently issued go first.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keygate_core::{KeyspaceId, Refusal, Secret};
use parking_lot::RwLock;

/// About 200 bytes each, so 20 MB at most.
const MAX_TOKENS: usize = 100_000;
/// A thousand clients of one user log in at once in etcd's own tests; ten times that.
const MAX_TOKENS_OF_USER: usize = 10_000;
/// For a dead token, before a living one goes: a fraction of a millisecond.
const LOOKS_WHEN_FULL: usize = 1000;
/// As in etcd: letters only, before the dot.
const LETTERS: usize = 16;

/// Whom a token is of.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Holder {
    pub(super) keyspace: KeyspaceId,
    pub(super) user: Arc<str>,
}

/// What one token stands for.
pub(super) struct Entry {
    holder: Holder,
    /// The token is dead once the user's differs.
    credential_revision: u64,
    born: Instant,
    /// Milliseconds after `born`.
    expires: AtomicU64,
    revoked: AtomicBool,
}

impl Entry {
    pub(super) fn holder(&self) -> &Holder {
        &self.holder
    }

    pub(super) fn credential_revision(&self) -> u64 {
        self.credential_revision
    }

    /// Extends the token's life to `ttl` from now; false when it is over.
    pub(super) fn touch(&self, now: Instant, ttl: Duration) -> bool {
        let age = millis(now.saturating_duration_since(self.born));
        let expires = self.expires.load(Ordering::Relaxed);
        if age >= expires || self.revoked.load(Ordering::Relaxed) {
            return false;
        }
        let extended = age.saturating_add(millis(ttl));
        // Threads share this line of memory: a write each quarter of a second is enough.
        if extended > expires.saturating_add(250) {
            self.expires.fetch_max(extended, Ordering::Relaxed);
        }
        true
    }

    /// How long the token lives if nobody uses it; None: it is dead. Asking is no use.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        if self.revoked.load(Ordering::Relaxed) {
            return None;
        }
        let age = millis(now.saturating_duration_since(self.born));
        let left = self.expires.load(Ordering::Relaxed).checked_sub(age).filter(|left| *left > 0);
        left.map(Duration::from_millis)
    }

    fn is_alive(&self, now: Instant) -> bool {
        millis(now.saturating_duration_since(self.born)) < self.expires.load(Ordering::Relaxed)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Default)]
struct Table {
    by_text: HashMap<Arc<str>, Arc<Entry>, ahash::RandomState>,
    by_holder: HashMap<Holder, BTreeMap<u64, Arc<str>>, ahash::RandomState>,
    /// How many there are of each keyspace.
    of_keyspace: HashMap<KeyspaceId, usize, ahash::RandomState>,
    /// In order of issue; holds numbers of tokens that are gone, too.
    order: VecDeque<Issued>,
    /// How far `order` was looked through for dead ones.
    looked: usize,
    next: u64,
}

struct Issued {
    number: u64,
    holder: Holder,
}

/// Shared by all threads. Reads take the lock shared, and most requests not at all (see
/// `ConnectionIdentity`).
pub struct SimpleTokens {
    ttl: Duration,
    limits: TokenLimits,
    table: RwLock<Table>,
    count: AtomicU64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct TokenLimits {
    total: usize,
    of_user: usize,
}

impl SimpleTokens {
    /// `ttl` counts from the last use.
    pub fn new(ttl: Duration) -> Self {
        Self::with_limits(ttl, TokenLimits { total: MAX_TOKENS, of_user: MAX_TOKENS_OF_USER })
    }

    fn with_limits(ttl: Duration, limits: TokenLimits) -> Self {
        Self { ttl, limits, table: RwLock::default(), count: AtomicU64::new(0) }
    }

    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    pub(super) fn issue(
        &self,
        keyspace: KeyspaceId,
        user: &str,
        credential_revision: u64,
    ) -> Result<Secret, Refusal> {
        let letters = random_letters()?;
        let now = Instant::now();
        let mut table = self.table.write();
        table.next += 1;
        let number = table.next;
        let text: Arc<str> = format!("{letters}.{number}").into();
        let holder = Holder { keyspace, user: user.into() };
        // One text for all tokens of a user.
        let holder = table.by_holder.get_key_value(&holder).map_or(holder, |(shared, _)| shared.clone());
        let entry = Entry {
            holder: holder.clone(),
            credential_revision,
            born: now,
            expires: AtomicU64::new(millis(self.ttl)),
            revoked: AtomicBool::new(false),
        };
        table.by_text.insert(text.clone(), Arc::new(entry));
        *table.of_keyspace.entry(keyspace).or_default() += 1;
        table.by_holder.entry(holder.clone()).or_default().insert(number, text.clone());
        table.order.push_back(Issued { number, holder: holder.clone() });
        table.drop_dead(now);
        if table.by_holder.get(&holder).is_some_and(|own| own.len() > self.limits.of_user) {
            table.drop_one_of(&holder, now);
        }
        while table.by_text.len() > self.limits.total
            && (table.drop_next_dead(now, LOOKS_WHEN_FULL) || table.drop_oldest())
        {}
        self.count.store(table.by_text.len() as u64, Ordering::Relaxed);
        Ok(Secret::new(text.as_ref().to_owned()))
    }

    pub(super) fn find(&self, text: &str) -> Option<Arc<Entry>> {
        self.table.read().by_text.get(text).cloned()
    }

    /// Costs one load when there is no token at all, and a shared look when there is none of this keyspace.
    pub(super) fn forget_all(&self, keyspace: KeyspaceId) {
        if self.count.load(Ordering::Relaxed) == 0 || !self.table.read().of_keyspace.contains_key(&keyspace) {
            return;
        }
        let mut table = self.table.write();
        let gone: Vec<(Holder, u64)> = table
            .by_holder
            .iter()
            .filter(|(holder, _)| holder.keyspace == keyspace)
            .flat_map(|(holder, own)| own.keys().map(|number| (holder.clone(), *number)))
            .collect();
        for (holder, number) in gone {
            table.remove_number(&holder, number);
        }
        self.count.store(table.by_text.len() as u64, Ordering::Relaxed);
    }
}

impl Table {
    fn remove_number(&mut self, holder: &Holder, number: u64) -> bool {
        let Some(own) = self.by_holder.get_mut(holder) else { return false };
        let Some(text) = own.remove(&number) else { return false };
        if own.is_empty() {
            self.by_holder.remove(holder);
        }
        if let Some(count) = self.of_keyspace.get_mut(&holder.keyspace) {
            *count -= 1;
            if *count == 0 {
                self.of_keyspace.remove(&holder.keyspace);
            }
        }
        if let Some(entry) = self.by_text.remove(&text) {
            entry.revoked.store(true, Ordering::Relaxed);
        }
        true
    }

    /// A dead one before the oldest.
    fn drop_one_of(&mut self, holder: &Holder, now: Instant) {
        let Some(own) = self.by_holder.get(holder) else { return };
        let dead = own.iter().find(|(_, text)| !self.is_alive(text, now));
        if let Some(number) = dead.or_else(|| own.first_key_value()).map(|(number, _)| *number) {
            self.remove_number(holder, number);
        }
    }

    fn is_alive(&self, text: &str, now: Instant) -> bool {
        self.by_text.get(text).is_some_and(|entry| entry.is_alive(now))
    }

    /// The oldest of the keyspace that has most: no tenant's logins end those of another. False when there was
    /// nothing to drop.
    fn drop_oldest(&mut self) -> bool {
        let most = self.of_keyspace.iter().max_by_key(|(id, count)| (**count, **id)).map(|(id, _)| *id);
        let Some(most) = most else { return false };
        while let Some(at) = self.order.iter().position(|issued| issued.holder.keyspace == most) {
            let Some(issued) = self.order.remove(at) else { return false };
            if at < self.looked {
                self.looked -= 1;
            }
            if self.remove_number(&issued.holder, issued.number) {
                return true;
            }
        }
        false
    }

    /// Two looks for each token issued, so that what is dead goes away at twice the rate at which
    /// new ones come. One that is alive is passed over, and looked at again in the next round.
    fn drop_dead(&mut self, now: Instant) {
        for _ in 0..2 {
            self.drop_next_dead(now, 1);
        }
    }

    /// False when none was found with so many looks.
    fn drop_next_dead(&mut self, now: Instant, looks: usize) -> bool {
        for _ in 0..looks {
            if self.looked >= self.order.len() {
                self.looked = 0;
            }
            let Some(issued) = self.order.get(self.looked) else { return false };
            let text = self.by_holder.get(&issued.holder).and_then(|own| own.get(&issued.number));
            if text.is_some_and(|text| self.is_alive(text, now)) {
                self.looked += 1;
                continue;
            }
            let Some(issued) = self.order.remove(self.looked) else { return false };
            if self.remove_number(&issued.holder, issued.number) {
                return true;
            }
        }
        false
    }
}

/// 52 letters are not a power of two: bytes from 208 on are thrown away, so that each letter is
/// equally likely. 91 bits.
fn random_letters() -> Result<String, Refusal> {
    const ALPHABET: &[u8; 52] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut letters = String::with_capacity(LETTERS + 21);
    while letters.len() < LETTERS {
        let mut bytes = [0_u8; 32];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Refusal::Internal { cause: "no random numbers" })?;
        let usable = bytes.iter().filter(|byte| **byte < 208);
        for byte in usable.take(LETTERS - letters.len()) {
            letters.push(char::from(ALPHABET[usize::from(byte % 52)]));
        }
    }
    Ok(letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alive(tokens: &SimpleTokens, token: &Secret) -> bool {
        tokens.find(token.expose()).is_some_and(|entry| entry.touch(Instant::now(), tokens.ttl()))
    }

    #[test]
    fn a_token_is_sixteen_letters_a_dot_and_a_number() {
        let tokens = SimpleTokens::new(Duration::from_secs(300));
        let first = tokens.issue(KeyspaceId::DEFAULT, "alice", 1).unwrap();
        let second = tokens.issue(KeyspaceId::DEFAULT, "alice", 1).unwrap();
        assert_ne!(first, second);
        for token in [first, second] {
            let (letters, number) = token.expose().split_once('.').unwrap();
            assert_eq!(letters.len(), 16);
            assert!(letters.chars().all(|letter| letter.is_ascii_alphabetic()));
            assert!(number.parse::<u64>().is_ok());
        }
    }

    #[test]
    fn a_token_lives_from_its_last_use() {
        let ttl = Duration::from_secs(300);
        let tokens = SimpleTokens::new(ttl);
        let text = tokens.issue(KeyspaceId::DEFAULT, "alice", 1).unwrap();
        let entry = tokens.find(text.expose()).unwrap();
        let start = entry.born;
        assert!(entry.touch(start + Duration::from_secs(299), ttl));
        assert!(entry.touch(start + Duration::from_secs(598), ttl));
        assert!(!entry.touch(start + Duration::from_secs(899), ttl));
    }

    #[test]
    fn the_oldest_goes_when_a_user_or_all_have_too_many() {
        let limits = TokenLimits { total: 4, of_user: 2 };
        let tokens = SimpleTokens::with_limits(Duration::from_secs(300), limits);
        let alice: Vec<_> = (0..3).map(|_| tokens.issue(KeyspaceId::DEFAULT, "alice", 1).unwrap()).collect();
        assert_eq!(alice.iter().map(|t| alive(&tokens, t)).collect::<Vec<_>>(), [false, true, true]);
        let others: Vec<_> =
            ["b", "c", "d"].iter().map(|user| tokens.issue(KeyspaceId::DEFAULT, user, 1).unwrap()).collect();
        assert!(!alive(&tokens, &alice[1]) && alive(&tokens, &alice[2]));
        assert!(others.iter().all(|token| alive(&tokens, token)));
        assert_eq!(tokens.table.read().by_text.len(), 4);
    }

    #[test]
    fn dead_tokens_do_not_pile_up() {
        let tokens = SimpleTokens::new(Duration::ZERO);
        for _ in 0..100 {
            tokens.issue(KeyspaceId::DEFAULT, "alice", 1).unwrap();
        }
        let table = tokens.table.read();
        assert!(table.by_text.len() <= 2 && table.order.len() <= 2 && table.by_holder.len() <= 1);
    }

    /// One that lives at the head of the line kept all dead ones behind it, and living ones went.
    #[test]
    fn the_dead_go_before_the_living() {
        let expire = |token: &Secret, tokens: &SimpleTokens| {
            tokens.find(token.expose()).unwrap().expires.store(0, Ordering::Relaxed);
        };
        for limits in [TokenLimits { total: 100, of_user: 4 }, TokenLimits { total: 4, of_user: 100 }] {
            let tokens = SimpleTokens::with_limits(Duration::from_secs(300), limits);
            let first: Vec<_> =
                (0..4).map(|_| tokens.issue(KeyspaceId::DEFAULT, "alice", 1).unwrap()).collect();
            expire(&first[3], &tokens);
            let fifth = tokens.issue(KeyspaceId::DEFAULT, "alice", 1).unwrap();
            assert!(first[..3].iter().chain([&fifth]).all(|token| alive(&tokens, token)), "{limits:?}");
        }
        let tokens = SimpleTokens::new(Duration::from_secs(300));
        let head = tokens.issue(KeyspaceId::DEFAULT, "alice", 1).unwrap();
        for _ in 0..100 {
            expire(&tokens.issue(KeyspaceId::DEFAULT, "alice", 1).unwrap(), &tokens);
        }
        assert!(alive(&tokens, &head));
        let table = tokens.table.read();
        assert!(table.by_text.len() < 10 && table.order.len() < 10, "{} are kept", table.by_text.len());
    }

    #[test]
    fn forgetting_kills_what_a_connection_remembers() {
        let tokens = SimpleTokens::new(Duration::from_secs(300));
        let text = tokens.issue(KeyspaceId::DEFAULT, "alice", 1).unwrap();
        let entry = tokens.find(text.expose()).unwrap();
        tokens.forget_all(KeyspaceId::DEFAULT);
        assert!(tokens.find(text.expose()).is_none());
        assert!(!entry.touch(Instant::now(), tokens.ttl()));
    }

    /// A hundred thousand logins of one tenant once ended those of everybody.
    #[test]
    fn a_keyspace_with_many_tokens_ends_its_own() {
        let limits = TokenLimits { total: 6, of_user: 3 };
        let tokens = SimpleTokens::with_limits(Duration::from_secs(60), limits);
        let root = tokens.issue(KeyspaceId::DEFAULT, "root", 1).unwrap();
        let crowd: Vec<_> =
            (0..20).map(|n| tokens.issue(KeyspaceId(2), &format!("u{n}"), 1).unwrap()).collect();
        assert!(tokens.find(root.expose()).is_some());
        let alive = crowd.iter().filter(|token| tokens.find(token.expose()).is_some()).count();
        assert_eq!(alive, 5);
        tokens.forget_all(KeyspaceId(2));
        assert!(crowd.iter().all(|token| tokens.find(token.expose()).is_none()));
        assert!(tokens.find(root.expose()).is_some());
    }
}
