/* SPDX-License-Identifier: MIT */
/* VM exit and entry of a guest of one instruction, by what the two have to load and store. */
#include "image.h"

#include "registers.h"
#include "vmx.h"

#define MSR_FEATURE_CONTROL 0x3a
#define MSR_VMX_BASIC 0x480
#define MSR_VMX_PINBASED 0x481
#define MSR_VMX_PROCBASED 0x482
#define MSR_VMX_EXIT 0x483
#define MSR_VMX_ENTRY 0x484
#define MSR_CR0_FIXED0 0x486
#define MSR_CR0_FIXED1 0x487
#define MSR_CR4_FIXED0 0x488
#define MSR_CR4_FIXED1 0x489
#define MSR_PAT_VALUE 0x277
#define MSR_EFER_VALUE 0xc0000080

enum {
	EXIT_STORE_ADDR = 0x2006,
	EXIT_LOAD_ADDR = 0x2008,
	ENTRY_LOAD_ADDR = 0x200a,
	LINK_POINTER = 0x2800,
	GUEST_DEBUGCTL = 0x2802,
	GUEST_PAT = 0x2804,
	GUEST_EFER = 0x2806,
	GUEST_GLOBAL_CTRL = 0x2808,
	HOST_PAT = 0x2c00,
	HOST_EFER = 0x2c02,
	HOST_GLOBAL_CTRL = 0x2c04,
	PIN_CONTROLS = 0x4000,
	PROC_CONTROLS = 0x4002,
	EXCEPTION_BITMAP = 0x4004,
	CR3_TARGETS = 0x400a,
	EXIT_CONTROLS = 0x400c,
	EXIT_STORE_COUNT = 0x400e,
	EXIT_LOAD_COUNT = 0x4010,
	ENTRY_CONTROLS = 0x4012,
	ENTRY_LOAD_COUNT = 0x4014,
	ENTRY_EVENT = 0x4016,
	INSTRUCTION_ERROR = 0x4400,
	EXIT_REASON = 0x4402,
	GUEST_RIP = 0x681e,
};

#define REASON_CPUID 10
#define REASON_VMCALL 18
#define REASON_RDMSR 31

#define MOST_AREA_ENTRIES 64

struct area_entry {
	u32 msr, reserved;
	u64 value;
};

static u8 vmxon_region[4096] __attribute__((aligned(4096)));
static u8 vmcs[4096] __attribute__((aligned(4096)));
static struct area_entry area[MOST_AREA_ENTRIES] __attribute__((aligned(16)));
static u8 guest_stack[256] __attribute__((aligned(16)));
static u32 entry_controls, exit_controls;

static int vmwrite(u64 field, u64 value)
{
	u8 failed;

	asm volatile("vmwrite %2, %1; setbe %0" : "=qm"(failed) : "r"(field), "r"(value) : "cc");
	return failed;
}

static u64 vmread(u64 field)
{
	u64 value = 0;

	asm volatile("vmread %1, %0" : "+r"(value) : "r"(field) : "cc");
	return value;
}

static u64 read_cr(int number)
{
	u64 value;

	if (number == 0)
		asm volatile("mov %%cr0, %0" : "=r"(value));
	else if (number == 3)
		asm volatile("mov %%cr3, %0" : "=r"(value));
	else
		asm volatile("mov %%cr4, %0" : "=r"(value));
	return value;
}

/* What is wished of a vector of controls, with what the processor wants and allows. */
static u32 controls(u32 msr, u32 wished)
{
	int exact = read_raw(MSR_VMX_BASIC) >> 55 & 1;
	u64 allowed = read_raw(exact ? msr + 0xc : msr);

	return (wished | (u32)allowed) & (u32)(allowed >> 32);
}

/* Whether the processor lets a control be 1. */
static int allows(u32 msr, u32 bit)
{
	return controls(msr, 1u << bit) >> bit & 1;
}

/* Why VMX cannot be used, or 0; then the processor is in VMX operation. */
static const char *enter_vmx(void)
{
	u64 control, cr0, cr4, revision;
	u64 region = (u64)vmxon_region;
	u8 failed;

	if (!(cpuid_of(1, 0).c >> 5 & 1))
		return "the processor has no VMX";
	if (try_rdmsr(MSR_FEATURE_CONTROL, &control))
		return "IA32_FEATURE_CONTROL cannot be read";
	if (!(control & 1) && try_wrmsr(MSR_FEATURE_CONTROL, control | 5))
		return "IA32_FEATURE_CONTROL cannot be written";
	if (control & 1 && !(control & 4))
		return "the firmware has locked VMX";
	cr0 = (read_cr(0) | read_raw(MSR_CR0_FIXED0)) & read_raw(MSR_CR0_FIXED1);
	cr4 = (read_cr(4) | read_raw(MSR_CR4_FIXED0) | 1ull << 13) & read_raw(MSR_CR4_FIXED1);
	asm volatile("mov %0, %%cr0" : : "r"(cr0) : "memory");
	asm volatile("mov %0, %%cr4" : : "r"(cr4) : "memory");
	revision = read_raw(MSR_VMX_BASIC) & 0x7fffffff;
	*(u32 *)vmxon_region = (u32)revision;
	*(u32 *)vmcs = (u32)revision;
	asm volatile("vmxon %1; setbe %0" : "=qm"(failed) : "m"(region) : "cc", "memory");
	return failed ? "VMXON fails" : 0;
}

/* A segment of the guest: selector, limit and access rights; the base is 0 but for the TSS. */
static int segment(u32 n, u64 selector, u64 limit, u64 rights, u64 base)
{
	return vmwrite(0x800 + 2 * n, selector) | vmwrite(0x4800 + 2 * n, limit) |
	       vmwrite(0x4814 + 2 * n, rights) | vmwrite(0x6806 + 2 * n, base);
}

static u64 tss_base(void)
{
	return (gdt[3] >> 16 & 0xffffff) | (gdt[3] >> 56) << 24 | gdt[4] << 32;
}

/* Guest and host state: both are what runs now. Not 0: a field cannot be written. */
static int fill_vmcs(void)
{
	struct __attribute__((packed)) {
		u16 limit;
		u64 base;
	} gdtr, idtr;
	u64 value;
	u32 n;
	int failed = 0;

	asm volatile("sgdt %0" : "=m"(gdtr));
	asm volatile("sidt %0" : "=m"(idtr));
	failed |= vmwrite(PIN_CONTROLS, controls(MSR_VMX_PINBASED, 0));
	failed |= vmwrite(PROC_CONTROLS, controls(MSR_VMX_PROCBASED, 0));
	failed |= vmwrite(EXCEPTION_BITMAP, 0xffffffff);
	failed |= vmwrite(CR3_TARGETS, 0);
	failed |= vmwrite(EXIT_CONTROLS, exit_controls);
	failed |= vmwrite(ENTRY_CONTROLS, entry_controls);
	failed |= vmwrite(EXIT_STORE_COUNT, 0) | vmwrite(EXIT_LOAD_COUNT, 0);
	failed |= vmwrite(ENTRY_LOAD_COUNT, 0) | vmwrite(ENTRY_EVENT, 0);
	failed |= vmwrite(LINK_POINTER, ~0ull) | vmwrite(GUEST_DEBUGCTL, 0);
	/* ES, CS, SS, DS, FS, GS; LDTR is unusable; TR is busy. */
	for (n = 0; n < 6; n++)
		failed |= segment(n, n == 1 ? 8 : 16, 0xffffffff, n == 1 ? 0xa09b : 0xc093, 0);
	failed |= segment(6, 0, 0, 0x10000, 0);
	failed |= segment(7, 0x18, 103, 0x8b, tss_base());
	failed |= vmwrite(0x6816, gdtr.base) | vmwrite(0x4810, gdtr.limit);
	failed |= vmwrite(0x6818, idtr.base) | vmwrite(0x4812, idtr.limit);
	failed |= vmwrite(0x6800, read_cr(0)) | vmwrite(0x6802, read_cr(3)) |
		  vmwrite(0x6804, read_cr(4));
	failed |= vmwrite(0x681a, 0x400);				/* DR7 */
	failed |= vmwrite(0x681c, (u64)guest_stack + sizeof(guest_stack)); /* RSP */
	failed |= vmwrite(GUEST_RIP, (u64)guest_vmcall);
	failed |= vmwrite(0x6820, 2) | vmwrite(0x6822, 0);		/* RFLAGS, pending #DB */
	failed |= vmwrite(0x4824, 0) | vmwrite(0x4826, 0);		/* may be interrupted, active */
	failed |= vmwrite(0x482a, 0) | vmwrite(0x6824, 0) | vmwrite(0x6826, 0); /* SYSENTER */
	for (n = 0; n < 6; n++)
		failed |= vmwrite(0xc00 + 2 * n, n == 1 ? 8 : 16);
	failed |= vmwrite(0xc0c, 0x18);
	failed |= vmwrite(0x6c00, read_cr(0)) | vmwrite(0x6c02, read_cr(3)) |
		  vmwrite(0x6c04, read_cr(4));
	failed |= vmwrite(0x6c06, 0) | vmwrite(0x6c08, 0) | vmwrite(0x6c0a, tss_base());
	failed |= vmwrite(0x6c0c, gdtr.base) | vmwrite(0x6c0e, idtr.base);
	failed |= vmwrite(0x4c00, 0) | vmwrite(0x6c10, 0) | vmwrite(0x6c12, 0);
	if (!try_rdmsr(MSR_PAT_VALUE, &value) && allows(MSR_VMX_ENTRY, 14))
		failed |= vmwrite(GUEST_PAT, value) | vmwrite(HOST_PAT, value);
	if (!try_rdmsr(MSR_EFER_VALUE, &value) && allows(MSR_VMX_ENTRY, 15))
		failed |= vmwrite(GUEST_EFER, value) | vmwrite(HOST_EFER, value);
	if (allows(MSR_VMX_ENTRY, 13))
		failed |= vmwrite(GUEST_GLOBAL_CTRL, 0) | vmwrite(HOST_GLOBAL_CTRL, 0);
	return failed;
}

/*
 * Samples 8 round trips at a time with the fields as they are. 0 if the guest left for another reason
 * than it should; VMX has nothing to say about it then but the two numbers printed.
 */
static int sample(const char *row, u32 reason)
{
	u32 ticks = round_trips(1);
	u64 found = ticks == 0xffffffff ? vmread(INSTRUCTION_ERROR) : vmread(EXIT_REASON);
	unsigned int n;

	if (ticks == 0xffffffff || found != reason) {
		emit("skip %s because %s %u\n", row,
		     ticks == 0xffffffff ? "VMRESUME fails with error" : "the exit reason is",
		     (u32)found);
		return 0;
	}
	SAMPLE_LOOP((void)0);
	sort_samples();
	timing.overhead = timing.samples[SAMPLES / 2];
	clocks(-1);
	for (n = 0; n < WARMUP + SAMPLES; n++)
		timing.samples[n < WARMUP ? 0 : n - WARMUP] = round_trips(1);
	clocks(1);
	sort_samples();
	return 1;
}

static void time_round_trip(u32 reason, const char *guest)
{
	vmwrite(GUEST_RIP, (u64)guest);
	if (sample("round_trip", reason)) {
		emit("row round_trip reason=%u", reason);
		emit_samples(BATCH);
	}
	vmwrite(GUEST_RIP, (u64)guest_vmcall);
}

static void time_area(const char *list, u64 address_field, u64 count_field, u32 msr)
{
	static const u32 counts[] = { 0, 1, 8, 32, 64 };
	u32 i;

	vmwrite(address_field, (u64)area);
	for (i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		vmwrite(count_field, counts[i]);
		if (!sample("area", REASON_VMCALL))
			break;
		emit("row area list=%s msr=%#x entries=%u", list, msr, counts[i]);
		emit_samples(BATCH);
	}
	vmwrite(count_field, 0);
}

/* Registers loaded from fields, one more pair at entry and exit in each row. */
static void time_fields(void)
{
	static const u32 entry[] = { 13, 14, 15 }, exit[] = { 12, 19, 21 };
	u32 loads = 0, i;

	for (i = 0; i < 4; i++) {
		if (i && !(allows(MSR_VMX_ENTRY, entry[i - 1]) && allows(MSR_VMX_EXIT, exit[i - 1])))
			continue;
		if (i) {
			vmwrite(ENTRY_CONTROLS, entry_controls |= 1u << entry[i - 1]);
			vmwrite(EXIT_CONTROLS, exit_controls |= 1u << exit[i - 1]);
			loads += 2;
		}
		if (!sample("fields", REASON_VMCALL))
			return;
		emit("row fields loads=%u", loads);
		emit_samples(BATCH);
	}
}

static void time_vmcs_access(void)
{
	TIME(asm volatile(IN_BATCH("vmread %%rax, %%rdx")
			  : : "a"((u64)GUEST_RIP) : "rdx", "cc", "memory"));
	emit("row vmread");
	emit_samples(BATCH);
	TIME(asm volatile(IN_BATCH("vmwrite %%rdx, %%rax")
			  : : "a"((u64)GUEST_RIP), "d"((u64)guest_vmcall) : "cc", "memory"));
	emit("row vmwrite");
	emit_samples(BATCH);
}

static void time_all(const struct lbr_registers *lbr)
{
	u32 msr = lbr->depth ? lbr->from : MSR_KERNEL_GS;
	u64 value, region = (u64)vmcs;
	u32 n;
	u8 failed;

	asm volatile("vmclear %1; setbe %0" : "=qm"(failed) : "m"(region) : "cc", "memory");
	if (!failed)
		asm volatile("vmptrld %1; setbe %0" : "=qm"(failed) : "m"(region) : "cc", "memory");
	/* 64 bits on both sides. */
	entry_controls = controls(MSR_VMX_ENTRY, 1u << 9);
	exit_controls = controls(MSR_VMX_EXIT, 1u << 9);
	if (failed || fill_vmcs()) {
		emit("skip vmx because the VMCS cannot be filled\n");
		return;
	}
	if (round_trips(0) || (u32)vmread(EXIT_REASON) != REASON_VMCALL) {
		emit("skip vmx because VMLAUNCH fails: error %u, exit reason %#x\n",
		     (u32)vmread(INSTRUCTION_ERROR), (u32)vmread(EXIT_REASON));
		return;
	}
	time_vmcs_access();
	time_round_trip(REASON_VMCALL, guest_vmcall);
	time_round_trip(REASON_CPUID, guest_cpuid);
	time_round_trip(REASON_RDMSR, guest_rdmsr);
	if (try_rdmsr(msr, &value) || try_wrmsr(msr, value)) {
		msr = MSR_KERNEL_GS;
		try_rdmsr(msr, &value);
	}
	for (n = 0; n < MOST_AREA_ENTRIES; n++) {
		area[n].msr = msr;
		area[n].value = value;
	}
	time_area("entry-load", ENTRY_LOAD_ADDR, ENTRY_LOAD_COUNT, msr);
	time_area("exit-store", EXIT_STORE_ADDR, EXIT_STORE_COUNT, msr);
	time_area("exit-load", EXIT_LOAD_ADDR, EXIT_LOAD_COUNT, msr);
	time_fields();
	asm volatile("vmclear %0" : : "m"(region) : "cc", "memory");
}

void time_vmx(const struct lbr_registers *lbr)
{
	const char *reason = enter_vmx();

	find_clocks();
	if (reason) {
		emit("skip vmx because %s\n", reason);
		return;
	}
	time_all(lbr);
	asm volatile("vmxoff" : : : "cc", "memory");
}
