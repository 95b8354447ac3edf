// SPDX-License-Identifier: BSD-2-Clause
//! Times on command lines, in the units that options take.

use std::time::Duration;

use mptunnel_core::options::{Unit, format_duration, parse_duration};

/// Reads a time from `min` to `max`; a bare number counts in `unit`.
pub(crate) fn parser(
    unit: Unit,
    min: Duration,
    max: Duration,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    move |text| {
        let time = parse_duration(text.trim(), unit).filter(|time| (min..=max).contains(time));
        time.ok_or_else(|| {
            format!(
                "expected a time from {} to {}, such as 20ms or 1.5s (without unit: {})",
                format_duration(min),
                format_duration(max),
                if unit == Unit::Seconds { "s" } else { "ms" }
            )
        })
    }
}

/// Milliseconds as a time.
pub(crate) const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_or_that_of_its_option() {
        let seconds = parser(Unit::Seconds, ms(20), ms(60_000));
        let milliseconds = parser(Unit::Milliseconds, ms(0), ms(60_000));

        assert_eq!(seconds("0.2"), Ok(ms(200)));
        assert_eq!(seconds("200ms"), Ok(ms(200)));
        assert_eq!(seconds("1m"), Ok(ms(60_000)));
        assert_eq!(milliseconds("20"), Ok(ms(20)));
        assert_eq!(milliseconds("0.5"), Ok(Duration::from_micros(500)));
        assert_eq!(milliseconds("1.5s"), Ok(ms(1_500)));
        for wrong in ["", "x", "-1", "10ms", "61", "2m", "1e1", "NaN"] {
            assert_eq!(
                seconds(wrong).unwrap_err(),
                "expected a time from 20ms to 60s, such as 20ms or 1.5s (without unit: s)"
            );
        }
    }
}
