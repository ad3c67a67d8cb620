//! How single values are written: booleans, numbers, durations, sizes and lists, as Go's flag package and etcd read
//! them, plus human sizes (`1GiB`). Pure text to value; a refusal says what was expected.

use std::time::Duration;

use super::problem::BadValue;

pub(super) type Parsed<T> = Result<T, BadValue>;

/// Go's `strconv.ParseBool`.
pub(super) fn boolean(text: &str) -> Parsed<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(BadValue::new(format!("`{text}` is not a boolean"))),
    }
}

pub(super) fn unsigned(text: &str) -> Parsed<u64> {
    text.parse().map_err(|_| BadValue::new(format!("`{text}` is not a whole number from 0 to {}", u64::MAX)))
}

pub(super) fn unsigned32(text: &str) -> Parsed<u32> {
    text.parse().map_err(|_| BadValue::new(format!("`{text}` is not a whole number from 0 to {}", u32::MAX)))
}

/// A size in bytes: a number, alone or followed by `B`, `KiB`, `MiB`, `GiB`, `TiB` (powers of 1024) or `KB` … `TB`
/// (powers of 1000). Negative only without a unit, because etcd's quota reads it as "none".
pub(super) fn size(text: &str) -> Parsed<i64> {
    let bad = || BadValue::new(format!("`{text}` is not a size such as `1536`, `512MiB` or `1GiB`"));
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = (text[..split].trim_end(), &text[split..]);
    let scale: i64 = match unit {
        "" | "B" => 1,
        "KiB" | "Ki" => 1 << 10,
        "MiB" | "Mi" => 1 << 20,
        "GiB" | "Gi" => 1 << 30,
        "TiB" | "Ti" => 1 << 40,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(bad()),
    };
    let number: i64 = number.parse().map_err(|_| bad())?;
    if number < 0 && !unit.is_empty() {
        return Err(bad());
    }
    number.checked_mul(scale).ok_or_else(bad)
}

pub(super) fn size_unsigned(text: &str) -> Parsed<u64> {
    u64::try_from(size(text)?).map_err(|_| BadValue::new(format!("`{text}` is negative")))
}

/// Go's `time.ParseDuration` without a sign: `1h30m`, `1.5s`, `300ms`, `0`.
pub(super) fn duration(text: &str) -> Parsed<Duration> {
    let bad = || BadValue::new(format!("`{text}` is not a duration such as `300ms`, `5s`, `1h30m`"));
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total: u128 = 0;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, after) = rest.split_at(number_end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let scale: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(bad()),
        };
        total = total.checked_add(scaled(number, scale).ok_or_else(bad)?).ok_or_else(bad)?;
        rest = after;
    }
    nanoseconds(total).ok_or_else(bad)
}

/// `number` (digits with at most one point) times `scale`, in whole nanoseconds.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Eighteen digits are finer than a nanosecond of an hour.
    let fraction = &fraction[..fraction.len().min(18)];
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let below = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    whole.checked_mul(scale)?.checked_add(part.checked_mul(scale)? / below)
}

/// Go's durations end at 2^63 - 1 nanoseconds, about 292 years; so do ours.
pub(super) fn nanoseconds(nanoseconds: u128) -> Option<Duration> {
    i64::try_from(nanoseconds).ok().and_then(|n| u64::try_from(n).ok()).map(Duration::from_nanos)
}

/// A duration given as milliseconds, which is how etcd takes its two Raft timers.
pub(super) fn milliseconds(text: &str) -> Parsed<Duration> {
    let bad = || BadValue::new(format!("`{text}` is not a whole number of milliseconds"));
    let count: u32 = text.parse().map_err(|_| bad())?;
    Ok(Duration::from_millis(count.into()))
}

/// A list separated by commas; empty text is the empty list.
pub(super) fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// A duration as Go prints it, near enough to be read back.
pub(super) fn show_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    for (scale, unit) in
        [(3_600_000_000_000, "h"), (60_000_000_000, "m"), (1_000_000_000, "s"), (1_000_000, "ms")]
    {
        if nanos > 0 && nanos.is_multiple_of(scale) {
            return format!("{}{unit}", nanos / scale);
        }
    }
    if nanos == 0 { "0s".to_owned() } else { format!("{nanos}ns") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_reads_them() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("300ms", 300_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1h30m", 5_400_000_000_000),
            ("10us", 10_000),
            ("5s5ns", 5_000_000_005),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
        for text in [
            "",
            "5",
            "s",
            "5 s",
            "1..5s",
            "-5s",
            "1d",
            "9999999999h",
            ".s",
            "99999999999999999999999999999999999999999h",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_survive_being_shown() {
        for text in ["0s", "300ms", "5s", "10m", "2h", "1500ms", "7ns"] {
            let value = duration(text).unwrap();
            assert_eq!(duration(&show_duration(value)), Ok(value));
        }
    }

    #[test]
    fn sizes_take_binary_and_decimal_units() {
        for (text, bytes) in
            [("0", 0), ("-1", -1), ("1536", 1536), ("2KiB", 2048), ("1GiB", 1 << 30), ("8 GB", 8_000_000_000)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "1.5GiB", "-1GiB", "1 gib", "9999999999TiB", "0x10"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
