#!/usr/bin/env bash
# `vlbr stat` counts what a second QEMU plugin counts in the same run, instruction by instruction: a
# program with threads and signals, SQLite, and guests with one and two vCPUs, alone and beside two busy
# loops, full of exceptions or not. Differences have to be what the recorder's rules make of them
# (count-plugin/compare.py).
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need gcc python3 qemu-x86_64
cd "$WORK"
gcc -O2 -Wall -fvisibility=hidden -fPIC -shared "$E2E/count-plugin/count.c" -o count.so

events=instructions,br_inst_retired.all_branches,br_inst_retired.conditional
events+=,br_inst_retired.near_taken,br_inst_retired.far_branch

# counted WHAT NAME ARGUMENT...: records with both plugins and compares.
counted() {
    local what=$1 name=$2
    shift 2
    runs "vlbr record of $what" "$name.out" timeout 600 "$VLBR" record -o "$name.vlt" \
        --qemu-arg=-plugin "--qemu-arg=$WORK/count.so,out=$WORK/$name.counts" "$@" || return 0
    "$VLBR" stat "$name.vlt" -e "$events" --per-thread --format json >"$name.stat"
    "$VLBR" info --format json "$name.vlt" >"$name.info"
    if python3 "$E2E/count-plugin/compare.py" "$name.counts" "$name.stat" "$name.info" >"$name.table" 2>&1; then
        pass "$what: the counts agree"
    else
        fail "$what: the counts differ"
    fi
    sed 's/^/    /' "$name.table"
    rm -f "$name.vlt" "$name.counts"
}

gcc -O2 "$ROOT/corpus/programs/threads.c" -o threads -pthread
counted "threads and signals" threads --engine qemu -- ./threads 5000
if sqlite=$("$E2E/sqlite/build" "$OUT/sqlite" 2>sqlite.err); then
    counted "SQLite" sqlite --engine qemu -- "$sqlite" 2
else
    echo "SKIP $NAME: SQLite's source is not at hand"
fi

# From 8.0 on QEMU's system emulation runs one translation at several addresses, of which a plugin is
# told the first only.
if ! qemu-system-x86_64 --version 2>/dev/null | grep -q 'version 7\.'; then
    echo "SKIP $NAME: a guest is counted under QEMU 7 only"
    exit
fi
# Without QEMU's debugger neither plugin sees what a handler interrupted.
if ! grep -q x86_cpu_gdb_read_register "$(command -v qemu-system-x86_64)"; then
    echo "SKIP $NAME: this QEMU does not export its debugger"
    exit
fi
need cpio apt-get
kernel=$("$ROOT/corpus/fetch-kernel" "$OUT/kernel")
cat >init.c <<'C'
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>
static volatile unsigned long sum;
int main(void) {
    for (int i = 0; i < 4; i++)
        if (fork() == 0) {
            for (unsigned long j = 0; j < 200000; j++) sum += j * j % 7;
            _exit(0);
        }
    while (wait(0) > 0) { }
    reboot(RB_POWER_OFF);
}
C
cat >faults.c <<'C'
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
static volatile unsigned long sum;
static sigjmp_buf back;
static void leave(int signal) { siglongjmp(back, signal); }
static void stay(int signal) { sum += signal; }
static void spin(unsigned long times) {
    for (unsigned long j = 0; j < times; j++) sum += j * j % 7;
}
// Page faults in string instructions and elsewhere, signals that return and that do not, INT 3, INT n, a
// timer of 1 kHz.
static void fault(void) {
    enum { SIZE = 1 << 19 };
    struct itimerval timer = {{0, 1000}, {0, 1000}};
    signal(SIGSEGV, leave), signal(SIGFPE, leave), signal(SIGILL, leave);
    signal(SIGTRAP, stay), signal(SIGALRM, stay);
    setitimer(ITIMER_REAL, &timer, 0);
    for (int round = 0; round < 20; round++) {
        char *to = mmap(0, 2 * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        void *from = to + SIZE, *end = to;
        unsigned long words = SIZE / 8, result;
        __asm__ volatile("rep movsq" : "+D"(end), "+S"(from), "+c"(words) : : "memory");
        if (!sigsetjmp(back, 1)) *(volatile char *)8 = 1;
        if (!sigsetjmp(back, 1)) __asm__ volatile("divl %0" : : "r"(0), "a"(1), "d"(0));
        if (!sigsetjmp(back, 1)) __asm__ volatile("ud2");
        __asm__ volatile("int3");
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "r8", "r9", "r10", "r11", "memory");
        spin(50000);
        if (fork() == 0) spin(20000), _exit(0);
        while (wait(0) < 0) { }
        munmap(to, 2 * SIZE);
    }
}
int main(void) {
    for (int i = 0; i < 4; i++)
        if (fork() == 0) fault(), _exit(0);
    pid_t child = fork();
    if (child == 0) ptrace(PTRACE_TRACEME, 0, 0, 0), raise(SIGSTOP), spin(1000), _exit(0);
    waitpid(child, 0, 0);
    for (int i = 0; i < 1000; i++) ptrace(PTRACE_SINGLESTEP, child, 0, 0), waitpid(child, 0, 0);
    ptrace(PTRACE_CONT, child, 0, 0);
    while (wait(0) > 0) { }
    reboot(RB_POWER_OFF);
}
C
for program in init faults; do
    mkdir "$program"
    gcc -O2 -static "$program.c" -o "$program/init"
    (cd "$program" && echo init | cpio --create --format=newc --quiet) | gzip -1 >"$program.gz"
done

# guest WHAT PROGRAM VCPUS
guest() {
    counted "$1, $3 vCPU(s)" "guest" --system --kernel "$kernel" --initrd "$2.gz" \
        --append "console=ttyS0 quiet panic=-1 nokaslr" -m 256 --smp "$3"
}
for vcpus in 1 2; do
    guest "a guest" init "$vcpus"
    guest "a guest with exceptions" faults "$vcpus"
    busy=()
    for _ in 1 2; do
        (while :; do :; done) &
        busy+=($!)
    done
    guest "a guest beside two busy loops" init "$vcpus"
    kill "${busy[@]}"
    wait "${busy[@]}" 2>/dev/null || true
done
