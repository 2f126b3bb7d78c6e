#!/usr/bin/env bash
# Records the corpus anew, each trace with the command that README.md's table states, and then blesses
# the results. The programs are built first. Usage: record.sh [TRACE...], e.g. record.sh lua gpl/boot
# Needs what .ci/run installs, and musl-tools and chibicc.
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
vlbr=$(realpath "${VLBR:-${CARGO_TARGET_DIR:-$root/target}/release/vlbr}")
# Traces hold the paths of what ran, so the place is the same on every machine.
work=/tmp/vlbr-corpus
for tool in "$vlbr" qemu-x86_64 qemu-system-x86_64 musl-gcc chibicc cpio busybox; do
    command -v "$tool" >/dev/null || { echo "record.sh: $tool is missing" >&2; exit 1; }
done
[[ $# -gt 0 ]] || set -- recurse threads lua zstd sqlite stepped logged rare gpl/chibicc gpl/boot

"$here/programs/build" "$work"
cp "$here/programs/workload.lua" "$work/"
cd "$work"

mkdir -p "$here/gpl"
# Packed afterwards: a guest whose recorder is slow sees more timer interrupts.
record() { "$vlbr" record --force -o recorded.vlt "$@"; }
pack() { "$vlbr" convert --force --level 19 "${1:-recorded.vlt}" "$here/$trace.vlt"; }
for trace in "$@"; do
    echo "== $trace"
    case $trace in
    recurse) record --engine qemu -- ./recurse 10 ;;
    threads) record --engine qemu -- ./threads 10000 ;;
    lua) record --engine qemu -- ./lua workload.lua 1 ;;
    zstd) record --engine qemu -- ./zstd_round 64 ;;
    sqlite) record --engine qemu -- ./sqlite 8 ;;
    stepped) record --engine ptrace -- ./small || [[ $? -eq 5 ]] ;; # the program's status
    logged)
        qemu-x86_64 -d in_asm,exec,nochain -D small.log ./small || [[ $? -eq 5 ]]
        pack small.log
        continue
        ;;
    rare) # made, not recorded
        (cd "$root" && cargo run --release -q -p vlbr-replay --example rare -- "$here/rare.vlt")
        continue
        ;;
    gpl/chibicc)
        lua=$("$root/e2e/sources/source-dir" lua-src)/lua-5.4.8
        cp "$lua"/*.h "$lua/lzio.c" .
        record --engine qemu -- chibicc '-D__builtin_va_list=char*' -I/usr/include/x86_64-linux-musl -I. \
            -cc1 -cc1-input lzio.c -cc1-output lzio.s lzio.c
        ;;
    gpl/boot)
        kernel=$("$here/fetch-kernel" kernel)
        "$here/boot-initramfs" "$work" initrd.gz
        "$here/kallsyms" "$kernel" initrd.gz kallsyms.txt
        record --system --kernel "$kernel" --initrd initrd.gz -m 512 --symbols kallsyms.txt \
            --append "console=ttyS0 quiet panic=-1 nokaslr"
        ;;
    *) echo "record.sh: no trace '$trace'" >&2; exit 2 ;;
    esac
    pack
done
"$vlbr" corpus bless "$here"
du -ch "$here"/*.vlt "$here"/gpl/*.vlt | tail -n 1
