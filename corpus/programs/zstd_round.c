// Compresses generated text with zstd at several levels, decompresses it and compares.
// Usage: zstd_round [KIB]; prints one line.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "zstd.h"

// Sentences of a small vocabulary with numbers in between: compressible, but not trivially.
static void write_text(char *text, size_t size) {
    static const char *words[] = {"branch",  "record", "the",    "last", "return", "stack",
                                  "of",      "a",      "kernel", "and",  "cycle",  "retired",
                                  "counter", "to",     "mask",   "from"};
    uint64_t state = 88172645463325252u;
    size_t at = 0;
    while (at + 32 < size) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if (state % 11 == 0) at += (size_t)sprintf(text + at, "%u. ", (unsigned)(state >> 40) % 5000);
        else at += (size_t)sprintf(text + at, "%s ", words[state >> 60]);
    }
    memset(text + at, '.', size - at);
}

int main(int argc, char **argv) {
    size_t size = (size_t)(argc > 1 ? atoi(argv[1]) : 256) << 10;
    size_t bound = ZSTD_compressBound(size);
    char *text = malloc(size), *packed = malloc(bound), *back = malloc(size);
    if (!text || !packed || !back) return 1;
    write_text(text, size);
    static const int levels[] = {1, 3, 9};
    printf("zstd %zu:", size);
    for (unsigned i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        size_t length = ZSTD_compress(packed, bound, text, size, levels[i]);
        if (ZSTD_isError(length)) return 1;
        size_t restored = ZSTD_decompress(back, size, packed, length);
        if (restored != size || memcmp(text, back, size)) return 1;
        printf(" %zu", length);
    }
    printf("\n");
    return 0;
}
