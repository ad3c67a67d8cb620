//! Questions as one line of text, answers as another.

use super::support::{Caller, Sign};
use keygate_proto::etcdserverpb as pb;
use pb::watch_request::RequestUnion;
use std::collections::BTreeMap;
use std::time::Duration;
use tonic::Code;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn kv(caller: &Caller) -> pb::kv_client::KvClient<InterceptedService<Channel, Sign>> {
    pb::kv_client::KvClient::new(caller.signed())
}

/// `OPERATION KEY [END] OPTION…`
pub(crate) async fn ask(caller: &Caller, question: &str) -> String {
    let mut words = question.split(' ');
    let (operation, key) = (words.next().unwrap(), words.next().unwrap());
    let mut words = words.peekable();
    let end = words.next_if(|word| word.starts_with(['/', '\0'])).unwrap_or_default();
    let options: BTreeMap<&str, &str> =
        words.map(|word| word.split_once('=').unwrap_or((word, ""))).collect();
    answer(caller, operation, key, end, &options).await.unwrap_or_else(|code| format!("{code:?}"))
}

async fn answer(
    caller: &Caller,
    operation: &str,
    key: &str,
    end: &str,
    options: &BTreeMap<&str, &str>,
) -> Result<String, Code> {
    let code = |status: tonic::Status| status.code();
    let range = range_of(key, end, options);
    let (key, range_end) = (range.key.clone(), range.range_end.clone());
    let txn =
        |op| pb::TxnRequest { success: vec![pb::RequestOp { request: Some(op) }], ..Default::default() };
    match operation {
        "range" => kv(caller).range(range).await.map(|found| told(found.into_inner())).map_err(code),
        "stream" => {
            let mut pieces = kv(caller).range_stream(range).await.map_err(code)?.into_inner();
            let mut whole = pb::RangeResponse::default();
            while let Some(piece) = pieces.message().await.map_err(code)? {
                let piece = piece.range_response.unwrap();
                whole.kvs.extend(piece.kvs);
                (whole.more, whole.count) = (piece.more, piece.count);
            }
            Ok(told(whole))
        }
        "txn-range" | "txn-put-range" => {
            let mut txn = txn(pb::request_op::Request::RequestRange(range));
            if operation == "txn-put-range" {
                let put = pb::PutRequest { key: "/f/e".into(), ..Default::default() };
                let put = pb::request_op::Request::RequestPut(put);
                txn.failure.push(pb::RequestOp { request: Some(put) });
            }
            let answer = kv(caller).txn(txn).await.map_err(code)?.into_inner();
            let Some(pb::response_op::Response::ResponseRange(found)) =
                answer.responses.into_iter().next().unwrap().response
            else {
                panic!("a range is answered by a range")
            };
            Ok(told(found))
        }
        "compare" => {
            let target = Some(pb::compare::TargetUnion::Version(0));
            let result = pb::compare::CompareResult::Greater.into();
            let compare = pb::Compare { result, key, range_end, target_union: target, ..Default::default() };
            let txn = pb::TxnRequest { compare: vec![compare], ..Default::default() };
            let answer = kv(caller).txn(txn).await.map_err(code)?.into_inner();
            Ok(if answer.succeeded { "succeeded" } else { "failed" }.to_owned())
        }
        "put-prev" => {
            let put = pb::PutRequest { key, prev_kv: true, ..Default::default() };
            kv(caller).put(put).await.map(|_| "put".to_owned()).map_err(code)
        }
        "delete" | "delete-prev" => {
            let prev_kv = operation == "delete-prev";
            let delete = pb::DeleteRangeRequest { key, range_end, prev_kv };
            let done = kv(caller).delete_range(delete).await.map_err(code)?.into_inner();
            Ok(format!("deleted {}", done.deleted))
        }
        "ttl-keys" => {
            let id = std::str::from_utf8(&key).unwrap().parse().unwrap();
            let ask = pb::LeaseTimeToLiveRequest { id, keys: true };
            let mut leases = pb::lease_client::LeaseClient::new(caller.signed());
            leases.lease_time_to_live(ask).await.map(|_| "told".to_owned()).map_err(code)
        }
        "watch" => {
            let (key, end) = (std::str::from_utf8(&key).unwrap(), std::str::from_utf8(&range_end).unwrap());
            let mut watch = watch(caller, key, end, options).await?;
            Ok(watch.told_until_progress().await.join(" "))
        }
        other => panic!("{other}"),
    }
}

fn range_of(key: &str, end: &str, options: &BTreeMap<&str, &str>) -> pb::RangeRequest {
    use pb::range_request::{SortOrder, SortTarget};
    let number = |name: &str| options.get(name).map_or(0, |text| text.parse().unwrap());
    let order = if options.contains_key("descend") {
        SortOrder::Descend
    } else if options.contains_key("ascend") {
        SortOrder::Ascend
    } else {
        SortOrder::None
    };
    let target = match options.get("target").copied() {
        None => SortTarget::Key,
        Some("value") => SortTarget::Value,
        Some("mod") => SortTarget::Mod,
        Some("version") => SortTarget::Version,
        Some("create") => SortTarget::Create,
        Some(other) => panic!("{other}"),
    };
    pb::RangeRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        limit: number("limit"),
        revision: number("rev"),
        sort_order: order.into(),
        sort_target: target.into(),
        serializable: options.contains_key("serializable"),
        keys_only: options.contains_key("keys"),
        count_only: options.contains_key("count"),
        min_mod_revision: number("minmod"),
        max_mod_revision: number("maxmod"),
        min_create_revision: number("mincreate"),
        max_create_revision: number("maxcreate"),
    }
}

/// Keys without their folder.
fn told(found: pb::RangeResponse) -> String {
    let mut words: Vec<String> = Vec::new();
    for kv in found.kvs {
        let (key, value) = (text(&kv.key[3..]), text(&kv.value));
        words.push(if value.is_empty() { key } else { format!("{key}={value}") });
    }
    words.push(format!("#{}", found.count));
    words.extend(found.more.then(|| "more".to_owned()));
    words.join(" ")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) struct Watch {
    answers: tonic::Streaming<pb::WatchResponse>,
    requests: tokio::sync::mpsc::Sender<pb::WatchRequest>,
    /// Of the newest header.
    pub(crate) revision: i64,
}

pub(crate) async fn watch(
    caller: &Caller,
    key: &str,
    end: &str,
    options: &BTreeMap<&str, &str>,
) -> Result<Watch, Code> {
    let create = pb::WatchCreateRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        start_revision: options.get("rev").map_or(0, |text| text.parse().unwrap()),
        prev_kv: options.contains_key("prev"),
        filters: options.contains_key("noput").then_some(0).into_iter().collect(),
        ..Default::default()
    };
    let (requests, receiver) = tokio::sync::mpsc::channel(4);
    let request = |union| pb::WatchRequest { request_union: Some(union) };
    requests.send(request(RequestUnion::CreateRequest(create))).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut client = pb::watch_client::WatchClient::new(caller.signed());
    let answers = client.watch(stream).await.map_err(|status| status.code())?.into_inner();
    let mut watch = Watch { answers, requests, revision: 0 };
    let created = watch.next().await;
    assert!(created.created, "{created:?}");
    if created.canceled {
        assert_eq!(
            created.cancel_reason,
            "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
        );
        return Err(Code::PermissionDenied);
    }
    Ok(watch)
}

impl Watch {
    pub(crate) async fn next(&mut self) -> pb::WatchResponse {
        let answer = tokio::time::timeout(PATIENCE, self.answers.message()).await.expect("it says something");
        let answer = answer.unwrap().unwrap();
        self.revision = answer.header.as_ref().unwrap().revision;
        answer
    }

    /// Exactly so many events: `[-]KEY[=VALUE][(PREVIOUS VALUE)]`.
    pub(crate) async fn told(&mut self, count: usize) -> Vec<String> {
        let mut events = Vec::new();
        while events.len() < count {
            let answer = self.next().await;
            assert!(!answer.canceled, "{answer:?}");
            events.extend(answer.events.iter().map(|event| event_text(event, text, false)));
        }
        assert_eq!(events.len(), count, "{events:?}");
        events
    }

    /// All there is, keys without their folder and with their revision.
    async fn told_until_progress(&mut self) -> Vec<String> {
        let progress = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
        self.requests.send(pb::WatchRequest { request_union: Some(progress) }).await.unwrap();
        let mut events = Vec::new();
        loop {
            let answer = self.next().await;
            assert!(!answer.canceled, "{answer:?}");
            if answer.events.is_empty() {
                return events;
            }
            events.extend(answer.events.iter().map(|event| event_text(event, |key| text(&key[3..]), true)));
        }
    }
}

fn event_text(
    event: &keygate_proto::mvccpb::Event,
    name: impl Fn(&[u8]) -> String,
    revision: bool,
) -> String {
    let kv = event.kv.as_ref().unwrap();
    let mut said = if event.r#type == 1 { "-".to_owned() } else { String::new() };
    said.push_str(&name(&kv.key));
    if revision {
        said.push_str(&format!("@{}", kv.mod_revision));
    }
    if !kv.value.is_empty() {
        said.push_str(&format!("={}", text(&kv.value)));
    }
    if let Some(prev) = &event.prev_kv {
        said.push_str(&format!("({})", text(&prev.value)));
    }
    said
}
