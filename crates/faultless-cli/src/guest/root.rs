//! A directory seen as the guest will see it: `/` is that directory, absolute links stay inside.
//!
//! Called by `libraries`, `prepare` and `tree`. The host itself is the root `/`. Absent on purpose: permission
//! checks; whoever runs the command must be able to read the files.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The most symbolic links one path may pass, as on Linux.
const MAX_LINKS: usize = 40;

/// A directory that stands for the guest's `/`.
#[derive(Debug, Clone)]
pub struct Root {
    dir: PathBuf,
}

/// One thing met on the way to a path, in the order in which it was met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A directory that was passed.
    Directory(PathBuf),
    /// A symbolic link that was followed, and its text.
    Link(PathBuf, PathBuf),
}

/// Where a path ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Every directory and link that was passed. They must exist in the guest for the path to work there.
    pub steps: Vec<Step>,
    /// The guest path behind all links.
    pub target: PathBuf,
}

impl Root {
    /// The root at `dir`.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Root { dir: dir.into() }
    }

    /// The host's own root.
    pub fn host() -> Self {
        Root::at("/")
    }

    /// The directory that stands for `/`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the guest path lies on the host, without following links.
    pub fn on_host(&self, guest: &Path) -> PathBuf {
        let mut host = self.dir.clone();
        host.extend(names(guest));
        host
    }

    /// Follows `guest` from `/` through all links.
    ///
    /// # Errors
    ///
    /// What the host says about a component: not found, not a directory, too many links.
    pub fn find(&self, guest: &Path) -> io::Result<Found> {
        let mut pending: VecDeque<OsString> = names(guest).collect();
        let mut found = Found { steps: Vec::new(), target: PathBuf::from("/") };
        let mut links = 0;
        while let Some(name) = pending.pop_front() {
            if name == ".." {
                found.target.pop();
                continue;
            }
            let next = found.target.join(&name);
            let host = self.on_host(&next);
            let kind = fs::symlink_metadata(&host)?.file_type();
            if !kind.is_symlink() {
                if kind.is_dir() {
                    found.steps.push(Step::Directory(next.clone()));
                } else if !pending.is_empty() {
                    return Err(io::ErrorKind::NotADirectory.into());
                }
                found.target = next;
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(io::Error::other("too many symbolic links"));
            }
            let text = fs::read_link(&host)?;
            if text.is_absolute() {
                found.target = PathBuf::from("/");
            }
            for name in names(&text).collect::<Vec<_>>().into_iter().rev() {
                pending.push_front(name);
            }
            found.steps.push(Step::Link(next, text));
        }
        Ok(found)
    }

    /// The bytes of the file at `guest`, links followed inside the root.
    ///
    /// # Errors
    ///
    /// As [`Root::find`], and what the host says when it reads the file.
    pub fn read(&self, guest: &Path) -> io::Result<Vec<u8>> {
        fs::read(self.on_host(&self.find(guest)?.target))
    }

    /// Whether `guest` leads to a regular file.
    pub fn is_file(&self, guest: &Path) -> bool {
        self.find(guest).is_ok_and(|found| self.on_host(&found.target).is_file())
    }
}

/// The components of a path that mean something: names and `..`.
fn names(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn sample() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::create_dir_all(dir.path().join("usr/lib/x")).expect("create");
        fs::write(dir.path().join("usr/lib/x/real.so.1"), b"so").expect("write");
        symlink("usr/lib", dir.path().join("lib")).expect("link");
        symlink("/lib/x/real.so.1", dir.path().join("usr/lib/abs.so")).expect("link");
        symlink("../lib/x/real.so.1", dir.path().join("usr/lib/rel.so")).expect("link");
        symlink("loop", dir.path().join("loop")).expect("link");
        dir
    }

    #[test]
    fn links_are_followed_inside_the_root_and_remembered() {
        let dir = sample();
        let root = Root::at(dir.path());
        let found = root.find(Path::new("/lib/abs.so")).expect("found");
        assert_eq!(found.target, Path::new("/usr/lib/x/real.so.1"));
        let link = |at: &str, text: &str| Step::Link(at.into(), text.into());
        assert_eq!(
            found.steps,
            [
                link("/lib", "usr/lib"),
                Step::Directory("/usr".into()),
                Step::Directory("/usr/lib".into()),
                link("/usr/lib/abs.so", "/lib/x/real.so.1"),
                link("/lib", "usr/lib"),
                Step::Directory("/usr".into()),
                Step::Directory("/usr/lib".into()),
                Step::Directory("/usr/lib/x".into()),
            ]
        );
    }

    #[test]
    fn parent_components_cannot_leave_the_root() {
        let dir = sample();
        let root = Root::at(dir.path());
        let found = root.find(Path::new("/../../usr/lib/rel.so")).expect("found");
        assert_eq!(found.target, Path::new("/usr/lib/x/real.so.1"));
        assert_eq!(root.on_host(Path::new("/usr")), dir.path().join("usr"));
    }

    #[test]
    fn loops_and_gaps_are_errors() {
        let dir = sample();
        let root = Root::at(dir.path());
        assert!(root.find(Path::new("/loop")).is_err());
        assert!(root.find(Path::new("/usr/none")).is_err());
        assert!(root.find(Path::new("/usr/lib/x/real.so.1/more")).is_err());
        assert!(root.is_file(Path::new("/lib/rel.so")));
        assert!(!root.is_file(Path::new("/lib")));
    }
}
