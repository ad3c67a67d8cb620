//! The section `limits:`.

use std::time::Duration;

use super::*;
use crate::config::limits::{parse_file, parse_section_of};
use crate::limit::{CapRule, Gcra, RateRule};

fn told(text: &str) -> Vec<String> {
    let rules = parse_section_of(text).unwrap();
    rules.told.into_iter().map(|(path, value)| format!("{path}: {value}")).collect()
}

fn problems(text: &str) -> String {
    parse_section_of(text).unwrap_err().to_string()
}

#[test]
fn rates_sizes_and_times_are_written_as_people_write_them() {
    let file = "
limits:
  connections-per-source: 50
  server: {requests: 1000}
  tenant:
    writes: {rate: 90/m, burst: 7}
    bytes-out: 1MiB
    logins: 30/h
    value-size: {max: 4KiB, shadow: true}
    lease-ttl-max: 1h
    user: {requests: none}
";
    let expected = [
        "limits.server.requests: 1000/s, burst 1000",
        "limits.connections-per-source: 50",
        "limits.tenant.writes: 90/m, burst 7",
        "limits.tenant.logins: 30/h, burst 1",
        "limits.tenant.bytes-out: 1MiB/s, burst 1048576",
        "limits.tenant.value-size: 4096 bytes, shadow",
        "limits.tenant.lease-ttl-max: 3600 s",
        "limits.tenant.user.requests: none",
    ];
    assert_eq!(told(file), expected);
}

#[test]
fn who_is_named_inherits_what_is_not_written() {
    let file = "
limits:
  tenant:
    requests: 100
    writes: 50
    user: {writes: 5, watches: 9}
  tenants:
    pay:
      requests: none
      user: {writes: 6}
      users: {batch: {watches: 1}}
";
    let rules = parse_section_of(file).unwrap();
    let rate = |units| Some(Gcra::new(units, Duration::from_secs(1), units));
    let (pay, other) = (rules.of_tenant("pay"), rules.of_tenant("other"));
    let of = |rules: &crate::limit::Rules, rule| rules.rate(rule).map(|rate| rate.gcra);
    assert_eq!(of(&pay.tenant, RateRule::Requests), None);
    assert_eq!(of(&other.tenant, RateRule::Requests), rate(100));
    assert_eq!(of(&pay.tenant, RateRule::Writes), rate(50));
    assert_eq!(of(pay.of_user("anybody"), RateRule::Writes), rate(6));
    assert_eq!(of(pay.of_user("batch"), RateRule::Writes), rate(6));
    assert_eq!(pay.of_user("batch").cap(CapRule::Watches).map(|cap| cap.max), Some(1));
    assert_eq!(pay.of_user("anybody").cap(CapRule::Watches).map(|cap| cap.max), Some(9));
    assert_eq!(of(other.of_user("batch"), RateRule::Writes), rate(5));
}

#[test]
fn every_mistake_is_told_with_its_path() {
    let file = "
limits:
  shadow: perhaps
  tenants:
    Pay: {requests: 1}
    pay:
      request: 5
      writes: 0
      reads: many
      ranges: {burst: 3}
      admin: {rate: 5, burst: -1}
      leases: [1]
      lease-ttl-min: 2h
      lease-ttl-max: 1h
      users: 7
      prefixes: {\"\": {logins: 3}}
";
    let rates = "none, a number for each second, `N/s`, `N/m` or `N/h`, or a section with `rate`, `burst` and `shadow`";
    let expected = [
        "limits.shadow: not a boolean (accepted: true, false)".to_owned(),
        "limits.tenants.Pay: not a tenant's name: a-z, 0-9 and `-`, at most 63".to_owned(),
        format!("limits.tenants.pay.reads: `many` is not a rate (accepted: {rates})"),
        format!("limits.tenants.pay.writes: 0 would refuse everything; `none` lifts the limit (accepted: {rates})"),
        "limits.tenants.pay.ranges: `rate` is missing".to_owned(),
        "limits.tenants.pay.admin.burst: `-1` is not a whole number from 0 to 18446744073709551615 (accepted: a number from 1)".to_owned(),
        "limits.tenants.pay.leases: a number or a text is expected".to_owned(),
        "limits.tenants.pay.lease-ttl-min: is longer than `lease-ttl-max`".to_owned(),
        "limits.tenants.pay.request: unknown key; did you mean `requests`?".to_owned(),
        "limits.tenants.pay.users: a section of keys is expected".to_owned(),
        "limits.tenants.pay.prefixes.: a prefix has at least one byte; limits of all keys are the tenant's".to_owned(),
        "limits.tenants.pay.prefixes..logins: unknown key".to_owned(),
    ];
    assert_eq!(problems(file), expected.join("\n"));
}

/// An editor empties a file before it writes it.
#[test]
fn an_empty_file_is_no_wish_for_no_limits() {
    assert!(parse_file("").is_err() && parse_section_of("").is_err());
    assert!(parse_file("name: n1").is_err() && parse_file("limits: {}\nname: n1").is_err());
    assert_eq!(parse_file("limits: {}").unwrap(), parse_section_of("name: n1").unwrap());
}

#[test]
fn the_section_stands_in_the_configuration_file_and_not_beside_a_file_of_its_own() {
    let loaded = load_text(Mode::Keygate, "limits: {tenant: {requests: 7}}").unwrap();
    let shown: Vec<_> = loaded.config.effective.iter().filter(|it| it.key.starts_with("limits.")).collect();
    assert_eq!((shown[0].key.as_str(), shown[0].value.as_str()), ("limits.tenant.requests", "7/s, burst 7"));
    let both = "limits: {}\nkeygate: {limits-file: /x}";
    assert_eq!(
        refused_file(Mode::Keygate, both),
        "keygate.limits-file: the section `limits` is given too; only one of them can hold"
    );
}
