#!/usr/bin/env bash
# `vlbr stat` counts what a second QEMU plugin counts in the same run, instruction by instruction: a
# program with threads and signals, SQLite, and a guest with one and with two vCPUs. Differences have to
# be what the recorder's rules make of them, or fit the few events that it could not place
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
mkdir root
gcc -O2 -static init.c -o root/init
(cd root && echo init | cpio --create --format=newc --quiet) | gzip -1 >initrd.gz
for vcpus in 1 2; do
    counted "a guest of $vcpus vCPU(s)" "guest$vcpus" --system --kernel "$kernel" --initrd initrd.gz \
        --append "console=ttyS0 quiet panic=-1 nokaslr" -m 256 --smp "$vcpus"
done
