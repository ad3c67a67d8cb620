//! The platform's policy: a bundle of rows that is in force beside the tables of every keyspace.
//!
//! What a request is decided on is both at once ([`InForce`]): it is allowed where the keyspace's tables or the bundle
//! allow it and the bundle does not deny it. Only `policies` knows what is in a bundle.

use crate::access::{Access, AdminVerb, KeyAction};
use crate::auth::{KeyspaceId, Permission, ROOT};
use crate::caller::{Caller, Groups, Origin};
use crate::escalation::{Grant, Reach, RightsOf};
use crate::policy::{Decision, Fence, Policy};
use crate::range::KeyRange;
use crate::sight::Sight;
use crate::tenant::TenantName;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// SHA-256 of a bundle's tar.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BundleDigest(pub [u8; 32]);

impl fmt::Display for BundleDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BundleDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The most that one part of a bundle may hold: a part is one entry of the log, and nobody should wait for it long.
pub const BUNDLE_PART: usize = 512 << 10;
/// What our own senders put into a part: a write that comes behind one waits little longer than behind any other write.
pub const BUNDLE_STEP: usize = 64 << 10;
/// The most that a bundle may hold in all, as it is sent. A hundred thousand rows are about ten million bytes, a million compressed.
pub const BUNDLE_BYTES: u64 = 32 << 20;

/// A change of the platform's policy. `at` is the time of the gateway in seconds since 1970, for people.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PolicyChange {
    /// A part of a bundle that is to be applied. One bundle is under way at a time: a part of another one ends it.
    Stage { digest: BundleDigest, index: u32, content: Bytes },
    /// Puts the bundle that these parts are in force. `expected`: refused unless this revision is in force.
    Apply { digest: BundleDigest, parts: u32, expected: Option<u64>, at: i64 },
    /// Puts what was in force under revision `to` (0: no bundle) in force again; without it, what was before.
    Rollback { to: Option<u64>, expected: Option<u64>, at: i64 },
}

/// A question about the platform's policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PolicyQuestion {
    /// Which revisions there were.
    Log,
    /// One part of the bundle of a revision.
    Part { revision: u64, index: u32 },
    /// What the tables of a keyspace say, as rows. `None`: the default one.
    Tables { tenant: Option<TenantName> },
    /// Which of these names are users of a keyspace. `None`: the default one.
    Users { tenant: Option<TenantName>, names: Vec<String> },
    /// A request that was denied lately.
    Denial { decision: u64 },
}

/// A request that was denied, and who asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Denial {
    pub decision: u64,
    /// Seconds since 1970.
    pub at: i64,
    pub policy_revision: u64,
    pub tenant: String,
    /// Empty: nobody had logged in.
    pub user: String,
    pub groups: Vec<String>,
    pub origin: Origin,
    pub method: String,
    /// What it wanted, in the words of `keygate policy explain`; of a large one the beginning.
    pub requests: Vec<String>,
    /// Of a change of users and roles: what it would have handed on that its caller does not hold; the first few.
    pub lacking: Vec<String>,
}

/// What a bundle says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct BundleAbout {
    /// The author's count.
    pub revision: u64,
    /// `sha256:` of its manifest, which names the whole bundle.
    pub manifest: String,
    pub rows: u64,
    pub links: u64,
}

/// A revision of the platform's policy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyRevision {
    /// Counted by the server; 0 is the policy without a bundle that it began with.
    pub revision: u64,
    /// `None`: without a bundle.
    pub bundle: Option<StoredBundle>,
    /// Seconds since 1970.
    pub at: i64,
    pub by: Option<String>,
    /// The revision that a rollback restored.
    pub restores: Option<u64>,
}

/// A bundle that the server was given.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredBundle {
    pub digest: BundleDigest,
    pub parts: u32,
    pub bytes: u64,
    pub about: BundleAbout,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PolicyAnswer {
    Staged,
    /// It is in force: every view that is published from now on uses it.
    InForce(PolicyRevision),
    /// Newest first. `kept`: those whose bundle can still be read and restored.
    Log {
        in_force: u64,
        revisions: Vec<PolicyRevision>,
        kept: Vec<u64>,
    },
    Part {
        content: Bytes,
        parts: u32,
    },
    /// As lines of `policy.csv` and `roles.csv`.
    Tables {
        policy: String,
        roles: String,
        /// All there are, so that whoever asks can ask about each.
        tenants: Vec<String>,
    },
    Users {
        names: Vec<String>,
        /// As of [`Self::Tables`].
        tenants: Vec<String>,
    },
    Denial(Denial),
}

/// Whom, from where and when a bundle is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// The tenant's name; [`crate::DEFAULT_TENANT`] for whoever has none.
    pub tenant: &'a str,
    pub name: &'a str,
    pub groups: &'a Groups,
    pub origin: Origin,
    /// Seconds since 1970.
    pub now: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ruling {
    Allow,
    Deny,
    /// No row is about it.
    Silent,
}

/// What rows say of a read whose answer may leave out keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SightRuling {
    /// [`Ruling::Deny`]: a row refuses the whole, or all of it is hidden. Else what is said of the keys that are not.
    pub ruling: Ruling,
    pub sight: Sight,
}

/// A compiled bundle.
///
/// # Contract
/// - Immutable, and pure: the same question has the same answer for the whole life of the value.
/// - Never panics, whatever bytes a key holds; costs microseconds, whatever the number of rows.
pub trait Rules: Send + Sync {
    fn about(&self) -> BundleAbout;
    /// Is the user, or a group of theirs, a subject of the bundle in this tenant?
    fn knows(&self, asking: &Asking<'_>) -> bool;
    /// [`Ruling::Allow`]: rows allow **every** key of `range`; [`Ruling::Deny`]: a row denies one of them.
    fn keys(&self, asking: &Asking<'_>, action: KeyAction, range: &KeyRange) -> Ruling;
    /// The same for a read, where rows that would rather hide their keys than refuse the whole may do so.
    fn sight(&self, asking: &Asking<'_>, range: &KeyRange) -> SightRuling;
    fn admin(&self, asking: &Asking<'_>, verb: AdminVerb) -> Ruling;
    /// What somebody given `gift` could do now or later that the asker could not do under the same circumstances:
    /// the first few, in words. `own`: do the tables let the asker do it?
    fn beyond(&self, asking: &Asking<'_>, own: &dyn Fn(&Access) -> bool, gift: &Gift<'_>) -> Vec<String>;
    /// When, after `asking.now`, rulings about keys may change for this caller because time passes.
    fn until(&self, asking: &Asking<'_>, action: KeyAction) -> Option<i64>;
}

/// What somebody is to be given.
#[derive(Clone, Copy, Debug)]
pub struct Gift<'a> {
    /// Whatever the circumstances.
    pub permissions: &'a [Permission],
    /// Whose rows bind the receiver and are given along; `None`: it may be anybody.
    pub user: Option<&'a str>,
}

/// What is in force beside the tables, and since which revision.
#[derive(Clone, Default)]
pub struct PlatformPolicy {
    pub revision: u64,
    pub rules: Option<Arc<dyn Rules>>,
}

impl fmt::Debug for PlatformPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlatformPolicy").field("revision", &self.revision).finish_non_exhaustive()
    }
}

/// The policy of one keyspace at one moment: its tables and the bundle.
///
/// The platform's own root is bound by its tables alone, so that no bundle can lock everybody out; a tenant's root is
/// bound by deny rows like everybody else.
#[derive(Clone, Copy)]
pub struct InForce<'a> {
    tables: &'a dyn Policy,
    platform: &'a PlatformPolicy,
    tenant: &'a str,
    now: i64,
}

impl<'a> InForce<'a> {
    /// `tables` and `platform` must be of one snapshot. `now`: seconds since 1970; looked at only by conditions.
    pub fn new(tables: &'a dyn Policy, platform: &'a PlatformPolicy, tenant: &'a str, now: i64) -> Self {
        Self { tables, platform, tenant, now }
    }

    /// When decisions about keys may change for this caller because time passes.
    pub fn decided_until(&self, caller: &Caller, action: KeyAction) -> Option<i64> {
        let (rules, asking) = self.asking(caller)?;
        rules.until(&asking, action)
    }

    /// None: nobody asks the bundle about this caller.
    fn asking<'c>(&'c self, caller: &'c Caller) -> Option<(&'c dyn Rules, Asking<'c>)> {
        let rules = self.platform.rules.as_deref()?;
        match caller {
            Caller::Anonymous { .. } => None,
            Caller::User { keyspace, .. } if *keyspace == KeyspaceId::DEFAULT && self.is_root(caller) => None,
            Caller::User { name, groups, origin, .. } => {
                Some((rules, Asking { tenant: self.tenant, name, groups, origin: *origin, now: self.now }))
            }
        }
    }

    /// In the tables administrative rights are root's alone.
    fn is_root(&self, caller: &Caller) -> bool {
        self.tables.decide_other(caller, &Access::Admin(AdminVerb::AuthChange)) == Decision::Allow
    }

    /// What the change would hand on that the caller does not hold: the first few, in words. Empty where the caller
    /// may give more than they hold.
    pub fn lacking(&self, caller: &Caller, grant: &Grant) -> Vec<String> {
        if self.decide_other(caller, &Access::Admin(AdminVerb::Escalate)) == Decision::Allow {
            return Vec::new();
        }
        let mut permissions = Vec::new();
        let mut tables = |of: RightsOf<'_>| self.tables.rights(of, &mut |own| permissions.push(own.clone()));
        let (reach, user) = match grant {
            Grant::Keys(permission) => {
                permissions.push(permission.clone());
                (Reach::Listed, None)
            }
            // The role can be held without having been made.
            Grant::Role(role) if role == ROOT => (Reach::Everything, None),
            Grant::Role(role) => (tables(RightsOf::Role(role)), None),
            Grant::User(user) => (tables(RightsOf::User(user)), Some(user.as_str())),
            Grant::RootOf(user) => match tables(RightsOf::User(user)) {
                Reach::Listed => return Vec::new(),
                Reach::Everything => (Reach::Everything, None),
            },
        };
        match (reach, self.asking(caller)) {
            (Reach::Listed, Some((rules, asking))) => {
                let own = |access: &Access| self.tables.decide_other(caller, access) == Decision::Allow;
                rules.beyond(&asking, &own, &Gift { permissions: &permissions, user })
            }
            // Without a bundle only root, who may give everything, changes users and roles.
            (Reach::Everything, _) | (Reach::Listed, None) => {
                vec![format!("everything, as the role `{ROOT}` has it")]
            }
        }
    }

    fn record(&self, caller: &Caller, access: &Access, verb: AdminVerb) -> Decision {
        let own = self.tables.decide_other(caller, access);
        match self.asking(caller).map(|(rules, asking)| rules.admin(&asking, verb)) {
            Some(Ruling::Allow) => Decision::Allow,
            // What somebody may see of themselves is no right over others.
            Some(Ruling::Deny) if self.is_root(caller) => Decision::Deny,
            Some(Ruling::Deny | Ruling::Silent) | None => own,
        }
    }
}

fn joined(ruling: Ruling, own: impl FnOnce() -> Decision) -> Decision {
    match ruling {
        Ruling::Allow => Decision::Allow,
        Ruling::Deny => Decision::Deny,
        Ruling::Silent => own(),
    }
}

impl Policy for InForce<'_> {
    fn fence(&self) -> Fence {
        Fence { platform: self.platform.revision, ..self.tables.fence() }
    }

    fn is_enabled(&self) -> bool {
        self.tables.is_enabled()
    }

    fn knows(&self, caller: &Caller) -> bool {
        self.tables.knows(caller) || self.asking(caller).is_some_and(|(rules, asking)| rules.knows(&asking))
    }

    fn decide_keys(&self, caller: &Caller, action: KeyAction, range: &KeyRange) -> Decision {
        let own = || self.tables.decide_keys(caller, action, range);
        match self.asking(caller) {
            None => own(),
            Some((rules, asking)) => joined(rules.keys(&asking, action, range), own),
        }
    }

    fn sight(&self, caller: &Caller, range: &KeyRange) -> Option<Sight> {
        let Some((rules, asking)) = self.asking(caller) else { return self.tables.sight(caller, range) };
        let SightRuling { ruling, sight } = rules.sight(&asking, range);
        let own = || self.tables.decide_keys(caller, KeyAction::Read, range);
        (joined(ruling, own) == Decision::Allow).then_some(sight)
    }

    fn decide_other(&self, caller: &Caller, access: &Access) -> Decision {
        let own = || self.tables.decide_other(caller, access);
        match access {
            Access::Admin(verb) if verb.is_of_every_user() => {
                match self.asking(caller).map(|(rules, asking)| rules.admin(&asking, *verb)) {
                    Some(Ruling::Deny) => Decision::Deny,
                    Some(Ruling::Allow | Ruling::Silent) => Decision::Allow,
                    None => own(),
                }
            }
            Access::Grant(grant) if self.lacking(caller, grant).is_empty() => Decision::Allow,
            Access::Grant(_) => Decision::Deny,
            Access::Admin(verb) => match self.asking(caller) {
                None => own(),
                Some((rules, asking)) => joined(rules.admin(&asking, *verb), own),
            },
            Access::UserRecord(_) => self.record(caller, access, AdminVerb::UserList),
            Access::RoleRecord(_) => self.record(caller, access, AdminVerb::RoleList),
            Access::Keys { action, range } => self.decide_keys(caller, *action, range),
            // Which keys a lease has is not known here; whoever does asks about them one by one.
            Access::KeysOfLease { .. } | Access::KeysOfAllLeases { .. } => Decision::Deny,
            Access::Open | Access::Authenticated => own(),
        }
    }

    fn rights(&self, of: RightsOf<'_>, visit: &mut dyn FnMut(&Permission)) -> Reach {
        self.tables.rights(of, visit)
    }
}
