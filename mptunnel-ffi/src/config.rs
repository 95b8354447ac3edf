// SPDX-License-Identifier: BSD-2-Clause
//! `mpt_config_t`: a bag of options.

use crate::boundary::{Fail, boundary, guarded, remember_fail};
use crate::callback::{LogHook, Logger, User, mpt_log_fn, mpt_socket_hook};
use crate::pointer::{print, text};
use crate::registry;
use crate::status::Status;
use log::LevelFilter;
use mptunnel_core::options::{OPTIONS, OptionSpec, Place};
use mptunnel_core::{Config, keyfile};
use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::{Arc, OnceLock};

/// A bag of options for any number of endpoints; opaque.
pub struct mpt_config {
    _private: [u8; 0],
}

/// A bag of options for any number of endpoints; opaque.
pub type mpt_config_t = mpt_config;

/// What a config holds.
#[derive(Default)]
pub(crate) struct ConfigState {
    pub(crate) config: Config,
    pub(crate) socket_hook: mpt_socket_hook,
    pub(crate) socket_user: Option<User>,
    pub(crate) log: Option<Arc<LogHook>>,
}

const KEY: (&str, &str) = ("the key is NULL", "the key is not UTF-8");
const VALUE: (&str, &str) = ("the value is NULL", "the value is not UTF-8");

/// == Options ==
///
/// Makes an empty bag of options. Every option that is not set has its default. Free it with
/// mpt_config_free(). Returns NULL if memory has run out, or in a callback.
#[unsafe(no_mangle)]
pub extern "C" fn mpt_config_new() -> *mut mpt_config_t {
    let made = guarded(|| registry::add_config(ConfigState::default()));
    made.map_or_else(
        |fail| {
            remember_fail(fail);
            ptr::null_mut()
        },
        ptr::without_provenance_mut,
    )
}

/// Frees a config. Endpoints that were opened with it are not affected. NULL, and what is not an
/// open config, is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn mpt_config_free(config: *mut mpt_config_t) {
    let _ = guarded(|| registry::remove_config(config.addr()));
}

/// Sets an option, or adds a path with the key "path", up to 32 of them. The last value of an
/// option counts.
///
/// mpt_option_name() lists the keys, mpt_option_help() explains each, with units, range and
/// default. Values are text, such as "2s", "256KiB", "on".
///
/// MPT_ECONFIG: no such option, or the value has the wrong form or is out of range (the message
/// says what was expected); nothing has changed. Whether the option belongs to this end is checked
/// by mpt_open().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpt_config_set(
    config: *mut mpt_config_t,
    key: *const c_char,
    value: *const c_char,
) -> c_int {
    boundary(|| {
        let state = registry::config(config.addr())?;
        // SAFETY: strings as the header describes them.
        let (key, value) = unsafe { (text(key, KEY.0, KEY.1)?, text(value, VALUE.0, VALUE.1)?) };
        registry::lock(&state).config.set(key, value)?;
        Ok(0)
    })
}

/// The key that both ends share itself, in place of the file that the option key-file names: the 44
/// characters that mpt_genkey() made. It is copied; wipe your own copy when you like.
///
/// MPT_ECONFIG: this is no key; nothing has changed. (The text is in no message.)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpt_config_set_key(
    config: *mut mpt_config_t,
    key: *const c_char,
) -> c_int {
    boundary(|| {
        let state = registry::config(config.addr())?;
        // SAFETY: a string as the header describes it.
        let key = unsafe { text(key, KEY.0, KEY.1) }?;
        let Some(key) = keyfile::decode(key.trim()) else {
            let why = "key: expected the 44 characters of base64 that mpt_genkey() made";
            return Err(Fail::of(Status::MPT_ECONFIG, why));
        };
        registry::lock(&state).config.key(&key);
        Ok(0)
    })
}

/// Takes the options and paths of a configuration file: lines `KEY = VALUE`, and for a client
/// `HOST PORT WORDS`.
///
/// MPT_ECONFIG: the file cannot be read, or some of its lines are not understood, of which the
/// first 20 are in the message; then nothing of it is taken.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpt_config_load(config: *mut mpt_config_t, file: *const c_char) -> c_int {
    boundary(|| {
        let state = registry::config(config.addr())?;
        // SAFETY: a string as the header describes it.
        let file = unsafe { text(file, "the file is NULL", "the name of the file is not UTF-8") }?;
        registry::lock(&state).config.load(file)?;
        Ok(0)
    })
}

/// The value of an option in a config as text, its default if it was not set, "" without either;
/// in the manner of mpt_get().
///
/// MPT_ECONFIG: there is no such option.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpt_config_get(
    config: *mut mpt_config_t,
    key: *const c_char,
    buf: *mut c_char,
    cap: usize,
) -> isize {
    boundary(|| {
        let state = registry::config(config.addr())?;
        // SAFETY: a string as the header describes it.
        let key = unsafe { text(key, KEY.0, KEY.1) }?;
        if !OPTIONS.iter().any(|option| option.key == key) {
            return Err(Fail::new(Status::MPT_ECONFIG, format!("unknown option {key:?}")));
        }
        let value = registry::lock(&state).config.get(key).unwrap_or_default();
        // SAFETY: a buffer as the header describes it.
        unsafe { print(&value, buf, cap) }
    })
}

/// Has every socket of endpoints that are opened with this config shown to `hook` before it is
/// used; NULL: none. See mpt_socket_hook.
#[unsafe(no_mangle)]
pub extern "C" fn mpt_config_set_socket_hook(
    config: *mut mpt_config_t,
    hook: mpt_socket_hook,
    user: *mut c_void,
) -> c_int {
    boundary(|| {
        let state = registry::config(config.addr())?;
        let mut state = registry::lock(&state);
        (state.socket_hook, state.socket_user) = (hook, Some(User(user)));
        Ok(0)
    })
}

/// Has the messages of endpoints that are opened with this config, up to `max_level` (0 none,
/// 1 errors, to 5 everything), passed to `hook`; NULL: none, which is the default. The library
/// itself never prints. See mpt_log_fn.
///
/// MPT_ENOTSUP: the program is written in Rust and has a logger already, which gets the messages.
#[unsafe(no_mangle)]
pub extern "C" fn mpt_config_set_log(
    config: *mut mpt_config_t,
    hook: mpt_log_fn,
    user: *mut c_void,
    max_level: c_int,
) -> c_int {
    boundary(|| {
        let state = registry::config(config.addr())?;
        let level = match max_level {
            0 => LevelFilter::Off,
            1 => LevelFilter::Error,
            2 => LevelFilter::Warn,
            3 => LevelFilter::Info,
            4 => LevelFilter::Debug,
            5 => LevelFilter::Trace,
            _ => return Err(Fail::invalid("max_level is not from 0 to 5")),
        };
        if hook.is_some() && !Logger::install() {
            return Err(Fail::of(Status::MPT_ENOTSUP, "this program has a logger already"));
        }
        registry::lock(&state).log = hook.map(|hook| LogHook::new(hook, User(user), level));
        Ok(0)
    })
}

/// The key of the option number `index`, from 0; NULL behind the last one. Static strings.
#[unsafe(no_mangle)]
pub extern "C" fn mpt_option_name(index: usize) -> *const c_char {
    static NAMES: OnceLock<Vec<CString>> = OnceLock::new();
    of_option(&NAMES, index, |option| option.key.to_owned())
}

/// What the option number `index` means, for the help of a program: whose it is, whether mpt_set()
/// takes it, what a value looks like with unit and range, and the default, in one line; NULL behind
/// the last one. Static strings.
#[unsafe(no_mangle)]
pub extern "C" fn mpt_option_help(index: usize) -> *const c_char {
    static HELPS: OnceLock<Vec<CString>> = OnceLock::new();
    of_option(&HELPS, index, help)
}

fn of_option(
    all: &'static OnceLock<Vec<CString>>,
    index: usize,
    text: fn(&OptionSpec) -> String,
) -> *const c_char {
    let found = guarded(|| {
        let texts = || OPTIONS.iter().map(|option| CString::new(text(option)).unwrap_or_default());
        Ok(all
            .get_or_init(|| texts().collect())
            .get(index)
            .map_or(ptr::null(), |text| text.as_ptr()))
    });
    found.unwrap_or(ptr::null())
}

fn help(option: &OptionSpec) -> String {
    let covers = |place| option.scope.covers(place);
    let whose = match (covers(Place::ClientLibrary), covers(Place::ServerLibrary)) {
        (true, true) => "both ends",
        (true, false) => "clients",
        (false, true) => "servers",
        (false, false) => "the programs mpclient and mpserver only",
    };
    let live = if option.live { ", live" } else { "" };
    let default = option.default.unwrap_or("not set");
    let (what, expected) = (option.help, option.expected());
    format!("{what} ({whose}{live}): {expected}; default: {default}")
}
