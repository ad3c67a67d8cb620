//! One document over HTTPS: no redirects, no plain HTTP, bounded in size and time.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Uri};

use crate::outbound::{Bounds, Message, Plain, Server, exchange};

/// A set of a hundred keys is a tenth of it.
const BOUNDS: Bounds = Bounds { time: Duration::from_secs(10), bytes: 1 << 20 };

/// The document at `url`. The error is for the log.
pub(super) async fn fetch(url: &Uri, ca: Option<&Path>) -> Result<Bytes, String> {
    let headers = vec![("accept", HeaderValue::from_static("application/json"))];
    let get = Message { method: Method::GET, headers, body: Bytes::new() };
    let (status, document) = exchange(Server { url, ca, plain: Plain::Never }, get, BOUNDS).await?;
    if status != StatusCode::OK {
        return Err(format!("the answer is {status}, not 200 OK"));
    }
    Ok(document)
}
