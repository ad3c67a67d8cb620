//! Tenants in the state machine: made whole, told apart, taken away without a trace.
#![allow(clippy::unwrap_used, reason = "tests")]

mod mvcc_store;

use keygate_core::*;
use keygate_engine::mvcc::*;
use mvcc_store::*;

fn name(text: &str) -> TenantName {
    TenantName::parse(text).unwrap()
}

fn create_with(text: &str, hosts: &[&str]) -> Operation<Sealed> {
    Operation::TenantCreate(TenantCreate {
        name: name(text),
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        root: Credential::Hashed(PasswordHash("hash".to_owned())),
    })
}

fn create(text: &str) -> Operation<Sealed> {
    create_with(text, &[])
}

fn suspend(text: &str, state: TenantState) -> Operation<Sealed> {
    Operation::TenantChange { name: name(text), change: TenantChange::State(state) }
}

fn hosts(text: &str, hosts: &[&str]) -> Operation<Sealed> {
    let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
    Operation::TenantChange { name: name(text), change: TenantChange::Hosts(hosts) }
}

fn remove(text: &str) -> Operation<Sealed> {
    Operation::TenantDelete { name: name(text) }
}

/// What the platform asks, whichever keyspace the machine works in.
fn platform(m: &mut Machine, operation: Operation<Sealed>) -> Result<Answer<Sealed>, Refusal> {
    m.apply(internal(KeyspaceId::DEFAULT, operation)).outcome
}

fn made(m: &mut Machine, operation: Operation<Sealed>) -> KeyspaceId {
    match platform(m, operation).unwrap() {
        Answer::Tenants(tenants) => tenants[0].tenant.keyspace,
        other => panic!("{other:?}"),
    }
}

/// What a caller of the machine's keyspace asks, with a permit of this moment.
fn as_caller(m: &mut Machine, operation: Operation<Sealed>) -> Result<Answer<Sealed>, Refusal> {
    let fence = Some(m.space().policy().fence());
    m.apply(Command { fence, ..internal(m.keyspace, operation) }).outcome
}

/// Rows and records of one keyspace in the store.
fn left(m: &Machine, id: KeyspaceId) -> (usize, Vec<String>) {
    let rows = m.store.rows.keys().filter(|key| key.keyspace == id).count();
    let meta = m.store.meta.keys().filter(|key| key.starts_with(&id.0.to_be_bytes()));
    (rows, meta.map(|key| key.escape_ascii().to_string()).collect())
}

/// A tenant with history, a lease, another user and an alarm, all of it in the store.
fn furnished(m: &mut Machine, text: &str) -> KeyspaceId {
    let id = made(m, create(text));
    m.keyspace = id;
    m.run(grant(7, 60)).unwrap();
    for round in 0..3 {
        for key in ["a", "b", "c", "d", "e"] {
            m.run(put_leased(key, &round.to_string(), 7)).unwrap();
        }
        m.delete("b");
        m.flush(0);
    }
    m.run(Operation::UserAdd(UserAdd { name: "u".to_owned(), credential: Credential::NoPassword })).unwrap();
    let alarm = AlarmRequest { action: AlarmAction::Activate, member: 3, alarm: AlarmKind::NoSpace };
    m.run(Operation::Alarm(alarm)).unwrap();
    m.flush(0);
    id
}

#[test]
fn a_tenant_begins_as_a_whole_etcd_with_a_root_of_its_own() {
    let mut m = Machine::new();
    m.put("k", "the platform's");
    let pay = made(&mut m, create_with("pay", &["Pay.KV.corp"]));
    let shop = made(&mut m, create("shop"));
    assert_ne!(pay, shop);
    for _ in 0..2 {
        for id in [pay, shop] {
            m.keyspace = id;
            assert_eq!((m.revision(), m.space().key_count()), (1, 0));
            let auth = m.space().auth();
            assert!(auth.enabled);
            assert_eq!(auth.users["root"].roles, ["root"]);
            assert_eq!(auth.users["root"].password, Some(PasswordHash("hash".to_owned())));
            assert!(m.space().policy().is_enabled());
        }
        assert_eq!(m.state.tenant("pay").unwrap().keyspace, pay);
        assert_eq!(m.state.tenant_of(shop).unwrap().name, name("shop"));
        assert_eq!(m.state.tenant_for_host("pay.kv.corp").unwrap().keyspace, pay);
        assert_eq!(m.state.tenant_of(KeyspaceId::DEFAULT), None);
        m.reload(u64::MAX);
    }
}

/// `etcdctl auth status` told a tenant's root another revision than an etcd that was set up by hand.
#[test]
fn a_tenant_counts_its_auth_revision_as_if_root_had_been_made_by_hand() {
    let mut m = Machine::new();
    let pay = made(&mut m, create("pay"));
    let root = || ROOT.to_owned();
    for operation in [
        Operation::UserAdd(UserAdd { name: root(), credential: Credential::NoPassword }),
        Operation::RoleAdd { name: root() },
        Operation::UserGrantRole { user: root(), role: root() },
        Operation::AuthEnable,
    ] {
        platform(&mut m, operation).unwrap();
    }
    let by_hand = m.space().auth().revision;
    m.keyspace = pay;
    assert_eq!(m.space().auth().revision, by_hand);
    m.reload(u64::MAX);
    assert_eq!(m.space().auth().revision, by_hand);
}

#[test]
fn names_and_hosts_are_of_one_tenant_each() {
    let mut m = Machine::new();
    let pay = made(&mut m, create_with("pay", &["pay.corp"]));
    assert_eq!(platform(&mut m, create("pay")), Err(Refusal::TenantExists(name("pay"))));
    let taken = || Refusal::HostTaken { host: "pay.corp".to_owned(), tenant: name("pay") };
    assert_eq!(platform(&mut m, create_with("shop", &["PAY.corp"])), Err(taken()));
    assert_eq!(m.state.tenant("shop"), None);
    made(&mut m, create_with("shop", &["shop.corp"]));
    assert_eq!(platform(&mut m, hosts("shop", &["pay.corp"])), Err(taken()));
    assert_eq!(
        platform(&mut m, hosts("shop", &["*.corp"])),
        Err(Refusal::HostName { host: "*.corp".to_owned() })
    );
    let many: Vec<String> = (0..=MAX_TENANT_HOSTS).map(|n| format!("h{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(matches!(platform(&mut m, hosts("shop", &many)), Err(Refusal::TooManyHosts { .. })));

    // A host that was given up can be taken, also after a restart.
    platform(&mut m, hosts("pay", &["other.corp"])).unwrap();
    platform(&mut m, hosts("shop", &["pay.corp"])).unwrap();
    m.reload(u64::MAX);
    assert_eq!(m.state.tenant_for_host("other.corp").unwrap().keyspace, pay);
    assert_eq!(m.state.tenant_for_host("pay.corp").unwrap().name, name("shop"));
    assert_eq!(m.state.tenant_for_host("shop.corp"), None);
}

#[test]
fn a_suspended_tenant_can_be_read_and_its_leases_still_end() {
    let mut m = Machine::new();
    m.keyspace = made(&mut m, create("pay"));
    as_caller(&mut m, grant(7, 60)).unwrap();
    as_caller(&mut m, put_leased("k", "v", 7)).unwrap();
    platform(&mut m, suspend("pay", TenantState::Suspended)).unwrap();
    m.reload(u64::MAX);
    for operation in [put("k", "w"), delete(single("k")), compact(2), grant(8, 60), revoke(7)] {
        assert_eq!(as_caller(&mut m, operation), Err(Refusal::TenantSuspended));
    }
    assert_eq!(text(&m.get("k").unwrap()), "v");
    m.run(Operation::LeaseExpire(vec![LeaseId(7)])).unwrap();
    assert_eq!(m.get("k"), None);
    platform(&mut m, suspend("pay", TenantState::Active)).unwrap();
    as_caller(&mut m, put("k", "w")).unwrap();
}

#[test]
fn a_tenant_cannot_change_tenants() {
    let mut m = Machine::new();
    m.keyspace = made(&mut m, create("pay"));
    for operation in [create("mine"), remove("pay"), suspend("pay", TenantState::Active)] {
        assert_eq!(as_caller(&mut m, operation), Err(Refusal::PermissionDenied));
    }
}

#[test]
fn a_permit_from_before_auth_changes_no_tenant() {
    let mut m = Machine::new();
    let fence = Some(m.space().policy().fence());
    let root = || "root".to_owned();
    m.run(Operation::RoleAdd { name: root() }).unwrap();
    m.run(Operation::UserAdd(UserAdd { name: root(), credential: Credential::NoPassword })).unwrap();
    m.run(Operation::UserGrantRole { user: root(), role: root() }).unwrap();
    m.run(Operation::AuthEnable).unwrap();
    let applied = m.apply(Command { fence, ..internal(KeyspaceId::DEFAULT, create("pay")) });
    assert_eq!(applied.outcome, Err(Refusal::Anonymous));
    assert_eq!(m.state.tenants().count(), 0);
}

#[test]
fn a_deleted_tenant_leaves_nothing_and_its_number_is_not_given_again() {
    for steps_before_restart in [None, Some(0), Some(1), Some(2)] {
        let mut m = Machine::new();
        let neighbour = furnished(&mut m, "shop");
        let pay = furnished(&mut m, "pay");
        let untouched = left(&m, neighbour);
        assert!(left(&m, pay).0 > 15 && left(&m, pay).1.len() > 5, "{:?}", left(&m, pay));

        // Not everything of it has reached the store when it is deleted.
        m.keyspace = pay;
        assert_eq!(m.delete("a"), 1);
        platform(&mut m, remove("pay")).unwrap();
        assert_eq!(m.effects.ended, [pay]);
        assert!(m.state.keyspace(pay).is_none() && m.state.tenant("pay").is_none());
        assert_eq!(m.run(put("k", "v")), Err(Refusal::PermissionDenied));
        assert_eq!(platform(&mut m, remove("pay")), Err(Refusal::TenantNotFound(name("pay"))));

        m.keyspace = KeyspaceId::DEFAULT;
        match steps_before_restart {
            None => m.prune_all(),
            Some(steps) => {
                (0..steps).for_each(|_| assert!(m.prune(3)));
                m.flush(0);
                assert_ne!(left(&m, pay), (0, vec![]), "nothing was left to be taken up again");
                m.reload(u64::MAX);
            }
        }
        m.flush(0);
        assert_eq!(left(&m, pay), (0, vec![]), "after {steps_before_restart:?} steps");
        assert_eq!(left(&m, neighbour), untouched);

        m.reload(u64::MAX);
        let again = made(&mut m, create("pay"));
        assert!(again.0 > pay.0 && again.0 > neighbour.0);
        m.keyspace = again;
        assert_eq!((m.revision(), m.space().key_count(), m.space().leases().count()), (1, 0, 0));
    }
}

#[test]
fn a_reader_of_an_older_snapshot_is_told_that_it_is_too_old() {
    let mut m = Machine::new();
    let pay = furnished(&mut m, "pay");
    let snapshot = m.state.clone();
    m.keyspace = KeyspaceId::DEFAULT;
    platform(&mut m, remove("pay")).unwrap();
    m.prune_all();
    m.flush(0);
    let keyspace = snapshot.keyspace(pay).unwrap();
    let past = Range { revision: 3, ..Range::of(KeyRange::everything()) };
    assert!(matches!(
        keyspace.range(&past, &Sight::WHOLE, &m.store),
        Err(ReadError::Refused(Refusal::Compacted))
    ));
}

#[test]
fn records_that_do_not_fit_together_stop_the_start() {
    let mut m = Machine::new();
    made(&mut m, create_with("pay", &["pay.corp"]));
    made(&mut m, create("shop"));
    m.flush(0);
    let good = m.store.meta.clone();
    let load = |meta: &std::collections::BTreeMap<bytes::Bytes, bytes::Bytes>| {
        let mut loader = Loader::new(u64::MAX);
        meta.iter().try_for_each(|(key, value)| loader.meta(key, value))?;
        loader.finish(&OpenCompile).map(drop)
    };
    assert_eq!(load(&good), Ok(()));
    let tenants: Vec<_> = good.keys().filter(|key| key[4] == 7).cloned().collect();
    assert_eq!(tenants.len(), 2);

    let mut under_another = good.clone();
    let pay = under_another[&tenants[0]].clone();
    under_another.insert(tenants[1].clone(), pay);
    assert!(matches!(load(&under_another), Err(LoadError::Meta { .. })));

    let mut headless = good.clone();
    headless.retain(|key, _| key[..4] != tenants[0][..4] || key[4] == 7);
    assert!(matches!(load(&headless), Err(LoadError::NoHead(_))));

    let mut unnumbered = good;
    unnumbered.retain(|key, _| key[4] != 8);
    assert!(matches!(load(&unnumbered), Err(LoadError::Tenants(_))));
}

/// Raised in the tenant whose write met the quota, it could be taken away by nobody: the tenant's root may not, and the
/// platform's reached only its own keyspace.
#[test]
fn the_stores_alarm_lies_on_all_and_is_the_platforms_to_take_away() {
    let mut m = Machine::new();
    m.keyspace = made(&mut m, create("pay"));
    m.put("k", "v");
    let alarm = |action, alarm| Operation::Alarm(AlarmRequest { action, member: 1, alarm });
    platform(&mut m, alarm(AlarmAction::Activate, AlarmKind::NoSpace)).unwrap();
    assert_eq!(as_caller(&mut m, put("k", "w")), Err(Refusal::NoSpace));
    assert_eq!(as_caller(&mut m, grant(7, 60)), Err(Refusal::NoSpace));
    assert!(as_caller(&mut m, delete(single("k"))).is_ok());
    platform(&mut m, alarm(AlarmAction::Deactivate, AlarmKind::NoSpace)).unwrap();
    assert!(as_caller(&mut m, put("k", "w")).is_ok());

    platform(&mut m, alarm(AlarmAction::Activate, AlarmKind::Corrupt)).unwrap();
    assert_eq!(as_caller(&mut m, delete(single("k"))), Err(Refusal::Corrupt));
    assert!(m.state.is_corrupt(m.keyspace));
    platform(&mut m, alarm(AlarmAction::Deactivate, AlarmKind::Corrupt)).unwrap();
    assert!(!m.state.is_corrupt(m.keyspace));
}

/// The keyspace with the lowest number, compacting all the time, once kept all others' history, and deleted tenants' rows,
/// in the store.
#[test]
fn who_compacts_all_the_time_does_not_keep_the_others_waiting() {
    let mut m = Machine::new();
    let (busy, patient) = (made(&mut m, create("busy")), made(&mut m, create("patient")));
    let deleted = furnished(&mut m, "deleted");
    for id in [busy, patient] {
        m.keyspace = id;
        (0..50).for_each(|n| m.put(&format!("key{n}"), "v"));
        (0..50).for_each(|n| m.put(&format!("key{n}"), "w"));
    }
    m.keyspace = patient;
    m.run(compact(m.revision())).unwrap();
    platform(&mut m, remove("deleted")).unwrap();
    m.keyspace = busy;
    let mut steps = 0;
    while m.state.is_pruning(patient) || m.state.is_erasing() {
        m.put("key0", "x");
        m.run(compact(m.revision())).unwrap();
        m.prune(3);
        steps += 1;
        assert!(steps < 200, "the others never had their turn");
    }
    m.flush(0);
    assert_eq!(left(&m, deleted), (0, vec![]));
}
