#!/usr/bin/env python3
"""Compares what `vlbr stat` counts with the count plugin's file, thread by thread or vCPU by vCPU.

Usage: compare.py COUNTS STAT INFO (STAT and INFO: JSON of `vlbr stat` and `vlbr info`)

The recorder sees blocks and has rules for what it cannot see (traces/src/assemble). Every difference
has to come from one of them, and is computed from what the plugin and the recorder counted of it:

end    The last block of a stream is taken to have run to its end, and a near branch there not to have
       been taken, as the trace does not say where it led: it counts as a conditional one.
gap    The same for the near branch at a gap, of which the notes count some: guesses of the mode of
       firmware that contradict each other. Only what it is and whether it is taken can be wrong.
open   An event whose handler never returns, nor tells what it interrupted (in a program, in system
       management mode, at the start of a processor): a block that ends in no branch or in a conditional
       one is taken to have retired, the branch as not taken; a block whose instruction faulted, all but
       its last instruction.
late   The same for a return that comes after the recorder closed the chunk; the trace's notes say what
       it would have changed, for all threads together.

Nothing may be left. In a program the recorder cannot know which of several places a return belongs to,
as it sees addresses only: no more can be wrong than the events its notes count as placed without a
return, each with one branch and the instructions of one block; there is rarely one. Far branches are
never wrong.
"""
import json
import struct
import sys

OTHER, STRING, COND, REL_JMP, IND_JMP, REL_CALL, IND_CALL, RETURN, FAR, IRET, FAULT = range(11)
LONGEST_BLOCK = 512  # instructions, of QEMU's TCG_MAX_INSNS
EVENTS = ("instructions", "branches", "conditional", "near taken", "far")
HEAD = struct.Struct("<3Q")
FIELDS = struct.Struct("<9Q 10Q 5Q 5Q")
OPEN = struct.Struct("<6Q")


def read(path):
    """The plugin's counts with what the rules `end` and `open` add, by (tid, vCPU)."""
    with open(path, "rb") as file:
        data = file.read()
    magic, size, records = HEAD.unpack_from(data)
    assert magic == 0x32746E756F632D69, "not a file of the count plugin"
    streams = {}
    for index in range(records):
        at = HEAD.size + index * size
        fields = FIELDS.unpack_from(data, at)
        _, tid, vcpu, announced, retired, repeats, restarted, faulted, untaken = fields[:9]
        kinds = fields[9:19]
        unfinished, last_kind, _, opens, lost = fields[19:24]
        told, late_retired, late_faulted, late_taken, late_untaken = fields[24:]
        assert lost == 0, "more events without a return than the plugin keeps"
        # Every announced instruction is accounted for, once.
        waiting = [OPEN.unpack_from(data, at + FIELDS.size + i * OPEN.size) for i in range(opens)]
        faults = [entry for entry in waiting if entry[3] == FAULT]
        others = [entry for entry in waiting if entry[3] != FAULT]
        accounted = retired + repeats + restarted + faulted + late_retired + late_faulted + len(others) + 1
        assert announced == accounted, f"{announced} instructions announced, {accounted} accounted for"
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
            rules["conditional"] += last_kind < FAR
            rules["far"] += last_kind >= FAR
        for entry in others:
            rules["instructions"] += entry[3] != STRING
            rules["branches"] += entry[3] == COND
            rules["conditional"] += entry[3] == COND
        rules["instructions"] += sum(entry[4] for entry in faults)
        notes = {
            "iterations of REP string instructions": repeats,
            "restarted": restarted,
            "faulted": faulted + late_faulted,
            "told by a handler's stack": told,
            "by a return": late_retired + late_faulted,
            "without a return": opens,
        }
        streams[tid, vcpu] = counts, rules, notes
    return streams


def main():
    streams = read(sys.argv[1])
    with open(sys.argv[2]) as file:
        stat = json.load(file)
    with open(sys.argv[3]) as file:
        notes = json.load(file)["notes"]
    guest = "vcpu" in stat["threads"][0]
    if guest:
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
    left = []
    print(f"{'':<16}{'event':<14}{'plugin':>14}{'rules':>8}{'vlbr stat':>14}{'left':>8}")
    for name in sorted(streams):
        counts, rules, explained = streams[name]
        differences = {}
        for event, recorded in zip(EVENTS, threads[name]):
            difference = differences[event] = counts[event] + rules[event] - recorded
            print(f"{name:<16}{event:<14}{counts[event]:>14}{rules[event]:>+8}{recorded:>14}{difference:>+8}")
        left.append(differences)
        print(f"{name:<16}" + ", ".join(f"{key} {value}" for key, value in explained.items()))
    if any(late.values()):
        print(f"late: {late}")
        left = [{event: sum(rest[event] for rest in left) - late[event] for event in EVENTS}]
    by_rule = 0 if guest else int(notes.get("events placed by rule", 0))
    bound = dict.fromkeys(EVENTS, by_rule)
    bound["instructions"] = by_rule * LONGEST_BLOCK
    bound["far"] = 0
    gaps = int(notes.get("gaps", 0))
    for rest in left:
        at_gap = min(gaps, max(0, rest["near taken"]))
        gaps -= at_gap
        rest["near taken"] -= at_gap
        rest["conditional"] += at_gap
        if at_gap:
            print(f"near branches at gaps: {at_gap}")
    if any(abs(rest[event]) > bound[event] for rest in left for event in EVENTS):
        sys.exit(f"not explained; at most {bound} would be")


main()
