//! gRPC calls as their callers see them: kinds, statuses, arrivals, and messages inside a byte stream.

use anyhow::{Context, Result, ensure};
use std::fmt;

/// gRPC puts one flag byte and four length bytes in front of each message.
pub(crate) const MESSAGE_PREFIX: usize = 5;
pub(crate) const GRPC_UNKNOWN: i32 = 2;
pub(crate) const GRPC_UNAVAILABLE: i32 = 14;

/// Whether a call sends one message and gets one, or stays open for many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum CallKind {
    Unary,
    Stream,
}

/// How a call ended, in gRPC's terms.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Status {
    pub(crate) code: i32,
    pub(crate) message: String,
}

impl Status {
    pub(crate) fn is_ok(&self) -> bool {
        self.code == 0
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}: {}", self.code, self.message)
    }
}

impl std::error::Error for Status {}

/// Something the server sent to one of our calls.
pub(crate) enum Arrival<'a> {
    /// A unary call ended. `body` is its message, empty unless the status is ok.
    Answer { slot: usize, status: Status, body: &'a [u8] },
    /// One message of a stream.
    Message { slot: usize, body: &'a [u8] },
    /// A stream ended, which no workload expects while it runs.
    Ended { status: Status },
}

/// The first whole message of `bytes`, without its prefix; `None` while it is incomplete.
pub(crate) fn next_message(bytes: &[u8]) -> Result<Option<&[u8]>> {
    let Some([compressed, length @ ..]) = bytes.first_chunk::<MESSAGE_PREFIX>() else { return Ok(None) };
    ensure!(*compressed == 0, "a compressed message, which we did not offer to accept");
    let length = u32::from_be_bytes(*length) as usize;
    Ok(bytes.get(MESSAGE_PREFIX..MESSAGE_PREFIX + length))
}

/// The message of a unary answer.
pub(crate) fn only_message(bytes: &[u8]) -> Result<&[u8]> {
    let message = next_message(bytes)?.context("the answer ends inside its message")?;
    ensure!(message.len() + MESSAGE_PREFIX == bytes.len(), "more than one message in a unary answer");
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_at_their_length_and_waited_for() {
        let bytes = [0, 0, 0, 0, 2, b'h', b'i', 0, 0, 0];
        assert_eq!(next_message(&bytes).unwrap(), Some(b"hi".as_slice()));
        assert_eq!(next_message(&bytes[..6]).unwrap(), None);
        assert_eq!(next_message(&bytes[7..]).unwrap(), None);
        assert!(next_message(&[1, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn a_unary_answer_holds_exactly_one_message() {
        assert_eq!(only_message(&[0, 0, 0, 0, 1, 9]).unwrap(), [9]);
        assert!(only_message(&[]).is_err());
        assert!(only_message(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }
}
