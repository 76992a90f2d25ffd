//! Volatile accesses. The numbered demands are those of the parent module. A load acquires and a store releases by
//! fences of their own, so that guests see an order as strong as on x86-64 at least for aligned words.

use core::sync::atomic::{Ordering, fence};

const PAGE: usize = 4096;

/// Fills a page with zeroes.
///
/// # Safety
///
/// 1 of the parent module, for a whole page.
pub(in crate::arena) unsafe fn zero_page(page: *mut u8) {
    for word in 0..PAGE / 8 {
        // SAFETY: inside the page.
        let at = unsafe { page.cast::<u64>().add(word) };
        // SAFETY: the caller's promise (1).
        unsafe { at.write_volatile(0) };
    }
}

/// Copies a page.
///
/// # Safety
///
/// 1 and 2 of the parent module, for whole pages.
pub(in crate::arena) unsafe fn copy_page(from: *const u8, to: *mut u8) {
    for word in 0..PAGE / 8 {
        // SAFETY: inside the page.
        let source = unsafe { from.cast::<u64>().add(word) };
        // SAFETY: inside the page.
        let target = unsafe { to.cast::<u64>().add(word) };
        // SAFETY: the caller's promise (1).
        let value = unsafe { source.read_volatile() };
        // SAFETY: the caller's promise (1).
        unsafe { target.write_volatile(value) };
    }
}

/// Copies bytes out.
///
/// # Safety
///
/// 1 and 2 of the parent module.
pub(in crate::arena) unsafe fn read(from: *const u8, into: &mut [u8]) {
    for (offset, byte) in into.iter_mut().enumerate() {
        // SAFETY: inside the bytes named.
        let at = unsafe { from.add(offset) };
        // SAFETY: the caller's promise (1).
        *byte = unsafe { at.read_volatile() };
    }
    // Pairs with the fence in `write`.
    fence(Ordering::Acquire);
}

/// Copies bytes in.
///
/// # Safety
///
/// 1 and 2 of the parent module.
pub(in crate::arena) unsafe fn write(to: *mut u8, from: &[u8]) {
    // Pairs with the fence in `read`.
    fence(Ordering::Release);
    for (offset, byte) in from.iter().enumerate() {
        // SAFETY: inside the bytes named.
        let at = unsafe { to.add(offset) };
        // SAFETY: the caller's promise (1).
        unsafe { at.write_volatile(*byte) };
    }
}

macro_rules! words {
    ($($word:ty, $load:ident, $store:ident;)*) => { $(
        /// Loads a word; at once if it is aligned.
        ///
        /// # Safety
        ///
        /// 1 of the parent module.
        pub(in crate::arena) unsafe fn $load(from: *const u8) -> $word {
            let mut bytes = [0; size_of::<$word>()];
            let value = if from.cast::<$word>().is_aligned() {
                // SAFETY: aligned, and the caller's promise (1).
                unsafe { from.cast::<$word>().read_volatile() }
            } else {
                // SAFETY: the caller's promise (1); the array is on our stack (2).
                unsafe { read(from, &mut bytes) };
                <$word>::from_ne_bytes(bytes)
            };
            // Pairs with the fence in the store.
            fence(Ordering::Acquire);
            value
        }

        /// Stores a word; at once if it is aligned.
        ///
        /// # Safety
        ///
        /// 1 of the parent module.
        pub(in crate::arena) unsafe fn $store(to: *mut u8, value: $word) {
            // Pairs with the fence in the load.
            fence(Ordering::Release);
            if to.cast::<$word>().is_aligned() {
                // SAFETY: aligned, and the caller's promise (1).
                unsafe { to.cast::<$word>().write_volatile(value) };
            } else {
                // SAFETY: the caller's promise (1); the array is on our stack (2).
                unsafe { write(to, &value.to_ne_bytes()) };
            }
        }
    )* };
}

words! {
    u8, load8, store8;
    u16, load16, store16;
    u32, load32, store32;
    u64, load64, store64;
}
