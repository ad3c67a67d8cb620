//! Where in a YAML file something stands that was found wrong after it was read, for people to go to.
//!
//! A look at indentation, not a parser: of what is written in braces it finds the line in which the braces begin, and of
//! what it does not understand nothing.

use std::path::Path;

use super::problem::{Problem, Problems};

impl Problems {
    /// The same, each with the file and, as near as can be told, the line.
    pub(super) fn within(self, file: &Path, text: &str) -> Self {
        self.each(|problem| {
            let line = line_of(text, &problem.path).map(|line| format!(":{line}")).unwrap_or_default();
            Problem { path: format!("{}{line}: {}", file.display(), problem.path), ..problem }
        })
    }
}

/// The line, from 1, of the innermost key of `path` that has one.
fn line_of(text: &str, path: &str) -> Option<usize> {
    let (mut rest, mut found) = (path, None);
    // Indentation of the key that was found last, and of the keys below it once the first was seen.
    let (mut above, mut level) = (None, None);
    for (number, line) in text.lines().enumerate() {
        let bare = line.trim_start();
        if bare.is_empty() || bare.starts_with('#') {
            continue;
        }
        let indentation = line.len() - bare.len();
        if above.is_some_and(|above| indentation <= above) {
            break;
        }
        if indentation != *level.get_or_insert(indentation) {
            continue;
        }
        let Some(after) = key_of(bare).and_then(|key| rest.strip_prefix(key)) else { continue };
        rest = match after.strip_prefix('.') {
            Some(below) => below,
            None if after.is_empty() => return Some(number + 1),
            None => continue,
        };
        (found, above, level) = (Some(number + 1), Some(indentation), None);
    }
    found
}

fn key_of(line: &str) -> Option<&str> {
    for quote in ['"', '\''] {
        if let Some(quoted) = line.strip_prefix(quote) {
            return quoted
                .split_once(quote)
                .filter(|(_, rest)| rest.trim_start().starts_with(':'))
                .map(|(key, _)| key);
        }
    }
    let end =
        line.match_indices(':').find(|(at, _)| line[at + 1..].chars().next().is_none_or(char::is_whitespace));
    end.map(|(at, _)| line[..at].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_that_of_the_innermost_key_that_is_found() {
        let text = "# limits\n\nlimits:\n  server: {requests: 1}\n  tenants:\n    pay:\n      reads: 5\n      prefixes:\n        /a.b/:\n          reads: 1\n        \"q: r\":\n          writes: 2\n    shop:\n      writes: x\n      reads: 7\nname: n\n";
        for (path, line) in [
            ("limits", Some(3)),
            ("limits.server.requests", Some(4)),
            ("limits.server.nothing", Some(4)),
            ("limits.tenants.pay.reads", Some(7)),
            ("limits.tenants.pay.reads.rate", Some(7)),
            ("limits.tenants.pay.prefixes./a.b/.reads", Some(10)),
            ("limits.tenants.pay.prefixes.q: r.writes", Some(12)),
            ("limits.tenants.shop.reads", Some(15)),
            // Not in this section, though elsewhere.
            ("limits.tenants.pay.writes", Some(6)),
            ("limits.tenants.sho.reads", Some(5)),
            ("name", Some(16)),
            ("elsewhere", None),
            ("", None),
        ] {
            assert_eq!(line_of(text, path), line, "{path}");
        }
        for odd in
            ["", ":", "\u{feff}limits:", "- a\n- b: c", "\"limits", "limits", "\u{1f600}: {\n\t\u{a0}x:"]
        {
            for path in ["limits.a", "", ".", "\u{1f600}.x"] {
                line_of(odd, path);
            }
        }
    }
}
