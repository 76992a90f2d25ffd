//! Nothing in the kernel image may use the 128 bytes below the stack pointer: an interrupt overwrites them.
//!
//! Our code is compiled without the red zone. The precompiled core library is not, so the linked image is looked into.
//! The kernel's own assembly is exempt: it knows what it does below the stack pointer, and its labels tell which
//! functions are its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Finding;
use crate::step::Failure;
use crate::workspace;

/// Disassembles the image and looks at every access below the stack pointer.
///
/// # Errors
///
/// [`Failure`] if the image cannot be disassembled.
pub fn check() -> Result<Vec<Finding>, Failure> {
    let image = workspace::kernel_image();
    let failed = |what: String| Failure { what, repeat: format!("objdump -d {}", workspace::shown(&image)) };
    let output = Command::new("objdump").args(["-d", "--no-show-raw-insn"]).arg(&image).output();
    let output = output.map_err(|error| failed(format!("objdump cannot be started ({error}); install binutils")))?;
    if !output.status.success() {
        return Err(failed(format!("objdump ended with {}", output.status)));
    }
    let own = assembly_labels(&workspace::at("kernel/src"));
    let path = workspace::shown(&image);
    let users = red_zone_users(&String::from_utf8_lossy(&output.stdout));
    Ok(users.difference(&own).map(|function| Finding::new(&path, 0, format!("{function} uses the red zone"))).collect())
}

/// The functions of a listing that access memory below the stack pointer.
fn red_zone_users(listing: &str) -> BTreeSet<String> {
    let mut users = BTreeSet::new();
    let mut function = "";
    for line in listing.lines() {
        if let Some(name) = line.strip_suffix(">:").and_then(|line| line.split_once(" <")) {
            function = name.1;
        } else if is_below_stack(line) {
            users.insert(function.to_owned());
        }
    }
    users
}

/// `-0x10(%rsp)` and `-0x10(%rsp,%rax,8)` are below; `lea` only computes.
fn is_below_stack(line: &str) -> bool {
    let Some((before, _)) = line.split_once("(%rsp") else { return false };
    let displacement = before.rsplit([' ', '\t', ',', '*', ':']).next().unwrap_or_default();
    displacement.starts_with("-0x") && !line.contains("\tlea")
}

/// The labels of all assembly files below a directory.
fn assembly_labels(dir: &Path) -> BTreeSet<String> {
    let mut labels = BTreeSet::new();
    for path in assembly_files(dir) {
        let text = fs::read_to_string(path).unwrap_or_default();
        let label = |line: &str| line.trim().split_once(':').map(|(label, _)| label.to_owned());
        labels.extend(text.lines().filter_map(label));
    }
    labels
}

fn assembly_files(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    paths
        .flat_map(|path| match path.extension().and_then(|extension| extension.to_str()) {
            Some("s") => vec![path],
            _ => assembly_files(&path),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "
ffffffff80101000 <core::fmt::num>:
ffffffff80101000:\tmov    %rax,0x10(%rsp)
ffffffff80101004:\tlea    -0x78(%rsp),%rax
ffffffff8010100a:\tret

ffffffff80102000 <leaf>:
ffffffff80102000:\tmov    %rax,-0x8(%rsp)

ffffffff80103000 <indexed>:
ffffffff80103000:\tmov    -0x30(%rsp,%rcx,8),%rax
";

    #[test]
    fn only_accesses_below_the_stack_pointer_count() {
        let users: Vec<String> = red_zone_users(LISTING).into_iter().collect();
        assert_eq!(users, ["indexed", "leaf"]);
    }
}
