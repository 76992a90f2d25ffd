//! Changes of the tree of names: create, link, remove, rename.
//!
//! Called by the system calls and the unpacker. One lock orders all changes, so that each is atomic
//! against the others; lookups take only the lock of the directory they look into, and a name that is
//! being replaced names the old or the new file to them, never nothing.
//!
//! Absent on purpose: exchange and whiteout renames.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::directory::Directory;
use super::inode::{Body, Inode};
use super::quota;
use crate::errno::Errno;
use crate::sync::{Guard, Lock};

/// Held by every change.
static CHANGES: Lock<()> = Lock::new(());
static ROOT: Lock<Option<Arc<Inode>>> = Lock::new(None);
const MAX_LINKS: u32 = 32_000;

/// What `rename` does when the target exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// Replaces it.
    Yes,
    /// Fails with `EEXIST`.
    No,
}

/// A name in a directory.
#[derive(Clone, Copy)]
pub struct Spot<'a> {
    /// The directory.
    pub directory: &'a Arc<Inode>,
    /// The name in it.
    pub name: &'a [u8],
}

impl<'a> Spot<'a> {
    /// The entries, if the directory can be changed at all.
    fn entries(self) -> Result<&'a Lock<Directory>, Errno> {
        // /proc is a directory without entries of its own.
        self.directory.entries().ok_or(Errno::EPERM)
    }

    fn get(self) -> Result<Option<Arc<Inode>>, Errno> {
        Ok(self.entries()?.lock().get(self.name))
    }

    /// Adds or replaces the entry, which must not be refused any more.
    fn put(self, inode: &Arc<Inode>) -> Result<Option<Arc<Inode>>, Errno> {
        let old = self.entries()?.lock().put(self.name, inode.clone());
        if let Some(old) = &old {
            old.forget_name(self.directory, self.name);
        }
        inode.set_name(self.directory, self.name);
        self.directory.touch();
        Ok(old)
    }

    fn take(self) -> Result<Option<Arc<Inode>>, Errno> {
        let old = self.entries()?.lock().remove(self.name);
        if let Some(inode) = &old {
            inode.forget_name(self.directory, self.name);
        }
        self.directory.touch();
        Ok(old)
    }
}

/// The root directory.
///
/// # Panics
///
/// Before [`set_root`].
pub fn root() -> Arc<Inode> {
    ROOT.lock().clone().expect("the file system is set up before anything is looked up")
}

/// Installs the root directory, or removes it; returns the one before.
pub fn set_root(root: Option<Arc<Inode>>) -> Option<Arc<Inode>> {
    core::mem::replace(&mut *ROOT.lock(), root)
}

/// Whether `inode` is the root directory.
pub fn is_root(inode: &Arc<Inode>) -> bool {
    ROOT.lock().as_ref().is_some_and(|root| Arc::ptr_eq(root, inode))
}

/// An empty directory.
pub fn new_directory(permissions: u32) -> Arc<Inode> {
    let inode = Inode::new(Body::Directory(Lock::new(Directory::new())), permissions);
    inode.attributes.lock().links = 2;
    inode
}

fn begin() -> Guard<'static, ()> {
    CHANGES.lock()
}

/// Gives `inode` its first name.
///
/// # Errors
///
/// `EEXIST`, `ENOENT` (the directory was removed), `ENOSPC` (too many files), `EPERM` (/proc).
pub fn create(spot: Spot<'_>, inode: &Arc<Inode>) -> Result<(), Errno> {
    let _changes = begin();
    admit(spot)?;
    quota::add_name()?;
    if inode.is_directory() {
        spot.directory.attributes.lock().links += 1;
    } else {
        inode.attributes.lock().links += 1;
    }
    spot.put(inode)?;
    Ok(())
}

/// Whether a new name can be put there.
fn admit(spot: Spot<'_>) -> Result<(), Errno> {
    let entries = spot.entries()?.lock();
    if entries.is_gone() {
        return Err(Errno::ENOENT);
    }
    if entries.get(spot.name).is_some() {
        return Err(Errno::EEXIST);
    }
    Ok(())
}

/// Gives `inode` another name.
///
/// # Errors
///
/// As [`create`]; `EPERM` for directories, `EMLINK`, `ENOENT` if its last name is gone.
pub fn link(spot: Spot<'_>, inode: &Arc<Inode>, nameless: Nameless) -> Result<(), Errno> {
    let _changes = begin();
    admit(spot)?;
    if inode.is_directory() {
        return Err(Errno::EPERM);
    }
    {
        let mut attributes = inode.attributes.lock();
        match attributes.links {
            0 if nameless == Nameless::Refuse => return Err(Errno::ENOENT),
            0 => quota::add_name()?,
            MAX_LINKS.. => return Err(Errno::EMLINK),
            _ => {}
        }
        attributes.links += 1;
        attributes.changed = super::inode::Stamp::now();
    }
    spot.put(inode)?;
    Ok(())
}

/// What [`link`] does about a file without a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nameless {
    /// It was removed and stays so.
    Refuse,
    /// It was created to be named later (`O_TMPFILE`).
    Allow,
}

/// Removes a name of something that is not a directory.
///
/// # Errors
///
/// `ENOENT`, `EISDIR`, `EPERM` (/proc).
pub fn unlink(spot: Spot<'_>) -> Result<(), Errno> {
    let removed = {
        let _changes = begin();
        let inode = spot.get()?.ok_or(Errno::ENOENT)?;
        if inode.is_directory() {
            return Err(Errno::EISDIR);
        }
        spot.take()?;
        drop_name(&inode);
        inode
    };
    // The last reference frees the file: not under the lock.
    drop(removed);
    Ok(())
}

/// Accounts for a name that `inode` has no more.
fn drop_name(inode: &Arc<Inode>) {
    let mut attributes = inode.attributes.lock();
    attributes.links -= 1;
    attributes.changed = super::inode::Stamp::now();
    if attributes.links == 0 {
        quota::remove_name();
    }
}

/// Removes an empty directory.
///
/// # Errors
///
/// `ENOENT`, `ENOTDIR`, `ENOTEMPTY`, `EBUSY` (the root of a file system), `EPERM` (/proc).
pub fn rmdir(spot: Spot<'_>) -> Result<(), Errno> {
    let _changes = begin();
    let inode = spot.get()?.ok_or(Errno::ENOENT)?;
    if !inode.is_directory() {
        return Err(Errno::ENOTDIR);
    }
    retire(&inode)?;
    spot.take()?;
    spot.directory.attributes.lock().links -= 1;
    Ok(())
}

/// Closes an empty directory for good.
fn retire(directory: &Arc<Inode>) -> Result<(), Errno> {
    let Some(entries) = directory.entries() else {
        return Err(Errno::EBUSY);
    };
    let mut entries = entries.lock();
    if !entries.is_empty() {
        return Err(Errno::ENOTEMPTY);
    }
    entries.set_gone();
    drop(entries);
    directory.attributes.lock().links = 0;
    quota::remove_name();
    Ok(())
}

/// Renames a file.
///
/// # Errors
///
/// `ENOENT`, `EINVAL` (a directory into itself), `EEXIST`, `ENOTEMPTY`, `EISDIR`, `ENOTDIR`, `EBUSY`,
/// `EPERM` (/proc).
pub fn rename(from: Spot<'_>, to: Spot<'_>, replace: Replace) -> Result<(), Errno> {
    let _changes = begin();
    let inode = from.get()?.ok_or(Errno::ENOENT)?;
    let target = to.get()?;
    if target.is_some() && replace == Replace::No {
        return Err(Errno::EEXIST);
    }
    if inode.is_directory() && is_within(to.directory, &inode) {
        return Err(Errno::EINVAL);
    }
    if inode.entries().is_none() && inode.is_directory() {
        return Err(Errno::EBUSY);
    }
    if to.entries()?.lock().is_gone() {
        return Err(Errno::ENOENT);
    }
    match &target {
        Some(target) if Arc::ptr_eq(target, &inode) => return Ok(()),
        Some(target) => make_way(&inode, target, from.directory, to.directory)?,
        None => {}
    }
    // The new name first: there is no moment at which the file has none.
    to.put(&inode)?;
    from.entries()?.lock().remove(from.name);
    from.directory.touch();
    inode.attributes.lock().changed = super::inode::Stamp::now();
    if inode.is_directory() {
        from.directory.attributes.lock().links -= 1;
        to.directory.attributes.lock().links += 1;
    }
    Ok(())
}

/// Checks that `inode` may replace `target`, and accounts for the end of that.
fn make_way(inode: &Arc<Inode>, target: &Arc<Inode>, from: &Arc<Inode>, to: &Arc<Inode>) -> Result<(), Errno> {
    match (inode.is_directory(), target.is_directory()) {
        (true, false) => Err(Errno::ENOTDIR),
        (false, true) if is_within(from, target) => Err(Errno::ENOTEMPTY),
        (false, true) => Err(Errno::EISDIR),
        (true, true) => {
            retire(target)?;
            to.attributes.lock().links -= 1;
            Ok(())
        }
        (false, false) => {
            drop_name(target);
            Ok(())
        }
    }
}

/// Whether `inode` is `ancestor` or below it. Exact under `CHANGES`.
fn is_within(inode: &Arc<Inode>, ancestor: &Arc<Inode>) -> bool {
    let mut here = inode.clone();
    // Ends at the root, or at a directory that has no holder.
    loop {
        if Arc::ptr_eq(&here, ancestor) {
            return true;
        }
        let holder = here.holder();
        if is_root(&here) || Arc::ptr_eq(&holder, &here) {
            return false;
        }
        here = holder;
    }
}

/// Takes the whole tree apart, one directory at a time: dropping it as a whole would recurse as deep as
/// users have made it.
pub fn dismantle() {
    let mut pending: Vec<Arc<Inode>> = set_root(None).into_iter().collect();
    // Ends: each directory is cleared once.
    while let Some(inode) = pending.pop() {
        if let Some(entries) = inode.entries() {
            let children = entries.lock().clear();
            pending.extend(children);
        }
    }
}
