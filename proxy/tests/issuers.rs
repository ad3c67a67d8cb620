//! Tokens of a real OIDC provider, by a real server: its keys over HTTPS, their rotation, and its outage.
//!
//! Takes two minutes: an issuer is asked for its keys twice a minute at most.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use keygate_proto::etcdserverpb as pb;
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use support::{Caller, Server, Shown};
use tonic::{Code, Status};

/// oidc-provider-mock, which signs with RS256 and gives its keys no ids.
struct Provider {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    port: u16,
}

impl Provider {
    /// None, said loudly, where it is not installed.
    fn start(directory: &std::path::Path) -> Option<Self> {
        let installed = Command::new("python3").args(["-c", "import oidc_provider_mock"]).output();
        if !installed.is_ok_and(|output| output.status.success()) {
            let required = std::env::var("KEYGATE_REQUIRE_PEERS").is_ok_and(|value| value == "1");
            assert!(
                !required,
                "oidc-provider-mock (PyPI) is missing, and KEYGATE_REQUIRE_PEERS=1 forbids skipping"
            );
            // It may be a socket, which cannot be opened.
            if let Ok(mut terminal) = std::fs::OpenOptions::new().append(true).open("/dev/stderr") {
                writeln!(terminal, "SKIPPED: tokens of issuers need oidc-provider-mock (PyPI)").ok();
            }
            return None;
        }
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = certificate.self_signed(&key).unwrap();
        std::fs::write(directory.join("issuer.pem"), certificate.pem()).unwrap();
        std::fs::write(directory.join("issuer-key.pem"), key.serialize_pem()).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/issuer.py");
        let mut child = Command::new("python3")
            .arg(script)
            .args([directory.join("issuer.pem"), directory.join("issuer-key.pem")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut provider = Self { child, input, output: BufReader::new(output), port: 0 };
        provider.port = provider.line().parse().unwrap();
        Some(provider)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn tell(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").unwrap();
        self.line()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

async fn put(caller: &Caller) -> Result<(), Status> {
    let request = pb::PutRequest { key: "key".into(), value: "value".into(), ..Default::default() };
    KvClient::new(caller.signed()).put(request).await.map(drop)
}

async fn with(server: &Server, token: &str) -> Caller {
    server.caller(Shown { certificate: None, token: Some(token.to_owned()) }).await
}

fn is_dead(answer: &Result<(), Status>) -> bool {
    answer.as_ref().is_err_and(|status| {
        status.code() == Code::Unauthenticated && status.message() == "etcdserver: invalid auth token"
    })
}

#[tokio::test]
async fn tokens_of_a_provider_are_good_while_its_keys_are() {
    let directory = tempfile::tempdir().unwrap();
    let Some(mut provider) = Provider::start(directory.path()) else { return };
    let url = format!("https://localhost:{}", provider.port);
    let rules = format!(
        "platform: common-names\nissuers:\n  - {{name: mock, issuer: '{url}', audiences: [keygate], algorithms: [RS256], \
         keys-url: '{url}/jwks', keys-ca-file: issuer.pem, keys-usable-for: 1m}}\n\
         rules:\n  - {{issuer: mock, claims: {{sub: '{{name}}'}}, tenant: default, user: 'oidc-{{name}}'}}\n"
    );
    let file = directory.path().join("rules.yaml");
    std::fs::write(&file, rules).unwrap();
    // It asks for keys as soon as it starts.
    let begun = Instant::now();
    let server = Server::start(&["--identity-rules-file", &file.display().to_string()]);
    let root = server.named("root").await;
    let mut auth = AuthClient::new(root.signed());
    let user =
        pb::AuthUserAddRequest { name: "oidc-alice".into(), password: "pw".into(), ..Default::default() };
    auth.user_add(user).await.unwrap();
    auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: "oidc-alice".into(), role: "root".into() })
        .await
        .unwrap();

    let first = provider.tell("login alice keygate");
    let start = Instant::now();
    while put(&with(&server, &first).await).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(20), "the keys do not come");
    }
    put(&with(&server, &format!("Bearer {first}")).await).await.unwrap();
    let other_audience = provider.tell("login alice grafana");
    assert!(is_dead(&put(&with(&server, &other_audience).await).await));
    let stranger = provider.tell("login mallory keygate");
    assert_eq!(put(&with(&server, &stranger).await).await.unwrap_err().code(), Code::PermissionDenied);
    let mut flipped = first.clone().into_bytes();
    let at = flipped.len() - 10;
    flipped[at] = if flipped[at] == b'A' { b'B' } else { b'A' };
    assert!(is_dead(&put(&with(&server, &String::from_utf8(flipped).unwrap()).await).await));

    let on_old_key = with(&server, &first).await;
    put(&on_old_key).await.unwrap();
    provider.tell("rotate");
    let second = provider.tell("login alice keygate");
    let rotated = Instant::now();
    assert!(is_dead(&put(&with(&server, &second).await).await), "who told it of the new key?");
    while put(&with(&server, &second).await).await.is_err() {
        assert!(rotated.elapsed() < Duration::from_secs(40), "the new key does not come");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("a new key was good {:?} after the rotation", rotated.elapsed());
    // A key that is gone is gone for those who were let in with it, too.
    assert!(is_dead(&put(&on_old_key).await));
    let asked: u32 = provider.tell("count").parse().unwrap();
    assert!(asked <= 1 + u32::try_from(begun.elapsed().as_secs() / 30).unwrap(), "asked {asked} times");

    provider.tell("stop");
    let stopped = Instant::now();
    put(&with(&server, &second).await).await.unwrap();
    server.logs(&["an issuer's keys cannot be fetched"]).await;
    put(&with(&server, &second).await).await.unwrap();
    while put(&with(&server, &second).await).await.is_ok() {
        assert!(stopped.elapsed() < Duration::from_secs(70), "keys are good for ever");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("keys were good for {:?} without their issuer", stopped.elapsed());
    assert!(stopped.elapsed() > Duration::from_secs(25), "the last good keys were not used");
    // The others go on.
    put(&root).await.unwrap();
}
