//! Where the kernel image is.
//!
//! Called by `commands`. In this order: the path given (option or environment), beside this command's own binary, and
//! in the build directory of a source tree: the one that this binary lies in, the one around the current directory, or
//! the one that this binary was built from, so that it works from anywhere after `cargo install`.

use std::fs;
use std::path::{Path, PathBuf};

use object::Endianness;
use object::elf::{FileHeader64, NoteType};
use object::read::elf::{FileHeader, ProgramHeader};

use crate::error::Error;
use crate::vm::error::MachineError;

/// The image's file name.
pub const NAME: &str = "faultless-kernel";

/// Where `cargo xtask kernel` leaves it, from the source tree's root.
const BUILT: &str = "kernel/target/x86_64-unknown-linux-gnu/release/faultless-kernel";

/// What tells the source tree's root.
const MARKER: &str = "kernel/Cargo.toml";

/// The package that this binary was built from.
pub fn source() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Finds the image: `given` if there is one, else beside the binary `own`, else in the source tree around the first of
/// `near` that lies in one.
///
/// # Errors
///
/// [`MachineError::NoKernel`] with all places that were tried.
pub fn find(given: Option<&Path>, own: &Path, near: &[&Path]) -> Result<PathBuf, MachineError> {
    let workspace = std::iter::once(&own).chain(near).find_map(|place| workspace_around(place));
    let looked: Vec<PathBuf> = match given {
        Some(path) => vec![path.to_owned()],
        None => own
            .parent()
            .map(|dir| dir.join(NAME))
            .into_iter()
            .chain(workspace.iter().map(|root| root.join(BUILT)))
            .collect(),
    };
    looked
        .iter()
        .find(|path| path.is_file())
        .cloned()
        .ok_or(MachineError::NoKernel { looked, workspace: workspace.filter(|_| given.is_none()) })
}

/// Checks that QEMU can start a file as a kernel: an ELF image with the note that names the PVH entry point.
///
/// # Errors
///
/// [`Error::Host`] if it cannot be read, [`MachineError::NotKernel`].
pub fn check(path: &Path) -> Result<(), Error> {
    let data = fs::read(path).map_err(Error::host("reading the kernel image"))?;
    match has_entry_point(&data) {
        Ok(true) => Ok(()),
        _ => Err(MachineError::NotKernel(path.to_owned()).into()),
    }
}

/// `XEN_ELFNOTE_PHYS32_ENTRY`.
const ENTRY_NOTE: NoteType = NoteType(18);

fn has_entry_point(data: &[u8]) -> object::read::Result<bool> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    for segment in header.program_headers(endian, data)? {
        let Some(mut notes) = segment.notes(endian, data)? else { continue };
        while let Some(note) = notes.next()? {
            if note.name() == b"Xen" && note.n_type(endian) == ENTRY_NOTE {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn workspace_around(place: &Path) -> Option<PathBuf> {
    let holds = |dir: &&Path| dir.join(MARKER).is_file();
    place.ancestors().find(holds).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path) {
        fs::create_dir_all(path.parent().expect("a parent")).expect("create");
        fs::write(path, b"").expect("write");
    }

    #[test]
    fn the_built_image_of_the_workspace_is_found_from_binary_and_directory() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let root = dir.path();
        touch(&root.join(MARKER));
        touch(&root.join(BUILT));
        let own = root.join("target/debug/faultless");
        let elsewhere = Path::new("/nowhere/bin/faultless");
        assert_eq!(find(None, &own, &[]).expect("found"), root.join(BUILT));
        let inside = root.join("docs");
        assert_eq!(find(None, elsewhere, &[&inside]).expect("found"), root.join(BUILT));
        touch(&root.join("target/debug").join(NAME));
        let beside = root.join("target/debug").join(NAME);
        assert_eq!(find(None, &own, &[]).expect("found"), beside);
    }

    #[test]
    fn an_unbuilt_image_names_the_workspace_and_a_wrong_path_does_not() {
        let dir = tempfile::tempdir().expect("temporary directory");
        touch(&dir.path().join(MARKER));
        let own = dir.path().join("target/debug/faultless");
        let MachineError::NoKernel { looked, workspace } = find(None, &own, &[]).expect_err("not built") else {
            panic!("another error");
        };
        assert_eq!(looked.len(), 2);
        assert_eq!(workspace, Some(dir.path().to_owned()));
        let given = find(Some(Path::new("/none")), &own, &[]).expect_err("absent");
        assert!(matches!(given, MachineError::NoKernel { workspace: None, .. }));
    }
}
