//! Hands the linker script and the link mode to the linker, for the kernel binary only.

fn main() {
    let dir = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    println!("cargo:rerun-if-changed=linker.ld");
    let args = ["-nostdlib", "-static", "--no-pie", "--build-id=none", "-zmax-page-size=4096", "-znoexecstack"];
    println!("cargo:rustc-link-arg-bins=-T{dir}/linker.ld");
    for arg in args {
        println!("cargo:rustc-link-arg-bins={arg}");
    }
}
