//! Tells another server when a quota crosses a threshold: `--quota-webhook-url`.
//!
//! What it never does: delay a request, take more than a bounded queue, follow a redirect, or fill the log. While the
//! receiver does not take what is sent, it is asked again with growing pauses; a document that could not be delivered
//! within its time is dropped and counted. Documents go out one after the other, in the order of what they tell, and of
//! those that wait each quota has only its newest.
//!
//! The URL may hold a secret, as those of chat services do: nothing here repeats more of it than host and port.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use aws_lc_rs::hmac;
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Uri};
use keygate_core::{DEFAULT_TENANT, TenantName};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing_subscriber::fmt::{
    format::Writer,
    time::{FormatTime as _, SystemTime},
};
use zeroize::Zeroizing;

use crate::outbound::{Bounds, Message, Plain, Server, exchange};
use crate::quota_watch::Crossing;
use waiting::{Document, Others, Place, Waiting};

mod waiting;

/// Of the receiver's answer, which nobody reads.
const ANSWER: usize = 64 << 10;
/// Over the body, in hexadecimal: `sha256=…`.
const SIGNATURE: &str = "x-keygate-signature";

/// Where documents go.
#[derive(Clone, PartialEq, Eq)]
pub struct Receiver {
    pub url: Uri,
    /// Who must have signed its certificate; None: an authority that the system trusts.
    pub ca: Option<PathBuf>,
    /// Its key signs each document. Read for each, so that it can be changed.
    pub secret: Option<PathBuf>,
}

/// When it is tried again.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// For one attempt.
    pub patience: Duration,
    /// After the first failure; twice as long after each further one.
    pub first_pause: Duration,
    pub longest_pause: Duration,
    /// From what a document tells of to when it is dropped.
    pub lifetime: Duration,
}

/// A receiver that is restarted is back within a minute; news of ten minutes ago are on the metrics page.
pub const USUAL: Timing = Timing {
    patience: Duration::from_secs(10),
    first_pause: Duration::from_secs(1),
    longest_pause: Duration::from_secs(30),
    lifetime: Duration::from_secs(600),
};

/// For metrics.
#[derive(Debug, Default)]
pub struct Counts {
    pub delivered: AtomicU64,
    /// Attempts.
    pub failures: AtomicU64,
    /// Documents that will not be delivered.
    pub dropped: AtomicU64,
}

/// Dropping it ends the sending.
pub struct Webhook {
    member: String,
    queue: Arc<Queue>,
    task: JoinHandle<()>,
}

struct Queue {
    waiting: Mutex<Waiting>,
    more: Notify,
    counts: Arc<Counts>,
}

/// Why a document was not taken, for the log.
struct NotTaken {
    why: String,
    /// The receiver has looked at it and does not want it.
    for_good: bool,
}

impl Receiver {
    /// Host and port: a path or query may be a secret.
    fn shown(&self) -> &str {
        self.url.authority().map_or("", |authority| authority.as_str())
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url: _, ca, secret } = self;
        f.debug_struct("Receiver")
            .field("url", &self.shown())
            .field("ca", ca)
            .field("secret", secret)
            .finish()
    }
}

impl Webhook {
    /// On the runtime of whoever calls.
    pub fn start(receiver: Receiver, member: u64, timing: Timing, counts: Arc<Counts>) -> Self {
        let queue = Arc::new(Queue { waiting: Mutex::default(), more: Notify::new(), counts });
        let task = tokio::spawn(send(receiver, timing, queue.clone()));
        Self { member: format!("{member:x}"), queue, task }
    }

    /// Returns at once.
    pub fn tell(&self, crossings: &[Crossing]) {
        if crossings.is_empty() {
            return;
        }
        let mut time = String::new();
        // Writing to a string cannot fail.
        let _infallible = SystemTime.format_time(&mut Writer::new(&mut time));
        let since = Instant::now();
        let mut waiting = self.queue.waiting.lock();
        for crossing in crossings {
            let document = Document { since, body: document(crossing, &self.member, &time) };
            match waiting.push(Place::from(crossing), document) {
                Others::Stay => {}
                Others::OneLeft => drop(self.queue.counts.dropped.fetch_add(1, Relaxed)),
            }
        }
        drop(waiting);
        self.queue.more.notify_one();
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn document(crossing: &Crossing, member: &str, time: &str) -> Bytes {
    let Crossing { tenant, prefix, kind, used, limit, threshold } = crossing;
    let document = json!({
        "state": if threshold.is_some() { "crossed" } else { "cleared" },
        "tenant": tenant.as_ref().map_or(DEFAULT_TENANT, TenantName::as_str),
        "prefix": prefix.escape_ascii().to_string(),
        "kind": kind.as_str(),
        "threshold": threshold,
        "used": used,
        "limit": limit,
        "time": time,
        "member": member,
    });
    document.to_string().into()
}

async fn send(receiver: Receiver, timing: Timing, queue: Arc<Queue>) {
    let counts = &queue.counts;
    let to = receiver.shown().to_owned();
    let (mut pause, mut is_failing) = (timing.first_pause, false);
    loop {
        let Some(Document { since, body }) = queue.waiting.lock().pop() else {
            queue.more.notified().await;
            continue;
        };
        // It is out of the queue, so that no newcomer pushes it out while it is on its way.
        loop {
            if since.elapsed() >= timing.lifetime {
                counts.dropped.fetch_add(1, Relaxed);
                break;
            }
            match post(&receiver, timing.patience, body.clone()).await {
                Ok(()) => {
                    counts.delivered.fetch_add(1, Relaxed);
                    pause = timing.first_pause;
                    if std::mem::take(&mut is_failing) {
                        tracing::info!(to, "the receiver of quota webhooks takes them again");
                    }
                    break;
                }
                Err(NotTaken { why, for_good }) => {
                    counts.failures.fetch_add(1, Relaxed);
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::warn!(
                            to,
                            why,
                            "a quota webhook is not taken: trying again, without further lines until it is"
                        );
                    }
                    if for_good {
                        counts.dropped.fetch_add(1, Relaxed);
                        break;
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(timing.longest_pause);
                }
            }
        }
    }
}

async fn post(receiver: &Receiver, patience: Duration, body: Bytes) -> Result<(), NotTaken> {
    let failed = |why: String| NotTaken { why, for_good: false };
    let agent = concat!("keygate/", env!("CARGO_PKG_VERSION"));
    let mut headers = vec![
        ("content-type", HeaderValue::from_static("application/json")),
        ("user-agent", HeaderValue::from_static(agent)),
    ];
    if let Some(path) = &receiver.secret {
        // Never unsigned where a signature was asked for.
        let secret = secret(path).map_err(failed)?;
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), &body);
        let tag: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let value =
            HeaderValue::try_from(format!("sha256={tag}")).map_err(|error| failed(error.to_string()))?;
        headers.push((SIGNATURE, value));
    }
    let server = Server { url: &receiver.url, ca: receiver.ca.as_deref(), plain: Plain::ToThisMachine };
    let message = Message { method: Method::POST, headers, body };
    let bounds = Bounds { time: patience, bytes: ANSWER };
    let (status, _) = exchange(server, message, bounds).await.map_err(failed)?;
    if status.is_success() {
        return Ok(());
    }
    let why = match status.is_redirection() {
        true => format!("the answer is {status}, and redirects are not followed"),
        false => format!("the answer is {status}"),
    };
    let may_change = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    let for_good = status.is_redirection() || (status.is_client_error() && !may_change.contains(&status));
    Err(NotTaken { why, for_good })
}

/// What signs: a file that is its owner's alone, without white space around it.
pub(crate) fn secret(path: &std::path::Path) -> Result<Zeroizing<String>, String> {
    let text = crate::pki::read_secret(path).map_err(|error| error.to_string())?;
    match text.trim() {
        "" => Err(format!("`{}` holds no secret", path.display())),
        secret => Ok(Zeroizing::new(secret.to_owned())),
    }
}

/// A URL that documents may go to.
///
/// # Errors
/// What an operator reads: why it may not, and what would do. Nothing of the URL is in it: what has a mistake in one place
/// may have its secret in any other.
pub fn usable_url(text: &str) -> Result<Uri, String> {
    const WANTED: &str = "wanted is https://host[:port]/path, or http:// to this machine";
    let url: Uri = text.parse().map_err(|_| format!("this is no URL; {WANTED}"))?;
    let (Some(host), Some(authority)) = (url.host(), url.authority()) else {
        return Err(format!("this URL names no host; {WANTED}"));
    };
    if authority.as_str().contains('@') {
        return Err("a URL with a password would be in logs and lists of processes; sign by `quota-webhook-secret-file`".to_owned());
    }
    // Whatever stands behind the colon is a port to the parser, and no number would silently mean 443.
    if authority.port_u16().is_none() && authority.as_str() != host {
        return Err(format!("the port of this URL is none; {WANTED}"));
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_here = bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match url.scheme_str() {
        Some("https") => Ok(url),
        Some("http") if is_here => Ok(url),
        Some("http") => Err(format!("the host of this http URL is not this machine; {WANTED}")),
        _ => Err(format!("this URL is neither https nor http; {WANTED}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_leaves_this_machine() {
        for good in [
            "https://hooks.example.com/x?y=z",
            "http://127.0.0.1:80/",
            "http://localhost",
            "http://[::1]:9/x",
        ] {
            assert!(usable_url(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("http://hooks.example.com/hunter2", "not this machine"),
            ("http://127.0.0.1.example.com/", "not this machine"),
            ("http://10.0.0.1/?key=hunter2", "not this machine"),
            ("http://hunter2/", "not this machine"),
            ("ftp://x/hunter2", "neither"),
            ("https:///hunter2", "no URL"),
            ("https://x/hunter2 ", "no URL"),
            ("https://x:hunter2/", "port"),
            ("https://x:65536/", "port"),
            ("/hunter2", "names no host"),
            ("https://me:hunter2@x/", "password"),
            ("ftp://me:hunter2@x/", "password"),
            ("https://me:hunter2@x y/", "no URL"),
            ("", "no URL"),
        ] {
            let said = usable_url(bad).unwrap_err();
            assert!(said.contains(why) && !said.contains("hunter2"), "{bad}: {said}");
        }
    }

    #[test]
    fn a_receiver_is_shown_by_its_host_alone() {
        let url = usable_url("https://hooks.example.com:8443/services/hunter2?key=hunter2").unwrap();
        let shown = format!("{:?}", Receiver { url, ca: None, secret: None });
        assert!(shown.contains("hooks.example.com:8443") && !shown.contains("hunter2"), "{shown}");
    }
}
