//! The guest's files before they are written: a map from guest path to what is there.
//!
//! Called by `prepare`; read by `archive`. Files stay on the host until the archive is written. What exists already is
//! never replaced by something met in passing, so the order of additions does not matter but for `put`.
//! Absent on purpose: owners (everything belongs to root in the guest), hard links (each name carries its own copy),
//! sockets.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::guest::root::{Found, Root, Step};

/// What is at one guest path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Directory(Stamp),
    /// A symbolic link and its text.
    Link(Stamp, PathBuf),
    /// A regular file.
    File(Stamp, Content),
    /// A device or fifo with its device number. The stamp's mode carries the type.
    Special(Stamp, u64),
}

/// Where a regular file's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// In a host file.
    Host(PathBuf),
    /// Here.
    Bytes(Vec<u8>),
}

/// Mode and time of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Type and permission bits, as in `st_mode`.
    pub mode: u32,
    /// Seconds since the epoch. Kept, because programs compare times of files (CPython's compiled modules).
    pub mtime: u32,
}

/// A file that could not be taken into the tree.
#[derive(Debug)]
pub struct TreeError {
    /// The file as named by the user or met below it.
    pub path: PathBuf,
    /// What the host said.
    pub source: io::Error,
}

/// The guest's files.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    nodes: BTreeMap<PathBuf, Node>,
}

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

impl Tree {
    /// A tree with nothing in it but `/`.
    pub fn new() -> Self {
        Tree::default()
    }

    /// Guest paths and what is there, each parent before its children.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_path(), node))
    }

    /// What is at `path`, links not followed.
    pub fn get(&self, path: &Path) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// Takes the guest path out of `root` with every directory and link on the way; a directory with all below it.
    /// Returns the guest path behind the links.
    ///
    /// # Errors
    ///
    /// [`TreeError`] if something on the way cannot be read.
    pub fn add(&mut self, root: &Root, guest: &Path) -> Result<PathBuf, TreeError> {
        let failed = |source| TreeError { path: root.on_host(guest), source };
        let Found { steps, target } = root.find(guest).map_err(failed)?;
        for step in steps {
            let (path, text) = match step {
                Step::Directory(path) => (path, None),
                Step::Link(path, text) => (path, Some(text)),
            };
            let stamp = Stamp::of(&metadata(&root.on_host(&path))?);
            self.offer(
                path,
                match text {
                    None => Node::Directory(stamp),
                    Some(text) => Node::Link(stamp, text),
                },
            );
        }
        self.copy(&root.on_host(&target), &target)?;
        Ok(target)
    }

    /// Puts a host file, or a directory with all below it, at another guest path. Replaces a file that is there.
    /// Returns the guest path behind the links that the tree has by now.
    ///
    /// # Errors
    ///
    /// [`TreeError`] if something cannot be read.
    pub fn add_as(&mut self, host: &Path, guest: &Path) -> Result<PathBuf, TreeError> {
        let real = fs::canonicalize(host).map_err(|source| TreeError { path: host.to_owned(), source })?;
        let guest = self.behind_links(guest);
        self.offer_parents(&guest);
        if real.is_file() {
            self.nodes.remove(&guest);
        }
        self.copy(&real, &guest)?;
        Ok(guest)
    }

    /// Puts bytes at a guest path, with its parents. Replaces a file that is there.
    pub fn put(&mut self, guest: &Path, bytes: Vec<u8>, permissions: u32) {
        let guest = self.behind_links(guest);
        self.offer_parents(&guest);
        let stamp = Stamp { mode: REGULAR | permissions, mtime: 0 };
        self.nodes.insert(guest, Node::File(stamp, Content::Bytes(bytes)));
    }

    /// Makes an empty directory with its parents, unless something is there.
    pub fn make_directory(&mut self, guest: &Path) {
        let guest = self.behind_links(guest);
        self.offer_parents(&guest);
        self.offer(guest, Node::Directory(Stamp::plain_directory()));
    }

    /// Takes everything below a host directory as the guest's `/`.
    ///
    /// # Errors
    ///
    /// [`TreeError`] if something cannot be read.
    pub fn add_whole(&mut self, root: &Root) -> Result<(), TreeError> {
        self.copy(root.dir(), Path::new("/"))
    }

    /// The guest path with the links of the tree followed in its directories, so that a file does not land beside a
    /// link of the same name. Each link is followed once: a loop in the tree ends here and fails in the guest.
    fn behind_links(&self, guest: &Path) -> PathBuf {
        let mut at = PathBuf::from("/");
        let mut names: Vec<_> = guest.components().rev().map(|part| part.as_os_str().to_owned()).collect();
        let mut followed = std::collections::HashSet::new();
        while let Some(name) = names.pop() {
            if name == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&name);
            match self.nodes.get(&next) {
                Some(Node::Link(_, text)) if !names.is_empty() && followed.insert(next.clone()) => {
                    names.extend(text.components().rev().map(|part| part.as_os_str().to_owned()));
                }
                _ => at = next,
            }
        }
        at
    }

    fn offer(&mut self, path: PathBuf, node: Node) {
        if path != Path::new("/") {
            self.nodes.entry(path).or_insert(node);
        }
    }

    fn offer_parents(&mut self, guest: &Path) {
        for parent in guest.ancestors().skip(1) {
            self.offer(parent.to_owned(), Node::Directory(Stamp::plain_directory()));
        }
    }

    /// Copies what is at `host`, links kept, to `guest`. Stays on one file system, so that a root that contains /proc
    /// ends; other file systems become empty directories.
    fn copy(&mut self, host: &Path, guest: &Path) -> Result<(), TreeError> {
        let device = metadata(host)?.dev();
        let mut pending = vec![(host.to_owned(), guest.to_owned())];
        // Ends: links are not followed, so this walks a finite tree.
        while let Some((host, guest)) = pending.pop() {
            let facts = metadata(&host)?;
            let Some(node) = node(&host, &facts)? else {
                continue;
            };
            let descend = matches!(node, Node::Directory(_)) && facts.dev() == device;
            self.offer(guest.clone(), node);
            if descend {
                pending.extend(children(&host, &guest)?);
            }
        }
        Ok(())
    }
}

impl Stamp {
    fn of(facts: &Metadata) -> Self {
        Stamp {
            mode: facts.mode(),
            // The archive has 32 bits; times before 1970 become 0.
            mtime: u32::try_from(facts.mtime().max(0)).unwrap_or(u32::MAX),
        }
    }

    fn plain_directory() -> Self {
        Stamp { mode: DIRECTORY | 0o755, mtime: 0 }
    }
}

fn metadata(host: &Path) -> Result<Metadata, TreeError> {
    fs::symlink_metadata(host).map_err(|source| TreeError { path: host.to_owned(), source })
}

/// The node for a host file; `None` for a socket, which nobody in the guest could answer.
fn node(host: &Path, facts: &Metadata) -> Result<Option<Node>, TreeError> {
    let stamp = Stamp::of(facts);
    let kind = facts.file_type();
    Ok(if kind.is_dir() {
        Some(Node::Directory(stamp))
    } else if kind.is_symlink() {
        let text = fs::read_link(host).map_err(|source| TreeError { path: host.to_owned(), source })?;
        Some(Node::Link(stamp, text))
    } else if kind.is_file() {
        Some(Node::File(stamp, Content::Host(host.to_owned())))
    } else if kind.is_socket() {
        None
    } else {
        Some(Node::Special(stamp, facts.rdev()))
    })
}

fn children(host: &Path, guest: &Path) -> Result<Vec<(PathBuf, PathBuf)>, TreeError> {
    let failed = |source| TreeError { path: host.to_owned(), source };
    fs::read_dir(host)
        .map_err(failed)?
        .map(|entry| {
            let name = entry.map_err(failed)?.file_name();
            Ok((host.join(&name), guest.join(&name)))
        })
        .collect()
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.source)
    }
}

impl std::error::Error for TreeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

#[cfg(test)]
mod tests;
