//! A bundle in force that cannot be used any more: the server does not start, says why and which, and knows a way out.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

use bytes::Bytes;
use keygate_core::*;
use keygate_engine::{Engine, EngineOptions};
use keygate_policies::{Compiler, digest_of_tar};
use std::process::Command;
use std::sync::Arc;

/// A newer program: it takes what this one cannot read.
struct Newer(Compiler);

impl Compile for Newer {
    fn compile(
        &self,
        keyspace: KeyspaceId,
        tables: &AuthTables,
        previous: Option<&Arc<dyn Policy>>,
    ) -> Arc<dyn Policy> {
        self.0.compile(keyspace, tables, previous)
    }

    fn is_content_of(&self, digest: &BundleDigest, parts: &[Bytes]) -> bool {
        self.0.is_content_of(digest, parts)
    }

    fn bundle(&self, _: &BundleDigest, _: &[Bytes]) -> Result<Arc<dyn Rules>, String> {
        let nothing = BundleDigest([0; 32]);
        Compiler::new().unwrap().recovering().bundle(&nothing, &[])
    }
}

fn open(folder: &std::path::Path, compile: Arc<dyn Compile>) -> Result<Engine, String> {
    let options = EngineOptions { data_dir: folder.join("data"), ..EngineOptions::default() };
    Engine::open(options, compile).map_err(|error| error.to_string())
}

fn may(engine: &Engine, name: &str) -> bool {
    let view = engine.view();
    let keyspace = view.keyspace(KeyspaceId::DEFAULT).unwrap();
    let policy = InForce::new(keyspace.policy().as_ref(), view.platform_policy(), DEFAULT_TENANT, 0);
    let caller = Caller::User {
        keyspace: KeyspaceId::DEFAULT,
        name: name.into(),
        evidence: Evidence::Certificate,
        groups: Groups::NONE,
        origin: Origin::default(),
    };
    let all: Operation<Sealed> = Operation::Range(Range::of(KeyRange::From("a".into())));
    Permit::obtain(&policy, keyspace, 1, &caller, all).is_ok()
}

#[tokio::test]
async fn a_server_starts_without_its_bundle_only_to_deny_everything_but_root() {
    let folder = tempfile::tempdir().unwrap();
    let content = Bytes::from_static(b"what only a newer program reads");
    let digest = digest_of_tar(std::slice::from_ref(&content));
    let engine = open(folder.path(), Arc::new(Newer(Compiler::new().unwrap()))).unwrap();
    let add = |name: &str| {
        let credential = Credential::Hashed(PasswordHash("hash".to_owned()));
        Operation::UserAdd(UserAdd { name: name.to_owned(), credential })
    };
    let give = |user: &str, role: &str| Operation::UserGrantRole { user: user.into(), role: role.into() };
    let permission = Permission { kind: PermissionKind::ReadWrite, range: KeyRange::From("a".into()) };
    for operation in [
        add("root"),
        add("alice"),
        Operation::RoleAdd { name: "all".to_owned() },
        Operation::RoleGrantPermission(RoleGrant { role: "all".to_owned(), permission }),
        give("alice", "all"),
        give("root", "root"),
        Operation::AuthEnable,
        Operation::PolicyChange(PolicyChange::Stage { digest, index: 0, content }),
        Operation::PolicyChange(PolicyChange::Apply { digest, parts: 1, expected: None, at: 0 }),
    ] {
        let operation: Operation<Sealed> = operation;
        let permit = Permit::internal(InternalReason::Bootstrap, KeyspaceId::DEFAULT, operation);
        engine.port().propose(permit).await.unwrap();
    }
    engine.shutdown();
    drop(engine);

    for _ in 0..2 {
        let error = open(folder.path(), Arc::new(Compiler::new().unwrap())).err().unwrap();
        assert!(error.contains(&digest.to_string()), "{error}");
        assert!(
            error.contains("`--policy-recover`") && error.contains("`keygate policy rollback`"),
            "{error}"
        );
    }
    // The program itself says so too.
    let output = Command::new(env!("CARGO_BIN_EXE_keygate"))
        .args(["serve", "--listen-client-urls", "https://127.0.0.1:0"])
        .args(["--advertise-client-urls", "https://127.0.0.1:1", "--data-dir"])
        .arg(folder.path().join("data"))
        .env_clear()
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains(&digest.to_string()), "{said}");

    let compiler = Arc::new(Compiler::new().unwrap().recovering());
    let engine = open(folder.path(), compiler.clone()).unwrap();
    assert!(compiler.unusable().iter().any(|why| why.contains(&digest.to_string())));
    assert!(may(&engine, "root"));
    assert!(!may(&engine, "alice"), "whatever the tables allow, deny rows may have been in the way");
    let back = Operation::PolicyChange(PolicyChange::Rollback { to: Some(0), expected: None, at: 0 });
    let back: Operation<Sealed> = back;
    let permit = Permit::internal(InternalReason::Bootstrap, KeyspaceId::DEFAULT, back);
    engine.port().propose(permit).await.unwrap();
    assert!(may(&engine, "alice") && may(&engine, "root"));
    engine.shutdown();
    drop(engine);
    open(folder.path(), Arc::new(Compiler::new().unwrap())).unwrap();
}
