//! Every kind of listener asks for the same: with `--client-cert-auth` nothing answers a client without a certificate, no
//! page and no RPC, and nothing answers one whose certificate is revoked.
//!
//! etcd 3.7.1 does so too: without a certificate the handshake fails for `/metrics`, `/health` and `/version` of the client
//! port and of `--listen-metrics-urls https://…`. Only `http://` there is open, and `keygate serve` refuses that.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use keygate_proto::{admin, etcdserverpb as pb, health};
use support::Server;
use support::authority::{Authority, Leaf, Signed};
use tonic::Status;

const DAY: Duration = Duration::from_secs(86_400);

/// Free for the moment.
fn addresses<const N: usize>() -> [SocketAddr; N] {
    // All at once, so that none is given twice.
    let sockets = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    sockets.map(|socket| socket.local_addr().unwrap())
}

struct Shown {
    /// None: no certificate.
    certificate: Option<Signed>,
    accepted: bool,
}

fn certificates(authority: &Authority) -> [Shown; 4] {
    let signed = |authority: &Authority, serial| {
        authority.sign(&Leaf { common_name: "root", serial, ..Leaf::default() })
    };
    [
        Shown { certificate: Some(signed(authority, 8)), accepted: true },
        Shown { certificate: Some(signed(authority, 7)), accepted: false },
        Shown { certificate: Some(signed(&Authority::new("another"), 8)), accepted: false },
        Shown { certificate: None, accepted: false },
    ]
}

/// What a handler answers, if it is asked at all.
async fn page(server: &Server, at: SocketAddr, path: &str, shown: &Shown) -> Option<String> {
    let answer = server.answer_of(at, path, shown.certificate.as_ref()).await.ok()?;
    answer.lines().next().map(str::to_owned)
}

/// Each service once: its own answer, or None when none came from it.
async fn rpcs(server: &Server, at: SocketAddr, shown: &Shown) -> Vec<Option<tonic::Code>> {
    fn answer<T>(told: Result<T, Status>) -> Option<tonic::Code> {
        match told {
            Ok(_) => Some(tonic::Code::Ok),
            // Below gRPC: the connection came to nothing.
            Err(status) if std::error::Error::source(&status).is_some() => None,
            Err(status) => Some(status.code()),
        }
    }
    let channel = server.caller_at(at, shown.certificate.as_ref()).await.channel;
    let mut kv = pb::kv_client::KvClient::new(channel.clone());
    let mut auth = pb::auth_client::AuthClient::new(channel.clone());
    let mut maintenance = pb::maintenance_client::MaintenanceClient::new(channel.clone());
    let mut limits = admin::limits_client::LimitsClient::new(channel.clone());
    let mut tenants = admin::tenants_client::TenantsClient::new(channel.clone());
    let mut policies = admin::policies_client::PoliciesClient::new(channel.clone());
    let mut quotas = admin::quotas_client::QuotasClient::new(channel.clone());
    let mut load = admin::load_client::LoadClient::new(channel.clone());
    let mut health = health::health_client::HealthClient::new(channel);
    vec![
        answer(kv.range(pb::RangeRequest { key: "k".into(), ..Default::default() }).await),
        answer(auth.auth_status(pb::AuthStatusRequest {}).await),
        answer(maintenance.status(pb::StatusRequest {}).await),
        answer(limits.get(admin::LimitsRequest {}).await),
        answer(tenants.list(admin::TenantListRequest::default()).await),
        answer(policies.log(admin::PolicyLogRequest {}).await),
        answer(quotas.show(admin::QuotaShowRequest::default()).await),
        answer(load.get(admin::LoadRequest::default()).await),
        answer(health.check(health::HealthCheckRequest::default()).await),
    ]
}

#[tokio::test]
async fn every_listener_refuses_who_has_no_good_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("ours");
    let file = |name: &str, text: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let trusted = file("ca.pem", authority.pem());
    let revoked = file("crl.pem", authority.revoke(&[7], DAY).pem().unwrap());
    let shown = certificates(&authority);
    let (mut pages, mut calls) = (0, 0);
    // Pages stand on the client port, unless they have a listener of their own.
    for own_pages in [false, true] {
        let [first, second, http, metrics] = addresses();
        let clients = format!("https://{first},https://{second}");
        let mut flags =
            vec!["--client-cert-auth", "--trusted-ca-file", &trusted, "--client-crl-file", &revoked];
        let (http_url, metrics_url) = (format!("https://{http}"), format!("https://{metrics}"));
        flags.extend(["--listen-client-urls", &clients, "--listen-metrics-urls", &metrics_url]);
        let mut places = vec![(metrics, &["/metrics", "/health"][..])];
        let all = &["/metrics", "/health", "/version", "/livez", "/readyz"][..];
        if own_pages {
            flags.extend(["--listen-client-http-urls", &http_url]);
            places.push((http, all));
        } else {
            places.extend([(first, all), (second, all)]);
        }
        let server = Server::start(&flags);
        for shown in &shown {
            for (at, paths) in &places {
                for path in *paths {
                    let answer = page(&server, *at, path, shown).await;
                    let expected = shown.accepted.then_some("HTTP/1.1 200 OK");
                    assert_eq!(answer.as_deref(), expected, "{path} of {at}, own: {own_pages}");
                    pages += 1;
                }
            }
            for at in [first, second] {
                let answers = rpcs(&server, at, shown).await;
                let expected = shown.accepted.then_some(tonic::Code::Ok);
                assert!(answers.iter().all(|answer| *answer == expected), "{at}: {answers:?}");
                calls += answers.len();
            }
        }
        server.logs(&["rejected connection", "certificate was revoked", "`CN=", ", serial "]).await;
    }
    println!("{pages} pages and {calls} calls were asked for");
    assert!(pages >= 70 && calls >= 140, "{pages} pages, {calls} calls");
}
