//! What a client reads when a quota is used up: etcd's status, and in its details which quota that is.
//!
//! No delay is told, and clients that are configured to retry are told not to: waiting makes no room.

use keygate_core::{QuotaBound, QuotaKind};
use keygate_proto::rpc::{QuotaFailure, Violation, details};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// A prefix may be longer than what a header holds.
const LONGEST: usize = 300;

/// etcd has words for bytes, which its clients know, and none for keys.
pub(super) fn refused(code: Code, text: &'static str, bound: &QuotaBound) -> Status {
    let text = match bound.kind {
        QuotaKind::Keys => {
            short(format!("keygate: quota of {} keys{} is reached", bound.limit, bound.place()))
        }
        QuotaKind::Bytes | QuotaKind::History => text.to_owned(),
    };
    let QuotaBound { kind, prefix: _, limit, used } = bound;
    let way_out = match kind {
        QuotaKind::Keys => "delete keys",
        QuotaKind::Bytes => "delete keys, or write less",
        QuotaKind::History => "compact",
    };
    let violation = Violation {
        subject: short(format!("{kind}{}", bound.place())),
        // The way out first: what is cut off is told by the subject too.
        description: short(format!("{way_out}: {used} of {limit} {kind} are used{}", bound.place())),
    };
    let details = details(code as i32, &text, None, &QuotaFailure { violations: vec![violation] });
    let mut metadata = MetadataMap::with_capacity(1);
    metadata.insert("grpc-retry-pushback-ms", MetadataValue::from(-1));
    Status::with_details_and_metadata(code, text, details.into(), metadata)
}

fn short(text: String) -> String {
    text.chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    #[test]
    fn a_quota_says_which_it_is_and_never_when_to_come_again() {
        for (kind, prefix, text, subject, description) in [
            (
                QuotaKind::Keys,
                "app/",
                "keygate: quota of 5 keys under `app/` is reached",
                "keys under `app/`",
                "delete keys: 5 of 5 keys are used under `app/`",
            ),
            (
                QuotaKind::Bytes,
                "",
                "etcdserver: mvcc: database space exceeded",
                "bytes",
                "delete keys, or write less: 5 of 5 bytes are used",
            ),
            (
                QuotaKind::History,
                "",
                "etcdserver: mvcc: database space exceeded",
                "history-bytes",
                "compact: 5 of 5 history-bytes are used",
            ),
        ] {
            let bound = QuotaBound { kind, prefix: prefix.into(), limit: 5, used: 5 };
            let refusal = keygate_core::Refusal::QuotaReached(Box::new(bound));
            let status = super::super::of(&refusal);
            assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, text));
            assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "-1");
            let told = keygate_proto::rpc::Status::decode(status.details()).unwrap();
            assert_eq!((told.code, told.message.as_str()), (8, text));
            let [detail] = told.details.as_slice() else { panic!("{told:?}") };
            assert_eq!(detail.type_url, "type.googleapis.com/google.rpc.QuotaFailure");
            let failure = QuotaFailure::decode(detail.value.as_slice()).unwrap();
            let [violation] = failure.violations.as_slice() else { panic!("{failure:?}") };
            assert_eq!((violation.subject.as_str(), violation.description.as_str()), (subject, description));
        }
    }

    #[test]
    fn a_long_prefix_does_not_burst_the_header() {
        let prefix = vec![0xff; 100_000].into();
        let bound = QuotaBound { kind: QuotaKind::Keys, prefix, limit: 5, used: 5 };
        let status = refused(Code::ResourceExhausted, "", &bound);
        assert!(status.details().len() < 2_000 && status.message().len() <= LONGEST);
    }
}
