//! Points in time to the second, as RFC 3339 writes them.

use std::fmt;
use std::str::FromStr;

/// Seconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Instant(pub i64);

const DAY: i64 = 86_400;
pub(crate) const MINUTES_OF_WEEK: u32 = 7 * 24 * 60;
pub(crate) const ACCEPTED: &str = "`YYYY-MM-DDTHH:MM:SS` with `Z` or `+HH:MM`";

impl Instant {
    pub const EARLIEST: Self = Self(i64::MIN);
    pub const LATEST: Self = Self(i64::MAX);

    /// 0 is Monday 00:00 UTC.
    pub fn minute_of_week(self) -> u32 {
        // 1970-01-01 was a Thursday.
        let minutes = self.0.div_euclid(60).rem_euclid(i64::from(MINUTES_OF_WEEK)) + 3 * 24 * 60;
        u32::try_from(minutes).unwrap_or(0) % MINUTES_OF_WEEK
    }
}

impl FromStr for Instant {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let bytes = text.as_bytes();
        let number = |from: usize, to: usize| -> Result<i64, ()> {
            let digits = bytes.get(from..to).ok_or(())?;
            digits.iter().try_fold(0, |number, digit| match digit {
                b'0'..=b'9' => Ok(number * 10 + i64::from(digit - b'0')),
                _ => Err(()),
            })
        };
        let is = |at: usize, expected: &[u8]| {
            bytes.get(at).filter(|byte| expected.contains(byte)).map(|_| ()).ok_or(())
        };
        for (at, expected) in [(4, b"--"), (7, b"--"), (10, b"Tt"), (13, b"::"), (16, b"::")] {
            is(at, expected)?;
        }
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        if !(1..=12).contains(&month)
            || day < 1
            || day > days_of(year, month)
            || hour > 23
            || minute > 59
            || second > 59
        {
            return Err(());
        }
        let offset = match bytes.get(19..).ok_or(())? {
            b"Z" | b"z" => 0,
            [sign @ (b'+' | b'-'), ..] if bytes.len() == 25 => {
                is(22, b":")?;
                let (hours, minutes) = (number(20, 22)?, number(23, 25)?);
                if hours > 23 || minutes > 59 {
                    return Err(());
                }
                (hours * 60 + minutes) * if *sign == b'-' { -60 } else { 60 }
            }
            _ => return Err(()),
        };
        Ok(Self(days_before(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset))
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date, in the calendar without end in both directions.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    // Years start in March, so that the leap day is the last one.
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, seconds) = (self.0.div_euclid(DAY) + 719_468, self.0.rem_euclid(DAY));
        let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let shifted = (5 * of_year + 2) / 153;
        let (day, month) = (of_year - (153 * shifted + 2) / 5 + 1, (shifted + 2) % 12 + 1);
        let year = year + era * 400 + i64::from(month <= 2);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_read_and_written() {
        for (text, seconds, written) in [
            ("1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00Z"),
            ("2026-10-20T08:14:02Z", 1_792_484_042, "2026-10-20T08:14:02Z"),
            ("2024-02-29T23:59:59+01:00", 1_709_247_599, "2024-02-29T22:59:59Z"),
            ("0000-03-01t00:00:00z", -62_162_035_200, "0000-03-01T00:00:00Z"),
            ("2000-12-31T00:00:00-23:59", 978_307_140, "2000-12-31T23:59:00Z"),
        ] {
            let instant: Instant = text.parse().unwrap();
            assert_eq!((instant.0, instant.to_string().as_str()), (seconds, written), "{text}");
        }
        for text in [
            "",
            "2026-10-20",
            "2026-02-29T00:00:00Z",
            "2026-10-20T24:00:00Z",
            "2026-10-20T08:14:02",
            "2026-10-20T08:14:02.5Z",
            "2026-10-20T08:14:02+0100",
            "é026-10-20T08:14:02Z",
        ] {
            assert!(text.parse::<Instant>().is_err(), "{text}");
        }
        for year in 0..3_000 {
            for month in 1..=12 {
                let text = format!("{year:04}-{month:02}-{:02}T12:00:00Z", days_of(year, month));
                assert_eq!(text.parse::<Instant>().unwrap().to_string(), text);
            }
        }
        // A Tuesday.
        assert_eq!("2026-10-20T08:14:02Z".parse::<Instant>().unwrap().minute_of_week(), (24 + 8) * 60 + 14);
        assert!(Instant::EARLIEST.minute_of_week() < MINUTES_OF_WEEK);
        assert!(Instant::LATEST.minute_of_week() < MINUTES_OF_WEEK);
    }
}
