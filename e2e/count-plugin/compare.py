#!/usr/bin/env python3
"""Compares what `vlbr stat` counts with the count plugin's file, thread by thread or vCPU by vCPU.

Usage: compare.py COUNTS STAT INFO (STAT and INFO: JSON of `vlbr stat` and `vlbr info`)

The recorder sees blocks and has rules for what it cannot see (traces/src/assemble). Every difference
has to come from one of them, and is computed from what the plugin and the recorder counted of it:

end    The last block of a stream is taken to have run to its end.
open   An event whose handler never returns: a block that ends in no branch or in a conditional one is
       taken to have retired, the branch as not taken; a block whose instruction faulted, all but its
       last instruction.
moved  The same for a task that returns on another vCPU.
late   The same for a return that comes after the recorder closed the chunk; the trace's notes say what
       it would have changed, for all vCPUs together.

What the recorder cannot know is which of several places a return belongs to: it sees addresses only. In
programs no more can be wrong than the events its notes count as placed without a return, each with one
branch and the instructions of one block; there is rarely one. In guests a wrong pair shows nowhere, so
that what is left is bounded only: by one in a million of each count. Far branches are never wrong.
"""
import json
import struct
import sys

OTHER, STRING, COND, REL_JMP, IND_JMP, REL_CALL, IND_CALL, RETURN, FAR, IRET, FAULT = range(11)
LONGEST_BLOCK = 512  # instructions, of QEMU's TCG_MAX_INSNS
EVENTS = ("instructions", "branches", "conditional", "near taken", "far")
HEAD = struct.Struct("<3Q")
FIELDS = struct.Struct("<9Q 10Q 5Q 4Q 2q")
OPEN = struct.Struct("<6Q")


def read(path):
    """The plugin's counts with what the rules `end` and `open` add, by (tid, vCPU)."""
    with open(path, "rb") as file:
        data = file.read()
    magic, size, records = HEAD.unpack_from(data)
    assert magic == 0x31746E756F632D69, "not a file of the count plugin"
    streams = {}
    for index in range(records):
        at = HEAD.size + index * size
        fields = FIELDS.unpack_from(data, at)
        _, tid, vcpu, announced, retired, repeats, restarted, faulted, untaken = fields[:9]
        kinds = fields[9:19]
        unfinished, last_kind, _, opens, lost = fields[19:24]
        late_retired, late_faulted, late_taken, late_untaken, moved_retired, moved_taken = fields[24:]
        assert lost == 0, "more events without a return than the plugin keeps"
        # Every announced instruction is accounted for, once.
        waiting = [OPEN.unpack_from(data, at + FIELDS.size + i * OPEN.size) for i in range(opens)]
        faults = [entry for entry in waiting if entry[3] == FAULT]
        others = [entry for entry in waiting if entry[3] != FAULT]
        told = retired + repeats + restarted + faulted + late_retired + late_faulted + len(others) + 1
        assert announced == told, f"{announced} instructions announced, {told} accounted for"
        conditional = kinds[COND] + untaken + late_taken + late_untaken
        counts = {
            "instructions": retired + late_retired,
            "branches": sum(kinds[REL_JMP:]) + conditional,
            "conditional": conditional,
            "near taken": sum(kinds[COND:FAR]) + late_taken,
            "far": kinds[FAR] + kinds[IRET],
        }
        rules = dict.fromkeys(EVENTS, 0)
        rules["instructions"] += 1 + unfinished
        if last_kind >= COND:
            assert unfinished == 0, "the stream ended inside a block"
            rules["branches"] += 1
            rules["conditional"] += last_kind == COND
            rules["far"] += last_kind >= FAR
        for entry in others:
            rules["instructions"] += entry[3] != STRING
            rules["branches"] += entry[3] == COND
            rules["conditional"] += entry[3] == COND
        rules["instructions"] += sum(entry[4] for entry in faults)
        rules["instructions"] -= moved_retired
        rules["near taken"] -= moved_taken
        notes = {
            "iterations of REP string instructions": repeats,
            "restarted": restarted,
            "faulted": faulted + late_faulted,
            "waited for a return": late_retired + late_faulted,
            "without a return": opens,
            "returned on another vCPU": f"{-moved_retired}/{-moved_taken}",
        }
        streams[tid, vcpu] = counts, rules, notes
    return streams


def main():
    streams = read(sys.argv[1])
    with open(sys.argv[2]) as file:
        stat = json.load(file)
    with open(sys.argv[3]) as file:
        notes = json.load(file)["notes"]
    if "vcpu" in stat["threads"][0]:
        streams = {f"vCPU {vcpu}": value for (_, vcpu), value in streams.items()}
        threads = {f"vCPU {thread['vcpu']}": thread["counts"] for thread in stat["threads"]}
    else:
        streams = {f"thread {tid}": value for (tid, _), value in streams.items()}
        threads = {f"thread {thread['tid']}": thread["counts"] for thread in stat["threads"]}
    assert streams.keys() == threads.keys(), f"{sorted(streams)} counted, {sorted(threads)} recorded"
    late = {
        "instructions": int(notes.get("late instructions", 0)),
        "branches": int(notes.get("late branches", 0)),
        "conditional": 0,  # the notes do not tell
        "near taken": int(notes.get("late taken branches", 0)),
        "far": 0,
    }
    left = dict.fromkeys(EVENTS, 0)
    print(f"{'':<16}{'event':<14}{'plugin':>14}{'rules':>8}{'vlbr stat':>14}{'left':>8}")
    for name in sorted(streams):
        counts, rules, explained = streams[name]
        for event, recorded in zip(EVENTS, threads[name]):
            difference = counts[event] + rules[event] - recorded
            left[event] += difference
            print(f"{name:<16}{event:<14}{counts[event]:>14}{rules[event]:>+8}{recorded:>14}{difference:>+8}")
        print(f"{name:<16}" + ", ".join(f"{key} {value}" for key, value in explained.items()))
    rest = {event: left[event] - late[event] for event in EVENTS}
    by_rule = int(notes.get("events placed by rule", 0))
    print(f"late: {late}")
    print(f"left: {rest}, {by_rule} events placed by rule")
    # A guest on a loaded machine has had 340 instructions and 21 branches left of 1.43 G and 157 M; before
    # interrupts of one-block loops were told from faults it was 20,000 and 600.
    total = dict.fromkeys(EVENTS, 0)
    for counts, _, _ in streams.values():
        for event in EVENTS:
            total[event] += counts[event]
    if "vcpu" in stat["threads"][0]:
        bound = {event: total[event] // 1_000_000 for event in EVENTS}
    else:
        bound = dict.fromkeys(EVENTS, by_rule)
        bound["instructions"] = by_rule * LONGEST_BLOCK
    bound["far"] = 0
    print(f"at most: {bound}")
    if any(abs(rest[event]) > bound[event] for event in EVENTS):
        sys.exit("not explained")


main()
