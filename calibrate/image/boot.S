/* SPDX-License-Identifier: MIT */
/* From the boot loader (multiboot, 32 bits) to long mode; exceptions; the timed round trip. */

#define MAGIC 0x1badb002
#define FLAGS 0x0

.section .multiboot, "a"
.align 4
	.long MAGIC, FLAGS, -(MAGIC + FLAGS)

.bss
.align 4096
.globl page_map
page_map:	.skip 4096
pointers:	.skip 4096
directories:	.skip 4 * 4096
.globl stack_top
stack:		.skip 16384
stack_top:

.data
.align 16
.globl gdt, gdt_tss
gdt:
	.quad 0
	.quad 0x00af9b000000ffff	/* 0x08: code, 64 bits */
	.quad 0x00cf93000000ffff	/* 0x10: data */
gdt_tss:
	.quad 0, 0			/* 0x18: TSS, made by main() */
gdt_end:
.globl gdt_pointer
gdt_pointer:
	.word gdt_end - gdt - 1
	.quad gdt

.globl recovery
/* Where a fault goes on; 0: the fault is the image's own. */
recovery:	.quad 0

.text
.code32
.globl start
start:
	cli
	cld
	movl $stack_top, %esp
	/* 4 GiB as they are, in pages of 2 MiB. */
	movl $directories, %edi
	movl $0x83, %eax
	xorl %ecx, %ecx
1:	movl %eax, (%edi, %ecx, 8)
	addl $0x200000, %eax
	incl %ecx
	cmpl $2048, %ecx
	jne 1b
	movl $directories + 3, %eax
	xorl %ecx, %ecx
2:	movl %eax, pointers(, %ecx, 8)
	addl $4096, %eax
	incl %ecx
	cmpl $4, %ecx
	jne 2b
	movl $pointers + 3, page_map
	movl $page_map, %eax
	movl %eax, %cr3
	movl %cr4, %eax
	orl $0x620, %eax		/* PAE, OSFXSR, OSXMMEXCPT */
	movl %eax, %cr4
	movl $0xc0000080, %ecx
	rdmsr
	orl $0x100, %eax		/* LME */
	wrmsr
	movl %cr0, %eax
	andl $~4, %eax			/* EM */
	orl $0x80000023, %eax		/* PG, NE, MP, PE */
	movl %eax, %cr0
	lgdt gdt_pointer
	ljmp $8, $long_mode

.code64
long_mode:
	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl %eax, %fs
	movl %eax, %gs
	call main
1:	hlt
	jmp 1b

/* 32 entries of 16 bytes: those with an error code have one on the stack already. */
.align 16
.globl vectors
vectors:
	.set vector, 0
	.rept 32
	.align 16
	.if !((vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21))
	pushq $0
	.endif
	pushq $vector
	jmp exception
	.set vector, vector + 1
	.endr

exception:
	cmpq $0, recovery(%rip)
	je 1f
	pushq recovery(%rip)
	popq 16(%rsp)			/* RIP of the frame */
	addq $16, %rsp
	iretq
1:	popq %rdi			/* vector */
	popq %rsi			/* error code */
	movq (%rsp), %rdx		/* RIP */
	andq $-16, %rsp
	call unexpected
2:	hlt
	jmp 2b

/* int try_rdmsr(u32 msr, u64 *value) */
.globl try_rdmsr
try_rdmsr:
	movq $1f, recovery(%rip)
	movl %edi, %ecx
	rdmsr
	movq $0, recovery(%rip)
	shlq $32, %rdx
	orq %rdx, %rax
	movq %rax, (%rsi)
	xorl %eax, %eax
	ret
1:	movq $0, recovery(%rip)
	movl $1, %eax
	ret

/* int try_wrmsr(u32 msr, u64 value) */
.globl try_wrmsr
try_wrmsr:
	movq $1f, recovery(%rip)
	movl %edi, %ecx
	movl %esi, %eax
	movq %rsi, %rdx
	shrq $32, %rdx
	wrmsr
	movq $0, recovery(%rip)
	xorl %eax, %eax
	ret
1:	movq $0, recovery(%rip)
	movl $1, %eax
	ret

/* int rdpmc_faults(u32 index) */
.globl rdpmc_faults
rdpmc_faults:
	movq $1f, recovery(%rip)
	movl %edi, %ecx
	rdpmc
	movq $0, recovery(%rip)
	xorl %eax, %eax
	ret
1:	movq $0, recovery(%rip)
	movl $1, %eax
	ret

/* void fault_batch(u32 msr): RDMSRs of a register that faults, BATCH of them */
.globl fault_batch
fault_batch:
	movl %edi, %ecx
	.rept 8
	movq $1f, recovery(%rip)
	rdmsr
1:
	.endr
	movq $0, recovery(%rip)
	ret

/*
 * u32 round_trips(u32 launched): ticks of 8 entries, each ended by the first instruction of the
 * guest. Without a launch before, one VMLAUNCH and no ticks. All ones: the entry failed.
 * The guest has the host's general registers and changes none, for its instruction never retires.
 */
.globl round_trips
round_trips:
	pushq %rbx
	pushq %rbp
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	movl $0x6c14, %eax		/* host RSP */
	vmwrite %rsp, %rax
	jbe 9f
	testl %edi, %edi
	jnz 2f
	movl $0x6c16, %eax		/* host RIP */
	movq $1f, %rdx
	vmwrite %rdx, %rax
	jbe 9f
	vmlaunch
	jmp 9f
1:	xorl %eax, %eax
	jmp 8f
2:	movl $0x6c16, %eax
	movq $4f, %rdx
	vmwrite %rdx, %rax
	jbe 9f
	movl $8, %r12d
	lfence
	rdtsc
	lfence
	shlq $32, %rdx
	orq %rax, %rdx
	movq %rdx, %r13
	movl $0x10, %ecx		/* a register for the guest that reads one: the TSC */
3:	vmresume
	jmp 9f
4:	decl %r12d
	jnz 3b
	lfence
	rdtsc
	lfence
	shlq $32, %rdx
	orq %rdx, %rax
	subq %r13, %rax
8:	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbp
	popq %rbx
	ret
9:	movl $-1, %eax
	jmp 8b

/* Guests: one instruction each, never passed. */
.align 16
.globl guest_vmcall, guest_cpuid, guest_rdmsr
guest_vmcall:
	vmcall
guest_cpuid:
	cpuid
guest_rdmsr:
	rdmsr
	ud2
.section .note.GNU-stack, "", @progbits
