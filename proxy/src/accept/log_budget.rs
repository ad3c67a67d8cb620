//! Keeps strangers from filling the log: so many lines a second, then a count of what was left out.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

const LINES_PER_SECOND: u32 = 20;

#[derive(Default)]
pub(crate) struct LogBudget(Mutex<Option<Window>>);

struct Window {
    began: Instant,
    lines: u32,
    left_out: u64,
}

/// May a line be written, and how many were not since the last?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Line {
    Write { left_out: u64 },
    LeaveOut,
}

impl LogBudget {
    pub(crate) fn ask(&self, now: Instant) -> Line {
        let mut slot = self.0.lock();
        let window = slot.get_or_insert(Window { began: now, lines: 0, left_out: 0 });
        if now.saturating_duration_since(window.began) >= Duration::from_secs(1) {
            window.began = now;
            window.lines = 0;
        }
        if window.lines >= LINES_PER_SECOND {
            window.left_out += 1;
            return Line::LeaveOut;
        }
        window.lines += 1;
        Line::Write { left_out: std::mem::take(&mut window.left_out) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let budget = LogBudget::default();
        let start = Instant::now();
        let written = (0..100).filter(|_| budget.ask(start) != Line::LeaveOut).count();
        assert_eq!(written, 20);
        assert_eq!(budget.ask(start + Duration::from_secs(1)), Line::Write { left_out: 80 });
        assert_eq!(budget.ask(start + Duration::from_secs(1)), Line::Write { left_out: 0 });
    }
}
