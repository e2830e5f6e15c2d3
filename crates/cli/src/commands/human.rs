//! Numbers for people.

use std::time::Duration;

/// Bytes in decimal units, as disks and networks count them.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}

/// Megabytes (10⁶ bytes) per second; 0 for no time at all.
pub(crate) fn megabytes_per_second(bytes: u64, time: Duration) -> f64 {
    per_second(bytes, time) / 1e6
}

/// So many per second; 0 for no time at all.
pub(crate) fn per_second(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { count as f64 / time.as_secs_f64() }
}

/// Microseconds, as milliseconds or seconds.
pub(crate) fn millis(us: u64) -> String {
    let ms = us as f64 / 1000.0;
    if ms < 10_000.0 { format!("{ms:.1}ms") } else { format!("{:.1}s", ms / 1000.0) }
}

/// One with its noun, or several.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_largest_unit_that_fits() {
        let shown = [0, 999, 1000, 411_200_000, 9_400_000_000, u64::MAX].map(bytes);
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "411.2 MB", "9.4 GB", "18446744.1 TB"]);
    }

    #[test]
    fn times_are_in_milliseconds_until_they_are_long() {
        assert_eq!([0, 1_250, 9_999_900, 10_000_000].map(millis), ["0.0ms", "1.2ms", "9999.9ms", "10.0s"]);
    }

    #[test]
    fn rates_of_no_time_are_zero() {
        assert_eq!(per_second(5, Duration::ZERO), 0.0);
        assert!((megabytes_per_second(3_000_000, Duration::from_secs(2)) - 1.5).abs() < 1e-9);
    }
}
