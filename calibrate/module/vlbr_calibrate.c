// SPDX-License-Identifier: GPL-2.0-only
/*
 * Times MSR accesses, RDPMC and XSAVES of branch records on the processor it runs on.
 *
 * Reading /sys/kernel/debug/vlbr-calibrate runs everything once, on one processor, and prints the lines
 * that docs/calibrate.md describes. Interrupts are off for the samples of one row at a time.
 *
 * Around the samples of a row, counters and branch records stand still: what perf counts meanwhile is
 * lost. Every register is put back after each row.
 */
#include <linux/debugfs.h>
#include <linux/init.h>
#include <linux/irqflags.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/preempt.h>
#include <linux/seq_file.h>
#include <linux/utsname.h>

#include <asm/msr.h>
#include <asm/processor.h>
#include <asm/tsc.h>

/* Room for every row at once: a seq_file that runs out of it would start again. */
#define ROOM (256 * 1024)

static DEFINE_MUTEX(one_at_a_time);
static struct seq_file *out;

#define emit(...) seq_printf(out, __VA_ARGS__)

static int read_safe(u32 msr, u64 *value)
{
	u32 low = 0, high = 0;
	int error = rdmsr_safe(msr, &low, &high);

	*value = (u64)high << 32 | low;
	return error;
}

static int write_safe(u32 msr, u64 value)
{
	return wrmsr_safe(msr, (u32)value, (u32)(value >> 32));
}

/* Only counters that CPUID names are read. */
static int rdpmc_faults(u32 index)
{
	return 0;
}

static void quiet(void);
static void loud(void);

#include "registers.h"
#include "xsave.h"

/* A register, and what it held before the row. */
struct kept {
	u32 msr;
	int there;
	u64 value;
};

/* In the order they are put back: DEPTH clears the records, and what records or counts comes last. */
static struct kept before[3 * MOST_ENTRIES + 16];
static unsigned int registers_kept;
static unsigned long interrupts;
static struct lbr_registers records;

static void keep(u32 msr)
{
	struct kept *kept = &before[registers_kept++];

	kept->msr = msr;
	kept->there = 0;
}

/* Which registers a row may change. The functions below need no other list. */
static void list_registers(void)
{
	u32 version = cpuid_if_any(0xa, 0).a & 0xff;
	u32 i;

	registers_kept = 0;
	if (records.arch)
		keep(MSR_ARCH_DEPTH);
	for (i = 0; i < records.depth; i++) {
		keep(records.from + i);
		keep(records.to + i);
		if (records.info)
			keep(records.info + i);
	}
	if (records.top)
		keep(records.top);
	if (records.select)
		keep(records.select);
	if (records.arch)
		keep(MSR_ARCH_CTL);
	keep(MSR_DEBUG_CONTROL);
	if (version >= 2)
		keep(MSR_GLOBAL_CONTROL);
}

static void quiet(void)
{
	u32 i;

	local_irq_save(interrupts);
	/* What counts or records stops first, and is what list_registers() names last. */
	for (i = registers_kept; i-- > 0;) {
		struct kept *kept = &before[i];

		kept->there = !read_safe(kept->msr, &kept->value);
		if (!kept->there)
			continue;
		if (kept->msr == MSR_GLOBAL_CONTROL || kept->msr == MSR_ARCH_CTL)
			kept->there = !write_safe(kept->msr, 0);
		else if (kept->msr == MSR_DEBUG_CONTROL)
			kept->there = !write_safe(kept->msr, kept->value & ~0x3ull);
	}
	/* Not all zero, or XSAVES would find the initial state and write nothing. */
	for (i = 0; i < records.depth; i++) {
		write_safe(records.from + i, 0x10000 + 16 * i);
		write_safe(records.to + i, 0x20000 + 16 * i);
	}
}

static void loud(void)
{
	u32 i;

	for (i = 0; i < registers_kept; i++) {
		if (before[i].there)
			write_safe(before[i].msr, before[i].value);
	}
	local_irq_restore(interrupts);
}

static void print_head(const struct signature *s)
{
	emit("vlbr-calibrate 1\n");
	emit("program module\n");
	emit("cpu vendor=%s family=%#x model=%#x stepping=%#x core=%#x\n", s->vendor, s->family,
	     s->model, s->stepping, s->core);
	emit("microcode %#x\n", boot_cpu_data.microcode);
	emit("system linux-%s\n", init_utsname()->release);
	if (s->hypervisor[0])
		emit("hypervisor named %s\n", s->hypervisor);
	else
		emit("hypervisor none\n");
	emit("tsc khz=%u from=kernel\n", tsc_khz);
}

/* Lines from a position of the output on. */
static u64 count_lines(size_t from)
{
	u64 lines = 0;

	for (; from < out->count; from++)
		lines += out->buf[from] == '\n';
	return lines;
}

static int show(struct seq_file *file, void *unused)
{
	struct signature s;
	size_t start = file->count;

	mutex_lock(&one_at_a_time);
	/* Preemption is allowed between rows, another processor is not. */
	migrate_disable();
	out = file;
	s = read_signature();
	records = find_lbr(&s);
	find_clocks();
	list_registers();
	print_head(&s);
	time_registers(&s, &records);
	time_xsaves();
	emit("skip round_trip because the module does not enter VMX\n");
	emit("end lines=%llu\n", count_lines(start));
	out = NULL;
	migrate_enable();
	mutex_unlock(&one_at_a_time);
	return 0;
}

static int open(struct inode *inode, struct file *file)
{
	return single_open_size(file, show, NULL, ROOM);
}

static const struct file_operations operations = {
	.owner = THIS_MODULE,
	.open = open,
	.read = seq_read,
	.llseek = seq_lseek,
	.release = single_release,
};

static struct dentry *entry;

static int __init vlbr_calibrate_init(void)
{
	if (!boot_cpu_has(X86_FEATURE_TSC) || !boot_cpu_has(X86_FEATURE_MSR))
		return -ENODEV;
	entry = debugfs_create_file("vlbr-calibrate", 0400, NULL, NULL, &operations);
	return PTR_ERR_OR_ZERO(entry);
}

static void __exit vlbr_calibrate_exit(void)
{
	debugfs_remove(entry);
}

module_init(vlbr_calibrate_init);
module_exit(vlbr_calibrate_exit);

MODULE_DESCRIPTION("Times MSR accesses, RDPMC and XSAVES of branch records");
MODULE_AUTHOR("vlbr contributors");
MODULE_LICENSE("GPL");
