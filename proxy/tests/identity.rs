//! Who is whom: authorities of tenants and identity rules, by a real process over TLS, and the commands that explain them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use keygate_proto::etcdserverpb as pb;
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use support::authority::{Authority, Leaf};
use support::{Caller, Server, Shown};
use tonic::{Code, Status};

const TENANTS: [&str; 3] = ["pay", "shop", "lab"];
const HOSTS: [&str; 3] = ["pay.kv.test", "shop.kv.test", "lab.kv.test"];

fn keygate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_keygate")).args(arguments).env_clear().output().unwrap()
}

fn tenant(server: &Server, arguments: &[&str]) -> serde_json::Value {
    let (endpoint, data) = (server.endpoint(), server.data_dir().display().to_string());
    let place = ["--endpoints", &endpoint, "--data-dir", &data, "--output", "json"];
    let output = keygate(&[&["tenant"], arguments, &place].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn put(caller: &Caller, key: &str, value: &str) -> Result<(), Status> {
    let request =
        pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
    KvClient::new(caller.signed()).put(request).await.map(drop)
}

async fn get(caller: &Caller, key: &str) -> Result<String, Status> {
    let request = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
    let answer = KvClient::new(caller.signed()).range(request).await?.into_inner();
    Ok(answer.kvs.first().map_or(String::new(), |kv| String::from_utf8(kv.value.to_vec()).unwrap()))
}

/// A user without a password who may do everything with keys from `a` on.
async fn add_user(root: &Caller, name: &str) {
    let mut auth = AuthClient::new(root.signed());
    let options = Some(keygate_proto::authpb::UserAddOptions { no_password: true });
    let user = pb::AuthUserAddRequest { name: name.into(), options, ..Default::default() };
    auth.user_add(user).await.unwrap();
    let role = format!("role-of-{name}");
    auth.role_add(pb::AuthRoleAddRequest { name: role.clone() }).await.unwrap();
    let perm = keygate_proto::authpb::Permission { perm_type: 2, key: "a".into(), range_end: "z".into() };
    let grant = pb::AuthRoleGrantPermissionRequest { name: role.clone(), perm: Some(perm) };
    auth.role_grant_permission(grant).await.unwrap();
    auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: name.into(), role }).await.unwrap();
}

/// Three authorities, each of one tenant; the same rules for all of them.
fn rules(directory: &Path, authorities: &[Authority]) -> String {
    let mut text = "platform: common-names\nauthorities:\n".to_owned();
    for (authority, tenant) in authorities.iter().zip(TENANTS) {
        authority.write(&directory.join(format!("{tenant}.pem")));
        text += &format!("  - {{name: {tenant}-ca, ca-file: {tenant}.pem, tenant: {tenant}}}\n");
    }
    text += "rules:\n";
    for tenant in TENANTS {
        text += &format!(
            "  - {{authority: {tenant}-ca, uri: 'spiffe://kv.test/{{service}}', user: 'svc-{{service}}'}}\n"
        );
    }
    text
}

fn leaf<'a>(uris: &'a [&'a str]) -> Leaf<'a> {
    Leaf { common_name: "root", serial: 1, uris, ..Leaf::default() }
}

/// What somebody may be told who is nobody there.
fn is_kept_out<T: std::fmt::Debug>(answer: &Result<T, Status>) -> bool {
    answer.as_ref().is_err_and(|status| std::error::Error::source(status).is_some())
}

#[tokio::test]
async fn a_certificate_of_one_tenants_authority_is_nobody_of_another() {
    let directory = tempfile::tempdir().unwrap();
    // The same name for all three, so that nothing but keys tells them apart.
    let authorities = TENANTS.map(|_| Authority::new("authority"));
    let file = directory.path().join("rules.yaml");
    std::fs::write(&file, rules(directory.path(), &authorities)).unwrap();
    let server = Server::start(&["--identity-rules-file", &file.display().to_string()]);
    for (name, host) in TENANTS.into_iter().zip(HOSTS) {
        let made = tenant(&server, &["create", name, "--host", host]);
        let password = made["root_password"].as_str().unwrap().to_owned();
        let root = server.logged_in(&format!("root@{name}"), &password).await;
        add_user(&root, "svc-api").await;
        put(&root, "name", name).await.unwrap();
    }
    let api = &["spiffe://kv.test/api"];
    let (mut own, mut other) = (0, 0);
    for (of, authority) in TENANTS.into_iter().zip(&authorities) {
        let certificate = authority.sign(&leaf(api));
        for (at, host) in TENANTS.into_iter().zip(HOSTS) {
            let answer = get(&server.at_host(host, Some(&certificate)).await, "name").await;
            if of == at {
                assert_eq!(answer.unwrap(), at);
                own += 1;
            } else {
                assert!(is_kept_out(&answer), "{of} at {host}: {answer:?}");
                other += 1;
            }
        }
        // At a host that is nobody's, it is the authority that says which tenant is meant.
        assert_eq!(get(&server.with_certificate(&certificate).await, "name").await.unwrap(), of);
        // Its common name is `root`; no rule says that this means anything.
        let unnamed = authority.sign(&leaf(&[]));
        for host in [HOSTS[0], HOSTS[1], HOSTS[2], "localhost"] {
            assert!(get(&server.at_host(host, Some(&unnamed)).await, "name").await.is_err());
        }
    }
    println!("{own} certificates at their own host, {other} at another's");
    // The platform's own certificates go on as before, and are nobody at a tenant's host.
    put(&server.named("root").await, "name", "platform").await.unwrap();
    let stranger = Authority::new("authority").sign(&leaf(api));
    assert!(is_kept_out(&get(&server.with_certificate(&stranger).await, "name").await));
}

#[tokio::test]
async fn what_no_rule_names_is_refused_and_said_in_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("corp");
    authority.write(&directory.path().join("corp.pem"));
    let file = directory.path().join("rules.yaml");
    let rules = |user: &str| {
        format!(
            "platform: common-names\nauthorities: [{{name: corp, ca-file: corp.pem}}]\nrules:\n  \
             - {{name: apis, authority: corp, uri: 'spiffe://corp/{{s}}', tenant: default, user: '{user}', groups: [apis]}}\n"
        )
    };
    std::fs::write(&file, rules("svc-{s}")).unwrap();
    let server = Server::start(&["--identity-rules-file", &file.display().to_string()]);
    let root = server.named("root").await;
    add_user(&root, "svc-api").await;
    add_user(&root, "new-api").await;
    let known = server.with_certificate(&authority.sign(&leaf(&["spiffe://corp/api"]))).await;
    put(&known, "key", "value").await.unwrap();
    for (uris, why) in [
        (&["spiffe://corp/api", "spiffe://corp/other"][..], "`2` URI names"),
        (&["spiffe://corp/a/b"][..], "no rule for authority `corp` matches"),
        (&["spiffe://corp.evil/api"][..], "no rule for authority `corp` matches"),
    ] {
        let caller = server.with_certificate(&authority.sign(&leaf(uris))).await;
        let refused = put(&caller, "key", "value").await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{uris:?}");
        server.logs(&["a client certificate names nobody", why]).await;
    }

    // A file that cannot be used changes nothing.
    std::fs::write(&file, rules("svc-{other}")).unwrap();
    server.logs(&["the previous ones stay in use", "`{other}` is captured nowhere"]).await;
    put(&known, "key", "value").await.unwrap();
    let page = server.page("/metrics").await;
    assert!(page.contains("keygate_tls_files_unusable 1\n"), "{page}");
    for kind in ["authority", "server"] {
        let series = format!("keygate_certificate_expiry_timestamp_seconds{{kind=\"{kind}\"}} ");
        let ends = page.lines().find_map(|line| line.strip_prefix(&series)).unwrap();
        assert!(ends.parse::<u64>().unwrap() > 1_700_000_000, "{ends}");
    }
    // Who is somebody else by new rules must come again: nothing of the old name goes on.
    std::fs::write(&file, rules("new-{s}")).unwrap();
    server.logs(&["its certificate does not hold any more", "Changed"]).await;
    let user = pb::AuthUserDeleteRequest { name: "svc-api".into() };
    AuthClient::new(root.signed()).user_delete(user).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), async {
        // The old connection may take the first of these with it.
        while put(&known, "key", "value").await.is_err() {}
    })
    .await
    .expect("the same certificate is `new-api` now");
}

/// Every listener asks the same authorities, but for that of the operators, whose pages name tenants.
#[tokio::test]
async fn pages_are_for_nobody_whom_rules_reject_and_operators_pages_not_for_tenants() {
    let directory = tempfile::tempdir().unwrap();
    let (corp, pay) = (Authority::new("corp"), Authority::new("pay"));
    corp.write(&directory.path().join("corp.pem"));
    pay.write(&directory.path().join("pay.pem"));
    let file = directory.path().join("rules.yaml");
    let rules = "authorities: [{name: pay-ca, ca-file: pay.pem, tenant: pay}]
rules:
  - {authority: pay-ca, common-name: root, user: svc-api}
  - {authority: platform, common-name: root, tenant: default, user: root}
";
    std::fs::write(&file, rules).unwrap();
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (monitoring, pages) = (free(), free());
    let server = Server::start(&[
        "--identity-rules-file",
        &file.display().to_string(),
        "--trusted-ca-file",
        &directory.path().join("corp.pem").display().to_string(),
        "--listen-metrics-urls",
        &format!("https://{monitoring}"),
        "--listen-client-http-urls",
        &format!("https://{pages}"),
    ]);
    let named = |authority: &Authority, common_name| authority.sign(&Leaf { common_name, ..leaf(&[]) });
    let (operator, other) = (named(&corp, "root"), named(&corp, "other"));
    let (tenants, stranger) = (named(&pay, "root"), named(&Authority::new("pay"), "root"));
    for (who, certificate, at_pages, at_monitoring) in [
        ("nobody", None, Some("403"), Some("200")),
        ("an operator", Some(&operator), Some("200"), Some("200")),
        ("whom rules reject", Some(&other), Some("403"), Some("403")),
        // Nobody sees what other tenants do.
        ("a tenant's", Some(&tenants), Some("403"), None),
        ("a stranger", Some(&stranger), None, None),
    ] {
        for (address, expected) in [(pages, at_pages), (monitoring, at_monitoring)] {
            let answer = server.answer_of(address, "/metrics", certificate).await;
            let status = answer.as_ref().ok().and_then(|answer| answer.split(' ').nth(1));
            assert_eq!(status, expected, "{who} at {address}: {answer:?}");
            let figures = answer.as_ref().is_ok_and(|answer| answer.contains("etcd_"));
            assert_eq!(figures, expected == Some("200"), "{who} at {address}: {answer:?}");
        }
        // What says no more than that the server is well is for everybody but whom rules reject.
        for path in ["/health", "/version", "/livez", "/readyz"] {
            let answer = server.answer_of(pages, path, certificate).await;
            let status = answer.as_ref().ok().and_then(|answer| answer.split(' ').nth(1));
            let expected = match (who, at_pages) {
                ("whom rules reject", _) => Some("403"),
                (_, at_pages) => at_pages.map(|_| "200"),
            };
            assert_eq!(status, expected, "{who}, {path}: {answer:?}");
        }
    }
}

#[test]
fn a_certificate_is_explained_without_a_server() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let authorities = TENANTS.map(Authority::new);
    std::fs::write(at("rules.yaml"), rules(directory.path(), &authorities)).unwrap();
    let write = |name: &str, authority: &Authority, leaf: &Leaf<'_>| {
        std::fs::write(at(name), authority.sign(leaf).pem).unwrap();
        at(name)
    };
    let good = write("good.pem", &authorities[0], &leaf(&["spiffe://kv.test/api"]));
    let several = write("two.pem", &authorities[0], &leaf(&["spiffe://kv.test/a", "spiffe://kv.test/b"]));
    let strange = write("strange.pem", &Authority::new("pay"), &leaf(&["spiffe://kv.test/api"]));
    let explain = |arguments: &[&str]| {
        let rules = at("rules.yaml");
        let all = [&["identity", "explain", "--rules", &rules, "--output", "json"], arguments].concat();
        let output = keygate(&all);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), json)
    };
    let (code, json) = explain(&[&good]);
    assert_eq!(code, Some(0));
    assert_eq!((&json["authority"], &json["rule"]), (&"pay-ca".into(), &"rules[0]".into()));
    let identity = serde_json::json!({"tenant": "pay", "user": "svc-api", "groups": []});
    assert_eq!(json["identity"], identity);
    for (arguments, why) in [
        (&[&several[..]][..], "`2` URI names"),
        (&[&strange], "the handshake fails"),
        (&[&good, "--at", "shop"], "the handshake fails"),
    ] {
        let (code, json) = explain(arguments);
        assert_eq!(code, Some(1), "{json}");
        assert!(json["reason"].as_str().unwrap().contains(why), "{json}");
    }
    assert_eq!(explain(&[&good, "--at", "pay"]).0, Some(0));
    std::fs::write(at("rules.yaml"), "rules: [{authority: x, uri: y, user: z, tenant: pay}]").unwrap();
    let (code, json) = explain(&[&good]);
    assert_eq!(code, Some(2));
    assert!(json["error"].as_str().unwrap().contains("rules[0].authority: no authority `x`"), "{json}");
    let text = keygate(&["identity", "explain", "--ca-file", &at("pay.pem"), &good]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("user         root\n") && text.contains("authority    platform\n"), "{text}");
}

/// An issuer's new key; the public half is written to this file.
fn issuer_key(key_set: &str) -> jsonwebtoken::EncodingKey {
    use jsonwebtoken::{Algorithm, EncodingKey, jwk::Jwk};
    let key = EncodingKey::from_ec_der(&rcgen::KeyPair::generate().unwrap().serialize_der());
    let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
    std::fs::write(key_set, serde_json::json!({ "keys": [jwk] }).to_string()).unwrap();
    key
}

#[test]
fn a_token_is_explained_without_a_server() {
    use jsonwebtoken::{Algorithm, Header};
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let key = issuer_key(&at("jwks.json"));
    let rules = "
issuers: [{name: corp, issuer: 'https://login.test', audiences: [keygate], algorithms: [ES256], keys-file: jwks.json, tenant: pay}]
rules: [{name: people, issuer: corp, claims: {sub: '{name}'}, user: '{name}', groups-claim: groups}]
";
    std::fs::write(at("rules.yaml"), rules).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let token = |audience: &str| {
        let claims = serde_json::json!({
            "iss": "https://login.test", "aud": audience, "exp": now + 600, "sub": "ann", "groups": ["ops"],
        });
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &key).unwrap()
    };
    std::fs::write(at("token"), token("keygate") + "\n").unwrap();
    let explain = |subject: &str| {
        let rules = at("rules.yaml");
        let output = keygate(&["identity", "explain", "--rules", &rules, "--output", "json", subject]);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), json)
    };
    for subject in [token("keygate"), at("token")] {
        let (code, json) = explain(&subject);
        assert_eq!(code, Some(0), "{json}");
        assert_eq!(json["identity"], serde_json::json!({"tenant": "pay", "user": "ann", "groups": ["ops"]}));
        assert_eq!((&json["issuer"], &json["rule"]), (&"corp".into(), &"people".into()));
        assert!(!json.to_string().contains(subject.rsplit('.').next().unwrap()), "the token is printed");
    }
    let (code, json) = explain(&token("grafana"));
    let reason = "it is for others: `aud` is \"grafana\", not `keygate`";
    assert_eq!((code, &json["reason"]), (Some(1), &reason.into()));
    assert_eq!(explain("a.b.c").0, Some(1));
    let good = token("keygate");
    let (code, json) = explain(&format!("eyJhbGciOiJub25lIn0.{}.x", good.split('.').nth(1).unwrap()));
    assert_eq!((code, &json["reason"]), (Some(1), &"its algorithm is `none`: it is not signed".into()));
    // Of keys that nobody has here nothing can be said.
    let elsewhere = rules.replace("keys-file: jwks.json", "keys-url: 'https://login.test/jwks'");
    std::fs::write(at("rules.yaml"), elsewhere).unwrap();
    let (code, json) = explain(&good);
    assert_eq!(code, Some(2), "{json}");
    assert!(json["error"].as_str().unwrap().contains("issuer `corp` are at its `keys-url`"), "{json}");
    assert_eq!(explain("/no/such.file").0, Some(2));
}

/// A client that is refused at night is no riddle, and an issuer that is down is seen.
#[tokio::test]
async fn tokens_that_do_not_hold_are_counted_and_told_with_their_reason() {
    use jsonwebtoken::{Algorithm, Header};
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let key = issuer_key(&at("jwks.json"));
    // Nobody listens on port 1.
    let rules = "
platform: common-names
issuers:
  - {name: corp, issuer: 'https://login.test', audiences: [keygate], algorithms: [ES256], keys-file: jwks.json}
  - {name: down, issuer: 'https://down.test', audiences: [keygate], algorithms: [ES256], keys-url: 'https://127.0.0.1:1/jwks'}
rules:
  - {issuer: corp, claims: {sub: '{name}'}, tenant: default, user: '{name}'}
  - {issuer: down, claims: {sub: '{name}'}, tenant: default, user: '{name}'}
";
    std::fs::write(at("rules.yaml"), rules).unwrap();
    let server = Server::start(&["--identity-rules-file", &at("rules.yaml")]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let token = |header: &Header, iss: &str, aud: &str, exp: u64| {
        let claims =
            serde_json::json!({ "iss": iss, "aud": aud, "exp": exp, "iat": now - 700, "sub": "ann" });
        jsonwebtoken::encode(header, &claims, &key).unwrap()
    };
    let plain = Header::new(Algorithm::ES256);
    let critical = Header { crit: Some(vec!["b64".to_owned()]), ..plain.clone() };
    let (login, soon) = ("https://login.test", now + 600);
    let good = token(&plain, login, "keygate", soon);
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.x", good.split('.').nth(1).unwrap());
    put(&server.caller(Shown { certificate: None, token: Some(good) }).await, "a", "b").await.unwrap_err();
    let shown = [
        (token(&plain, login, "keygate", now - 100), "corp", "expired", "it expired at "),
        (token(&plain, login, "grafana", soon), "corp", "audience", "`aud` is "),
        (token(&critical, login, "keygate", soon), "corp", "critical", "`b64` as critical"),
        (unsigned, "corp", "algorithm", "`none`"),
        (token(&plain, "https://down.test", "keygate", soon), "down", "no_keys", "are not there"),
        (token(&plain, "https://else.test", "keygate", soon), "own", "issuer", "https://else.test"),
        ("made.up".to_owned(), "own", "unknown", "it was never given out"),
    ];
    for (token, issuer, reason, why) in &shown {
        let caller = server.caller(Shown { certificate: None, token: Some(token.clone()) }).await;
        let status = put(&caller, "a", "b").await.unwrap_err();
        let told = (status.code(), status.message());
        assert_eq!(told, (Code::Unauthenticated, "etcdserver: invalid auth token"), "{reason}");
        let (issuer, reason) = (format!("\"issuer\":\"{issuer}\""), format!("\"reason\":\"{reason}\""));
        let line = server.logs(&["a token does not hold", "127.0.0.1:", &issuer, &reason]).await;
        assert!(line.contains(why), "{line}");
    }
    let page = server.page("/metrics").await;
    for (_, _, reason, _) in &shown {
        let series = format!("\nkeygate_tokens_refused_total{{reason=\"{reason}\"}} 1\n");
        assert!(page.contains(&series), "{series} in {page}");
    }
    assert!(page.contains("\nkeygate_tokens_refused_total{reason=\"signature\"} 0\n"), "{page}");
    assert!(page.contains("\nkeygate_issuer_keys_usable{issuer=\"down\"} 0\n"), "{page}");
    let failures = page
        .lines()
        .find_map(|it| it.strip_prefix("keygate_issuer_keys_fetch_failures_total{issuer=\"down\"} "));
    assert!(failures.unwrap().parse::<u64>().unwrap() > 0);
    let log = server.lines().join("\n");
    for (token, ..) in &shown {
        assert!(
            !log.contains(token.rsplit('.').next().filter(|part| part.len() > 9).unwrap_or(token)),
            "{token}"
        );
    }
}

#[test]
fn what_expires_soon_fails_the_check() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let authority = Authority::new("corp");
    authority.write(Path::new(&at("ca.pem")));
    let day = Duration::from_secs(86_400);
    let long = authority.sign(&Leaf { life: Some(100 * day), ..leaf(&[]) });
    let short = authority.sign(&Leaf { life: Some(20 * day), ..leaf(&[]) });
    std::fs::write(at("long.pem"), long.pem).unwrap();
    std::fs::write(at("short.pem"), short.pem).unwrap();
    std::fs::write(at("crl.pem"), authority.revoke(&[], 40 * day).pem().unwrap()).unwrap();
    std::fs::write(at("bad.pem"), "nothing").unwrap();
    // The check names files of the server; it needs no key.
    let config = format!(
        "listen-client-urls: https://127.0.0.1:2379\nadvertise-client-urls: https://127.0.0.1:2379\n\
         client-crl-file: {}\nclient-transport-security: {{cert-file: {}, key-file: {}, trusted-ca-file: {}}}\n",
        at("crl.pem"),
        at("long.pem"),
        at("no-key.pem"),
        at("ca.pem"),
    );
    std::fs::write(at("keygate.yaml"), config).unwrap();
    let (long, short, bad, config) = (at("long.pem"), at("short.pem"), at("bad.pem"), at("keygate.yaml"));
    let check = |arguments: &[&str]| {
        let output = keygate(&[&["certs", "check", "--output", "json"], arguments].concat());
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code().unwrap(), json)
    };
    for (arguments, code) in [
        (&[&long[..]][..], 0),
        (&[&long, &short], 1),
        (&[&short, "--within", "10d"], 0),
        (&[&long, "--within", "101d"], 1),
        (&["--config-file", &config], 0),
        (&["--config-file", &config, "--within", "50d"], 1),
        (&["--config-file", &config, &short], 1),
        (&[&bad], 2),
        (&[], 2),
    ] {
        let (found, json) = check(arguments);
        assert_eq!(found, code, "{arguments:?}: {json}");
    }
    let (_, json) = check(&["--config-file", &config, "--within", "50d"]);
    let found = json["certificates"].as_array().unwrap().iter();
    let found: Vec<_> =
        found.map(|one| (one["what"].as_str().unwrap(), one["state"].as_str().unwrap())).collect();
    assert_eq!(found, [("server", "fine"), ("authority", "fine"), ("revocation-list", "soon")]);
    let text = keygate(&["certs", "check", &short]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.starts_with("soon    client          19 days left"), "{text}");
}
