#!/usr/bin/env python3
"""Reads what `vlbr scenario export` wrote, checks its structure and computes every hash again.

    check.py FILE

An emulator's own runner begins like this: read(), then for each case set up the machine, do the steps,
and compare the final registers. docs/scenario-export.md describes every key. No package is needed.
"""

import hashlib
import json
import sys

ALL = (1 << 64) - 1

# What each step has beside "line", "cpu" and "do"; a name in brackets may be absent.
STEPS = {
    "wrmsr": "msr name value expect",
    "rdmsr": "msr name expect",
    "some-differ": "reads",
    "all-zero": "msrs",
    "none-zero": "msrs",
    "branch": "class from to cs_base code_size cpl mispredicted in_tx abort fused cycles [effect]",
    "unrecorded": "what",
    "wait": "cycles",
    "pmi": "source",
    "deep-c-state": "",
    "reset": "kind",
    "segment-test-fails": "",
    "log-event": "counter",
    "xsaves": "image expect",
    "xrstors": "image expect",
    "xrstors-init": "expect",
    "image-write": "image offset value",
    "image-read": "image offset expect",
    "cpuid": "leaf subleaf register expect",
    "event-count": "event value",
    "memory-write": "address bytes",
    "memory-fill": "address length byte",
    "memory-read": "address size expect",
    "vmxon": "address",
    "vmclear": "address",
    "vmptrld": "address",
    "vmwrite": "field name value expect",
    "vmread": "field name expect",
    "vm-entry": "instruction vmcs expect",
    "vm-exit": "reason instruction_length expect",
    "guest-rdmsr": "cpl msr name expect",
    "guest-wrmsr": "cpl msr name value expect",
    "guest-wrmsrns": "cpl msr name value expect",
    "guest-rdpmc": "ecx cpl pce expect",
    "guest-event": "event [vector] [error_code] expect",
    "guest-xsaves": "expect",
    "guest-xrstors": "expect",
    "run": "amounts cpl in_tx",
    "rdpmc": "ecx cpl pce expect",
    "lvtpc-write": "value",
    "lvtpc-read": "expect",
    "deliver": "interrupt [vector]",
    "linear-write": "address bytes",
    "linear-read": "address size expect",
    "state": "field value",
    "preemption-timer": "exits",
}

OUTCOMES = {
    "ok": "",
    "value": "value mask [differs]",
    "gp": "[reason]",
    "ud": "",
    "vmfail": "number",
    "vmfail-invalid": "",
    "exit": "reason [qualification]",
    "abort": "indicator",
}

CASE = "id area title description rules source machine assumes steps final hash"
MACHINE = (
    "id name title models linear_address_bits lbr_depth lbr_format perf_capabilities layout cpuid "
    "options pmu_options quirks initial"
)


class Wrong(Exception):
    """What is wrong with the file."""


def keys(value, words, where):
    """Checks that `value` has these keys and no other."""
    words = words.split()
    optional = {word.strip("[]") for word in words if word.startswith("[")}
    required = {word for word in words if not word.startswith("[")}
    found = set(value)
    if not required <= found or not found <= required | optional:
        raise Wrong(f"{where}: keys {sorted(found)}, not {' '.join(words)}")


def number(text, where):
    """A 64-bit number, `0x1d9`."""
    if not isinstance(text, str) or not text.startswith("0x") or text != hex(int(text, 16)):
        raise Wrong(f"{where}: {text!r} is no number")
    value = int(text, 16)
    if value > ALL:
        raise Wrong(f"{where}: {text} has more than 64 bits")
    return value


def step(value, where):
    """Checks a step."""
    rest = {k: v for k, v in value.items() if k not in ("line", "cpu", "do")}
    if value.get("do") not in STEPS:
        raise Wrong(f"{where}: no step is named {value.get('do')!r}")
    keys(rest, STEPS[value["do"]], where)
    if value["cpu"] not in (0, 1):
        raise Wrong(f"{where}: cpu {value['cpu']}")
    expect = rest.get("expect")
    if expect is not None:
        if expect.get("is") not in OUTCOMES:
            raise Wrong(f"{where}: no outcome is named {expect.get('is')!r}")
        keys({k: v for k, v in expect.items() if k != "is"}, OUTCOMES[expect["is"]], where)
        for key in ("value", "mask"):
            if key in expect:
                number(expect[key], where)


def undefined(final, where):
    """The undefined bits of each register."""
    masks = {}
    for run in final["undefined"]:
        keys(run, "first last mask reason", where)
        for msr in range(number(run["first"], where), number(run["last"], where) + 1):
            masks[msr] = masks.get(msr, 0) | number(run["mask"], where)
    return masks


def digest(case):
    """The hash of a case's final registers."""
    text = ""
    for final in case["final"]:
        masks = undefined(final, case["id"])
        for msr, value in final["msrs"]:
            msr = number(msr, case["id"])
            mask = ALL & ~masks.get(msr, 0)
            if value is None:
                value = "gp" if mask else "0x0"
            else:
                value = hex(number(value, case["id"]) & mask)
            text += f"{final['cpu']} {hex(msr)} {value} {hex(mask)}\n"
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def read(path):
    """The machines by name, and the cases."""
    machines, cases = {}, []
    with open(path, encoding="utf-8") as file:
        for n, line in enumerate(file, 1):
            value = json.loads(line)
            kind = value.pop("kind")
            if n == 1:
                if (kind, value["format"]) != ("header", "vlbr-scenario-export"):
                    raise Wrong("no vlbr-scenario-export")
                if value["hash"] != "sha256":
                    raise Wrong(f"hash {value['hash']}: this computes sha256")
                if value["version"] != 1:
                    raise Wrong(f"version {value['version']}: this reads version 1")
            elif kind == "machine":
                keys(value, MACHINE + " [vmx]", f"line {n}")
                for register in value["initial"]:
                    keys(register, "msr name value [known]", f"line {n}")
                machines[value["id"]] = value
            elif kind == "case":
                keys(value, CASE, f"line {n}")
                cases.append(value)
            else:
                raise Wrong(f"line {n}: {kind!r}")
    return machines, cases


def check(machines, case):
    """Checks a case."""
    if case["machine"] not in machines:
        raise Wrong(f"{case['id']}: no machine {case['machine']!r} before it")
    for n, value in enumerate(case["steps"]):
        step(value, f"{case['id']} step {n}")
    known = [register["msr"] for register in machines[case["machine"]]["initial"]]
    for final in case["final"]:
        if [msr for msr, _ in final["msrs"]] != known:
            raise Wrong(f"{case['id']}: other registers than its machine")
    if digest(case) != case["hash"]:
        raise Wrong(f"{case['id']}: the hash is {digest(case)}")


def main():
    machines, cases = read(sys.argv[1])
    for case in cases:
        check(machines, case)
    steps = sum(len(case["steps"]) for case in cases)
    print(f"{len(machines)} machines, {len(cases)} cases, {steps} steps, every hash as told")


if __name__ == "__main__":
    try:
        main()
    except (Wrong, KeyError, ValueError, IndexError, OSError) as error:
        sys.exit(f"check.py: {error!r}")
