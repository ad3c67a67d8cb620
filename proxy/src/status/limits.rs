//! What a client reads when it met a limit: a status with the details that gRPC's own conventions have for it, and
//! headers that people know from HTTP.
//!
//! Never UNAVAILABLE: clients take that for a broken server and ask the next one at once. `grpc-retry-pushback-ms`
//! is heeded by clients that were configured to retry at all; a negative one tells them not to.

use keygate_core::{Limited, Retry};
use keygate_proto::rpc::{QuotaFailure, RetryInfo, Violation, details};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// etcd's own words where asking again helps. Its Go client knows them.
pub(super) fn text(limited: &Limited) -> &'static str {
    match limited.retry {
        Retry::After { .. } | Retry::WhenFreed => "etcdserver: too many requests",
        Retry::Never => "etcdserver: request is too large",
    }
}

pub(super) fn refused(limited: &Limited) -> Status {
    let text = text(limited);
    let violation =
        Violation { subject: limited.subject.as_ref().to_owned(), description: limited.to_string() };
    let failure = QuotaFailure { violations: vec![violation] };
    let mut metadata = MetadataMap::with_capacity(4);
    let mut put = |name: &'static str, value: i64| {
        metadata.insert(name, MetadataValue::from(value));
    };
    put("x-ratelimit-limit", i64::try_from(limited.limit).unwrap_or(i64::MAX));
    let retry = match limited.retry {
        Retry::After { wait, remaining, reset } => {
            // Whole seconds, as in HTTP, and never "now" when it is not yet.
            put("x-ratelimit-reset", i64::try_from(reset.as_secs_f64().ceil() as u64).unwrap_or(i64::MAX));
            put("x-ratelimit-remaining", i64::try_from(remaining).unwrap_or(i64::MAX));
            let milliseconds = i64::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(i64::MAX);
            put("grpc-retry-pushback-ms", milliseconds);
            Some(RetryInfo::after(wait))
        }
        Retry::WhenFreed => {
            // When somebody gives one back, nobody knows.
            put("x-ratelimit-remaining", 0);
            put("grpc-retry-pushback-ms", -1);
            None
        }
        Retry::Never => {
            put("grpc-retry-pushback-ms", -1);
            None
        }
    };
    let details = details(Code::ResourceExhausted as i32, text, retry.as_ref(), &failure);
    Status::with_details_and_metadata(Code::ResourceExhausted, text, details.into(), metadata)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prost::Message as _;

    use super::*;

    fn limited(retry: Retry) -> Limited {
        Limited { rule: "writes", subject: "user `alice` of tenant `pay`".into(), limit: 100, retry }
    }

    #[test]
    fn a_throttled_client_is_told_when_to_come_again() {
        let (wait, reset) = (Duration::from_micros(20_500), Duration::from_millis(1200));
        let status = refused(&limited(Retry::After { wait, remaining: 3, reset }));
        assert_eq!(
            (status.code(), status.message()),
            (Code::ResourceExhausted, "etcdserver: too many requests")
        );
        let said = |name| status.metadata().get(name).map(|value| value.to_str().unwrap());
        assert_eq!(said("grpc-retry-pushback-ms"), Some("21"));
        assert_eq!(said("x-ratelimit-limit"), Some("100"));
        assert_eq!((said("x-ratelimit-remaining"), said("x-ratelimit-reset")), (Some("3"), Some("2")));
        let told = keygate_proto::rpc::Status::decode(status.details()).unwrap();
        assert_eq!((told.code, told.message.as_str()), (8, "etcdserver: too many requests"));
        let urls: Vec<_> = told.details.iter().map(|any| any.type_url.as_str()).collect();
        assert_eq!(
            urls,
            ["type.googleapis.com/google.rpc.RetryInfo", "type.googleapis.com/google.rpc.QuotaFailure"]
        );
        let info = RetryInfo::decode(told.details[0].value.as_slice()).unwrap();
        assert_eq!(info.retry_delay.map(|delay| (delay.seconds, delay.nanos)), Some((0, 20_500_000)));
        let failure = QuotaFailure::decode(told.details[1].value.as_slice()).unwrap();
        let [violation] = failure.violations.as_slice() else { panic!("one limit was met") };
        assert_eq!(violation.subject, "user `alice` of tenant `pay`");
    }

    #[test]
    fn what_waiting_does_not_help_is_not_to_be_tried_again() {
        for (retry, text) in [
            (Retry::WhenFreed, "etcdserver: too many requests"),
            (Retry::Never, "etcdserver: request is too large"),
        ] {
            let status = refused(&limited(retry));
            assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, text));
            assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "-1");
            let told = keygate_proto::rpc::Status::decode(status.details()).unwrap();
            assert_eq!(told.details.len(), 1, "no delay is told");
        }
    }
}
