//! A heap that makes use after free visible: what is freed is overwritten, and re-used only much later.
//!
//! Areas and the nodes of their index live on the heap and are read without a lock; a reader that outlives them finds
//! patterns where it expects the model checker's handles, and the checker stops at once.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// Blocks that are kept back.
const KEPT: usize = 1024;
/// Larger blocks are buffers of the harness and go at once.
const LARGEST: usize = 1024;
const PATTERN: u8 = 0xdd;

/// The heap.
pub struct Poison;

struct Ring {
    blocks: [(*mut u8, Layout); KEPT],
    next: usize,
}

static BUSY: AtomicBool = AtomicBool::new(false);
static mut RING: Ring = Ring { blocks: [(std::ptr::null_mut(), Layout::new::<u8>()); KEPT], next: 0 };

// SAFETY: memory comes from and goes back to `System` with the layout it was asked for with; in between a freed block
// is nobody's.
unsafe impl GlobalAlloc for Poison {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let (block, layout) = if layout.size() <= LARGEST {
            // SAFETY: the caller gives up `layout.size()` bytes at `block`.
            unsafe { block.write_bytes(PATTERN, layout.size()) };
            exchange(block, layout)
        } else {
            (block, layout)
        };
        if !block.is_null() {
            // SAFETY: `block` was given up by its owner, now or earlier, with this layout.
            unsafe { System.dealloc(block, layout) };
        }
    }
}

/// Keeps one block back and returns the one that has been kept longest.
fn exchange(block: *mut u8, layout: Layout) -> (*mut u8, Layout) {
    while BUSY.compare_exchange_weak(false, true, Acquire, Relaxed).is_err() {
        std::hint::spin_loop();
    }
    let ring = &raw mut RING;
    // SAFETY: `BUSY` is ours, so nobody else touches the ring.
    let ring = unsafe { &mut *ring };
    let oldest = std::mem::replace(&mut ring.blocks[ring.next], (block, layout));
    ring.next = (ring.next + 1) % KEPT;
    BUSY.store(false, Release);
    oldest
}
