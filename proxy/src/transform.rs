//! Values change form between client and engine: the one way in and the one way out.
//!
//! Until sealing plugins exist, the form is "stored in clear".

use bytes::Bytes;
use keygate_core::{Answer, Event, Permit, Plaintext, Refusal, Reply, Sealed};

/// The way in: every value that the permitted operation carries.
pub fn seal(permit: Permit<Plaintext>) -> Result<Permit<Sealed>, Refusal> {
    permit.try_map_values(&mut |_key, value| Ok(Sealed::stored_in_clear(value)))
}

/// The way out: every value of an answer.
pub fn open(reply: Reply<Sealed>) -> Result<Reply<Plaintext>, Refusal> {
    let Reply { revision, term, answer } = reply;
    Ok(Reply { revision, term, answer: open_answer(answer)? })
}

fn open_answer(answer: Answer<Sealed>) -> Result<Answer<Plaintext>, Refusal> {
    answer.try_map(&mut open_value)
}

/// The way out for watchers.
pub fn open_event(event: Event<Sealed>) -> Result<Event<Plaintext>, Refusal> {
    let Event { deleted, kv, prev } = event;
    Ok(Event {
        deleted,
        kv: kv.try_map(&mut open_value)?,
        prev: prev.map(|kv| kv.try_map(&mut open_value)).transpose()?,
    })
}

fn open_value(_key: &Bytes, value: Sealed) -> Result<Plaintext, Refusal> {
    Ok(value.open_clear())
}
