/* SPDX-License-Identifier: MIT */

/*
 * syscall(2), for programs that make the calls by hand which preload.c stands before.
 *
 * Almost every number has nothing to do with memory: it is looked up in a table, and the kernel called, as the C library does it. That is
 * done in assembly, since syscall() may not have a frame: a child that was made with a stack of its own returns on that one. For the same reason
 * clone(2) and clone3(2) that share the memory (or more, see clone() in preload.c), or give a stack, are the kernel's alone.
 *
 * Elsewhere than on x86-64 syscall() is the C library's, and what is called by hand passes us by.
 */

#include "by-hand.h"

#if defined(__x86_64__) && !defined(__ILP32__)

#include "raw.h"

#include <assert.h>
#include <errno.h>
#include <linux/sched.h>
#include <stddef.h>

#define NUMBERS 512

/* Named by the assembly below. */
extern const unsigned char by_hand_concerns[NUMBERS];
long by_hand_fail(long result);

const unsigned char by_hand_concerns[NUMBERS] __attribute__((visibility("hidden"))) = {
    [SYS_mmap] = 1,     [SYS_munmap] = 1,           [SYS_mremap] = 1,  [SYS_mprotect] = 1, [SYS_pkey_mprotect] = 1,
    [SYS_madvise] = 1,  [SYS_process_madvise] = 1,  [SYS_mincore] = 1, [SYS_mlock] = 1,    [SYS_mlock2] = 1,
    [SYS_mlockall] = 1, [SYS_munlockall] = 1,       [SYS_mseal] = 1,   [SYS_fork] = 1,     [SYS_clone] = 1,
    [SYS_clone3] = 1,   [SYS_remap_file_pages] = 1,
};

long __attribute__((visibility("hidden"))) by_hand_fail(long result) {
    errno = (int)-result;
    return -1;
}

/*
 * syscall: rdi is the number, rsi to r9 and the first word on the stack are its arguments. What concerns us goes on in by_hand_serve(),
 * which takes the same arguments as a function; so nothing has to be saved.
 * __wrap_syscall: the kernel's own, for our modules (see raw.c).
 */
__asm__(".text\n"
        ".globl syscall\n"
        ".type syscall, @function\n"
        ".p2align 4\n"
        "syscall:\n"
        "    .cfi_startproc\n"
        "    endbr64\n"
        "    cmpq $512, %rdi\n"
        "    jae 1f\n"
        "    leaq by_hand_concerns(%rip), %rax\n"
        "    cmpb $0, (%rax,%rdi)\n"
        "    je 1f\n"
        "    cmpl $435, %edi\n" /* clone3 */
        "    je 3f\n"
        "    cmpl $56, %edi\n" /* clone */
        "    jne by_hand_serve\n"
        "    testl $0x84500, %esi\n" /* BY_HAND_LEAVES */
        "    jnz 1f\n"
        "    testq %rdx, %rdx\n"
        "    jz by_hand_serve\n"
        "    jmp 1f\n"
        "3:  testq %rsi, %rsi\n" /* struct clone_args: whoever only asks whether there is such a call has none */
        "    jz 1f\n"
        "    cmpq $64, %rdx\n" /* the least size of it */
        "    jb 1f\n"
        "    testl $0x84500, (%rsi)\n" /* flags: as above */
        "    jnz 1f\n"
        "    cmpq $0, 40(%rsi)\n" /* stack */
        "    je by_hand_serve\n"
        "    .cfi_endproc\n"
        "1:  \n" /* falls through */
        ".globl __wrap_syscall\n"
        ".hidden __wrap_syscall\n"
        ".type __wrap_syscall, @function\n"
        "__wrap_syscall:\n"
        "    .cfi_startproc\n"
        "    endbr64\n"
        "    movq %rdi, %rax\n"
        "    movq %rsi, %rdi\n"
        "    movq %rdx, %rsi\n"
        "    movq %rcx, %rdx\n"
        "    movq %r8, %r10\n"
        "    movq %r9, %r8\n"
        "    movq 8(%rsp), %r9\n"
        "    syscall\n"
        "    cmpq $-4095, %rax\n"
        "    jae 2f\n"
        "    ret\n"
        "2:  movq %rax, %rdi\n"
        "    jmp by_hand_fail\n"
        "    .cfi_endproc\n"
        ".size __wrap_syscall, . - __wrap_syscall\n"
        ".size syscall, . - syscall\n");

static_assert(BY_HAND_LEAVES == 0x84500, "as the assembly has it");
static_assert(SYS_clone == 56 && SYS_clone3 == 435 && offsetof(struct clone_args, stack) == 40 && NUMBERS == 512,
              "as the assembly has them");

#endif
