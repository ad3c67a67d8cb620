//! Patterns: the few forms that are one interval of keys, and nothing else.

use super::escape::{escape, unescape};
use super::finding::Rule;
use bytes::Bytes;
use keygate_core::KeyRange;
use std::fmt;

pub(crate) const KEY_LIMIT: usize = 32 << 10;
pub(crate) const ACCEPTED: &str = "`=KEY`, `TEXT*`, `[FIRST, END)`, `[FIRST, )`, `*`";

/// Why a text is no pattern: the rule it breaks, and in what way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PatternError {
    pub(crate) rule: Rule,
    pub(crate) message: String,
}

fn invalid(message: impl Into<String>) -> PatternError {
    PatternError { rule: Rule::PatternInvalid, message: message.into() }
}

/// What a bare `KEY` means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bare {
    /// Rows: it would not say whether a key or a prefix is meant.
    Refused,
    /// Requests name keys more often than prefixes.
    Key,
}

pub(crate) fn parse(text: &str, bare: Bare) -> Result<KeyRange, PatternError> {
    if text.is_empty() {
        return Err(invalid("pattern is empty"));
    }
    if let Some(range) = text.strip_prefix('[') {
        return parse_range(text, range);
    }
    if let Some(key) = text.strip_prefix('=') {
        if key.contains('*') {
            let message = format!(
                "`{text}` is one key and holds a `*`: write `\\x2a` for the character, or drop the `=`"
            );
            return Err(PatternError { rule: Rule::GlobNotAtEnd, message });
        }
        return decode(key).map(KeyRange::Single);
    }
    match text.find('*') {
        Some(at) if at + 1 == text.len() => decode(&text[..at]).map(prefix),
        Some(_) => Err(PatternError {
            rule: Rule::GlobNotAtEnd,
            message: format!("`{text}` has a `*` before its end, so its keys are no interval"),
        }),
        None if bare == Bare::Key => decode(text).map(KeyRange::Single),
        None => Err(invalid(format!(
            "`{text}` does not say whether it is one key (`={text}`) or a prefix (`{text}*`)"
        ))),
    }
}

/// Reads keys as requests and flags name them: a pattern, or a bare key.
///
/// # Errors
/// Says what is wrong and what is accepted.
pub fn key_range(text: &str) -> Result<KeyRange, String> {
    parse(text, Bare::Key).map_err(|error| format!("{}; accepted: `KEY`, {ACCEPTED}", error.message))
}

fn parse_range(text: &str, range: &str) -> Result<KeyRange, PatternError> {
    let inner =
        range.strip_suffix(')').ok_or_else(|| invalid(format!("range `{text}` does not end with `)`")))?;
    if inner.contains(['*', ')']) {
        return Err(invalid(format!("range `{text}` holds `*` or `)`: write `\\x2a` and `\\x29`")));
    }
    let (first, end) = inner
        .split_once(',')
        .ok_or_else(|| invalid(format!("range `{text}` has no comma between its ends")))?;
    if end.contains(',') {
        return Err(invalid(format!(
            "range `{text}` has more than one comma: write `\\x2c` for the character"
        )));
    }
    let (start, end) = (decode(first.trim_matches([' ', '\t']))?, decode(end.trim_matches([' ', '\t']))?);
    if end.is_empty() {
        return Ok(KeyRange::From(start));
    }
    let range = KeyRange::Span { start, end };
    if range.is_empty() { Err(invalid(format!("range `{text}` can hold no key"))) } else { Ok(range) }
}

fn decode(text: &str) -> Result<Bytes, PatternError> {
    let bytes = unescape(text)
        .map_err(|_| invalid(format!("`{text}` has a backslash that is neither `\\\\` nor `\\xNN`")))?;
    if bytes.len() > KEY_LIMIT {
        return Err(invalid(format!("a key is longer than {KEY_LIMIT} bytes")));
    }
    Ok(bytes.into())
}

/// Every key that begins with `text`.
pub(crate) fn prefix(text: Bytes) -> KeyRange {
    let kept = text.iter().rposition(|byte| *byte != 0xff).map_or(0, |at| at + 1);
    let mut end = text[..kept].to_vec();
    match end.last_mut() {
        Some(last) => *last += 1,
        None => return KeyRange::From(text),
    }
    KeyRange::Span { start: text, end: end.into() }
}

/// Is it every key that begins with something?
pub(crate) fn is_prefix(range: &KeyRange) -> bool {
    prefix(range.start().clone()) == *range
}

/// A range in the shortest form that [`parse`] reads as it.
pub struct RangeText<'a>(pub &'a KeyRange);

impl fmt::Display for RangeText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            KeyRange::Single(key) => write!(f, "={}", escape(key)),
            KeyRange::From(start) if start.is_empty() => f.write_str("*"),
            KeyRange::From(start) => write!(f, "[{}, )", escape(start)),
            KeyRange::Span { start, end } if prefix(start.clone()) == *self.0 => {
                debug_assert!(!end.is_empty());
                let text = escape(start);
                // What would be read as another form gets the form that cannot.
                if text.starts_with(['=', '[']) {
                    write!(f, "[{text}, {})", escape(end))
                } else {
                    write!(f, "{text}*")
                }
            }
            KeyRange::Span { start, end } => write!(f, "[{}, {})", escape(start), escape(end)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &'static [u8]) -> Bytes {
        Bytes::from_static(text)
    }

    fn span(start: &'static [u8], end: &'static [u8]) -> KeyRange {
        KeyRange::Span { start: key(start), end: key(end) }
    }

    #[test]
    fn each_form_is_its_interval_and_prints_as_itself() {
        for (text, range) in [
            ("=/a", KeyRange::Single(key(b"/a"))),
            ("=", KeyRange::Single(key(b""))),
            ("==*", KeyRange::Single(key(b"=*"))),
            ("/a/*", span(b"/a/", b"/a0")),
            ("\\xff\\xff*", KeyRange::From(key(b"\xff\xff"))),
            ("a\\xff*", span(b"a\xff", b"b")),
            ("*", KeyRange::everything()),
            ("[/a, /b)", span(b"/a", b"/b")),
            ("[\\x3da, \\x3db)", span(b"=a", b"=b")),
            ("[/a, )", KeyRange::From(key(b"/a"))),
            ("[, /b)", span(b"", b"/b")),
        ] {
            let written = text.replace("==*", "==\\x2a");
            assert_eq!(parse(&written, Bare::Refused), Ok(range.clone()), "{text}");
            assert_eq!(parse(&RangeText(&range).to_string(), Bare::Refused), Ok(range), "{text} printed");
        }
    }

    #[test]
    fn what_could_be_misread_is_refused() {
        for text in
            ["", "/", "/a", "[a", "[a,b", "[a)", "[b,a)", "[a,a)", "[a,b,c)", "[a*,b)", "\\*", "a\\q*"]
        {
            let error = parse(text, Bare::Refused).unwrap_err();
            assert_eq!(error.rule, Rule::PatternInvalid, "{text}");
        }
        for text in ["/a/*/b", "**", "*/a", "=/a/*", "/a*b"] {
            let error = parse(text, Bare::Refused).unwrap_err();
            assert_eq!(error.rule, Rule::GlobNotAtEnd, "{text}");
        }
    }
}
