//! Tables of cases under `cases/`: a policy, then requests with the decision that each must get, from
//! the compiled form and from casbin.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

use bytes::Bytes;
use keygate_core::{
    Access, AdminVerb, AuthTables, Decision, KeyAction, KeyRange, KeyspaceId, Permission, PermissionKind,
    Role, User,
};
use keygate_policies::{Compiler, Oracle};
use std::fs;
use std::path::Path;
use std::sync::Arc;

struct Case {
    line: usize,
    text: String,
    expected: bool,
    user: String,
    access: Access,
}

#[test]
fn every_case_is_decided_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut count = 0;
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let (tables, cases) = read(&fs::read_to_string(&path).unwrap());
        let policy = Compiler::new().unwrap().compile_policy(KeyspaceId::DEFAULT, &tables);
        let oracle = Oracle::new(KeyspaceId::DEFAULT, &tables).unwrap();
        for case in cases {
            let place = format!("{}:{}: {}", path.display(), case.line, case.text);
            let decided = match &case.access {
                Access::Keys { action, range } => policy.user_decide_keys(&case.user, *action, range),
                other => policy.user_decide_other(&case.user, other),
            };
            assert_eq!(decided == Decision::Allow, case.expected, "compiled: {place}");
            assert_eq!(
                oracle.allows_other(&case.user, &case.access).unwrap(),
                case.expected,
                "casbin: {place}"
            );
            count += 1;
        }
    }
    println!("cases={count}");
    assert!(count >= 65);
}

fn read(text: &str) -> (AuthTables, Vec<Case>) {
    let mut tables = AuthTables { enabled: true, ..AuthTables::default() };
    let mut cases = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            [first, ..] if first.starts_with('#') => {}
            ["role", name, kind, keys] => {
                let permission = Permission { kind: permission_kind(kind), range: range(keys) };
                let role = tables
                    .roles
                    .entry((*name).to_owned())
                    .or_insert_with(|| Arc::new(Role { name: (*name).to_owned(), permissions: Vec::new() }));
                Arc::make_mut(role).permissions.push(permission);
            }
            ["user", name, roles @ ..] => {
                let mut roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
                roles.sort();
                let user = User { name: (*name).to_owned(), password: None, roles, credential_revision: 1 };
                tables.users.insert((*name).to_owned(), Arc::new(user));
            }
            [expected @ ("allow" | "deny"), user, what @ ..] => cases.push(Case {
                line: number + 1,
                text: line.to_owned(),
                expected: *expected == "allow",
                user: (*user).to_owned(),
                access: access(what),
            }),
            other => panic!("line {}: {other:?}", number + 1),
        }
    }
    (tables, cases)
}

fn permission_kind(word: &str) -> PermissionKind {
    match word {
        "read" => PermissionKind::Read,
        "write" => PermissionKind::Write,
        "readwrite" => PermissionKind::ReadWrite,
        other => panic!("`{other}`"),
    }
}

fn access(words: &[&str]) -> Access {
    match words {
        ["read", keys] => Access::Keys { action: KeyAction::Read, range: range(keys) },
        ["write", keys] => Access::Keys { action: KeyAction::Write, range: range(keys) },
        ["admin"] => Access::Admin(AdminVerb::Compact),
        ["user-record", name] => Access::UserRecord((*name).to_owned()),
        ["role-record", name] => Access::RoleRecord((*name).to_owned()),
        other => panic!("{other:?}"),
    }
}

fn range(word: &str) -> KeyRange {
    let Some(ends) = word.strip_prefix('[').and_then(|word| word.strip_suffix(')')) else {
        return KeyRange::Single(key(word));
    };
    match ends.split_once(',').unwrap() {
        (start, "") => KeyRange::From(key(start)),
        (start, end) => KeyRange::Span { start: key(start), end: key(end) },
    }
}

fn key(word: &str) -> Bytes {
    let mut bytes = Vec::new();
    let mut rest = word.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'\\', [b'x', high, low, tail @ ..]) => {
                let digits = [*high, *low];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                rest = tail;
            }
            (b'\\', [b'n', tail @ ..]) => {
                bytes.push(b'\n');
                rest = tail;
            }
            (byte, tail) => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    bytes.into()
}
