//! The kernel heap: what `alloc` calls.
//!
//! Small sizes come from per-CPU lists, one per size class, without a lock: interrupts are off
//! while the kernel runs, so a list belongs to whoever runs on its CPU. Lists are refilled from
//! and spilled to the slabs of their class in batches (`slabs`), and those are runs of pages.
//! Larger sizes are runs of pages themselves (`runs`). The region is reserved at boot and does not
//! grow: system calls that need memory ask [`is_low`] first and are refused in time.

mod classes;
mod runs;
mod slabs;

use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::arch::{MAX_CPUS, local};
use crate::errno::Errno;
use crate::sync::Lock;
use classes::{CLASS_COUNT, class_of};
use runs::Runs;
use slabs::{Partial, SLAB, Table};

/// Blocks that move between a CPU's list and the slabs at a time.
const BATCH: u32 = 32;
/// A CPU's list spills when it is longer than this.
const SPILL_AT: u32 = 2 * BATCH;
/// Bounds of what is kept for those who cannot do without.
const RESERVE_MIN: usize = 2 << 20;
const RESERVE_MAX: usize = 16 << 20;

/// Free blocks of one class that belong to one CPU.
#[derive(Clone, Copy)]
struct List {
    head: *mut Block,
    count: u32,
}

/// A free block holds the address of the next one.
struct Block {
    next: *mut Block,
}

impl List {
    const EMPTY: List = List { head: null_mut(), count: 0 };

    /// Adds a block.
    ///
    /// # Safety
    ///
    /// `block` must be free memory of the list's class that nobody refers to.
    #[inline]
    unsafe fn push(&mut self, block: *mut Block) {
        // SAFETY: by the caller's promise it is ours to write, and blocks are at least a word.
        unsafe { (*block).next = self.head };
        self.head = block;
        self.count += 1;
    }

    /// Takes a block, null if there is none.
    #[inline]
    fn pop(&mut self) -> *mut Block {
        let block = self.head;
        if !block.is_null() {
            // SAFETY: blocks in a list are free and initialised by `push`.
            self.head = unsafe { (*block).next };
            self.count -= 1;
        }
        block
    }
}

#[repr(align(64))]
struct CpuLists(UnsafeCell<[List; CLASS_COUNT]>);

// SAFETY: each CPU uses only its own element, and never from an interrupt handler.
unsafe impl Sync for CpuLists {}

static CPU_LISTS: [CpuLists; MAX_CPUS] = [const { CpuLists(UnsafeCell::new([List::EMPTY; CLASS_COUNT])) }; MAX_CPUS];

static SLABS: [Lock<Partial>; CLASS_COUNT] = [const { Lock::new(Partial::new()) }; CLASS_COUNT];

static RUNS: Lock<Runs> = Lock::new(Runs::new());

/// Free bytes in runs, readable without the lock.
static FREE: AtomicUsize = AtomicUsize::new(0);
/// With less than this the heap is low.
static RESERVE: AtomicUsize = AtomicUsize::new(0);

/// The table of the slabs; set once by [`init`].
struct TheTable(UnsafeCell<Table>);

// SAFETY: written once before any other CPU runs; entries are used under their class's lock.
unsafe impl Sync for TheTable {}

static TABLE: TheTable = TheTable(UnsafeCell::new(Table::none()));

fn table() -> Table {
    // SAFETY: not written any more once there is something to allocate.
    unsafe { *TABLE.0.get() }
}

/// The allocator behind `alloc`.
struct KernelHeap;

#[global_allocator]
static HEAP: KernelHeap = KernelHeap;

/// Gives the heap its region, which must be mapped and used by nobody.
pub fn init(start: usize, bytes: usize) {
    let aligned = start.next_multiple_of(SLAB);
    let bytes = (bytes - (aligned - start)) & !(SLAB - 1);
    // SAFETY: the caller gives the region away, once.
    let (table, table_bytes) = unsafe { Table::make(aligned, bytes) };
    // SAFETY: nobody allocates yet.
    unsafe { *TABLE.0.get() = table };
    let first = aligned + table_bytes.next_multiple_of(SLAB);
    let mut runs = RUNS.lock();
    runs.init(first, aligned + bytes - first);
    FREE.store(runs.free(), Ordering::Relaxed);
    RESERVE.store((runs.total() / 4).clamp(RESERVE_MIN, RESERVE_MAX), Ordering::Relaxed);
}

/// Bytes of the region, and bytes in runs that are not handed out.
pub fn usage() -> (usize, usize) {
    let runs = RUNS.lock();
    (runs.total(), runs.free())
}

/// Whether so little is left that calls that could do without memory must.
#[inline]
pub fn is_low() -> bool {
    FREE.load(Ordering::Relaxed) < RESERVE.load(Ordering::Relaxed)
}

/// Whether `bytes` more can be had without touching what is kept for those who cannot do without.
pub fn affords(bytes: usize) -> bool {
    RESERVE.load(Ordering::Relaxed).saturating_add(bytes) <= FREE.load(Ordering::Relaxed)
}

/// Makes room for `more` elements, unless that would touch the reserve. For whatever grows as a
/// program likes.
///
/// # Errors
///
/// [`Exhausted`].
pub fn reserve<T>(vec: &mut Vec<T>, more: usize) -> Result<(), Exhausted> {
    let needed = vec.len().checked_add(more).ok_or(Exhausted)?;
    if needed <= vec.capacity() {
        return Ok(());
    }
    let capacity = needed.max(vec.capacity() * 2);
    let bytes = capacity.checked_mul(size_of::<T>()).ok_or(Exhausted)?;
    if !affords(bytes) {
        return Err(Exhausted);
    }
    vec.try_reserve_exact(capacity - vec.len()).map_err(|_| Exhausted)
}

/// The heap has too little left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted;

impl From<Exhausted> for Errno {
    fn from(_: Exhausted) -> Errno {
        Errno::ENOMEM
    }
}

fn take_run(bytes: usize, align: usize) -> *mut u8 {
    let mut runs = RUNS.lock();
    let run = runs.take(bytes, align);
    FREE.store(runs.free(), Ordering::Relaxed);
    run
}

fn give_run(address: usize, bytes: usize) {
    let mut runs = RUNS.lock();
    runs.give(address, bytes);
    FREE.store(runs.free(), Ordering::Relaxed);
}

// SAFETY: blocks come from the region given to `init`, are as large and aligned as asked (class
// sizes are checked in `class_of`, runs are page aligned), and are handed out once until freed.
unsafe impl GlobalAlloc for KernelHeap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(class) = class_of(layout) else {
            return take_run(layout.size(), layout.align());
        };
        let block = with_list(class, List::pop);
        if block.is_null() {
            return refill(class).cast();
        }
        block.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let Some(class) = class_of(layout) else {
            give_run(at as usize, layout.size());
            return;
        };
        let count = with_list(class, |list| {
            // SAFETY: the caller gives up the block, which came from this class: same layout.
            unsafe { list.push(at.cast()) };
            list.count
        });
        if count > SPILL_AT {
            spill(class);
        }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Ok(new_layout) = Layout::from_size_align(new_size, layout.align()) else {
            return null_mut();
        };
        if class_of(layout).is_some() && class_of(layout) == class_of(new_layout) {
            return at;
        }
        // SAFETY: the layout has a non-zero size by the contract of `realloc`.
        let fresh = unsafe { self.alloc(new_layout) };
        if !fresh.is_null() {
            // SAFETY: both blocks are live, distinct, and at least this long.
            unsafe { core::ptr::copy_nonoverlapping(at, fresh, layout.size().min(new_size)) };
            // SAFETY: the caller gives up `at`, which has this layout.
            unsafe { self.dealloc(at, layout) };
        }
        fresh
    }
}

/// Works on this CPU's list of `class`. `work` must not allocate.
#[inline]
fn with_list<R>(class: usize, work: impl FnOnce(&mut List) -> R) -> R {
    let lists = CPU_LISTS[local::index()].0.get();
    // SAFETY: only this CPU uses its lists, interrupt handlers do not allocate, and `work` does not
    // come back here: this is the only reference.
    let lists = unsafe { &mut *lists };
    work(&mut lists[class])
}

/// Gets a batch for this CPU and returns one block of it; null if memory is out.
#[cold]
fn refill(class: usize) -> *mut Block {
    let table = table();
    let mut slabs = SLABS[class].lock();
    if slabs.is_empty() {
        let run = take_run(SLAB, SLAB);
        if run.is_null() {
            return null_mut();
        }
        // SAFETY: a fresh run of that size and alignment.
        unsafe { slabs.add(&table, class, run as usize) };
    }
    let first = slabs.take(&table);
    for _ in 1..BATCH {
        let block = slabs.take(&table);
        if block.is_null() {
            break;
        }
        // SAFETY: a free block of this class.
        with_list(class, |list| unsafe { list.push(block) });
    }
    first
}

/// Moves a batch from this CPU's list back to its slabs.
#[cold]
fn spill(class: usize) {
    let table = table();
    let mut slabs = SLABS[class].lock();
    for _ in 0..BATCH {
        let block = with_list(class, List::pop);
        if block.is_null() {
            break;
        }
        if let Some(run) = slabs.give(&table, class, block) {
            give_run(run, SLAB);
        }
    }
}
