//! Heap allocation that can fail (`Box::new` aborts, and running out of memory must be an error here), and heap
//! objects that wait to be freed.

use alloc::alloc::{Layout, alloc};
use alloc::boxed::Box;
use core::ptr::NonNull;

/// Moves `value` to the heap, or gives it back if there is no memory.
pub(crate) fn try_box<T>(value: T) -> Result<Box<T>, T> {
    let layout = Layout::new::<T>();
    assert!(layout.size() != 0, "only sized things go to the heap here");
    // SAFETY: the layout has a non-zero size, asserted above.
    let memory = unsafe { alloc(layout) }.cast::<T>();
    if memory.is_null() {
        return Err(value);
    }
    // SAFETY: `memory` is a fresh allocation of T's layout, so it is aligned and valid for one write.
    unsafe { memory.write(value) };
    // SAFETY: `memory` came from the global allocator with T's layout and holds an initialised T.
    Ok(unsafe { Box::from_raw(memory) })
}

/// Anything that can be freed on any CPU.
trait Reclaim: Send {}
impl<T: Send> Reclaim for T {}

/// A heap object that nobody may start to look at any more; dropping the garbage frees it. Kept as a raw pointer,
/// because readers that started earlier may still hold references.
pub(crate) struct Garbage {
    object: NonNull<dyn Reclaim>,
}

// SAFETY: the object is `Send` (supertrait), and the garbage owns it.
unsafe impl Send for Garbage {}

impl Garbage {
    /// Takes over `object`.
    ///
    /// # Safety
    ///
    /// 1. `object` came from a `Box`, and the caller gives up the only way to free it.
    /// 2. When the garbage is dropped, no reference to the object is left (limbo sees to it).
    pub(super) unsafe fn new<T: Send + 'static>(object: NonNull<T>) -> Self {
        Self { object }
    }
}

impl Drop for Garbage {
    fn drop(&mut self) {
        // SAFETY: by 1 and 2 of `new`.
        drop(unsafe { Box::from_raw(self.object.as_ptr()) });
    }
}
