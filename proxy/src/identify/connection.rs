//! What is known of a connection for as long as it lasts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keygate_core::{ConnectionKind, Origin};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::issuers::Verified;
use super::jwt::Claims;
use super::rules::Named;
use super::simple_token::Entry;
use crate::limit::Slot;
use crate::rpc::{ConnectionRoom, MessageRoom};

/// Told once, when the other side has shown who it is, so that its place among the strangers
/// becomes free. Cheap to call again.
pub trait Proof: Send + Sync {
    fn given(&self);

    /// Nothing was shown yet, and more requests are open than such a connection may have.
    fn is_crowded(&self) -> bool {
        false
    }
}

/// Why a certificate that held does not any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lapse {
    Revoked,
    /// Of an authority that is not trusted any more, or not at this host.
    Untrusted,
    Expired,
    /// It holds, and means somebody else now.
    Changed,
}

/// What a client's certificate came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Shown {
    Nothing,
    /// A certificate that is good and names nobody.
    Nameless,
    /// Rules were asked whom it names, and none gave an answer.
    Rejected,
    Name(Named),
}

/// Made once for each connection.
pub struct ConnectionIdentity {
    peer: SocketAddr,
    tls: bool,
    /// As the client named us in its TLS handshake, in lowercase.
    server_name: Option<Arc<str>>,
    certificate: Shown,
    proof: Box<dyn Proof>,
    room: Arc<ConnectionRoom>,
    slot: Slot,
    /// A connection nearly always shows the same token; looking it up once is enough.
    last_token: Mutex<Option<LastToken>>,
    standing: Standing,
}

/// Whether the certificate that the connection began with still holds.
struct Standing {
    /// The same as `lapse`, for those who look at each request.
    is_over: AtomicBool,
    lapse: watch::Sender<Option<Lapse>>,
}

struct LastToken {
    text: zeroize::Zeroizing<String>,
    meaning: Remembered,
}

/// What a token was found to mean. Its validity is asked again at each use.
#[derive(Clone)]
pub(super) enum Remembered {
    Simple(Arc<Entry>),
    Jwt(Arc<Claims>),
    Issued(Arc<Verified>),
}

impl ConnectionIdentity {
    pub fn new(
        peer: SocketAddr,
        tls: bool,
        server_name: Option<&str>,
        certificate: Shown,
        proof: Box<dyn Proof>,
    ) -> Self {
        let room = MessageRoom::new(usize::MAX).connection();
        let server_name = server_name.map(|name| name.to_ascii_lowercase().into());
        let standing = Standing { is_over: AtomicBool::new(false), lapse: watch::Sender::new(None) };
        let (slot, last_token) = (Slot::default(), Mutex::new(None));
        Self { peer, tls, server_name, certificate, proof, room, slot, last_token, standing }
    }

    /// Nothing that is asked from now on is answered, and streams end.
    pub fn end(&self, lapse: Lapse) {
        self.standing.is_over.store(true, Ordering::Release);
        self.standing.lapse.send_replace(Some(lapse));
    }

    pub fn is_over(&self) -> bool {
        self.standing.is_over.load(Ordering::Acquire)
    }

    /// Completes when the connection is over.
    pub async fn lapse(&self) -> Lapse {
        let mut told = self.standing.lapse.subscribe();
        let lapse = told.wait_for(Option::is_some).await.ok().and_then(|lapse| *lapse);
        match lapse {
            Some(lapse) => lapse,
            // The sender lives as long as we do.
            None => std::future::pending().await,
        }
    }

    /// Shares the room for unfinished messages with other connections.
    pub fn with_room(self, room: Arc<ConnectionRoom>) -> Self {
        Self { room, ..self }
    }

    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// What a policy can ask about where requests on this connection come from.
    pub fn origin(&self) -> Origin {
        let connection = match (self.tls, &self.certificate) {
            (false, _) => ConnectionKind::Plain,
            (true, Shown::Nothing) => ConnectionKind::Tls,
            (true, Shown::Nameless | Shown::Rejected | Shown::Name(_)) => ConnectionKind::Mtls,
        };
        Origin { source: Some(self.peer.ip().to_canonical()), connection: Some(connection) }
    }

    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    pub fn shown(&self) -> &Shown {
        &self.certificate
    }

    pub fn certificate(&self) -> Option<&Named> {
        match &self.certificate {
            Shown::Name(named) => Some(named),
            Shown::Nothing | Shown::Nameless | Shown::Rejected => None,
        }
    }

    pub fn proof(&self) -> &dyn Proof {
        self.proof.as_ref()
    }

    pub fn room(&self) -> &Arc<ConnectionRoom> {
        &self.room
    }

    /// Whose it is to limits.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    pub(super) fn recall(&self, token: &str) -> Option<Remembered> {
        let last = self.last_token.lock();
        last.as_ref().filter(|last| last.text.as_str() == token).map(|last| last.meaning.clone())
    }

    pub(super) fn remember(&self, token: &str, meaning: Remembered) {
        let text = zeroize::Zeroizing::new(token.to_owned());
        *self.last_token.lock() = Some(LastToken { text, meaning });
    }
}

impl std::fmt::Debug for ConnectionIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionIdentity")
            .field("peer", &self.peer)
            .field("tls", &self.tls)
            .field("server_name", &self.server_name)
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}
