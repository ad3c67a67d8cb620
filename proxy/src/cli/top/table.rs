//! A snapshot as text and as JSON.

use serde_json::{Value, json};

use super::snapshot::{Row, Snapshot, Use, Whole};
use super::{Sort, View, Wanted, users};

/// Names as long as they are, within reason.
const WIDE: usize = 240;

/// The one line about the server, and one for each keyspace or user under its head.
pub(super) fn text(snapshot: &Snapshot, wanted: Wanted) -> String {
    let mut text = format!("{}\n\n", line(&snapshot.whole, wanted.sort()));
    for line in lines(snapshot, wanted, WIDE) {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

pub(super) fn line(whole: &Whole, sort: Sort) -> String {
    let Whole { requests, refused, processors, resident_bytes, connections, watchers } = whole;
    format!(
        "requests/s {}  refused/s {}  processors {}  memory {}  connections {}  watchers {}  (by {})",
        rate(*requests),
        rate(*refused),
        rate(*processors),
        resident_bytes.map_or_else(|| "-".to_owned(), |bytes| size(bytes as u64)),
        number(connections.map(|it| it as u64)),
        number(watchers.map(|it| it as u64)),
        sort.name(),
    )
}

/// What is listed, in at most so many columns where names can be cut. The head first.
pub(super) fn lines(snapshot: &Snapshot, wanted: Wanted, columns: usize) -> Vec<String> {
    match (wanted.view, &snapshot.users) {
        (View::Tenants, _) => tenants(snapshot.rows.iter().take(wanted.limit)),
        (View::Users, Some(users)) => users::lines(users.iter().take(wanted.limit), columns),
        (View::Users, None) => vec!["who asks for how much is not told to you by this server".to_owned()],
    }
}

fn tenants<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<String> {
    const HEAD: [&str; 12] = [
        "TENANT", "STATE", "CHG/S", "REF/S", "KEYS", "BYTES", "HISTORY", "LEASES", "USERS", "WATCH", "QUOTA",
        "OF",
    ];
    let mut cells = vec![HEAD.map(str::to_owned)];
    cells.extend(rows.map(|row| {
        let (share, of) = fullest(&row.quota);
        [
            printable(&row.tenant),
            row.state.to_owned(),
            rate(row.changes),
            rate(row.refused),
            row.keys.to_string(),
            size(row.bytes),
            row.history_bytes.map_or_else(|| "-".to_owned(), size),
            number(row.leases),
            number(row.users),
            number(row.watchers),
            share,
            of.to_owned(),
        ]
    }));
    let widths: [usize; 12] =
        std::array::from_fn(|column| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    cells
        .iter()
        .map(|row| {
            let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
                0 | 1 | 11 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect()
}

/// The quota that will be used up first.
fn fullest(quota: &Use) -> (String, &'static str) {
    let Some(most) = quota.most() else { return ("-".to_owned(), "") };
    let kinds = [("keys", quota.keys), ("bytes", quota.bytes), ("history", quota.history_bytes)];
    let of = kinds.iter().find(|(_, share)| *share == Some(most)).map_or("", |(name, _)| name);
    (format!("{}%", (most * 100.0) as u64), of)
}

/// Characters that a terminal obeys, or that are not seen, become what Rust writes for them: names are anybody's.
pub(super) fn printable(name: &str) -> String {
    let shown = |c: char| {
        let as_is = matches!(c, '"' | '\'').then_some(c);
        as_is.into_iter().chain(as_is.is_none().then(|| c.escape_debug()).into_iter().flatten())
    };
    name.chars().flat_map(shown).collect()
}

pub(super) fn rate(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(rate) if rate < 10.0 => format!("{rate:.1}"),
        Some(rate) => format!("{rate:.0}"),
    }
}

pub(super) fn number(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["", "K", "M", "G", "T"];
    let (mut left, mut unit) = (bytes as f64, 0);
    while left >= 1024.0 && unit + 1 < UNITS.len() {
        left /= 1024.0;
        unit += 1;
    }
    if unit == 0 { bytes.to_string() } else { format!("{left:.1}{}", UNITS[unit]) }
}

pub(super) fn json(snapshot: &Snapshot, wanted: Wanted) -> Value {
    let Whole { requests, refused, processors, resident_bytes, connections, watchers } = &snapshot.whole;
    let row = |row: &Row| {
        json!({
            "tenant": row.tenant,
            "state": row.state,
            "changes_per_second": row.changes,
            "limit_refusals_per_second": row.refused,
            "keys": row.keys,
            "bytes": row.bytes,
            "history_bytes": row.history_bytes,
            "leases": row.leases,
            "users": row.users,
            "watchers": row.watchers,
            "quota_used": {
                "keys": row.quota.keys,
                "bytes": row.quota.bytes,
                "history_bytes": row.quota.history_bytes,
            },
        })
    };
    json!({
        "seconds": snapshot.seconds,
        "server": {
            "requests_per_second": requests,
            "refused_per_second": refused,
            "processors": processors,
            "resident_bytes": resident_bytes,
            "connections": connections,
            "watchers": watchers,
        },
        "tenants": snapshot.rows.iter().take(wanted.limit).map(row).collect::<Vec<_>>(),
        "users": snapshot.users.as_ref().map(|users| {
            users.iter().take(wanted.limit).map(users::json).collect::<Vec<_>>()
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::tests::{snapshot, wanted};
    use super::*;

    #[test]
    fn a_snapshot_reads_as_a_table() {
        let expected = "\
requests/s 102  refused/s 2.0  processors 0.5  memory -  connections -  watchers -  (by quota)

TENANT   STATE     CHG/S  REF/S  KEYS  BYTES  HISTORY  LEASES  USERS  WATCH  QUOTA  OF
shop     active      0.0    0.0     0     10        5       0      0      0   100%  keys
pay      active       10    3.0    10     10        5       0      0      7    90%  keys
default  platform      -    0.0     3     10        5       -      -      0      -
";
        assert_eq!(text(&snapshot(Sort::Quota), wanted(View::Tenants, Sort::Quota)), expected);
    }

    #[test]
    fn sizes_are_short() {
        let sizes = [0, 1023, 1024, 1_572_864, 5 << 30, 7 << 50].map(size);
        assert_eq!(sizes, ["0", "1023", "1.0K", "1.5M", "5.0G", "7168.0T"]);
    }
}
