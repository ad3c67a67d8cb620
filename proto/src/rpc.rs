//! The few messages of `google.rpc` that a refusal carries in `grpc-status-details-bin`.
//!
//! Written by hand: they are three, and their own files would bring a package of twenty.

use std::time::Duration;

use prost::Message;
use prost_types::Any;

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
pub struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub retry_delay: Option<prost_types::Duration>,
}

/// `google.rpc.QuotaFailure`.
#[derive(Clone, PartialEq, Message)]
pub struct QuotaFailure {
    #[prost(message, repeated, tag = "1")]
    pub violations: Vec<Violation>,
}

/// `google.rpc.QuotaFailure.Violation`.
#[derive(Clone, PartialEq, Message)]
pub struct Violation {
    #[prost(string, tag = "1")]
    pub subject: String,
    #[prost(string, tag = "2")]
    pub description: String,
}

impl RetryInfo {
    pub fn after(wait: Duration) -> Self {
        let seconds = i64::try_from(wait.as_secs()).unwrap_or(i64::MAX);
        // Below a thousand million.
        let nanos = i32::try_from(wait.subsec_nanos()).unwrap_or(0);
        Self { retry_delay: Some(prost_types::Duration { seconds, nanos }) }
    }
}

/// The bytes of a status with its details.
pub fn details(code: i32, message: &str, retry: Option<&RetryInfo>, failure: &QuotaFailure) -> Vec<u8> {
    let any = |name: &str, value: Vec<u8>| Any {
        type_url: format!("type.googleapis.com/google.rpc.{name}"),
        value,
    };
    let retry = retry.map(|retry| any("RetryInfo", retry.encode_to_vec()));
    let details = retry.into_iter().chain([any("QuotaFailure", failure.encode_to_vec())]).collect();
    Status { code, message: message.to_owned(), details }.encode_to_vec()
}
