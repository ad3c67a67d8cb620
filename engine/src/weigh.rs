//! What a txn that writes may cost everybody else.
//!
//! It runs on the one thread that applies the log, between all other writes. So it is looked at before it is
//! proposed, when it can still be refused without members disagreeing about it.

use crate::mvcc::{MemoryOnly, ReadError};
use crate::port::Port;
use crate::read::INLINE_ENTRIES;
use crate::readers::Purpose;
use keygate_core::{Operation, Permit, Refusal, Sealed};

/// Entries of the index that one txn may walk over in any case: some 50 ms of everybody's time.
const ENTRIES: usize = 1_000_000;
/// And as often may it walk over the whole keyspace, however large that is: a txn that looks at everything, deletes
/// everything and reads everything is not absurd.
const WHOLE_WALKS: usize = 4;

fn allowance(entry_count: usize) -> usize {
    entry_count.saturating_mul(WHOLE_WALKS).max(ENTRIES)
}

/// Is it certain at a glance that it does not walk far?
pub(crate) fn is_short(port: &Port, permit: &Permit<Sealed>) -> Result<bool, Refusal> {
    let Operation::Txn(txn) = permit.operation() else { return Ok(true) };
    let view = port.view();
    let keyspace = view.keyspace(permit.keyspace()).ok_or(Refusal::PermissionDenied)?;
    let is_short = keyspace.txn_walks_within(txn, INLINE_ENTRIES, &MemoryOnly);
    is_short.map_err(|error| port.explain(error))
}

/// Refuses a txn that would walk absurdly far. Every other permit comes back as it is.
pub(crate) async fn admit(port: &Port, permit: Permit<Sealed>) -> Result<Permit<Sealed>, Refusal> {
    let (view, id) = (port.view(), permit.keyspace());
    let weighed = port.read_store(Purpose::Answer, move |rows| {
        let keyspace = view.keyspace(id).ok_or(ReadError::Refused(Refusal::PermissionDenied))?;
        let Operation::Txn(txn) = permit.operation() else { return Ok(permit) };
        if keyspace.txn_walks_within(txn, allowance(keyspace.entry_count()), rows)? {
            Ok(permit)
        } else {
            Err(ReadError::Refused(Refusal::TooManyOperations))
        }
    });
    weighed.await.map_err(|error| port.explain(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_keyspace_may_be_walked_often_and_any_keyspace_a_few_times() {
        assert_eq!(allowance(0), 1_000_000);
        assert_eq!(allowance(100_000), 1_000_000);
        assert_eq!(allowance(10_000_000), 40_000_000);
        assert_eq!(allowance(usize::MAX), usize::MAX);
    }
}
