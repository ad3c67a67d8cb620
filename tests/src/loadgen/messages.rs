//! etcd's messages, as far as the workloads send and read them.
//!
//! Field numbers are those of etcd's public API; each function names its message.

use crate::wire::{Fields, Value, find_bytes, find_int, write_bytes, write_int};
use anyhow::{Context, Result, ensure};

pub(crate) mod path {
    pub(crate) const RANGE: &str = "/etcdserverpb.KV/Range";
    pub(crate) const PUT: &str = "/etcdserverpb.KV/Put";
    pub(crate) const TXN: &str = "/etcdserverpb.KV/Txn";
    pub(crate) const WATCH: &str = "/etcdserverpb.Watch/Watch";
    pub(crate) const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
    pub(crate) const LEASE_KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
    pub(crate) const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";
    pub(crate) const AUTH_ENABLE: &str = "/etcdserverpb.Auth/AuthEnable";
    pub(crate) const ROLE_ADD: &str = "/etcdserverpb.Auth/RoleAdd";
    pub(crate) const ROLE_GRANT: &str = "/etcdserverpb.Auth/RoleGrantPermission";
    pub(crate) const USER_ADD: &str = "/etcdserverpb.Auth/UserAdd";
    pub(crate) const USER_GRANT_ROLE: &str = "/etcdserverpb.Auth/UserGrantRole";
}

/// PutRequest.
pub(crate) fn put(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    write_bytes(out, 1, key);
    write_bytes(out, 2, value);
}

/// Whether a read may be answered by a member that has fallen behind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Consistency {
    Linearizable,
    Serializable,
}

/// RangeRequest over `[key, end)`, or over one key when `end` is empty.
pub(crate) fn range(out: &mut Vec<u8>, key: &[u8], end: &[u8], consistency: Consistency) {
    write_bytes(out, 1, key);
    write_bytes(out, 2, end);
    write_int(out, 7, i64::from(consistency == Consistency::Serializable));
}

/// RangeRequest that asks only how many keys `[key, end)` holds.
pub(crate) fn count(out: &mut Vec<u8>, key: &[u8], end: &[u8]) {
    write_bytes(out, 1, key);
    write_bytes(out, 2, end);
    write_int(out, 9, 1);
}

/// TxnRequest: if the key's mod revision is not one that cannot be, put, else read. It always puts.
pub(crate) fn compare_and_put(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    const NOT_EQUAL: i64 = 3;
    const TARGET_MOD: i64 = 2;
    const IMPOSSIBLE_REVISION: i64 = 999_999_999_999;
    let mut compare = Vec::with_capacity(key.len() + 16);
    write_int(&mut compare, 1, NOT_EQUAL);
    write_int(&mut compare, 2, TARGET_MOD);
    write_bytes(&mut compare, 3, key);
    write_int(&mut compare, 6, IMPOSSIBLE_REVISION);
    write_bytes(out, 1, &compare);

    let (mut request, mut operation) = (Vec::with_capacity(key.len() + value.len() + 8), Vec::new());
    put(&mut request, key, value);
    write_bytes(&mut operation, 2, &request);
    write_bytes(out, 2, &operation);

    request.clear();
    operation.clear();
    range(&mut request, key, &[], Consistency::Linearizable);
    write_bytes(&mut operation, 1, &request);
    write_bytes(out, 3, &operation);
}

/// WatchRequest that creates a watch of one key.
pub(crate) fn watch_create(out: &mut Vec<u8>, key: &[u8]) {
    let mut create = Vec::with_capacity(key.len() + 2);
    write_bytes(&mut create, 1, key);
    write_bytes(out, 1, &create);
}

/// LeaseGrantRequest with an id of the server's choice.
pub(crate) fn lease_grant(out: &mut Vec<u8>, ttl_seconds: i64) {
    write_int(out, 1, ttl_seconds);
}

/// LeaseKeepAliveRequest.
pub(crate) fn lease_keep_alive(out: &mut Vec<u8>, lease: u64) {
    write_int(out, 1, lease as i64);
}

/// AuthenticateRequest, AuthUserAddRequest and AuthUserGrantRoleRequest are all two strings.
pub(crate) fn two_strings(first: &str, second: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write_bytes(&mut out, 1, first.as_bytes());
    write_bytes(&mut out, 2, second.as_bytes());
    out
}

/// AuthRoleAddRequest.
pub(crate) fn role_add(role: &str) -> Vec<u8> {
    two_strings(role, "")
}

/// AuthRoleGrantPermissionRequest: read and write on every key that starts with `prefix`.
pub(crate) fn role_grant_prefix(role: &str, prefix: &[u8]) -> Vec<u8> {
    const READ_WRITE: i64 = 2;
    let mut permission = Vec::new();
    write_int(&mut permission, 1, READ_WRITE);
    write_bytes(&mut permission, 2, prefix);
    write_bytes(&mut permission, 3, &prefix_end(prefix));
    let mut out = Vec::new();
    write_bytes(&mut out, 1, role.as_bytes());
    write_bytes(&mut out, 2, &permission);
    out
}

/// The first key behind all keys that start with `prefix`; a single zero byte, etcd's "no end", when there is none.
pub(crate) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end;
        }
    }
    vec![0]
}

/// ResponseHeader.revision, which every answer carries in field 1.
pub(crate) fn revision(answer: &[u8]) -> Result<u64> {
    find_int(find_bytes(answer, 1)?.context("no response header")?, 3)
}

/// A KeyValue, as far as the checks need it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct KeyValue<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) mod_revision: u64,
    pub(crate) value: &'a [u8],
}

impl<'a> KeyValue<'a> {
    pub(crate) fn parse(message: &'a [u8]) -> Result<Self> {
        let mut parsed = KeyValue::default();
        for field in Fields::new(message) {
            let field = field?;
            match (field.number, field.value) {
                (1, Value::Bytes(key)) => parsed.key = key,
                (3, Value::Int(revision)) => parsed.mod_revision = revision,
                (5, Value::Bytes(value)) => parsed.value = value,
                _ => {}
            }
        }
        Ok(parsed)
    }
}

/// Calls `each` with the bytes of every KeyValue of a RangeResponse and returns how many there were.
pub(crate) fn each_kv<'a>(
    answer: &'a [u8],
    mut each: impl FnMut(u64, &'a [u8]) -> Result<()>,
) -> Result<u64> {
    let mut seen = 0;
    for field in Fields::new(answer) {
        let field = field?;
        if let (2, Value::Bytes(kv)) = (field.number, field.value) {
            each(seen, kv)?;
            seen += 1;
        }
    }
    Ok(seen)
}

/// What a WatchResponse says besides its events.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct WatchNotice {
    pub(crate) created: bool,
    /// The server's reason, when it ended the watch.
    pub(crate) canceled: Option<String>,
}

/// Reads a WatchResponse and calls `each` with the KeyValue of every event.
pub(crate) fn watch_response<'a>(
    message: &'a [u8],
    mut each: impl FnMut(KeyValue<'a>) -> Result<()>,
) -> Result<WatchNotice> {
    let mut notice = WatchNotice::default();
    let mut reason = "";
    for field in Fields::new(message) {
        let field = field?;
        match (field.number, field.value) {
            (3, Value::Int(created)) => notice.created = created != 0,
            (4, Value::Int(canceled)) if canceled != 0 => notice.canceled = Some(String::new()),
            (6, Value::Bytes(text)) => {
                reason = std::str::from_utf8(text).unwrap_or("a reason that is not UTF-8")
            }
            (11, Value::Bytes(event)) => {
                ensure!(find_int(event, 1)? == 0, "an event that is not a put");
                each(KeyValue::parse(find_bytes(event, 2)?.context("an event without its key")?)?)?;
            }
            _ => {}
        }
    }
    if let Some(text) = &mut notice.canceled {
        reason.clone_into(text);
    }
    Ok(notice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::write_varint;

    #[test]
    fn prefix_ends_carry_over_bytes_of_255() {
        assert_eq!(prefix_end(b"k"), b"l");
        assert_eq!(prefix_end(b"a\xff\xff"), b"b");
        assert_eq!(prefix_end(b"\xff"), b"\0");
    }

    #[test]
    fn a_watch_response_yields_its_events_and_its_notice() {
        let mut kv = Vec::new();
        write_bytes(&mut kv, 1, b"key");
        write_int(&mut kv, 3, 42);
        write_bytes(&mut kv, 5, b"value");
        let mut event = Vec::new();
        write_bytes(&mut event, 2, &kv);
        let mut message = Vec::new();
        write_int(&mut message, 4, 1);
        write_bytes(&mut message, 6, b"etcdserver: permission denied");
        write_bytes(&mut message, 11, &event);
        let mut seen = Vec::new();
        let notice = watch_response(&message, |kv| {
            seen.push(kv);
            Ok(())
        });
        assert_eq!(seen, [KeyValue { key: b"key", mod_revision: 42, value: b"value" }]);
        let canceled = Some("etcdserver: permission denied".to_owned());
        assert_eq!(notice.unwrap(), WatchNotice { created: false, canceled });
    }

    #[test]
    fn a_deletion_among_the_events_is_a_wrong_answer() {
        let mut event = Vec::new();
        write_varint(&mut event, 8);
        write_varint(&mut event, 1);
        let mut message = Vec::new();
        write_bytes(&mut message, 11, &event);
        assert!(watch_response(&message, |_| Ok(())).is_err());
    }
}
