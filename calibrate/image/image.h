/* SPDX-License-Identifier: MIT */
/* What the parts of the image share. */
#ifndef VLBR_IMAGE_H
#define VLBR_IMAGE_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

int try_rdmsr(u32 msr, u64 *value);
int try_wrmsr(u32 msr, u64 value);
int rdpmc_faults(u32 index);
void fault_batch(u32 msr);
u32 round_trips(u32 launched);
extern char guest_vmcall[], guest_cpuid[], guest_rdmsr[];
extern u64 page_map[], gdt[];

#define read_safe try_rdmsr
#define write_safe try_wrmsr

/* There is nobody else: nothing to stop, nothing to put back. */
static inline void quiet(void) {}
static inline void loud(void) {}

__attribute__((format(printf, 1, 2))) void emit(const char *format, ...);

static inline void outb(u16 port, u8 value)
{
	asm volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline u8 inb(u16 port)
{
	u8 value;

	asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

#endif
