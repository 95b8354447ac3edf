// SPDX-License-Identifier: BSD-2-Clause
//! A panic within any entry point: the call says so, that handle is dead, and others live.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "all of them pass live locals of the right size, strings, or NULL where it is allowed"
)]
#![allow(clippy::disallowed_methods, reason = "one call waits in a thread of its own")]

use mptunnel::*;
use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;

const PANIC: c_int = mpt_status::MPT_EPANIC as c_int;
const KEY: &CStr = c"idle-interval";

fn key_file() -> String {
    let file = std::env::temp_dir().join(format!("mptunnel-panic-{}", std::process::id()));
    let mut key = [0 as c_char; MPT_KEY_SIZE];
    assert_eq!(unsafe { mpt_genkey(key.as_mut_ptr(), key.len()) }, 0);
    let key = unsafe { CStr::from_ptr(key.as_ptr()) };
    std::fs::write(&file, key.to_bytes()).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    file.to_str().unwrap().to_owned()
}

fn open(file: &str) -> *mut mpt_t {
    let uri = CString::new(format!("mpt-listen://127.0.0.1:0?key-file={file}")).unwrap();
    let mut t = ptr::null_mut();
    assert_eq!(unsafe { mpt_open(uri.as_ptr(), ptr::null(), &mut t) }, 0);
    t
}

type Call<T> = fn(*mut T) -> isize;

/// Every entry point that uses an endpoint, by name.
fn calls() -> Vec<(&'static str, Call<mpt_t>)> {
    vec![
        ("wait_ready", |t| mpt_wait_ready(t, 0) as isize),
        ("interrupt", |t| mpt_interrupt(t) as isize),
        ("send", |t| unsafe { mpt_send(t, c"x".as_ptr().cast(), 1, 0) }),
        ("send_to", |t| unsafe { mpt_send_to(t, 1, c"x".as_ptr().cast(), 1, 0) }),
        ("recv", |t| unsafe { mpt_recv(t, [0u8; 9].as_mut_ptr().cast(), 9, 0) }),
        ("recv_from", |t| unsafe { mpt_recv_from(t, &mut 0, [0u8; 9].as_mut_ptr().cast(), 9, 0) }),
        ("sendv", |t| unsafe { mpt_sendv(t, ptr::null(), 0, 0) }),
        ("recvv", |t| unsafe { mpt_recvv(t, ptr::null_mut(), 0, 0) }),
        ("set", |t| unsafe { mpt_set(t, KEY.as_ptr(), c"1s".as_ptr()) as isize }),
        ("get", |t| unsafe { mpt_get(t, KEY.as_ptr(), ptr::null_mut(), 0) }),
        ("local_addr", |t| unsafe { mpt_local_addr(t, ptr::null_mut(), 0) }),
        ("fd", |t| mpt_fd(t)),
        ("path_add", |t| unsafe { mpt_path_add(t, c"if=lo".as_ptr(), ptr::null_mut()) as isize }),
        ("path_set", |t| unsafe { mpt_path_set(t, 1, c"name".as_ptr(), c"x".as_ptr()) as isize }),
        ("path_remove", |t| mpt_path_remove(t, 1) as isize),
        ("path_list", |t| unsafe { mpt_path_list(t, 0, ptr::null_mut(), 0, &mut 0) as isize }),
        ("next_event", |t| unsafe {
            let mut event: mpt_event = std::mem::zeroed();
            event.struct_size = size_of::<mpt_event>() as u32;
            mpt_next_event(t, &mut event, 0) as isize
        }),
        ("stats", |t| unsafe {
            let mut stats: mpt_stats_t = std::mem::zeroed();
            stats.struct_size = size_of::<mpt_stats_t>() as u32;
            mpt_stats(t, 0, &mut stats) as isize
        }),
        ("metrics", |t| unsafe { mpt_metrics(t, 1, ptr::null_mut(), 0) }),
    ]
}

fn last_error() -> String {
    unsafe { CStr::from_ptr(mpt_last_error()) }.to_str().unwrap().to_owned()
}

#[test]
fn a_panic_ends_its_own_handle_and_nothing_else() {
    let file = key_file();
    let other = open(&file);
    for (name, call) in calls() {
        let t = open(&file);

        // Before a call has a handle, a panic costs that call alone.
        mpt_inject_panic(0);
        assert_eq!(call(t), PANIC as isize, "{name}");
        assert!(last_error().contains("a test asked for it"), "{name}: {}", last_error());
        assert_eq!(mpt_interrupt(t), 0, "{name}");

        mpt_inject_panic(1);
        assert_eq!(call(t), PANIC as isize, "{name}");
        for (later, call) in calls() {
            assert_eq!(call(t), PANIC as isize, "{later} after {name}");
        }
        assert!(last_error().contains("an earlier call"), "{name}: {}", last_error());
        assert_eq!(mpt_max_payload(t), 0);
        mpt_close(t);
        assert_eq!(mpt_interrupt(t), mpt_status::MPT_EBADF as c_int, "{name}");
        assert_eq!(mpt_interrupt(other), 0, "another handle, after {name}");
    }
    // A call that waits in another thread does not wait for ever.
    let t = open(&file);
    let address = t.addr();
    let waiting = std::thread::spawn(move || {
        let t = ptr::without_provenance_mut(address);
        unsafe { mpt_recv(t, [0u8; 9].as_mut_ptr().cast(), 9, -1) }
    });
    while !waiting.is_finished() {
        mpt_inject_panic(1);
        assert_eq!(mpt_interrupt(t), PANIC);
        std::thread::yield_now();
    }
    let answer = waiting.join().unwrap() as c_int;
    assert!([PANIC, mpt_status::MPT_EINTR as c_int].contains(&answer), "{answer}");
    mpt_close(t);
    mpt_close(other);
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_panic_in_what_has_no_endpoint_is_told_as_well() {
    let config = mpt_config_new();
    assert!(!config.is_null());
    let calls: [(&str, Call<mpt_config_t>); 7] = [
        ("open", |_| unsafe {
            mpt_open(c"mpt://h:1".as_ptr(), ptr::null(), &mut ptr::null_mut()) as isize
        }),
        ("config_set", |c| unsafe { mpt_config_set(c, KEY.as_ptr(), c"1s".as_ptr()) as isize }),
        ("config_get", |c| unsafe { mpt_config_get(c, KEY.as_ptr(), ptr::null_mut(), 0) }),
        ("config_load", |c| unsafe { mpt_config_load(c, c"/dev/null".as_ptr()) as isize }),
        ("socket_hook", |c| mpt_config_set_socket_hook(c, None, ptr::null_mut()) as isize),
        ("log", |c| mpt_config_set_log(c, None, ptr::null_mut(), 0) as isize),
        ("genkey", |_| unsafe { mpt_genkey([0; 45].as_mut_ptr(), 45) as isize }),
    ];
    for (name, call) in calls {
        mpt_inject_panic(0);
        assert_eq!(call(config), PANIC as isize, "{name}");
        assert_ne!(call(config), PANIC as isize, "{name} works again");
    }
    mpt_inject_panic(0);
    assert!(mpt_config_new().is_null());
    mpt_inject_panic(0);
    assert!(mpt_option_name(0).is_null());
    mpt_inject_panic(0);
    mpt_config_free(config);
    mpt_config_free(config);
    mpt_inject_panic(0);
    mpt_close(ptr::null_mut());
    mpt_inject_panic(0);
    assert!(!mpt_build_info().is_null());
}
