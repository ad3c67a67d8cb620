//! Parameters of a URL, as Go reads them: names may repeat, values may be missing.

use http::Uri;

pub(super) struct Query(Vec<Parameter>);

struct Parameter {
    name: String,
    value: String,
}

impl Query {
    pub(super) fn of(uri: &Uri) -> Self {
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    Parameter { name: decoded(name), value: decoded(value) }
                })
                .collect(),
        )
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|parameter| parameter.name == name)
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |parameter| parameter.name == name)
            .map(|parameter| parameter.value.as_str())
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        self.all(name).next() == Some("true")
    }
}

/// Percent signs that introduce no two hexadecimal digits stand for themselves.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'+', _) => bytes.push(b' '),
            (b'%', [high, low, tail @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    bytes.push(high << 4 | low);
                    rest = tail;
                }
                _ => bytes.push(b'%'),
            },
            (other, _) => bytes.push(*other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_repeat_and_are_decoded() {
        let query =
            Query::of(&"/x?exclude=a&verbose&exclude=b%20c+d&e=%zz&serializable=true&&".parse().unwrap());
        assert!(query.has("verbose") && !query.has("quiet") && query.is_true("serializable"));
        assert_eq!(query.all("exclude").collect::<Vec<_>>(), ["a", "b c d"]);
        assert_eq!(query.all("e").collect::<Vec<_>>(), ["%zz"]);
    }
}
