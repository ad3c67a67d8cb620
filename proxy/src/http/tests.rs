use super::*;
use http_body_util::BodyExt as _;
use keygate_core::{AlarmKind, AlarmMember, Refusal};
use keygate_engine::{EngineStats, Identity, TenantFigures};

use crate::metrics::Moment;

#[derive(Clone)]
struct Staged {
    alarms: Vec<AlarmKind>,
    has_leader: bool,
    read: Result<(), Refusal>,
}

impl Condition for Staged {
    fn alarms(&self) -> Vec<AlarmMember> {
        self.alarms.iter().map(|alarm| AlarmMember { member: 1, alarm: *alarm }).collect()
    }

    fn has_leader(&self) -> bool {
        self.has_leader
    }

    fn read(&self, serializable: bool) -> Answered<'_> {
        let outcome = if serializable { Ok(()) } else { self.read.clone() };
        Box::pin(async move { outcome })
    }

    fn moment(&self, readers: Readers) -> Moment {
        let named = TenantFigures { name: "pay".to_owned(), ..TenantFigures::default() };
        Moment {
            policy_revision: 0,
            engine: EngineStats::default(),
            identity: Identity { cluster_id: 1, member_id: 2 },
            alarms: Vec::new(),
            quota_bytes: None,
            readers: Readers::Anybody,
            quotas_reached: [(80, 0), (95, 0), (100, 0)],
            tenants: if readers == Readers::Operators { vec![named] } else { Vec::new() },
        }
    }
}

const FINE: Staged = Staged { alarms: Vec::new(), has_leader: true, read: Ok(()) };

struct Got {
    status: u16,
    headers: http::HeaderMap,
    body: String,
}

async fn ask(condition: &Staged, pages: Pages, method: Method, uri: &str) -> Got {
    let endpoints = Endpoints::new(Arc::new(condition.clone()), Arc::default());
    let response = endpoints.respond(pages, &method, &uri.parse().unwrap()).await;
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Got {
        status: head.status.as_u16(),
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

async fn get(condition: &Staged, uri: &str) -> (u16, String) {
    let got = ask(condition, Pages::All, Method::GET, uri).await;
    (got.status, got.body)
}

/// The texts are those that etcd 3.7.1 answered to the same requests.
#[tokio::test]
async fn a_healthy_server_answers_as_etcd_does() {
    let all =
        "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n";
    for (uri, body) in [
        ("/health", r#"{"health":"true","reason":""}"#),
        ("/health?serializable=true&exclude=NOSPACE", r#"{"health":"true","reason":""}"#),
        ("/livez", "ok\n"),
        ("/livez?verbose", "[+]serializable_read ok\nok\n"),
        ("/livez/serializable_read", "ok\n"),
        ("/livez/serializable_read?verbose", "[+]serializable_read ok\nok\n"),
        ("/readyz", "ok\n"),
        ("/readyz?verbose", all),
        ("/readyz?exclude=nope&verbose", all),
        ("/readyz/data_corruption?verbose", "[+]data_corruption ok\nok\n"),
        (
            "/readyz?exclude=data_corruption&exclude=linearizable_read&verbose=1",
            "[+]serializable_read ok\n[+]non_learner ok\nok\n",
        ),
        ("/version", r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#),
    ] {
        assert_eq!(get(&FINE, uri).await, (200, body.to_owned()), "{uri}");
    }
    for uri in [
        "/",
        "/nope",
        "/health/",
        "/livez/",
        "/livez/nope",
        "/livez/non_learner",
        "/v2/keys",
        "/v3/kv/range",
        "//health",
    ] {
        assert_eq!(get(&FINE, uri).await, (404, "404 page not found\n".to_owned()), "{uri}");
    }
}

#[tokio::test]
async fn a_sick_server_says_why() {
    let corrupt = Staged { alarms: vec![AlarmKind::Corrupt, AlarmKind::NoSpace], ..FINE };
    let leaderless = Staged { has_leader: false, ..FINE };
    let unreadable = Staged { read: Err(Refusal::TimedOut), ..FINE };
    let health = |reason: &str| format!("{{\"health\":\"false\",\"reason\":\"{reason}\"}}\n");
    let damaged = "[-]data_corruption failed: alarm activated: CORRUPT\n";
    for (condition, uri, body) in [
        (&corrupt, "/health", health("ALARM NOSPACE")),
        (&corrupt, "/health?exclude=NOSPACE", health("ALARM CORRUPT")),
        (&leaderless, "/health", health("RAFT NO LEADER")),
        (&unreadable, "/health", health("RANGE ERROR:request timed out")),
        (
            &corrupt,
            "/readyz",
            format!("{damaged}[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\n\n"),
        ),
        (&corrupt, "/readyz/data_corruption?exclude=data_corruption", format!("{damaged}\n")),
        (
            &unreadable,
            "/readyz/linearizable_read",
            "[-]linearizable_read failed: range error: request timed out\n\n".to_owned(),
        ),
    ] {
        assert_eq!(get(condition, uri).await, (503, body), "{uri}");
    }
    for (condition, uri) in [
        (&corrupt, "/health?exclude=NOSPACE&exclude=CORRUPT"),
        (&leaderless, "/health?serializable=true"),
        (&unreadable, "/livez"),
        (&corrupt, "/readyz?exclude=data_corruption"),
    ] {
        assert_eq!(get(condition, uri).await.0, 200, "{uri}");
    }
}

#[tokio::test]
async fn other_methods_are_refused_as_etcd_refuses_them() {
    for uri in ["/health", "/version", "/livez", "/readyz/data_corruption"] {
        for method in [Method::POST, Method::HEAD, Method::DELETE] {
            let got = ask(&FINE, Pages::All, method, uri).await;
            assert_eq!((got.status, got.body.as_str()), (405, "Method Not Allowed\n"), "{uri}");
            assert_eq!(got.headers["allow"], "GET");
        }
    }
    assert_eq!(ask(&FINE, Pages::All, Method::POST, "/metrics").await.status, 200);
}

#[tokio::test]
async fn a_listener_has_its_own_pages_only() {
    for (pages, uri, status) in [
        (Pages::Monitoring, "/metrics", 200),
        (Pages::Monitoring, "/health", 200),
        (Pages::Monitoring, "/version", 404),
        (Pages::None, "/metrics", 404),
        (Pages::Guarded, "/metrics", 403),
        (Pages::Guarded, "/health", 200),
        (Pages::Guarded, "/version", 200),
        (Pages::Guarded, "/livez", 200),
        (Pages::Guarded, "/readyz", 200),
        (Pages::None, "/health", 404),
        (Pages::All, "/metrics", 200),
    ] {
        assert_eq!(ask(&FINE, pages, Method::GET, uri).await.status, status, "{pages:?} {uri}");
    }
    for (pages, names) in [(Pages::All, false), (Pages::Monitoring, true)] {
        let body = ask(&FINE, pages, Method::GET, "/metrics").await.body;
        assert_eq!(body.contains("pay"), names, "{pages:?}");
    }
    let refused = ask(&FINE, Pages::Guarded, Method::GET, "/metrics").await.body;
    assert!(refused.contains("--listen-metrics-urls") && !refused.contains("etcd_"), "{refused}");
    let got = ask(&FINE, Pages::All, Method::GET, "/metrics").await;
    assert!(got.headers["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    assert!(got.body.contains("etcd_server_version{server_version=\"3.7.1\"} 1\n"));
}
