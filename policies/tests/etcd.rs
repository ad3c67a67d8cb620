//! The same users, roles and requests put to a real etcd: it must allow and deny what we do.
//!
//! Runs where an etcd 3.7.1 is found: the path in `ETCD_371`, else `/opt/peers/bin/server`. Speaks
//! etcd's JSON gateway, so that keys may be any bytes.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod generated;

use generated::Generator;
use keygate_core::{AuthTables, Decision, KeyAction, KeyRange, KeyspaceId, PermissionKind, Role, User};
use keygate_policies::Compiler;
use rand::Rng;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

const USERS: usize = 24;
const CASES: usize = 1_200;

#[test]
fn etcd_allows_and_denies_the_same() {
    let binary =
        std::env::var_os("ETCD_371").map_or_else(|| PathBuf::from("/opt/peers/bin/server"), PathBuf::from);
    if !binary.exists() {
        println!("no etcd at `{}`: nothing compared", binary.display());
        return;
    }
    let etcd = Etcd::start(&binary);
    let mut generator = Generator::new(2);
    let tables = tables(&mut generator);
    let tokens = etcd.set_up(&tables);
    let policy = Compiler::new().unwrap().compile_policy(KeyspaceId::DEFAULT, &tables);
    let (mut allowed, mut denied, mut empty) = (0, 0, 0);
    while allowed + denied < CASES {
        let user = generator.rng.random_range(0..USERS);
        let (action, range) = (generator.action(), generator.range());
        if range.start().is_empty() {
            continue;
        }
        let ours = policy.user_decide_keys(&format!("u{user}"), action, &range) == Decision::Allow;
        let theirs = etcd.allows(&tokens[user], action, &range);
        if range.is_empty() {
            // etcd's search may pass by the row that holds the start; it never finds one that we miss.
            assert!(ours || !theirs, "u{user} {action:?} {range:?} under {tables:#?}");
            empty += 1;
        } else {
            assert_eq!(ours, theirs, "u{user} {action:?} {range:?} under {tables:#?}");
            if ours { allowed += 1 } else { denied += 1 }
        }
    }
    println!("cases={} allowed={allowed} denied={denied} empty_ranges={empty}", allowed + denied + empty);
    assert!(allowed >= 200 && denied >= 200 && empty >= 10);
}

/// Only what etcd takes: named keys, ranges that can hold a key.
fn tables(generator: &mut Generator) -> AuthTables {
    let mut tables = AuthTables { enabled: true, ..AuthTables::default() };
    for number in 0..8 {
        let mut role = Role::clone(&generator.role(&format!("r{number}")));
        role.permissions.retain(|row| !row.range.is_empty() && !row.range.start().is_empty());
        tables.roles.insert(role.name.clone(), Arc::new(role));
    }
    for number in 0..USERS {
        let mut roles: Vec<String> =
            (0..number % 4).map(|_| format!("r{}", generator.rng.random_range(0..8))).collect();
        roles.sort();
        roles.dedup();
        let user = User { name: format!("u{number}"), password: None, roles, credential_revision: 1 };
        tables.users.insert(user.name.clone(), Arc::new(user));
    }
    tables
}

struct Etcd {
    process: Child,
    address: String,
    data: PathBuf,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

impl Etcd {
    /// Somebody else may take a port between its choice and its use: then with others.
    fn start(binary: &PathBuf) -> Self {
        (0..5).find_map(|_| Self::try_start(binary)).expect("etcd did not start")
    }

    fn try_start(binary: &PathBuf) -> Option<Self> {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let (address, peer) = (free(), free());
        let data = std::env::temp_dir().join(format!("keygate-policies-etcd-{}", std::process::id()));
        let (client_url, peer_url) = (format!("http://{address}"), format!("http://{peer}"));
        let mut process = Command::new(binary)
            .args(["--data-dir", data.to_str().unwrap()])
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("default={peer_url}"), "--bcrypt-cost", "4"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let etcd = Self { process, address, data };
        if !log.any(|line| line.contains("serving client traffic")) {
            return None;
        }
        // A full pipe would stop it.
        std::thread::spawn(move || log.for_each(drop));
        Some(etcd)
    }

    /// Returns the users' tokens.
    fn set_up(&self, tables: &AuthTables) -> Vec<String> {
        for role in tables.roles.values() {
            self.done("/v3/auth/role/add", &format!(r#"{{"name":"{}"}}"#, role.name));
            for row in &role.permissions {
                let kind = match row.kind {
                    PermissionKind::Read => "READ",
                    PermissionKind::Write => "WRITE",
                    PermissionKind::ReadWrite => "READWRITE",
                };
                let range = json(&row.range);
                let body = format!(r#"{{"name":"{}","perm":{{"permType":"{kind}",{range}}}}}"#, role.name);
                self.done("/v3/auth/role/grant", &body);
            }
        }
        for user in tables.users.values() {
            self.done("/v3/auth/user/add", &format!(r#"{{"name":"{}","password":"p"}}"#, user.name));
            for role in &user.roles {
                self.done("/v3/auth/user/grant", &format!(r#"{{"user":"{}","role":"{role}"}}"#, user.name));
            }
        }
        self.done("/v3/auth/role/add", r#"{"name":"root"}"#);
        self.done("/v3/auth/user/add", r#"{"name":"root","password":"p"}"#);
        self.done("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#);
        self.done("/v3/auth/enable", "{}");
        let login = |number| {
            let body = format!(r#"{{"name":"u{number}","password":"p"}}"#);
            let answer = self.done("/v3/auth/authenticate", &body);
            answer.split(r#""token":""#).nth(1).unwrap().split('"').next().unwrap().to_owned()
        };
        (0..USERS).map(login).collect()
    }

    fn allows(&self, token: &str, action: KeyAction, range: &KeyRange) -> bool {
        let path = match action {
            KeyAction::Read => "/v3/kv/range",
            KeyAction::Write => "/v3/kv/deleterange",
        };
        let answer = self.post(path, &format!("{{{}}}", json(range)), token);
        match answer.status {
            200 => true,
            _ if answer.body.contains("etcdserver: permission denied") => false,
            status => panic!("{status}: {}", answer.body),
        }
    }

    fn done(&self, path: &str, body: &str) -> String {
        let answer = self.post(path, body, "");
        assert_eq!(answer.status, 200, "{path} {body}: {}", answer.body);
        answer.body
    }

    fn post(&self, path: &str, body: &str, token: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let request = format!(
            "POST {path} HTTP/1.0\r\nHost: etcd\r\nAuthorization: {token}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, body: answer.split_once("\r\n\r\n").unwrap().1.to_owned() }
    }
}

struct Answer {
    status: u16,
    body: String,
}

fn json(range: &KeyRange) -> String {
    format!(r#""key":"{}","range_end":"{}""#, base64(range.start()), base64(&range.wire_end()))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let number = chunk
            .iter()
            .enumerate()
            .fold(0_u32, |sum, (place, byte)| sum | u32::from(*byte) << (16 - 8 * place));
        for place in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() { digit as char } else { '=' });
        }
    }
    text
}
