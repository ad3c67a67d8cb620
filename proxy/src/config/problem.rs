//! What is wrong with a configuration: every problem at once, each with the place where the operator wrote it and,
//! where there is a closed set, the values that would have been accepted.

use std::fmt;

/// Why one value cannot be used. Lowercase, no final dot, never a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadValue(pub String);

impl BadValue {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// One thing to correct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written: `--flag`, `ETCD_VARIABLE`, or `section.key` of the configuration file.
    pub path: String,
    pub message: String,
    /// The values that would do, when they can be listed.
    pub accepted: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)?;
        match &self.accepted {
            Some(accepted) => write!(f, " (accepted: {accepted})"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong, in the order in which it was found. Empty means that the configuration can be used.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Problems {
    list: Vec<Problem>,
    usage: bool,
}

impl Problems {
    pub(super) fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.list.push(Problem { path: path.into(), message: message.into(), accepted: None });
    }

    pub(super) fn push(&mut self, problem: Problem) {
        self.list.push(problem);
    }

    /// Marks that the command line itself was malformed, for which etcd exits 2 where it exits 1 for anything else.
    pub(super) fn mark_usage(&mut self) {
        self.usage = true;
    }

    pub fn is_usage(&self) -> bool {
        self.usage
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }

    pub(super) fn each(self, change: impl Fn(Problem) -> Problem) -> Self {
        Self { list: self.list.into_iter().map(change).collect(), usage: self.usage }
    }

    pub(super) fn append(&mut self, other: Self) {
        self.usage |= other.usage;
        self.list.extend(other.list);
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The candidate nearest to `word`, if it is near enough to have been meant.
pub(super) fn did_you_mean<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let reach = word.chars().count().div_ceil(3).min(4);
    candidates
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= reach)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance over characters, two rows at a time.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut current = Vec::with_capacity(b.len() + 1);
        current.push(i + 1);
        for (j, to) in b.iter().enumerate() {
            let substituted = previous[j] + usize::from(from != *to);
            current.push(substituted.min(previous[j + 1] + 1).min(current[j] + 1));
        }
        previous = current;
    }
    previous[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_is_suggested_and_a_stranger_is_not() {
        let names = ["data-dir", "wal-dir", "listen-client-urls"];
        assert_eq!(did_you_mean("data-dri", names.into_iter()), Some("data-dir"));
        assert_eq!(did_you_mean("listen-client-url", names.into_iter()), Some("listen-client-urls"));
        assert_eq!(did_you_mean("frobnicate", names.into_iter()), None);
    }
}
