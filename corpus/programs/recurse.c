// Recursion in its kinds: two-way (fib), deeply nested (Ackermann), back-tracking (queens),
// divide and conquer (quick-sort), mutual, and through a function pointer. Deeper than any LBR, so a
// call-stack mode overflows and empties. Usage: recurse [ROUNDS]; prints one line.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define NOINLINE __attribute__((noinline))

NOINLINE static unsigned fib(unsigned n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

NOINLINE static unsigned ackermann(unsigned m, unsigned n) {
    if (m == 0) return n + 1;
    if (n == 0) return ackermann(m - 1, 1);
    return ackermann(m - 1, ackermann(m, n - 1));
}

NOINLINE static unsigned queens(unsigned all, unsigned columns, unsigned left, unsigned right) {
    if (columns == all) return 1;
    unsigned found = 0;
    for (unsigned free = all & ~(columns | left | right); free; free &= free - 1) {
        unsigned bit = free & -free;
        found += queens(all, columns | bit, (left | bit) << 1, (right | bit) >> 1);
    }
    return found;
}

NOINLINE static void quick_sort(uint32_t *values, long low, long high) {
    if (low >= high) return;
    uint32_t pivot = values[(low + high) / 2];
    long i = low, j = high;
    while (i <= j) {
        while (values[i] < pivot) i++;
        while (values[j] > pivot) j--;
        if (i <= j) {
            uint32_t swapped = values[i];
            values[i++] = values[j];
            values[j--] = swapped;
        }
    }
    quick_sort(values, low, j);
    quick_sort(values, i, high);
}

NOINLINE static unsigned odd(unsigned n);
NOINLINE static unsigned even(unsigned n) { return n == 0 ? 1 : odd(n - 1) + 1; }
NOINLINE static unsigned odd(unsigned n) { return n == 0 ? 0 : even(n - 1) + 1; }

struct node {
    struct node *left, *right;
    uint32_t key;
};

NOINLINE static struct node *insert(struct node *tree, struct node *added) {
    if (!tree) return added;
    if (added->key < tree->key) tree->left = insert(tree->left, added);
    else tree->right = insert(tree->right, added);
    return tree;
}

NOINLINE static uint64_t walk(struct node *tree, uint64_t (*visit)(uint64_t, struct node *), uint64_t sum) {
    if (!tree) return sum;
    sum = walk(tree->left, visit, sum);
    sum = visit(sum, tree);
    return walk(tree->right, visit, sum);
}

static uint64_t weigh(uint64_t sum, struct node *tree) { return sum * 31 + tree->key; }

int main(int argc, char **argv) {
    unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 1;
    uint64_t result = 0;
    uint32_t random = 2463534242u;
    enum { COUNT = 8192 };
    static uint32_t values[COUNT];
    static struct node nodes[COUNT];
    for (unsigned round = 0; round < rounds; round++) {
        result += fib(22) + ackermann(2, 60) + queens((1u << 8) - 1, 0, 0, 0) + even(3000);
        struct node *tree = NULL;
        for (unsigned i = 0; i < COUNT; i++) {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            values[i] = random;
            nodes[i] = (struct node){NULL, NULL, random};
            tree = insert(tree, &nodes[i]);
        }
        quick_sort(values, 0, COUNT - 1);
        result = walk(tree, weigh, result) ^ values[round % COUNT];
    }
    printf("recurse %016llx\n", (unsigned long long)result);
    return 0;
}
