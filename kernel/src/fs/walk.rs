//! From a path to the place it names.
//!
//! Called by [`super::resolve`] on inodes and by the host's tests on a toy tree; [`Tree`] is all that a
//! walk needs to know. The order of checks is Linux's: a component of a path is looked at only when all
//! before it are directories, and errors of earlier components win.
//!
//! Absent on purpose: search permission, because every process runs as root, which has it.

use alloc::vec::Vec;

use crate::errno::Errno;

/// Longest path, terminator included.
pub const PATH_MAX: usize = 4096;
/// Longest component.
pub const NAME_MAX: usize = 255;
/// Symbolic links that one walk follows at most.
const MAX_LINKS: u32 = 40;

/// A node of a tree of files.
pub trait Tree: Clone {
    /// Whether it has children.
    fn is_directory(&self) -> bool;
    /// The child called `name`; `ENOENT` if there is none.
    ///
    /// # Errors
    ///
    /// `ENOENT`, or what the file system says.
    fn child(&self, name: &[u8]) -> Result<Self, Errno>;
    /// What `..` means here.
    fn parent(&self) -> Self;
    /// Where it leads, if it is a symbolic link.
    ///
    /// # Errors
    ///
    /// What the file system says: links of /proc compute their target.
    fn link(&self) -> Result<Option<Link<Self>>, Errno>;
    /// Whether both are the same node.
    fn is_same(&self, other: &Self) -> bool;
}

/// Where a symbolic link leads.
pub enum Link<T> {
    /// A path, relative to the directory that holds the link.
    Path(Vec<u8>),
    /// Straight to a node, as links below /proc/PID do.
    Node(T),
}

/// Whether a symbolic link as the last component is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// Yes.
    Last,
    /// No (a slash after it makes it followed all the same).
    NotLast,
}

/// The last component of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Last {
    /// An ordinary name.
    Name(Vec<u8>),
    /// `.`, or nothing but slashes.
    Dot,
    /// `..`.
    DotDot,
    /// A link that led straight to a node.
    Jump,
}

/// Where a walk ended.
#[derive(Debug, Clone)]
pub struct Place<T> {
    /// The directory that holds the last component.
    pub directory: T,
    /// The last component.
    pub last: Last,
    /// What it names, if it exists.
    pub found: Option<T>,
    /// The path had a slash after the last component: only a directory will do.
    pub slash: bool,
}

impl<T> Place<T> {
    /// What the path names.
    ///
    /// # Errors
    ///
    /// `ENOENT` if that does not exist.
    pub fn existing(self) -> Result<T, Errno> {
        self.found.ok_or(Errno::ENOENT)
    }
}

/// The path that is still to be walked.
struct Rest {
    path: Vec<u8>,
    at: usize,
}

impl Rest {
    fn skip_slashes(&mut self) {
        while self.path.get(self.at) == Some(&b'/') {
            self.at += 1;
        }
    }

    /// The next component, and whether slashes and whether anything else follows it.
    fn component(&mut self) -> (Vec<u8>, bool, bool) {
        let start = self.at;
        let length = self.path[start..].iter().take_while(|&&b| b != b'/').count();
        let end = start + length;
        self.at = end;
        self.skip_slashes();
        let slash = self.at > end;
        (self.path[start..end].to_vec(), slash, self.at < self.path.len())
    }

    /// Puts the target of a link before what is left.
    fn expand(&mut self, mut target: Vec<u8>, slash: bool) {
        if slash {
            target.push(b'/');
        }
        target.extend_from_slice(&self.path[self.at..]);
        self.path = target;
        self.at = 0;
    }
}

/// Walks `path` from `base`, or from `root` if it is absolute.
///
/// # Errors
///
/// `ENOENT` (empty path, or a component before the last is missing), `ENOTDIR`, `ENAMETOOLONG`,
/// `ELOOP`, and what [`Tree`] returns. A missing last component is not an error.
pub fn walk<T: Tree>(root: &T, base: &T, path: &[u8], follow: Follow) -> Result<Place<T>, Errno> {
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    let mut here = start(root, base, path);
    let mut rest = Rest { path: path.to_vec(), at: 0 };
    let mut links = 0;
    rest.skip_slashes();
    // Ends: each round consumes a component, and links, which add some, are limited.
    loop {
        if !here.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        if rest.at == rest.path.len() {
            return Ok(at_dot(here, Last::Dot));
        }
        let (name, slash, more) = rest.component();
        if name == b"." || name == b".." {
            let last = if name == b"." { Last::Dot } else { Last::DotDot };
            if last == Last::DotDot && !here.is_same(root) {
                here = here.parent();
            }
            if !more {
                return Ok(at_dot(here, last));
            }
            continue;
        }
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let node = match here.child(&name) {
            Ok(node) => node,
            Err(Errno::ENOENT) if !more => {
                return Ok(Place { directory: here, last: Last::Name(name), found: None, slash });
            }
            Err(errno) => return Err(errno),
        };
        let wanted = more || slash || follow == Follow::Last;
        match if wanted { node.link()? } else { None } {
            None if more => here = node,
            None => return at_end(here, Last::Name(name), node, slash),
            Some(link) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::ELOOP);
                }
                match link {
                    Link::Path(target) if target.is_empty() => return Err(Errno::ENOENT),
                    Link::Path(target) => {
                        here = start(root, &here, &target);
                        rest.expand(target, slash);
                        rest.skip_slashes();
                    }
                    Link::Node(node) if more => here = node,
                    Link::Node(node) => return at_end(here, Last::Jump, node, slash),
                }
            }
        }
    }
}

fn start<T: Tree>(root: &T, base: &T, path: &[u8]) -> T {
    if path.starts_with(b"/") { root.clone() } else { base.clone() }
}

fn at_dot<T: Tree>(here: T, last: Last) -> Place<T> {
    Place { directory: here.clone(), last, found: Some(here), slash: true }
}

fn at_end<T: Tree>(directory: T, last: Last, node: T, slash: bool) -> Result<Place<T>, Errno> {
    if slash && !node.is_directory() {
        return Err(Errno::ENOTDIR);
    }
    Ok(Place { directory, last, found: Some(node), slash })
}
