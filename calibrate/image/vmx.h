/* SPDX-License-Identifier: MIT */
#ifndef VLBR_VMX_H
#define VLBR_VMX_H

struct lbr_registers;

/* Rows of VMREAD, VMWRITE, round trips, MSR areas and fields, or why there are none. */
void time_vmx(const struct lbr_registers *lbr);

#endif
