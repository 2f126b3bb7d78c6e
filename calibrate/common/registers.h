/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Which registers a processor has for branch records, and the rows that time registers. */
#ifndef VLBR_REGISTERS_H
#define VLBR_REGISTERS_H

#include "timing.h"

#define MSR_PMC0 0xc1
#define MSR_EVTSEL0 0x186
#define MSR_LBR_SEL 0x1c8
#define MSR_LBR_TOP 0x1c9
#define MSR_DEBUG_CONTROL 0x1d9
#define MSR_FIXED0 0x309
#define MSR_PERF_CAP 0x345
#define MSR_FIXED_CONTROL 0x38d
#define MSR_GLOBAL_CONTROL 0x38f
#define MSR_FULL_PMC0 0x4c1
#define MSR_ARCH_CTL 0x14ce
#define MSR_ARCH_DEPTH 0x14cf
#define MSR_SYSENTER 0x174
#define MSR_STAR_BASE 0xc0000081
#define MSR_KERNEL_GS 0xc0000102
#define MOST_ENTRIES 32

struct signature {
	char vendor[13];
	u32 family, model, stepping;
	u32 core; /* type of CPUID leaf 0x1a on hybrid parts: 0x20 Atom, 0x40 Core; otherwise 0 */
	char hypervisor[13];
};

struct lbr_registers {
	u32 depth;
	u32 from, to, info; /* info is 0 where there is none */
	u32 select, top;    /* so are these */
	int arch;
};

struct lbr_part {
	unsigned char model, depth, select, info;
};

/* Legacy parts of family 6. Depths 4 and 8 lie at 0x40 and 0x60, but for Knights Landing and Mill. */
static const struct lbr_part lbr_parts[] = {
	{ 0x0f, 4, 0, 0 },  { 0x16, 4, 0, 0 },  { 0x17, 4, 0, 0 },  { 0x1d, 4, 0, 0 },
	{ 0x1c, 8, 0, 0 },  { 0x26, 8, 0, 0 },  { 0x27, 8, 0, 0 },  { 0x35, 8, 0, 0 },
	{ 0x36, 8, 0, 0 },
	{ 0x37, 8, 1, 0 },  { 0x4a, 8, 1, 0 },  { 0x4d, 8, 1, 0 },  { 0x5a, 8, 1, 0 },
	{ 0x5d, 8, 1, 0 },  { 0x4c, 8, 1, 0 },  { 0x75, 8, 1, 0 },
	{ 0x57, 8, 1, 0 },  { 0x85, 8, 1, 0 },
	{ 0x1a, 16, 1, 0 }, { 0x1e, 16, 1, 0 }, { 0x1f, 16, 1, 0 }, { 0x2e, 16, 1, 0 },
	{ 0x25, 16, 1, 0 }, { 0x2c, 16, 1, 0 }, { 0x2f, 16, 1, 0 },
	{ 0x2a, 16, 1, 0 }, { 0x2d, 16, 1, 0 }, { 0x3a, 16, 1, 0 }, { 0x3e, 16, 1, 0 },
	{ 0x3c, 16, 1, 0 }, { 0x3f, 16, 1, 0 }, { 0x45, 16, 1, 0 }, { 0x46, 16, 1, 0 },
	{ 0x3d, 16, 1, 0 }, { 0x47, 16, 1, 0 }, { 0x4f, 16, 1, 0 }, { 0x56, 16, 1, 0 },
	{ 0x4e, 32, 1, 1 }, { 0x5e, 32, 1, 1 }, { 0x8e, 32, 1, 1 }, { 0x9e, 32, 1, 1 },
	{ 0xa5, 32, 1, 1 }, { 0xa6, 32, 1, 1 }, { 0x55, 32, 1, 1 }, { 0x66, 32, 1, 1 },
	{ 0x7d, 32, 1, 1 }, { 0x7e, 32, 1, 1 }, { 0x6a, 32, 1, 1 }, { 0x6c, 32, 1, 1 },
	{ 0x8c, 32, 1, 1 }, { 0x8d, 32, 1, 1 }, { 0xa7, 32, 1, 1 },
	{ 0x5c, 32, 1, 0 }, { 0x5f, 32, 1, 0 },
	{ 0x7a, 32, 1, 1 }, { 0x86, 32, 1, 1 }, { 0x96, 32, 1, 1 }, { 0x9c, 32, 1, 1 },
};

/* Letters of a register as a word: no blanks, nothing that a terminal acts on. */
static inline void word_of(char *text, u32 a, u32 b, u32 c)
{
	u32 parts[3] = { a, b, c };
	int i, end = 0;

	for (i = 0; i < 12; i++) {
		char letter = (char)(parts[i / 4] >> i % 4 * 8);

		if (letter)
			end = i + 1;
		text[i] = letter > ' ' && letter < 0x7f ? letter : '_';
	}
	text[end] = 0;
}

static inline struct signature read_signature(void)
{
	struct signature s;
	struct cpuid_result r = cpuid_of(0, 0);

	word_of(s.vendor, r.b, r.d, r.c);
	r = cpuid_of(1, 0);
	s.family = r.a >> 8 & 0xf;
	s.model = r.a >> 4 & 0xf;
	s.stepping = r.a & 0xf;
	if (s.family == 6 || s.family == 0xf)
		s.model |= r.a >> 12 & 0xf0;
	if (s.family == 0xf)
		s.family += r.a >> 20 & 0xff;
	s.core = cpuid_if_any(7, 0).d >> 15 & 1 ? cpuid_if_any(0x1a, 0).a >> 24 : 0;
	s.hypervisor[0] = 0;
	if (r.c >> 31) {
		r = cpuid_of(0x40000000, 0);
		word_of(s.hypervisor, r.b, r.c, r.d);
		if (!s.hypervisor[0])
			word_of(s.hypervisor, 0x616e6e75, 0x64656d, 0); /* "unnamed" */
	}
	return s;
}

static inline struct lbr_registers find_lbr(const struct signature *s)
{
	struct lbr_registers lbr = { 0 };
	u32 i, depths;

	if (cpuid_if_any(7, 0).d >> 19 & 1) {
		depths = cpuid_if_any(0x1c, 0).a & 0xff;
		for (i = 0; i < 8; i++)
			if (depths >> i & 1)
				lbr.depth = 8 * (i + 1);
		if (lbr.depth > MOST_ENTRIES)
			lbr.depth = MOST_ENTRIES;
		lbr.arch = 1;
		lbr.from = 0x1500;
		lbr.to = 0x1600;
		lbr.info = 0x1200;
		return lbr;
	}
	for (i = 0; s->family == 6 && i < sizeof(lbr_parts) / sizeof(lbr_parts[0]); i++) {
		const struct lbr_part *part = &lbr_parts[i];
		int low = part->depth < 16 && part->model != 0x57 && part->model != 0x85;

		if (part->model != s->model)
			continue;
		lbr.depth = part->depth;
		lbr.from = low ? 0x40 : 0x680;
		lbr.to = low ? 0x60 : 0x6c0;
		lbr.info = part->info ? 0xdc0 : 0;
		lbr.select = part->select ? MSR_LBR_SEL : 0;
		lbr.top = MSR_LBR_TOP;
	}
	return lbr;
}

static inline void row_rdmsr(u32 msr)
{
	u64 value;

	if (read_safe(msr, &value)) {
		emit("skip rdmsr msr=%#x because it faults\n", msr);
		return;
	}
	TIME(asm volatile(IN_BATCH("rdmsr") : : "c"(msr) : "eax", "edx", "memory"));
	emit("row rdmsr msr=%#x", msr);
	emit_samples(BATCH);
}

static inline void row_wrmsr(u32 msr)
{
	u64 value = 0;
	int faults;

	quiet();
	faults = read_safe(msr, &value) || write_safe(msr, value);
	loud();
	if (faults) {
		emit("skip wrmsr msr=%#x because it faults\n", msr);
		return;
	}
	TIME({
		/* The value at rest, read anew: quiet() may have changed it. */
		if (n_ == 0)
			value = read_raw(msr);
		asm volatile(IN_BATCH("wrmsr")
			     : : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
	});
	emit("row wrmsr msr=%#x", msr);
	emit_samples(BATCH);
}

static inline void row_both(u32 msr)
{
	row_rdmsr(msr);
	row_wrmsr(msr);
}

/* A counter by its old name takes 32 bits, signed: a larger value would not be put back. */
static inline void row_counter(u32 msr)
{
	u64 value;

	row_rdmsr(msr);
	if (!read_safe(msr, &value) && value >> 31)
		emit("skip wrmsr msr=%#x because its value has more than 31 bits\n", msr);
	else
		row_wrmsr(msr);
}

static inline void row_rdpmc(u32 index)
{
	if (rdpmc_faults(index)) {
		emit("skip rdpmc index=%#x because it faults\n", index);
		return;
	}
	TIME(asm volatile(IN_BATCH("rdpmc") : : "c"(index) : "eax", "edx", "memory"));
	emit("row rdpmc index=%#x", index);
	emit_samples(BATCH);
}

static inline void time_registers(const struct signature *s, const struct lbr_registers *lbr)
{
	struct cpuid_result perfmon = cpuid_if_any(0xa, 0);
	u32 version = perfmon.a & 0xff;
	u32 i;
	u64 value;

	(void)s;
	TIME(asm volatile(".rept 8\n\txorl %%eax, %%eax\n\tcpuid\n\t.endr"
			  : : : "eax", "ebx", "ecx", "edx", "memory"));
	emit("row cpuid leaf=0x0");
	emit_samples(BATCH);

	row_both(MSR_DEBUG_CONTROL);
	if (!lbr->depth)
		emit("skip lbr because no branch records of this processor are known\n");
	if (lbr->arch) {
		row_both(MSR_ARCH_CTL);
		row_both(MSR_ARCH_DEPTH);
	}
	if (lbr->select)
		row_both(lbr->select);
	if (lbr->top)
		row_both(lbr->top);
	for (i = 0; i < lbr->depth; i++) {
		row_both(lbr->from + i);
		row_both(lbr->to + i);
		if (lbr->info)
			row_both(lbr->info + i);
	}
	if (version >= 1) {
		row_both(MSR_EVTSEL0);
		row_counter(MSR_PMC0);
		if (cpuid_of(1, 0).c >> 15 & 1 && !read_safe(MSR_PERF_CAP, &value) && value >> 13 & 1)
			row_both(MSR_FULL_PMC0);
		row_rdpmc(0);
	} else {
		emit("skip counters because CPUID names none\n");
	}
	if (version >= 2) {
		row_both(MSR_GLOBAL_CONTROL);
		row_both(MSR_FIXED_CONTROL);
		if (perfmon.d & 0x1f) {
			row_both(MSR_FIXED0);
			row_rdpmc(0x40000000);
		}
	}
	row_both(MSR_SYSENTER);
	row_both(MSR_STAR_BASE);
	row_both(MSR_KERNEL_GS);
}

#endif
