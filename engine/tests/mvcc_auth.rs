//! etcd's Auth API: which error, when the auth revision moves, when the policy is compiled anew.
#![allow(clippy::unwrap_used, reason = "tests")]

mod mvcc_store;

use keygate_core::*;
use mvcc_store::*;

fn user_add(name: &str) -> Operation<Sealed> {
    let credential = Credential::Hashed(PasswordHash("h".into()));
    Operation::UserAdd(UserAdd { name: name.into(), credential })
}

fn user_grant(user: &str, role: &str) -> Operation<Sealed> {
    Operation::UserGrantRole { user: user.into(), role: role.into() }
}

fn user_revoke(user: &str, role: &str) -> Operation<Sealed> {
    Operation::UserRevokeRole { user: user.into(), role: role.into() }
}

fn user_delete(name: &str) -> Operation<Sealed> {
    Operation::UserDelete { name: name.into() }
}

fn role_add(name: &str) -> Operation<Sealed> {
    Operation::RoleAdd { name: name.into() }
}

fn role_delete(name: &str) -> Operation<Sealed> {
    Operation::RoleDelete { name: name.into() }
}

fn role_grant(role: &str, kind: PermissionKind, range: KeyRange) -> Operation<Sealed> {
    Operation::RoleGrantPermission(RoleGrant { role: role.into(), permission: Permission { kind, range } })
}

fn role_revoke(role: &str, range: KeyRange) -> Operation<Sealed> {
    Operation::RoleRevokePermission(RoleRevoke { role: role.into(), range })
}

fn passwd(name: &str) -> Operation<Sealed> {
    Operation::UserChangePassword {
        name: name.into(),
        credential: Credential::Hashed(PasswordHash("new".into())),
    }
}

/// What is done, its outcome, by how much the auth revision moves, and whether the policy moves.
type Step = (Operation<Sealed>, Result<(), Refusal>, u64, bool);

fn tell(m: &mut Machine, story: Vec<Step>) {
    for (step, (operation, outcome, moved, policy)) in story.into_iter().enumerate() {
        let name = format!("step {step}: {operation:?}");
        let (before, fence) = (m.space().auth().revision, m.space().policy().fence());
        m.effects.policy_changed = false;
        let got = m.run(operation).map(|answer| assert_eq!(answer, Answer::Done));
        assert_eq!(got, outcome, "{name}");
        assert_eq!(m.space().auth().revision - before, moved, "{name}");
        assert_eq!(m.space().policy().fence() != fence, policy, "{name}");
        assert_eq!(m.effects.policy_changed, policy, "{name}");
    }
}

#[test]
fn enabling_needs_root_and_does_not_move_the_auth_revision() {
    let mut m = Machine::new();
    assert_eq!(m.space().auth().revision, 1);
    tell(
        &mut m,
        vec![
            (Operation::AuthDisable, Ok(()), 0, false),
            (Operation::AuthEnable, Err(Refusal::RootUserMissing), 0, false),
            (user_add("root"), Ok(()), 1, true),
            (Operation::AuthEnable, Err(Refusal::RootRoleMissing), 0, false),
            // The role root can be granted without having been made.
            (user_grant("root", "root"), Ok(()), 1, true),
            (user_grant("root", "root"), Ok(()), 0, false),
            (Operation::AuthEnable, Ok(()), 0, true),
            (Operation::AuthEnable, Ok(()), 0, false),
            (user_delete("root"), Err(Refusal::InvalidAuthManagement), 0, false),
            (role_delete("root"), Err(Refusal::InvalidAuthManagement), 0, false),
            (user_revoke("root", "root"), Err(Refusal::InvalidAuthManagement), 0, false),
            (Operation::AuthDisable, Ok(()), 1, true),
            (role_delete("root"), Err(Refusal::RoleNotFound), 0, false),
            (user_revoke("root", "root"), Ok(()), 1, true),
            (user_delete("root"), Ok(()), 1, true),
        ],
    );
}

#[test]
fn users_and_roles_with_etcds_errors() {
    let mut m = Machine::new();
    tell(
        &mut m,
        vec![
            (user_add(""), Err(Refusal::UserEmpty), 0, false),
            (user_add("u"), Ok(()), 1, true),
            (user_add("u"), Err(Refusal::UserExists), 0, false),
            (role_add(""), Err(Refusal::RoleEmpty), 0, false),
            (role_add("r"), Ok(()), 1, true),
            (role_add("r"), Err(Refusal::RoleExists), 0, false),
            (user_grant("nope", "nope"), Err(Refusal::UserNotFound), 0, false),
            (user_grant("u", "nope"), Err(Refusal::RoleNotFound), 0, false),
            (user_grant("u", "r"), Ok(()), 1, true),
            (user_revoke("nope", "r"), Err(Refusal::UserNotFound), 0, false),
            (user_revoke("u", "zz"), Err(Refusal::RoleNotGranted), 0, false),
            (passwd("nope"), Err(Refusal::UserNotFound), 0, false),
            (passwd("u"), Ok(()), 1, false),
            (user_delete("nope"), Err(Refusal::UserNotFound), 0, false),
            (role_delete("nope"), Err(Refusal::RoleNotFound), 0, false),
            (role_delete("r"), Ok(()), 1, true),
        ],
    );
    assert!(m.space().auth().users["u"].roles.is_empty(), "deleting a role takes it from its holders");
}

#[test]
fn permissions_with_etcds_errors() {
    use PermissionKind::*;
    let mut m = Machine::new();
    let invalid = || Err(Refusal::InvalidAuthManagement);
    tell(
        &mut m,
        vec![
            (role_add("r"), Ok(()), 1, true),
            (role_grant("r", Read, KeyRange::everything()), invalid(), 0, false),
            (role_grant("nope", Read, single("")), invalid(), 0, false),
            (role_grant("r", Read, span("b", "a")), invalid(), 0, false),
            (role_grant("r", Read, span("b", "b")), invalid(), 0, false),
            (role_grant("nope", Read, single("x")), Err(Refusal::RoleNotFound), 0, false),
            (role_grant("r", Read, span("b", "c")), Ok(()), 1, true),
            (role_grant("r", Read, single("b")), Ok(()), 1, true),
            (role_grant("r", Read, KeyRange::From(bytes("a"))), Ok(()), 1, true),
            // The same range again replaces the kind.
            (role_grant("r", Write, span("b", "c")), Ok(()), 1, true),
            (role_revoke("r", span("b", "d")), Err(Refusal::PermissionNotGranted), 0, false),
            (role_revoke("nope", single("b")), Err(Refusal::RoleNotFound), 0, false),
            (role_revoke("r", single("b")), Ok(()), 1, true),
        ],
    );
    let held: Vec<_> =
        m.space().auth().roles["r"].permissions.iter().map(|p| (p.kind, p.range.clone())).collect();
    assert_eq!(held, [(Read, KeyRange::From(bytes("a"))), (Write, span("b", "c"))]);
}

#[test]
fn a_new_password_ends_older_tokens_and_a_user_without_one_stays_so() {
    let mut m = Machine::new();
    m.run(user_add("u")).unwrap();
    m.run(Operation::UserAdd(UserAdd { name: "cert".into(), credential: Credential::NoPassword })).unwrap();
    let user = |m: &Machine, name: &str| m.space().auth().users[name].as_ref().clone();
    assert_eq!(user(&m, "u").credential_revision, 2);
    m.run(passwd("u")).unwrap();
    assert_eq!(
        (user(&m, "u").credential_revision, user(&m, "u").password),
        (4, Some(PasswordHash("new".into())))
    );
    m.run(passwd("cert")).unwrap();
    assert_eq!(user(&m, "cert").password, None);
    m.run(user_delete("u")).unwrap();
    m.run(user_add("u")).unwrap();
    assert_eq!(user(&m, "u").credential_revision, 7, "a user made again does not revive old tokens");
}

#[test]
fn the_tables_survive_a_restart() {
    let mut m = Machine::new();
    for operation in [
        user_add("root"),
        user_grant("root", "root"),
        role_add("r"),
        role_grant("r", PermissionKind::ReadWrite, span("a", "b")),
        user_add("u"),
        user_grant("u", "r"),
        user_add("gone"),
        user_delete("gone"),
        Operation::AuthEnable,
    ] {
        m.run(operation).unwrap();
    }
    let (before, fence) = (m.space().auth().clone(), m.space().policy().fence());
    m.reload(0);
    assert_eq!((m.space().auth(), m.space().policy().fence()), (&before, fence));
    assert!(m.space().policy().is_enabled());
}
