//! A snapshot as text and as JSON.

use serde_json::{Value, json};

use super::Sort;
use super::snapshot::{Row, Snapshot, Use, Whole};

/// The one line about the server, and one for each keyspace under its head.
pub(super) fn text(snapshot: &Snapshot, sort: Sort) -> String {
    let mut text = format!("{}\n\n", line(&snapshot.whole, sort));
    for line in lines(&snapshot.rows) {
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

/// The head first.
pub(super) fn lines(rows: &[Row]) -> Vec<String> {
    const HEAD: [&str; 12] = [
        "TENANT", "STATE", "CHG/S", "REF/S", "KEYS", "BYTES", "HISTORY", "LEASES", "USERS", "WATCH", "QUOTA",
        "OF",
    ];
    let mut cells = vec![HEAD.map(str::to_owned)];
    cells.extend(rows.iter().map(|row| {
        let (share, of) = fullest(&row.quota);
        [
            row.tenant.clone(),
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
        std::array::from_fn(|column| cells.iter().map(|row| row[column].len()).max().unwrap_or(0));
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

fn rate(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(rate) if rate < 10.0 => format!("{rate:.1}"),
        Some(rate) => format!("{rate:.0}"),
    }
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["", "K", "M", "G", "T"];
    let (mut left, mut unit) = (bytes as f64, 0);
    while left >= 1024.0 && unit + 1 < UNITS.len() {
        left /= 1024.0;
        unit += 1;
    }
    if unit == 0 { bytes.to_string() } else { format!("{left:.1}{}", UNITS[unit]) }
}

pub(super) fn json(snapshot: &Snapshot) -> Value {
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
        "tenants": snapshot.rows.iter().map(row).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::tests::snapshot;
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
        assert_eq!(text(&snapshot(Sort::Quota), Sort::Quota), expected);
    }

    #[test]
    fn sizes_are_short() {
        let sizes = [0, 1023, 1024, 1_572_864, 5 << 30, 7 << 50].map(size);
        assert_eq!(sizes, ["0", "1023", "1.0K", "1.5M", "5.0G", "7168.0T"]);
    }
}
