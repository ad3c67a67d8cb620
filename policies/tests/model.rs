//! A model or rows that the compiled form does not implement are refused before anything is served.

use keygate_core::{AuthTables, KeyRange, KeyspaceId, Permission, PermissionKind, Role, User};
use keygate_policies::{Compiler, MODEL, ModelError, RowError, rows, validate};
use std::sync::Arc;

#[test]
fn the_built_in_model_is_supported() {
    assert!(Compiler::new().is_ok());
}

#[test]
fn other_models_are_refused_with_the_section_that_differs() {
    let cases: [(&str, &str, &str); 8] = [
        ("some(where (p.eft == allow))", "!some(where (p.eft == deny))", "`e`"),
        // casbin would panic at the first request with this one.
        ("some(where (p.eft == allow))", "some(where (p.eft == maybe))", "`e`"),
        ("covers(p.start, p.end, r.obj)", "keyMatch(r.obj, p.start)", "`m`"),
        ("r.dom == p.dom", "true", "`m`"),
        ("g = _, _, _", "g = _, _", "`g`"),
        ("r = sub, dom,", "r = sub,", "`r`"),
        ("p = sub, dom,", "p = sub, extra, dom,", "`p`"),
        ("[policy_definition]", "r2 = sub\n[policy_definition]", "`r2`"),
    ];
    for (from, to, section) in cases {
        assert!(MODEL.contains(from), "`{from}`");
        let error = Compiler::with_model(&MODEL.replace(from, to)).err().expect(to);
        assert!(error.to_string().contains(section), "{to}: {error}");
    }
}

#[test]
fn missing_and_unreadable_models_are_refused() {
    assert_eq!(Compiler::with_model("").err(), Some(ModelError::Missing { section: "r" }));
    assert!(Compiler::with_model("[request_definition\nr : sub").is_err());
    for section in ["policy_definition", "role_definition", "policy_effect", "matchers"] {
        let model = MODEL.replace(&format!("[{section}]"), "[other]");
        assert!(matches!(Compiler::with_model(&model), Err(ModelError::Missing { .. })), "{section}");
    }
}

#[test]
fn loading_a_model_needs_no_runtime() {
    // A runtime of its own would panic where a server starts inside of one.
    assert!(std::thread::spawn(|| Compiler::new().is_ok()).join().unwrap());
}

fn tables(range: KeyRange, roles: &[&str]) -> AuthTables {
    let mut tables = AuthTables { enabled: true, ..AuthTables::default() };
    let permissions = vec![Permission { kind: PermissionKind::ReadWrite, range }];
    tables.roles.insert("r".to_owned(), Arc::new(Role { name: "r".to_owned(), permissions }));
    let roles = roles.iter().map(|role| (*role).to_owned()).collect();
    let user = User { name: "u, \"x\"\n".to_owned(), password: None, roles, credential_revision: 1 };
    tables.users.insert(user.name.clone(), Arc::new(user));
    tables
}

#[test]
fn rows_are_what_the_model_describes() {
    let range = KeyRange::Span { start: b"a\xff".as_slice().into(), end: b"b\0".as_slice().into() };
    let tables = tables(range, &["r"]);
    assert_eq!(
        rows(KeyspaceId(4), &tables),
        [
            vec!["p", "role:r", "keyspace:4", "61ff", "6200", "readwrite"],
            vec!["g", "user:u, \"x\"\n", "users", "keyspace:4"],
            vec!["g", "user:u, \"x\"\n", "role:r", "keyspace:4"],
        ]
    );
    assert_eq!(validate(KeyspaceId(4), &tables), Ok(()));
}

#[test]
fn rows_that_would_mean_something_else_are_refused() {
    // In etcd's form an end of one zero byte is "everything from here on".
    let range = KeyRange::Span { start: b"a".as_slice().into(), end: b"\0".as_slice().into() };
    assert!(matches!(validate(KeyspaceId(1), &tables(range, &[])), Err(RowError::Range { .. })));
    let everything = tables(KeyRange::everything(), &["r", "s"]);
    assert!(matches!(validate(KeyspaceId(1), &everything), Err(RowError::MissingRole { .. })));
}
