#!/usr/bin/env bash
# A recorded program opened in the real perf: branch stacks, branch report, branch history, call
# graph, each with symbols; groups of events. perf 6.1 crashes in some report modes also on files from hardware
# (--sort symbol_from, --total-cycles); those are not used here, and every exit status is read.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need gcc python3 qemu-x86_64 "$PERF"
cd "$WORK"
gcc -O2 -g -Wall "$E2E/toy.c" -o toy
expected=$(./toy)

runs "vlbr record" record.out "$VLBR" record --engine qemu -o toy.vlt -- ./toy
check "the recorded run prints what a native run prints" test "$(cat record.out)" = "$expected"

runs "vlbr replay prints a table" table.out "$VLBR" replay toy.vlt -b
contains "the table names the hottest function" table.out 'fib'

runs "vlbr replay -b" replay.out "$VLBR" replay toy.vlt --cpu skylake -b -o branch.data
runs "perf script -F ip,brstack" brstack.out "$PERF" script -i branch.data -F ip,brstack
contains "samples have 32 entries" brstack.out '^ *[0-9a-f]+ +(0x[0-9a-f]+/0x[0-9a-f]+/[MP-]/[X-]/[A-]/[0-9]+[^ ]* *){32}$' 100
runs "perf script -F brstacksym" brstacksym.out "$PERF" script -i branch.data -F ip,brstacksym
contains "entries have symbols" brstacksym.out 'fib\+0x[0-9a-f]+/fib\+0x[0-9a-f]+/' 100
runs "perf script -F brstackinsn" brstackinsn.out "$PERF" script -i branch.data -F ip,brstackinsn
contains "perf walks the code between entries" brstackinsn.out 'insn: [0-9a-f ]+\s+# (PRED|MISPRED)' 100
runs "perf report -b" report.out "$PERF" report -i branch.data -b --stdio
contains "the branch report shows fib" report.out '%.*\bfib\b.*\bfib\b'
runs "perf report -b with types of columns" columns.out \
    "$PERF" report -i branch.data -b --stdio -F overhead,symbol_from,symbol_to,mispredict
contains "the comparator is called from libc's sort" columns.out '%.*ascending'
runs "perf report --branch-history" history.out "$PERF" report -i branch.data --branch-history --stdio
contains "branch history shows lines of the program" history.out 'fib'
runs "perf annotate" annotate.out "$PERF" annotate -i branch.data --stdio -s fib

for filter in any_call any_ret ind_call call cond ind_jmp u; do
    runs "vlbr replay -j $filter" "$filter.out" "$VLBR" replay toy.vlt --cpu skylake -j "$filter,save_type" -o "$filter.data"
    runs "perf script of -j $filter" "$filter.txt" "$PERF" script -i "$filter.data" -F ip,brstack
done
only() { # FILTER TYPES: no entry has another type (perf 6.1 names them after the cycles)
    contains "-j $1 has entries" "$1.txt" "0x[0-9a-f]+/0x[0-9a-f]+/"
    check "-j $1 holds only $2" awk -v ok="^($2)$" \
        '{ for (i = 2; i <= NF; i++) { n = split($i, part, "/"); if (n >= 7 && part[7] !~ ok) { print "    " $i; exit 1 } } }' "$1.txt"
}
only any_call 'CALL|IND_CALL|SYSCALL|IRQ'
only any_ret 'RET|SYSRET|ERET'
only ind_call 'IND_CALL'
only call 'CALL'
only cond 'COND'
only ind_jmp 'IND'

runs "vlbr replay --call-graph lbr" callgraph.out \
    "$VLBR" replay toy.vlt --cpu skylake --call-graph lbr -e instructions -c 9973 -o callgraph.data
runs "perf report of the call graph" caller.out "$PERF" report -i callgraph.data --stdio -g caller --no-children
contains "main calls fib" caller.out 'main'
contains "fib recurses" caller.out 'fib' 3
runs "perf script of the call graph" callscript.out "$PERF" script -i callgraph.data -F ip,sym
contains "call chains reach main" callscript.out ' main$' 100

group='br_inst_retired.near_taken,instructions,br_inst_retired.near_call'
runs "vlbr replay of a group" group.out "$VLBR" replay toy.vlt --cpu skylake -b -e "{$group}:S" -c 10007 -o group.data
runs "vlbr replay of a group, as json" group.json.out \
    "$VLBR" replay toy.vlt --cpu skylake -b -e "{$group}:S" -c 10007 --format json -o group.json
runs "perf evlist -g" evlist.out "$PERF" evlist -i group.data -g
contains "perf knows the group" evlist.out '^\{br_inst_retired.near_taken:u,instructions:u,br_inst_retired.near_call:u\}$'
runs "perf evlist -v" attrs.out "$PERF" evlist -i group.data -v
contains "every event is read with its group" attrs.out 'sample_type: IP\|TID\|TIME\|READ\|ID\|.*read_format: ID\|GROUP' 3
runs "perf report --group" groups.out "$PERF" report -i group.data --group --stdio --no-branch-stack
contains "the report has a column an event" groups.out '^ +[0-9.]+% +[0-9.]+% +[0-9.]+% .*\bfib\b'
runs "perf script of a group" group.txt "$PERF" script -i group.data -F tid,event,period
check "what perf counts up to the last sample is what was counted" python3 - <<'PY'
import json, sys
data = json.load(open("group.json"))
last = {}
for record in data["records"]:
    if record["record"] == "sample":
        last[record["tid"]] = record["counts"]
wanted = {(tid, name): count for tid, counts in last.items()
          for name, count in zip([data["event"]] + data["group"], counts) if count}
found = {}
for line in open("group.txt"):
    tid, period, event = line.split()
    key = (int(tid), event.removesuffix(":"))
    found[key] = found.get(key, 0) + int(period)
if found != wanted or len(found) < 3:
    sys.exit(f"    perf {found}, counted {wanted}")
PY
runs "vlbr replay -F" freq.out "$VLBR" replay toy.vlt --cpu skylake -b -e branches -F 4000 -o freq.data
runs "perf evlist -F" freq.txt "$PERF" evlist -i freq.data -F
contains "perf knows the frequency" freq.txt 'sample_freq=4000'

runs "folded stacks" folded.out "$VLBR" replay toy.vlt --cpu skylake --call-graph lbr --format folded -o toy.folded
contains "folded stacks lead from main to fib" toy.folded 'main;fib(;fib)*.* [0-9]+$'
runs "perf-script text" text.out "$VLBR" replay toy.vlt --cpu skylake -b --format perf-script -o toy.script
runs "json" json.out "$VLBR" replay toy.vlt --cpu skylake -b --format json -o toy.json
check "json parses" python3 -c 'import json; json.load(open("toy.json"))'
