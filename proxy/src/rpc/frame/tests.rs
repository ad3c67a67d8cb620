use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use http_body_util::StreamBody;
use keygate_proto::etcdserverpb as pb;

use super::super::meter::RpcCounters;
use super::super::methods;
use super::super::room::MessageRoom;
use super::*;

fn message(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), ..Default::default() }
}

/// A request body that arrives in the given pieces.
fn body(pieces: Vec<Bytes>) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
    StreamBody::new(stream::iter(pieces.into_iter().map(|piece| Ok(Frame::data(piece)))))
}

fn room() -> Arc<ConnectionRoom> {
    MessageRoom::new(usize::MAX).connection()
}

async fn only(bytes: &[u8], piece: usize, limit: usize) -> Result<Bytes, Status> {
    let pieces = bytes.chunks(piece.max(1)).map(Bytes::copy_from_slice).collect();
    let mut messages = Messages::new(body(pieces), limit, room());
    messages.announced().await?;
    messages.only().await
}

#[tokio::test]
async fn a_message_is_read_however_it_is_cut() {
    let sent = message("some-key");
    let bytes = framed(&sent).unwrap();
    for piece in 1..=bytes.len() {
        let read = only(&bytes, piece, 1000).await.unwrap();
        assert_eq!(pb::RangeRequest::decode(read).unwrap(), sent, "pieces of {piece}");
    }
}

#[tokio::test]
async fn messages_of_a_stream_come_out_one_by_one() {
    let all: Vec<u8> = (0..50).flat_map(|n| framed(&message(&format!("key-{n}"))).unwrap()).collect();
    for piece in [1, 3, 7, 100, all.len()] {
        let pieces = all.chunks(piece).map(Bytes::copy_from_slice).collect();
        let mut messages = Messages::new(body(pieces), 1000, room());
        for n in 0..50 {
            let bytes = messages.next().await.unwrap().unwrap();
            assert_eq!(pb::RangeRequest::decode(bytes).unwrap(), message(&format!("key-{n}")));
        }
        assert!(messages.next().await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_by_its_length_alone() {
    let status = only(&[0, 0, 0, 4, 1], 5, 1024).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "grpc: received message larger than max (1025 vs. 1024)");
    let huge = only(&[0, 255, 255, 255, 255], 5, 1024).await.unwrap_err();
    assert_eq!(huge.message(), "grpc: received message larger than max (4294967295 vs. 1024)");
}

async fn waits<B: Body<Data = Bytes> + Unpin>(messages: &mut Messages<B>) -> bool {
    tokio::time::timeout(std::time::Duration::ZERO, messages.next()).await.is_err()
}

/// Twenty thousand streams with 60 KB each of a message that never became whole took 1.2 GB.
#[tokio::test]
async fn messages_that_never_become_whole_share_a_bounded_room() {
    let room = MessageRoom::new(1 << 20).connection();
    let unfinished = || {
        let pieces = [Bytes::from_static(&[0, 0, 1, 0, 0]), Bytes::from(vec![0; 60_000])];
        let frames = stream::iter(pieces.map(|piece| Ok::<_, Infallible>(Frame::data(piece))));
        let body = StreamBody::new(frames.chain(stream::pending()));
        Messages::new(Box::pin(body), 1 << 20, room.clone())
    };
    let mut held: Vec<_> = (0..17).map(|_| unfinished()).collect();
    for messages in &mut held {
        assert!(waits(messages).await);
    }
    let mut one_more = unfinished();
    assert_eq!(one_more.next().await.unwrap_err().code(), Code::ResourceExhausted);
    // A message that is whole needs no room.
    let bytes = framed(&message("some-key")).unwrap();
    assert!(Messages::new(body(vec![bytes]), 1000, room.clone()).next().await.is_ok());
    held.pop();
    assert!(waits(&mut unfinished()).await);
}

#[tokio::test]
async fn broken_framing_is_refused() {
    let cases: [(&[u8], Code); 6] = [
        (b"", Code::Internal),
        (b"\0\0", Code::Internal),
        (b"\0\0\0\0\x05ab", Code::Internal),
        (b"\x01\0\0\0\x01a", Code::Unimplemented),
        (b"\x07\0\0\0\x01a", Code::Internal),
        (b"GET / HTTP/1.1", Code::Internal),
    ];
    for (bytes, code) in cases {
        for piece in [1, 100] {
            assert_eq!(only(bytes, piece, 1024).await.unwrap_err().code(), code, "{bytes:?}");
        }
    }
}

fn meter() -> Meter {
    let id = methods::find("/etcdserverpb.Watch/Watch").unwrap();
    Meter::start(&Arc::new(RpcCounters::default()), id, None)
}

async fn frames(response: Response<tonic::body::Body>) -> (Vec<Bytes>, HeaderMap) {
    let (mut data, mut trailers) = (Vec::new(), HeaderMap::new());
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        match frame.unwrap().into_data() {
            Ok(bytes) => data.push(bytes),
            Err(frame) => trailers = frame.into_trailers().unwrap(),
        }
    }
    (data, trailers)
}

#[tokio::test]
async fn small_messages_that_are_ready_together_leave_together() {
    let messages = (0..10).map(|n| Ok(message(&format!("key-{n}"))));
    let (data, trailers) = frames(stream_response(stream::iter(messages), meter())).await;
    assert_eq!(data.len(), 1);
    assert_eq!(trailers["grpc-status"], "0");
    let mut read = Messages::new(body(data), 1000, room());
    for n in 0..10 {
        let bytes = read.next().await.unwrap().unwrap();
        assert_eq!(pb::RangeRequest::decode(bytes).unwrap(), message(&format!("key-{n}")));
    }
}

#[tokio::test]
async fn a_stream_that_fails_says_so_after_what_it_had() {
    let messages = [Ok(message("a")), Err(Status::permission_denied("etcdserver: permission denied"))];
    let (data, trailers) = frames(stream_response(stream::iter(messages), meter())).await;
    assert_eq!(data, [framed(&message("a")).unwrap()]);
    assert_eq!(trailers["grpc-status"], "7");
    assert_eq!(trailers["grpc-message"], "etcdserver:%20permission%20denied");
}

#[tokio::test]
async fn unary_answers_are_headers_data_and_trailers() {
    let (data, trailers) = frames(unary_response(framed(&message("a")).unwrap())).await;
    assert_eq!(data, [framed(&message("a")).unwrap()]);
    assert_eq!(trailers["grpc-status"], "0");
    let refusal = refused(&Status::not_found("etcdserver: requested lease not found"));
    assert_eq!(refusal.headers()["grpc-status"], "5");
    assert_eq!(refusal.headers()["content-type"], "application/grpc");
    assert!(refusal.into_body().is_end_stream());
}
