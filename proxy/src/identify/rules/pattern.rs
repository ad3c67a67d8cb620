//! A name, or a name with holes: `spiffe://corp/ns/{namespace}/sa/{service}`.
//!
//! A pattern is anchored: it covers the whole name. A hole takes one or more of the characters that
//! names are made of (letters, digits, `-`, `_`, and `.` but in host names), so that it never
//! reaches across a part of a path or an address. Two holes stand at least one separator apart:
//! there is at most one way to fill them, whatever the name.

use std::collections::BTreeMap;

/// What was found in the holes.
pub(super) type Captures = BTreeMap<String, String>;

/// What holes never take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// A dot separates, too.
    Host,
    Other,
}

impl Shape {
    fn fills(self, character: char) -> bool {
        character.is_ascii_alphanumeric()
            || matches!(character, '-' | '_')
            || (character == '.' && self == Self::Other)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Pattern {
    shape: Shape,
    before: String,
    /// Each hole, and what follows it up to the next or the end.
    holes: Vec<Hole>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Hole {
    name: String,
    after: String,
}

impl Pattern {
    pub(super) fn parse(text: &str, shape: Shape) -> Result<Self, String> {
        let Parts { before, holes } = Parts::of(text)?;
        if text.is_empty() {
            return Err("it is empty".to_owned());
        }
        for (index, hole) in holes.iter().enumerate() {
            if holes[..index].iter().any(|other| other.name == hole.name) {
                return Err(format!("`{{{}}}` stands in it twice", hole.name));
            }
            let is_last = index + 1 == holes.len();
            if !is_last && hole.after.chars().all(|character| shape.fills(character)) {
                return Err(format!(
                    "behind `{{{}}}` a separator is missing before the next: there would be several ways to fill them",
                    hole.name
                ));
            }
        }
        Ok(Self { shape, before, holes })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.holes.iter().map(|hole| hole.name.as_str())
    }

    /// False when it did not match; `captures` is then as it was.
    pub(super) fn capture(&self, text: &str, captures: &mut Captures) -> bool {
        let Some(mut rest) = text.strip_prefix(self.before.as_str()) else { return false };
        let mut found = Vec::with_capacity(self.holes.len());
        for (index, hole) in self.holes.iter().enumerate() {
            let is_last = index + 1 == self.holes.len();
            let filled = if is_last {
                rest.strip_suffix(hole.after.as_str()).map(|filled| (filled, ""))
            } else {
                // As far as a hole reaches, and the text behind it up to its first separator.
                let reach = rest.find(|character| !self.shape.fills(character)).unwrap_or(rest.len());
                let split =
                    hole.after.find(|character| !self.shape.fills(character)).unwrap_or(hole.after.len());
                let (own, separated) = hole.after.split_at(split);
                let filled = rest[..reach].strip_suffix(own);
                filled.zip(rest[reach..].strip_prefix(separated))
            };
            let Some((filled, behind)) = filled else { return false };
            if filled.is_empty() || !filled.chars().all(|character| self.shape.fills(character)) {
                return false;
            }
            found.push((hole.name.clone(), filled.to_owned()));
            rest = behind;
        }
        if !rest.is_empty() {
            return false;
        }
        captures.extend(found);
        true
    }
}

/// A name that is made of captures.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Template {
    before: String,
    holes: Vec<Hole>,
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("it is empty".to_owned());
        }
        let Parts { before, holes } = Parts::of(text)?;
        Ok(Self { before, holes })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.holes.iter().map(|hole| hole.name.as_str())
    }

    /// The text without holes, if it has none.
    pub(super) fn constant(&self) -> Option<&str> {
        self.holes.is_empty().then_some(self.before.as_str())
    }

    /// Contract: every hole has a capture; it was looked at when the rules were read.
    pub(super) fn fill(&self, captures: &Captures) -> String {
        let mut text = self.before.clone();
        for hole in &self.holes {
            text.push_str(captures.get(&hole.name).map_or("", String::as_str));
            text.push_str(&hole.after);
        }
        text
    }
}

struct Parts {
    before: String,
    holes: Vec<Hole>,
}

impl Parts {
    fn of(text: &str) -> Result<Self, String> {
        let mut pieces = text.split('{');
        let before = pieces.next().unwrap_or_default().to_owned();
        let stray = || "a `}` without its `{`".to_owned();
        if before.contains('}') {
            return Err(stray());
        }
        let mut holes = Vec::new();
        for piece in pieces {
            let (name, after) = piece.split_once('}').ok_or("a `{` without its `}`")?;
            let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if name.is_empty() || !name.chars().all(is_name) {
                return Err(format!("`{{{name}}}` is no name: use lowercase letters, digits and `_`"));
            }
            if after.contains('}') {
                return Err(stray());
            }
            holes.push(Hole { name: name.to_owned(), after: after.to_owned() });
        }
        Ok(Self { before, holes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(pattern: &str, text: &str) -> Option<String> {
        let mut captures = Captures::new();
        let pattern = Pattern::parse(pattern, Shape::Other).unwrap();
        pattern.capture(text, &mut captures).then(|| {
            captures.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        })
    }

    #[test]
    fn a_pattern_covers_the_whole_name_and_no_hole_crosses_a_separator() {
        for (pattern, text, expected) in [
            ("root", "root", Some("")),
            ("root", "root2", None),
            ("root", "xroot", None),
            ("spiffe://corp/{a}", "spiffe://corp/pay", Some("a=pay")),
            ("spiffe://corp/{a}", "spiffe://corp/pay/x", None),
            ("spiffe://corp/{a}", "spiffe://corp/", None),
            ("spiffe://corp/{a}", "spiffe://corp.evil/pay", None),
            ("spiffe://corp/{a}", "xspiffe://corp/pay", None),
            ("spiffe://corp/{a}", "spiffe://corp/pay%2Fx", None),
            ("spiffe://c/ns/{n}/sa/{s}", "spiffe://c/ns/a/sa/b", Some("n=a s=b")),
            ("spiffe://c/ns/{n}/sa/{s}", "spiffe://c/ns/a/sa/b/sa/c", None),
            ("{n}-sa/{s}", "a-sa-sa/b", Some("n=a-sa s=b")),
            ("{n}-sa/{s}", "-sa/b", None),
            ("{n}@corp", "ann@corp", Some("n=ann")),
            ("{n}@corp", "ann@evil@corp", None),
            ("{n}@corp", "ann@corp.evil", None),
            ("{n}.svc", "a.b.svc", Some("n=a.b")),
            ("svc-{n}", "svc-ä", None),
            ("svc-{n}", "svc-a\0", None),
        ] {
            assert_eq!(captured(pattern, text).as_deref(), expected, "{pattern} on {text}");
        }
        let mut none = Captures::new();
        let host = Pattern::parse("{n}.svc", Shape::Host).unwrap();
        assert!(host.capture("a.svc", &mut none) && !host.capture("a.b.svc", &mut none));
    }

    #[test]
    fn what_could_be_filled_in_two_ways_is_refused() {
        for (text, why) in [
            ("{a}{b}", "separator"),
            ("{a}-x-{b}", "separator"),
            ("{a}/{a}", "twice"),
            ("{A}", "no name"),
            ("{}", "no name"),
            ("{a", "without its"),
            ("a}", "without its"),
            ("{a}}", "without its"),
            ("", "empty"),
        ] {
            let error = Pattern::parse(text, Shape::Other).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(Pattern::parse("{a}.{b}", Shape::Other).is_err());
        assert!(Pattern::parse("{a}.{b}", Shape::Host).is_ok());
    }

    #[test]
    fn a_template_is_filled_with_what_was_captured() {
        let captures = Captures::from([("a".to_owned(), "pay".to_owned())]);
        assert_eq!(Template::parse("svc-{a}!").unwrap().fill(&captures), "svc-pay!");
        assert_eq!(Template::parse("svc").unwrap().constant(), Some("svc"));
    }
}
