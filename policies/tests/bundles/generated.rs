//! Random bundles and questions from a seed, over few names, keys and circumstances, so that they meet.
#![allow(dead_code, reason = "each test binary uses a part")]

use keygate_core::KeyRange;
use keygate_policies::bundle::{Action, Connection, Context, Instant, Verb};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

pub(crate) const TENANTS: [&str; 3] = ["one", "two", "unnamed"];
/// One has a name that reads like a role.
pub(crate) const USERS: [&str; 3] = ["alice", "role:r", "stranger"];
pub(crate) const GROUPS: [&str; 2] = ["g", "alice"];
const ROLES: [&str; 4] = ["r", "s", "t", "u"];
/// Keys, escaped: separators, neighbours, NUL, a newline, bytes that are no UTF-8.
pub(crate) const KEYS: [&str; 9] = ["", "a", "a\\x00", "a/", "a/b", "a/\\x0a", "b", "b\\xff", "\\xff"];
const CONDITIONS: [&str; 9] = [
    "source=10.0.0.0/8",
    "source=10.1.0.0/16|2001:db8::/32",
    "until=2026-01-01T00:00:00Z",
    "from=2026-01-01T00:00:00Z;until=2027-01-01T00:00:00Z",
    "time=Mon-Fri@08:00-18:00",
    "time=Sat@22:00-06:00",
    "connection=mtls",
    "connection=plain|tls",
    "source=10.0.0.0/9;connection=mtls;until=2026-06-01T00:00:00Z",
];
pub(crate) const SOURCES: [&str; 5] = ["10.1.2.3", "10.200.0.1", "192.168.0.1", "2001:db8::1", "::1"];
/// A Thursday at noon, a Monday morning, a Saturday night, a Sunday's first hours, far later.
pub(crate) const TIMES: [&str; 5] = [
    "2025-12-25T12:00:00Z",
    "2026-03-02T08:00:00Z",
    "2026-06-06T23:00:00Z",
    "2027-01-03T05:59:59Z",
    "2030-01-01T00:00:00Z",
];

pub(crate) struct Generator {
    pub(crate) rng: StdRng,
    /// How likely a row has conditions.
    pub(crate) conditions: f64,
}

/// `policy.csv` and `roles.csv`.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Texts {
    pub(crate) policy: Vec<String>,
    pub(crate) roles: Vec<String>,
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), conditions: 0.3 }
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from.choose(&mut self.rng).copied().unwrap_or_default()
    }

    fn tenant(&mut self) -> &'static str {
        if self.rng.random_bool(0.3) { "*" } else { self.pick(&TENANTS[..2]) }
    }

    fn subject(&mut self) -> String {
        match self.rng.random_range(0..10) {
            0 | 1 => "user:*".to_owned(),
            2 => format!("user:{}", self.pick(&USERS[..2])),
            3 | 4 => format!("group:{}", self.pick(&GROUPS)),
            _ => format!("role:{}", self.pick(&ROLES)),
        }
    }

    fn pattern(&mut self) -> String {
        loop {
            let (a, b) = (self.pick(&KEYS), self.pick(&KEYS));
            let text = match self.rng.random_range(0..8) {
                0 => format!("={a}"),
                1..4 => format!("{a}*"),
                4 => format!("[{a}, )"),
                _ => format!("[{a}, {b})"),
            };
            if !text.starts_with('[') || keygate_policies::bundle::key_range(&text).is_ok() {
                return text;
            }
        }
    }

    pub(crate) fn row(&mut self) -> String {
        let (subject, tenant) = (self.subject(), self.tenant());
        let effect = if self.rng.random_bool(0.12) { "deny" } else { "allow" };
        let (pattern, action) = match self.rng.random_range(0..10) {
            0 => ("-".to_owned(), if self.rng.random() { "compact" } else { "hash" }),
            1..5 if effect == "deny" => (format!("={}", self.pick(&KEYS)), "read"),
            1..5 => (self.pattern(), "readwrite"),
            5..8 => (self.pattern(), "read"),
            _ => (self.pattern(), "write"),
        };
        let mut conditions = String::new();
        if self.rng.random_bool(self.conditions) {
            conditions = format!(", {}", self.pick(&CONDITIONS));
        }
        if effect == "deny" && action.starts_with("read") && self.rng.random_bool(0.5) {
            let joint = if conditions.is_empty() { ", " } else { ";" };
            conditions = format!("{conditions}{joint}on_partial=filter");
        }
        format!("p, {subject}, {tenant}, {pattern}, {action}, {effect}{conditions}")
    }

    pub(crate) fn link(&mut self) -> String {
        let tenant = self.tenant();
        let from = self.rng.random_range(0..ROLES.len());
        let member = match self.rng.random_range(0..6) {
            0 | 1 => format!("user:{}", self.pick(&USERS[..2])),
            2 | 3 => format!("group:{}", self.pick(&GROUPS)),
            // Only to later roles, so that there is no circle.
            _ if from > 0 => return format!("g, role:{}, role:{}, {tenant}", ROLES[from - 1], ROLES[from]),
            _ => "user:alice".to_owned(),
        };
        format!("g, {member}, role:{}, {tenant}", ROLES[from])
    }

    pub(crate) fn texts(&mut self, rows: usize) -> Texts {
        let (rows, links) = (self.rng.random_range(0..=rows), self.rng.random_range(0..7));
        let mut policy: Vec<String> = (0..rows).map(|_| self.row()).collect();
        let roles: Vec<String> = (0..links).map(|_| self.link()).collect();
        if self.rng.random_bool(0.3) {
            policy.push("p, user:*, *, *, read, allow".to_owned());
        }
        // A role that is held must have a row.
        for role in ROLES {
            policy.push(format!("p, role:{role}, *, =never, read, deny"));
        }
        Texts { policy, roles }
    }

    /// A bundle that differs a little.
    pub(crate) fn changed(&mut self, texts: &Texts) -> Texts {
        let mut changed = texts.clone();
        for _ in 0..self.rng.random_range(1..3) {
            match self.rng.random_range(0..4) {
                0 => {
                    let row = self.row();
                    changed.policy.push(row);
                }
                1 => drop(changed.policy.remove(0)),
                2 if !changed.roles.is_empty() => drop(changed.roles.remove(0)),
                _ => {
                    let link = self.link();
                    changed.roles.push(link);
                }
            }
            // Those of the roles stand last.
            if changed.policy.len() < ROLES.len() {
                return texts.clone();
            }
        }
        changed
    }

    pub(crate) fn context(&mut self) -> Context {
        Context {
            source: self.pick(&SOURCES).parse().ok(),
            now: self.pick(&TIMES).parse::<Instant>().ok(),
            connection: Connection::ALL.choose(&mut self.rng).copied(),
        }
    }

    pub(crate) fn question(&mut self) -> (Action, KeyRange) {
        match self.rng.random_range(0..20) {
            0 => (Action::Verb(Verb::Compact), KeyRange::everything()),
            1 => (Action::Verb(Verb::Hash), KeyRange::everything()),
            n => (if n % 2 == 0 { Action::Read } else { Action::Write }, self.range()),
        }
    }

    fn range(&mut self) -> KeyRange {
        let key = |rng: &mut StdRng| {
            let text = format!("={}", KEYS.choose(rng).copied().unwrap_or_default());
            let Ok(KeyRange::Single(key)) = keygate_policies::bundle::key_range(&text) else {
                unreachable!("{text}")
            };
            let mut key = key.to_vec();
            match rng.random_range(0..8) {
                0 => key.push(0),
                1 => key.push(rng.random()),
                2 => drop(key.pop()),
                _ => {}
            }
            bytes::Bytes::from(key)
        };
        let (start, end) = (key(&mut self.rng), key(&mut self.rng));
        match self.rng.random_range(0..8) {
            0..3 => KeyRange::Single(start),
            3 => KeyRange::From(start),
            // Some of them empty.
            _ => KeyRange::Span { start, end },
        }
    }
}
