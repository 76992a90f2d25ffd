//! Links `vmbench` without start files and without libc, at fixed addresses.
//!
//! The other programs keep the default (static, position independent), so a loader
//! is tried with both kinds of executable.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for arg in ["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none"] {
        println!("cargo:rustc-link-arg-bin=vmbench={arg}");
    }
}
