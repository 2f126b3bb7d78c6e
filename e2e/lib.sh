# Shared by the end-to-end checks: where tools and artefacts lie, and how a check reports.
# Sourced by bash scripts; not run by itself.
#
# VLBR     the command under test            (default: target/release/vlbr of this workspace)
# OUT      where artefacts are put           (default: target/e2e)
# PERF     the perf to use                   (default: perf on PATH)
# CI=true  turns a missing tool into a failure; otherwise the check is skipped with status 77.

set -euo pipefail
export LC_ALL=C

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
E2E=$ROOT/e2e
VLBR=${VLBR:-${CARGO_TARGET_DIR:-$ROOT/target}/release/vlbr}
OUT=${OUT:-${CARGO_TARGET_DIR:-$ROOT/target}/e2e}
PERF=${PERF:-perf}
NAME=$(basename "$0" .sh)
mkdir -p "$OUT"
WORK=$(mktemp -d "$OUT/$NAME.XXXXXX")
passed=0
failed=0

# perf writes caches and reads a configuration under HOME; give it none of the user's.
export HOME=$WORK PERF_CONFIG=/dev/null PERF_BUILDID_DIR=$WORK/buildid
CARGO_HOME=${CARGO_HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)/.cargo}
RUSTUP_HOME=${RUSTUP_HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)/.rustup}
export CARGO_HOME RUSTUP_HOME

finish() {
    local status=$?
    if [[ $status -eq 77 ]]; then exit 77; fi
    if [[ $status -ne 0 ]]; then
        echo "FAIL $NAME: stopped with status $status; files are in $WORK"
        exit "$status"
    fi
    echo "$NAME: $passed checks passed, $failed failed"
    if [[ $failed -ne 0 ]]; then
        echo "files are in $WORK"
        exit 1
    fi
    [[ -n ${KEEP:-} ]] || rm -rf "$WORK"
}
trap finish EXIT

pass() { passed=$((passed + 1)); echo "PASS $NAME: $*"; }
fail() { failed=$((failed + 1)); echo "FAIL $NAME: $*"; }

# check WHAT COMMAND...: the command's status decides.
check() {
    local what=$1
    shift
    if "$@"; then pass "$what"; else fail "$what"; fi
}

# holds WHAT EXPRESSION: an awk condition decides, e.g. holds "ratio at least 0.97" "$r >= 0.97".
holds() {
    if awk "BEGIN { exit !($2) }"; then pass "$1 ($2)"; else fail "$1 (not: $2)"; fi
}

# runs WHAT OUTPUT COMMAND...: the exit status decides (perf can crash after printing); stdout goes
# to OUTPUT, stderr to OUTPUT.err, whose last lines are shown on failure.
runs() {
    local what=$1 output=$2 status=0
    shift 2
    "$@" >"$output" 2>"$output.err" </dev/null || status=$?
    if [[ $status -eq 0 ]]; then
        pass "$what"
    else
        fail "$what: '$*' ended with status $status"
        tail -n 5 "$output.err" | sed 's/^/    /'
        return 1
    fi
}

# contains WHAT FILE REGEX [AT_LEAST]: so many lines match.
contains() {
    local found
    found=$(grep -cE -- "$3" "$2" || true)
    if [[ $found -ge ${4:-1} ]]; then
        pass "$1 ($found lines)"
    else
        fail "$1: $found lines match '$3' in $2, wanted ${4:-1}"
    fi
}

# need TOOL...: each is a command on PATH or an absolute path.
need() {
    local tool missing=()
    for tool in "$@"; do command -v "$tool" >/dev/null || missing+=("$tool"); done
    [[ ${#missing[@]} -eq 0 ]] && return
    rm -rf "$WORK"
    trap - EXIT
    if [[ ${CI:-} == true ]]; then
        echo "FAIL $NAME: not installed: ${missing[*]} (.ci/run installs them)"
        exit 1
    fi
    echo "SKIP $NAME: not installed: ${missing[*]} (.ci/run installs them)"
    exit 77
}

# llvm VERSION TOOL: path of a versioned LLVM tool. Debian's aliases such as perf2bolt-16 lose the
# name the tool looks at, so the real directory is used.
llvm() { echo "/usr/lib/llvm-$1/bin/$2"; }

# json FILE KEY...: a number or string of a flat path in a JSON file.
json() {
    python3 - "$@" <<'PY'
import json, sys
value = json.load(open(sys.argv[1]))
for key in sys.argv[2:]:
    value = value[int(key)] if isinstance(value, list) else value[key]
print(value)
PY
}

need "$VLBR"
