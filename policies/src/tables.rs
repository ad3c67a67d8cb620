//! The tables of a keyspace as rows of a bundle, so that what the Auth API holds is exported and compared in one form.
//!
//! A role `ops` of the tables becomes `role:auth/ops`: a bundle's role of the same name is another one, and would
//! otherwise lend its rows to the members of this one.

use crate::bundle::{Conditions, Effect, Link, Row, RowAction, Subject, Tenant, Verb};
use keygate_core::{AuthTables, KeyRange, PermissionKind, ROOT};
use std::sync::Arc;

const PREFIX: &str = "auth/";

/// Rows and links that allow what the tables do. Users without a role, and roles without a right, have none.
pub fn rows_of_tables(tenant: &str, tables: &AuthTables) -> (Vec<Row>, Vec<Link>) {
    let tenant = Tenant::Named(tenant.into());
    let conditions = Arc::new(Conditions::default());
    let row = |role: &str, action: RowAction, keys: KeyRange| Row {
        line: 0,
        subject: Subject::Role(role_name(role)),
        tenant: tenant.clone(),
        keys,
        action,
        effect: Effect::Allow,
        conditions: conditions.clone(),
        lint_allowed: Box::default(),
    };
    let mut rows = Vec::new();
    for (name, role) in &tables.roles {
        rows.extend(role.permissions.iter().map(|permission| {
            let action = match permission.kind {
                PermissionKind::Read => RowAction::Read,
                PermissionKind::Write => RowAction::Write,
                PermissionKind::ReadWrite => RowAction::ReadWrite,
            };
            row(name, action, permission.range.clone())
        }));
    }
    let mut links = Vec::new();
    let mut has_root = false;
    for (name, user) in &tables.users {
        for role in user.roles.iter().filter(|role| *role == ROOT || tables.roles.contains_key(*role)) {
            has_root |= role == ROOT;
            links.push(Link {
                line: 0,
                member: Subject::User(name.as_str().into()),
                role: role_name(role),
                tenant: tenant.clone(),
                lint_allowed: Box::default(),
            });
        }
    }
    if has_root {
        // What the role may do is not a matter of its permissions.
        rows.push(row(ROOT, RowAction::ReadWrite, KeyRange::everything()));
        rows.extend(Verb::ALL.map(|verb| row(ROOT, RowAction::Verb(verb), KeyRange::everything())));
    }
    (rows, links)
}

fn role_name(name: &str) -> Arc<str> {
    format!("{PREFIX}{name}").into()
}
