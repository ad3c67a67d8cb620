//! The CONDITIONS column: `source=10.0.0.0/8;until=2026-12-01T00:00:00Z`.

use super::condition::{Conditions, Connection, Connections, FIRST_V4, LAST_V4};
use super::instant::{self, Instant};
use super::row::OnPartial;
use super::spans::Spans;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const ACCEPTED: &str = "`source=CIDR`, `time=[DAYS@]HH:MM-HH:MM`, `from=RFC3339`, `until=RFC3339`, \
     `connection=plain|tls|mtls`, `on_partial=reject|filter`";

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const DAY_MINUTES: u32 = 24 * 60;

/// What a column says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Column {
    pub(crate) conditions: Conditions,
    pub(crate) on_partial: Option<OnPartial>,
}

/// What is wrong with one part of the column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ConditionError {
    pub(crate) message: String,
    pub(crate) accepted: String,
}

/// Reads a column and reports every part of it that is wrong.
pub(crate) fn parse(text: &str) -> Result<Column, Vec<ConditionError>> {
    let mut column = Column::default();
    let mut seen: Vec<&str> = Vec::new();
    let mut errors = Vec::new();
    for part in text.split(';') {
        let part = part.trim_matches([' ', '\t']);
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        if seen.contains(&name) {
            errors.push(ConditionError {
                message: format!("`{name}` is said twice"),
                accepted: "each name once; alternatives of one name joined by `|`".to_owned(),
            });
            continue;
        }
        seen.push(name);
        if let Err(error) = apply(name, value, &mut column) {
            errors.push(error);
        }
    }
    let own = &column.conditions;
    if errors.is_empty() && own.from >= own.until {
        errors.push(ConditionError {
            message: format!("`from={}` is not before `until={}`", own.from, own.until),
            accepted: "an earlier `from`, or a later `until`".to_owned(),
        });
    }
    if errors.is_empty() { Ok(column) } else { Err(errors) }
}

fn apply(name: &str, value: &str, column: &mut Column) -> Result<(), ConditionError> {
    let refuse = |accepted: &str| ConditionError {
        message: format!("`{name}={value}` cannot be read"),
        accepted: accepted.to_owned(),
    };
    let alternatives = || value.split('|').map(|part| part.trim_matches([' ', '\t']));
    let conditions = &mut column.conditions;
    match name {
        "source" => {
            let mut spans = Vec::new();
            for network in alternatives() {
                spans.extend(cidr(network).map_err(|accepted| refuse(&accepted))?);
            }
            conditions.source = Some(Spans::new(spans));
        }
        "time" => {
            let mut spans = Vec::new();
            for part in alternatives() {
                let found = window(part);
                spans.extend(
                    found.ok_or_else(|| refuse("`[DAYS@]HH:MM-HH:MM`, such as `Mon-Fri@08:00-18:00`"))?,
                );
            }
            let week = Spans::new(spans);
            let all = (0, u128::from(instant::MINUTES_OF_WEEK) - 1);
            conditions.week = (week.spans() != [all]).then_some(week);
        }
        "from" => conditions.from = value.parse().map_err(|()| refuse(instant::ACCEPTED))?,
        "until" => conditions.until = value.parse().map_err(|()| refuse(instant::ACCEPTED))?,
        "connection" => {
            let mut kinds = Connections::NONE;
            for kind in alternatives() {
                let kind = Connection::from_name(kind)
                    .ok_or_else(|| refuse("`plain`, `tls`, `mtls`, joined by `|`"))?;
                kinds = kinds.with(kind);
            }
            conditions.connections = kinds;
        }
        "on_partial" => {
            column.on_partial = Some(match value {
                "reject" => OnPartial::Reject,
                "filter" => OnPartial::Filter,
                _ => return Err(refuse("`reject`, `filter`")),
            });
        }
        _ => {
            return Err(ConditionError {
                message: format!("unknown condition `{name}`"),
                accepted: ACCEPTED.to_owned(),
            });
        }
    }
    Ok(())
}

/// The addresses of a network, or what would be accepted.
fn cidr(text: &str) -> Result<Vec<(u128, u128)>, String> {
    let form = || "CIDR such as `10.0.0.0/8` or `2001:db8::/32`".to_owned();
    let (address, length) = text.split_once('/').ok_or_else(form)?;
    if length.is_empty() || length.len() > 3 || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(form());
    }
    let length: u32 = length.parse().map_err(|_| form())?;
    match address.parse().map_err(|_| form())? {
        IpAddr::V4(v4) => {
            let host = 32u32.checked_sub(length).ok_or_else(form)?;
            let mask = u32::MAX.checked_shr(length).unwrap_or(0);
            let first = u32::from(v4);
            if first & mask != 0 {
                return Err(format!(
                    "`{}/{length}`: the host bits must be zero",
                    Ipv4Addr::from(first & !mask)
                ));
            }
            let first = FIRST_V4 + u128::from(first);
            Ok(vec![(first, first + ((1u128 << host) - 1))])
        }
        IpAddr::V6(v6) => {
            if length > 128 {
                return Err(form());
            }
            let mask = u128::MAX.checked_shr(length).unwrap_or(0);
            let first = u128::from(v6);
            if first & mask != 0 {
                return Err(format!(
                    "`{}/{length}`: the host bits must be zero",
                    Ipv6Addr::from(first & !mask)
                ));
            }
            let last = first | mask;
            if FIRST_V4 <= first && last <= LAST_V4 {
                return Err("IPv4 networks written as IPv4".to_owned());
            }
            if first <= FIRST_V4 && LAST_V4 <= last {
                return Ok(vec![(first, FIRST_V4 - 1), (LAST_V4 + 1, last)]);
            }
            Ok(vec![(first, last)])
        }
    }
}

/// Minutes of the week.
fn window(text: &str) -> Option<Vec<(u128, u128)>> {
    let (days, hours) = text.split_once('@').unwrap_or(("Mon-Sun", text));
    let (first, last) = days.split_once('-').unwrap_or((days, days));
    let day = |name: &str| DAYS.iter().position(|own| *own == name).and_then(|at| u32::try_from(at).ok());
    let (first, last) = (day(first)?, day(last)?);
    let (from, to) = hours.split_once('-')?;
    let (from, to) = (minute(from)?, minute(to)?);
    if from == DAY_MINUTES {
        return None;
    }
    let length = if to > from { to - from } else { to + DAY_MINUTES - from };
    let mut spans = Vec::new();
    for offset in 0..=(last + 7 - first) % 7 {
        let start = (first + offset) % 7 * DAY_MINUTES + from;
        let end = start + length;
        let week = instant::MINUTES_OF_WEEK;
        spans.push((u128::from(start), u128::from(end.min(week) - 1)));
        if end > week {
            spans.push((0, u128::from(end - week - 1)));
        }
    }
    Some(spans)
}

fn minute(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |text: &str| match text.as_bytes() {
        [a @ b'0'..=b'9', b @ b'0'..=b'9'] => Some(u32::from(a - b'0') * 10 + u32::from(b - b'0')),
        _ => None,
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    let all = hours * 60 + minutes;
    (minutes < 60 && all <= DAY_MINUTES).then_some(all)
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = Vec::new();
        if let Some(source) = &self.source {
            parts.push(format!("source={}", networks(source).join("|")));
        }
        if let Some(week) = &self.week {
            parts.push(format!("time={}", windows(week).join("|")));
        }
        if self.from != Instant::EARLIEST {
            parts.push(format!("from={}", self.from));
        }
        if self.until != Instant::LATEST {
            parts.push(format!("until={}", self.until));
        }
        if self.connections != Connections::ALL {
            let kinds = Connection::ALL.into_iter().filter(|kind| self.connections.contains(*kind));
            parts.push(format!("connection={}", kinds.map(Connection::name).collect::<Vec<_>>().join("|")));
        }
        f.write_str(&parts.join(";"))
    }
}

/// The fewest networks that are exactly these addresses.
fn networks(source: &Spans) -> Vec<String> {
    let mut texts = Vec::new();
    // All of IPv6 lies on both sides of IPv4.
    let v6 = Spans::new(vec![(0, FIRST_V4 - 1), (LAST_V4 + 1, u128::MAX)]);
    let has_all_v6 = source.includes(&v6);
    for (low, high) in source.spans() {
        let (low, high) = if has_all_v6 { (*low.max(&FIRST_V4), *high.min(&LAST_V4)) } else { (*low, *high) };
        let mut next = Some(low);
        while let Some(first) = next.filter(|first| *first <= high) {
            // A block is as large as its first address is round, and does not mix the families.
            let mut bits = first.trailing_zeros().min(128);
            let fits = |bits: u32| {
                let last = first | u128::MAX.checked_shr(128 - bits).unwrap_or(0);
                let v4 = |number: u128| (FIRST_V4..=LAST_V4).contains(&number);
                last <= high && v4(first) == v4(last) && !(first < FIRST_V4 && LAST_V4 < last)
            };
            while !fits(bits) {
                bits -= 1;
            }
            let last = first | u128::MAX.checked_shr(128 - bits).unwrap_or(0);
            texts.push(match u32::try_from(first.wrapping_sub(FIRST_V4)) {
                Ok(v4) if first >= FIRST_V4 => format!("{}/{}", Ipv4Addr::from(v4), 32 - bits),
                _ => format!("{}/{}", Ipv6Addr::from(first), 128 - bits),
            });
            next = last.checked_add(1);
        }
    }
    if has_all_v6 {
        texts.push("::/0".to_owned());
    }
    texts
}

fn windows(week: &Spans) -> Vec<String> {
    let mut texts = Vec::new();
    for (low, high) in week.spans() {
        let (low, high) = (u32::try_from(*low).unwrap_or(0), u32::try_from(*high).unwrap_or(0));
        for day in low / DAY_MINUTES..=high / DAY_MINUTES {
            let from = low.max(day * DAY_MINUTES) - day * DAY_MINUTES;
            let to = (high + 1).min((day + 1) * DAY_MINUTES) - day * DAY_MINUTES;
            let name = DAYS.get(day as usize).copied().unwrap_or("Sun");
            texts.push(format!("{name}@{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60));
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_and_printed_as_the_same() {
        for (text, printed) in [
            ("source=10.0.0.0/8", "source=10.0.0.0/8"),
            ("source=10.0.0.0/9|10.128.0.0/9", "source=10.0.0.0/8"),
            ("source=0.0.0.0/0", "source=0.0.0.0/0"),
            ("source=2001:db8::/32|10.1.2.3/32", "source=10.1.2.3/32|2001:db8::/32"),
            (
                "time=Mon-Fri@08:00-18:00; connection=mtls|tls",
                "time=Mon@08:00-18:00|Tue@08:00-18:00|Wed@08:00-18:00|Thu@08:00-18:00|Fri@08:00-18:00;connection=tls|mtls",
            ),
            ("time=Sun@22:00-06:00", "time=Mon@00:00-06:00|Sun@22:00-24:00"),
            ("time=00:00-24:00", ""),
            ("connection=plain|tls|mtls", ""),
            ("until=2026-12-01T00:00:00+01:00", "until=2026-11-30T23:00:00Z"),
        ] {
            let read = parse(text).unwrap().conditions;
            assert_eq!(read.to_string(), printed, "{text}");
            if !printed.is_empty() {
                assert_eq!(parse(printed).unwrap().conditions, read, "{text}");
            }
        }
        let all_v6 = parse("source=::/0").unwrap().conditions;
        assert_eq!(parse(&all_v6.to_string()).unwrap().conditions, all_v6);
    }

    #[test]
    fn ipv6_networks_hold_no_ipv4_client() {
        let conditions = parse("source=::/0").unwrap().conditions;
        let holds = |text: &str| {
            let context = super::super::Context { source: Some(text.parse().unwrap()), ..Default::default() };
            conditions.hold(&context, false)
        };
        assert!(holds("::1") && holds("ffff::1"));
        assert!(!holds("10.0.0.1") && !holds("::ffff:10.0.0.1"));
    }

    #[test]
    fn every_wrong_part_is_reported() {
        for (text, errors) in [
            ("", 1),
            ("source=10.0.0.1/8", 1),
            ("source=10.0.0.0/33;time=25:00-26:00;until=tomorrow;colour=red", 4),
            ("source=10.0.0.0/08a", 1),
            ("source=::ffff:10.0.0.0/104", 1),
            ("connection=tls;connection=mtls", 1),
            ("connection=", 1),
            ("time=24:00-01:00", 1),
            ("from=2026-12-01T00:00:00Z;until=2026-12-01T00:00:00Z", 1),
            ("on_partial=maybe", 1),
        ] {
            assert_eq!(parse(text).unwrap_err().len(), errors, "{text}");
        }
    }
}
