/* SPDX-License-Identifier: MIT */
/* The bare-metal test image: times registers and VM transitions with nothing beside it. */
#include "image.h"

#include "registers.h"
#include "serial.h"
#include "vmx.h"
#include "xsave.h"

#define VERSION "1"
/* QEMU's isa-debug-exit: ends the emulator with status 2 * DONE + 1, which no failure of its own has. */
#define DEBUG_EXIT 0xf4
#define DONE 0x10
#define MSR_MICROCODE 0x8b
#define NO_SUCH_MSR 0x40000000 /* the manual promises that no processor will have it */
#define PIT_HZ 1193182
#define PIT_TICKS 59659 /* 50 ms */

struct gate {
	u16 low, selector, type, middle;
	u32 high, reserved;
};

struct __attribute__((packed)) pointer {
	u16 limit;
	u64 base;
};

static struct gate idt[32] __attribute__((aligned(16)));
static u8 tss[104] __attribute__((aligned(16)));
extern char vectors[];
extern u64 gdt_tss[2];
extern struct pointer gdt_pointer;

static void stop(u8 status)
{
	/* On hardware the port may be somebody's. */
	if (cpuid_of(1, 0).c >> 31)
		outb(DEBUG_EXIT, status);
	for (;;)
		asm volatile("cli; hlt");
}

void unexpected(u64 vector, u64 error, u64 rip)
{
	/* No end line: what was printed is no run. */
	emit("\nexception %llu, error code %llu, at %llu: the image stops\n", vector, error, rip);
	stop(0);
}

static void tables(void)
{
	struct pointer idt_pointer = { sizeof(idt) - 1, (u64)idt };
	u64 base = (u64)tss;
	u32 i;

	for (i = 0; i < 32; i++) {
		u64 to = (u64)vectors + 16 * i;
		struct gate gate = { (u16)to, 8, 0x8e00, (u16)(to >> 16), (u32)(to >> 32), 0 };

		idt[i] = gate;
	}
	asm volatile("lidt %0" : : "m"(idt_pointer));
	gdt_tss[0] = (sizeof(tss) - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 |
		     (base >> 24 & 0xff) << 56;
	gdt_tss[1] = base >> 32;
	asm volatile("lgdt %0" : : "m"(gdt_pointer));
	asm volatile("ltr %w0" : : "r"(0x18));
}

/* Lets XSAVES save the architectural LBR. */
static void enable_xsaves(void)
{
	struct cpuid_result r;
	u64 cr4;

	if (!(cpuid_of(1, 0).c >> 26 & 1))
		return;
	asm volatile("mov %%cr4, %0" : "=r"(cr4));
	asm volatile("mov %0, %%cr4" : : "r"(cr4 | 1ull << 18));
	asm volatile("xsetbv" : : "c"(0), "a"(1), "d"(0));
	r = cpuid_if_any(0xd, 1);
	if (r.a >> 3 & 1 && r.c >> COMPONENT & 1)
		try_wrmsr(MSR_XSS, 1ull << COMPONENT);
}

/* Not all zero, or XSAVES would find the initial state and write nothing. */
static void fill(const struct lbr_registers *lbr)
{
	u32 i;

	for (i = 0; i < lbr->depth; i++) {
		try_wrmsr(lbr->from + i, 0x10000 + 16 * i);
		try_wrmsr(lbr->to + i, 0x20000 + 16 * i);
	}
}

static u32 microcode(void)
{
	u64 value;

	if (try_wrmsr(MSR_MICROCODE, 0))
		return 0;
	cpuid_of(1, 0);
	return try_rdmsr(MSR_MICROCODE, &value) ? 0 : (u32)(value >> 32);
}

static void print_tsc(void)
{
	struct cpuid_result r = cpuid_if_any(0x15, 0);
	u64 from, to;
	u8 gate;

	if (r.a && r.b && r.c) {
		emit("tsc khz=%u from=cpuid\n", (u32)((u64)r.c * r.b / r.a / 1000));
		return;
	}
	/* Channel 2 of the timer counts down once; its output is bit 5 of port 0x61. */
	gate = (u8)((inb(0x61) & ~2) | 1);
	outb(0x61, gate & ~1);
	outb(0x43, 0xb0);
	outb(0x42, PIT_TICKS & 0xff);
	outb(0x42, PIT_TICKS >> 8);
	outb(0x61, gate);
	from = stamp();
	while (!(inb(0x61) & 0x20))
		;
	to = stamp();
	outb(0x61, gate & ~1);
	emit("tsc khz=%u from=pit\n", (u32)((to - from) * PIT_HZ / PIT_TICKS / 1000));
}

static void time_fault(void)
{
	u64 value;

	if (!try_rdmsr(NO_SUCH_MSR, &value)) {
		emit("skip fault because RDMSR of %#x does not fault\n", NO_SUCH_MSR);
		return;
	}
	TIME(fault_batch(NO_SUCH_MSR));
	emit("row fault");
	emit_samples(BATCH);
}

void main(void)
{
	struct signature s;
	struct lbr_registers lbr;

	serial_init();
	tables();
	s = read_signature();
	lbr = find_lbr(&s);
	find_clocks();
	emit("\nvlbr-calibrate 1\nprogram image\n");
	emit("cpu vendor=%s family=%#x model=%#x stepping=%#x core=%#x\n", s.vendor, s.family, s.model,
	     s.stepping, s.core);
	emit("microcode %#x\nsystem image-" VERSION "\n", microcode());
	if (s.hypervisor[0])
		emit("hypervisor named %s\n", s.hypervisor);
	else
		emit("hypervisor none\n");
	print_tsc();
	enable_xsaves();
	fill(&lbr);
	time_registers(&s, &lbr);
	fill(&lbr);
	time_xsaves();
	time_fault();
	time_vmx(&lbr);
	emit("end lines=%llu\n", lines_printed() - 1);
	stop(DONE);
}
