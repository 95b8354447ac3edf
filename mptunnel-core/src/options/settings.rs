// SPDX-License-Identifier: BSD-2-Clause
//! The values of all options, typed.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::error::OptionError;
use super::nearest::nearest;
use super::spec::{Kind, OptionSpec};
use super::table::OPTIONS;
use super::value::Value;
use crate::keyfile;
pub use crate::proto::config::CipherChoice;
pub use crate::proto::sched::{Failback, Mode};

/// The values of all options. [`OPTIONS`] tells what each one means, its unit and its range.
///
/// A value that went through [`set`](Self::set) is within its range; whoever writes a field
/// directly keeps to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `mode`
    pub mode: Mode,
    /// `target-loss`, billionths
    pub target_loss_ppb: u32,
    /// `max-copies`; 0 = as many as there are paths
    pub max_copies: u8,
    /// `budget`, per cent; 0 = no limit
    pub budget: u16,
    /// `failback`
    pub failback: Failback,
    /// `key-file`
    pub key_file: Option<PathBuf>,
    /// `passphrase-file`
    pub passphrase_file: Option<PathBuf>,
    /// `private-key-file`
    pub private_key_file: Option<PathBuf>,
    /// `peer-key`
    pub peer_key: Option<[u8; 32]>,
    /// `allowed-keys-file`
    pub allowed_keys_file: Option<PathBuf>,
    /// `allow-insecure-keys`
    pub allow_insecure_keys: bool,
    /// `tunnel-name`
    pub tunnel_name: Option<String>,
    /// `name`
    pub name: Option<String>,
    /// `encrypt`
    pub encrypt: bool,
    /// `cipher`
    pub cipher: CipherChoice,
    /// `probe-interval`
    pub probe_interval: Duration,
    /// `idle-interval`
    pub idle_interval: Duration,
    /// `rekey-interval`
    pub rekey_interval: Duration,
    /// `window`, packets, a power of two
    pub window: u32,
    /// `window-memory`, bytes
    pub window_memory: u64,
    /// `max-payload`, bytes
    pub max_payload: u16,
    /// `mtu`, bytes; 0 = find out
    pub mtu: u16,
    /// `reorder`; zero = off
    pub reorder: Duration,
    /// `path-queue`
    pub path_queue: Duration,
    /// `reassembly-memory`, bytes
    pub reassembly_memory: u64,
    /// `sessions`
    pub sessions: u32,
    /// `session-timeout`
    pub session_timeout: Duration,
    /// `flows`
    pub flows: u16,
    /// `flow-timeout`
    pub flow_timeout: Duration,
    /// `handshake-rate`, per second
    pub handshake_rate: u32,
    /// `cookie-threshold`, per second; 0 = always
    pub cookie_threshold: u32,
    /// `source-rate`, per second
    pub source_rate: u32,
    /// `source-burst`
    pub source_burst: u32,
    /// `receive-queue`, bytes
    pub receive_queue: u64,
    /// `offload`
    pub offload: bool,
    /// `threads`
    pub threads: u8,
    /// `socket-buffer`, bytes
    pub socket_buffer: u64,
    /// `listen`
    pub listen: SocketAddr,
    /// `control`: a name, or `auto`, or `off`
    pub control: PathBuf,
    /// `metrics`
    pub metrics: Option<SocketAddr>,
    /// `protocol`
    pub protocol: Protocol,
    /// `obfuscate`
    pub obfuscate: bool,
    /// `legacy-state`
    pub legacy_state: Option<PathBuf>,
    /// `legacy-timeout`
    pub legacy_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            mode: Mode::Redundant,
            target_loss_ppb: 100_000,
            max_copies: 0,
            budget: 0,
            failback: Failback::Always,
            key_file: None,
            passphrase_file: None,
            private_key_file: None,
            peer_key: None,
            allowed_keys_file: None,
            allow_insecure_keys: false,
            tunnel_name: None,
            name: None,
            encrypt: true,
            cipher: CipherChoice::Auto,
            probe_interval: Duration::from_millis(250),
            idle_interval: Duration::from_secs(5),
            rekey_interval: Duration::from_secs(120),
            window: 1 << 18,
            window_memory: 64 << 20,
            max_payload: 65_507,
            mtu: 0,
            reorder: Duration::ZERO,
            path_queue: Duration::from_millis(50),
            reassembly_memory: 1 << 20,
            sessions: 4096,
            session_timeout: Duration::from_secs(180),
            flows: 1024,
            flow_timeout: Duration::from_secs(180),
            handshake_rate: 1000,
            cookie_threshold: 200,
            source_rate: 100,
            source_burst: 50,
            receive_queue: 4 << 20,
            offload: true,
            threads: 1,
            socket_buffer: 16 << 20,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 3000)),
            control: PathBuf::from("auto"),
            metrics: None,
            protocol: Protocol::Mptunnel,
            obfuscate: false,
            legacy_state: None,
            legacy_timeout: Duration::from_secs(60),
        }
    }
}

impl Settings {
    /// Sets the option `key` to what `value` says.
    ///
    /// # Errors
    ///
    /// Nothing changes if there is no such option, or if the value has the wrong form or is out of
    /// range; the error names key, value and what was expected.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), OptionError> {
        let spec = OptionSpec::find(key).ok_or_else(|| OptionError::Unknown {
            key: key.to_owned(),
            nearest: nearest(key, OPTIONS.iter().map(|spec| spec.key)),
        })?;
        if cfg!(not(feature = "passphrase")) && spec.key == "passphrase-file" {
            return Err(OptionError::NotBuilt { key: spec.key, feature: "passphrase" });
        }
        if spec.kind == Kind::File && keyfile::decode(value).is_some() {
            return Err(OptionError::KeyInsteadOfFile { key: spec.key });
        }
        let value = Value::parse(spec, value).ok_or_else(|| OptionError::value(spec, value))?;
        (spec.put)(self, value);
        Ok(())
    }

    /// The value of the option `key` as text that [`set`](Self::set) reads back. `None` if it is
    /// not set, or if there is no such option.
    pub fn get(&self, key: &str) -> Option<String> {
        let spec = OptionSpec::find(key)?;
        (spec.get)(self).map(|value| value.to_text())
    }
}

/// What travels between the two ends.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Protocol {
    /// Encrypted and authenticated: `PROTOCOL.md`.
    #[default]
    Mptunnel,
    /// That of the classic mptunnel: no key, no encryption, no authentication.
    Legacy,
}

impl Protocol {
    pub(super) const WORDS: &'static [&'static str] = &["mptunnel", "legacy"];

    /// The word for this protocol in options.
    pub const fn word(self) -> &'static str {
        match self {
            Protocol::Mptunnel => "mptunnel",
            Protocol::Legacy => "legacy",
        }
    }
}

/// The conversions that the table uses. Each is right for the kind that its row declares, and for
/// a range that fits the field; the tests of the table set every option to both ends of its range.
impl Value {
    pub(super) fn mode(self) -> Mode {
        match self {
            Value::Choice(word) => {
                Mode::of_word(word).unwrap_or_else(|| mismatch("mode", &Value::Choice(word)))
            }
            other => mismatch("mode", &other),
        }
    }

    pub(super) fn failback(self) -> Failback {
        match self {
            Value::Choice(word) => Failback::of_word(word)
                .unwrap_or_else(|| mismatch("fail-back", &Value::Choice(word))),
            other => mismatch("fail-back", &other),
        }
    }

    pub(super) fn share<T: TryFrom<u64>>(self) -> T {
        match self {
            Value::Share(n) => {
                T::try_from(n).unwrap_or_else(|_| mismatch("share", &Value::Share(n)))
            }
            other => mismatch("share", &other),
        }
    }

    pub(super) fn cipher(self) -> CipherChoice {
        match self {
            Value::Choice("auto") => CipherChoice::Auto,
            Value::Choice("chacha20") => CipherChoice::ChaCha20,
            Value::Choice("aes256gcm") => CipherChoice::Aes256Gcm,
            other => mismatch("cipher", &other),
        }
    }

    pub(super) fn protocol(self) -> Protocol {
        match self {
            Value::Choice("mptunnel") => Protocol::Mptunnel,
            Value::Choice("legacy") => Protocol::Legacy,
            other => mismatch("protocol", &other),
        }
    }

    pub(super) fn switch(self) -> bool {
        match self {
            Value::Switch(on) => on,
            other => mismatch("switch", &other),
        }
    }

    pub(super) fn duration(self) -> Duration {
        match self {
            Value::Duration(duration) => duration,
            other => mismatch("duration", &other),
        }
    }

    pub(super) fn number<T: TryFrom<u64>>(self) -> T {
        match self {
            Value::Number(n) => {
                T::try_from(n).unwrap_or_else(|_| mismatch("number", &Value::Number(n)))
            }
            other => mismatch("number", &other),
        }
    }

    pub(super) fn size(self) -> u64 {
        match self {
            Value::Size(n) => n,
            other => mismatch("size", &other),
        }
    }

    pub(super) fn text(self) -> String {
        match self {
            Value::Text(text) => text,
            other => mismatch("text", &other),
        }
    }

    pub(super) fn file(self) -> PathBuf {
        match self {
            Value::File(path) => path,
            other => mismatch("file", &other),
        }
    }

    pub(super) fn public_key(self) -> [u8; 32] {
        match self {
            Value::PublicKey(key) => key,
            other => mismatch("public key", &other),
        }
    }

    pub(super) fn listen(self) -> SocketAddr {
        match self {
            Value::Listen(addr) => addr,
            other => mismatch("address", &other),
        }
    }
}

fn mismatch(wanted: &str, value: &Value) -> ! {
    panic!("a row of the option table stores {value:?} in a field that holds a {wanted}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::value;

    #[test]
    fn the_defaults_are_those_of_the_table() {
        for spec in OPTIONS {
            let mut settings = Settings::default();
            assert_eq!(settings.get(spec.key).as_deref(), spec.default, "{}", spec.key);

            if let Some(default) = spec.default {
                settings.set(spec.key, default).unwrap();
                assert_eq!(settings, Settings::default(), "{}", spec.key);
            }
        }
    }

    #[test]
    fn every_option_round_trips_and_changes_its_own_field_only() {
        for spec in OPTIONS {
            for text in samples(spec) {
                let mut settings = Settings::default();
                settings.set(spec.key, &text).unwrap();
                let read = settings.get(spec.key).unwrap();
                let mut again = Settings::default();
                again.set(spec.key, &read).unwrap();

                assert_eq!(again, settings, "{} = {text}", spec.key);
                for other in OPTIONS.iter().filter(|other| other.key != spec.key) {
                    assert_eq!(settings.get(other.key).as_deref(), other.default, "{}", other.key);
                }
            }
        }
    }

    #[test]
    fn every_setter_has_an_effect() {
        // An option that is not built in has no value at all.
        let settable = |spec: &&OptionSpec| !samples(spec).is_empty();
        for spec in OPTIONS.iter().filter(settable) {
            let changed = samples(spec).iter().any(|text| {
                let mut settings = Settings::default();
                settings.set(spec.key, text).unwrap();
                settings != Settings::default()
            });

            assert!(changed, "{}", spec.key);
        }
    }

    #[test]
    fn both_ends_of_each_range_are_taken_and_one_past_them_is_refused() {
        for spec in OPTIONS {
            let Some(range) = spec.range else { continue };
            let mut settings = Settings::default();
            let mut set = |n: u64| settings.set(spec.key, &at(spec, n));

            set(range.min).unwrap();
            set(range.max).unwrap();
            assert!(set(range.max + 1).is_err(), "{}", spec.key);
            match (range.min - 1, range.zero) {
                (0, Some(_)) => set(0).unwrap(),
                (below, _) => assert!(set(below).is_err(), "{}", spec.key),
            }
        }
    }

    #[test]
    fn a_refused_value_changes_nothing_and_the_error_says_what_was_expected() {
        let mut settings = Settings::default();

        let error = settings.set("probe-interval", "10s").unwrap_err();

        assert_eq!(
            error.to_string(),
            "probe-interval = \"10s\": expected a duration from 50ms to 5s (without unit: ms), \
             such as 250ms, 1.5s or 2m"
        );
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn a_misspelt_key_brings_the_nearest_one() {
        let error = Settings::default().set("porbe-interval", "1s").unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown option \"porbe-interval\": did you mean \"probe-interval\"?"
        );

        let error = Settings::default().set("probe_interval", "1s").unwrap_err();
        assert!(error.to_string().ends_with("did you mean \"probe-interval\"?"));

        let error = Settings::default().set("banana", "1").unwrap_err();
        assert_eq!(error.to_string(), "unknown option \"banana\"");
    }

    #[test]
    fn a_key_in_place_of_its_file_is_refused_and_not_repeated() {
        let key = keyfile::encode(&[7; 32]);
        for spec in OPTIONS.iter().filter(|spec| spec.kind == Kind::File) {
            if cfg!(not(feature = "passphrase")) && spec.key == "passphrase-file" {
                continue;
            }
            let error = Settings::default().set(spec.key, &key).unwrap_err();

            assert_eq!(error, OptionError::KeyInsteadOfFile { key: spec.key });
            assert!(!error.to_string().contains(key.as_str()));
        }
    }

    #[test]
    fn a_window_is_rounded_up_to_a_power_of_two() {
        let mut settings = Settings::default();
        settings.set("window", "4097").unwrap();
        assert_eq!(settings.window, 8192);
        settings.set("window", "4194304").unwrap();
        assert_eq!(settings.window, 4_194_304);
    }

    #[test]
    fn listening_on_a_port_alone_is_on_loopback() {
        let mut settings = Settings::default();
        settings.set("listen", "3001").unwrap();
        assert_eq!(settings.listen, "127.0.0.1:3001".parse().unwrap());
        settings.set("listen", "[::]:3001").unwrap();
        assert_eq!(settings.listen, "[::]:3001".parse().unwrap());
    }

    #[test]
    fn keys_are_unique_kebab_case_and_help_is_one_short_line() {
        for (index, spec) in OPTIONS.iter().enumerate() {
            assert!(OPTIONS[..index].iter().all(|other| other.key != spec.key), "{}", spec.key);
            assert!(
                spec.key.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
                "{} is not kebab-case",
                spec.key
            );
            assert!(spec.help.len() <= 90, "the help of {} is too long", spec.key);
            assert!(!spec.help.contains(['\n', '|']) && !spec.help.ends_with('.'));
            assert!(spec.range.is_none_or(|range| range.min > 0 && range.min < range.max));
        }
    }

    #[cfg(not(feature = "passphrase"))]
    #[test]
    fn a_passphrase_is_refused_by_a_build_without_it() {
        let error = Settings::default().set("passphrase-file", "f").unwrap_err();
        assert_eq!(error, OptionError::NotBuilt { key: "passphrase-file", feature: "passphrase" });
    }

    /// Valid values of an option, several if its kind has several forms.
    fn samples(spec: &OptionSpec) -> Vec<String> {
        if cfg!(not(feature = "passphrase")) && spec.key == "passphrase-file" {
            return vec![];
        }
        match (spec.kind, spec.range) {
            (Kind::Choice(words), _) => words.iter().map(|word| (*word).to_owned()).collect(),
            (Kind::Switch, _) => vec!["on".into(), "off".into()],
            (Kind::Text, _) => vec!["a name with blanks = and more".into()],
            (Kind::File, _) => vec!["/etc/mptunnel/psk".into(), "a file".into()],
            (Kind::PublicKey, _) => vec![keyfile::encode(&[9; 32]).to_string()],
            (Kind::Listen, _) => vec!["1234".into(), "0.0.0.0:1".into(), "[::1]:65535".into()],
            (_, Some(range)) => vec![at(spec, range.min), at(spec, range.max)],
            (_, None) => panic!("{} is a number without a range", spec.key),
        }
    }

    /// The value of `spec` that its range counts as `n`.
    fn at(spec: &OptionSpec, n: u64) -> String {
        match spec.kind {
            Kind::Text => "x".repeat(usize::try_from(n).unwrap()),
            kind => value::format_bound(kind, n),
        }
    }
}
