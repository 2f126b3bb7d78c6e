#!/usr/bin/env bash
# The image times VM transitions in Bochs, which has VMX and calls itself no hypervisor: every row is
# there, and the time of CPUID keeps its figures from being called measured.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need gcc make objcopy python3 bochs grub-mkrescue xorriso mformat
for file in /usr/lib/grub/i386-pc/boot.img /usr/share/bochs/BIOS-bochs-latest /usr/share/vgabios/vgabios.bin; do
    [[ -e $file ]] || need "$file"
done
cp -r "$ROOT/calibrate" "$WORK/calibrate"
cd "$WORK"

runs "the image builds" image.out make -C calibrate/image OUT="$WORK"
mkdir -p disc/boot/grub
cp vlbr-calibrate.elf disc/boot
printf 'set timeout=0\nmenuentry vlbr { multiboot /boot/vlbr-calibrate.elf }\n' >disc/boot/grub/grub.cfg
runs "GRUB takes it" disc.out grub-mkrescue -o disc.iso disc
# Debian's Bochs starts in its debugger.
echo c >debugger
emulate() { # MODEL OUTPUT: the image ends in HLT, Bochs does not end
    local bochs
    cat >bochsrc <<EOF
display_library: term
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios.bin
cpu: model=$1, ips=2000000, reset_on_triple_fault=0, ignore_bad_msrs=0
memory: guest=64, host=64
ata0-master: type=cdrom, path=disc.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$2
log: bochs.log
EOF
    # Bochs passes over SIGTERM.
    TERM=vt100 timeout -k 1 240 bochs -q -f bochsrc -rc debugger >bochs.out 2>&1 </dev/null &
    bochs=$!
    for ((second = 0; second < 235; second++)); do
        if grep -qE '^(end|exception) ' "$2" 2>/dev/null || ! kill -0 "$bochs" 2>/dev/null; then break; fi
        sleep 1
    done
    kill "$bochs" 2>/dev/null || true
    { wait "$bochs" || true; } 2>/dev/null
    contains "the image runs to its end on $1" "$2" '^end lines='
}
# Without and with the exact capability registers of VMX.
for model in core2_penryn_t9600 corei7_haswell_4770; do
    emulate "$model" "$model.txt"
    contains "VMREAD, VMWRITE and faults on $model" "$model.txt" '^row (vmread|vmwrite|fault) ' 3
    contains "three exit reasons on $model" "$model.txt" '^row round_trip reason=(10|18|31) ' 3
    contains "five counts of three areas on $model" "$model.txt" '^row area list=.* entries=' 15
    contains "fields on $model" "$model.txt" '^row fields loads=' 2
    status=0
    "$VLBR" calibrate "$model.txt" -o "$model.toml" 2>refused.err || status=$?
    check "no figure of it is measured: $(cat refused.err)" test "$status" -eq 1 -a ! -e "$model.toml"
    contains "for the time of CPUID" refused.err 'a hypervisor or emulator that hides'
    runs "--allow-virtual makes estimates of it" "$model.json" \
        "$VLBR" calibrate --allow-virtual "$model.txt" -o "$model.toml" --format json
    check "of every cost of VM transitions, and class E" python3 - "$model.json" <<'PY'
import json, sys
timed = {row["cost"]: row["class"] for row in json.load(open(sys.argv[1]))["figures"] if row["rows"]}
transitions = ["msr_list_load", "msr_list_store", "msr_list_fixed", "vmcs_field", "vmread_vmwrite",
               "vmexit_plus_entry", "fault"]
assert all(timed.get(cost) == "E" for cost in transitions), timed
assert set(timed.values()) == {"E"}, timed
PY
done
