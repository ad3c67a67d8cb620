//! Whoever may change users and roles, and has not the verb `escalate`, never gets beyond what they and the users
//! whose passwords they know could do at the beginning: random changes on the engine's own state machine, a part of
//! them decided on a state that others have changed meanwhile, and every right of a small universe looked at.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

use bytes::Bytes;
use keygate_core::*;
use keygate_engine::mvcc::{Command, Effects, MemoryOnly, State};
use keygate_policies::bundle::{Files, Manifest, Verb};
use keygate_policies::{BUNDLE_MODEL, Compiler, digest_of_tar};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;

const NAMES: [&str; 6] = ["mallory", "alice", "bob", "carol", "dave", "root"];
const ROLES: [&str; 5] = ["r0", "r1", "r2", "r3", "root"];
const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];
const NOW: i64 = 1_893_456_000;

/// Who (in which circumstances) may do what.
type Held = BTreeSet<(ConnectionKind, bool, String)>;

struct World {
    state: State,
    compiler: Compiler,
    keyspace: KeyspaceId,
    tenant: &'static str,
    /// Whose passwords are known to those who are up to something.
    allies: BTreeSet<&'static str>,
}

fn pick<'a>(rng: &mut StdRng, of: &[&'a str]) -> &'a str {
    of[rng.random_range(0..of.len())]
}

fn range(rng: &mut StdRng) -> KeyRange {
    let start = rng.random_range(0..KEYS.len());
    let key = |at: usize| Bytes::from_static(KEYS[at].as_bytes());
    match rng.random_range(0..4) {
        0 => KeyRange::From(key(start)),
        1 if start + 1 < KEYS.len() => {
            KeyRange::Span { start: key(start), end: key(rng.random_range(start + 1..KEYS.len())) }
        }
        _ => KeyRange::Single(key(start)),
    }
}

/// As a bundle writes it.
fn pattern(range: &KeyRange) -> String {
    let text = |key: &Bytes| String::from_utf8(key.to_vec()).unwrap();
    match range {
        KeyRange::Single(key) => format!("={}", text(key)),
        KeyRange::Span { start, end } => format!("\"[{}, {})\"", text(start), text(end)).replace('"', ""),
        KeyRange::From(key) => format!("[{}, )", text(key)),
    }
}

fn bundle(rng: &mut StdRng, tenant: &str) -> Bytes {
    let mut rows = format!("p, user:mallory, {tenant}, -, auth, allow\n");
    for _ in 0..rng.random_range(3..14) {
        let subject = match rng.random_range(0..8) {
            0 => "user:*".to_owned(),
            1 => "role:shared".to_owned(),
            2..=4 => "user:mallory".to_owned(),
            _ => format!("user:{}", pick(rng, &NAMES)),
        };
        let what = if rng.random_ratio(1, 4) {
            let verb = Verb::ALL[rng.random_range(0..Verb::ALL.len())];
            // Whoever escalates may do all this.
            let verb = if verb == Verb::Escalate { Verb::Compact } else { verb };
            format!("-, {}", verb.name())
        } else {
            format!("{}, {}", pattern(&range(rng)), pick(rng, &["read", "write", "readwrite"]))
        };
        let effect = match rng.random_range(0..8) {
            0 => "deny",
            1 if what.contains("read") => {
                rows.push_str(&format!("p, {subject}, {tenant}, {what}, deny, on_partial=filter\n"));
                continue;
            }
            _ => "allow",
        };
        let condition = match rng.random_range(0..6) {
            0 => ", connection=mtls",
            1 => ", until=2040-01-01T00:00:00Z",
            2 => ", until=2020-01-01T00:00:00Z",
            _ => "",
        };
        rows.push_str(&format!("p, {subject}, {tenant}, {what}, {effect}{condition}\n"));
    }
    rows.push_str(&format!("p, role:shared, {tenant}, =c, read, allow\n"));
    let holder = pick(rng, &NAMES);
    let mut files = Files::default();
    files.insert("model.conf", BUNDLE_MODEL.into());
    files.insert("policy.csv", rows.into());
    files.insert("roles.csv", format!("g, user:{holder}, role:shared, {tenant}\n").into());
    let manifest = Manifest::of(&files, 1);
    files.insert("manifest.json", manifest.to_bytes());
    files.to_tar().unwrap().into()
}

fn credential() -> Credential {
    Credential::Hashed(PasswordHash("hash".to_owned()))
}

fn add(name: &str) -> Operation<Sealed> {
    Operation::UserAdd(UserAdd { name: name.to_owned(), credential: credential() })
}

fn role(name: &str) -> Operation<Sealed> {
    Operation::RoleAdd { name: name.to_owned() }
}

fn give(user: &str, role: &str) -> Operation<Sealed> {
    Operation::UserGrantRole { user: user.to_owned(), role: role.to_owned() }
}

fn grant(rng: &mut StdRng, role: &str) -> Operation<Sealed> {
    let kinds = [PermissionKind::Read, PermissionKind::Write, PermissionKind::ReadWrite];
    let permission = Permission { kind: kinds[rng.random_range(0..3)], range: range(rng) };
    Operation::RoleGrantPermission(RoleGrant { role: role.to_owned(), permission })
}

impl World {
    fn new(rng: &mut StdRng, tenant: &'static str) -> Self {
        let compiler = Compiler::new().unwrap();
        let state = State::new(&compiler);
        let mut world =
            Self { state, compiler, keyspace: KeyspaceId::DEFAULT, tenant, allies: ["mallory"].into() };
        let tar = bundle(rng, tenant);
        let digest = digest_of_tar(std::slice::from_ref(&tar));
        if tenant == DEFAULT_TENANT {
            for operation in [add("root"), role("root"), give("root", "root"), Operation::AuthEnable] {
                world.internal(operation).unwrap();
            }
        } else {
            let name = TenantName::parse(tenant).unwrap();
            let create = TenantCreate { name, hosts: Vec::new(), root: credential() };
            world.internal(Operation::TenantCreate(create)).unwrap();
        }
        let content = tar.clone();
        world.internal(Operation::PolicyChange(PolicyChange::Stage { digest, index: 0, content })).unwrap();
        let apply = PolicyChange::Apply { digest, parts: 1, expected: None, at: 0 };
        world.internal(Operation::PolicyChange(apply)).unwrap();
        world.keyspace = world.state.tenant(tenant).map_or(KeyspaceId::DEFAULT, |tenant| tenant.keyspace);
        for name in &NAMES[..4] {
            world.internal(add(name)).unwrap();
        }
        for name in &ROLES[..4] {
            world.internal(role(name)).unwrap();
            for _ in 0..rng.random_range(0..3) {
                let grant = grant(rng, name);
                world.internal(grant).unwrap();
            }
        }
        for _ in 0..5 {
            let (user, role) = (pick(rng, &NAMES[..4]), pick(rng, &ROLES[..4]));
            world.internal(give(user, role)).unwrap();
        }
        if rng.random_ratio(1, 3) {
            world.internal(give("carol", "root")).unwrap();
        }
        world
    }

    fn apply(&mut self, command: Command) -> Result<(), Refusal> {
        let mut effects = Effects::default();
        self.state.apply(command, &MemoryOnly, &self.compiler, &mut effects).unwrap().outcome.map(drop)
    }

    fn internal(&mut self, operation: Operation<Sealed>) -> Result<(), Refusal> {
        let command = Permit::internal(InternalReason::Bootstrap, self.keyspace, operation);
        self.apply(command_of(command))
    }

    /// A permit as the gateway gives it on a state of some moment.
    fn obtain(
        &self,
        state: &State,
        name: &str,
        connection: ConnectionKind,
        operation: Operation<Sealed>,
    ) -> Result<Permit<Sealed>, Refusal> {
        let keyspace = state.keyspace(self.keyspace).unwrap();
        let policy = InForce::new(keyspace.policy().as_ref(), state.platform_policy(), self.tenant, NOW);
        Permit::obtain(&policy, keyspace, 1, &self.caller(name, connection), operation)
    }

    fn caller(&self, name: &str, connection: ConnectionKind) -> Caller {
        Caller::User {
            keyspace: self.keyspace,
            name: name.into(),
            evidence: Evidence::SimpleToken,
            groups: Groups::NONE,
            origin: Origin { source: None, connection: Some(connection) },
        }
    }

    /// Every right that the allies have between them, now and later.
    fn held(&self) -> Held {
        let keyspace = self.state.keyspace(self.keyspace).unwrap();
        let mut held = Held::new();
        for later in [false, true] {
            let now = if later { NOW + 20 * 365 * 86_400 } else { NOW };
            let policy =
                InForce::new(keyspace.policy().as_ref(), self.state.platform_policy(), self.tenant, now);
            for name in &self.allies {
                for connection in [ConnectionKind::Plain, ConnectionKind::Mtls] {
                    let caller = self.caller(name, connection);
                    if !policy.knows(&caller) {
                        continue;
                    }
                    for action in [KeyAction::Read, KeyAction::Write] {
                        for key in KEYS.iter().chain(&["", "aa", "cc", "zz"]) {
                            let range = KeyRange::Single(Bytes::from_static(key.as_bytes()));
                            if policy.decide_keys(&caller, action, &range) == Decision::Allow {
                                held.insert((connection, later, format!("{action:?} {key}")));
                            }
                        }
                    }
                    for verb in Verb::ALL {
                        let is_idle = verb.right().is_of_the_platform() && self.tenant != DEFAULT_TENANT;
                        let access = Access::Admin(verb.right());
                        if !is_idle && policy.decide_other(&caller, &access) == Decision::Allow {
                            held.insert((connection, later, verb.name().to_owned()));
                        }
                    }
                }
            }
        }
        held
    }
}

fn command_of(permit: Permit<Sealed>) -> Command {
    let PermitParts { keyspace, subject, fence, leases, operation, sight: _ } = permit.into_parts();
    let attribution = match subject {
        Subject::Caller(name) => name.map(|name| name.to_string()),
        Subject::Internal(_) => None,
    };
    let operation = operation.try_map_values(&mut |_, value: Sealed| Ok::<_, ()>(value.into())).unwrap();
    Command { keyspace, fence, leases, attribution, operation }
}

fn any(rng: &mut StdRng) -> Operation<Sealed> {
    let (user, role_name) = (pick(rng, &NAMES).to_owned(), pick(rng, &ROLES).to_owned());
    match rng.random_range(0..20) {
        0..=2 => add(&user),
        3..=5 => Operation::UserChangePassword { name: user, credential: credential() },
        6..=9 => give(&user, &role_name),
        10 => Operation::UserRevokeRole { user, role: role_name },
        11..=14 => grant(rng, &role_name),
        15 => Operation::RoleRevokePermission(RoleRevoke { role: role_name, range: range(rng) }),
        16 => Operation::UserDelete { name: user },
        17 => Operation::RoleDelete { name: role_name },
        18 => role(&role_name),
        _ if rng.random_ratio(1, 2) => Operation::AuthEnable,
        _ => Operation::AuthDisable,
    }
}

#[derive(Default, Debug)]
struct Counts {
    asked: u32,
    denied: u32,
    done: u32,
    overtaken: u32,
    allies: usize,
}

/// One story of changes by those who are up to something, some of which are decided before others are made.
fn story(rng: &mut StdRng, tenant: &'static str, counts: &mut Counts) {
    let mut world = World::new(rng, tenant);
    let mut before = world.held();
    assert!(!before.iter().any(|(_, _, right)| right == "escalate"));
    let mut old = world.state.clone();
    for _ in 0..100 {
        counts.asked += 1;
        let who = *world.allies.iter().nth(rng.random_range(0..world.allies.len())).unwrap();
        let connection = if rng.random() { ConnectionKind::Mtls } else { ConnectionKind::Plain };
        let operation = any(rng);
        let decided_on = if rng.random_ratio(1, 3) { old.clone() } else { world.state.clone() };
        if rng.random_ratio(1, 3) {
            old = world.state.clone();
        }
        let becomes = match &operation {
            Operation::UserAdd(add) => Some(add.name.clone()),
            Operation::UserChangePassword { name, .. } => Some(name.clone()),
            _ => None,
        };
        let told = format!("{who}: {operation:?}");
        let permit = match world.obtain(&decided_on, who, connection, operation) {
            Ok(permit) => permit,
            Err(Refusal::PermissionDenied) => {
                counts.denied += 1;
                continue;
            }
            Err(other) => panic!("{other}"),
        };
        if rng.random_ratio(1, 4) {
            // Root gives somebody something meanwhile. That is no gain of those who happen to get it.
            let (user, role) = (pick(rng, &NAMES[..5]), pick(rng, &ROLES[..4]));
            let gift = if rng.random() { give(user, role) } else { grant(rng, role) };
            let _done_or_not = world.internal(gift);
            before.extend(world.held());
        }
        match world.apply(command_of(permit)) {
            Ok(()) => {}
            Err(Refusal::StalePermit) => {
                counts.overtaken += 1;
                continue;
            }
            Err(_) => continue,
        }
        counts.done += 1;
        let known = becomes.and_then(|name| NAMES.into_iter().find(|own| *own == name));
        world.allies.extend(known);
        let gained: Vec<_> = world.held().difference(&before).cloned().collect();
        assert_eq!(gained, [], "gained in {tenant} by {told}; allies {:?}", world.allies);
        assert!(world.state.keyspace(world.keyspace).unwrap().auth().enabled, "switched off by {told}");
    }
    counts.allies += world.allies.len() - 1;
}

#[test]
fn nobody_gets_beyond_what_they_held() {
    let mut rng = StdRng::seed_from_u64(1815);
    let mut counts = Counts::default();
    for round in 0..300 {
        story(&mut rng, if round % 2 == 0 { DEFAULT_TENANT } else { "pay" }, &mut counts);
    }
    println!("{counts:?}");
    assert!(counts.asked >= 30_000 && counts.denied > 10_000 && counts.done > 3_000, "{counts:?}");
    assert!(counts.overtaken > 500 && counts.allies > 300, "{counts:?}");
}
