//! Programs whose kernel is not recorded.

use super::*;

#[test]
fn user_system_calls_go_through_the_unrecorded_kernel() {
    let mut s = Stream::user();
    s.run(0x1000, SYSCALL);
    s.run(0x1003, &[0xcd, 0x80]);
    s.run(0x1005, SYSCALL);
    assert_eq!(
        s.finish(),
        [
            To(0x1000, 2, far(FarKind::Syscall), UNRECORDED_KERNEL),
            To(UNRECORDED_KERNEL, 0, far(FarKind::Sysret), 0x1003),
            To(
                0x1003,
                1,
                far(FarKind::SoftwareInterrupt),
                UNRECORDED_KERNEL
            ),
            To(UNRECORDED_KERNEL, 0, far(FarKind::Iret), 0x1005),
            To(0x1005, 2, far(FarKind::Syscall), UNRECORDED_KERNEL),
        ]
    );
    assert_eq!(s.assembler.stats().kernel_entries, 3);
}

#[test]
fn user_a_signal_between_blocks_is_placed_by_its_return() {
    let mut s = Stream::user();
    s.run(0x1000, &[0x75, 0x10]);
    s.run(0x9000, RET); // the handler
    s.run(0x9100, SIGRETURN);
    s.run(0x1012, NOP2);
    assert_eq!(
        s.finish(),
        [
            To(0x1000, 1, BranchClass::Jcc, 0x1012),
            To(0x1012, 0, far(FarKind::Interrupt), UNRECORDED_KERNEL),
            To(UNRECORDED_KERNEL, 0, far(FarKind::Iret), 0x9000),
            To(0x9000, 2, BranchClass::NearRet, 0x9100),
            To(0x9100, 2, far(FarKind::Syscall), UNRECORDED_KERNEL),
            To(UNRECORDED_KERNEL, 0, far(FarKind::Iret), 0x1012),
            Gap(0x1012, 2),
        ]
    );
    assert_eq!(s.assembler.stats().problems(), 0);
}

#[test]
fn user_a_known_signal_handler_can_also_be_called() {
    let mut s = Stream::user();
    s.run(0x1000, SYSCALL);
    s.run(0x9000, RET); // delivered on the way back
    s.run(0x9100, SIGRETURN);
    s.run(0x1003, &[0xff, 0xd0]); // call *%rax
    s.run(0x9000, RET);
    s.run(0x1005, RET); // a signal strikes at its target
    s.run(0x9000, RET);
    s.run(0x9100, SIGRETURN);
    s.run(0x2000, NOP2);
    assert_eq!(
        s.finish()[3..],
        [
            To(0x9100, 2, far(FarKind::Syscall), UNRECORDED_KERNEL),
            To(UNRECORDED_KERNEL, 0, far(FarKind::Iret), 0x1003),
            To(0x1003, 1, BranchClass::NearIndCall, 0x9000),
            To(0x9000, 2, BranchClass::NearRet, 0x1005),
            To(0x1005, 2, BranchClass::NearRet, 0x2000),
            To(0x2000, 0, far(FarKind::Interrupt), UNRECORDED_KERNEL),
            To(UNRECORDED_KERNEL, 0, far(FarKind::Iret), 0x9000),
            To(0x9000, 2, BranchClass::NearRet, 0x9100),
            To(0x9100, 2, far(FarKind::Syscall), UNRECORDED_KERNEL),
            To(UNRECORDED_KERNEL, 0, far(FarKind::Iret), 0x2000),
            Gap(0x2000, 2),
        ]
    );
    assert_eq!(s.assembler.stats().problems(), 0);
}

#[test]
fn user_a_fault_before_a_system_call_of_the_same_block_is_placed_by_its_return() {
    let mut s = Stream::user();
    let code = [0x90, 0x8a, 0x00, 0x0f, 0x05]; // nop; mov (%rax), %al; syscall
    s.run(0x1000, &code);
    s.run(0x9000, RET);
    s.run(0x9100, SIGRETURN);
    s.run(0x1001, &code[1..]);
    s.run(0x1005, NOP2);
    assert_eq!(
        s.finish(),
        [
            To(0x1000, 1, far(FarKind::Exception), UNRECORDED_KERNEL),
            To(UNRECORDED_KERNEL, 0, far(FarKind::Iret), 0x9000),
            To(0x9000, 2, BranchClass::NearRet, 0x9100),
            To(0x9100, 2, far(FarKind::Syscall), UNRECORDED_KERNEL),
            To(UNRECORDED_KERNEL, 0, far(FarKind::Iret), 0x1001),
            To(0x1001, 2, far(FarKind::Syscall), UNRECORDED_KERNEL),
            To(UNRECORDED_KERNEL, 0, far(FarKind::Sysret), 0x1005),
            Gap(0x1005, 2),
        ]
    );
    let stats = s.assembler.stats();
    assert_eq!((stats.kernel_entries, stats.problems()), (2, 0));
}

#[test]
fn user_events_that_the_recorder_saw_need_no_guess() {
    let mut s = Stream::user();
    s.run(0x1000, RET);
    s.assembler.event(FarKind::Interrupt, 0x2000);
    s.run(0x9000, RET);
    s.run(0x9100, SIGRETURN);
    s.run(0x2000, NOP2);
    s.assembler.event(FarKind::Exception, 0x2001);
    s.run(0x9000, RET);
    let steps = s.finish();
    assert_eq!(
        steps[..2],
        [
            To(0x1000, 2, BranchClass::NearRet, 0x2000),
            To(0x2000, 0, far(FarKind::Interrupt), UNRECORDED_KERNEL),
        ]
    );
    assert_eq!(
        steps[6],
        To(0x2000, 1, far(FarKind::Exception), UNRECORDED_KERNEL)
    );
    assert_eq!(s.assembler.stats().problems(), 0);
}

#[test]
fn user_iret_is_a_far_branch_within_the_program() {
    let uiret: &[u8] = &[0x90, 0xf3, 0x0f, 0x01, 0xec];
    for returning in [IRETQ, uiret] {
        let mut s = Stream::user();
        s.run(0x1000, returning);
        s.run(0x2000, returning);
        s.run(0x1000, returning);
        // Also to where it would go on otherwise.
        let behind = 0x1000 + returning.len() as u64;
        s.run(behind, SYSCALL);
        s.run(behind + 3, NOP2);
        assert_eq!(
            s.finish(),
            [
                To(0x1000, 2, far(FarKind::Iret), 0x2000),
                To(0x2000, 2, far(FarKind::Iret), 0x1000),
                To(0x1000, 2, far(FarKind::Iret), behind),
                To(behind, 2, far(FarKind::Syscall), UNRECORDED_KERNEL),
                To(UNRECORDED_KERNEL, 0, far(FarKind::Sysret), behind + 3),
                Gap(behind + 3, 2),
            ]
        );
        let stats = s.assembler.stats();
        assert_eq!((stats.kernel_entries, stats.problems()), (1, 0));
    }
}

#[test]
fn user_iret_keeps_the_privilege_of_the_program() {
    let mut s = Stream::user();
    s.run(0x1000, IRETQ);
    s.run(0x2000, NOP2);
    s.assembler.finish().unwrap();
    let [iret] = s.transfers()[..] else {
        panic!("one transfer");
    };
    assert_eq!((iret.from, iret.to), (0x1001, 0x2000));
    assert_eq!((iret.cpl_before, iret.cpl_after), (Cpl::Ring3, Cpl::Ring3));
}

#[test]
fn user_iret_belongs_to_no_event() {
    let mut s = Stream::user();
    s.run(0x1000, &[0x75, 0x10]);
    s.run(0x9000, IRETQ); // the handler, which goes on within itself
    s.run(0x9010, IRETQ);
    s.run(0x9100, SIGRETURN);
    s.run(0x1012, NOP2);
    assert_eq!(
        s.finish(),
        [
            To(0x1000, 1, BranchClass::Jcc, 0x1012),
            To(0x1012, 0, far(FarKind::Interrupt), UNRECORDED_KERNEL),
            To(UNRECORDED_KERNEL, 0, far(FarKind::Iret), 0x9000),
            To(0x9000, 2, far(FarKind::Iret), 0x9010),
            To(0x9010, 2, far(FarKind::Iret), 0x9100),
            To(0x9100, 2, far(FarKind::Syscall), UNRECORDED_KERNEL),
            To(UNRECORDED_KERNEL, 0, far(FarKind::Iret), 0x1012),
            Gap(0x1012, 2),
        ]
    );
    assert_eq!(s.assembler.stats().problems(), 0);
}

#[test]
fn user_a_fault_whose_handler_never_returns_shows_no_branch() {
    // `mov (%rax), %al` or `div %cl`, and a jump.
    for code in [[0x8a, 0x00, 0xeb, 0x10], [0xf6, 0xf1, 0xeb, 0x10]] {
        let mut s = Stream::user();
        s.run(0x1000, &code);
        s.run(0x9000, NOP2);
        assert_eq!(
            s.steps(),
            [
                To(0x1000, 1, far(FarKind::Interrupt), UNRECORDED_KERNEL),
                To(UNRECORDED_KERNEL, 0, far(FarKind::Iret), 0x9000),
            ]
        );
        assert_eq!(s.assembler.stats().unpaired_events, 1);
    }
    // Nothing here can fault.
    let mut s = Stream::user();
    s.run(0x1000, &[0x90, 0xeb, 0x10]);
    s.run(0x9000, NOP2);
    assert_eq!(s.steps()[0], To(0x1000, 2, BranchClass::NearRelJmp, 0x1013));
}
