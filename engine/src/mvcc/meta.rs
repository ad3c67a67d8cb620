//! What the store keeps beside key rows: heads, leases, alarms, users and roles. Format: `docs/formats/state.md`.
//!
//! A key is u32 keyspace, u8 kind, id; all integers are big-endian. A value is a version byte and postcard.

use super::effects::Change;
use super::lease::Lease;
use bytes::Bytes;
use keygate_core::{
    AlarmKind, AlarmMember, AuthTables, BundleDigest, KeyspaceId, LeaseId, PolicyRevision, QuotaLimits, Role,
    Tenant, User,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const HEAD: u8 = 1;
const LEASE: u8 = 2;
const ALARM: u8 = 3;
const AUTH: u8 = 4;
const USER: u8 = 5;
const ROLE: u8 = 6;
const TENANT: u8 = 7;
const NEXT_KEYSPACE: u8 = 8;
const ERASING: u8 = 9;
const QUOTA: u8 = 10;
const POLICY_REVISION: u8 = 20;
const BUNDLE_PART: u8 = 21;
/// Kinds from here on belong to the driver.
const FOREIGN: u8 = 128;

const VERSION: u8 = 1;

/// A keyspace exists when its head does, the default one always. `revision` is the one at the time of writing: rows tell
/// a newer one, unless a compaction took them, which writes the head.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct HeadRecord {
    pub(super) revision: i64,
    pub(super) compact_revision: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct LeaseRecord {
    pub(super) ttl: i64,
    pub(super) remaining: i64,
    pub(super) generation: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct AuthRecord {
    pub(super) enabled: bool,
    pub(super) revision: u64,
    pub(super) policy_version: u64,
}

/// A metadata row, read back.
pub(super) enum Record {
    Head(HeadRecord),
    Lease(LeaseId, LeaseRecord),
    Alarm(AlarmMember),
    Auth(AuthRecord),
    User(User),
    Role(Role),
    Tenant(Tenant),
    /// The number of the next keyspace. Stands in the default keyspace.
    NextKeyspace(u32),
    /// The keyspace's tenant was deleted, and rows of it may be left.
    Erasing,
    /// Of the prefix; an empty one stands for the whole keyspace.
    Quota(Bytes, QuotaLimits),
    /// Stands in the default keyspace.
    PolicyRevision(PolicyRevision),
    /// Part of a bundle. Stands in the default keyspace.
    BundlePart((BundleDigest, u32), Bytes),
    /// The driver's.
    Foreign,
}

fn key(keyspace: KeyspaceId, kind: u8, id: &[u8]) -> Bytes {
    [&keyspace.0.to_be_bytes()[..], &[kind], id].concat().into()
}

fn put(key: Bytes, record: &impl Serialize) -> Change {
    let value = postcard::to_extend(record, vec![VERSION])
        .expect("records are plain data, which postcard can always write to memory");
    Change::PutMeta(key, value.into())
}

pub(super) fn put_head(keyspace: KeyspaceId, record: &HeadRecord) -> Change {
    put(head_key(keyspace), record)
}

pub(super) fn lease_key(keyspace: KeyspaceId, id: LeaseId) -> Bytes {
    key(keyspace, LEASE, &id.0.to_be_bytes())
}

pub(super) fn put_lease(keyspace: KeyspaceId, id: LeaseId, lease: &Lease) -> Change {
    let record = LeaseRecord { ttl: lease.ttl, remaining: lease.remaining, generation: lease.generation };
    put(lease_key(keyspace, id), &record)
}

pub(super) fn alarm_key(keyspace: KeyspaceId, alarm: &AlarmMember) -> Bytes {
    let kind = match alarm.alarm {
        AlarmKind::None => 0,
        AlarmKind::NoSpace => 1,
        AlarmKind::Corrupt => 2,
    };
    key(keyspace, ALARM, &[&alarm.member.to_be_bytes()[..], &[kind]].concat())
}

pub(super) fn put_alarm(keyspace: KeyspaceId, alarm: &AlarmMember) -> Change {
    put(alarm_key(keyspace, alarm), &())
}

pub(super) fn put_auth(keyspace: KeyspaceId, auth: &AuthTables) -> Change {
    let record =
        AuthRecord { enabled: auth.enabled, revision: auth.revision, policy_version: auth.policy_version };
    put(auth_key(keyspace), &record)
}

pub(super) fn user_key(keyspace: KeyspaceId, name: &str) -> Bytes {
    key(keyspace, USER, name.as_bytes())
}

pub(super) fn put_user(keyspace: KeyspaceId, user: &User) -> Change {
    put(user_key(keyspace, &user.name), user)
}

pub(super) fn role_key(keyspace: KeyspaceId, name: &str) -> Bytes {
    key(keyspace, ROLE, name.as_bytes())
}

pub(super) fn put_role(keyspace: KeyspaceId, role: &Role) -> Change {
    put(role_key(keyspace, &role.name), role)
}

pub(super) fn tenant_key(keyspace: KeyspaceId) -> Bytes {
    key(keyspace, TENANT, b"")
}

pub(super) fn put_tenant(tenant: &Tenant) -> Change {
    put(tenant_key(tenant.keyspace), tenant)
}

pub(super) fn put_next_keyspace(next: u32) -> Change {
    put(key(KeyspaceId::DEFAULT, NEXT_KEYSPACE, b""), &next)
}

pub(super) fn erasing_key(keyspace: KeyspaceId) -> Bytes {
    key(keyspace, ERASING, b"")
}

pub(super) fn put_erasing(keyspace: KeyspaceId) -> Change {
    put(erasing_key(keyspace), &())
}

pub(super) fn quota_key(keyspace: KeyspaceId, prefix: &[u8]) -> Bytes {
    key(keyspace, QUOTA, prefix)
}

pub(super) fn put_quota(keyspace: KeyspaceId, prefix: &[u8], limits: &QuotaLimits) -> Change {
    put(quota_key(keyspace, prefix), limits)
}

pub(super) fn policy_revision_key(revision: u64) -> Bytes {
    key(KeyspaceId::DEFAULT, POLICY_REVISION, &revision.to_be_bytes())
}

pub(super) fn put_policy_revision(revision: &PolicyRevision) -> Change {
    put(policy_revision_key(revision.revision), revision)
}

pub(super) fn bundle_part_key((digest, index): &(BundleDigest, u32)) -> Bytes {
    key(KeyspaceId::DEFAULT, BUNDLE_PART, &[&digest.0[..], &index.to_be_bytes()].concat())
}

pub(super) fn put_bundle_part(id: &(BundleDigest, u32), content: &Bytes) -> Change {
    put(bundle_part_key(id), content)
}

pub(super) fn head_key(keyspace: KeyspaceId) -> Bytes {
    key(keyspace, HEAD, b"")
}

pub(super) fn auth_key(keyspace: KeyspaceId) -> Bytes {
    key(keyspace, AUTH, b"")
}

/// Reads a row back, or says what is wrong with it.
pub(super) fn read(key: &[u8], value: &[u8]) -> Result<(KeyspaceId, Record), &'static str> {
    let (keyspace, rest) = key.split_first_chunk::<4>().ok_or("key is cut short")?;
    let keyspace = KeyspaceId(u32::from_be_bytes(*keyspace));
    let (kind, id) = rest.split_first().ok_or("key is cut short")?;
    if *kind >= FOREIGN {
        return Ok((keyspace, Record::Foreign));
    }
    let record = match *kind {
        HEAD if id.is_empty() => Record::Head(decode(value)?),
        LEASE => {
            let id = <[u8; 8]>::try_from(id).map_err(|_| "id has the wrong length")?;
            Record::Lease(LeaseId(i64::from_be_bytes(id)), decode(value)?)
        }
        ALARM => {
            let (member, kind) = id.split_first_chunk::<8>().ok_or("id has the wrong length")?;
            let alarm = match kind {
                [1] => AlarmKind::NoSpace,
                [2] => AlarmKind::Corrupt,
                _ => return Err("unknown alarm"),
            };
            decode::<()>(value)?;
            Record::Alarm(AlarmMember { member: u64::from_be_bytes(*member), alarm })
        }
        AUTH if id.is_empty() => Record::Auth(decode(value)?),
        USER => {
            let user: User = decode(value)?;
            if user.name.as_bytes() != id {
                return Err("a user stands under another name");
            }
            Record::User(user)
        }
        ROLE => {
            let role: Role = decode(value)?;
            if role.name.as_bytes() != id {
                return Err("a role stands under another name");
            }
            Record::Role(role)
        }
        TENANT if id.is_empty() => {
            let tenant: Tenant = decode(value)?;
            if tenant.keyspace != keyspace {
                return Err("a tenant stands under another keyspace");
            }
            Record::Tenant(tenant)
        }
        NEXT_KEYSPACE if id.is_empty() && keyspace == KeyspaceId::DEFAULT => {
            Record::NextKeyspace(decode(value)?)
        }
        ERASING if id.is_empty() => {
            decode::<()>(value)?;
            Record::Erasing
        }
        QUOTA => Record::Quota(Bytes::copy_from_slice(id), decode(value)?),
        POLICY_REVISION if keyspace == KeyspaceId::DEFAULT => {
            let own: PolicyRevision = decode(value)?;
            if own.revision.to_be_bytes() != id {
                return Err("a policy revision stands under another number");
            }
            Record::PolicyRevision(own)
        }
        BUNDLE_PART if keyspace == KeyspaceId::DEFAULT => {
            let (digest, index) = id.split_first_chunk::<32>().ok_or("id has the wrong length")?;
            let index = <[u8; 4]>::try_from(index).map_err(|_| "id has the wrong length")?;
            Record::BundlePart((BundleDigest(*digest), u32::from_be_bytes(index)), decode(value)?)
        }
        _ => return Err("unknown kind"),
    };
    Ok((keyspace, record))
}

fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T, &'static str> {
    let (version, rest) = value.split_first().ok_or("value is empty")?;
    if *version != VERSION {
        return Err("value has a version that this program does not know");
    }
    match postcard::take_from_bytes(rest) {
        Ok((record, [])) => Ok(record),
        Ok(_) => Err("bytes behind the end of the value"),
        Err(_) => Err("value cannot be read"),
    }
}
