// A few ten thousand instructions without a library, for the slow recorders: recursion, an indirect
// call, a loop, a string instruction. Exits with a status that depends on all of them.

static unsigned fib(unsigned n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
static unsigned twice(unsigned n) { return 2 * n; }
static unsigned half(unsigned n) { return n / 2; }
static unsigned (*volatile const steps[])(unsigned) = {twice, half, fib};

void _start(void) {
    static unsigned char from[64] = "repeated", to[64];
    unsigned sum = 0;
    for (unsigned i = 0; i < 30; i++) {
        void *source = from, *target = to;
        unsigned long length = sizeof from;
        __asm__ volatile("rep movsb" : "+S"(source), "+D"(target), "+c"(length)::"memory");
        sum += steps[i % 3](i % 12) + to[i % 8];
    }
    __asm__ volatile("syscall" ::"a"(231), "D"(sum % 100) : "rcx", "r11");
    __builtin_unreachable();
}
