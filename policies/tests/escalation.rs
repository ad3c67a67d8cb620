//! Nobody gives what they do not hold: each RPC that changes users and roles × who asks.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod bundles;

use bytes::Bytes;
use keygate_core::*;
use keygate_policies::{BundlePolicy, CompiledPolicy, Compiler};
use std::sync::Arc;

/// `ops` may change users and roles, and holds /pay/ but for /pay/secret/; `lead` the same, and may escalate.
const POLICY: &str = "\
p, role:admin, default, -, auth, allow
p, role:admin, default, /pay/*, readwrite, allow
p, role:admin, default, /night/*, read, allow, connection=mtls
p, role:admin, default, /secret/*, read, allow
p, role:admin, default, -, compact, allow
p, user:lead, default, -, escalate, allow
p, user:ops, default, /pay/secret/*, write, deny
p, group:auditors, default, /audit/*, read, allow
p, user:likewise, default, /pay/a/*, read, allow
p, user:likewise, default, /night/*, read, allow, connection=mtls
p, user:narrow, default, /pay/*, write, allow
p, user:narrow, default, /pay/secret/*, write, deny
p, user:wide, default, /pay/*, write, allow
p, user:ever, default, /night/*, read, allow
p, user:compactor, default, -, compact, allow
p, user:hasher, default, -, hash, allow
p, user:lister, default, -, member-list, allow
p, user:over, default, /audit/*, read, allow, until=2020-01-01T00:00:00Z
p, user:later, default, /audit/*, read, allow, from=2090-01-01T00:00:00Z
p, role:admin, pay, -, auth, allow
p, user:ops, pay, /pay/*, read, allow
p, user:defragmenter, pay, -, defrag, allow
p, user:root, bound, -, escalate, deny
p, user:root, bound, /bound/*, write, deny
p, user:blind, default, -, auth, allow
p, user:blind, default, -, status, deny
";
const ROLES: &str = "\
g, user:ops, role:admin, default
g, user:lead, role:admin, default
g, user:ops, role:admin, pay
";

struct NoLeases;

impl LeaseKeys for NoLeases {
    fn attached(&self, _: LeaseId, _: &mut dyn FnMut(&Bytes) -> bool) -> Option<u64> {
        None
    }
    fn attached_to_any(&self, _: &mut dyn FnMut(&Bytes) -> bool) {}
}

fn prefix(text: &str) -> KeyRange {
    let start = Bytes::copy_from_slice(text.as_bytes());
    let end = [&text.as_bytes()[..text.len() - 1], b"0"].concat().into();
    KeyRange::Span { start, end }
}

fn permission(kind: PermissionKind, keys: &str) -> Permission {
    Permission { kind, range: prefix(keys) }
}

/// Users of the tables: `root`; `deputy`, who has the role root; `payer` and `shopper`, by roles.
fn tables() -> AuthTables {
    let mut tables = AuthTables { enabled: true, ..AuthTables::default() };
    let role = |name: &str, permissions| Arc::new(Role { name: name.to_owned(), permissions });
    let roles = [
        role("root", vec![]),
        role("pays", vec![permission(PermissionKind::Read, "/pay/b/")]),
        role("shops", vec![permission(PermissionKind::ReadWrite, "/shop/")]),
        role("empty", vec![]),
    ];
    tables.roles.extend(roles.into_iter().map(|role| (role.name.clone(), role)));
    let people = [
        ("root", vec!["root"]),
        ("deputy", vec!["root"]),
        ("ops", vec![]),
        ("lead", vec![]),
        ("payer", vec!["pays"]),
        ("shopper", vec!["shops"]),
        ("nobody", vec![]),
    ];
    for (name, roles) in people {
        let user = User {
            name: name.to_owned(),
            password: None,
            roles: roles.into_iter().map(str::to_owned).collect(),
            credential_revision: 1,
        };
        tables.users.insert(name.to_owned(), Arc::new(user));
    }
    tables
}

struct World {
    tables: Arc<CompiledPolicy>,
    platform: PlatformPolicy,
}

impl World {
    fn new() -> Self {
        let policy = Arc::new(BundlePolicy::compile(Arc::new(bundles::bundle(POLICY, ROLES))));
        Self {
            tables: Compiler::new().unwrap().compile_policy(KeyspaceId::DEFAULT, &tables()),
            platform: PlatformPolicy { revision: 1, rules: Some(policy) },
        }
    }

    fn may(&self, tenant: &str, name: &str, groups: &[&str], operation: Operation<Plaintext>) -> bool {
        let keyspace = if tenant == "default" { KeyspaceId::DEFAULT } else { KeyspaceId(7) };
        let caller = Caller::User {
            keyspace,
            name: name.into(),
            evidence: Evidence::Certificate,
            groups: groups.iter().map(|name| Arc::from(*name)).collect(),
            origin: Origin { source: None, connection: Some(ConnectionKind::Mtls) },
        };
        // 2030.
        let policy = InForce::new(self.tables.as_ref(), &self.platform, tenant, 1_893_456_000);
        match Permit::obtain(&policy, &NoLeases, 1, &caller, operation) {
            Ok(_) => true,
            Err(Refusal::PermissionDenied) => false,
            Err(other) => panic!("{other}"),
        }
    }
}

fn user_add(name: &str) -> Operation<Plaintext> {
    Operation::UserAdd(UserAdd { name: name.to_owned(), credential: Credential::NoPassword })
}

fn password(name: &str) -> Operation<Plaintext> {
    Operation::UserChangePassword { name: name.to_owned(), credential: Credential::NoPassword }
}

fn give(user: &str, role: &str) -> Operation<Plaintext> {
    Operation::UserGrantRole { user: user.to_owned(), role: role.to_owned() }
}

fn take(user: &str, role: &str) -> Operation<Plaintext> {
    Operation::UserRevokeRole { user: user.to_owned(), role: role.to_owned() }
}

fn grant(role: &str, kind: PermissionKind, keys: &str) -> Operation<Plaintext> {
    Operation::RoleGrantPermission(RoleGrant { role: role.to_owned(), permission: permission(kind, keys) })
}

fn role_add(name: &str) -> Operation<Plaintext> {
    Operation::RoleAdd { name: name.to_owned() }
}

fn role_delete(name: &str) -> Operation<Plaintext> {
    Operation::RoleDelete { name: name.to_owned() }
}

fn role_revoke(name: &str) -> Operation<Plaintext> {
    Operation::RoleRevokePermission(RoleRevoke { role: name.to_owned(), range: prefix("/shop/") })
}

fn user_delete(name: &str) -> Operation<Plaintext> {
    Operation::UserDelete { name: name.to_owned() }
}

/// May `ops`, who has the verb `auth` and not `escalate`?
fn table() -> Vec<(Operation<Plaintext>, bool)> {
    use PermissionKind::{Read, ReadWrite, Write};
    vec![
        // Granting keys: what is held, all of it, whatever the circumstances.
        (grant("empty", Read, "/pay/"), true),
        (grant("empty", Read, "/pay/secret/"), true),
        (grant("empty", Write, "/pay/a/"), true),
        (grant("empty", Write, "/pay/secret/"), false),
        (grant("empty", Write, "/pay/"), false),
        (grant("empty", ReadWrite, "/pay/"), false),
        (grant("empty", Read, "/shop/"), false),
        (grant("empty", Read, "/"), false),
        (grant("empty", Read, "/night/"), false),
        (grant("empty", Read, "/audit/"), false),
        (grant("root", Read, "/pay/"), false),
        // Giving roles: what they give.
        (give("nobody", "pays"), true),
        (give("nobody", "empty"), true),
        (give("nobody", "missing"), true),
        (give("nobody", "shops"), false),
        (give("ops", "shops"), false),
        (give("nobody", "root"), false),
        (give("ops", "root"), false),
        (give("root", "empty"), false),
        // Becoming somebody: by a password, or by a name that has rights already.
        (password("nobody"), true),
        (password("payer"), true),
        (password("ops"), true),
        (password("shopper"), false),
        (password("lead"), false),
        (password("root"), false),
        (password("deputy"), false),
        (user_add("new"), true),
        (user_add("likewise"), true),
        (user_add("narrow"), true),
        (user_add("wide"), false),
        (user_add("ever"), false),
        (user_add("compactor"), true),
        (user_add("hasher"), false),
        (user_add("lister"), true),
        (user_add("over"), true),
        (user_add("later"), false),
        (user_add("root"), false),
        // Taking away gives nobody anything.
        (take("shopper", "shops"), true),
        (take("root", "empty"), false),
        (take("deputy", "root"), false),
        (user_delete("shopper"), true),
        (user_delete("lead"), true),
        (user_delete("root"), false),
        (user_delete("deputy"), false),
        (role_delete("shops"), true),
        (role_delete("root"), false),
        (role_revoke("shops"), true),
        (role_revoke("root"), false),
        (role_add("new"), true),
        (role_add("root"), false),
        (Operation::AuthEnable, true),
        (Operation::AuthDisable, false),
    ]
}

#[test]
fn each_change_of_users_and_roles_needs_what_it_hands_on() {
    let world = World::new();
    let mut asked = 0;
    for (operation, ops) in table() {
        for (name, expected) in [
            ("root", true),
            ("deputy", true),
            ("lead", true),
            ("ops", ops),
            ("nobody", false),
            ("payer", false),
        ] {
            asked += 1;
            assert_eq!(world.may("default", name, &[], operation.clone()), expected, "{name}: {operation:?}");
        }
    }
    println!("{asked} questions");
    assert!(asked > 300);
}

#[test]
fn what_is_held_is_what_is_in_force_for_the_caller_in_their_tenant() {
    use PermissionKind::{Read, Write};
    let world = World::new();
    let audit = || grant("empty", Read, "/audit/");
    assert!(!world.may("default", "ops", &["readers"], audit()));
    assert!(world.may("default", "ops", &["auditors"], audit()), "by a group");
    // Whom a row keeps from what every user may: a new user would not be kept from it.
    assert!(world.may("default", "ops", &[], user_add("new")));
    assert!(!world.may("default", "blind", &[], user_add("new")));
    assert!(!world.may("default", "blind", &[], Operation::Status));
    assert!(world.may("default", "blind", &[], Operation::MemberList { linearizable: true }));
    assert!(world.may("default", "nobody", &[], Operation::Status));

    // Rights are those of the tenant; what a tenant's rows cannot give is nothing that could be handed on.
    assert!(world.may("pay", "ops", &[], grant("empty", Read, "/pay/")));
    assert!(!world.may("pay", "ops", &[], grant("empty", Write, "/pay/a/")));
    assert!(world.may("pay", "ops", &[], user_add("defragmenter")));
    assert!(!world.may("pay", "defragmenter", &[], Operation::Defragment));

    // A tenant's root may give everything, unless the platform takes that from it.
    assert!(world.may("pay", "root", &[], grant("empty", Write, "/bound/")));
    assert!(!world.may("bound", "root", &[], grant("empty", Write, "/bound/")));
    assert!(world.may("bound", "root", &[], grant("empty", Read, "/bound/")));
    assert!(!world.may("bound", "root", &[], give("nobody", "root")));
    assert!(world.may("bound", "root", &[], give("nobody", "shops")));
    // It would be free of what binds its maker.
    assert!(world.may("bound", "root", &[], user_add("new")));
}

#[test]
fn the_platforms_verbs_cannot_be_given_by_rows_of_a_tenant() {
    let verbs = keygate_policies::bundle::Verb::ALL;
    let policy: String = verbs
        .iter()
        .flat_map(|verb| {
            ["pay", "default"].map(|tenant| format!("p, user:all, {tenant}, -, {}, allow\n", verb.name()))
        })
        .collect();
    let policy = Arc::new(BundlePolicy::compile(Arc::new(bundles::bundle(&policy, ""))));
    let world = World { platform: PlatformPolicy { revision: 1, rules: Some(policy) }, ..World::new() };
    let own = || Operation::QuotaShow(QuotaOf::Own);
    let platform = [
        Operation::Defragment,
        Operation::Hash,
        Operation::Snapshot,
        Operation::TenantList,
        Operation::QuotaShow(QuotaOf::All),
        Operation::QuotaRecount(QuotaOf::All),
        Operation::Observe(Observation::Limits),
        Operation::Observe(Observation::Load { most: 1 }),
        Operation::PolicyAsk(PolicyQuestion::Log),
        Operation::Alarm(AlarmRequest {
            action: AlarmAction::Deactivate,
            member: 0,
            alarm: AlarmKind::NoSpace,
        }),
    ];
    for operation in platform {
        assert!(world.may("default", "all", &[], operation.clone()), "{operation:?}");
        assert!(!world.may("pay", "all", &[], operation.clone()), "{operation:?}");
        assert!(!world.may("pay", "root", &[], operation.clone()), "{operation:?}");
        assert!(!world.may("default", "nobody", &[], operation.clone()), "{operation:?}");
        assert!(world.may("default", "root", &[], operation.clone()), "{operation:?}");
    }
    for operation in [own(), Operation::HashKv { revision: 0 }, Operation::AuthDisable, Operation::UserList] {
        assert!(world.may("pay", "all", &[], operation.clone()), "{operation:?}");
        assert!(!world.may("pay", "nobody", &[], operation), "of the keyspace");
    }
}
