//! Users by what they ask for: the counters of `keygate.admin.v1.Load` at two looks, and what happened between them.

use std::cmp::Reverse;
use std::collections::HashMap;

use keygate_proto::admin as pb;
use serde_json::{Value, json};

use super::Sort;
use super::table::{number, printable, rate, size};

/// As many as a server tells of, those that asked most since they were first seen.
pub(super) const MOST: u32 = 1_000;

/// Less of a name tells nobody apart.
const SHORT: usize = 12;

/// One user. What happened in a second is None for one who may have been counted before, unseen.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct User {
    pub(super) tenant: String,
    /// Empty: those who have not said who they are.
    pub(super) user: String,
    pub(super) requests: Option<f64>,
    pub(super) refused: Option<f64>,
    pub(super) bytes_in: Option<f64>,
    pub(super) bytes_out: Option<f64>,
    pub(super) watches: u64,
    pub(super) connections: u64,
    /// Since the user was first seen.
    pub(super) all_requests: u64,
    pub(super) all_refused: u64,
}

pub(super) fn between(last: &[pb::UserLoad], now: &[pb::UserLoad], seconds: f64) -> Vec<User> {
    let key = |load: &pb::UserLoad| (load.tenant.clone(), load.user.clone());
    let before: HashMap<_, _> = last.iter().map(|load| (key(load), load)).collect();
    // Whoever is not in a list that had room was not there.
    let had_room = (last.len() as u64) < u64::from(MOST);
    let nothing = pb::UserLoad::default();
    now.iter()
        .map(|load| {
            let before = before.get(&key(load)).copied().or_else(|| had_room.then_some(&nothing));
            let of = |counter: fn(&pb::UserLoad) -> u64| {
                let (before, now) = (before.map(counter)?, counter(load));
                // An account that was forgotten meanwhile is counted anew.
                Some(now.checked_sub(before).unwrap_or(now) as f64 / seconds)
            };
            User {
                tenant: load.tenant.clone(),
                user: load.user.clone(),
                requests: of(|load| load.requests),
                refused: of(|load| load.refusals),
                bytes_in: of(|load| load.bytes_in),
                bytes_out: of(|load| load.bytes_out),
                watches: load.watches,
                connections: load.connections,
                all_requests: load.requests,
                all_refused: load.refusals,
            }
        })
        .collect()
}

pub(super) fn order(users: &mut [User], sort: Sort) {
    users.sort_by(|one, other| (&one.tenant, &one.user).cmp(&(&other.tenant, &other.user)));
    let most = |rate: Option<f64>| Reverse(rate.map_or(-1, |rate| (rate * 1000.0) as i64));
    match sort {
        Sort::Name => {}
        Sort::Refused => users.sort_by_key(|user| most(user.refused)),
        Sort::Bytes => users.sort_by_key(|user| {
            most(user.bytes_in.zip(user.bytes_out).map(|(bytes_in, bytes_out)| bytes_in + bytes_out))
        }),
        Sort::Watches => users.sort_by_key(|user| Reverse(user.watches)),
        // The others are of tenants.
        Sort::Requests | Sort::Changes | Sort::Quota | Sort::Keys => {
            users.sort_by_key(|user| (most(user.requests), Reverse(user.all_requests)));
        }
    }
}

/// The head first, in at most so many columns. Names get what the numbers leave of them, as far as they need it.
pub(super) fn lines<'a>(users: impl Iterator<Item = &'a User>, columns: usize) -> Vec<String> {
    const NUMBERS: [&str; 8] = ["REQ/S", "REF/S", "IN/S", "OUT/S", "WATCH", "CONN", "REQUESTS", "REFUSALS"];
    let bytes = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |rate| size(rate as u64));
    let mut numbers = vec![NUMBERS.map(str::to_owned)];
    let mut names = vec![["USER".to_owned(), "TENANT".to_owned()]];
    for user in users {
        let name = if user.user.is_empty() { "-".to_owned() } else { printable(&user.user) };
        names.push([name, printable(&user.tenant)]);
        numbers.push([
            rate(user.requests),
            rate(user.refused),
            bytes(user.bytes_in),
            bytes(user.bytes_out),
            number(Some(user.watches)),
            number(Some(user.connections)),
            user.all_requests.to_string(),
            user.all_refused.to_string(),
        ]);
    }
    let widths: [usize; 8] =
        std::array::from_fn(|column| numbers.iter().map(|row| row[column].len()).max().unwrap_or(0));
    let widest = |which: usize| names.iter().map(|row| row[which].chars().count()).max().unwrap_or(0);
    let (user, tenant) = (widest(0), widest(1));
    // Half a number would be another number: those that have no room beside the names are not shown.
    let mut left = columns.saturating_sub(user.min(SHORT) + 2 + tenant.min(SHORT));
    let shown = widths.iter().take_while(|width| {
        let fits = **width + 2 <= left;
        left = left.saturating_sub(**width + 2);
        fits
    });
    let shown = shown.count();
    let taken: usize = widths.iter().take(shown).map(|width| width + 2).sum();
    let room = (columns.saturating_sub(taken + 2) / 2).max(SHORT);
    let (of_user, of_tenant) = (user.min(room), tenant.min(room));
    names
        .iter()
        .zip(&numbers)
        .map(|([user, tenant], numbers)| {
            let mut line =
                format!("{:<of_user$}  {:<of_tenant$}", cut(user, of_user), cut(tenant, of_tenant));
            for (number, width) in numbers.iter().zip(widths).take(shown) {
                line.push_str(&format!("  {number:>width$}"));
            }
            line
        })
        .collect()
}

fn cut(name: &str, width: usize) -> String {
    if name.chars().count() <= width {
        return name.to_owned();
    }
    name.chars().take(width - 1).chain(['…']).collect()
}

pub(super) fn json(user: &User) -> Value {
    json!({
        "tenant": user.tenant,
        "user": (!user.user.is_empty()).then_some(&user.user),
        "requests_per_second": user.requests,
        "refusals_per_second": user.refused,
        "bytes_in_per_second": user.bytes_in,
        "bytes_out_per_second": user.bytes_out,
        "watches": user.watches,
        "connections": user.connections,
        "requests": user.all_requests,
        "refusals": user.all_refused,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cli::top) fn load(tenant: &str, user: &str, requests: u64) -> pb::UserLoad {
        pb::UserLoad {
            tenant: tenant.to_owned(),
            user: user.to_owned(),
            requests,
            bytes_in: requests * 1000,
            bytes_out: requests * 10,
            refusals: requests / 10,
            watches: 3,
            connections: 1,
        }
    }

    #[test]
    fn rates_are_of_what_happened_between_two_looks() {
        let last = [load("pay", "alice", 100), load("pay", "bob", 500)];
        let now = [load("pay", "alice", 120), load("pay", "bob", 40), load("shop", "", 10)];
        let users = between(&last, &now, 2.0);
        let told: Vec<_> = users.iter().map(|user| (user.requests, user.refused)).collect();
        // Bob was forgotten and came again; those of the shop are new.
        assert_eq!(told, [(Some(10.0), Some(1.0)), (Some(20.0), Some(2.0)), (Some(5.0), Some(0.5))]);
        let full: Vec<_> = (0..MOST).map(|number| load("t", &number.to_string(), 1)).collect();
        let unseen = between(&full, &[load("pay", "alice", 5)], 1.0);
        assert_eq!(
            (unseen[0].requests, unseen[0].all_requests),
            (None, 5),
            "may have been there, further down"
        );
        assert_eq!(json(&users[2])["user"], Value::Null);
    }

    #[test]
    fn the_first_is_what_is_asked_for() {
        let mut users = between(&[], &[load("b", "y", 9), load("a", "x", 20), load("c", "z", 30)], 1.0);
        users[0].watches = 9;
        users[1].refused = Some(50.0);
        let mut first = |sort| {
            order(&mut users, sort);
            users[0].user.clone()
        };
        assert_eq!([Sort::Requests, Sort::Refused, Sort::Bytes].map(&mut first), ["z", "x", "z"]);
        assert_eq!([Sort::Watches, Sort::Name].map(&mut first), ["y", "x"]);
    }
}
