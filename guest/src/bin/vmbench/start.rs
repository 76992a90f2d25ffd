//! What libc would do: entry, arguments, and the memory functions the compiler calls.
//!
//! Called by the kernel and by compiled code. No string instructions: QEMU counts them
//! once per iteration, real processors do not.

use core::arch::global_asm;

global_asm!(
    ".globl _start",
    "_start:",
    "  xor ebp, ebp",
    "  mov rdi, rsp",
    "  and rsp, -16",
    "  call {entry}",
    "  ud2",
    entry = sym entry,
);

// In assembly, because a compiler would turn such loops into calls of themselves.
global_asm!(
    ".globl memcpy",
    ".globl memmove",
    ".globl memset",
    ".globl memcmp",
    ".globl bcmp",
    ".globl strlen",
    "memmove:",
    "  mov rax, rdi",
    "  mov rcx, rdi",
    "  sub rcx, rsi",
    "  cmp rcx, rdx",
    "  jae 3f", // not (from < to < from + length): forwards is right
    "2: test rdx, rdx",
    "  jz 4f",
    "  mov cl, [rsi + rdx - 1]",
    "  mov [rdi + rdx - 1], cl",
    "  dec rdx",
    "  jmp 2b",
    "memcpy:",
    "  mov rax, rdi",
    "3: cmp rdx, 8",
    "  jb 5f",
    "  mov rcx, [rsi]",
    "  mov [rdi], rcx",
    "  add rsi, 8",
    "  add rdi, 8",
    "  sub rdx, 8",
    "  jmp 3b",
    "5: test rdx, rdx",
    "  jz 4f",
    "  mov cl, [rsi]",
    "  mov [rdi], cl",
    "  inc rsi",
    "  inc rdi",
    "  dec rdx",
    "  jmp 5b",
    "4: ret",
    "memset:",
    "  mov rax, rdi",
    "  movzx ecx, sil",
    "  mov r8, 0x0101010101010101",
    "  imul rcx, r8",
    "6: cmp rdx, 8",
    "  jb 7f",
    "  mov [rdi], rcx",
    "  add rdi, 8",
    "  sub rdx, 8",
    "  jmp 6b",
    "7: test rdx, rdx",
    "  jz 8f",
    "  mov [rdi], cl",
    "  inc rdi",
    "  dec rdx",
    "  jmp 7b",
    "8: ret",
    "bcmp:",
    "memcmp:",
    "  xor eax, eax",
    "9: test rdx, rdx",
    "  jz 8b",
    "  movzx eax, byte ptr [rdi]",
    "  movzx ecx, byte ptr [rsi]",
    "  inc rdi",
    "  inc rsi",
    "  dec rdx",
    "  sub eax, ecx",
    "  jz 9b",
    "  ret",
    "strlen:",
    "  xor eax, eax",
    "10: cmp byte ptr [rdi + rax], 0",
    "  je 8b",
    "  inc rax",
    "  jmp 10b",
    // Precompiled core mentions these; nothing unwinds here.
    ".globl rust_eh_personality",
    ".globl _Unwind_Resume",
    "rust_eh_personality:",
    "_Unwind_Resume:",
    "  ud2",
);

/// The command line, as the kernel put it on the stack.
#[derive(Clone, Copy)]
pub struct Words {
    next: *const *const u8,
    left: usize,
}

impl Iterator for Words {
    type Item = &'static str;

    fn next(&mut self) -> Option<&'static str> {
        self.left = self.left.checked_sub(1)?;
        // SAFETY: `left` was not 0, so the pointer is one of argv.
        let word = unsafe { *self.next };
        // SAFETY: at worst this is the null that ends argv.
        self.next = unsafe { self.next.add(1) };
        // SAFETY: words of argv are C strings that live as long as the process.
        let word = unsafe { core::ffi::CStr::from_ptr(word.cast()) };
        Some(word.to_str().unwrap_or("?"))
    }
}

unsafe extern "C" fn entry(stack: *const usize) -> ! {
    // SAFETY: the kernel puts argc at the stack pointer.
    let left = unsafe { *stack };
    // SAFETY: and argv behind it.
    let next = unsafe { stack.add(1) }.cast();
    crate::sys::exit(crate::main(Words { next, left }));
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    crate::sys::write(b"vmbench: panic\n");
    crate::sys::exit(101)
}
