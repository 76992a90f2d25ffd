//! Where things are in the source tree.

use std::path::{Path, PathBuf};

/// The one triple that a plain toolchain builds for; kernel and guest programs name it explicitly.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The root of the source tree.
pub fn root() -> &'static Path {
    // The parent of this package, fixed at compile time; the binary is never moved elsewhere.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// A path in the source tree.
pub fn at(relative: &str) -> PathBuf {
    root().join(relative)
}

/// The release kernel image.
pub fn kernel_image() -> PathBuf {
    at("kernel/target").join(TARGET).join("release/faultless-kernel")
}

/// The release guest programs.
pub fn guest_programs() -> PathBuf {
    at("guest/target").join(TARGET).join("release")
}

/// A path as a reader of a message wants it: from the root, if it lies there.
pub fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
