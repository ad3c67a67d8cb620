//! A user who writes and watches without pause while somebody takes the permission away: what the races about revokes
//! share. All keys lie under one prefix.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use keygate_proto::etcdserverpb::{watch_request::RequestUnion, *};
use tonic::{Code, Status};

use crate::harness::Client;

const PREFIX: &str = "/w/";

/// All that the user may write and watch.
pub fn range() -> RangeRequest {
    let (key, range_end) = (Bytes::from_static(PREFIX.as_bytes()), Bytes::from_static(b"/w0"));
    RangeRequest { key, range_end, ..Default::default() }
}

/// At which revision.
pub async fn put(client: &Client, name: &str) -> Result<i64, Status> {
    let (key, value) = (format!("{PREFIX}{name}").into(), Bytes::from_static(b"value"));
    let put = client.kv().put(PutRequest { key, value, ..Default::default() }).await?.into_inner();
    put.header.map(|header| header.revision).ok_or_else(|| Status::internal("an answer without a header"))
}

/// The newest revision that was acknowledged. Only a refused permission may go between.
pub async fn put_until_told(
    user: Client,
    name: usize,
    attempts: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> Result<i64> {
    let mut newest = 0;
    while !stop.load(Ordering::Relaxed) {
        attempts.fetch_add(1, Ordering::Relaxed);
        match put(&user, &name.to_string()).await {
            Ok(revision) => newest = newest.max(revision),
            Err(status) if status.code() == Code::PermissionDenied => {}
            Err(status) => bail!("a put failed: {status:?}"),
        }
    }
    Ok(newest)
}

/// An open one over [`range`].
pub struct Watch {
    answers: tonic::Streaming<WatchResponse>,
    _requests: tokio::sync::mpsc::Sender<WatchRequest>,
}

/// What a watch showed until it was cancelled.
#[derive(Default)]
pub struct Seen {
    pub newest: i64,
    pub events: u64,
    pub reason: String,
}

impl Watch {
    pub async fn open(user: &Client) -> Result<Self> {
        let (requests, receiver) = tokio::sync::mpsc::channel(4);
        let RangeRequest { key, range_end, .. } = range();
        let create = WatchCreateRequest { key, range_end, ..Default::default() };
        requests.send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).await?;
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut answers = user.watch().watch(stream).await?.into_inner();
        let created = answers.message().await?.context("an answer")?;
        ensure!(created.created && !created.canceled, "{created:?}");
        Ok(Self { answers, _requests: requests })
    }

    /// None: the stream has ended.
    pub async fn next(&mut self) -> Result<Option<WatchResponse>, Status> {
        self.answers.message().await
    }

    /// Until it is cancelled.
    pub async fn follow(mut self) -> Result<Seen> {
        let mut seen = Seen::default();
        while let Some(answer) = self.next().await? {
            for event in &answer.events {
                let pair = event.kv.as_ref().context("an event without a key")?;
                seen.newest = seen.newest.max(pair.mod_revision);
                seen.events += 1;
            }
            if answer.canceled {
                seen.reason = answer.cancel_reason;
                break;
            }
        }
        Ok(seen)
    }
}
