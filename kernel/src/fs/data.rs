//! The contents of regular files: faultless objects, made when they are first needed.
//!
//! Called by open files, `mmap` and `execve`. A file of the boot archive is a slice of the archive until
//! somebody reads, writes or maps it; then it becomes a page cache over that slice. A fresh file
//! becomes a memory object. From then on the object is the only place where the contents are.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use faultless::{Object, ObjectError, PAGE_SIZE, PageWriter, Pager, PagerError};

use linux_raw_sys::general::F_SEAL_SEAL;

use super::inode::Inode;
use crate::arch::CpuLocal;
use crate::errno::Errno;
use crate::machine::{self, KernelMachine};
use crate::sync::Lock;
use crate::uaccess::{Sink, Source};

/// The kernel's kind of object.
pub type FileObject = Object<KernelMachine>;

/// Bytes of a large page.
pub const HUGE_PAGE: u64 = 1 << 21;
/// Largest size of a file.
pub const MAX_SIZE: u64 = i64::MAX as u64;

/// Bytes that go through the kernel at a time on their way between user memory and an object.
const CHUNK: usize = 8 << 10;
/// The share of all frames that files leave free for everything else.
const RESERVE_SHARE: u64 = 16;
/// Bytes that files may grow by before the free frames are counted again.
static ALLOWANCE: AtomicU64 = AtomicU64::new(0);
/// The largest allowance: counting is not free, but other things take frames meanwhile.
const ALLOWANCE_MAX: u64 = 4 << 20;

/// Files by the id of their object: mappings know only that.
static BY_OBJECT: Lock<BTreeMap<u64, Weak<Inode>>> = Lock::new(BTreeMap::new());

/// Contents of a regular file.
pub struct FileData {
    state: Lock<State>,
    /// Held by a write from its first byte to its last, so that writes do not mix and appends do not
    /// overlap. A fault on the user's side never takes it.
    pub(super) writing: Lock<()>,
    /// `F_SEAL_*`, for files of `memfd_create`.
    pub(super) seals: AtomicU32,
    /// Is it made of large pages (MFD_HUGETLB)?
    huge: bool,
}

enum State {
    /// Not touched yet: part of the boot archive, or empty.
    Image(&'static [u8]),
    Object(Arc<FileObject>, Option<Arc<Image>>),
}

/// Pages from the boot archive.
struct Image {
    bytes: &'static [u8],
    /// Bytes that were never cut off. Beyond, the file is zeroes even if it grows again.
    valid: AtomicU64,
}

impl Pager for Image {
    fn fill(&self, index: u64, page: &mut PageWriter<'_>) -> Result<(), PagerError> {
        // Pairs with the Release in `resize`: a page asked for after a cut does not bring it back.
        let valid = self.valid.load(Ordering::Acquire);
        let start = index.saturating_mul(PAGE_SIZE);
        let end = start.saturating_add(PAGE_SIZE).min(valid);
        if start < end {
            page.write(0, &self.bytes[start as usize..end as usize]);
        }
        Ok(())
    }
}

/// Where a write begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteAt {
    /// At this offset.
    Offset(u64),
    /// At the end, wherever that is by then.
    End,
}

/// The file whose contents the object with this id is.
pub fn file_of_object(id: u64) -> Option<Arc<Inode>> {
    BY_OBJECT.lock().get(&id).and_then(Weak::upgrade)
}

impl FileData {
    /// A file with these contents, to begin with.
    pub const fn new(image: &'static [u8]) -> FileData {
        FileData::with(image, false)
    }

    const fn with(image: &'static [u8], huge: bool) -> FileData {
        let seals = AtomicU32::new(F_SEAL_SEAL);
        FileData { state: Lock::new(State::Image(image)), writing: Lock::new(()), seals, huge }
    }

    /// An empty file of large pages.
    pub const fn new_huge() -> FileData {
        FileData::with(&[], true)
    }

    /// Is it made of large pages?
    pub fn is_huge(&self) -> bool {
        self.huge
    }

    /// Bytes of its pages.
    fn page_size(&self) -> u64 {
        if self.huge { HUGE_PAGE } else { PAGE_SIZE }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        match &*self.state.lock() {
            State::Image(bytes) => bytes.len() as u64,
            State::Object(object, _) => object.size(),
        }
    }

    /// The object that holds the contents; `inode` is the file itself.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn object(&self, inode: &Inode) -> Result<Arc<FileObject>, Errno> {
        let mut state = self.state.lock();
        let bytes = match &*state {
            State::Object(object, _) => return Ok(object.clone()),
            State::Image(bytes) => *bytes,
        };
        let vm = machine::vm();
        // The name of an object is for people; paths of mappings come from the inode.
        let size = bytes.len() as u64;
        let (object, image) = if self.huge {
            (vm.new_huge_memory(0, "file"), None)
        } else if bytes.is_empty() {
            (vm.new_memory(0, "file"), None)
        } else {
            let image = Arc::new(Image { bytes, valid: AtomicU64::new(size) });
            (vm.new_file(size, image.clone(), "archive"), Some(image))
        };
        let object = object.map_err(|_| Errno::ENOMEM)?;
        BY_OBJECT.lock().insert(object.id(), inode.downgrade());
        *state = State::Object(object.clone(), image);
        Ok(object)
    }

    /// Reads from `offset` on.
    ///
    /// # Errors
    ///
    /// `EFAULT`, `EIO`, `ENOMEM`.
    pub fn read(&self, inode: &Inode, cpu: &mut CpuLocal, offset: u64, to: &mut dyn Sink) -> Result<usize, Errno> {
        let wanted = self.size().saturating_sub(offset).min(to.room() as u64) as usize;
        if wanted == 0 {
            return Ok(0);
        }
        let object = self.object(inode)?;
        let mut buffer = bounce(wanted)?;
        let mut done = 0;
        while done < wanted {
            let part = (wanted - done).min(CHUNK);
            let got = object.read(&mut cpu.vm, offset + done as u64, &mut buffer[..part]).map_err(errno_of);
            let got = match got {
                Ok(got) => got,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            };
            let put = to.put(cpu, &buffer[..got]);
            done += put;
            if put < got && done == 0 {
                return Err(Errno::EFAULT);
            }
            if put < part {
                break;
            }
        }
        Ok(done)
    }

    /// Writes all of `from`, but not beyond `limit`. Returns where it began, too.
    ///
    /// # Errors
    ///
    /// `EFBIG` (nothing fits below `limit`), `EFAULT`, `ENOSPC`, `EIO`, `EPERM` (sealed).
    pub fn write(
        &self,
        inode: &Inode,
        cpu: &mut CpuLocal,
        at: WriteAt,
        limit: u64,
        from: &mut dyn Source,
    ) -> Result<(u64, usize), Errno> {
        if self.huge {
            return Err(Errno::EINVAL); // such files are mapped
        }
        let object = self.object(inode)?;
        let _writing = self.writing.lock();
        let offset = match at {
            WriteAt::Offset(offset) => offset,
            WriteAt::End => object.size(),
        };
        if from.left() == 0 {
            return Ok((offset, 0));
        }
        let wanted = (from.left() as u64).min(limit.min(MAX_SIZE).saturating_sub(offset)) as usize;
        if wanted == 0 {
            return Err(Errno::EFBIG);
        }
        self.check_write(offset + wanted as u64 > object.size())?;
        let mut buffer = bounce(wanted)?;
        let mut done = 0;
        while done < wanted {
            let part = (wanted - done).min(CHUNK);
            let taken = from.take(cpu, &mut buffer[..part]);
            let put =
                if taken == 0 { Err(Errno::EFAULT) } else { put(&object, cpu, offset + done as u64, &buffer[..taken]) };
            match put {
                Ok(put) => done += put,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
            if put.is_ok_and(|put| put < part) {
                break;
            }
        }
        inode.touch();
        Ok((offset, done))
    }

    /// Changes the size.
    ///
    /// # Errors
    ///
    /// `EFBIG`, `ENOMEM`, `EPERM` (sealed).
    pub fn resize(&self, inode: &Inode, cpu: &mut CpuLocal, size: u64) -> Result<(), Errno> {
        if size > MAX_SIZE {
            return Err(Errno::EFBIG);
        }
        if !size.is_multiple_of(self.page_size()) && self.huge {
            return Err(Errno::EINVAL);
        }
        let _writing = self.writing.lock();
        let old = self.size();
        self.check_resize(old, size)?;
        {
            let mut state = self.state.lock();
            match &*state {
                // Nobody has seen the contents: no object is needed to make the file empty.
                State::Image(_) if size == 0 => *state = State::Image(&[]),
                State::Object(_, Some(image)) => {
                    // Release pairs with the Acquire in `fill`.
                    image.valid.fetch_min(size, Ordering::Release);
                }
                _ => {}
            }
        }
        if size != 0 || old != 0 {
            let object = self.object(inode)?;
            self.note_cut(size);
            object.resize(&mut cpu.vm, size).map_err(errno_of)?;
        }
        inode.touch();
        Ok(())
    }

    /// Makes pages for `start..end`, so that writes there find room; extends the file unless it shall keep its size.
    ///
    /// # Errors
    ///
    /// `ENOSPC`, after which the file is as before; `EIO`, `EPERM` (sealed).
    pub fn allocate(
        &self,
        inode: &Inode,
        cpu: &mut CpuLocal,
        (start, end): (u64, u64),
        keeps_size: bool,
    ) -> Result<(), Errno> {
        let object = self.object(inode)?;
        let _writing = self.writing.lock();
        self.check_growth(end > object.size())?;
        let mut made = Vec::new();
        let mut at = start;
        let mut result = Ok(());
        // Ends: at the end, or when memory does.
        while at < end && result.is_ok() {
            result = make_page(&object, cpu, at, self.page_size(), &mut made);
            at = (at / self.page_size() + 1).saturating_mul(self.page_size());
        }
        if let Err(errno) = result {
            for (from, to) in made {
                object.punch_hole(&mut cpu.vm, from, to - from).map_err(errno_of)?;
            }
            return Err(errno);
        }
        if !keeps_size && end > object.size() {
            object.resize(&mut cpu.vm, end).map_err(errno_of)?;
            inode.touch();
        }
        Ok(())
    }

    /// Makes a part of the file zeroes and gives its pages back.
    ///
    /// # Errors
    ///
    /// `EPERM` (sealed), `ENOSPC`, `EIO`.
    pub fn punch(&self, inode: &Inode, cpu: &mut CpuLocal, start: u64, end: u64) -> Result<(), Errno> {
        let object = self.object(inode)?;
        let _writing = self.writing.lock();
        if self.seals_writes() {
            return Err(Errno::EPERM);
        }
        object.punch_hole(&mut cpu.vm, start, end - start).map_err(errno_of)?;
        inode.touch();
        Ok(())
    }

    /// Pages that it takes.
    pub fn pages(&self) -> u64 {
        match &*self.state.lock() {
            State::Object(object, None) => object.resident_pages(),
            State::Object(object, Some(_)) => object.size().div_ceil(PAGE_SIZE),
            State::Image(bytes) => (bytes.len() as u64).div_ceil(PAGE_SIZE),
        }
    }

    /// Keeps the pager from delivering what lies beyond `size`, now that there is an object.
    fn note_cut(&self, size: u64) {
        if let State::Object(_, Some(image)) = &*self.state.lock() {
            // Release pairs with the Acquire in `fill`.
            image.valid.fetch_min(size, Ordering::Release);
        }
    }
}

/// A buffer for moving `wanted` bytes chunk by chunk.
fn bounce(wanted: usize) -> Result<Vec<u8>, Errno> {
    let mut buffer = Vec::new();
    let size = wanted.min(CHUNK);
    buffer.try_reserve_exact(size).map_err(|_| Errno::ENOMEM)?;
    buffer.resize(size, 0);
    Ok(buffer)
}

/// Writes a chunk if memory is not short.
fn put(object: &FileObject, cpu: &mut CpuLocal, offset: u64, bytes: &[u8]) -> Result<usize, Errno> {
    let growth = (offset + bytes.len() as u64).saturating_sub(object.size());
    // A page for a byte at worst, where the file had a hole.
    allow(growth.min(bytes.len() as u64).next_multiple_of(PAGE_SIZE))?;
    object.write(&mut cpu.vm, offset, bytes).map_err(errno_of)
}

/// Makes the page of `unit` bytes that holds a byte, and notes it if there was none.
fn make_page(
    object: &FileObject,
    cpu: &mut CpuLocal,
    at: u64,
    unit: u64,
    made: &mut Vec<(u64, u64)>,
) -> Result<(), Errno> {
    let page = at / unit * unit;
    if object.is_resident(page) {
        return Ok(());
    }
    if unit == PAGE_SIZE {
        allow(unit)?; // large pages are the pool's
    }
    if object.make_resident(&mut cpu.vm, page).map_err(errno_of)? {
        match made.last_mut() {
            Some((_, end)) if *end == page => *end = page + unit,
            _ => {
                made.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
                made.push((page, page + unit));
            }
        }
    }
    Ok(())
}

/// Takes `bytes` from the allowance, which is renewed while enough frames are free.
fn allow(bytes: u64) -> Result<(), Errno> {
    if bytes == 0 {
        return Ok(());
    }
    let take = |left: u64| left.checked_sub(bytes);
    // Relaxed: a bound on memory use, nothing else depends on it.
    if ALLOWANCE.try_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
        return Ok(());
    }
    let (free, total) = super::frames();
    let spare = free.saturating_sub(total / RESERVE_SHARE) * PAGE_SIZE;
    if spare < bytes {
        return Err(Errno::ENOSPC);
    }
    ALLOWANCE.store((spare / 4).min(ALLOWANCE_MAX).saturating_sub(bytes), Ordering::Relaxed);
    Ok(())
}

fn errno_of(error: ObjectError) -> Errno {
    match error {
        ObjectError::OutOfMemory => Errno::ENOSPC,
        ObjectError::Io => Errno::EIO,
        ObjectError::TooBig => Errno::EFBIG,
    }
}

impl Drop for FileData {
    fn drop(&mut self) {
        if let State::Object(object, _) = self.state.get_mut() {
            BY_OBJECT.lock().remove(&object.id());
        }
    }
}
