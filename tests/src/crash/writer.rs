//! A client that writes until its server is gone, and notes each request and answer.

use anyhow::{Result, bail};
use bytes::Bytes;
use keygate_proto::etcdserverpb::{
    DeleteRangeRequest, LeaseGrantRequest, PutRequest, RequestOp, TxnRequest, request_op::Request,
};
use tonic::{Code, Status};

use super::history::{Change, Record};
use crate::harness::Client;

/// Leases of the load live longer than any run.
const LEASE_TTL: i64 = 86_400;

/// What one writer asked for and was told.
#[derive(Debug, Default)]
pub struct Notes {
    pub writes: Vec<Record>,
    /// Ids of leases whose grant was acknowledged.
    pub leases: Vec<i64>,
}

/// Puts, transactions of two puts, deletes and lease grants, one at a time, with keys and values
/// that no other `name` and `round` ever use.
///
/// # Errors
/// A refusal: the server is there and says no, which it never may here.
pub async fn write_until_it_fails(client: Client, name: usize, round: usize) -> Result<Notes> {
    let mut notes = Notes::default();
    for number in 0_i64.. {
        let value = Bytes::from(format!("{name}/{round}/{number}"));
        // Few keys, so that rounds overwrite each other's.
        let key = |suffix: &str| Bytes::from(format!("load/{name}/{}{suffix}", number % 7));
        let id = ((name as i64 + 1) << 40) + ((round as i64) << 20) + number + 1;
        let put = |suffix: &str| PutRequest { key: key(suffix), value: value.clone(), ..Default::default() };
        let (changes, answer) = match number % 9 {
            6 => (vec![(key("x"), true), (key("y"), true)], two_puts(&client, put("x"), put("y")).await),
            // What the write just before it put there.
            7 => {
                let key = Bytes::from(format!("load/{name}/{}x", (number - 1) % 7));
                (vec![(key.clone(), false)], delete(&client, key).await)
            }
            8 => match client.lease().lease_grant(LeaseGrantRequest { ttl: LEASE_TTL, id }).await {
                Ok(_) => {
                    notes.leases.push(id);
                    continue;
                }
                Err(status) => (Vec::new(), Err(status)),
            },
            _ => (vec![(key(""), true)], one_put(&client, put("")).await),
        };
        let change = |(key, is_put): (Bytes, bool)| Change {
            key: key.to_vec(),
            value: is_put.then(|| value.to_vec()),
        };
        let changes: Vec<Change> = changes.into_iter().map(change).collect();
        match answer {
            Ok(revision) => notes.writes.push(Record { changes, revision: Some(revision) }),
            Err(status) if is_gone(&status) => {
                if !changes.is_empty() {
                    notes.writes.push(Record { changes, revision: None });
                }
                return Ok(notes);
            }
            Err(status) => bail!("a write was refused: {status:?}"),
        }
    }
    Ok(notes)
}

async fn one_put(client: &Client, put: PutRequest) -> Result<i64, Status> {
    client.kv().put(put).await.map(|reply| revision(reply.into_inner().header))
}

async fn two_puts(client: &Client, first: PutRequest, second: PutRequest) -> Result<i64, Status> {
    let success = [first, second].map(|put| RequestOp { request: Some(Request::RequestPut(put)) }).to_vec();
    client
        .kv()
        .txn(TxnRequest { success, ..Default::default() })
        .await
        .map(|reply| revision(reply.into_inner().header))
}

async fn delete(client: &Client, key: Bytes) -> Result<i64, Status> {
    let request = DeleteRangeRequest { key, ..Default::default() };
    client.kv().delete_range(request).await.map(|reply| revision(reply.into_inner().header))
}

fn revision(header: Option<keygate_proto::etcdserverpb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

/// The connection broke; the outcome is unknown.
fn is_gone(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal)
}
