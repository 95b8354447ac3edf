// SPDX-License-Identifier: BSD-2-Clause
//! Where the log of a program goes: to standard error, one line per record.
//!
//! On a terminal or in a file each line begins with the time (UTC) and the level. Under systemd the
//! journal adds the time by itself, and takes the level from the prefix `<N>` (sd-daemon(3)).

use std::env;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use env_logger::{Builder, Target};
use log::{Level, LevelFilter, Record};

/// How much is logged, as the flags `-v` and `-q` ask for it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Verbosity {
    /// `-qq`: only what ends the program.
    Errors,
    /// `-q`: what is unusual as well.
    Warnings,
    /// What the operator cares about: paths and sessions that come and go.
    #[default]
    Normal,
    /// `-v`: each decision off the happy path, each flow.
    Debug,
    /// `-vv`: everything.
    Trace,
}

impl Verbosity {
    /// What `verbose` times `-v` or `quiet` times `-q` ask for.
    pub fn from_flags(verbose: u8, quiet: u8) -> Verbosity {
        match (verbose, quiet) {
            (0, 0) => Verbosity::Normal,
            (0, 1) => Verbosity::Warnings,
            (0, _) => Verbosity::Errors,
            (1, _) => Verbosity::Debug,
            (_, _) => Verbosity::Trace,
        }
    }

    fn filter(self) -> LevelFilter {
        match self {
            Verbosity::Errors => LevelFilter::Error,
            Verbosity::Warnings => LevelFilter::Warn,
            Verbosity::Normal => LevelFilter::Info,
            Verbosity::Debug => LevelFilter::Debug,
            Verbosity::Trace => LevelFilter::Trace,
        }
    }
}

/// Starts logging. `RUST_LOG` (such as `warn,mptunnel::path=debug`) goes before `verbosity`. A
/// second call changes nothing.
pub fn init(verbosity: Verbosity) {
    let mut builder = Builder::new();
    match env::var("RUST_LOG") {
        Ok(filters) if !filters.is_empty() => builder.parse_filters(&filters),
        _ => builder.filter_level(verbosity.filter()),
    };
    let style = if is_journal() { Style::Journal } else { Style::Plain };
    builder
        .target(Target::Stderr)
        .format(move |out, record| writeln!(out, "{}", line(style, time_of_day(), record)));
    // It fails only if there is a logger already: then that one stays.
    let _ = builder.try_init();
}

#[derive(Clone, Copy)]
enum Style {
    Plain,
    Journal,
}

/// One record as a line, without its end.
fn line(style: Style, since_epoch: Duration, record: &Record<'_>) -> String {
    let mut text = match style {
        Style::Journal => format!("<{}>", priority(record.level())),
        Style::Plain => {
            format!("{} {} ", utc(since_epoch), record.level().as_str().to_ascii_lowercase())
        }
    };
    // Which part of the program speaks matters only to those who look closely.
    if record.level() >= Level::Debug {
        let _ = write!(text, "{}: ", record.target());
    }
    for c in record.args().to_string().chars() {
        // Names and errors come from elsewhere: they must not forge lines or colours.
        if c.is_control() {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text
}

/// The level as syslog(3) counts it.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Whether standard error goes to the journal: JOURNAL_STREAM names the device and the inode of
/// the stream (systemd.exec(5)), and is inherited by processes whose output goes elsewhere.
#[cfg(target_os = "linux")]
fn is_journal() -> bool {
    use std::os::linux::fs::MetadataExt;

    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    std::fs::metadata("/proc/self/fd/2")
        .is_ok_and(|file| stream == format!("{}:{}", file.st_dev(), file.st_ino()))
}

#[cfg(not(target_os = "linux"))]
fn is_journal() -> bool {
    false
}

#[expect(clippy::disallowed_methods, reason = "the time is printed and nothing depends on it")]
fn time_of_day() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Now, as [`utc`] writes it.
pub(crate) fn now_utc() -> String {
    utc(time_of_day())
}

/// `2026-03-01T12:34:56.789Z` (RFC 3339).
fn utc(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let millis = since_epoch.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Year, month and day of the Gregorian calendar, `days` after 1970-01-01.
///
/// Counted from 1 March of the year 0, so that the leap day is the last of its year. Then 400 years
/// have 146,097 days, and the months from March on have 31, 30, 31, 30, 31 days, again and again,
/// which is `(153 * month + 2) / 5` days before each.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year_of_era + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(style: Style, level: Level, message: &str) -> String {
        let time = Duration::from_millis(1_772_368_496_789);
        let mut builder = Record::builder();
        line(
            style,
            time,
            &builder.level(level).target("mptunnel::path").args(format_args!("{message}")).build(),
        )
    }

    #[test]
    fn a_plain_line_has_time_and_level_and_its_origin_from_debug_on() {
        assert_eq!(
            record(Style::Plain, Level::Info, "path lte is up"),
            "2026-03-01T12:34:56.789Z info path lte is up"
        );
        assert_eq!(
            record(Style::Plain, Level::Debug, "probe lost"),
            "2026-03-01T12:34:56.789Z debug mptunnel::path: probe lost"
        );
    }

    #[test]
    fn a_line_for_the_journal_has_a_priority_and_no_time() {
        assert_eq!(record(Style::Journal, Level::Error, "x"), "<3>x");
        assert_eq!(record(Style::Journal, Level::Warn, "x"), "<4>x");
        assert_eq!(record(Style::Journal, Level::Info, "x"), "<6>x");
        assert_eq!(record(Style::Journal, Level::Trace, "x"), "<7>mptunnel::path: x");
    }

    #[test]
    fn a_message_cannot_forge_a_line_or_colour_the_terminal() {
        assert_eq!(
            record(Style::Journal, Level::Info, "a\n<0>b\u{1b}[31mä"),
            "<6>a\\n<0>b\\u{1b}[31mä"
        );
    }

    #[test]
    fn dates_follow_the_gregorian_calendar() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (789, (1972, 2, 29)),
            (10_956, (1999, 12, 31)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_513, (2026, 3, 1)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected, "{days}");
        }
    }

    #[test]
    fn flags_move_the_level_in_steps() {
        assert_eq!(Verbosity::from_flags(0, 0), Verbosity::Normal);
        assert_eq!(Verbosity::from_flags(0, 1), Verbosity::Warnings);
        assert_eq!(Verbosity::from_flags(0, 7), Verbosity::Errors);
        assert_eq!(Verbosity::from_flags(1, 0), Verbosity::Debug);
        assert_eq!(Verbosity::from_flags(7, 0), Verbosity::Trace);
    }
}
