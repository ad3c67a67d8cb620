//! The headers of an open request. Those of a common one are small; larger ones take of the room that their connection
//! has, for as long as the request is open.

use std::ops::Deref;
use std::sync::Arc;

use http::HeaderMap;

use super::room::{ConnectionRoom, Full, Held};

/// A token and all that clients send besides fit, but for long JWTs.
const COMMON: usize = 2 << 10;

/// HTTP/2 keeps the buffers that they were read into: three and a half times what they are, measured in a debug build.
/// The rest is for what else such a request holds.
const PINNED: usize = 6;

pub(super) struct Metadata {
    headers: HeaderMap,
    _held: Option<Held>,
}

impl Metadata {
    pub(super) fn new(headers: HeaderMap, room: &Arc<ConnectionRoom>) -> Result<Self, Full> {
        let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        let mut held = None;
        if size > COMMON {
            held.insert(Held::none(room.clone())).resize(size * PINNED)?;
        }
        Ok(Self { headers, _held: held })
    }
}

impl Deref for Metadata {
    type Target = HeaderMap;

    fn deref(&self) -> &HeaderMap {
        &self.headers
    }
}
