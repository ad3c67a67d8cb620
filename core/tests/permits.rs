//! What a permit depends on, and what it does not.
use bytes::Bytes;
use keygate_core::*;

/// `root` may have every key, `alice` those that begin with `a`; both are administrators.
struct Rules;

impl Policy for Rules {
    fn fence(&self) -> Fence {
        Fence { platform: 0, keyspace: 7 }
    }
    fn is_enabled(&self) -> bool {
        true
    }
    fn knows(&self, _: &Caller) -> bool {
        true
    }
    fn decide_keys(&self, caller: &Caller, _: KeyAction, range: &KeyRange) -> Decision {
        let own = matches!(range, KeyRange::Single(key) if key.starts_with(b"a"));
        if caller.name() == Some("root") || own { Decision::Allow } else { Decision::Deny }
    }
    fn decide_other(&self, _: &Caller, _: &Access) -> Decision {
        Decision::Allow
    }
}

/// Lease 1 has the key `a1`; lease 2 has none.
struct Leases;

impl LeaseKeys for Leases {
    fn attached(&self, lease: LeaseId, visit: &mut dyn FnMut(&Bytes) -> bool) -> Option<u64> {
        if lease == LeaseId(1) {
            visit(&Bytes::from_static(b"a1"));
        }
        (lease.0 <= 2).then_some(40)
    }
    fn attached_to_any(&self, visit: &mut dyn FnMut(&Bytes) -> bool) {
        visit(&Bytes::from_static(b"a1"));
    }
}

const STORE: u64 = 5;

fn obtain(
    name: &str,
    token: Option<u64>,
    operation: Operation<Plaintext>,
) -> Result<Permit<Plaintext>, Refusal> {
    let evidence = Evidence::Jwt { auth_revision: token };
    let caller = Caller::User {
        keyspace: KeyspaceId::DEFAULT,
        name: name.into(),
        evidence,
        groups: Groups::NONE,
        origin: Origin::default(),
    };
    Permit::obtain(&Rules, &Leases, STORE, &caller, operation)
}

fn key(text: &'static str) -> KeyRange {
    KeyRange::Single(Bytes::from_static(text.as_bytes()))
}

fn put(lease: i64) -> Operation<Plaintext> {
    Operation::Put(Put {
        key: Bytes::from_static(b"a"),
        value: PutValue::Set(Plaintext::default()),
        lease: PutLease::Set(LeaseId(lease)),
        prev_kv: false,
    })
}

fn watch() -> Operation<Plaintext> {
    Operation::Watch(WatchCreate {
        range: key("a"),
        start_revision: 0,
        progress_notify: false,
        no_put: false,
        no_delete: false,
        prev_kv: false,
        fragment: false,
        watch_id: 0,
    })
}

/// etcd 3.7.1, seen: an old JWT is refused for whatever is about keys, reads and watches included, and
/// serves for everything else. So a password that was changed ends what a stolen token can read, and
/// an administrator's second command still works.
#[test]
fn an_old_token_is_good_for_everything_but_keys() {
    let old = Err(Refusal::OldAuthRevision { token: 4, store: STORE });
    let range = || Operation::Range(Range::of(key("a")));
    let empty = Txn { compare: vec![], success: vec![], failure: vec![] };
    let reading = Txn { success: vec![TxnOp::Range(Range::of(key("a")))], ..empty.clone() };
    for operation in [
        range(),
        Operation::RangeStream(Range::of(key("a"))),
        put(0),
        Operation::Txn(reading),
        watch(),
        Operation::LeaseRevoke(LeaseRevoke { id: LeaseId(1) }),
        Operation::LeaseLeases,
    ] {
        for name in ["root", "alice"] {
            assert_eq!(obtain(name, Some(4), operation.clone()).map(drop), old, "{operation:?}");
            assert!(obtain(name, Some(5), operation.clone()).is_ok(), "{operation:?}");
            assert!(obtain(name, None, operation.clone()).is_ok(), "{operation:?}");
        }
    }
    for operation in [
        Operation::RoleAdd { name: "r".to_owned() },
        Operation::Compact(Compact { revision: 3, physical: false }),
        Operation::LeaseGrant(LeaseGrant { id: LeaseId(9), ttl: 9 }),
        Operation::LeaseRevoke(LeaseRevoke { id: LeaseId(2) }),
        Operation::Txn(empty),
        Operation::Status,
    ] {
        assert!(obtain("root", Some(4), operation.clone()).is_ok(), "{operation:?}");
    }
    // Age comes before rights, as in etcd.
    let foreign = Operation::Range(Range::of(key("b")));
    assert_eq!(obtain("alice", Some(4), foreign.clone()).map(drop), old);
    assert_eq!(obtain("alice", Some(5), foreign).map(drop), Err(Refusal::PermissionDenied));
}

#[test]
fn who_may_have_every_key_does_not_depend_on_which_a_lease_has() {
    let fences = |name| obtain(name, None, put(1)).unwrap().into_parts().leases.to_vec();
    assert_eq!(fences("root"), []);
    assert_eq!(fences("alice"), [LeaseFence { lease: LeaseId(1), generation: Some(40) }]);
}

/// Sees all but what begins with `b`; refuses whatever cannot be answered without it.
struct Hiding;

impl Policy for Hiding {
    fn fence(&self) -> Fence {
        Fence::default()
    }
    fn is_enabled(&self) -> bool {
        true
    }
    fn knows(&self, _: &Caller) -> bool {
        true
    }
    fn decide_keys(&self, _: &Caller, _: KeyAction, range: &KeyRange) -> Decision {
        let touches = !matches!(range, KeyRange::Single(key) if !key.starts_with(b"b"));
        if touches { Decision::Deny } else { Decision::Allow }
    }
    fn sight(&self, _: &Caller, _: &KeyRange) -> Option<Sight> {
        Some(hiding())
    }
    fn decide_other(&self, _: &Caller, _: &Access) -> Decision {
        Decision::Allow
    }
}

fn hiding() -> Sight {
    Sight::without([KeyRange::Span { start: "b".into(), end: "c".into() }])
}

/// What may be left out travels with what is asked, through every change of form.
#[test]
fn a_permit_hides_keys_only_where_an_answer_can_leave_them_out() {
    let all = || KeyRange::From(Bytes::new());
    let watch_of = |range: KeyRange| match watch() {
        Operation::Watch(watch) => Operation::Watch(WatchCreate { range, ..watch }),
        other => other,
    };
    let txn = |op| Operation::Txn(Txn { compare: vec![], success: vec![op], failure: vec![] });
    let compare = Compare { range: all(), op: CompareOp::Equal, target: CompareTarget::Version(1) };
    let caller = Caller::User {
        keyspace: KeyspaceId::DEFAULT,
        name: "alice".into(),
        evidence: Evidence::Certificate,
        groups: Groups::NONE,
        origin: Origin::default(),
    };
    let ask = |operation| {
        let permit = Permit::obtain(&Hiding, &Leases, STORE, &caller, operation)?;
        let sealed =
            permit.try_map_values(&mut |_, value| Ok::<_, Refusal>(Sealed::stored_in_clear(value)))?;
        Ok(sealed.into_parts().sight)
    };
    for operation in
        [Operation::Range(Range::of(all())), Operation::RangeStream(Range::of(all())), watch_of(all())]
    {
        assert_eq!(ask(operation), Ok(hiding()));
    }
    for operation in [
        Operation::Range(Range::of(key("a"))),
        Operation::RangeStream(Range::of(key("a"))),
        watch_of(key("a")),
        put(0),
        txn(TxnOp::Range(Range::of(key("a")))),
        Operation::Compact(Compact { revision: 3, physical: false }),
    ] {
        assert_eq!(ask(operation), Ok(Sight::WHOLE));
    }
    for operation in [
        Operation::Range(Range::of(key("b"))),
        watch_of(key("b")),
        Operation::DeleteRange(DeleteRange { range: all(), prev_kv: false }),
        Operation::DeleteRange(DeleteRange { range: all(), prev_kv: true }),
        txn(TxnOp::Range(Range::of(all()))),
        Operation::Txn(Txn { compare: vec![compare], success: vec![], failure: vec![] }),
    ] {
        let asked = format!("{operation:?}");
        assert_eq!(ask(operation), Err(Refusal::PermissionDenied), "{asked}");
    }
}

/// Tenants have logins from the start. A platform without them must not be the way to rule over tenants.
#[test]
fn tenants_are_ruled_over_only_where_auth_is_on() {
    struct Off;
    impl Policy for Off {
        fn fence(&self) -> Fence {
            Fence::default()
        }
        fn is_enabled(&self) -> bool {
            false
        }
        fn knows(&self, _: &Caller) -> bool {
            false
        }
        fn decide_keys(&self, _: &Caller, _: KeyAction, _: &KeyRange) -> Decision {
            Decision::Deny
        }
        fn decide_other(&self, _: &Caller, _: &Access) -> Decision {
            Decision::Deny
        }
    }
    let pay = || TenantName::parse("pay").expect("a good name");
    let ask = |keyspace, operation: Operation<Plaintext>| {
        Permit::obtain(&Off, &Leases, STORE, &Caller::Anonymous { keyspace }, operation).map(drop)
    };
    let other = KeyspaceId(9);
    for operation in [
        Operation::TenantCreate(TenantCreate { name: pay(), hosts: vec![], root: Credential::NoPassword }),
        Operation::TenantChange { name: pay(), change: TenantChange::Hosts(vec![]) },
        Operation::TenantDelete { name: pay() },
        Operation::TenantGet { name: pay() },
        Operation::TenantList,
        Operation::QuotaShow(QuotaOf::All),
        Operation::QuotaRecount(QuotaOf::Own),
        Operation::Observe(keygate_core::Observation::Limits),
        Operation::QuotaSet(QuotaSet {
            tenant: Some(pay()),
            prefix: bytes::Bytes::new(),
            keys: LimitChange::Set(0),
            bytes: LimitChange::Keep,
            history: LimitChange::Keep,
            force: true,
        }),
    ] {
        assert_eq!(ask(KeyspaceId::DEFAULT, operation.clone()), Err(Refusal::AuthNotEnabled));
        assert_eq!(ask(other, operation), Err(Refusal::PermissionDenied));
    }
    assert_eq!(ask(KeyspaceId::DEFAULT, Operation::Defragment), Ok(()));
    assert_eq!(ask(other, Operation::Defragment), Err(Refusal::PermissionDenied));
    assert_eq!(ask(other, put(0)), Ok(()));
}

/// A policy that asks for more than a name is asked with the caller as the gateway knows it.
#[test]
fn a_policy_sees_the_groups_and_the_origin_of_the_caller() {
    struct DevelopersInside;
    impl Policy for DevelopersInside {
        fn fence(&self) -> Fence {
            Fence::default()
        }
        fn is_enabled(&self) -> bool {
            true
        }
        fn knows(&self, caller: &Caller) -> bool {
            matches!(caller, Caller::User { groups, .. } if groups.names().iter().any(|name| &**name == "dev"))
        }
        fn decide_keys(&self, caller: &Caller, _: KeyAction, _: &KeyRange) -> Decision {
            let inside =
                Origin { source: Some([10, 0, 0, 1].into()), connection: Some(ConnectionKind::Mtls) };
            match caller {
                Caller::User { origin, .. } if *origin == inside => Decision::Allow,
                Caller::User { .. } | Caller::Anonymous { .. } => Decision::Deny,
            }
        }
        fn decide_other(&self, _: &Caller, _: &Access) -> Decision {
            Decision::Deny
        }
    }
    let ask = |groups: Groups, origin: Origin| {
        let (keyspace, name) = (KeyspaceId::DEFAULT, "alice".into());
        let caller = Caller::User { keyspace, name, evidence: Evidence::Certificate, groups, origin };
        Permit::obtain(&DevelopersInside, &Leases, STORE, &caller, put(0)).map(drop)
    };
    let inside = Origin { source: Some([10, 0, 0, 1].into()), connection: Some(ConnectionKind::Mtls) };
    let dev = || Groups::from_iter(["dev".into()]);
    assert_eq!(ask(dev(), inside), Ok(()));
    assert_eq!(ask(Groups::NONE, inside), Err(Refusal::PermissionDenied));
    assert_eq!(ask(dev(), Origin::default()), Err(Refusal::PermissionDenied));
}
