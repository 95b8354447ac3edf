// SPDX-License-Identifier: BSD-2-Clause
//! The name that programs are linked to, and for which machine the library was built.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = std::env::var("TARGET").expect("cargo tells the target");
    println!("cargo:rustc-env=MPT_TARGET={target}");
    // Programs ask for the library by this name: it changes when they could not use it any more.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libmptunnel.so.0");
}
