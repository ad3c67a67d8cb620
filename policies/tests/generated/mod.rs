//! Random policies and requests from a seed, chosen to collide: few keys, nasty bytes, names that are
//! both users and roles.
#![allow(dead_code, reason = "each test binary uses a part")]

use bytes::Bytes;
use keygate_core::{AuthTables, KeyAction, KeyRange, KeyspaceId, Permission, PermissionKind, Role, User};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::sync::Arc;

pub(crate) const KEYSPACE: KeyspaceId = KeyspaceId::DEFAULT;

/// Names with meaning to casbin, to the row prefixes or to nobody.
const NAMES: [&str; 10] =
    ["alice", "root", "users", "role:root", "user:alice", "a,b", "*", "r.sub", "nübel\n", "\""];

/// Pieces that keys are made of: separators, neighbours, NUL, newline, multi-byte, invalid UTF-8.
const PIECES: [&[u8]; 14] = [
    b"/",
    b"a",
    b"b",
    b"\0",
    b"\n",
    b"\xff",
    b"\xfe",
    b"\x80",
    b"\xc3",
    "é".as_bytes(),
    "日".as_bytes(),
    b"*",
    b"00",
    b"\x01",
];

pub(crate) struct Generator {
    pub(crate) rng: StdRng,
    keys: Vec<Vec<u8>>,
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        let mut generator = Self { rng: StdRng::seed_from_u64(seed), keys: Vec::new() };
        generator.renew_keys();
        generator
    }

    /// A new small set of keys that ranges are built around.
    pub(crate) fn renew_keys(&mut self) {
        self.keys.clear();
        for _ in 0..self.rng.random_range(3..8) {
            let pieces = self.rng.random_range(0..4);
            let key: Vec<u8> =
                (0..pieces).flat_map(|_| PIECES.choose(&mut self.rng).unwrap().to_vec()).collect();
            self.keys.push(key);
        }
    }

    pub(crate) fn key(&mut self) -> Bytes {
        let mut key = self.keys.choose(&mut self.rng).unwrap().clone();
        match self.rng.random_range(0..10) {
            0 => key.push(0),
            1 => key.extend_from_slice(PIECES.choose(&mut self.rng).unwrap()),
            2 => drop(key.pop()),
            3 => {
                if let Some(last) = key.last_mut() {
                    *last = last.wrapping_add(1);
                }
            }
            4 => key.push(self.rng.random()),
            _ => {}
        }
        key.into()
    }

    pub(crate) fn range(&mut self) -> KeyRange {
        let key = self.key();
        let end = match self.rng.random_range(0..10) {
            0..4 => Bytes::new(),
            4 => Bytes::from_static(b"\0"),
            _ => self.key(),
        };
        // Ends come in order more often than not.
        if !end.is_empty() && end.as_ref() != b"\0" && end < key && self.rng.random_bool(0.8) {
            return KeyRange::from_wire(end, key);
        }
        KeyRange::from_wire(key, end)
    }

    pub(crate) fn action(&mut self) -> KeyAction {
        if self.rng.random() { KeyAction::Read } else { KeyAction::Write }
    }

    pub(crate) fn name(&mut self) -> String {
        (*NAMES.choose(&mut self.rng).unwrap()).to_owned()
    }

    pub(crate) fn permission(&mut self) -> Permission {
        let kinds = [PermissionKind::Read, PermissionKind::Write, PermissionKind::ReadWrite];
        Permission { kind: *kinds.choose(&mut self.rng).unwrap(), range: self.range() }
    }

    pub(crate) fn role(&mut self, name: &str) -> Arc<Role> {
        let mut permissions: Vec<Permission> =
            (0..self.rng.random_range(0..7)).map(|_| self.permission()).collect();
        permissions.sort_by_key(|row| order(&row.range));
        permissions.dedup_by(|a, b| a.range == b.range);
        Arc::new(Role { name: name.to_owned(), permissions })
    }

    /// Holds roles out of `existing`, and some that do not exist.
    pub(crate) fn user(&mut self, name: &str, existing: &[String]) -> Arc<User> {
        let count = *[0, 1, 2, 2, 3, 3, 4].choose(&mut self.rng).unwrap();
        let mut roles = Vec::new();
        for _ in 0..count {
            match existing.choose(&mut self.rng) {
                Some(role) if self.rng.random_bool(0.85) => roles.push(role.clone()),
                _ => roles.push(self.name()),
            }
        }
        // Holders of the root role are allowed everything, which tests little.
        if self.rng.random_bool(0.9) {
            roles.retain(|role| role != "root");
        }
        roles.sort();
        roles.dedup();
        Arc::new(User { name: name.to_owned(), password: None, roles, credential_revision: 1 })
    }

    pub(crate) fn tables(&mut self) -> AuthTables {
        let mut tables = AuthTables { enabled: true, ..AuthTables::default() };
        for _ in 0..self.rng.random_range(1..5) {
            let name = self.name();
            tables.roles.insert(name.clone(), self.role(&name));
        }
        let existing: Vec<String> = tables.roles.keys().cloned().collect();
        for _ in 0..self.rng.random_range(1..5) {
            let name = self.name();
            let user = self.user(&name, &existing);
            tables.users.insert(name, user);
        }
        tables
    }
}

fn order(range: &KeyRange) -> (Bytes, Bytes) {
    (range.start().clone(), range.wire_end())
}
