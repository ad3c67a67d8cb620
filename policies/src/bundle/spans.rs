//! Sets of numbers as sorted, disjoint, non-touching spans: addresses, and minutes of a week.

/// Ends are included. Canonical: equal sets are equal values.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Spans(Vec<(u128, u128)>);

impl Spans {
    pub fn new(mut spans: Vec<(u128, u128)>) -> Self {
        spans.retain(|(low, high)| low <= high);
        spans.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(spans.len());
        for (low, high) in spans {
            match merged.last_mut() {
                Some(last) if low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
                _ => merged.push((low, high)),
            }
        }
        Self(merged)
    }

    pub fn spans(&self) -> &[(u128, u128)] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, number: u128) -> bool {
        let behind = self.0.partition_point(|(low, _)| *low <= number);
        behind > 0 && number <= self.0[behind - 1].1
    }

    pub fn includes(&self, other: &Self) -> bool {
        other.0.iter().all(|(low, high)| {
            let behind = self.0.partition_point(|(own, _)| own <= low);
            behind > 0 && *high <= self.0[behind - 1].1
        })
    }

    pub fn union(&self, other: &Self) -> Self {
        Self::new(self.0.iter().chain(&other.0).copied().collect())
    }

    /// Where a search for the answer may change: the least of each span, and the first behind it.
    pub fn boundaries(&self) -> impl Iterator<Item = u128> {
        self.0.iter().flat_map(|(low, high)| [Some(*low), high.checked_add(1)]).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_merge_and_answer() {
        let set = Spans::new(vec![(5, 7), (1, 2), (3, 3), (9, 8), (u128::MAX - 1, u128::MAX)]);
        assert_eq!(set.spans(), [(1, 3), (5, 7), (u128::MAX - 1, u128::MAX)]);
        for (number, expected) in
            [(0, false), (1, true), (4, false), (7, true), (8, false), (u128::MAX, true)]
        {
            assert_eq!(set.contains(number), expected, "{number}");
        }
        assert!(set.includes(&Spans::new(vec![(2, 3), (6, 6)])) && !set.includes(&Spans::new(vec![(3, 5)])));
        assert_eq!(set.boundaries().collect::<Vec<_>>(), [1, 4, 5, 8, u128::MAX - 1]);
    }
}
