/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* XSAVES and XRSTORS of component 15, the architectural LBR. */
#ifndef VLBR_XSAVE_H
#define VLBR_XSAVE_H

#include "timing.h"

#define MSR_XSS 0xda0
#define COMPONENT 15
/* Legacy area, header, and 40 + 32 * 24 bytes of component 15, the only one that is saved. */
#define IMAGE_BYTES (512 + 64 + 832)

static unsigned char xsave_image[IMAGE_BYTES] __attribute__((aligned(64)));

/* Why component 15 cannot be saved, or 0. */
static inline const char *no_xsaves(void)
{
	struct cpuid_result r = cpuid_if_any(0xd, 1);
	u64 xss;

	if (!(cpuid_of(1, 0).c >> 27 & 1))
		return "XSAVE is not enabled";
	if (!(r.a >> 3 & 1))
		return "the processor has no XSAVES";
	if (!(r.c >> COMPONENT & 1))
		return "CPUID has no component 15";
	if (cpuid_of(0xd, COMPONENT).a > IMAGE_BYTES - 576)
		return "component 15 is larger than known";
	if (read_safe(MSR_XSS, &xss) || !(xss >> COMPONENT & 1))
		return "IA32_XSS does not enable component 15";
	return 0;
}

static inline void time_xsaves(void)
{
	const char *reason = no_xsaves();

	if (reason) {
		emit("skip xsaves because %s\n", reason);
		emit("skip xrstors because %s\n", reason);
		return;
	}
	/* XSAVES first: after an XRSTORS from this image it would leave out what has not changed. */
	TIME(asm volatile(IN_BATCH("xsaves64 (%0)")
			  : : "r"(xsave_image), "a"(1u << COMPONENT), "d"(0) : "memory"));
	emit("row xsaves");
	emit_samples(BATCH);
	TIME({
		/* The records at rest, as quiet() has left them. */
		if (n_ == 0)
			asm volatile("xsaves64 (%0)"
				     : : "r"(xsave_image), "a"(1u << COMPONENT), "d"(0) : "memory");
		asm volatile(IN_BATCH("xrstors64 (%0)")
			     : : "r"(xsave_image), "a"(1u << COMPONENT), "d"(0) : "memory");
	});
	emit("row xrstors");
	emit_samples(BATCH);
}

#endif
