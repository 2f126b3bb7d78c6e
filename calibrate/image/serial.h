/* SPDX-License-Identifier: MIT */
#ifndef VLBR_SERIAL_H
#define VLBR_SERIAL_H

void serial_init(void);
u64 lines_printed(void);

#endif
