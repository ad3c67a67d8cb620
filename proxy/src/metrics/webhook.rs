//! What became of the documents of `--quota-webhook-url`.

use std::sync::atomic::Ordering::Relaxed;

use super::exposition::{Exposition, Kind};
use crate::quota_webhook::Counts;

pub(super) fn write(page: &mut Exposition, counts: &Counts) {
    for (name, help, count) in [
        ("keygate_quota_webhook_deliveries_total", "Documents that the receiver took.", &counts.delivered),
        (
            "keygate_quota_webhook_failures_total",
            "Attempts to deliver a document that failed; the log has the reason of the first.",
            &counts.failures,
        ),
        (
            "keygate_quota_webhook_dropped_total",
            "Documents that were refused, too old, or too many.",
            &counts.dropped,
        ),
    ] {
        page.single(name, Kind::Counter, help, count.load(Relaxed));
    }
}
