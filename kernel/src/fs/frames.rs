//! /dev/frames: an example of a driver whose frames programs read, write and map (rows PF).
//!
//! Called by open files, by `mmap`, and at the start and the end of the machine. It is a window of [`PAGES`] pages, as
//! /dev/mem is one onto all of memory, with one part for each way in which a driver can map what it has:
//!
//! | pages | what is there | mapped with |
//! |---|---|---|
//! | 0 to 15 | RAM that faultless never got: frames without records | `Space::insert_frames` |
//! | 16 to 19 | nothing | |
//! | 20 to 27 | pages that the driver had from faultless | `Space::insert_frames`, by their numbers |
//! | 28 to 35 | the same pages again | `Space::insert_page`, counted |
//!
//! A driver needs no more than [`fill`]: an area of `Backing::Frames` has been mapped, and its pages are put in. Faults,
//! copies, forks and the end are faultless' affair.
//!
//! Absent on purpose: pages that are put in by faults; everything is there from the start or never.

use alloc::sync::Arc;
use alloc::vec::Vec;

use faultless::{FrameId, InsertError, Machine, OutOfMemory, PAGE_SIZE, Page, PageRange, RawFrames, VirtAddr};
use faultless_linux::Caller;

use crate::arch::CpuLocal;
use crate::errno::Errno;
use crate::machine::{self, KernelMachine};
use crate::sync::Lock;
use crate::uaccess::{Sink, Source};

/// Its major device number, one of those for local use.
pub const MAJOR: u32 = 240;
/// Frames that have to be kept from faultless.
pub const KEPT: u64 = 16;
/// Pages of the driver's own.
const OWN: u64 = 8;
const NUMBERED: u64 = KEPT + 4;
const COUNTED: u64 = NUMBERED + OWN;
/// Pages of the window.
pub const PAGES: u64 = COUNTED + OWN;

/// Bytes moved at a time.
const CHUNK: u64 = 512;

/// What the window shows.
pub struct Window {
    kept: RawFrames,
    /// The driver's pages, and the same by number.
    own: Vec<(Page<KernelMachine>, RawFrames)>,
}

/// What one page of the window is.
enum Part<'a> {
    /// Frames by number, from this page on.
    Frames(RawFrames),
    /// A counted page.
    Page(&'a Page<KernelMachine>),
    /// Nothing.
    Hole,
}

static WINDOW: Lock<Option<Arc<Window>>> = Lock::new(None);

impl Window {
    /// A window onto `kept` and onto pages of its own, all zeroes. `vouch` makes the promise of [`RawFrames`] for each of
    /// these pages, which live until [`remove`].
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn new(
        cpu: &mut CpuLocal,
        kept: RawFrames,
        vouch: impl Fn(&Page<KernelMachine>) -> RawFrames,
    ) -> Result<Window, OutOfMemory> {
        let vm = machine::vm();
        for number in 0..kept.count() {
            vm.machine().zero(FrameId::new(kept.base().as_u64() + number));
        }
        let new = |_| {
            vm.new_page(&mut cpu.vm).map(|page| {
                let frames = vouch(&page);
                (page, frames)
            })
        };
        Ok(Window { kept, own: (0..OWN).map(new).collect::<Result<_, _>>()? })
    }

    /// What `page` is.
    fn part(&self, page: u64) -> Part<'_> {
        let own = |first: u64| self.own.get((page - first) as usize);
        let part = match page {
            0..KEPT => Some(Part::Frames(self.kept.skip(page))),
            NUMBERED..COUNTED => own(NUMBERED).map(|(_, frames)| Part::Frames(*frames)),
            COUNTED..PAGES => own(COUNTED).map(|(page, _)| Part::Page(page)),
            _ => None,
        };
        part.unwrap_or(Part::Hole)
    }

    /// The frame that `page` shows.
    fn frame(&self, page: u64) -> Option<FrameId> {
        match self.part(page) {
            Part::Frames(frames) => Some(frames.base()),
            Part::Page(page) => Some(page.frame()),
            Part::Hole => None,
        }
    }
}

/// Makes `window` the one that the device shows.
pub fn install(window: Window) {
    *WINDOW.lock() = Some(Arc::new(window));
}

/// Gives the driver's pages back. Nobody maps them any more.
pub fn remove() {
    let window = WINDOW.lock().take();
    drop(window);
}

/// The window, without its lock: what works on it may have to wait for other CPUs.
fn window() -> Result<Arc<Window>, Errno> {
    WINDOW.lock().clone().ok_or(Errno::ENXIO)
}

/// Puts the frames from byte `offset` of the window on into `range`, which is mapped with `Backing::Frames`. Holes, and
/// what lies behind the window, are left out.
///
/// # Errors
///
/// `EINVAL` if the mapping is private and not one run of frames by number, or has no such frame (PF-03); `ENOMEM`.
pub fn fill(caller: &mut Caller<'_, KernelMachine>, range: PageRange, offset: u64) -> Result<(), Errno> {
    let window = window()?;
    let first = offset / PAGE_SIZE;
    let end = first.saturating_add(range.pages()).min(PAGES);
    let mut page = first;
    // Ends: each round passes a page at least.
    while page < end {
        let at = VirtAddr::new(range.start().as_u64() + (page - first) * PAGE_SIZE);
        let space = &caller.memory.space;
        page += match window.part(page) {
            Part::Frames(frames) => {
                let run = frames.take(end - page);
                space.insert_frames(caller.cpu, at, run).map_err(errno_of)?;
                run.count()
            }
            Part::Page(own) => {
                space.insert_page(caller.cpu, at, own).map_err(errno_of)?;
                1
            }
            Part::Hole => 1,
        };
    }
    Ok(())
}

fn errno_of(error: InsertError) -> Errno {
    match error {
        InsertError::Unmapped(_) => Errno::EFAULT,
        InsertError::Invalid => Errno::EINVAL,
        InsertError::Exists(_) => Errno::EBUSY,
        InsertError::NoMemory(_) => Errno::ENOMEM,
    }
}

/// A piece of one page: its frame, the offset in it, and its length.
type Piece = (FrameId, usize, usize);

/// The piece at `position` of at most `wanted` bytes; none at the end.
fn piece(window: &Window, position: u64, wanted: usize) -> Result<Option<Piece>, Errno> {
    let (page, offset) = (position / PAGE_SIZE, position % PAGE_SIZE);
    if page >= PAGES {
        return Ok(None);
    }
    let frame = window.frame(page).ok_or(Errno::ENXIO)?;
    let length = (PAGE_SIZE - offset).min(CHUNK).min(wanted as u64);
    Ok(Some((frame, offset as usize, length as usize)))
}

/// Reads from `position` on.
///
/// # Errors
///
/// `ENXIO` in a hole, `EFAULT`; neither if there was something before.
pub fn read(cpu: &mut CpuLocal, position: u64, to: &mut dyn Sink) -> Result<usize, Errno> {
    let window = window()?;
    let mut bytes = [0; CHUNK as usize];
    transfer(position, to.room(), |position, wanted| {
        let Some((frame, offset, length)) = piece(&window, position, wanted)? else { return Ok(0) };
        machine::vm().machine().read(frame, offset, &mut bytes[..length]);
        match to.put(cpu, &bytes[..length]) {
            0 => Err(Errno::EFAULT),
            put => Ok(put),
        }
    })
}

/// Writes from `position` on.
///
/// # Errors
///
/// `ENXIO` in a hole, `ENOSPC` behind the end, `EFAULT`; none of them if something was written.
pub fn write(cpu: &mut CpuLocal, position: u64, from: &mut dyn Source) -> Result<usize, Errno> {
    let window = window()?;
    let mut bytes = [0; CHUNK as usize];
    transfer(position, from.left(), |position, wanted| {
        let (frame, offset, length) = piece(&window, position, wanted)?.ok_or(Errno::ENOSPC)?;
        match from.take(cpu, &mut bytes[..length]) {
            0 => Err(Errno::EFAULT),
            taken => {
                machine::vm().machine().write(frame, offset, &bytes[..taken]);
                Ok(taken)
            }
        }
    })
}

/// Moves `wanted` bytes piece by piece. What was done before an error counts more than the error.
fn transfer(
    position: u64,
    wanted: usize,
    mut part: impl FnMut(u64, usize) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let mut done = 0;
    // Ends: each round moves a byte at least.
    while done < wanted {
        match part(position + done as u64, wanted - done) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(done)
}
