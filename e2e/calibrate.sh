#!/usr/bin/env bash
# The programs that time a processor build; the image boots, times what the emulator shows and says that
# it is one; nothing of that may be called measured.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need gcc make objcopy python3 qemu-system-x86_64
# The running kernel's headers or any: the module is built, not loaded.
headers=
for folder in "/lib/modules/$(uname -r)/build" /usr/src/linux-headers-*-amd64; do
    if [[ -e $folder/Makefile ]]; then
        headers=$folder
        break
    fi
done
[[ -n $headers || ${CI:-} != true ]] || need /usr/src/linux-headers-amd64
# Builds leave files beside their sources.
cp -r "$ROOT/calibrate" "$WORK/calibrate"
cd "$WORK"

if [[ -n $headers ]]; then
    runs "the kernel module builds" module.out make -C calibrate/module KDIR="$headers" W=1
    check "without a warning" bash -c '! grep -iE "warning|error" module.out module.out.err'
    check "under GPL-2.0" grep -aq 'license=GPL' calibrate/module/vlbr_calibrate.ko
else
    echo "SKIP $NAME: the kernel module (no kernel headers; .ci/run installs them)"
fi

runs "the image builds" image.out make -C calibrate/image OUT="$WORK"
boot() { # CPU OUTPUT: QEMU ends with 33 when the image has come to its end
    local status=0
    timeout 60 qemu-system-x86_64 -accel tcg -cpu "$1" -kernel vlbr-calibrate.elf \
        -display none -monitor none -no-reboot -serial "file:$2" \
        -device isa-debug-exit,iobase=0xf4,iosize=4 2>"$2.err" </dev/null || status=$?
    check "the image runs to its end on $1" test "$status" -eq 33
}
boot qemu64 generic.txt
boot Skylake-Client skylake.txt
contains "it times RDMSR and WRMSR of branch records" skylake.txt '^row (rdmsr|wrmsr) msr=0x6[8c9d][0-9a-f] ' 128
contains "it says that it ran under an emulator" skylake.txt '^hypervisor named TCGTCGTCGTCG'
contains "it says what it cannot time" generic.txt '^skip vmx because the processor has no VMX'

refuses() { # WHAT REGEX COMMAND...
    local what=$1 regex=$2 status=0
    shift 2
    "$@" >refused.out 2>refused.err || status=$?
    check "$what: $(head -n 1 refused.err)" test "$status" -eq 1
    contains "for that reason" refused.err "$regex"
    check "and leaves no output" test ! -s refused.out -a ! -e refused.toml
}
refuses "an emulator's readings are no measurement" 'measured under TCGTCGTCGTCG, not on hardware' \
    "$VLBR" calibrate skylake.txt -o refused.toml
# Emulators differ in what CPUID takes; this one takes a tick.
sed -E 's/^hypervisor .*/hypervisor none\r/
    s/^(row cpuid .*) overhead=.* q3=/\1 overhead=0 min=8 q1=8 median=8 q3=/' skylake.txt >hidden.txt
refuses "nor are those of one that hides" 'CPUID leaf 0 takes 1 cycles' \
    "$VLBR" calibrate hidden.txt -o refused.toml
refuses "two processors make no model" 'a model is that of one processor' \
    "$VLBR" calibrate --allow-virtual skylake.txt generic.txt -o refused.toml
head -n 40 skylake.txt >half.txt
refuses "half a run makes none" 'has no end line' "$VLBR" calibrate --allow-virtual half.txt -o refused.toml

runs "--allow-virtual makes estimates of them" figures.json \
    "$VLBR" calibrate --allow-virtual skylake.txt -o virtual.toml --format json
check "all of class E, with the emulator's name" python3 - figures.json <<'PY'
import json, sys
report = json.load(open(sys.argv[1]))
timed = [row for row in report["figures"] if row["rows"]]
assert report["model"].startswith("virtual-"), report["model"]
assert {row["cost"] for row in timed} >= {"rdmsr_lbr", "wrmsr_lbr", "rdmsr_debugctl", "rdmsr_generic"}
for row in timed:
    assert row["class"] == "E" and "TCGTCGTCGTCG, not on hardware" in row["source"], row
PY
runs "the model is a base for the next" again.toml "$VLBR" calibrate --allow-virtual skylake.txt --base virtual.toml
check "which changes nothing" diff <(grep -v '^#' virtual.toml) <(grep -v '^#' again.toml)
