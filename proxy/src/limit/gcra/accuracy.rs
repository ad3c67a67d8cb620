//! How exact the limiter is: on a clock of its own, over ten seconds, for rates, bursts, costs and arrivals of all kinds.
//!
//! Held against a token bucket that is computed in whole fractions and so rounds nothing, and, where somebody always
//! waits, against the configured number itself.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::{Gcra, MAX_RATE, Ticks, Wait};

const CASES: usize = 12_000;
const WINDOW: Duration = Duration::from_secs(10);
/// Of one case. What a rate lets through beyond it comes in larger requests.
const MOST_REQUESTS: u64 = 800;

/// As an operator writes it: so many units in each period, and so many at once.
#[derive(Clone, Copy, Debug)]
struct Configured {
    units: u64,
    period: Duration,
    burst: u64,
}

/// When requests come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Arrivals {
    /// The next one when it may pass, as a client that heeds what it is told.
    Waiting,
    /// Evenly, several times what passes.
    Steady,
    /// At random, on average as much as passes or some more.
    Random,
    /// Many at once, and then a pause.
    Batches,
}

impl Configured {
    fn any(random: &mut StdRng) -> Self {
        // Of every magnitude equally many.
        let magnitude = |random: &mut StdRng, most: f64| (most.ln() * random.random::<f64>()).exp();
        let period = [1, 1, 1, 60, 3600][random.random_range(0..5)];
        let per_second = magnitude(random, MAX_RATE as f64);
        let units = (per_second as u64).clamp(1, MAX_RATE).saturating_mul(period);
        // Up to what flows in in a minute, as a burst of a large request may be.
        let burst = magnitude(random, per_second * 60.0 + 2.0) as u64;
        Self { units, period: Duration::from_secs(period), burst: burst.max(1) }
    }

    fn per_window(&self) -> f64 {
        self.units as f64 * WINDOW.as_secs_f64() / self.period.as_secs_f64()
    }
}

/// A token bucket without any rounding: what is in it, in units times ticks of the period.
struct Exact {
    of: Configured,
    held: u128,
    at: Ticks,
}

impl Exact {
    fn period(&self) -> u128 {
        Ticks::of(self.of.period).0.into()
    }

    fn full(&self) -> u128 {
        u128::from(self.of.burst) * self.period()
    }

    fn take(&mut self, now: Ticks, cost: u64) -> bool {
        let flowed = u128::from(now.0 - self.at.0) * u128::from(self.of.units);
        self.held = (self.held + flowed).min(self.full());
        self.at = now;
        let cost = u128::from(cost) * self.period();
        let passes = self.held >= cost;
        self.held -= if passes { cost } else { 0 };
        passes
    }
}

/// What passed of a case, and when.
#[derive(Default)]
struct Passed {
    /// Units up to and including this moment.
    by: Vec<(Ticks, u64)>,
    units: u64,
}

impl Passed {
    fn add(&mut self, now: Ticks, cost: u64) {
        self.units += cost;
        self.by.push((now, self.units));
    }

    /// The most in any ten seconds.
    fn busiest(&self) -> u64 {
        let (mut first, mut most) = (0, 0);
        for (at, units) in &self.by {
            while at.0 - self.by[first].0.0 > Ticks::of(WINDOW).0 {
                first += 1;
            }
            let before = first.checked_sub(1).map_or(0, |before| self.by[before].1);
            most = most.max(units - before);
        }
        most
    }
}

/// One bucket, filled to the brim, used up at once, and then asked for more for ten seconds and a bit.
fn check(random: &mut StdRng, worst: &mut f64) -> Option<u64> {
    let configured = Configured::any(random);
    let gcra = Gcra::new(configured.units, configured.period, configured.burst);
    assert_eq!(gcra.burst(), configured.burst, "{configured:?}");
    // Any time within the years that there are.
    let start = Ticks(random.random_range(0..u64::MAX / 8));

    // The burst, to the unit, however it is asked for.
    let (mut full_at, mut left) = (Ticks(random.random_range(0..=start.0)), configured.burst);
    while left > 0 {
        let cost = random.random_range(1 + left / 20..=left);
        let taken = gcra.take(full_at, start, cost);
        full_at = taken.unwrap_or_else(|_| panic!("{configured:?}: {left} are left")).full_at;
        left -= cost;
    }
    assert!(gcra.take(full_at, start, 1).is_err(), "{configured:?}: more than a burst");

    let arrivals =
        [Arrivals::Waiting, Arrivals::Steady, Arrivals::Random, Arrivals::Batches][random.random_range(0..4)];
    let expected = configured.per_window();
    let largest = ((expected / MOST_REQUESTS as f64).ceil() as u64 * 4).clamp(1, configured.burst);
    // A burst that is so small that too many requests would be needed.
    if expected / (largest as f64) > MOST_REQUESTS as f64 * 20.0 {
        return None;
    }
    // In which a usual request flows in.
    let pace =
        Ticks::of(configured.period).0 as f64 / configured.units as f64 * (largest as f64 / 3.0).max(1.0);
    let end = Ticks(start.0 + Ticks::of(WINDOW).0);
    let mut exact = Exact { of: configured, held: 0, at: start };
    let (mut now, mut passed, mut should) = (start, Passed::default(), 0);
    let mut cost = largest;
    while now <= end {
        let taken = gcra.take(full_at, now, cost);
        should += if exact.take(now, cost) { cost } else { 0 };
        let pause = match (arrivals, taken) {
            (Arrivals::Waiting, Err(Wait(Ticks(wait)))) => {
                assert!(
                    gcra.take(full_at, Ticks(now.0 + wait - 1), cost).is_err(),
                    "{configured:?}: waits too long"
                );
                assert!(
                    gcra.take(full_at, Ticks(now.0 + wait), cost).is_ok(),
                    "{configured:?}: waits in vain"
                );
                wait
            }
            (Arrivals::Waiting, Ok(_)) => 0,
            (Arrivals::Steady, _) => (pace / 4.0) as u64 + 1,
            (Arrivals::Random, _) => (pace * random.random_range(0.0..1.8)) as u64 + 1,
            (Arrivals::Batches, _) if random.random_range(0..30) > 0 => 0,
            (Arrivals::Batches, _) => (pace * random.random_range(0.0..30.0)) as u64 + 1,
        };
        if let Ok(taken) = taken {
            full_at = taken.full_at;
            passed.add(now, cost);
        }
        if taken.is_ok() || arrivals != Arrivals::Waiting {
            // Of a mix of sizes, the small ones more often.
            cost = (largest as f64 * random.random::<f64>().powi(2)) as u64 + 1;
            cost = cost.min(largest);
        }
        now.0 += pause;
    }

    let hundredth = expected / 100.0;
    let told = || format!("{configured:?} {arrivals:?}: {} of {expected}, exactly {should}", passed.units);
    if arrivals == Arrivals::Waiting {
        // One that comes at the last moment may be in or out.
        let error = (passed.units as f64 - expected).abs();
        assert!(error <= hundredth.max(largest as f64), "{}", told());
        if largest as f64 <= hundredth {
            *worst = worst.max(error / expected);
        }
    } else {
        // Both decided on the same arrivals, and one of them may have let one more through.
        assert!(passed.units.abs_diff(should) as f64 <= hundredth + largest as f64, "{}", told());
    }
    let busiest = passed.busiest() as f64;
    assert!(busiest <= configured.burst as f64 + expected * 1.01, "{}: {busiest} in ten seconds", told());
    Some(passed.by.len() as u64)
}

#[test]
fn bursts_are_exact_and_rates_hold_within_a_hundredth_over_ten_seconds() {
    let mut random = StdRng::seed_from_u64(11);
    let (mut cases, mut requests, mut worst) = (0, 0, 0.0);
    while cases < CASES {
        if let Some(passed) = check(&mut random, &mut worst) {
            cases += 1;
            requests += passed;
        }
    }
    println!("{cases} cases, {requests} requests passed, the worst rate is off by {:.3} %", worst * 100.0);
    assert!(requests >= 1_000_000, "{requests}: the cases are too small to tell");
}

/// The numbers that operators write, one by one.
#[test]
fn usual_rates_let_through_as_much_as_they_say() {
    for (rate, burst) in [(1, 1), (7, 3), (100, 200), (999, 1), (33_333, 10), (3_000_000, 50)] {
        let gcra = Gcra::new(rate, Duration::from_secs(1), burst);
        let (mut full_at, mut now, mut passed) = (Ticks(0), Ticks::of(WINDOW), 0_u64);
        let end = Ticks(now.0 + Ticks::of(WINDOW).0);
        while now <= end {
            match gcra.take(full_at, now, 1) {
                Ok(taken) => {
                    full_at = taken.full_at;
                    passed += 1;
                }
                Err(Wait(wait)) => now = Ticks(now.0 + wait.0),
            }
        }
        let error = passed.abs_diff(10 * rate + burst);
        assert!(error <= 1.max(10 * rate / 100), "{rate}/s: {passed} in ten seconds");
    }
}
