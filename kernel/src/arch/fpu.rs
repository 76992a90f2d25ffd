//! The x87 and SSE state of user threads.
//!
//! The entry code stores the SSE registers at each trap, because compiled kernel code uses them.
//! The x87 registers and MXCSR stay in the CPU until another thread runs there: kernel code
//! never touches them. [`save`] completes a context with them, [`load`] puts them back.

use core::arch::asm;

use super::context::FxArea;

/// Bytes of an `fxsave` image before the SSE registers.
const HEADER: usize = 160;

/// Stores x87 and MXCSR of this CPU into `area`, leaving its SSE part alone.
pub fn save(area: &mut FxArea) {
    let mut image = FxArea([0; 512]);
    // SAFETY: the image is 512 bytes, aligned to 16 by its type.
    unsafe { asm!("fxsave64 [{}]", in(reg) &raw mut image, options(nostack, preserves_flags)) }
    area.0[..HEADER].copy_from_slice(&image.0[..HEADER]);
}

/// Loads x87 and MXCSR of `area` (and its SSE registers, which the way to user mode loads again).
///
/// Reserved bits of MXCSR are cleared first: the area may come from user memory.
pub fn load(area: &mut FxArea) {
    sanitize(area);
    // SAFETY: 512 bytes, aligned, and MXCSR has no reserved bit set; the SSE registers are
    // declared clobbered.
    unsafe {
        asm!(
            "fxrstor64 [{}]", in(reg) core::ptr::from_ref(area),
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
            out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            options(nostack, preserves_flags),
        );
    }
}

/// Clears what would make `fxrstor` fault.
fn sanitize(area: &mut FxArea) {
    const MXCSR_VALID: u32 = 0xffff;
    let mxcsr = u32::from_le_bytes([area.0[24], area.0[25], area.0[26], area.0[27]]);
    area.0[24..28].copy_from_slice(&(mxcsr & MXCSR_VALID).to_le_bytes());
}
