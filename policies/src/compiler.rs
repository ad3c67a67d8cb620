//! Makes [`CompiledPolicy`]s, each from the one before.

use crate::compiled::{CompiledPolicy, Edition, Slot, Users};
use crate::decision::BundlePolicy;
use crate::group::Groups;
use crate::model::{Model, ModelError};
use crate::recovering::DenyEverything;
use bytes::Bytes;
use imbl::ordmap::DiffItem;
use keygate_core::{AuthTables, BundleDigest, Compile, KeyspaceId, Policy, Rules};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Compiles the policy of each keyspace.
///
/// It remembers the newest policy of a keyspace, without keeping it alive, and makes the next one
/// from what differs. The tables are persistent maps, so that costs as much as the change.
pub struct Compiler {
    newest: Mutex<HashMap<KeyspaceId, Weak<CompiledPolicy>>>,
    editions: AtomicU64,
    /// Compiled bundles that somebody still holds.
    bundles: Mutex<HashMap<BundleDigest, Remembered>>,
    /// What does not compile any more denies everything instead of being refused.
    recovers: bool,
    unusable: Mutex<Vec<String>>,
}

struct Remembered {
    policy: Weak<BundlePolicy>,
    /// The very parts whose digest was found right. While they are held here, nothing else can lie at their places.
    parts: Vec<Bytes>,
}

impl Compiler {
    /// Loads the built-in model through casbin and holds it against what compiled policies implement.
    ///
    /// # Errors
    /// The model cannot be loaded, or says something else than the compiled form does: a server must
    /// not start then.
    pub fn new() -> Result<Self, ModelError> {
        Self::with_model(crate::MODEL)
    }

    /// The same for a given text of `model.conf`.
    pub fn with_model(text: &str) -> Result<Self, ModelError> {
        Model::load(text)?.self_test()?;
        Ok(Self {
            newest: Mutex::default(),
            editions: AtomicU64::new(0),
            bundles: Mutex::default(),
            recovers: false,
            unusable: Mutex::default(),
        })
    }

    /// Lets a bundle that was in force and cannot be used any more deny everything, so that a server starts on it and
    /// the platform's root can put another one in force.
    #[must_use]
    pub fn recovering(self) -> Self {
        Self { recovers: true, ..self }
    }

    /// Bundles that deny everything because they cannot be used, and why.
    pub fn unusable(&self) -> Vec<String> {
        self.unusable.lock().clone()
    }

    /// The compiled form of a bundle that somebody still holds.
    pub fn prepared(&self, digest: &BundleDigest) -> Option<Arc<BundlePolicy>> {
        self.bundles.lock().get(digest)?.policy.upgrade()
    }

    /// `parts`: whose digest this is.
    pub(crate) fn remember(&self, digest: BundleDigest, parts: &[Bytes], policy: &Arc<BundlePolicy>) {
        let remembered = Remembered { policy: Arc::downgrade(policy), parts: parts.to_vec() };
        let mut bundles = self.bundles.lock();
        let gone: Vec<Remembered> =
            bundles.extract_if(|_, own| own.policy.strong_count() == 0).map(|(_, own)| own).collect();
        let replaced = bundles.insert(digest, remembered);
        // Freeing takes long, and the applying thread asks for the lock.
        drop(bundles);
        drop((gone, replaced));
    }

    /// Without a look at the content, which takes milliseconds when there is much of it.
    fn are_known(&self, digest: &BundleDigest, parts: &[Bytes]) -> bool {
        let place = |part: &Bytes| (part.as_ptr(), part.len());
        self.bundles
            .lock()
            .get(digest)
            .is_some_and(|own| own.parts.iter().map(place).eq(parts.iter().map(place)))
    }

    /// [`Compile::compile`] with the concrete type.
    pub fn compile_policy(&self, keyspace: KeyspaceId, tables: &AuthTables) -> Arc<CompiledPolicy> {
        let base = self.newest.lock().get(&keyspace).and_then(Weak::upgrade);
        let policy = Arc::new(match base {
            Some(base) => self.advance(&base, tables),
            None => self.start(tables),
        });
        self.newest.lock().insert(keyspace, Arc::downgrade(&policy));
        policy
    }

    fn start(&self, tables: &AuthTables) -> CompiledPolicy {
        let users = tables.users.iter().map(|(name, user)| (name.clone(), Slot::new(user.clone())));
        CompiledPolicy {
            users: users.collect(),
            edition: self.next_edition(),
            groups: Arc::new(Groups::default()),
            tables: tables.clone(),
        }
    }

    fn advance(&self, base: &CompiledPolicy, tables: &AuthTables) -> CompiledPolicy {
        let same_roles = base.tables.roles.ptr_eq(&tables.roles);
        CompiledPolicy {
            users: changed_users(base, tables),
            edition: if same_roles { base.edition } else { self.next_edition() },
            groups: base.groups.clone(),
            tables: tables.clone(),
        }
    }

    fn next_edition(&self) -> Edition {
        Edition(self.editions.fetch_add(1, Ordering::Relaxed))
    }
}

fn changed_users(base: &CompiledPolicy, tables: &AuthTables) -> Users {
    let mut users = base.users.clone();
    for item in base.tables.users.diff(&tables.users) {
        match item {
            DiffItem::Add(name, user) | DiffItem::Update { new: (name, user), .. } => {
                users.insert(name.clone(), Slot::new(user.clone()));
            }
            DiffItem::Remove(name, _) => {
                users.remove(name);
            }
        }
    }
    users
}

impl Compile for Compiler {
    /// `previous` is not looked at: any earlier policy of the keyspace serves as the base, because
    /// what differs is computed from the tables themselves.
    fn compile(
        &self,
        keyspace: KeyspaceId,
        tables: &AuthTables,
        _previous: Option<&Arc<dyn Policy>>,
    ) -> Arc<dyn Policy> {
        self.compile_policy(keyspace, tables)
    }

    fn is_content_of(&self, digest: &BundleDigest, parts: &[Bytes]) -> bool {
        self.are_known(digest, parts) || crate::serving::digest_of_tar(parts) == *digest
    }

    fn bundle(&self, digest: &BundleDigest, parts: &[Bytes]) -> Result<Arc<dyn Rules>, String> {
        match self.compile_bundle(digest, parts) {
            Ok(policy) => Ok(policy),
            Err(why) if self.recovers => {
                self.unusable.lock().push(format!("bundle `{digest}` cannot be used: {why}"));
                Ok(Arc::new(DenyEverything))
            }
            Err(why) => Err(format!(
                "{why}\nthe way out: start the program that it was applied with, or start this one with \
                 `--policy-recover`, which denies everything to everybody but the platform's root, and as root \
                 `keygate policy apply` another bundle or `keygate policy rollback`"
            )),
        }
    }
}
