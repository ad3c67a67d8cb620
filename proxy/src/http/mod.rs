//! The pages of the client port that are not gRPC: health, version, metrics, as etcd has them.
//! Served over HTTP/1.1 and HTTP/2, without a login; they name no user or key, and tenants only on the operator's own
//! listeners (`--listen-metrics-urls`). What all tenants do together is no tenant's business either: where they may come,
//! `/metrics` is for whom a certificate names in the platform's own keyspace.
//!
//! Request bodies are never read. There are no CORS headers: no page here is for browsers.

mod health;
mod probe;
mod query;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Response, StatusCode, Uri};
use http_body_util::Full;

use crate::cli::{ETCD_CLUSTER_VERSION, ETCD_VERSION};
use crate::identify::Shown;
use crate::identify::rules::TenantOf;
use crate::metrics::{Check, Metrics, PAGE_TYPE, Probe};
use query::Query;

pub use probe::{Answered, Condition, EngineCondition, Readers};

/// Which pages a listener has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pages {
    All,
    /// The same, but `/metrics` only for who has shown a certificate of the platform.
    Guarded,
    /// `/metrics`, `/health`, `/livez` and `/readyz`: etcd's `--listen-metrics-urls`.
    Monitoring,
    /// The client port while `--listen-client-http-urls` takes its pages away.
    None,
}

impl Pages {
    /// Those that this client is shown.
    pub fn shown_to(self, client: &Shown) -> Self {
        match (self, client) {
            (Self::Guarded, Shown::Name(named)) if named.tenant == TenantOf::Default => Self::All,
            (pages, _) => pages,
        }
    }
}

/// Answers requests. Cheap to clone.
#[derive(Clone)]
pub struct Endpoints {
    condition: Arc<dyn Condition>,
    metrics: Arc<Metrics>,
}

impl Endpoints {
    pub fn new(condition: Arc<dyn Condition>, metrics: Arc<Metrics>) -> Self {
        Self { condition, metrics }
    }

    pub async fn respond(&self, pages: Pages, method: &Method, uri: &Uri) -> Response<Full<Bytes>> {
        let path = uri.path();
        match (pages, path) {
            (Pages::None, _) => return not_found(),
            (Pages::Monitoring, "/version") => return not_found(),
            (Pages::Guarded, "/metrics") => return failure(StatusCode::FORBIDDEN, METRICS_ARE_ELSEWHERE),
            (Pages::All | Pages::Guarded | Pages::Monitoring, _) => {}
        }
        if path == "/metrics" {
            let readers = match pages {
                Pages::Monitoring => Readers::Operators,
                Pages::All | Pages::Guarded | Pages::None => Readers::Anybody,
            };
            return page(StatusCode::OK, PAGE_TYPE, self.metrics.render(&self.condition.moment(readers)));
        }
        let known = match path {
            "/version" => Known::Version,
            "/health" => Known::Health,
            "/livez" => Known::Probe { probe: Probe::Livez, only: None },
            "/readyz" => Known::Probe { probe: Probe::Readyz, only: None },
            _ => match sub_check(path) {
                Some((probe, check)) => Known::Probe { probe, only: Some(check) },
                None => return not_found(),
            },
        };
        if method != Method::GET {
            let mut response = failure(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            return response;
        }
        let query = Query::of(uri);
        match known {
            Known::Version => version(),
            Known::Health => health::respond(self.condition.as_ref(), &self.metrics.health, &query).await,
            Known::Probe { probe, only } => {
                let asked = health::Asked { probe, only };
                health::respond_to_probe(self.condition.as_ref(), &self.metrics.health, asked, &query).await
            }
        }
    }
}

const METRICS_ARE_ELSEWHERE: &str = "403 /metrics is served on the addresses of --listen-metrics-urls, and here only to a client certificate of the platform";

enum Known {
    Version,
    Health,
    Probe { probe: Probe, only: Option<Check> },
}

fn sub_check(path: &str) -> Option<(Probe, Check)> {
    [Probe::Livez, Probe::Readyz].into_iter().find_map(|probe| {
        let name = path.strip_prefix('/')?.strip_prefix(probe.name())?.strip_prefix('/')?;
        let check = probe.checks().iter().find(|check| check.name() == name)?;
        Some((probe, *check))
    })
}

fn version() -> Response<Full<Bytes>> {
    let body = format!(
        r#"{{"etcdserver":"{ETCD_VERSION}","etcdcluster":"{ETCD_CLUSTER_VERSION}","storage":"{ETCD_CLUSTER_VERSION}"}}"#
    );
    page(StatusCode::OK, "application/json", body)
}

fn page(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = page(status, "text/plain; charset=utf-8", body);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Go's `http.Error` ends every text with a line feed.
fn failure(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    plain(status, format!("{text}\n"))
}

fn not_found() -> Response<Full<Bytes>> {
    failure(StatusCode::NOT_FOUND, "404 page not found")
}

#[cfg(test)]
mod tests;
