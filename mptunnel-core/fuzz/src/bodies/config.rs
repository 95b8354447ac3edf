// SPDX-License-Identifier: BSD-2-Clause
//! Everything that a user writes: the file, the URI, options, paths, addresses, keys. It is taken
//! or refused with a message, and what was taken reads the same when it is written again.

use super::script::{Script, Seed};
use mptunnel_core::options::{
    ConfigFile, EndpointUri, HostPort, OPTIONS, PATH_WORDS, PathSpec, Place, Settings, Unit,
    format_duration, parse_duration, parse_listen,
};
use mptunnel_core::proto::crypto::{Psk, PublicKey, StaticSecret};

pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let kind = script.below(8);
    let second = script.u8();
    let rest = script.rest();
    let text = String::from_utf8_lossy(rest);
    match kind {
        0 => file(rest, second),
        1 => uri(&text),
        2 => option(&text, second),
        3 => path(&text),
        4 => word(&text, second),
        5 => address(&text),
        6 => {
            for unit in [Unit::Seconds, Unit::Milliseconds] {
                if let Some(time) = parse_duration(&text, unit) {
                    let again = parse_duration(&format_duration(time), unit);
                    assert_eq!(again, Some(time), "{text}");
                }
            }
        }
        _ => key(&text),
    }
}

fn file(bytes: &[u8], place: u8) {
    let places = [Place::ClientProgram, Place::ServerProgram, Place::ClientLibrary];
    let place = places[usize::from(place) % places.len()];
    match ConfigFile::parse("file", bytes, place) {
        Ok(file) => file.apply(&mut Settings::default()),
        Err(errors) => assert!(!errors.to_string().is_empty()),
    }
}

fn uri(text: &str) {
    match text.parse::<EndpointUri>() {
        Ok(uri) => {
            let _ = uri.settings();
            assert!(uri.paths.iter().all(|path| path.name.is_some()));
            same_again(&uri.at.to_string(), &uri.at);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn option(text: &str, which: u8) {
    let spec = &OPTIONS[usize::from(which) % OPTIONS.len()];
    let mut settings = Settings::default();
    if settings.set(spec.key, text).is_err() {
        return;
    }
    let Some(shown) = settings.get(spec.key) else { return };
    let mut again = Settings::default();
    again.set(spec.key, &shown).unwrap_or_else(|e| panic!("{text:?} shows as {shown:?}: {e}"));
    assert_eq!(again.get(spec.key), Some(shown), "{}={text:?}", spec.key);
}

fn path(text: &str) {
    match text.parse::<PathSpec>() {
        Ok(path) => same_again(&path.to_string(), &path),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn word(text: &str, which: u8) {
    let word = &PATH_WORDS[usize::from(which) % PATH_WORDS.len()];
    let mut path = PathSpec::default();
    let (first, second) = text.split_once(' ').unwrap_or((text, ""));
    for value in [first, second] {
        let before = path.clone();
        match path.set_word(word.key, value) {
            Ok(()) => same_again(&path.to_string(), &path),
            Err(_) => assert_eq!(path, before, "a refused word changes nothing"),
        }
    }
}

fn address(text: &str) {
    let _ = parse_listen(text);
    if let Ok(address) = text.parse::<HostPort>() {
        same_again(&address.to_string(), &address);
    }
}

fn key(text: &str) {
    if let Ok(key) = Psk::from_base64(text) {
        let again = Psk::from_base64(&key.to_base64()).expect("what was shown can be read");
        assert_eq!(again.expose(), key.expose());
    }
    let _ = StaticSecret::from_base64(text);
    let _ = PublicKey::from_base64(text);
}

fn same_again<T: std::str::FromStr + PartialEq + std::fmt::Debug>(shown: &str, value: &T) {
    let again = shown.parse::<T>().ok();
    assert_eq!(again.as_ref(), Some(value), "shows as {shown:?}");
}

pub fn seeds() -> Vec<Vec<u8>> {
    let seed = |kind: u8, which: u8, text: &str| {
        Seed::default().u8(kind).u8(which).bytes(text.as_bytes()).0
    };
    let file = "# a tunnel\nmode = fastest\nkey-file = /etc/k\nlisten = [::1]:4000\n\n\
                bridge1.example 4000 if=eth0 weight=3 rate=10m\nto=h:1 mtu=1400 role=backup\n";
    let mut seeds = vec![
        seed(0, 0, file),
        seed(0, 1, file),
        seed(1, 0, "mpt://vpn.example.org:4000?key-file=/etc/mpt.key&path=if=a&path=if=b,weight=3"),
        seed(1, 0, "mpt-listen://[::]:4000?sessions=5&mode=adaptive&log=%25%26"),
        seed(3, 0, "to=[fe80::1%25eth0]:4000,if=eth0,src=10.0.0.1,name=a,rate=1.5m,rate-down=auto"),
        seed(5, 0, "[fe80::1%eth0]:4000"),
        seed(5, 0, "0.0.0.0:4000"),
        seed(6, 0, "1.5s"),
        seed(6, 0, "250us"),
        seed(7, 0, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
    ];
    for (which, spec) in (0u8..).zip(OPTIONS) {
        seeds.push(seed(2, which, &Settings::default().get(spec.key).unwrap_or_default()));
    }
    for (which, word) in (0u8..).zip(PATH_WORDS) {
        seeds.push(seed(4, which, word.expected));
    }
    seeds
}
