#!/usr/bin/env bash
# Mispredictions of `vlbr branches` beside those of other simulators' predictors on the same programs:
# valgrind's, which runs the program itself, and TAGE-SC-L and ITTAGE of the Championship Branch Prediction
# of 2025, which read the branches that `vlbr branches --cbp` writes. What differs by more than a factor of
# two must be one of the differences that docs/branches.md explains.
#
# CBP           the championship's simulator, built (github.com/ramisheikh/cbp2025); without it that part is skipped
# INSTRUCTIONS  instructions of each trace for it, which takes 4 s a million (default: 2000000)
# SAMPLE        the championship's sample trace (default: the one beside this repository, if it is there)
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need valgrind musl-gcc python3
cd "$WORK"
INSTRUCTIONS=${INSTRUCTIONS:-2000000}
SAMPLE=${SAMPLE:-$ROOT/../shared/data/traces/sample_int_trace.gz}
PREDICTORS=(skylake golden-cove tage gshare bimodal)

# ours TRACE ARGUMENT...: TRACE.PREDICTOR.json each.
ours() {
    local trace=$1 predictor
    shift
    for predictor in "${PREDICTORS[@]}"; do
        "$VLBR" branches "$@" --shared --predictor "$predictor" --format json >"$trace.$predictor.json"
    done
}

# beside WHAT PEER EXPLAINED: prints TRACE.PEER.json (of the peer) beside TRACE.*.json and compares Skylake's.
beside() {
    python3 - "$1" "$2" "${PREDICTORS[@]}" <<'PY'
import json, sys
trace, peer, *predictors = sys.argv[1:]
theirs = json.load(open(f"{trace}.{peer}.json"))
rows = [(peer, theirs["instructions"], theirs["conditional"], theirs["indirect"], theirs.get("return"))]
for predictor in predictors:
    report = json.load(open(f"{trace}.{predictor}.json"))
    of = lambda *names: [sum(k[f] for k in report["kinds"] if k["kind"] in names) for f in ("branches", "mispredicted")]
    rows.append((predictor, report["instructions"], of("conditional"), of("indirect jump", "indirect call"), of("return")))
print(f"{trace}: mispredicted of branches, and in 1,000 instructions")
for name, instructions, *kinds in rows:
    cells = []
    for kind in kinds:
        if kind is None:
            cells.append(f"{'-':>29}")
        else:
            branches, missed = kind
            cells.append(f"{missed:>9} of {branches:>9} {1000 * missed / instructions:6.2f}")
    print(f"    {name:<12} conditional {cells[0]}  indirect {cells[1]}  return {cells[2]}")
ours = rows[1]
for kind, mine, other in zip(("conditional", "indirect", "return"), ours[2:], rows[0][2:]):
    # Of fewer than 500 mispredictions most are of branches seen for the first time.
    if other is None or max(mine[1], other[1]) < 500:
        continue
    ratio = (mine[1] / ours[1]) / max(other[1] / rows[0][1], 1e-9)
    print(f"RATIO {trace} {peer} {kind} {ratio:.2f}")
PY
}

# Differences above a factor of two that docs/branches.md explains, by its headings.
explained() { # TRACE PEER KIND RATIO
    case "$2 $3 $(awk "BEGIN { print $4 < 1 ? \"fewer\" : \"more\" }")" in
    "valgrind conditional fewer") true ;; # one table of 16,384 counters
    "valgrind indirect fewer") true ;;    # last targets, 512 of them
    "cbp return fewer") true ;;           # no return stack
    *) false ;;
    esac
}

compare() { # TRACE PEER
    local line
    beside "$1" "$2" >"$1.$2.table"
    grep -v ^RATIO "$1.$2.table"
    while read -r _ trace peer kind ratio; do
        if awk "BEGIN { exit !($ratio >= 0.5 && $ratio <= 2) }"; then
            pass "$trace: $kind branches are mispredicted $ratio times as often as by $peer"
        elif explained "$trace" "$peer" "$kind" "$ratio"; then
            pass "$trace: $kind branches are mispredicted $ratio times as often as by $peer, which is explained"
        else
            fail "$trace: $kind branches are mispredicted $ratio times as often as by $peer"
        fi
    done < <(grep ^RATIO "$1.$2.table" || true)
}

# valgrind simulates the program of a trace, which it runs itself.
if [[ ! -x $OUT/programs/sqlite ]]; then
    "$ROOT/corpus/programs/build" "$OUT/programs" >build.out 2>&1 || { tail -n 5 build.out; false; }
fi
cp "$ROOT/corpus/programs/workload.lua" "$OUT/programs/"
of_valgrind() { # TRACE STATUS PROGRAM ARGUMENT...
    local trace=$1 expected=$2 status=0
    shift 2
    (cd "$OUT/programs" && valgrind --tool=cachegrind --cache-sim=no --branch-sim=yes \
        --cachegrind-out-file=/dev/null "$@") >/dev/null 2>"$trace.log" || status=$?
    if [[ $status -ne $expected ]]; then
        fail "valgrind of $trace ends with status $status"
        return
    fi
    python3 - "$trace" <<'PY'
import json, re, sys
text = open(f"{sys.argv[1]}.log").read().replace(",", "")
one = lambda pattern: [int(n) for n in re.search(pattern, text).groups()]
branches = one(r"Branches: +\d+ +\( *(\d+) cond \+ *(\d+) ind")
missed = one(r"Mispredicts: +\d+ +\( *(\d+) cond \+ *(\d+) ind")
json.dump({"instructions": one(r"I +refs: +(\d+)")[0], "conditional": (branches[0], missed[0]),
           "indirect": (branches[1], missed[1])}, open(f"{sys.argv[1]}.valgrind.json", "w"))
PY
    ours "$trace" "$ROOT/corpus/$trace.vlt"
    compare "$trace" valgrind
}
of_valgrind sqlite 0 ./sqlite 8
of_valgrind lua 0 ./lua workload.lua 1
of_valgrind zstd 0 ./zstd_round 64
of_valgrind recurse 0 ./recurse 10
of_valgrind threads 0 ./threads 10000
of_valgrind stepped 5 ./small

# The championship's simulator reads exported branches, and its own sample.
of_cbp() { # TRACE FILE
    local trace=$1
    "$CBP" "$2" >"$trace.log" 2>&1 || { fail "the championship's simulator of $trace"; return; }
    python3 - "$trace" <<'PY'
import json, re, sys
text = open(f"{sys.argv[1]}.log").read()
one = lambda name: [int(n) for n in re.search(name + r" +(\d+) +(\d+)", text).groups()]
of = {"conditional": one("CondDirect"), "indirect": one("JumpIndirect"), "return": one("JumpReturn")}
of["instructions"] = int(re.search(r"Read (\d+) instrs", text)[1])
# As it comes it takes targets for known.
if of["indirect"][1] == 0 and of["return"][1] == 0:
    of["indirect"] = of["return"] = None
json.dump(of, open(f"{sys.argv[1]}.cbp.json", "w"))
PY
    compare "$trace" cbp
}
if [[ -f $SAMPLE ]]; then
    ours sample "$SAMPLE"
    runs "the championship's sample runs through the predictor" sample.txt "$VLBR" branches "$SAMPLE"
    grep -A7 ' kind ' sample.txt
else
    echo "SKIP $NAME: the championship's sample: $SAMPLE is not there"
fi
if [[ -n ${CBP:-} ]]; then
    need "$CBP"
    [[ -f $SAMPLE ]] && of_cbp sample "$SAMPLE"
    for trace in sqlite lua zstd recurse threads stepped rare gpl/chibicc gpl/boot; do
        name=$(basename "$trace")
        "$VLBR" branches "$ROOT/corpus/$trace.vlt" --instructions "$INSTRUCTIONS" --cbp "$name.gz" 2>/dev/null
        ours "$name" "$ROOT/corpus/$trace.vlt" --instructions "$INSTRUCTIONS"
        of_cbp "$name" "$name.gz"
        rm "$name.gz"
    done
else
    echo "SKIP $NAME: the championship's simulator: CBP does not name it"
fi
