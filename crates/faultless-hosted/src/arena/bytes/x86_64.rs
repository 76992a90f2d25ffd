//! One instruction each. The numbered demands are those of the parent module.

use core::arch::asm;

const PAGE: usize = 4096;

/// Fills a page with zeroes.
///
/// # Safety
///
/// 1 of the parent module, for a whole page.
#[inline]
pub(in crate::arena) unsafe fn zero_page(page: *mut u8) {
    // SAFETY: the caller's promise (1); the direction flag is clear by the ABI.
    unsafe {
        asm!("rep stosq", inout("rcx") PAGE / 8 => _, inout("rdi") page => _, in("rax") 0u64,
             options(nostack, preserves_flags));
    }
}

/// Copies a page.
///
/// # Safety
///
/// 1 and 2 of the parent module, for whole pages.
#[inline]
pub(in crate::arena) unsafe fn copy_page(from: *const u8, to: *mut u8) {
    // SAFETY: the caller's promise (1, 2); the direction flag is clear by the ABI.
    unsafe {
        asm!("rep movsq", inout("rcx") PAGE / 8 => _, inout("rsi") from => _, inout("rdi") to => _,
             options(nostack, preserves_flags));
    }
}

/// Copies bytes out.
///
/// # Safety
///
/// 1 and 2 of the parent module.
#[inline]
pub(in crate::arena) unsafe fn read(from: *const u8, into: &mut [u8]) {
    // SAFETY: the caller's promise (1, 2); the direction flag is clear by the ABI.
    unsafe {
        asm!("rep movsb", inout("rcx") into.len() => _, inout("rsi") from => _, inout("rdi") into.as_mut_ptr() => _,
             options(nostack, preserves_flags));
    }
}

/// Copies bytes in.
///
/// # Safety
///
/// 1 and 2 of the parent module.
#[inline]
pub(in crate::arena) unsafe fn write(to: *mut u8, from: &[u8]) {
    // SAFETY: the caller's promise (1, 2); the direction flag is clear by the ABI.
    unsafe {
        asm!("rep movsb", inout("rcx") from.len() => _, inout("rsi") from.as_ptr() => _, inout("rdi") to => _,
             options(nostack, preserves_flags));
    }
}

macro_rules! words {
    ($($word:ty, $class:ident, $modifier:literal, $load:ident, $store:ident;)*) => { $(
        /// Loads a word.
        ///
        /// # Safety
        ///
        /// 1 of the parent module.
        #[inline]
        pub(in crate::arena) unsafe fn $load(from: *const u8) -> $word {
            let value: $word;
            // SAFETY: the caller's promise (1).
            unsafe {
                asm!(concat!("mov {value", $modifier, "}, [{from}]"), value = out($class) value, from = in(reg) from,
                     options(nostack, preserves_flags));
            }
            value
        }

        /// Stores a word.
        ///
        /// # Safety
        ///
        /// 1 of the parent module.
        #[inline]
        pub(in crate::arena) unsafe fn $store(to: *mut u8, value: $word) {
            // SAFETY: the caller's promise (1).
            unsafe {
                asm!(concat!("mov [{to}], {value", $modifier, "}"), value = in($class) value, to = in(reg) to,
                     options(nostack, preserves_flags));
            }
        }
    )* };
}

words! {
    u8, reg_byte, "", load8, store8;
    u16, reg, ":x", load16, store16;
    u32, reg, ":e", load32, store32;
    u64, reg, "", load64, store64;
}
