// A small program whose call graph is known: recursion, an indirect call per comparison, a switch,
// a string instruction. About 30 M instructions. Prints one line.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((noinline)) static unsigned fib(unsigned n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

__attribute__((noinline)) static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

__attribute__((noinline)) static uint32_t dispatch(uint32_t state, uint32_t value) {
    switch (state % 6) {
    case 0: return value * 3 + 1;
    case 1: return value / 2;
    case 2: return value ^ 0x5bd1e995u;
    case 3: return value << 3 | value >> 29;
    case 4: return value + state;
    default: return ~value;
    }
}

__attribute__((noinline)) static void copy(void *to, const void *from, size_t length) {
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(length)::"memory");
}

int main(void) {
    static uint32_t values[20000], copied[20000];
    uint32_t state = 12345;
    for (size_t i = 0; i < 20000; i++) {
        state = state * 1664525u + 1013904223u;
        values[i] = dispatch(state >> 16, state);
    }
    copy(copied, values, sizeof values);
    qsort(values, 20000, sizeof values[0], ascending);
    printf("%u %u %u\n", fib(27), values[100], copied[100]);
    return 0;
}
