/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Sampling with the time stamp counter, for the module and the image alike.
 *
 * Whoever includes this defines u32, u64, emit() (printf's %u, %x, %llu, %s), read_safe() and
 * write_safe() (0, or not 0 if the access faults), rdpmc_faults(), and quiet() and loud() around the
 * samples of a row.
 */
#ifndef VLBR_TIMING_H
#define VLBR_TIMING_H

#define SAMPLES 1000
#define WARMUP 100
/* Operations in one sample, back to back. */
#define BATCH 8
#define IN_BATCH(instruction) ".rept 8\n\t" instruction "\n\t.endr"

#define MSR_MPERF 0xe7
#define MSR_APERF 0xe8

struct cpuid_result {
	u32 a, b, c, d;
};

static struct {
	u32 samples[SAMPLES];
	u32 overhead;
	u64 aperf, mperf;
	int has_aperf;
} timing;

static inline struct cpuid_result cpuid_of(u32 leaf, u32 subleaf)
{
	struct cpuid_result r;

	asm volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "0"(leaf), "2"(subleaf));
	return r;
}

/* A leaf that the processor lacks shows another leaf's numbers; here it shows none. */
static inline struct cpuid_result cpuid_if_any(u32 leaf, u32 subleaf)
{
	struct cpuid_result none = { 0, 0, 0, 0 };

	return cpuid_of(0, 0).a >= leaf ? cpuid_of(leaf, subleaf) : none;
}

static inline u64 read_raw(u32 msr)
{
	u32 low, high;

	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
	return (u64)high << 32 | low;
}

static inline void write_raw(u32 msr, u64 value)
{
	asm volatile("wrmsr" : : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

/* Whether APERF and MPERF are there; an emulator may show them in CPUID and have none. */
static inline void find_clocks(void)
{
	u64 value;

	timing.has_aperf = cpuid_if_any(6, 0).c & 1 && !read_safe(MSR_APERF, &value) &&
			   !read_safe(MSR_MPERF, &value);
}

/* What comes before has ended, what comes after has not begun. */
static inline u64 stamp(void)
{
	u32 low, high;

	asm volatile("lfence\n\trdtsc\n\tlfence" : "=a"(low), "=d"(high) : : "memory");
	return (u64)high << 32 | low;
}

static inline u32 ticks_of(u64 from, u64 to)
{
	return to - from > 0xffffffffu ? 0xffffffffu : (u32)(to - from);
}

/* Shell sort: no recursion and no memory, on a kernel's stack. */
static inline void sort_samples(void)
{
	unsigned int gap, i, j;

	for (gap = SAMPLES / 2; gap; gap /= 2) {
		for (i = gap; i < SAMPLES; i++) {
			u32 value = timing.samples[i];

			for (j = i; j >= gap && timing.samples[j - gap] > value; j -= gap)
				timing.samples[j] = timing.samples[j - gap];
			timing.samples[j] = value;
		}
	}
}

static inline void clocks(int sign)
{
	if (!timing.has_aperf)
		return;
	if (sign > 0) {
		timing.aperf = read_raw(MSR_APERF) - timing.aperf;
		timing.mperf = read_raw(MSR_MPERF) - timing.mperf;
	} else {
		timing.aperf = read_raw(MSR_APERF);
		timing.mperf = read_raw(MSR_MPERF);
	}
}

#define SAMPLE_LOOP(statement)                                                                     \
	do {                                                                                       \
		unsigned int n_;                                                                   \
		for (n_ = 0; n_ < WARMUP + SAMPLES; n_++) {                                        \
			u64 from_ = stamp();                                                       \
			statement;                                                                 \
			timing.samples[n_ < WARMUP ? 0 : n_ - WARMUP] = ticks_of(from_, stamp());  \
		}                                                                                  \
	} while (0)

/* Times a statement that does BATCH operations: the empty timing first, then the samples. */
#define TIME(statement)                                                                            \
	do {                                                                                       \
		quiet();                                                                           \
		SAMPLE_LOOP((void)0);                                                              \
		sort_samples();                                                                    \
		timing.overhead = timing.samples[SAMPLES / 2];                                     \
		clocks(-1);                                                                        \
		SAMPLE_LOOP(statement);                                                            \
		clocks(1);                                                                         \
		loud();                                                                            \
		sort_samples();                                                                    \
	} while (0)

/* The rest of a row, after its kind. */
static inline void emit_samples(u32 batch)
{
	emit(" unit=tsc batch=%u count=%u overhead=%u", batch, SAMPLES, timing.overhead);
	emit(" min=%u q1=%u median=%u q3=%u", timing.samples[0], timing.samples[SAMPLES / 4],
	     timing.samples[SAMPLES / 2], timing.samples[SAMPLES / 4 * 3]);
	emit(" aperf=%llu mperf=%llu\n", timing.has_aperf ? timing.aperf : 0ull,
	     timing.has_aperf ? timing.mperf : 0ull);
}

#endif
