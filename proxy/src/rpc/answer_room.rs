//! Room for an answer, from before it is put into a message until the last byte of it has left.
//!
//! Small answers are not counted: their number is bounded by that of streams. A connection that holds a quarter of all
//! room gets no more until its client has read some of it, so that one which reads nothing keeps no others out. Mostly
//! it does not come to that: [`super::answers`] lets the next request of such a connection wait.

use std::sync::Arc;

use bytes::Bytes;
use keygate_core::{Answer, Limited, Plaintext, Refusal, Retry};
use keygate_engine::{AnswerRoom, AnswerShare};

use super::answers::Answers;
use crate::identify::ConnectionIdentity;
use crate::limit::Found;

/// From this size on.
const COUNTED: usize = 16 << 10;

/// Parts of the room that one connection may fill.
const PARTS: usize = 4;

/// What an answer holds.
pub(super) struct Held {
    _share: AnswerShare,
    connection: Arc<Answers>,
    bytes: usize,
}

impl Held {
    /// None: the answer is small.
    pub(super) fn take(
        room: &Arc<AnswerRoom>,
        connection: &ConnectionIdentity,
        answer: &Answer<Plaintext>,
    ) -> Result<Option<Self>, Refusal> {
        let bytes = usize::try_from(Found::in_answer(answer).bytes).unwrap_or(usize::MAX);
        if bytes < COUNTED {
            return Ok(None);
        }
        let answers = connection.slot().answers();
        if answers.held() > room.limit() / PARTS {
            return Err(Refusal::Limited(Box::new(Limited {
                rule: "answer-memory",
                subject: "this connection".into(),
                limit: (room.limit() / PARTS) as u64,
                retry: Retry::WhenFreed,
            })));
        }
        let share = room.share();
        share.grow(bytes)?;
        answers.add(bytes);
        Ok(Some(Self { _share: share, connection: answers.clone(), bytes }))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.connection.remove(self.bytes);
    }
}

/// A message that holds its room for as long as anybody has some of its bytes.
pub(super) fn holding(message: Bytes, held: Option<Held>) -> Bytes {
    match held {
        None => message,
        Some(held) => Bytes::from_owner(Owned { message, _held: held }),
    }
}

struct Owned {
    message: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.message
    }
}
