//! etcd's users and roles as rows of the casbin model; `model/model.conf` describes the columns.

use keygate_core::{AuthTables, KeyAction, KeyRange, KeyspaceId, PermissionKind};
use std::fmt::Write;
use thiserror::Error;

/// Stands for everybody who has a user record.
pub(crate) const USERS: &str = "users";

/// Rows that casbin could not hold or that would mean something else than the tables do.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum RowError {
    #[error("role `{role}` has a permission whose range end cannot be written in etcd's form: {range:?}")]
    Range { role: String, range: KeyRange },
    #[error("user `{user}` holds role `{role}`, which does not exist")]
    MissingRole { user: String, role: String },
    #[error("{0}")]
    Model(#[from] crate::model::ModelError),
}

/// Every row of a keyspace, `p` rows first. The first column names the kind of row.
pub fn rows(keyspace: KeyspaceId, tables: &AuthTables) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for (name, role) in &tables.roles {
        for permission in &role.permissions {
            rows.push(vec![
                "p".to_owned(),
                role_name(name),
                domain(keyspace),
                hex(permission.range.start()),
                hex(&permission.range.wire_end()),
                kind(permission.kind).to_owned(),
            ]);
        }
    }
    for (name, user) in &tables.users {
        let groups = std::iter::once(USERS.to_owned()).chain(user.roles.iter().map(|role| role_name(role)));
        rows.extend(groups.map(|group| vec!["g".to_owned(), user_name(name), group, domain(keyspace)]));
    }
    rows
}

/// Finds ranges that the wire form cannot say and roles that are held but do not exist.
pub(crate) fn check(tables: &AuthTables) -> Result<(), RowError> {
    for (name, role) in &tables.roles {
        for permission in &role.permissions {
            let range = &permission.range;
            if KeyRange::from_wire(range.start().clone(), range.wire_end()) != *range {
                return Err(RowError::Range { role: name.clone(), range: range.clone() });
            }
        }
    }
    for (name, user) in &tables.users {
        if let Some(role) = user.roles.iter().find(|role| !tables.roles.contains_key(*role)) {
            return Err(RowError::MissingRole { user: name.clone(), role: role.clone() });
        }
    }
    Ok(())
}

pub(crate) fn user_name(name: &str) -> String {
    format!("user:{name}")
}

pub(crate) fn role_name(name: &str) -> String {
    format!("role:{name}")
}

pub(crate) fn domain(keyspace: KeyspaceId) -> String {
    format!("keyspace:{}", keyspace.0)
}

fn kind(kind: PermissionKind) -> &'static str {
    match kind {
        PermissionKind::Read => "read",
        PermissionKind::Write => "write",
        PermissionKind::ReadWrite => "readwrite",
    }
}

pub(crate) fn action(action: KeyAction) -> &'static str {
    match action {
        KeyAction::Read => "read",
        KeyAction::Write => "write",
    }
}

/// Lowercase, so that the order of two hex texts is the order of their bytes.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
