//! Rules 1 to 6.

use super::*;

#[test]
fn rule_1_neighbours_are_no_branch_unless_the_last_instruction_is_unconditional() {
    let mut s = Stream::user();
    s.run(0x1000, NOP2);
    s.run(0x1002, &[0x74, 0x10]); // not taken
    s.run(0x1004, &[0xeb, 0x00]); // jmp +0
    s.run(0x1006, &[0xe8, 0, 0, 0, 0]); // call +0
    s.run(0x100b, &[0x74, 0x10]); // taken
    s.run(0x101d, NOP2);
    assert_eq!(
        s.finish(),
        [
            On(0x1000, 2),
            On(0x1002, 1),
            To(0x1004, 1, BranchClass::NearRelJmp, 0x1006),
            To(0x1006, 1, BranchClass::NearRelCallZero, 0x100b),
            To(0x100b, 1, BranchClass::Jcc, 0x101d),
            Gap(0x101d, 2),
        ]
    );
    assert_eq!(s.assembler.stats().problems(), 0);
}

#[test]
fn rule_2_repeats_of_a_string_instruction_are_nothing() {
    let mut s = Stream::user();
    for _ in 0..3 {
        s.run(0x1000, REP);
        for _ in 0..5 {
            s.run(0x1001, &REP[1..]);
        }
        s.run(0x1003, &[0xeb, 0xfb]);
    }
    let steps = s.finish();
    assert_eq!(steps[0], On(0x1000, 2));
    assert_eq!(steps[1], To(0x1003, 1, BranchClass::NearRelJmp, 0x1000));
    assert_eq!(steps.len(), 6);
    assert_eq!(s.assembler.stats().rep_repeats, 15);
}

#[test]
fn rule_2_a_string_instruction_interrupted_in_the_middle_has_not_retired() {
    let mut s = Stream::system();
    s.run(KERNEL, REP);
    s.run(KERNEL + 1, &REP[1..]);
    s.run(HANDLER, IRETQ);
    s.run(KERNEL + 1, &REP[1..]);
    s.run(KERNEL + 1, &REP[1..]);
    s.run(KERNEL + 3, NOP2);
    assert_eq!(
        s.finish(),
        [
            To(KERNEL, 1, far(FarKind::Interrupt), HANDLER),
            To(HANDLER, 2, far(FarKind::Iret), KERNEL + 1),
            On(KERNEL + 1, 1),
            Gap(KERNEL + 3, 2),
        ]
    );
    let stats = s.assembler.stats();
    assert_eq!(
        (stats.paired, stats.rep_repeats, stats.problems()),
        (1, 2, 0)
    );
}

#[test]
fn rule_3_a_return_into_the_block_makes_an_exception_and_cuts_the_step() {
    let mut s = Stream::system();
    s.run(KERNEL, &[0x90, 0x8b, 0x00, 0x90, 0x90]); // the load faults
    s.run(HANDLER, IRETQ);
    s.run(KERNEL + 1, &[0x8b, 0x00, 0x90, 0x90]);
    assert_eq!(
        s.finish(),
        [
            To(KERNEL, 1, far(FarKind::Exception), HANDLER),
            To(HANDLER, 2, far(FarKind::Iret), KERNEL + 1),
            Gap(KERNEL + 1, 3),
        ]
    );
}

#[test]
fn rule_3_a_return_behind_the_block_makes_an_interrupt_unless_the_handler_serves_exceptions() {
    let mut s = Stream::system();
    s.run(KERNEL, NOP2);
    s.run(HANDLER, IRETQ);
    s.run(KERNEL + 2, NOP2);
    // The handler turns out to serve exceptions.
    s.run(HANDLER, IRETQ);
    s.run(KERNEL + 2, NOP2);
    // So the fetch of the next block has faulted.
    s.run(HANDLER, IRETQ);
    s.run(KERNEL + 4, NOP2);
    assert_eq!(
        s.finish(),
        [
            To(KERNEL, 2, far(FarKind::Interrupt), HANDLER),
            To(HANDLER, 2, far(FarKind::Iret), KERNEL + 2),
            To(KERNEL + 2, 0, far(FarKind::Exception), HANDLER),
            To(HANDLER, 2, far(FarKind::Iret), KERNEL + 2),
            To(KERNEL + 2, 2, far(FarKind::Exception), HANDLER),
            To(HANDLER, 2, far(FarKind::Iret), KERNEL + 4),
            Gap(KERNEL + 4, 2),
        ]
    );
}

#[test]
fn rule_3_nested_events_and_a_switch_of_tasks_pair_by_address() {
    let mut s = Stream::system();
    s.run(KERNEL, NOP2); // task A
    s.run(HANDLER, NOP2);
    s.run(OTHER_HANDLER, IRETQ); // interrupts the handler
    s.run(HANDLER + 2, JMP_AHEAD);
    s.run(HANDLER + 0x12, NOP2); // task B runs, is interrupted, and A goes on
    s.run(OTHER_HANDLER, IRETQ);
    s.run(KERNEL + 2, NOP2);
    s.run(OTHER_HANDLER, IRETQ);
    s.run(HANDLER + 0x14, NOP2);
    let stats = s.assembler.stats();
    assert_eq!(
        (stats.events, stats.paired, stats.unpaired_returns),
        (4, 3, 0)
    );
    s.finish();
    // The interrupt that A was in when B returned.
    assert_eq!(s.assembler.stats().unpaired_events, 1);
}

#[test]
fn rule_4_a_direct_branch_keeps_its_target_and_the_event_strikes_there() {
    let mut s = Stream::system();
    s.run(KERNEL, JMP_AHEAD);
    s.run(HANDLER, IRETQ);
    s.run(KERNEL + 0x10, NOP2);
    let steps = s.finish();
    assert_eq!(
        steps[..2],
        [
            To(KERNEL, 1, BranchClass::NearRelJmp, KERNEL + 0x10),
            To(KERNEL + 0x10, 0, far(FarKind::Interrupt), HANDLER),
        ]
    );
}

#[test]
fn rule_4_the_return_shows_the_direction_of_a_conditional_branch() {
    for (resume, taken) in [(KERNEL + 2, false), (KERNEL + 0x12, true)] {
        let mut s = Stream::system();
        s.run(KERNEL, &[0x75, 0x10]);
        s.run(HANDLER, IRETQ);
        s.run(resume, NOP2);
        let steps = s.finish();
        if taken {
            assert_eq!(
                steps[..2],
                [
                    To(KERNEL, 1, BranchClass::Jcc, resume),
                    To(resume, 0, far(FarKind::Interrupt), HANDLER),
                ]
            );
        } else {
            assert_eq!(steps[0], To(KERNEL, 1, far(FarKind::Interrupt), HANDLER));
        }
        assert_eq!(s.assembler.stats().problems(), 0);
    }
}

#[test]
fn rule_4_an_interrupt_of_a_loop_of_one_block_comes_behind_the_branch_back() {
    /// `mov (%rax), %eax; jne -4`.
    const LOOP: &[u8] = &[0x8b, 0x00, 0x75, 0xfc];
    let mut s = Stream::system();
    s.run(KERNEL, LOOP);
    s.run(HANDLER, IRETQ);
    s.run(KERNEL, LOOP);
    // A handler that has served an exception serves one more.
    s.run(OTHER_HANDLER, IRETQ);
    s.run(KERNEL + 2, &LOOP[2..]);
    s.run(KERNEL, LOOP);
    s.run(OTHER_HANDLER, IRETQ);
    s.run(KERNEL, LOOP);
    s.run(KERNEL + 4, NOP2);
    assert_eq!(
        s.finish(),
        [
            To(KERNEL, 2, BranchClass::Jcc, KERNEL),
            To(KERNEL, 0, far(FarKind::Interrupt), HANDLER),
            To(HANDLER, 2, far(FarKind::Iret), KERNEL),
            To(KERNEL, 1, far(FarKind::Exception), OTHER_HANDLER),
            To(OTHER_HANDLER, 2, far(FarKind::Iret), KERNEL + 2),
            To(KERNEL + 2, 1, BranchClass::Jcc, KERNEL),
            To(KERNEL, 0, far(FarKind::Exception), OTHER_HANDLER),
            To(OTHER_HANDLER, 2, far(FarKind::Iret), KERNEL),
            On(KERNEL, 2),
            Gap(KERNEL + 4, 2),
        ]
    );
    assert_eq!(s.assembler.stats().problems(), 0);
}

#[test]
fn rule_4_an_indirect_branch_to_a_known_handler_gets_its_target_from_the_return() {
    let mut s = Stream::system();
    s.run(KERNEL, NOP2);
    s.run(HANDLER, IRETQ);
    s.run(KERNEL + 2, RET);
    s.run(HANDLER, IRETQ);
    s.run(KERNEL + 0x100, NOP2);
    let steps = s.finish();
    assert_eq!(
        steps[2..],
        [
            To(KERNEL + 2, 2, BranchClass::NearRet, KERNEL + 0x100),
            To(KERNEL + 0x100, 0, far(FarKind::Interrupt), HANDLER),
            To(HANDLER, 2, far(FarKind::Iret), KERNEL + 0x100),
            Gap(KERNEL + 0x100, 2),
        ]
    );
}

#[test]
fn rule_4_an_indirect_branch_cannot_change_the_privilege() {
    let mut s = Stream::system();
    s.run(KERNEL, IRETQ);
    s.run(0x40_0000, RET);
    s.run(HANDLER, IRETQ); // never seen before
    s.run(0x40_0100, NOP2);
    let steps = s.finish();
    assert_eq!(
        steps[1..3],
        [
            To(0x40_0000, 2, BranchClass::NearRet, 0x40_0100),
            To(0x40_0100, 0, far(FarKind::Interrupt), HANDLER),
        ]
    );
}

#[test]
fn rule_4_an_interrupt_right_behind_an_iret_shows_both_targets() {
    let mut s = Stream::system();
    s.run(KERNEL, NOP2);
    s.run(HANDLER, IRETQ);
    s.run(KERNEL + 2, RET);
    s.run(HANDLER, IRETQ);
    s.run(HANDLER, IRETQ);
    s.run(KERNEL + 0x100, NOP2);
    let steps = s.finish();
    assert_eq!(
        steps[2..],
        [
            To(KERNEL + 2, 2, BranchClass::NearRet, KERNEL + 0x100),
            To(KERNEL + 0x100, 0, far(FarKind::Interrupt), HANDLER),
            To(HANDLER, 2, far(FarKind::Iret), KERNEL + 0x100),
            To(KERNEL + 0x100, 0, far(FarKind::Interrupt), HANDLER),
            To(HANDLER, 2, far(FarKind::Iret), KERNEL + 0x100),
            Gap(KERNEL + 0x100, 2),
        ]
    );
    assert_eq!(s.assembler.stats().problems(), 0);
}

#[test]
fn rule_4_a_return_into_an_interrupt_is_placed_though_the_first_event_is_proven_first() {
    let mut s = Stream::system();
    s.run(KERNEL, NOP2);
    s.run(HANDLER, IRETQ);
    s.run(HANDLER, IRETQ); // interrupts the return at its target
    s.run(KERNEL + 2, NOP2);
    assert_eq!(
        s.finish(),
        [
            To(KERNEL, 2, far(FarKind::Interrupt), HANDLER),
            To(HANDLER, 2, far(FarKind::Iret), KERNEL + 2),
            To(KERNEL + 2, 0, far(FarKind::Interrupt), HANDLER),
            To(HANDLER, 2, far(FarKind::Iret), KERNEL + 2),
            Gap(KERNEL + 2, 2),
        ]
    );
    assert_eq!(s.assembler.stats().problems(), 0);
}

#[test]
fn rule_4_without_a_return_in_the_chunk_the_fallback_stays() {
    let mut s = Stream::system();
    s.run(KERNEL, NOP2);
    s.run(HANDLER, NOP2);
    s.run(OTHER_HANDLER, NOP2);
    s.run(HANDLER, NOP2);
    s.run(HANDLER + 2, &[0x75, 0x10]);
    s.run(HANDLER, NOP2);
    s.run(HANDLER + 2, RET);
    s.run(OTHER_HANDLER, NOP2);
    assert_eq!(
        s.steps(),
        [
            To(KERNEL, 2, far(FarKind::Interrupt), HANDLER),
            To(HANDLER, 2, far(FarKind::Interrupt), OTHER_HANDLER),
            To(OTHER_HANDLER, 2, far(FarKind::Interrupt), HANDLER),
            On(HANDLER, 2),
            To(HANDLER + 2, 1, far(FarKind::Interrupt), HANDLER),
            On(HANDLER, 2),
            To(HANDLER + 2, 1, far(FarKind::Interrupt), OTHER_HANDLER),
        ]
    );
    assert_eq!(s.assembler.stats().unpaired_events, 5);
    // A late return finds its event, which it can no longer change.
    s.run(OTHER_HANDLER + 2, &IRETQ[1..]);
    s.run(KERNEL + 2, NOP2);
    assert_eq!(s.assembler.stats().unpaired_returns, 0);
}

#[test]
fn rule_4_what_a_return_shows_too_late_is_summed_up() {
    let mut s = Stream::system();
    // A conditional branch that was taken, a load that faulted, a return from a call.
    s.run(KERNEL, &[0x75, 0x10]);
    s.run(HANDLER, NOP2);
    s.steps();
    s.run(HANDLER + 2, &IRETQ[1..]);
    s.run(KERNEL + 0x12, &[0x90, 0x8b, 0x00, 0x90]);
    let taken = Late {
        instructions: 0,
        branches: 0,
        taken: 1,
    };
    assert_eq!(s.assembler.stats().late, taken);
    s.run(OTHER_HANDLER, NOP2);
    s.steps();
    s.run(OTHER_HANDLER + 2, &IRETQ[1..]);
    s.run(KERNEL + 0x13, &[0x8b, 0x00, 0xc3]);
    let faulted = Late {
        instructions: -2,
        ..taken
    };
    assert_eq!(s.assembler.stats().late, faulted);
    s.run(OTHER_HANDLER, NOP2);
    s.steps();
    s.run(OTHER_HANDLER + 2, &IRETQ[1..]);
    s.run(KERNEL + 0x40, NOP2);
    let returned = Late {
        instructions: -1,
        branches: 1,
        taken: 2,
    };
    assert_eq!(s.assembler.stats().late, returned);
}

#[test]
fn rule_5_a_block_cut_short_retires_what_lies_before_the_next_one() {
    let mut s = Stream::user();
    for _ in 0..2 {
        s.run(0x1000, &[0x90, 0x90, 0xeb, 0xfc]);
        s.run(0x1001, &[0x90, 0xeb, 0xfc]);
        s.run(0x1001, &[0x90, 0xeb, 0xfc]); // started again
    }
    assert_eq!(
        s.finish()[..2],
        [
            On(0x1000, 1),
            To(0x1001, 2, BranchClass::NearRelJmp, 0x1000)
        ]
    );
    let stats = s.assembler.stats();
    assert_eq!((stats.cut_blocks, stats.restarted), (2, 2));
}

#[test]
fn rule_5_an_instruction_across_a_page_end_belongs_to_the_next_block() {
    let mut s = Stream::user();
    // Two bytes of `mov %rsp, %rbp` are on the first page.
    s.run_raw(0x1ffd, &[0x90, 0x48, 0x89], &[1, 2], None);
    s.run(0x1ffe, &[0x48, 0x89, 0xe5, 0xc3]);
    assert_eq!(s.finish(), [On(0x1ffd, 1), Gap(0x1ffe, 2)]);
    // The immediate of `movl $0, 0x10(%rsp)` crosses: the fields before it end short of the page.
    let store = [0xc7, 0x44, 0x24, 0x10, 0, 0, 0, 0];
    s.run_raw(0x2ff8, &[0x90, 0xc7, 0x44, 0x24, 0x10], &[1, 4], None);
    s.run(0x2ff9, &store);
    assert_eq!(s.finish(), [On(0x2ff8, 1), Gap(0x2ff9, 1)]);
    assert_eq!(s.assembler.stats().problems(), 0);
}

#[test]
fn rule_6_far_transfers_of_a_guest_are_branches() {
    let mut s = Stream::system();
    s.run(KERNEL, IRETQ);
    s.run(0x40_0000, SYSCALL);
    s.run(KERNEL + 0x40, &[0x48, 0x0f, 0x07]);
    s.run(0x40_0003, &[0xcc]);
    s.run(KERNEL + 0x80, IRETQ);
    s.run(0x40_0004, NOP2);
    let transfers = s.transfers();
    let seen: Vec<_> = transfers
        .iter()
        .map(|t| (t.class, t.cpl_before, t.cpl_after))
        .collect();
    assert_eq!(
        seen,
        [
            (far(FarKind::Iret), Cpl::Ring0, Cpl::Ring3),
            (far(FarKind::Syscall), Cpl::Ring3, Cpl::Ring0),
            (far(FarKind::Sysret), Cpl::Ring0, Cpl::Ring3),
            (far(FarKind::SoftwareInterrupt), Cpl::Ring3, Cpl::Ring0),
            (far(FarKind::Iret), Cpl::Ring0, Cpl::Ring3),
        ]
    );
}
