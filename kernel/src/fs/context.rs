//! What of the file system belongs to a process: its working directory and its umask.
//!
//! Called by path walks and by `chdir` and `umask`.
//!
//! Absent on purpose: a root directory of its own (`chroot`).

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use super::inode::Inode;
use super::namespace;
use crate::sync::Lock;

/// Working directory and umask, shared by `clone(CLONE_FS)`.
pub struct FsContext {
    /// The root directory, kept here so that walks need not lock to find it.
    root: Arc<Inode>,
    directory: Lock<Arc<Inode>>,
    umask: AtomicU32,
}

impl FsContext {
    /// A context in `directory`.
    pub fn new(directory: Arc<Inode>) -> Arc<FsContext> {
        Arc::new(FsContext { root: namespace::root(), directory: Lock::new(directory), umask: AtomicU32::new(0o022) })
    }

    /// A context of its own in the same place.
    pub fn fork(&self) -> Arc<FsContext> {
        Arc::new(FsContext {
            root: self.root.clone(),
            directory: Lock::new(self.directory()),
            umask: AtomicU32::new(self.umask()),
        })
    }

    /// Where absolute paths begin.
    pub fn root(&self) -> &Arc<Inode> {
        &self.root
    }

    /// Where relative paths begin.
    pub fn directory(&self) -> Arc<Inode> {
        self.directory.lock().clone()
    }

    /// `chdir`.
    pub fn set_directory(&self, directory: Arc<Inode>) {
        let old = core::mem::replace(&mut *self.directory.lock(), directory);
        drop(old);
    }

    /// Permissions that new files do not get.
    pub fn umask(&self) -> u32 {
        self.umask.load(Ordering::Relaxed)
    }

    /// `umask`; returns the old one.
    pub fn set_umask(&self, mask: u32) -> u32 {
        self.umask.swap(mask & 0o777, Ordering::Relaxed)
    }
}
