//! Who may do something, and when.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod bundles;

use keygate_policies::{BundlePolicy, who_can};
use std::sync::Arc;

const POLICY: &str = "\
p, role:r, pay, /a/*, readwrite, allow
p, group:ops, pay, /a/*, read, allow, source=10.0.0.0/8
p, group:ops, pay, /a/*, read, allow, connection=mtls
p, user:bob, pay, =/a/x, read, deny
p, user:*, *, =/a/public, read, allow
p, user:view, pay, /v/*, read, allow
p, user:view, pay, /v/x/*, read, deny, on_partial=filter;connection=plain
p, user:view, pay, /v/y/*, readwrite, deny, on_partial=filter;connection=plain|tls
p, group:platform, *, -, defrag, allow, time=Sat@02:00-04:00
";
const ROLES: &str = "g, user:alice, role:r, pay\ng, user:bob, role:r, *\n";

fn lines(tenant: &str, request: &str) -> Vec<String> {
    let policy = BundlePolicy::compile(Arc::new(bundles::bundle(POLICY, ROLES)));
    let holders = who_can(&policy, tenant, &request.parse().unwrap());
    let told = holders.into_iter().map(|holder| {
        let when: Vec<String> = holder.when.iter().map(ToString::to_string).collect();
        let rows: Vec<u32> =
            holder.rows.iter().filter_map(|id| policy.row(*id)).map(|row| row.line).collect();
        let partly: Vec<String> = holder.partly.iter().map(ToString::to_string).collect();
        let mut text = holder.who.to_string();
        if !when.is_empty() {
            text.push_str(&format!(" [{}]", when.join(" or ")));
        }
        if !partly.is_empty() {
            text.push_str(&format!(" partly [{}]", partly.join(" or ")));
        }
        format!("{text} {rows:?}")
    });
    told.collect()
}

#[test]
fn holders_are_told_with_their_circumstances_and_rows() {
    assert_eq!(lines("pay", "put /a/b"), ["user:alice [] [1]", "user:bob [] [1]"]);
    assert_eq!(
        lines("pay", "range /a/*"),
        ["user:alice [] [1]", "group:ops [connection=mtls or source=10.0.0.0/8;connection=plain|tls] [2, 3]"]
    );
    assert_eq!(lines("pay", "get /a/x").len(), 2);
    assert_eq!(
        lines("other", "get /a/public"),
        ["user:* [] [5]", "user:bob [] [5]", "group:platform [] [5]"]
    );
    assert_eq!(lines("default", "defrag"), ["group:platform [time=Sat@02:00-04:00] [9]"]);
    assert!(lines("other", "defrag").is_empty(), "the platform's, whatever the row says");
    assert!(lines("other", "get /a/b").is_empty());
    assert_eq!(
        lines("pay", "range /v/*"),
        ["user:view [connection=mtls] partly [connection=plain|tls] [6, 7, 8]"]
    );
    assert_eq!(
        lines("pay", "range [/v/x/, /v/z)"),
        ["user:view [connection=mtls] partly [connection=plain|tls] [6, 7, 8]"]
    );
    assert_eq!(lines("pay", "get /v/x/a"), ["user:view [connection=tls|mtls] [6]"]);
    assert!(lines("pay", "delete /v/*").is_empty());
}
