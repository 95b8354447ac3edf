// SPDX-License-Identifier: BSD-2-Clause
//! Keys, and what library this is.

use crate::boundary::{Fail, boundary, guarded};
use crate::pointer::room;
use crate::status::Status;
use mptunnel_core::keyfile;
use std::ffi::{CString, c_char, c_int};
use std::sync::OnceLock;

/// What a program is compiled against: the library must answer the same to mpt_abi_version().
pub const MPT_ABI_VERSION: u32 = 1;

/// Bytes that mpt_genkey() needs, with the NUL.
pub const MPT_KEY_SIZE: usize = 45;

/// == Keys and versions ==
///
/// Makes a new key from the system's randomness, as the 44 characters of base64 that a key file
/// holds, and a NUL: `cap` is at least MPT_KEY_SIZE. Write it to a file that only its owner can
/// read, and give both ends the same.
///
/// MPT_EMSGSIZE: `cap` is too small. MPT_ESYSTEM: the system has no randomness.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpt_genkey(buf: *mut c_char, cap: usize) -> c_int {
    boundary(|| {
        if buf.is_null() {
            return Err(Fail::invalid("the buffer is NULL"));
        }
        if cap < MPT_KEY_SIZE {
            return Err(Fail::of(Status::MPT_EMSGSIZE, "a key takes 45 bytes"));
        }
        // SAFETY: a buffer as the header describes it.
        let buffer = unsafe { room(buf.cast(), cap) }?;
        let key = keyfile::generate()
            .map_err(|error| Fail::new(Status::MPT_ESYSTEM, error.to_string()))?;
        let text = keyfile::encode(&key);
        buffer[..text.len()].copy_from_slice(text.as_bytes());
        buffer[text.len()] = 0;
        Ok(0)
    })
}

/// The version of the ABI that the library has: MPT_ABI_VERSION of its own header. It changes only
/// together with the soname.
#[unsafe(no_mangle)]
pub extern "C" fn mpt_abi_version() -> u32 {
    MPT_ABI_VERSION
}

/// The version of the library, such as "0.1.0". Static.
#[unsafe(no_mangle)]
pub extern "C" fn mpt_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// How the library was built, as JSON: version, abi, target, backend (of the cipher), features.
/// Static.
#[unsafe(no_mangle)]
pub extern "C" fn mpt_build_info() -> *const c_char {
    static INFO: OnceLock<CString> = OnceLock::new();
    let info = guarded(|| {
        let info = INFO.get_or_init(|| {
            let features = [("passphrase", cfg!(feature = "passphrase"))];
            let on = features.iter().filter(|(_, on)| *on).map(|(name, _)| *name);
            let info = serde_json::json!({
                "version": env!("CARGO_PKG_VERSION"),
                "abi": MPT_ABI_VERSION,
                "target": env!("MPT_TARGET"),
                "backend": mptunnel_core::proto::crypto::BACKEND,
                "features": on.collect::<Vec<_>>(),
            });
            CString::new(info.to_string()).unwrap_or_default()
        });
        Ok(info.as_ptr())
    });
    info.unwrap_or(c"{}".as_ptr())
}
