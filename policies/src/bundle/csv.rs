//! Lines and columns of `policy.csv` and `roles.csv`.

use super::finding::{Finding, Rule};

pub(crate) const LINE_LIMIT: usize = 64 << 10;
pub(crate) const ROW_LIMIT: usize = 1_000_000;
/// More findings than this help nobody.
pub(crate) const FINDING_LIMIT: usize = 1_000;

/// One row, its columns trimmed and still escaped.
pub(crate) struct Line<'a> {
    pub(crate) number: u32,
    pub(crate) columns: Vec<&'a str>,
    /// Names of rules out of `# lint:allow` comments directly above.
    pub(crate) allowed: Vec<&'a str>,
}

/// Calls `visit` with each row, in order.
pub(crate) fn lines<'a>(
    file: &str,
    bytes: &'a [u8],
    findings: &mut Vec<Finding>,
    mut visit: impl FnMut(Line<'a>, &mut Vec<Finding>),
) {
    let mut allowed = Vec::new();
    let mut rows = 0;
    for (index, raw) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
        if findings.len() >= FINDING_LIMIT {
            findings.push(Finding::new(
                Rule::FileLimit,
                file,
                number,
                "too many findings; the rest was not read",
            ));
            return;
        }
        if raw.len() > LINE_LIMIT {
            findings.push(Finding::new(
                Rule::FileLimit,
                file,
                number,
                format!("line is longer than {LINE_LIMIT} bytes"),
            ));
            continue;
        }
        let Ok(text) = std::str::from_utf8(raw) else {
            let found = Finding::new(Rule::FileEncoding, file, number, "line is not UTF-8");
            findings.push(found.accepted("UTF-8; other bytes as `\\xNN`"));
            continue;
        };
        // In comments too: a reviewer must see what is read.
        if let Some(bad) = text.chars().find(|c| *c == '"' && !text.starts_with('#') || is_unseen(*c)) {
            let message = format!("line holds `{}`", bad.escape_default());
            let found = Finding::new(Rule::FileEncoding, file, number, message);
            findings.push(found.accepted(
                "there is no quoting; write `\\x22` for a quote, `\\xNN` for the bytes of what cannot be seen",
            ));
            continue;
        }
        if let Some(comment) = text.strip_prefix('#') {
            let rule = comment
                .trim_start()
                .strip_prefix("lint:allow ")
                .and_then(|rest| rest.split_whitespace().next());
            match rule {
                Some(rule) => allowed.push(rule),
                None => allowed.clear(),
            }
            continue;
        }
        let allowed = std::mem::take(&mut allowed);
        if text.trim_matches([' ', '\t']).is_empty() {
            continue;
        }
        rows += 1;
        if rows > ROW_LIMIT {
            findings.push(Finding::new(Rule::FileLimit, file, number, format!("more than {ROW_LIMIT} rows")));
            return;
        }
        visit(Line { number, columns: columns(text), allowed }, findings);
    }
}

/// Characters that do not show, or that make others show elsewhere. A blank and a tab may stand.
pub(crate) fn is_unseen(c: char) -> bool {
    let is_blank = matches!(c, ' ' | '\t');
    !is_blank && (c.is_control() || c.is_whitespace())
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Splits at commas, but not inside of a range `[a, b)`.
fn columns(text: &str) -> Vec<&str> {
    let mut columns = Vec::with_capacity(8);
    let mut rest = text;
    loop {
        let column = rest.trim_start_matches([' ', '\t']);
        let behind = if column.starts_with('[') { column.find(')').map_or(0, |at| at + 1) } else { 0 };
        match column[behind..].find(',') {
            Some(at) => {
                columns.push(column[..behind + at].trim_end_matches([' ', '\t']));
                rest = &column[behind + at + 1..];
            }
            None => {
                columns.push(column.trim_end_matches([' ', '\t']));
                return columns;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_refused_in_rows_and_comments() {
        let findings = |text: &str| {
            let mut findings = Vec::new();
            lines("policy.csv", text.as_bytes(), &mut findings, |_, _| {});
            findings.len()
        };
        for c in ['\u{200b}', '\u{202e}', '\u{feff}', '\u{a0}', '\u{7}', '\u{85}', '\u{2066}'] {
            assert_eq!(findings(&format!("p, role:{c}r\n")), 1, "{c:?}");
            assert_eq!(findings(&format!("# {c}\n")), 1, "{c:?}");
        }
        assert_eq!(findings("p, user:jörg\t日本\n# \"said\"\n"), 0);
        assert_eq!(findings("p, \"role:r\"\n"), 1);
    }

    #[test]
    fn columns_are_split_at_commas_but_in_ranges() {
        for (text, expected) in [
            ("p, a ,b", vec!["p", "a", "b"]),
            ("p,[/a, /b) , read", vec!["p", "[/a, /b)", "read"]),
            ("p,[/a, read", vec!["p", "[/a", "read"]),
            ("p,a[b,c)", vec!["p", "a[b", "c)"]),
            ("p,", vec!["p", ""]),
        ] {
            assert_eq!(columns(text), expected, "{text}");
        }
    }
}
