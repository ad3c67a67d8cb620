//! No secret reaches what others read: the log at its most talkative, the pages, and what strangers are answered.
//!
//! A real server is fed passwords, tokens and values that are all one word, the canary, in every field of every RPC, by
//! those who may and those who may not, whole and broken, and beside RPCs as well. Then all that was printed is
//! searched for that word in every form. A planted word shows that the search sees what is there.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[path = "log_canary/samples.rs"]
mod samples;
#[path = "log_canary/search.rs"]
mod search;
#[allow(dead_code, reason = "each test uses its part")]
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use keygate_proto::etcdserverpb as pb;
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use search::Search;
use support::{Caller, Server, Shown};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::{Request, Status};

/// In every secret.
const CANARY: &str = "Kanarienvogel4711";
/// In a setting that is shown.
const PLANT: &str = "Zimmerpflanze4711";

/// All that was said to somebody, and by what.
#[derive(Default)]
struct Heard {
    said: Vec<(String, Vec<u8>)>,
    calls: usize,
    refusals: usize,
}

impl Heard {
    fn note(&mut self, by: impl Into<String>, text: impl Into<Vec<u8>>) {
        self.said.push((by.into(), text.into()));
    }

    /// What a caller may read of others: refusals whole, and answers of those who have no right to values.
    fn answer(&mut self, by: &str, may_read_values: bool, answer: Result<bytes::Bytes, Status>) {
        self.calls += 1;
        match answer {
            Ok(_) if may_read_values => {}
            Ok(answer) => self.note(by, answer.to_vec()),
            Err(status) => {
                self.refusals += 1;
                let headers = format!("{:?}", status.metadata());
                self.note(
                    by,
                    [status.message().as_bytes(), status.details(), headers.as_bytes()].join(&b"\n"[..]),
                );
            }
        }
    }

    fn assert_without(&self, secrets: &[&str]) {
        let mut hits = Vec::new();
        for search in secrets.iter().map(|secret| Search::of(secret)) {
            for (by, text) in &self.said {
                hits.extend(search.hits(text).into_iter().map(|hit| format!("{by}: {hit}")));
            }
        }
        assert!(
            hits.is_empty(),
            "{} hits, the first ones:\n{}",
            hits.len(),
            hits[..hits.len().min(10)].join("\n")
        );
    }

    fn bytes(&self) -> usize {
        self.said.iter().map(|(_, text)| text.len()).sum()
    }
}

#[tokio::test]
async fn no_secret_reaches_the_log_a_page_or_an_answer() {
    let directory = tempfile::tempdir().unwrap();
    let (log, rules) = (directory.path().join("log"), directory.path().join("rules.yaml"));
    write_rules(directory.path());
    let outputs = format!("stderr,{}", log.display());
    let server = Server::start(&[
        "--log-level=debug",
        &format!("--log-outputs={outputs}"),
        &format!("--name={PLANT}"),
        &format!("--initial-cluster={PLANT}=http://localhost:2380"),
        &format!("--identity-rules-file={}", rules.display()),
        "--login-lockout-threshold=3",
    ]);
    let root = server.named("root").await;
    furnish(&root).await;
    let mut heard = Heard::default();
    let powerless = server.logged_in("powerless", CANARY).await;
    let token = powerless.token().unwrap().to_owned();
    let nobody = server.caller(Shown::default()).await;
    let with_token = |token: String| server.caller(Shown { token: Some(token), certificate: None });
    let tokens = bad_tokens();
    let liar = with_token(tokens[0].clone()).await;
    for method in keygate_proto::methods() {
        let mut requests = samples::of(method, CANARY, "plain");
        // Broken ones, too: the last is cut off, another is no message at all.
        let whole = requests[requests.len() - 1].clone();
        requests.push(whole[..whole.len().saturating_sub(1)].to_vec());
        requests.push(format!("\u{7f}{CANARY}").into_bytes());
        for request in requests {
            for (who, caller) in
                [("nobody", &nobody), ("liar", &liar), ("powerless", &powerless), ("root", &root)]
            {
                // What root finds are values; what he is told about the server is not.
                let values = who == "root"
                    && method.path.starts_with("/etcdserverpb.")
                    && !is_about_server(&method.path);
                let by = format!("{} for {who}", method.path);
                heard.answer(&by, values, caller.raw(&method.path, request.clone()).await);
            }
        }
    }
    for (index, token) in tokens.into_iter().enumerate() {
        let caller = with_token(token.clone()).await;
        heard.answer("a bad token", false, caller.raw("/etcdserverpb.KV/Range", Vec::new()).await);
        for scheme in ["Bearer ", "Basic ", ""] {
            let told = authorized(&nobody, &format!("{scheme}{token}")).await;
            heard.answer(&format!("authorization {index}"), false, told);
        }
    }
    for name in ["root", "powerless", "nobody", CANARY] {
        for n in 0..5 {
            let login = pb::AuthenticateRequest { name: name.to_owned(), password: format!("{CANARY}-{n}") };
            let told = AuthClient::new(nobody.channel.clone()).authenticate(login).await;
            heard.answer("a wrong login", false, told.map(|_| bytes::Bytes::new()));
        }
    }
    let large =
        pb::PutRequest { key: "k".into(), value: CANARY.repeat(200_000).into(), ..Default::default() };
    let told = KvClient::new(root.channel.clone()).put(large).await;
    heard.answer("a large put", false, told.map(|_| bytes::Bytes::new()));
    no_tls(&server, &mut heard).await;
    break_files(&server, directory.path()).await;

    for path in
        ["/metrics", "/health", "/version", "/livez?verbose", "/readyz", "/debug/vars", "/config/local/log"]
    {
        heard.note(path, server.page(path).await);
        heard.note(path, server.page(&format!("{path}?token={CANARY}")).await);
    }
    for service in
        ["Policies/Denial", "Policies/Tables", "Policies/Log", "Load/Get", "Limits/Get", "Quotas/Show"]
    {
        let told = root.raw(&format!("/keygate.admin.v1.{service}"), Vec::new()).await;
        heard.answer(service, false, told);
    }
    server.signal("TERM");
    server.ended().await;
    let (file, stderr) = (fs::read(&log).unwrap(), server.lines().join("\n"));
    // What is shown on purpose is found, so that what is not found is not there.
    assert!(!Search::of(PLANT).hits(&file).is_empty(), "the plant is in the log file");
    let debug = file.windows(15).filter(|window| window == b"\"level\":\"debug\"").count();
    assert!(debug > 0, "the log is as talkative as it can be");
    assert!(
        stderr.contains("too many wrong passwords") && stderr.contains("a token does not hold"),
        "{stderr}"
    );
    println!(
        "{} calls, {} refused; {} bytes of log, {debug} lines of them debug; {} bytes heard",
        heard.calls,
        heard.refusals,
        file.len() + stderr.len(),
        heard.bytes()
    );
    assert!(heard.calls > 1_000 && heard.refusals > 800, "{} calls, {} refused", heard.calls, heard.refusals);
    heard.note("the log file", file);
    heard.note("stderr", stderr);
    heard.assert_without(&[CANARY]);
    // A token that was good, and what the server keeps for itself.
    let pki = server.data_dir().join("pki");
    let password = fs::read_to_string(pki.join("root-password")).unwrap();
    let key = fs::read_to_string(pki.join("ca-key.pem")).unwrap();
    let letters = |text: &str| {
        text.split(|c: char| !c.is_ascii_alphanumeric()).max_by_key(|part| part.len()).unwrap().to_owned()
    };
    let [password, token, key] = [letters(&password), letters(&token), letters(&key)];
    heard.assert_without(&[&password, &token, &key]);
    // And passwords are in no file of the server: what is kept of them is a hash.
    let mut kept = Heard::default();
    all_files(&server.data_dir(), &mut kept);
    assert!(kept.bytes() > 10_000, "the data directory was read");
    assert!(
        !kept.said.iter().all(|(_, text)| Search::of(CANARY).hits(text).is_empty()),
        "values are there, in plain"
    );
    kept.said.retain(|(path, _)| !path.ends_with("root-password"));
    kept.assert_without(&[&password, &token]);
}

fn is_about_server(path: &str) -> bool {
    ["Maintenance", "Cluster", "AuthStatus", "UserGet", "UserList", "UserAdd", "ChangePassword"]
        .iter()
        .any(|part| path.contains(part))
}

/// A user without rights, and values that nobody is to be told.
async fn furnish(root: &Caller) {
    let mut auth = AuthClient::new(root.channel.clone());
    for name in ["powerless", "plain"] {
        let add = pb::AuthUserAddRequest {
            name: name.to_owned(),
            password: CANARY.to_owned(),
            ..Default::default()
        };
        auth.user_add(add).await.unwrap();
    }
    let put = pb::PutRequest { key: "plain".into(), value: CANARY.into(), ..Default::default() };
    KvClient::new(root.channel.clone()).put(put).await.unwrap();
}

/// An issuer whose tokens are looked at, and said no to with a reason.
fn write_rules(directory: &Path) {
    let keys = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","alg":"EdDSA","use":"sig","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    fs::write(directory.join("jwks.json"), keys).unwrap();
    let rules = "platform: common-names\nissuers:\n  - name: login\n    issuer: https://login\n    audiences: [keygate]\n    \
        algorithms: [EdDSA]\n    keys-file: jwks.json\nrules:\n  - issuer: login\n    claims: {sub: \"{person}\"}\n    tenant: default\n    user: \"{person}\"\n";
    fs::write(directory.join("rules.yaml"), rules).unwrap();
}

/// Tokens that are none, of the kinds that there are.
fn bad_tokens() -> Vec<String> {
    let part = |json: &str| base64_url(json.as_bytes());
    let claims = format!(
        r#"{{"iss":"https://login","aud":"keygate","exp":4000000000,"sub":"a","password":"{CANARY}"}}"#
    );
    let signature = base64_url(CANARY.repeat(4).as_bytes());
    let jwt = |header: &str, claims: &str| format!("{}.{}.{signature}", part(header), part(claims));
    let mut tokens = vec![
        format!("{CANARY}.7"),
        CANARY.to_owned(),
        format!("{CANARY}.{CANARY}.{CANARY}"),
        CANARY.repeat(200),
        jwt(r#"{"alg":"EdDSA","kid":"k"}"#, &claims),
        jwt(r#"{"alg":"none"}"#, &claims),
        jwt(&format!(r#"{{"alg":"{CANARY}"}}"#), &claims),
        // The id of a key is no secret, and told in the log.
        jwt(r#"{"alg":"EdDSA","kid":"other"}"#, &claims),
        jwt(r#"{"alg":"EdDSA","kid":"k"}"#, &claims.replace("4000000000", &format!("\"{CANARY}\""))),
        jwt(r#"{"alg":"EdDSA","kid":"k"}"#, &claims[..claims.len() - 2]),
    ];
    tokens.push(format!("{}.{CANARY}", tokens[4].rsplit_once('.').unwrap().0));
    tokens
}

fn base64_url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number = (0..3).fold(0, |number, at| number << 8 | usize::from(*three.get(at).unwrap_or(&0)));
        let letters = [18, 12, 6, 0].map(|shift| char::from(LETTERS[number >> shift & 63]));
        text.extend(&letters[..=three.len()]);
    }
    text
}

async fn authorized(nobody: &Caller, value: &str) -> Result<bytes::Bytes, Status> {
    let mut request = Request::new(pb::RangeRequest { key: "k".into(), ..Default::default() });
    request.metadata_mut().insert("authorization", value.parse().unwrap());
    KvClient::new(nobody.channel.clone()).range(request).await.map(|_| bytes::Bytes::new())
}

/// Somebody who sends a secret without TLS, and rubbish as TLS.
async fn no_tls(server: &Server, heard: &mut Heard) {
    let plain = format!("POST /v3/auth/authenticate HTTP/1.1\r\nauthorization: {CANARY}\r\n\r\n{CANARY}");
    let hello = [&[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3][..], CANARY.repeat(20).as_bytes()].concat();
    for bytes in [plain.into_bytes(), hello] {
        let mut stream = TcpStream::connect(server.endpoint().trim_start_matches("https://")).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer).await;
        heard.note("a handshake", answer);
    }
}

/// Files that are read again while the server runs, with keys where they do not belong.
async fn break_files(server: &Server, directory: &Path) {
    fs::write(directory.join("jwks.json"), format!(r#"{{"keys":[{{"kty":"oct","k":"{CANARY}"}}], {CANARY}"#))
        .unwrap();
    server.signal("HUP");
    server.logs(&["cannot be used", "jwks.json"]).await;
    fs::write(directory.join("rules.yaml"), format!("password: {CANARY}\nrules: \"{CANARY}\n")).unwrap();
    server.signal("HUP");
    server.logs(&["cannot be used", "rules.yaml"]).await;
}

fn all_files(directory: &Path, kept: &mut Heard) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all_files(&path, kept);
        } else {
            // The log is made in whole pieces, of zeros.
            let written = fs::read(&path).unwrap().into_iter().filter(|byte| *byte != 0);
            kept.note(path.display().to_string(), written.collect::<Vec<_>>());
        }
    }
}

/// Commands that fail, and those that explain, with secrets in flags, variables and files.
#[test]
fn no_secret_of_a_command_line_or_a_file_is_printed() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let pem = |kind: &str| {
        format!("-----BEGIN {kind}-----\n{CANARY}\n{}\n-----END {kind}-----\n", CANARY.repeat(3))
    };
    let key = file("key.pem", pem("PRIVATE KEY"));
    let certificate = file("certificate.pem", pem("CERTIFICATE"));
    let bare = file("bare.pem", CANARY.repeat(5));
    let settings =
        file("settings.yaml", format!("name: {PLANT}\ndiscovery-config: {{password: {CANARY}}}\n"));
    let unknown = file("unknown.yaml", format!("discovery-password: {CANARY}\nroot-pasword: {CANARY}\n"));
    let broken = file("broken.yaml", format!("name: a\nkeygate:\n  password: \"{CANARY}\n  x: [\n"));
    let wrong = file(
        "wrong.yaml",
        format!("client-transport-security: {{key-file: {key}, cert-file: {key}, password: {CANARY}}}\n"),
    );
    let rules = file(
        "rules.yaml",
        format!("authorities: [{{name: a, ca-file: {key}, tenant: t, password: {CANARY}}}]\n"),
    );
    let jwt = bad_tokens()[4].clone();
    let user = format!("root:{CANARY}");
    let (dead, login) = ("--endpoints=https://127.0.0.1:1", format!("--user={user}"));
    let jwt_keys = |path: &str| format!("--auth-token=jwt,priv-key={path},sign-method=RS256");
    let commands: &[&[&str]] = &[
        &["tenant", "list", dead, &login],
        &["tenant", "list", dead, "--user=root", "--password", CANARY],
        &["tenant", "list", dead, "--password", CANARY],
        &["tenant", "list", "--help"],
        &["tenant", "list", dead, &login, "--cert", &certificate, "--key", &key],
        &["tenant", "list", dead, &login, "--cacert", &key],
        &["tenant", "list", dead, &login, "--pasword", CANARY],
        &["quota", "show", dead, &login],
        &["limits", "show", dead, &login],
        &["policy", "log", dead, &login],
        &["policy", "sign", directory.path().to_str().unwrap(), "--key", &key],
        &["policy", "sign", directory.path().to_str().unwrap(), "--key", &bare],
        &["policy", "verify", directory.path().to_str().unwrap(), "--key", &key],
        &["check-config", &settings],
        &["check-config", &settings, "--output=json"],
        &["check-config", &unknown],
        &["check-config", &broken],
        &["check-config", &wrong],
        &["check-config", &key],
        &["serve", "--config-file", &unknown],
        &["serve", "--config-file", &broken],
        &["serve", "--discovery-password", CANARY, "--discovery-user", &user, "--max-txn-ops=0"],
        &["serve", "--cert-file", &certificate, "--key-file", &key],
        &["serve", "--cert-file", &key, "--key-file", &certificate],
        &["serve", "--trusted-ca-file", &key, "--listen-client-urls=https://127.0.0.1:0"],
        &["serve", "--listen-client-urls=https://127.0.0.1:0", &jwt_keys(&key)],
        &["serve", "--listen-client-urls=https://127.0.0.1:0", &jwt_keys(&bare)],
        &["serve", "--listen-client-urls=https://127.0.0.1:0", "--identity-rules-file", &rules],
        &["serve", "--limits-file", &key],
        &["serve", "--policy-keys", &key, "--listen-client-urls=https://127.0.0.1:0"],
        &["identity", "explain", &jwt, "--rules", &rules],
        &["identity", "explain", &key, "--rules", &rules],
        &["certs", "check", &key],
        &["certs", "check", &certificate],
    ];
    let mut heard = Heard::default();
    for words in commands {
        let output = Command::new(env!("CARGO_BIN_EXE_keygate"))
            .args(*words)
            .env_clear()
            .envs([
                ("KEYGATE_USER", user.as_str()),
                ("KEYGATE_PASSWORD", CANARY),
                ("ETCD_DISCOVERY_PASSWORD", CANARY),
            ])
            .env("RUST_BACKTRACE", "full")
            .current_dir(directory.path())
            .output()
            .unwrap();
        let told = [output.stdout, output.stderr].concat();
        assert!(!told.is_empty(), "{words:?} says nothing");
        // Else it says much and means that it was called wrongly.
        let usage = String::from_utf8_lossy(&told).contains("unrecognized subcommand");
        assert!(!usage, "{words:?}: {}", String::from_utf8_lossy(&told));
        heard.note(format!("{words:?}"), told);
    }
    let planted = heard.said.iter().filter(|(_, text)| !Search::of(PLANT).hits(text).is_empty()).count();
    println!("{} commands, {} bytes, the plant in {planted}", commands.len(), heard.bytes());
    assert!(planted > 0, "a setting that is no secret is shown");
    // Where a command is named, so is what it was called with: only what it said counts.
    heard.said.iter_mut().enumerate().for_each(|(index, (by, _))| *by = format!("command {index}"));
    heard.assert_without(&[CANARY]);
}
