//! `\xNN` and `\\`: how any bytes are written in a bundle's text.

use super::csv::is_unseen;

/// Why a text is no escaped text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EscapeError {
    /// A backslash that neither `\\` nor `\xNN` begins with.
    Backslash,
}

/// The bytes that `text` stands for.
pub(crate) fn unescape(text: &str) -> Result<Vec<u8>, EscapeError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first != b'\\' {
            bytes.push(first);
            rest = tail;
            continue;
        }
        rest = match tail {
            [b'\\', tail @ ..] => {
                bytes.push(b'\\');
                tail
            }
            [b'x', high, low, tail @ ..] => {
                let (Some(high), Some(low)) = (digit(*high), digit(*low)) else {
                    return Err(EscapeError::Backslash);
                };
                bytes.push(high << 4 | low);
                tail
            }
            _ => return Err(EscapeError::Backslash),
        };
    }
    Ok(bytes)
}

pub(crate) fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Writes bytes so that they can stand in any column, at its edges too.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                ',' | '"' | '*' | ')' | '#' | ' ' | '|' | ';' => push_byte(&mut text, c as u8),
                c if is_unseen(c) || c.is_whitespace() => {
                    c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push_byte(&mut text, byte));
                }
                c => text.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| push_byte(&mut text, *byte));
    }
    text
}

fn push_byte(text: &mut String, byte: u8) {
    text.push_str("\\x");
    for digit in [byte >> 4, byte & 15] {
        text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_escaping() {
        let all: Vec<u8> = (0..=255).chain("é日".bytes()).collect();
        assert_eq!(unescape(&escape(&all)), Ok(all));
        assert_eq!(escape("a é,*".as_bytes()), "a\\x20é\\x2c\\x2a");
    }

    #[test]
    fn other_backslashes_are_refused() {
        for text in ["\\", "\\n", "\\x", "\\x1", "\\xg0", "a\\x+1", "\\*"] {
            assert_eq!(unescape(text), Err(EscapeError::Backslash), "{text}");
        }
    }
}
