#!/usr/bin/env bash
# The three recorders see the same run, and every bad ending says one clear line.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need gcc python3 qemu-x86_64
cd "$WORK"

# No library, nothing read from outside: the engines must see the same.
gcc -O1 -g -fno-inline -nostdlib -static -no-pie "$ROOT/corpus/programs/small.c" -o small
native=0
./small || native=$?

count() { "$VLBR" info --format json "$1" >"$1.json" && json "$1.json" "$2"; }
for engine in qemu ptrace; do
    status=0
    "$VLBR" record --engine "$engine" -o "$engine.vlt" -- ./small 2>"$engine.err" || status=$?
    check "record --engine $engine passes the program's status on" test "$status" -eq "$native"
done
qemu-x86_64 -d in_asm,exec,nochain -D small.log ./small || true
runs "vlbr convert of a qemu -d log" convert.out "$VLBR" convert small.log log.vlt
ptrace=$(count ptrace.vlt instructions)
for other in qemu log; do
    check "$other and ptrace count the same instructions" test "$(count $other.vlt instructions)" = "$ptrace"
    check "$other and ptrace count the same taken branches" \
        test "$(count $other.vlt taken_branches)" = "$(count ptrace.vlt taken_branches)"
done
"$VLBR" diff --format json qemu.vlt ptrace.vlt >diff.json
holds "edges of qemu and ptrace overlap wholly" "$(json diff.json overlap) > 0.999999"

# Bad endings: one clear line on stderr and a non-zero status.
refuses() { # WHAT COMMAND...
    local what=$1 status=0
    shift
    "$@" >refused.out 2>refused.err || status=$?
    if [[ $status -eq 0 || $status -ge 128 ]]; then
        fail "$what: status $status"
    elif [[ $(grep -cv '^ *$' refused.err) -gt 2 ]] || ! grep -q . refused.err; then
        fail "$what: not one clear line"
        head -n 5 refused.err | sed 's/^/    /'
    else
        pass "$what: $(head -n 1 refused.err)"
    fi
}
refuses "a program that does not exist" "$VLBR" record -o none.vlt -- ./does-not-exist
check "nothing is left of it" test ! -e none.vlt
head -c "$(($(stat -c %s qemu.vlt) / 2))" qemu.vlt >half.vlt
refuses "a truncated trace" "$VLBR" info half.vlt
: >empty.vlt
refuses "an empty trace" "$VLBR" replay empty.vlt -b
refuses "no trace at all" "$VLBR" replay small -b
refuses "a trace that is not there" "$VLBR" replay absent.vlt -b
refuses "an unknown CPU" "$VLBR" replay qemu.vlt --cpu pentium9 -b
refuses "a filter the CPU lacks" "$VLBR" replay qemu.vlt --cpu nehalem --call-graph lbr
python3 - <<'PY'
data = bytearray(open("qemu.vlt", "rb").read())
data[len(data) // 2] ^= 0x10
open("flipped.vlt", "wb").write(data)
PY
refuses "a flipped bit" "$VLBR" replay flipped.vlt -b

cat >crash.c <<'C'
int main(void) { return *(volatile int *)8; }
C
gcc -O1 -w crash.c -o crash
status=0
"$VLBR" record --engine qemu -o crash.vlt -- ./crash >crash.out 2>&1 || status=$?
check "a program that dies by a signal gives a non-zero status" test "$status" -ne 0
runs "its trace is valid" crash.info "$VLBR" info crash.vlt

cat >fork.c <<'C'
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
    if (fork() == 0) { execl("./small", "small", (char *)0); _exit(1); }
    int status;
    wait(&status);
    printf("child %d\n", WEXITSTATUS(status));
}
C
gcc -O1 fork.c -o forks
runs "a program that forks and execs" forks.out "$VLBR" record --engine qemu -o forks.vlt -- ./forks
check "its child ran" grep -qxF "child $native" forks.out
runs "vlbr info of the process tree" forks.info "$VLBR" info --format json forks.vlt

# Ctrl-C in the middle: what was recorded stays valid.
cat >endless.c <<'C'
int main(void) { for (volatile unsigned i = 0;; i++) { } }
C
gcc -O1 endless.c -o endless
setsid "$VLBR" record --engine qemu -o endless.vlt -- ./endless >endless.out 2>&1 &
recorder=$!
sleep 3
kill -INT "$recorder"
wait "$recorder" || true
runs "a trace interrupted by Ctrl-C is valid" endless.info "$VLBR" info endless.vlt

# A full disk.
if mkdir disk && mount -t tmpfs -o size=64k none disk 2>/dev/null; then
    refuses "a full disk" timeout 60 "$VLBR" record --engine qemu -o disk/full.vlt -- /bin/ls -lR /usr/share/doc
    umount disk
else
    echo "SKIP $NAME: a full disk (mounting a tmpfs is not allowed here)"
fi
