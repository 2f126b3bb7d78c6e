#!/usr/bin/env bash
# SQLite (over 100,000 lines of C) end to end: recorded, replayed through an emulated LBR, sampled;
# the profile is compared with the exact one, optimises the program with BOLT, and feeds clang.
# Usage: sqlite.sh [SCALE]
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need gcc flock python3 qemu-x86_64 "$PERF" "$(llvm 16 perf2bolt)" "$(llvm 16 llvm-bolt)" \
    "$(llvm 19 perf2bolt)" "$(llvm 19 llvm-bolt)" "$(llvm 19 llvm-profgen)" "$(llvm 19 clang)"

scale=${1:-20}
built=$(E2E_BUILD=1 "$E2E/sqlite/build" "$OUT/sqlite")
cd "$WORK"
cp "$built" bench
expected=$(./bench "$scale")
echo "native: $expected"

# Record.
runs "vlbr record" record.out "$VLBR" record --engine qemu -o bench.vlt -- ./bench "$scale"
check "the recorded run prints what a native run prints" grep -qxF "$expected" record.out
runs "vlbr info" info.json "$VLBR" info --format json bench.vlt
instructions=$(json info.json instructions)
taken=$(json info.json taken_branches)
bytes=$(stat -c %s bench.vlt)
holds "bit per instruction at the default level" "$bytes * 8 / $instructions <= 0.04"

# Replay: taken branches, period 997, depth 32; and what else the table below compares.
sample() { # OUTPUT EVENT PERIOD CPU
    runs "vlbr replay -e $2 -c $3 --cpu $4" "$1.out" \
        "$VLBR" replay bench.vlt -b -e "$2" -c "$3" --cpu "$4" -o "$1"
}
sample near_taken.data br_inst_retired.near_taken 997 skylake
sample instructions.data instructions 9973 skylake # about as many samples
runs "vlbr replay with the defaults of -b" default.out "$VLBR" replay bench.vlt -b --cpu skylake -o default.data
runs "perf script reads the samples" brstack.txt "$PERF" script -i near_taken.data -F ip,brstack
runs "perf script reads the defaults'" default.txt "$PERF" script -i default.data -F ip,brstack
check "-b alone means near_taken, period 997" cmp brstack.txt default.txt
samples=$(grep -c . brstack.txt || true)
holds "samples" "$samples >= 10000"

# BOLT.
for version in 19 16; do
    runs "perf2bolt $version" "perf2bolt.$version.out" \
        "$(llvm "$version" perf2bolt)" -p near_taken.data -o "bench.$version.fdata" ./bench
    cat "perf2bolt.$version.out" "perf2bolt.$version.out.err" >"perf2bolt.$version.log"
    contains "perf2bolt $version: no mismatching trace" "perf2bolt.$version.log" \
        'traces mismatching disassembled function contents: 0( |$)'
    runs "llvm-bolt $version" "bolt.$version.out" \
        "$(llvm "$version" llvm-bolt)" ./bench -data "bench.$version.fdata" -o "bench.bolt.$version" \
        -reorder-blocks=ext-tsp -reorder-functions=hfsort -split-functions -split-all-cold -dyno-stats
    check "the program from BOLT $version prints the same" \
        test "$("./bench.bolt.$version" "$scale")" = "$expected"
done
runs "vlbr record of the BOLTed program" rerecord.out \
    "$VLBR" record --engine qemu -o bolted.vlt -- ./bench.bolt.19 "$scale"
check "the recorded BOLTed run prints the same" grep -qxF "$expected" rerecord.out
runs "vlbr info of the BOLTed program" bolted.json "$VLBR" info --format json bolted.vlt
after=$(json bolted.json taken_branches)
awk "BEGIN { printf \"taken branches: %d before BOLT, %d after: %.1f %% fewer\\n\", $taken, $after, 100 * (1 - $after / $taken) }"
holds "at least 30 % fewer taken branches" "$after <= 0.70 * $taken"

# The samples in BOLT's pre-aggregated form: perf2bolt must make the same of them as of perf.data.
runs "vlbr replay --format bolt" bolt.out "$VLBR" replay bench.vlt -b --cpu skylake --format bolt -o near_taken.preagg
for version in 19 16; do
    runs "perf2bolt $version --pa of the samples" "preagg.$version.out" \
        "$(llvm "$version" perf2bolt)" --pa -p near_taken.preagg -o "preagg.$version.fdata" ./bench
    sort "bench.$version.fdata" >"bench.$version.sorted"
    sort "preagg.$version.fdata" >"preagg.$version.sorted"
    check "perf2bolt $version: --format bolt gives what perf.data gives" \
        cmp "bench.$version.sorted" "preagg.$version.sorted"
done

# The exact profile, without perf: BOLT's pre-aggregated form.
runs "vlbr replay --format bolt-exact" exact.out "$VLBR" replay bench.vlt --format bolt-exact -o exact.preagg
runs "perf2bolt --pa" preagg.out "$(llvm 19 perf2bolt)" --pa -p exact.preagg -o exact.fdata ./bench
check "the exact profile is not empty" test -s exact.fdata

# AutoFDO.
runs "llvm-profgen" profgen.out "$(llvm 19 llvm-profgen)" --perfdata=near_taken.data --binary=./bench \
    --format=text --output=bench.prof
contains "the profile names SQLite's functions" bench.prof '^sqlite3VdbeExec:[0-9]+:[0-9]+'
runs "clang compiles SQLite with the profile" clang.out "$(llvm 19 clang)" -O2 -g \
    -fprofile-sample-use=bench.prof -Rpass-analysis=sample-profile -DSQLITE_THREADSAFE=0 \
    -DSQLITE_OMIT_LOAD_EXTENSION -c "$OUT/sqlite/sqlite3.c" -o autofdo.o
contains "clang applies its samples" clang.out.err 'Applied [0-9]+ samples from profile' 100

# Accuracy: overlap with the exact edge profile.
overlap() { # DATA
    "$VLBR" diff --format json "$1" bench.vlt >"$1.json"
    json "$1.json" overlap
}
# A Skylake whose LBR has another depth.
with_depth() { # DEPTH TOS_BITS
    sed -e "s/^depth = .*/depth = $1/" -e "s/^tos_bits = .*/tos_bits = $2/" \
        -e "s/^name = .*/name = \"skylake-depth-$1\"/" -e 's/^aliases = .*/aliases = []/' \
        "$ROOT/lbr/profiles/skylake.toml" >"depth-$1.toml"
}
with_depth 8 3
with_depth 2 1
sample depth_8.data br_inst_retired.near_taken 997 depth-8.toml
sample depth_2.data br_inst_retired.near_taken 997 depth-2.toml
# No LBR has one entry; of each sample only the newest is taken, as BOLT's pre-aggregated edges of
# the program (without libraries), and so is the exact profile it is compared with.
python3 - "$(json info.json mappings 0 start)" >newest.preagg <<'PY'
import collections, os, sys
base, size = int(sys.argv[1]), os.path.getsize("bench")
count = collections.Counter()
for line in open("brstack.txt"):
    source, target = (int(part, 16) - base for part in line.split()[1].split("/")[:2])
    if 0 <= source < size and 0 <= target < size:
        count[source, target] += 1
for (source, target), times in sorted(count.items()):
    print(f"B {source:x} {target:x} {times} 0")
PY
depth_1=$("$VLBR" diff --format json newest.preagg exact.preagg >newest.json && json newest.json overlap)
row() { printf '%-28s %6s %6s %8s\n' "$@"; }
near_taken=$(overlap near_taken.data)
instructions_overlap=$(overlap instructions.data)
row event period depth overlap
row br_inst_retired.near_taken 997 32 "${near_taken:0:6}"
row br_inst_retired.near_taken 997 8 "$(overlap depth_8.data | cut -c 1-6)"
row br_inst_retired.near_taken 997 2 "$(overlap depth_2.data | cut -c 1-6)"
row br_inst_retired.near_taken 997 1 "${depth_1:0:6}"
row instructions 9973 32 "${instructions_overlap:0:6}"
holds "overlap of near_taken with the exact profile" "$near_taken >= 0.97"
holds "instructions is the worse event: length bias" "$instructions_overlap < $near_taken"
