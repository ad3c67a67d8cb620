//! What a connection's requests are given to: gRPC to the RPC stages, the rest to the pages.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use tokio::sync::watch;
use tonic::body::Body;

use super::listener::Endpoint;
use super::until_end::UntilEnd;
use super::worker::Drain;
use crate::http::Endpoints;
use crate::identify::{ConnectionIdentity, Shown};
use crate::rpc::{GrpcService, methods};

pub type Served = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// One for each serving thread.
pub trait Handler: Send + Sync {
    fn serve(
        &self,
        endpoint: &Arc<Endpoint>,
        connection: &Arc<ConnectionIdentity>,
        request: Request<Incoming>,
    ) -> Served;

    /// The tenant that a host name, in lowercase, leads to.
    fn tenant_of_host(&self, _host: &str) -> Option<Arc<str>> {
        None
    }
}

/// The real one.
pub struct Stages {
    pub grpc: GrpcService,
    pub pages: Endpoints,
    /// Ends streams that would never end by themselves.
    pub draining: watch::Receiver<Drain>,
}

impl Handler for Stages {
    fn tenant_of_host(&self, host: &str) -> Option<Arc<str>> {
        self.grpc.tenant_of_host(host)
    }

    fn serve(
        &self,
        endpoint: &Arc<Endpoint>,
        connection: &Arc<ConnectionIdentity>,
        request: Request<Incoming>,
    ) -> Served {
        if endpoint.grpc && is_grpc(&request) {
            let (grpc, connection) = (self.grpc.clone(), connection.clone());
            if !methods::is_endless(request.uri().path()) {
                return Box::pin(grpc.call(connection, request));
            }
            let draining = self.draining.clone();
            let token = grpc.end_of_token(request.headers());
            return Box::pin(async move {
                let response = grpc.call(connection.clone(), request).await;
                response.map(|body| Body::new(UntilEnd::new(body, draining, connection, token)))
            });
        }
        if connection.proof().is_crowded() {
            let mut refusal = Response::new(Body::empty());
            *refusal.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            return Box::pin(std::future::ready(refusal));
        }
        if connection.is_over() || *connection.shown() == Shown::Rejected {
            let mut refusal = Response::new(Body::empty());
            *refusal.status_mut() = StatusCode::FORBIDDEN;
            return Box::pin(std::future::ready(refusal));
        }
        // At a tenant's host the platform's own are nobody too.
        let is_tenants = connection.server_name().is_some_and(|host| self.tenant_of_host(host).is_some());
        let which = if is_tenants { endpoint.pages } else { endpoint.pages.shown_to(connection.shown()) };
        let pages = self.pages.clone();
        Box::pin(async move {
            let response = pages.respond(which, request.method(), request.uri()).await;
            response.map(Body::new)
        })
    }
}

/// As etcd tells them apart.
pub(super) fn is_grpc<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE).map(|value| value.as_bytes());
    request.version() == Version::HTTP_2 && kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}
