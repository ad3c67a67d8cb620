//! What decoding promises to those who feed it from the network.

use bytes::Bytes;
use keygate_proto::etcdserverpb::{PutRequest, TxnRequest, request_op::Request};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};

/// `field` with the length-delimited `content`.
fn wrap(field: u32, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 12);
    encode_key(field, WireType::LengthDelimited, &mut out);
    encode_varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

/// A transaction with `depth` further ones inside, each the only success operation of the last.
fn nested_txn(depth: usize) -> Vec<u8> {
    const SUCCESS: u32 = 2;
    const REQUEST_TXN: u32 = 4;
    (0..depth).fold(Vec::new(), |inner, _| wrap(SUCCESS, &wrap(REQUEST_TXN, &inner)))
}

#[test]
fn nested_transactions_within_the_limit_are_read_whole() {
    let mut txn = TxnRequest::decode(nested_txn(49).as_slice()).unwrap();
    let mut depth = 0;
    while let Some(operation) = txn.success.pop() {
        let Some(Request::RequestTxn(inner)) = operation.request else {
            panic!("only transactions were put in");
        };
        txn = inner;
        depth += 1;
    }
    assert_eq!(depth, 49);
}

#[test]
fn nesting_beyond_the_limit_is_an_error_and_no_stack_overflow() {
    for depth in [51, 100, 5_000] {
        let error = TxnRequest::decode(nested_txn(depth).as_slice()).unwrap_err();
        assert!(error.to_string().contains("recursion limit"), "{error}");
    }
}

#[test]
fn bytes_fields_share_the_buffer_they_came_in() {
    let sent = PutRequest {
        key: Bytes::from_static(b"k"),
        value: Bytes::from(vec![7; 4096]),
        ..PutRequest::default()
    };
    let buffer = Bytes::from(sent.encode_to_vec());
    let got = PutRequest::decode(buffer.clone()).unwrap();
    assert_eq!(got, sent);
    assert!(buffer.as_ptr_range().contains(&got.value.as_ptr()));
}
