//! Arbitrary bytes as the request of every RPC, as a command of the log and as a row of the store.
//!
//! Nothing panics. What decodes answers all questions about itself, and what is written of it reads back equal.
#![no_main]

use bytes::Bytes;
use keygate::rpc::decode::{Rejection, decode};
use keygate::rpc::methods;
use keygate_core::{Credential, Limits, Operation, Plaintext, Sealed, TenantCreate, Txn, TxnOp, UserAdd};
use keygate_engine::mvcc::{Command, Row, StoredValue};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { txn_operations: 128, txn_depth: 32 };
const TXN: &str = "/etcdserverpb.KV/Txn";

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    for path in methods::paths() {
        match decode(path, bytes.clone(), &LIMITS) {
            None => {}
            Some(Err(rejection)) => refused(&rejection),
            Some(Ok(operation)) => accepted(path, operation),
        }
    }
    nested(data);
    command(data);
    row(bytes);
});

fn refused(rejection: &Rejection) {
    let status = rejection.status();
    assert!(!status.message().is_empty(), "{rejection:?} has no text");
    assert_ne!(status.code() as i32, 0, "{rejection:?} is OK");
}

fn accepted(path: &str, operation: Operation<Plaintext>) {
    // Both RPCs of the health service are one operation.
    let health = matches!(operation, Operation::Health);
    assert!(health || path.trim_start_matches('/') == operation.method(), "{path}: {operation:?}");
    let checked = operation.check(&LIMITS);
    let mut accesses = 0;
    operation.accesses(&mut |access| {
        accesses += format!("{access:?}").len();
    });
    assert!(accesses > 0, "{operation:?} touches nothing that a policy could decide about");
    let summary = operation.summary();
    assert_eq!((summary.method, summary.cost), (operation.method(), operation.cost()));
    let _ = format!("{operation:?} {summary:?}");
    if let Operation::Txn(txn) = &operation {
        assert!(depth(txn) <= LIMITS.txn_depth, "{} levels were accepted", depth(txn));
    }
    if checked.is_ok() && operation.is_write() && !has_password(&operation) {
        logged(operation);
    }
}

/// A write that was accepted can be proposed, and the log gives it back.
fn logged(operation: Operation<Plaintext>) {
    let Ok(operation) = operation.try_map_values(&mut |_, value| {
        Ok::<StoredValue, std::convert::Infallible>(Sealed::stored_in_clear(value).into())
    });
    let command = Command {
        keyspace: keygate_core::KeyspaceId::DEFAULT,
        fence: None,
        leases: Default::default(),
        attribution: None,
        operation,
    };
    let bytes = command.encode().expect("a write can be written");
    assert_eq!(Command::decode(&bytes), Ok(command));
}

/// The gateway replaces these by their hashes before it proposes anything.
fn has_password(operation: &Operation<Plaintext>) -> bool {
    matches!(
        operation,
        Operation::UserAdd(UserAdd { credential: Credential::Password(_), .. })
            | Operation::UserChangePassword { credential: Credential::Password(_), .. }
            | Operation::TenantCreate(TenantCreate { root: Credential::Password(_), .. })
    )
}

fn depth<V>(txn: &Txn<V>) -> usize {
    let ops = txn.success.iter().chain(&txn.failure);
    1 + ops.map(|op| if let TxnOp::Txn(nested) = op { depth(nested) } else { 0 }).max().unwrap_or(0)
}

/// The input as the innermost of as many txns as its first byte says.
fn nested(data: &[u8]) {
    let Some((levels, inner)) = data.split_first() else { return };
    let levels = usize::from(*levels);
    let mut txn = inner.to_vec();
    for _ in 0..levels {
        // `TxnRequest.success` (2) of `RequestOp.request_txn` (4).
        txn = field(2, &field(4, &txn));
    }
    match decode(TXN, txn.into(), &LIMITS).expect("Txn is an RPC with an operation") {
        Ok(operation) => {
            assert!(levels < LIMITS.txn_depth, "{levels} levels around a txn were accepted");
            accepted(TXN, operation);
        }
        Err(rejection) => refused(&rejection),
    }
}

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(content);
    out
}

fn command(data: &[u8]) {
    if let Ok(command) = Command::decode(data) {
        let again = command.encode().expect("what was read can be written");
        assert_eq!(Command::decode(&again).as_ref(), Ok(&command));
        let _ = format!("{command:?}");
    }
}

fn row(bytes: Bytes) {
    if let Ok(row) = Row::decode(bytes) {
        assert_eq!(Row::decode(row.encode()).as_ref(), Ok(&row));
        let _ = format!("{row:?}");
    }
}
