/* SPDX-License-Identifier: MIT */
/* Lines on a serial port, 115200 8N1. */
#include <stdarg.h>

#include "image.h"
#include "serial.h"

#ifndef SERIAL
#define SERIAL 0x3f8
#endif
/* Reads of the line status before a port that does not answer is given up. */
#define PATIENCE 1000000

static u64 lines;

void serial_init(void)
{
	outb(SERIAL + 1, 0);	/* no interrupts */
	outb(SERIAL + 3, 0x80); /* divisor */
	outb(SERIAL, 1);
	outb(SERIAL + 1, 0);
	outb(SERIAL + 3, 3); /* 8N1 */
	outb(SERIAL + 2, 7); /* FIFO */
	outb(SERIAL + 4, 3); /* DTR, RTS */
}

static void letter(char c)
{
	u32 patience = PATIENCE;

	while (!(inb(SERIAL + 5) & 0x20) && --patience)
		;
	outb(SERIAL, (u8)c);
}

static void put(char c)
{
	if (c == '\n') {
		lines++;
		letter('\r');
	}
	letter(c);
}

static void number(u64 value, u32 radix)
{
	char digits[20];
	int n = 0;

	do {
		digits[n++] = "0123456789abcdef"[value % radix];
		value /= radix;
	} while (value);
	while (n)
		put(digits[--n]);
}

/* %u, %#x, %llu, %s. */
void emit(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	for (; *format; format++) {
		if (*format != '%') {
			put(*format);
			continue;
		}
		format++;
		if (*format == 'u') {
			number(va_arg(list, u32), 10);
		} else if (*format == 's') {
			const char *text = va_arg(list, const char *);

			while (*text)
				put(*text++);
		} else if (format[0] == '#' && format[1] == 'x') {
			u32 value = va_arg(list, u32);

			/* As printf has it: no prefix before 0. */
			if (value) {
				put('0');
				put('x');
			}
			number(value, 16);
			format++;
		} else if (format[0] == 'l' && format[1] == 'l' && format[2] == 'u') {
			number(va_arg(list, u64), 10);
			format += 2;
		}
	}
	va_end(list);
}

u64 lines_printed(void)
{
	return lines;
}
