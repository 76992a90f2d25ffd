//! The frame a handler runs on, in the layout that libraries and debuggers expect, and the way
//! back from it.
//!
//! From low to high addresses: return address (`sa_restorer`), `ucontext`, `siginfo`, a gap, and
//! the 512 bytes of `fxsave`, aligned to 64.

use alloc::sync::Arc;

use super::{Action, AlternateStack, Detail, SigInfo, SigSet};
use crate::arch::context::{FxArea, RFLAGS_USER, USER_CS, USER_SS};
use crate::arch::user::{Fault, USER_END, copy_in, copy_out};
use crate::arch::{CpuLocal, UserContext, fpu};
use crate::sched::Thread;

const ONSTACK: u64 = 0x0800_0000;
const RESTORER: u64 = 0x0400_0000;
const AUTODISARM: u32 = 1 << 31;
const SS_ONSTACK: u32 = 1;
const SS_DISABLE: u32 = 2;
/// Functions may use this much below their stack pointer.
const RED_ZONE: u64 = 128;

/// Words of the frame, by index.
mod word {
    pub const RETURN: usize = 0;
    pub const STACK_BASE: usize = 3;
    pub const STACK_FLAGS: usize = 4;
    pub const STACK_SIZE: usize = 5;
    pub const REGISTERS: usize = 6;
    pub const SELECTORS: usize = 24;
    pub const ERROR: usize = 25;
    pub const TRAP: usize = 26;
    pub const OLD_MASK: usize = 27;
    pub const FAULT_ADDRESS: usize = 28;
    pub const FX: usize = 29;
    pub const MASK: usize = 38;
    pub const INFO: usize = 39;
    pub const COUNT: usize = INFO + 16;
}

type Words = [u64; word::COUNT];
const FRAME_BYTES: usize = word::COUNT * 8;

/// Byte offset of `siginfo` in the frame, and of `ucontext`.
const INFO_OFFSET: u64 = word::INFO as u64 * 8;
const CONTEXT_OFFSET: u64 = 8;

/// Builds the frame on the user stack and points the registers at the handler.
pub(super) fn push(
    cpu: &mut CpuLocal,
    thread: &Arc<Thread>,
    context: &mut UserContext,
    info: SigInfo,
    action: Action,
    mask: SigSet,
) -> Result<(), Fault> {
    if action.flags & RESTORER == 0 || action.handler >= USER_END {
        // As Linux on this architecture: without a restorer there is no way back.
        return Err(Fault);
    }
    let alternate = thread.signals.lock().alternate;
    let top = choose_stack(context.rsp, action, alternate);
    let fx_at = top.checked_sub(512).ok_or(Fault)? & !63;
    // The handler starts as if called: 8 bytes off a multiple of 16.
    let at = (fx_at.checked_sub(FRAME_BYTES as u64 + 16).ok_or(Fault)? & !15) + 8;
    fpu::save(&mut context.fx);
    let mut words: Words = [0; word::COUNT];
    words[word::RETURN] = action.restorer;
    put_stack(&mut words, alternate, context.rsp);
    put_registers(&mut words, context);
    words[word::FX] = fx_at;
    words[word::MASK] = mask.bits();
    words[word::OLD_MASK] = mask.bits();
    put_info(&mut words, info);
    copy_out(cpu, fx_at, &context.fx.0)?;
    copy_out(cpu, at, &to_bytes(&words))?;
    if alternate.flags & AUTODISARM != 0 {
        thread.signals.lock().alternate = AlternateStack::default();
    }
    context.rip = action.handler;
    context.rsp = at;
    context.rflags &= !(1 << 10 | 1 << 8);
    context.rdi = info.signal as u64;
    context.rsi = at + INFO_OFFSET;
    context.rdx = at + CONTEXT_OFFSET;
    context.rax = 0;
    Ok(())
}

fn choose_stack(rsp: u64, action: Action, alternate: AlternateStack) -> u64 {
    let uses_alternate = action.flags & ONSTACK != 0 && alternate.size != 0 && !alternate.contains(rsp);
    if uses_alternate { alternate.base + alternate.size } else { rsp.wrapping_sub(RED_ZONE) }
}

impl AlternateStack {
    /// Whether `rsp` is on it.
    pub(super) fn contains(&self, rsp: u64) -> bool {
        self.flags & AUTODISARM == 0 && rsp > self.base && rsp - self.base <= self.size
    }

    /// `ss_flags` as user code sees them.
    pub(super) fn state(&self, rsp: u64) -> u32 {
        let state = if self.size == 0 {
            SS_DISABLE
        } else if self.contains(rsp) {
            SS_ONSTACK
        } else {
            0
        };
        state | self.flags
    }
}

fn put_stack(words: &mut Words, alternate: AlternateStack, rsp: u64) {
    words[word::STACK_BASE] = alternate.base;
    words[word::STACK_FLAGS] = u64::from(alternate.state(rsp));
    words[word::STACK_SIZE] = alternate.size;
}

fn put_registers(words: &mut Words, c: &UserContext) {
    let registers = [
        c.r8, c.r9, c.r10, c.r11, c.r12, c.r13, c.r14, c.r15, c.rdi, c.rsi, c.rbp, c.rbx, c.rdx, c.rax, c.rcx, c.rsp,
        c.rip, c.rflags,
    ];
    words[word::REGISTERS..word::SELECTORS].copy_from_slice(&registers);
    words[word::SELECTORS] = USER_CS | USER_SS << 48;
    words[word::ERROR] = c.trap.code;
    words[word::TRAP] = c.trap.number;
    words[word::FAULT_ADDRESS] = c.trap.address;
}

fn put_info(words: &mut Words, info: SigInfo) {
    let low = |a: i32, b: i32| u64::from(a.cast_unsigned()) | u64::from(b.cast_unsigned()) << 32;
    let out = &mut words[word::INFO..];
    out[0] = low(info.signal, 0);
    out[1] = low(info.code, 0);
    match info.detail {
        Detail::None => {}
        Detail::Sender { pid, value } => {
            out[2] = low(pid, 0);
            out[3] = value;
        }
        Detail::Address(address) => out[2] = address,
        Detail::Child { pid, status, user, system } => {
            out[2] = low(pid, 0);
            out[3] = low(status, 0);
            out[4] = user.cast_unsigned();
            out[5] = system.cast_unsigned();
        }
    }
}

/// `siginfo_t` as bytes, for `rt_sigtimedwait`.
pub(super) fn info_bytes(info: SigInfo) -> [u8; 128] {
    let mut words: Words = [0; word::COUNT];
    put_info(&mut words, info);
    let mut bytes = [0; 128];
    bytes.copy_from_slice(&to_bytes(&words)[INFO_OFFSET as usize..]);
    bytes
}

fn to_bytes(words: &Words) -> [u8; FRAME_BYTES] {
    let mut bytes = [0; FRAME_BYTES];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// What a frame says about the thread, besides its registers.
pub(super) struct Restored {
    pub mask: SigSet,
    pub stack: (u64, u32, u64),
}

/// Takes the registers back from the frame that the handler returned from. Whatever the frame
/// says, the thread stays in user mode with interrupts on.
pub(super) fn pop(cpu: &mut CpuLocal, context: &mut UserContext) -> Result<Restored, Fault> {
    // The handler's `ret` has taken the return address off.
    let at = context.rsp.wrapping_sub(8);
    let mut bytes = [0; FRAME_BYTES];
    copy_in(cpu, at, &mut bytes)?;
    let words: Words = core::array::from_fn(|n| u64::from_le_bytes(core::array::from_fn(|i| bytes[n * 8 + i])));
    if words[word::REGISTERS + 16] >= USER_END {
        return Err(Fault);
    }
    let mut fx = FxArea::FRESH;
    if words[word::FX] != 0 {
        copy_in(cpu, words[word::FX], &mut fx.0)?;
    }
    fpu::load(&mut fx);
    context.fx = fx;
    take_registers(&words, context);
    Ok(Restored {
        mask: SigSet::from_bits(words[word::MASK]),
        stack: (words[word::STACK_BASE], words[word::STACK_FLAGS] as u32, words[word::STACK_SIZE]),
    })
}

fn take_registers(words: &Words, c: &mut UserContext) {
    let r = &words[word::REGISTERS..word::SELECTORS];
    (c.r8, c.r9, c.r10, c.r11) = (r[0], r[1], r[2], r[3]);
    (c.r12, c.r13, c.r14, c.r15) = (r[4], r[5], r[6], r[7]);
    (c.rdi, c.rsi, c.rbp, c.rbx) = (r[8], r[9], r[10], r[11]);
    (c.rdx, c.rax, c.rcx, c.rsp) = (r[12], r[13], r[14], r[15]);
    c.rip = r[16];
    c.rflags = r[17] & RFLAGS_USER | 0x202;
}
