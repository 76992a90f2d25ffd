# Entry by the PVH protocol (32-bit, paging off, EBX = start info) and the trampoline of the
# other CPUs. AT&T syntax. Everything in .boot runs at its physical address; the tables made
# here map the first 4 GiB three times: identity, physmap, and (2 GiB of it) the kernel image.
# boot::paging replaces them; they stay for the other CPUs' first steps.

.section .note.pvh,"a",@note
.align 4
.long 4, 8, 18
.asciz "Xen"
.quad pvh_start32

.section .boot,"awx"
.code32
.global pvh_start32
pvh_start32:
    cld
    cli
    # 2048 entries of 2 MiB: present, writable, large.
    mov $boot_pd, %edi
    mov $0x83, %eax
    mov $2048, %ecx
1:  mov %eax, (%edi)
    movl $0, 4(%edi)
    add $0x200000, %eax
    add $8, %edi
    loop 1b
    # Four directories under the low table; the first two also at -2 GiB.
    mov $boot_pd, %eax
    or $3, %eax
    mov %eax, boot_pdpt_low
    mov %eax, boot_pdpt_high + 510*8
    add $0x1000, %eax
    mov %eax, boot_pdpt_low + 8
    mov %eax, boot_pdpt_high + 511*8
    add $0x1000, %eax
    mov %eax, boot_pdpt_low + 16
    add $0x1000, %eax
    mov %eax, boot_pdpt_low + 24
    mov $boot_pdpt_low, %eax
    or $3, %eax
    mov %eax, boot_pml4
    mov %eax, boot_pml4 + 256*8
    mov $boot_pdpt_high, %eax
    or $3, %eax
    mov %eax, boot_pml4 + 511*8
    mov $first_start64, %esi
    jmp enable_long

# ESI = where to go on in 64-bit mode (low address). EBX survives.
enable_long:
    mov $0x6a0, %eax            # CR4: PAE, PGE, OSFXSR, OSXMMEXCPT
    mov %eax, %cr4
    mov $boot_pml4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx       # EFER: SCE, LME, NXE
    mov $0x901, %eax
    xor %edx, %edx
    wrmsr
    mov $0x80010033, %eax       # CR0: PG, WP, NE, ET, MP, PE
    mov %eax, %cr0
    lgdt boot_gdt_pointer
    ljmp $8, $long_start

.code64
long_start:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov %esi, %esi
    jmp *%rsi

first_start64:
    movabs $boot_stack_top, %rsp
    xor %ebp, %ebp
    mov %ebx, %edi
    movabs $kernel_main, %rax
    call *%rax
    ud2

other_start64:
    mov ap_stack, %rsp
    xor %ebp, %ebp
    mov ap_index, %rdi
    movabs $other_main, %rax
    call *%rax
    ud2

.align 16
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff    # 64-bit code
    .quad 0x00cf93000000ffff    # data
    .quad 0x00cf9b000000ffff    # 32-bit code, for the trampoline
boot_gdt_pointer:
    .word 31
    .quad boot_gdt

# Filled in by boot::smp before each start of a CPU.
.align 8
.global ap_stack
ap_stack: .quad 0
.global ap_index
ap_index: .quad 0

.code32
other_start32:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $other_start64, %esi
    jmp enable_long

# The trampoline is copied to 0x8000; labels in it are relative to that.
.section .rodata
.code16
.global ap_trampoline
ap_trampoline:
    cli
    cld
    xor %ax, %ax
    mov %ax, %ds
    lgdtl (ap_gdt_pointer - ap_trampoline + 0x8000)
    mov $0x11, %eax             # CR0: ET, PE
    mov %eax, %cr0
    ljmpl $0x18, $other_start32
.align 8
ap_gdt_pointer:
    .word 31
    .long boot_gdt
.global ap_trampoline_end
ap_trampoline_end:
.code64

.section .bootbss,"aw",@nobits
.align 4096
.global boot_pml4
boot_pml4: .skip 4096
boot_pdpt_low: .skip 4096
boot_pdpt_high: .skip 4096
boot_pd: .skip 4*4096

.section .bss
.align 4096
.skip 65536
boot_stack_top:
.text
