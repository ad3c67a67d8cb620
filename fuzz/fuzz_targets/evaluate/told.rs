//! What watchers must be told, from what each revision left behind and from nothing else.

use bytes::Bytes;
use keygate_core::{KeyValue, Sealed};
use std::collections::BTreeSet;

use crate::model::Model;

/// What a watcher must be told of a change.
#[derive(PartialEq, Debug)]
pub struct Told {
    pub revision: i64,
    pub key: Bytes,
    /// None: deleted.
    pub now: Option<KeyValue<Sealed>>,
    /// The revision of the version before.
    pub before: Option<i64>,
}

/// Every change from `from` on, by revision and key: what differs from each revision's keys to the next's. A put always
/// makes a new version, so what is equal was not touched.
pub fn told(model: &Model, from: i64) -> Vec<Told> {
    let mut told = Vec::new();
    for revision in from.max(2)..=model.revision() {
        let (before, now) = (&model.history[revision as usize - 2], &model.history[revision as usize - 1]);
        let keys: BTreeSet<&Vec<u8>> = before.keys().chain(now.keys()).collect();
        for key in keys {
            if before.get(key) != now.get(key) {
                told.push(Told {
                    revision,
                    key: Bytes::copy_from_slice(key),
                    now: now.get(key).cloned(),
                    before: before.get(key).map(|kv| kv.mod_revision),
                });
            }
        }
    }
    told
}
