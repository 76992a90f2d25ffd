# Ways into the kernel and back to user mode. AT&T syntax.
#
# gs:0   the CPU's CpuLocal        gs:8   kernel stack pointer saved by enter_user
# gs:16  end of the interrupt frame in the running thread's UserContext (also RSP0 of the TSS)
# gs:24  scratch
#
# On a trap from user mode the CPU pushes ss..rip (and an error code) straight into the
# UserContext, and the pushes here go on below it: see arch/context.rs for the layout.
# Interrupts are off here. The kernel has no red zone and uses no IST but for NMI, double
# fault and machine check, so a trap inside the kernel continues on the same stack.

.altmacro

.macro XMM_STORE n, offset
    movaps %xmm\n, \offset(%rsp)
.endm
.macro XMM_LOAD n, offset
    movaps \offset(%rsp), %xmm\n
.endm
.macro EACH_XMM op, base
    n = 0
    .rept 16
    \op %n, %(\base + 16*n)
    n = n + 1
    .endr
.endm

.macro PUSH_SCRATCH_BUT_RDI
    push %rsi
    push %rdx
    push %rcx
    push %rax
    push %r8
    push %r9
    push %r10
    push %r11
.endm
.macro POP_SCRATCH
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rax
    pop %rcx
    pop %rdx
    pop %rsi
    pop %rdi
.endm
.macro PUSH_PRESERVED
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
.endm
.macro POP_PRESERVED
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
.endm

# Offsets from rsp to xmm0 in the UserContext: with all registers pushed (rsp at r15), and with
# the scratch registers pushed (rsp at r11).
XMM_FROM_R15 = 176 + 160 - 8
XMM_FROM_R11 = 176 + 160 - 56

.text

# fn enter_user(context: *mut UserContext, fast: u64) -> u64
# Returns the number of the trap that ended the stay in user mode; 256 for a system call.
# fast != 0: leave by sysret, which loses rcx and r11 (right after a system call only).
.global enter_user
.balign 16
enter_user:
    PUSH_PRESERVED
    sub $8, %rsp                # what is called from here finds the stack aligned to 16
    mov %rsp, %gs:8
    lea 8(%rdi), %rsp
    EACH_XMM XMM_LOAD, XMM_FROM_R15
    test %esi, %esi
    POP_PRESERVED
    POP_SCRATCH
    jz 1f
    mov 8(%rsp), %rcx
    mov 24(%rsp), %r11
    mov 32(%rsp), %rsp
    swapgs
    sysretq
1:  add $8, %rsp
    swapgs
    iretq

.global syscall_entry
.balign 16
syscall_entry:
    swapgs
    mov %rsp, %gs:24
    mov %gs:16, %rsp
    push $0x23
    push %gs:24
    push %r11
    push $0x2b
    push %rcx
    push %rax
    push %rdi
    PUSH_SCRATCH_BUT_RDI
    PUSH_PRESERVED
    EACH_XMM XMM_STORE, XMM_FROM_R15
    mov $256, %eax
leave_user:
    mov %gs:8, %rsp
    add $8, %rsp
    POP_PRESERVED
    ret

# A page fault is the hot one: what faultless resolves goes straight back, with only the
# registers saved that the call may clobber.
.balign 16
page_fault_entry:
    testb $3, 16(%rsp)
    jz kernel_page_fault_entry
    swapgs
    push %rdi
    PUSH_SCRATCH_BUT_RDI
    EACH_XMM XMM_STORE, XMM_FROM_R11
    cld
    clac
    mov %gs:0, %rdi
    mov %cr2, %rsi
    mov 72(%rsp), %edx
    mov %gs:8, %rsp
    call user_page_fault
    mov %gs:16, %rsp
    sub $120, %rsp
    test %al, %al
    jz 1f
    EACH_XMM XMM_LOAD, XMM_FROM_R11
    POP_SCRATCH
    add $8, %rsp
    swapgs
    iretq
1:  PUSH_PRESERVED
    mov $14, %eax
    jmp leave_user

kernel_page_fault_entry:
    clac
    push %rdi
    PUSH_SCRATCH_BUT_RDI
    mov %cr2, %rdi
    mov 72(%rsp), %esi
    lea 80(%rsp), %rdx
    sub $8, %rsp
    call kernel_page_fault
    add $8, %rsp
    POP_SCRATCH
    add $8, %rsp
    iretq

# Every other vector: rdi is pushed where the UserContext has it, edi is the vector.
.balign 16
trap_common:
    testb $3, 24(%rsp)
    jz 1f
    swapgs
    PUSH_SCRATCH_BUT_RDI
    PUSH_PRESERVED
    EACH_XMM XMM_STORE, XMM_FROM_R15
    cld
    clac
    mov %edi, %eax
    jmp leave_user
    # In the kernel: an interrupt in a wait (the waiter treats the SSE registers as clobbered),
    # or an exception, which does not return.
1:  PUSH_SCRATCH_BUT_RDI
    lea 80(%rsp), %rsi
    mov 72(%rsp), %rdx
    sub $8, %rsp
    call kernel_trap
    add $8, %rsp
    POP_SCRATCH
    add $8, %rsp
    iretq

# NMI: nothing to do, unless another CPU panicked and wants this one to stand still.
nmi_entry:
    cmpl $0, panicking(%rip)
    jne 1f
    iretq
1:  cli
    hlt
    jmp 1b

# Double fault (a kernel stack overflow ends here) and machine check: own stacks, no return.
double_fault_entry:
    mov $8, %edi
    mov 8(%rsp), %rsi
    mov 32(%rsp), %rdx
    mov %cr2, %rcx
    call fatal_trap
    ud2
machine_check_entry:
    mov $18, %edi
    mov 0(%rsp), %rsi
    mov 24(%rsp), %rdx
    xor %ecx, %ecx
    call fatal_trap
    ud2

.macro STUB vector
    .balign 16
    .if \vector == 2
    jmp nmi_entry
    .elseif \vector == 8
    jmp double_fault_entry
    .elseif \vector == 14
    jmp page_fault_entry
    .elseif \vector == 18
    jmp machine_check_entry
    .else
    .if !(\vector == 10 || \vector == 11 || \vector == 12 || \vector == 13 || \vector == 17 || \vector == 21 || \vector == 29 || \vector == 30)
    push $0
    .endif
    push %rdi
    mov $\vector, %edi
    jmp trap_common
    .endif
.endm

# Entry n of the IDT is trap_stubs + 16*n (page faults point at their handler directly).
.global trap_stubs
.balign 16
trap_stubs:
    v = 0
    .rept 256
    STUB %v
    v = v + 1
    .endr
.global page_fault_stub
page_fault_stub = page_fault_entry

# ---- Access to user memory. A fault in here that faultless cannot resolve continues at
# user_access_fault, so nothing between the two labels may need the stack unwound.
.global user_access_start
.balign 16
user_access_start:

# fn user_copy(to, from, bytes) -> u64: 0, or 1 after a fault.
.global user_copy
user_copy:
    stac
    mov %rdx, %rcx
    shr $3, %rcx
    rep movsq
    mov %edx, %ecx
    and $7, %ecx
    rep movsb
    clac
    xor %eax, %eax
    ret

# fn user_load32(from, into: *mut u32) -> u64: one atomic load.
.global user_load32
user_load32:
    stac
    mov (%rdi), %eax
    clac
    mov %eax, (%rsi)
    xor %eax, %eax
    ret

# fn user_exchange32(at, old: *mut u32, new) -> u64: compare-exchange; *old becomes what was there.
.global user_exchange32
user_exchange32:
    mov (%rsi), %eax
    stac
    lock cmpxchg %edx, (%rdi)
    clac
    mov %eax, (%rsi)
    xor %eax, %eax
    ret

.global user_access_end
user_access_end:
.global user_access_fault
user_access_fault:
    clac
    mov $1, %eax
    ret

# ---- What the compiler expects to find. 8-byte string moves: single bytes are slow everywhere
# that matters here.
.global memcpy
.balign 16
memcpy:
    mov %rdi, %rax
    mov %rdx, %rcx
    shr $3, %rcx
    rep movsq
    mov %edx, %ecx
    and $7, %ecx
    rep movsb
    ret

.global memmove
.balign 16
memmove:
    mov %rdi, %rax
    mov %rdi, %rcx
    sub %rsi, %rcx
    cmp %rdx, %rcx
    jae memcpy
    # to lies inside from..from+n: backwards, bytes of the tail first.
    std
    lea -1(%rdi,%rdx), %rdi
    lea -1(%rsi,%rdx), %rsi
    mov %edx, %ecx
    and $7, %ecx
    rep movsb
    sub $7, %rdi
    sub $7, %rsi
    mov %rdx, %rcx
    shr $3, %rcx
    rep movsq
    cld
    ret

.global memset
.balign 16
memset:
    mov %rdi, %r8
    movzbl %sil, %eax
    movabs $0x0101010101010101, %rcx
    imul %rcx, %rax
    mov %rdx, %rcx
    shr $3, %rcx
    rep stosq
    mov %edx, %ecx
    and $7, %ecx
    rep stosb
    mov %r8, %rax
    ret

.global memcmp
.global bcmp
.balign 16
memcmp:
bcmp:
    xor %eax, %eax
1:  cmp $8, %rdx
    jb 2f
    mov (%rdi), %rcx
    cmp (%rsi), %rcx
    jne 2f
    add $8, %rdi
    add $8, %rsi
    sub $8, %rdx
    jmp 1b
2:  test %rdx, %rdx
    jz 3f
    movzbl (%rdi), %eax
    movzbl (%rsi), %ecx
    sub %ecx, %eax
    jnz 3f
    inc %rdi
    inc %rsi
    dec %rdx
    jmp 2b
3:  ret

.global strlen
.balign 16
strlen:
    xor %eax, %eax
1:  cmpb $0, (%rdi,%rax)
    je 2f
    inc %rax
    jmp 1b
2:  ret
