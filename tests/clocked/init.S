# SPDX-License-Identifier: Apache-2.0
# A guest's init: prints the time stamp counter, which began with its virtual CPU, in 16 hexadecimal digits, and resets.

.globl _start
_start:
    rdtsc
    shl $32, %rdx
    or %rax, %rdx
    lea digits(%rip), %rbx
    lea text(%rip), %rdi
    mov $16, %ecx
1:  rol $4, %rdx
    mov %edx, %eax
    and $15, %eax
    mov (%rbx, %rax), %al
    mov %al, (%rdi)
    inc %rdi
    dec %ecx
    jnz 1b
    movb $10, (%rdi)
    mov $1, %eax                # write(1, text, 17)
    mov $1, %edi
    lea text(%rip), %rsi
    mov $17, %edx
    syscall
    mov $169, %eax              # reboot(…, LINUX_REBOOT_CMD_RESTART)
    mov $0xfee1dead, %edi
    mov $0x28121969, %esi
    mov $0x01234567, %edx
    syscall
    hlt
digits:
    .ascii "0123456789abcdef"
.bss
text:
    .skip 32
