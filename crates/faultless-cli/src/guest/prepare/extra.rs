//! Files that the user adds with `--file`, and what they need in turn.
//!
//! Called by `prepare` only. A program, library or script added by name brings its libraries and interpreter along,
//! so that `--file /usr/bin/python3` is enough to make python3 startable. What is missing for them is a notice and no
//! error: a directory of plug-ins often holds some that nobody loads.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::guest::elf::Image;
use crate::guest::error::ProgramError;
use crate::guest::libraries::{Linker, Missing};
use crate::guest::root::Root;
use crate::guest::script::Shebang;
use crate::guest::tree::{Content, Node, Tree};

/// How many missing libraries are named before the rest is only counted.
const MAX_NAMED: usize = 4;

/// One more file or directory for the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraFile {
    /// Where it is on the host.
    pub host: PathBuf,
    /// Where it goes; the same absolute path if not given.
    pub guest: Option<PathBuf>,
}

impl ExtraFile {
    /// Reads `HOST` or `HOST:GUEST`. A guest path that ends in a slash is the directory it goes into.
    pub fn parse(text: &str) -> Self {
        let Some((host, guest)) = text.rsplit_once(':').filter(|(_, guest)| guest.starts_with('/')) else {
            return ExtraFile { host: text.into(), guest: None };
        };
        let host = PathBuf::from(host);
        let mut path = PathBuf::from(guest);
        if let (true, Some(name)) = (guest.ends_with('/'), host.file_name()) {
            path.push(name);
        }
        ExtraFile { host, guest: Some(path) }
    }
}

/// Adds the files as they are.
pub fn add(tree: &mut Tree, extra: &[ExtraFile], here: &Path) -> Result<(), ProgramError> {
    for file in extra {
        let host = here.join(&file.host);
        let added = match &file.guest {
            None => tree.add(&Root::host(), &host),
            Some(guest) => tree.add_as(&host, guest),
        };
        added.map_err(|error| ProgramError::Given("--file", error))?;
    }
    Ok(())
}

/// Adds the files and what they need, looked up by `linker`, and what env(1) will start in `scripts` or in theirs, looked
/// up in `search`. Returns notices about what was not found.
pub fn add_with_needs(
    tree: &mut Tree,
    extra: &[ExtraFile],
    here: &Path,
    linker: &Linker<'_>,
    scripts: &[Shebang],
    search: &[PathBuf],
) -> Result<Vec<String>, ProgramError> {
    let before: BTreeSet<PathBuf> = tree.iter().map(|(path, _)| path.to_owned()).collect();
    add(tree, extra, here)?;
    let looked_up = |script: &Shebang| {
        let name = script.looked_up()?;
        search.iter().map(|dir| dir.join(name)).find(|path| linker.root().is_file(path))
    };
    let mut needed: Vec<PathBuf> = scripts.iter().filter_map(looked_up).collect();
    for host in loadable(tree, &before) {
        match leading_bytes(&host).and_then(|bytes| Shebang::parse(&bytes)) {
            Some(script) => needed.extend(looked_up(&script).into_iter().chain([script.interpreter.into()])),
            None => needed.push(host),
        }
    }
    let mut missing = Vec::new();
    for path in needed {
        add_needs(tree, &path, linker, &mut missing)?;
    }
    Ok(notices(missing))
}

/// Adds a file with its libraries, if it is there.
fn add_needs(
    tree: &mut Tree,
    path: &Path,
    linker: &Linker<'_>,
    missing: &mut Vec<Missing>,
) -> Result<(), ProgramError> {
    let Some(image) = linker.root().read(path).ok().and_then(|data| Image::parse(&data).ok()) else {
        return Ok(());
    };
    tree.add(linker.root(), path)?;
    let closure = linker.closure(path, &image);
    for file in &closure.files {
        tree.add(linker.root(), file)?;
    }
    missing.extend(closure.missing);
    Ok(())
}

/// Host files among the new nodes that a loader could be asked for: ELF images, and scripts that may be executed.
fn loadable(tree: &Tree, before: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let host = |(path, node): (&Path, &Node)| match node {
        Node::File(stamp, Content::Host(host)) if !before.contains(path) => Some((host.clone(), stamp.mode)),
        _ => None,
    };
    let wanted = |(host, mode): (PathBuf, u32)| {
        let bytes = leading_bytes(&host)?;
        let script = bytes.starts_with(b"#!") && mode & 0o111 != 0;
        (script || bytes.starts_with(b"\x7fELF")).then_some(host)
    };
    tree.iter().filter_map(host).filter_map(wanted).collect()
}

fn leading_bytes(host: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(host).ok()?.take(256).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn notices(mut missing: Vec<Missing>) -> Vec<String> {
    missing.sort_by(|a, b| a.name.cmp(&b.name));
    missing.dedup_by(|a, b| a.name == b.name);
    let rest = missing.len().saturating_sub(MAX_NAMED);
    let named = missing
        .iter()
        .take(MAX_NAMED)
        .map(|library| format!("{} was not found, which {} would need", library.name, library.needed_by.display()));
    let more = (rest > 0).then(|| format!("{rest} more libraries were not found"));
    named.chain(more).collect()
}
