//! The generic cell rate algorithm: so much in a second on average, and a burst at once.
//!
//! Pure: time is an argument, and the state of a bucket is one number, the moment at which the bucket will be full
//! again. Two promises that callers build on:
//! - A bucket whose moment has passed is as good as a new one, so it may be forgotten.
//! - What is refused changes nothing.

use std::time::Duration;

#[cfg(test)]
mod accuracy;

/// A moment, or a span: 1/64 ns since the limiter began. Fine enough for a thousand million units a second to be off
/// by less than 1 %, and wide enough for nine years.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Ticks(pub u64);

const TICKS_PER_NANOSECOND: u64 = 64;
const TICKS_PER_SECOND: u128 = 1_000_000_000 * TICKS_PER_NANOSECOND as u128;

/// More units a second than this, and a unit would take less than a nanosecond.
pub const MAX_RATE: u64 = 1_000_000_000;

impl Ticks {
    pub fn of(duration: Duration) -> Self {
        let ticks = duration.as_nanos().saturating_mul(TICKS_PER_NANOSECOND.into());
        Self(u64::try_from(ticks).unwrap_or(u64::MAX))
    }

    pub fn duration(self) -> Duration {
        Duration::from_nanos(self.0.div_ceil(TICKS_PER_NANOSECOND))
    }
}

/// What is charged afterwards is paid off in this or in a window.
const LONGEST_DEBT: Duration = Duration::from_secs(10);

/// A rate and a burst.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gcra {
    /// In which one unit flows in.
    interval: u64,
    /// In which an empty bucket fills.
    window: u64,
}

/// Room in the bucket after a request was let through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// The bucket's new state.
    pub full_at: Ticks,
    /// By how much the request moved it. What is given back is this.
    pub moved: u64,
}

/// Not now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wait(pub Ticks);

impl Gcra {
    /// `units` in each `period`, and `burst` at once. All three are at least one.
    pub fn new(units: u64, period: Duration, burst: u64) -> Self {
        let period = u128::from(Ticks::of(period).0.max(1));
        let units = u128::from(units.max(1));
        let interval = ((period + units / 2) / units).max(1);
        let window = interval * u128::from(burst.max(1));
        let bounded = |ticks: u128| u64::try_from(ticks).unwrap_or(u64::MAX).min(u64::MAX / 4);
        Self { interval: bounded(interval), window: bounded(window) }
    }

    /// A request of `cost` units on a bucket that will be full at `full_at`. One that costs more than the bucket can
    /// ever hold passes when it is full, and those behind it wait the longer.
    pub fn take(&self, full_at: Ticks, now: Ticks, cost: u64) -> Result<Taken, Wait> {
        let begin = full_at.0.max(now.0);
        let missing = begin - now.0;
        let moved = self.interval.saturating_mul(cost);
        let needed = missing.saturating_add(moved.min(self.window));
        if needed > self.window {
            return Err(Wait(Ticks(needed - self.window)));
        }
        Ok(Taken { full_at: Ticks(begin.saturating_add(moved)), moved })
    }

    /// What is charged when it is known, after the fact: never refused, paid by those that follow. It owes no more
    /// than what flows in in ten seconds or in a window, so that one huge cost shuts nobody out for hours.
    pub fn charge(&self, full_at: Ticks, now: Ticks, cost: u64) -> Ticks {
        let begin = full_at.0.max(now.0);
        let debt = Ticks::of(LONGEST_DEBT).0.max(self.window);
        let most = now.0.saturating_add(self.window).saturating_add(debt);
        Ticks(begin.saturating_add(self.interval.saturating_mul(cost)).min(most.max(begin)))
    }

    /// Whole units that are in the bucket.
    pub fn remaining(&self, full_at: Ticks, now: Ticks) -> u64 {
        let missing = full_at.0.saturating_sub(now.0);
        self.window.saturating_sub(missing) / self.interval
    }

    /// A bucket that was filled at another rate owes no more than this one can.
    pub fn adopt(&self, full_at: Ticks, now: Ticks) -> Ticks {
        Ticks(full_at.0.min(now.0.saturating_add(self.window)))
    }

    pub fn burst(&self) -> u64 {
        self.window / self.interval
    }

    /// Units in a second, rounded.
    pub fn per_second(&self) -> u64 {
        let interval = u128::from(self.interval);
        u64::try_from((TICKS_PER_SECOND + interval / 2) / interval).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(nanoseconds: u64) -> Ticks {
        Ticks::of(Duration::from_nanos(nanoseconds))
    }

    #[test]
    fn what_is_refused_says_when_and_then_passes() {
        let gcra = Gcra::new(10, SECOND, 2);
        let taken = gcra.take(Ticks(0), at(0), 2).unwrap();
        let Wait(wait) = gcra.take(taken.full_at, at(0), 1).unwrap_err();
        assert_eq!(wait.duration(), Duration::from_millis(100));
        assert!(gcra.take(taken.full_at, Ticks(wait.0 - 1), 1).is_err());
        assert!(gcra.take(taken.full_at, wait, 1).is_ok());
    }

    #[test]
    fn what_is_larger_than_the_burst_passes_once_and_is_paid_for() {
        let gcra = Gcra::new(10, SECOND, 5);
        let taken = gcra.take(Ticks(0), at(0), 20).unwrap();
        assert_eq!(taken.full_at, at(2_000_000_000));
        assert!(gcra.take(taken.full_at, at(1_000_000_000), 1).is_err());
        assert!(gcra.take(taken.full_at, at(1_600_000_000), 1).is_ok());
        assert!(gcra.take(at(1), at(0), 20).is_err(), "only a full bucket lets it through");
    }

    #[test]
    fn one_huge_charge_is_paid_off_in_ten_seconds_or_a_window() {
        for (period, expected) in [(SECOND, 10), (60 * SECOND, 60)] {
            let gcra = Gcra::new(100, period, 100);
            let full_at = gcra.charge(Ticks(0), at(0), 1_000_000);
            let Wait(wait) = gcra.take(full_at, at(0), 0).unwrap_err();
            assert_eq!(wait.duration().as_secs_f64().round() as u64, expected);
            assert!(gcra.take(full_at, wait, 0).is_ok());
        }
    }

    #[test]
    fn no_numbers_overflow() {
        for rate in [1, MAX_RATE, u64::MAX] {
            for burst in [1, u64::MAX] {
                let gcra = Gcra::new(rate, Duration::from_secs(3600), burst);
                let _either = gcra.take(Ticks(u64::MAX), Ticks(0), u64::MAX);
                let _either = gcra.take(Ticks(0), Ticks(u64::MAX), u64::MAX);
                assert_eq!(gcra.charge(Ticks(u64::MAX), Ticks(0), u64::MAX), Ticks(u64::MAX));
            }
        }
    }
}
