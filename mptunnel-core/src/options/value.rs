// SPDX-License-Identifier: BSD-2-Clause
//! Text to value and back: durations, sizes, counts, switches.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::host::parse_listen;
use super::spec::{Kind, OptionSpec, Range, Unit};
use crate::keyfile;

/// A value of one of the kinds of the table, checked against its range.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Choice(&'static str),
    Switch(bool),
    Duration(Duration),
    Number(u64),
    Size(u64),
    /// In billionths.
    Share(u64),
    Text(String),
    File(PathBuf),
    PublicKey([u8; 32]),
    Listen(SocketAddr),
}

impl Value {
    /// Reads `text` as a value of `spec`. `None` if it has another form or is out of range.
    pub fn parse(spec: &OptionSpec, text: &str) -> Option<Value> {
        match spec.kind {
            Kind::Choice(words) => {
                words.iter().find(|word| **word == text).map(|w| Value::Choice(w))
            }
            Kind::Switch => parse_switch(text).map(Value::Switch),
            Kind::Duration => {
                let duration = parse_duration(text, spec.unit)?;
                let in_range = spec.range.is_none_or(|range| {
                    (Duration::from_millis(range.min)..=Duration::from_millis(range.max))
                        .contains(&duration)
                        || (duration.is_zero() && range.contains(0))
                });
                in_range.then_some(Value::Duration(duration))
            }
            Kind::Size => in_range(spec.range, parse_size(text)?).map(Value::Size),
            Kind::Count => in_range(spec.range, parse_count(text)?).map(Value::Number),
            Kind::Share => in_range(spec.range, parse_share(text)?).map(Value::Share),
            Kind::Text => {
                let clean = text.trim() == text && !text.chars().any(char::is_control);
                in_range(spec.range, u64::try_from(text.len()).ok()?)?;
                clean.then(|| Value::Text(text.to_owned()))
            }
            Kind::File => {
                let clean = !text.is_empty() && !text.contains('\0');
                clean.then(|| Value::File(PathBuf::from(text)))
            }
            Kind::PublicKey => keyfile::decode(text).map(|key| Value::PublicKey(*key)),
            Kind::Listen => match parse_listen(text).ok()? {
                (Some(ip), port) => Some(Value::Listen(SocketAddr::new(ip, port))),
                (None, port) => Some(Value::Listen(SocketAddr::from(([127, 0, 0, 1], port)))),
            },
        }
    }

    /// The text that [`parse`](Self::parse) reads as this value.
    pub fn to_text(&self) -> String {
        match self {
            Value::Choice(word) => (*word).to_owned(),
            Value::Switch(true) => "on".to_owned(),
            Value::Switch(false) => "off".to_owned(),
            Value::Duration(duration) => format_duration(*duration),
            Value::Number(n) => n.to_string(),
            Value::Size(n) => format_size(*n),
            Value::Share(n) => format_share(*n),
            Value::Text(text) => text.clone(),
            // A name that is no UTF-8 can only have come from a typed field, not through `parse`.
            Value::File(path) => path.to_string_lossy().into_owned(),
            Value::PublicKey(key) => keyfile::encode(key).to_string(),
            Value::Listen(addr) => addr.to_string(),
        }
    }
}

fn in_range(range: Option<Range>, n: u64) -> Option<u64> {
    range.is_none_or(|range| range.contains(n)).then_some(n)
}

fn parse_switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "yes" | "true" | "1" => Some(true),
        "off" | "no" | "false" | "0" => Some(false),
        _ => None,
    }
}

/// Reads a time as options take it: `250ms`, `1.5 s`, `2m`, `1h`, `500us`; a bare number counts in
/// `unit`, seconds or milliseconds. `None` if it is none, or finer than a microsecond.
pub fn parse_duration(text: &str, unit: Unit) -> Option<Duration> {
    let (number, suffix) = split_unit(text);
    let micros = match suffix {
        "us" | "µs" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" | "min" => 60_000_000,
        "h" => 3_600_000_000,
        "" if unit == Unit::Seconds => 1_000_000,
        "" => 1_000,
        _ => return None,
    };
    scaled(number, micros).map(Duration::from_micros)
}

/// Reads `65536`, `256KiB`, `4M`, `1.5G`. K, M, G alone or with `iB` are powers of 1024, with `B`
/// powers of 1000, as in GNU coreutils.
fn parse_size(text: &str) -> Option<u64> {
    let (number, suffix) = split_unit(text);
    let factor = match suffix {
        "" | "B" => 1,
        "K" | "k" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    scaled(number, factor)
}

fn parse_count(text: &str) -> Option<u64> {
    // `u64::from_str` also takes a leading plus sign, which nobody means.
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Reads `0.0001`, `1e-4`, `0.01%`, in billionths. What has no whole number of them is a mistake.
fn parse_share(text: &str) -> Option<u64> {
    let (number, billionths) = match text.strip_suffix('%') {
        Some(number) => (number.trim_end(), 1e7),
        None => (text, 1e9),
    };
    let plain = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '-');
    let value: f64 = number.chars().all(plain).then(|| number.parse().ok())??;
    let scaled = value * billionths;
    let whole = scaled.round();
    let exact = (scaled - whole).abs() < 1e-3 && (0.0..=1e9).contains(&whole);
    exact.then_some(whole as u64)
}

fn format_share(n: u64) -> String {
    (n as f64 / 1e9).to_string()
}

/// Splits `1.5 s` into `1.5` and `s`.
fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    (number, suffix.trim_start())
}

/// `number` (digits with at most one point between them) times `factor`. `None` unless the result
/// is a whole number: 0.5 bytes are a mistake, not something to round.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
        Some(_) => return None,
        None => (number, ""),
    };
    if whole.is_empty() || fraction.len() > MAX_DECIMALS {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let divisor = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let scaled = digits.checked_mul(u128::from(factor))?;
    if scaled % divisor != 0 {
        return None;
    }
    u64::try_from(scaled / divisor).ok()
}

/// A time as options show it: the shortest exact text in `s`, `ms` or `us`.
pub fn format_duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    if micros.is_multiple_of(1_000_000) {
        format!("{}s", micros / 1_000_000)
    } else if micros.is_multiple_of(1_000) {
        format!("{}ms", micros / 1_000)
    } else {
        format!("{micros}us")
    }
}

fn format_size(n: u64) -> String {
    for (suffix, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if n != 0 && n.is_multiple_of(1 << shift) {
            return format!("{}{suffix}", n >> shift);
        }
    }
    n.to_string()
}

/// One end of a range as text: see [`Range`] for what it counts.
pub fn format_bound(kind: Kind, n: u64) -> String {
    match kind {
        Kind::Duration => format_duration(Duration::from_millis(n)),
        Kind::Size => format_size(n),
        Kind::Share => format_share(n),
        _ => n.to_string(),
    }
}

/// Digits after the point. Nine are a billionth of the unit: more than any option can use.
const MAX_DECIMALS: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_human_units_and_decimals() {
        let parse = |text| parse_duration(text, Unit::Milliseconds);

        assert_eq!(parse("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse("5s"), Some(Duration::from_secs(5)));
        assert_eq!(parse("5 s"), Some(Duration::from_secs(5)));
        assert_eq!(parse("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(parse("0.000001s"), Some(Duration::from_micros(1)));
        assert_eq!(parse("2m"), Some(Duration::from_secs(120)));
        assert_eq!(parse("2min"), Some(Duration::from_secs(120)));
        assert_eq!(parse("1h"), Some(Duration::from_secs(3600)));
        assert_eq!(parse("500us"), Some(Duration::from_micros(500)));
    }

    #[test]
    fn a_bare_number_counts_in_the_unit_of_the_option() {
        assert_eq!(parse_duration("7", Unit::Milliseconds), Some(Duration::from_millis(7)));
        assert_eq!(parse_duration("7", Unit::Seconds), Some(Duration::from_secs(7)));
    }

    #[test]
    fn malformed_durations_are_refused() {
        for text in [
            "",
            " ",
            "s",
            "ms",
            "-1s",
            "+1s",
            "1..5s",
            "1.s",
            ".5s",
            "1.5.5s",
            "5x",
            "5 s s",
            "1e3s",
            "0.0000001s",
            "0.0000000001s",
            "99999999999999999999h",
            "1s ",
            "５s",
        ] {
            assert_eq!(parse_duration(text, Unit::Seconds), None, "{text:?}");
        }
    }

    #[test]
    fn sizes_follow_the_conventions_of_coreutils() {
        assert_eq!(parse_size("65536"), Some(65536));
        assert_eq!(parse_size("256KiB"), Some(256 * 1024));
        assert_eq!(parse_size("4M"), Some(4 << 20));
        assert_eq!(parse_size("4MiB"), Some(4 << 20));
        assert_eq!(parse_size("4MB"), Some(4_000_000));
        assert_eq!(parse_size("1.5 K"), Some(1536));
        assert_eq!(parse_size("1G"), Some(1 << 30));
        for text in ["", "K", "0.1K", "4m", "4Mi", "4TiB", "99999999999999G", "-1"] {
            assert_eq!(parse_size(text), None, "{text:?}");
        }
    }

    #[test]
    fn shares_are_decimals_powers_of_ten_or_per_cent() {
        for (text, expected) in [
            ("0.0001", 100_000),
            ("1e-4", 100_000),
            ("0.01%", 100_000),
            ("0.01 %", 100_000),
            ("0.5", 500_000_000),
            ("1e-9", 1),
            ("0", 0),
        ] {
            assert_eq!(parse_share(text), Some(expected), "{text}");
            assert_eq!(parse_share(&format_share(expected)), Some(expected), "{text}");
        }
        for text in ["", "%", "-1e-4", "+0.1", "inf", "nan", "1e-10", "0,1", "2", "1e-4x", "e"] {
            assert_eq!(parse_share(text), None, "{text:?}");
        }
    }

    #[test]
    fn counts_are_digits_and_nothing_else() {
        assert_eq!(parse_count("4096"), Some(4096));
        for text in ["", "+1", "-1", "1 ", "0x10", "1_000", "1.0", "18446744073709551616"] {
            assert_eq!(parse_count(text), None, "{text:?}");
        }
    }

    #[test]
    fn switches_take_the_usual_words_in_any_case() {
        for text in ["on", "yes", "true", "1", "ON", "Yes"] {
            assert_eq!(parse_switch(text), Some(true), "{text:?}");
        }
        for text in ["off", "no", "false", "0", "OFF"] {
            assert_eq!(parse_switch(text), Some(false), "{text:?}");
        }
        for text in ["", "2", "onn", "enable"] {
            assert_eq!(parse_switch(text), None, "{text:?}");
        }
    }

    #[test]
    fn formatted_durations_and_sizes_read_back_unchanged() {
        for micros in [0, 1, 999, 1_000, 1_500, 999_999, 1_000_000, 90_000_000, 86_400_000_000] {
            let duration = Duration::from_micros(micros);
            let text = format_duration(duration);
            assert_eq!(parse_duration(&text, Unit::Milliseconds), Some(duration), "{text}");
        }
        for n in [0, 1, 1023, 1024, 1025, 65507, 1 << 20, (1 << 20) + 1024, 3 << 30] {
            let text = format_size(n);
            assert_eq!(parse_size(&text), Some(n), "{text}");
        }
    }
}
