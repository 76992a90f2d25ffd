//! The kernel heap: what `alloc` calls.
//!
//! Small sizes come from per-CPU lists, one per size class, without a lock: interrupts are off
//! while the kernel runs, so a list belongs to whoever runs on its CPU. Lists are refilled from
//! and spilled to shared lists in batches, and those grow by runs of pages. Larger sizes are runs
//! of pages themselves (`runs`). The region is reserved at boot and does not grow.
//!
//! Absent on purpose: giving pages of small classes back to the runs. A class keeps its high-water
//! mark, which is the price of frees that touch nothing but the block.

mod classes;
mod runs;

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::null_mut;

use crate::arch::{MAX_CPUS, local};
use crate::sync::Lock;
use classes::{CLASS_COUNT, class_of, class_size};
use runs::Runs;

/// Blocks that move between a CPU's list and the shared one at a time.
const BATCH: u32 = 32;
/// A CPU's list spills when it is longer than this.
const SPILL_AT: u32 = 2 * BATCH;
/// Pages that a class takes at a time.
const GROW_BYTES: usize = 16 << 10;

/// A free block holds the address of the next one.
#[derive(Clone, Copy)]
struct List {
    head: *mut Block,
    count: u32,
}

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

struct SharedList(List);

// SAFETY: the blocks are plain memory; the lock around the list makes access exclusive.
unsafe impl Send for SharedList {}

static SHARED: [Lock<SharedList>; CLASS_COUNT] = [const { Lock::new(SharedList(List::EMPTY)) }; CLASS_COUNT];

static RUNS: Lock<Runs> = Lock::new(Runs::new());

/// The allocator behind `alloc`.
struct KernelHeap;

#[global_allocator]
static HEAP: KernelHeap = KernelHeap;

/// Gives the heap its region, which must be mapped and used by nobody.
pub fn init(start: usize, bytes: usize) {
    RUNS.lock().init(start, bytes);
}

/// Bytes of the region, and bytes in runs that are not handed out.
pub fn usage() -> (usize, usize) {
    let runs = RUNS.lock();
    (runs.total(), runs.free())
}

// SAFETY: blocks come from the region given to `init`, are as large and aligned as asked (class
// sizes are checked in `class_of`, runs are page aligned), and are handed out once until freed.
unsafe impl GlobalAlloc for KernelHeap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(class) = class_of(layout) else {
            return RUNS.lock().take(layout.size(), layout.align());
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
            RUNS.lock().give(at as usize, layout.size());
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
    let mut shared = SHARED[class].lock();
    if shared.0.head.is_null() {
        grow(class, &mut shared.0);
    }
    with_list(class, |local| {
        move_blocks(&mut shared.0, local);
        local.pop()
    })
}

/// Moves a batch from this CPU's list to the shared one.
#[cold]
fn spill(class: usize) {
    let mut shared = SHARED[class].lock();
    with_list(class, |local| move_blocks(local, &mut shared.0));
}

/// Moves up to a batch of blocks between two lists of the same class.
fn move_blocks(from: &mut List, to: &mut List) {
    for _ in 0..BATCH {
        let block = from.pop();
        if block.is_null() {
            break;
        }
        // SAFETY: a free block of the same class.
        unsafe { to.push(block) };
    }
}

/// Cuts a run of pages into blocks of `class`.
fn grow(class: usize, list: &mut List) {
    let size = class_size(class);
    let bytes = GROW_BYTES.max(size);
    let run = RUNS.lock().take(bytes, 1);
    if run.is_null() {
        return;
    }
    for n in (0..bytes / size).rev() {
        // SAFETY: inside the run.
        let block = unsafe { run.add(n * size) };
        // SAFETY: the run is ours, and blocks do not overlap.
        unsafe { list.push(block.cast()) };
    }
}
