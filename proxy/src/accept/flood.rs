//! HTTP/2 frames that carry nothing: pings, settings, resets, windows, priorities, in any order and without end. Each
//! costs the server more than it costs its sender, and no other bound of HTTP/2 counts them.
//!
//! A frame costs one; bytes that it carries, and bytes of answers, earn it back. So whoever asks for something and takes
//! the answers never runs out, also with a ping and a window update for each part of an answer. Whoever does nothing of
//! the kind may send [`BURST`] frames at once and [`A_SECOND`] after that; then the connection is closed.

use std::time::Instant;

use super::worth::{Standing, Worth};

/// A hundred times what a client of a thousand watches sends when it cancels them all.
const BURST: i64 = 20_000;
/// One in a hundred of a processor's time, about.
const A_SECOND: i64 = 10_000;

/// Bytes that earn a frame. An answer to a ping has 17.
const FRAME: i64 = 32;
const HEADER: usize = 9;
/// What comes before the first frame.
const PREFACE: u32 = 24;

/// The client sent frames without end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the client floods its connection with frames that carry nothing")]
pub(super) struct Flood;

/// Of one connection. Finds the frames in its bytes, for [`Worth`] too.
pub(super) struct FrameBudget {
    worth: Worth,
    /// In bytes.
    left: i64,
    /// When time was last counted.
    since: Instant,
    /// Of the frame that is under way.
    payload: u32,
    header: [u8; HEADER],
    has: usize,
}

impl FrameBudget {
    pub(super) fn new(standing: Standing, now: Instant) -> Self {
        let worth = Worth::new(standing, now);
        Self { worth, left: BURST * FRAME, since: now, payload: PREFACE, header: [0; HEADER], has: 0 }
    }

    /// The clock is asked only when there would be too many without it.
    pub(super) fn received(&mut self, bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Flood> {
        self.count(bytes);
        self.worth.decide(&now);
        if self.left >= 0 {
            return Ok(());
        }
        let now = now();
        let passed = now.saturating_duration_since(self.since).as_micros();
        let earned = i64::try_from(passed).unwrap_or(i64::MAX).saturating_mul(A_SECOND * FRAME) / 1_000_000;
        self.since = now;
        self.earn(earned);
        if self.left < 0 { Err(Flood) } else { Ok(()) }
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.worth.sent(bytes);
        self.earn(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn earn(&mut self, bytes: i64) {
        self.left = self.left.saturating_add(bytes).min(BURST * FRAME);
    }

    fn count(&mut self, mut bytes: &[u8]) {
        loop {
            let carried = bytes.len().min(self.payload as usize);
            self.payload -= carried as u32;
            self.earn(carried as i64);
            bytes = &bytes[carried..];
            let part = bytes.len().min(HEADER - self.has);
            if part == 0 {
                return;
            }
            self.header[self.has..self.has + part].copy_from_slice(&bytes[..part]);
            self.has += part;
            bytes = &bytes[part..];
            if self.has == HEADER {
                let [high, middle, low, kind, ..] = self.header;
                self.payload = u32::from_be_bytes([0, high, middle, low]);
                self.worth.frame(kind, self.payload);
                self.has = 0;
                self.left -= FRAME;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frame(payload: usize) -> Vec<u8> {
        let mut frame = vec![0; HEADER + payload];
        frame[..3].copy_from_slice(&(payload as u32).to_be_bytes()[1..]);
        frame
    }

    fn begun(now: Instant) -> FrameBudget {
        let mut budget = FrameBudget::new(Standing::default(), now);
        budget.received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", || now).unwrap();
        budget
    }

    #[test]
    fn empty_frames_are_a_flood_and_time_allows_some() {
        let start = Instant::now();
        let mut budget = begun(start);
        for sent in 0..BURST {
            assert_eq!(budget.received(&frame(0), || start), Ok(()), "{sent}");
        }
        assert_eq!(budget.received(&frame(0), || start), Err(Flood));
        let later = start + Duration::from_secs(1);
        for sent in 1..A_SECOND {
            assert_eq!(budget.received(&frame(0), || later), Ok(()), "{sent}");
        }
        assert_eq!(budget.received(&frame(0), || later), Err(Flood));
    }

    #[test]
    fn pings_are_a_flood_though_they_are_answered() {
        let start = Instant::now();
        let mut budget = begun(start);
        let flooded = (0..10 * BURST).find(|_| {
            budget.sent(17);
            budget.received(&frame(8), || start).is_err()
        });
        assert!(flooded.is_some_and(|sent| sent > BURST), "{flooded:?}");
    }

    #[test]
    fn who_is_served_is_no_flood() {
        let start = Instant::now();
        // The smallest request there is, and the least that an answer takes; then a long answer, with a ping and two
        // windows for each frame of it.
        for (asked, answered) in [([10, 10, 4], 60), ([8, 4, 4], 16_384)] {
            let mut budget = begun(start);
            for round in 0..5 * BURST {
                for payload in asked {
                    assert_eq!(budget.received(&frame(payload), || start), Ok(()), "{round}");
                }
                budget.sent(answered + 30);
            }
        }
    }

    #[test]
    fn frames_are_found_however_their_bytes_are_cut() {
        let start = Instant::now();
        let bytes: Vec<u8> = [frame(0), frame(5), frame(300), frame(0), frame(70_000)].concat();
        let mut whole = begun(start);
        whole.received(&bytes, || start).unwrap();
        for part in [1, 2, 7, 9, 10, 256] {
            let mut cut = begun(start);
            bytes.chunks(part).for_each(|bytes| cut.received(bytes, || start).unwrap());
            assert_eq!((cut.payload, cut.has), (whole.payload, whole.has));
        }
        assert_eq!((whole.payload, whole.has), (0, 0));
    }
}
