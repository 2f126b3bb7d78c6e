#!/usr/bin/env bash
# A whole guest: a Debian kernel boots under the recorder and runs a workload; the trace holds kernel
# and user code, interrupts and system calls, and perf shows them with the kernel's symbols.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need gcc python3 cpio busybox apt-get qemu-system-x86_64 "$PERF"

kernel=$("$ROOT/corpus/fetch-kernel" "$OUT/kernel")
cd "$WORK"
mkdir programs
gcc -O2 -static "$ROOT/corpus/programs/recurse.c" -o programs/recurse
"$ROOT/corpus/boot-initramfs" programs initrd.gz
if [[ ! -s $OUT/kernel/kallsyms ]]; then
    runs "an unrecorded boot lists the kernel's symbols" kallsyms.out \
        "$ROOT/corpus/kallsyms" "$kernel" initrd.gz "$OUT/kernel/kallsyms"
fi

runs "vlbr record --system" boot.out timeout 600 "$VLBR" record --system --kernel "$kernel" \
    --initrd initrd.gz --append "console=ttyS0 quiet panic=-1 nokaslr" -m 512 \
    --symbols "$OUT/kernel/kallsyms" -o boot.vlt
contains "the guest ran its workload to the end" boot.out 'init: done'
runs "vlbr info" info.json "$VLBR" info --format json boot.vlt
holds "instructions of the boot" "$(json info.json instructions) > 500e6"
# The slower the recorder, the more timer interrupts the guest sees: some room at the default level.
holds "bit per instruction at the default level" \
    "$(stat -c %s boot.vlt) * 8 / $(json info.json instructions) <= 0.042"
runs "vlbr convert --level 19" packed.out "$VLBR" convert --level 19 boot.vlt packed.vlt
holds "bit per instruction at level 19" \
    "$(stat -c %s packed.vlt) * 8 / $(json info.json instructions) <= 0.04"

for mode in u k; do
    runs "vlbr replay -j any,$mode" "$mode.out" "$VLBR" replay boot.vlt --cpu skylake -j "any,$mode,save_type" \
        -e br_inst_retired.near_taken -c 99991 -o "$mode.data"
    runs "perf script of -j any,$mode" "$mode.txt" "$PERF" script -i "$mode.data" -F ip,brstack
    contains "samples of -j any,$mode" "$mode.txt" '0x[0-9a-f]+/0x[0-9a-f]+/' 100
done
check "only user addresses are targets under u" awk \
    '{ for (i = 2; i <= NF; i++) { split($i, part, "/"); if (length(part[2]) == 18 && part[2] ~ /^0xffff/) exit 1 } }' u.txt
check "only kernel addresses are targets under k" awk \
    '{ for (i = 2; i <= NF; i++) { split($i, part, "/"); if (part[2] != "0x0" && part[2] !~ /^0xffff/) exit 1 } }' k.txt
runs "perf report of the kernel's branches" report.out "$PERF" report -i k.data -b --stdio \
    --kallsyms "$OUT/kernel/kallsyms"
contains "kernel symbols are shown" report.out '%.*\[k\] [a-z_]+.*\[k\] [a-z_]+' 20
runs "vlbr's own table" table.out "$VLBR" replay boot.vlt -b -c 99991
contains "its hottest edges have kernel symbols" table.out '[a-z_]+\+0x[0-9a-f]+' 5
