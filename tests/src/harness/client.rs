//! The generated clients on one connection, with a token when there is one.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use keygate_proto::admin::{policies_client::PoliciesClient, tenants_client::TenantsClient};
use keygate_proto::etcdserverpb::{
    AuthenticateRequest, auth_client::AuthClient, cluster_client::ClusterClient, kv_client::KvClient,
    lease_client::LeaseClient, maintenance_client::MaintenanceClient, watch_client::WatchClient,
};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Identity},
};

use super::server::Endpoint;

/// A connection that adds its token to each call.
pub type Wire = InterceptedService<Channel, Bearer>;

/// One caller on one connection. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    bearer: Bearer,
}

/// What a client says of itself in the TLS handshake.
enum Shows<'a> {
    Nothing,
    /// The endpoint's root certificate.
    Certificate,
    /// The name of the host that it wants.
    Host(&'a str),
}

/// Adds `token` to a call's metadata, as etcd's own clients do.
#[derive(Clone, Default)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Client {
    /// Connects without a client certificate.
    pub async fn connect(endpoint: &Endpoint) -> Result<Client> {
        Client::dial(endpoint, Shows::Nothing).await
    }

    /// Connects and asks for `host` in the TLS handshake.
    pub async fn connect_to_host(endpoint: &Endpoint, host: &str) -> Result<Client> {
        Client::dial(endpoint, Shows::Host(host)).await
    }

    /// Connects with the endpoint's root certificate.
    pub async fn connect_with_certificate(endpoint: &Endpoint) -> Result<Client> {
        Client::dial(endpoint, Shows::Certificate).await
    }

    async fn dial(endpoint: &Endpoint, shows: Shows<'_>) -> Result<Client> {
        let mut target = Channel::from_shared(endpoint.url.clone())?
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true);
        if let Some(files) = &endpoint.tls {
            let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(fs::read(&files.ca)?));
            match shows {
                Shows::Nothing => {}
                Shows::Certificate => {
                    let (certificate, key) = (fs::read(&files.certificate)?, fs::read(&files.key)?);
                    tls = tls.identity(Identity::from_pem(certificate, key));
                }
                Shows::Host(host) => tls = tls.domain_name(host),
            }
            target = target.tls_config(tls)?;
        }
        let channel = target.connect().await.with_context(|| format!("connect to {}", endpoint.url))?;
        Ok(Client { channel, bearer: Bearer::default() })
    }

    /// The same connection, as `user`.
    pub async fn login(&self, user: &str, password: &str) -> Result<Client, Status> {
        let request = AuthenticateRequest { name: user.to_owned(), password: password.to_owned() };
        let answer = AuthClient::new(self.channel.clone()).authenticate(request).await?.into_inner();
        Ok(self.with_token(Some(&answer.token)))
    }

    /// The same connection with another token, or with none.
    pub fn with_token(&self, token: Option<&str>) -> Client {
        let value = token.map(|token| MetadataValue::try_from(token).expect("tokens are ASCII"));
        Client { channel: self.channel.clone(), bearer: Bearer(value) }
    }

    fn wire(&self) -> Wire {
        InterceptedService::new(self.channel.clone(), self.bearer.clone())
    }

    pub fn kv(&self) -> KvClient<Wire> {
        KvClient::new(self.wire()).max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX)
    }

    pub fn watch(&self) -> WatchClient<Wire> {
        WatchClient::new(self.wire()).max_decoding_message_size(usize::MAX)
    }

    pub fn lease(&self) -> LeaseClient<Wire> {
        LeaseClient::new(self.wire()).max_decoding_message_size(usize::MAX)
    }

    pub fn auth(&self) -> AuthClient<Wire> {
        AuthClient::new(self.wire())
    }

    pub fn cluster(&self) -> ClusterClient<Wire> {
        ClusterClient::new(self.wire())
    }

    pub fn tenants(&self) -> TenantsClient<Wire> {
        TenantsClient::new(self.wire())
    }

    pub fn policies(&self) -> PoliciesClient<Wire> {
        PoliciesClient::new(self.wire())
    }

    pub fn maintenance(&self) -> MaintenanceClient<Wire> {
        MaintenanceClient::new(self.wire())
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}
