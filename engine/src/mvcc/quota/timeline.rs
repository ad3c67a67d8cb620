//! How many bytes became history at which revision.

/// Bytes by revision. A clone costs little.
#[derive(Clone, Default)]
pub(super) struct Timeline {
    /// Ascending; revisions without history are left out.
    steps: imbl::Vector<Step>,
    /// All bytes that ever became history.
    ever: u64,
    /// Those that compactions took.
    gone: u64,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    main: i64,
    /// All bytes up to this revision, it included.
    upto: u64,
}

impl Timeline {
    /// From (revision, bytes) in any order.
    pub(super) fn of(mut parts: Vec<(i64, u64)>) -> Self {
        parts.sort_unstable_by_key(|(main, _)| *main);
        let mut timeline = Self::default();
        for (main, bytes) in parts {
            timeline.add(main, bytes);
        }
        timeline
    }

    /// Bytes that no compaction has taken.
    pub(super) fn bytes(&self) -> u64 {
        self.ever - self.gone
    }

    /// Contract: `main` is none below the last one.
    pub(super) fn add(&mut self, main: i64, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.ever += bytes;
        match self.steps.back_mut() {
            Some(step) if step.main >= main => step.upto = self.ever,
            Some(_) | None => self.steps.push_back(Step { main, upto: self.ever }),
        }
    }

    /// Takes away what became history at or below `revision`.
    pub(super) fn compacted(&mut self, revision: i64) {
        if self.steps.front().is_none_or(|first| first.main > revision) {
            return;
        }
        let (mut low, mut high) = (0, self.steps.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.steps.get(middle).is_some_and(|step| step.main <= revision) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let rest = self.steps.split_off(low);
        self.gone = self.steps.back().map_or(self.gone, |last| last.upto);
        self.steps = rest;
    }

    pub(super) fn memory_used(&self) -> u64 {
        (self.steps.len() * size_of::<Step>()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compaction_takes_what_became_history_up_to_its_revision() {
        let mut timeline = Timeline::default();
        let mut model: Vec<(i64, u64)> = Vec::new();
        let mut horizon = 0;
        for main in 1..500_i64 {
            for bytes in [main as u64 % 7, main as u64 % 3] {
                timeline.add(main, bytes);
                model.push((main, bytes));
            }
            if main % 41 == 0 {
                horizon = main - main % 13;
                timeline.compacted(horizon);
                timeline.compacted(horizon - 5);
            }
            let left = model.iter().filter(|(main, _)| *main > horizon);
            assert_eq!(timeline.bytes(), left.map(|(_, bytes)| bytes).sum::<u64>(), "at {main}");
        }
        let mut again = Timeline::of(model.into_iter().rev().collect());
        again.compacted(horizon);
        assert_eq!(again.bytes(), timeline.bytes());
        timeline.compacted(i64::MAX);
        assert_eq!((timeline.bytes(), timeline.memory_used()), (0, 0));
    }
}
