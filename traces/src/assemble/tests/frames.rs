//! Rule 7: what a handler's stack says.

use super::*;

/// `nop; call *%rax`.
const CALL_RAX: &[u8] = &[0x90, 0xff, 0xd0];

impl Stream {
    /// Runs a handler whose stack gives `from`.
    fn handle(&mut self, kind: FarKind, from: u64, handler: u64) {
        self.assembler.likely_event(kind, from);
        self.run(handler, IRETQ);
    }
}

#[test]
fn the_first_exception_before_an_indirect_branch_is_told_from_the_branch() {
    let mut s = Stream::system();
    s.run(KERNEL, RET);
    s.handle(FarKind::Exception, KERNEL, HANDLER);
    s.run(KERNEL, RET);
    s.run(KERNEL + 0x100, NOP2);
    assert_eq!(
        s.finish(),
        [
            To(KERNEL, 0, far(FarKind::Exception), HANDLER),
            To(HANDLER, 2, far(FarKind::Iret), KERNEL),
            To(KERNEL, 2, BranchClass::NearRet, KERNEL + 0x100),
            Gap(KERNEL + 0x100, 2),
        ]
    );
    let stats = s.assembler.stats();
    assert_eq!((stats.events, stats.paired, stats.problems()), (1, 1, 0));
}

#[test]
fn the_direction_of_a_branch_is_known_without_a_return() {
    let mut s = Stream::system();
    let ahead = KERNEL + 0x12;
    for from in [ahead, KERNEL + 2] {
        s.run(KERNEL, &[0x74, 0x10]);
        s.handle(FarKind::Interrupt, from, HANDLER);
        // Another task goes on.
        s.run(KERNEL + 0x800, JMP_AHEAD);
        s.run(KERNEL + 0x810, &[0xe9, 0xeb, 0xf7, 0xff, 0xff]);
    }
    s.run(KERNEL, NOP2);
    let steps = s.steps();
    assert_eq!(
        steps[..2],
        [
            To(KERNEL, 1, BranchClass::Jcc, ahead),
            To(ahead, 0, far(FarKind::Interrupt), HANDLER),
        ]
    );
    assert_eq!(steps[5], To(KERNEL, 1, far(FarKind::Interrupt), HANDLER));
    assert_eq!(s.assembler.stats().problems(), 0);
}

#[test]
fn a_chunk_closed_while_a_task_waits_loses_nothing() {
    let mut s = Stream::system();
    s.run(KERNEL, &[0x90, 0x8b, 0x00, 0x90, 0x90]);
    s.handle(FarKind::Exception, KERNEL + 1, HANDLER);
    assert_eq!(s.steps(), [To(KERNEL, 1, far(FarKind::Exception), HANDLER)]);
    s.run(KERNEL + 1, &[0x8b, 0x00, 0x90, 0x90]);
    s.finish();
    let stats = s.assembler.stats();
    assert_eq!((stats.unpaired_events, stats.late), (0, Late::default()));
}

#[test]
fn a_handler_that_is_jumped_to_or_called_is_no_event() {
    let mut s = Stream::system();
    s.run(KERNEL, &[0xe9, 0xfb, 0xff, 0xdf, 0x00]);
    s.handle(FarKind::Interrupt, KERNEL + 0x100, KERNEL + 0xe0_0000);
    s.run(KERNEL + 0x200, CALL_RAX);
    s.handle(FarKind::Interrupt, KERNEL + 0x203, HANDLER);
    s.run(KERNEL + 0x203, NOP2);
    assert_eq!(
        s.finish(),
        [
            To(KERNEL, 1, BranchClass::NearRelJmp, KERNEL + 0xe0_0000),
            To(HANDLER, 2, far(FarKind::Iret), KERNEL + 0x200),
            To(KERNEL + 0x200, 2, BranchClass::NearIndCall, HANDLER),
            To(HANDLER, 2, far(FarKind::Iret), KERNEL + 0x203),
            Gap(KERNEL + 0x203, 2),
        ]
    );
    assert_eq!(s.assembler.stats().events, 0);
}

#[test]
fn an_interrupt_at_the_target_of_an_indirect_call_comes_behind_the_call() {
    let mut s = Stream::system();
    s.run(KERNEL, CALL_RAX);
    s.handle(FarKind::Interrupt, KERNEL + 0x100, HANDLER);
    s.run(KERNEL + 0x100, NOP2);
    assert_eq!(
        s.finish(),
        [
            To(KERNEL, 2, BranchClass::NearIndCall, KERNEL + 0x100),
            To(KERNEL + 0x100, 0, far(FarKind::Interrupt), HANDLER),
            To(HANDLER, 2, far(FarKind::Iret), KERNEL + 0x100),
            Gap(KERNEL + 0x100, 2),
        ]
    );
}

#[test]
fn a_software_interrupt_is_its_own_transfer_and_its_return_takes_no_event() {
    const INT3: &[u8] = &[0x90, 0xcc];
    let mut s = Stream::system();
    s.run(KERNEL, &[0x90, 0xff, 0xe0]);
    s.run(OTHER_HANDLER, INT3);
    s.handle(FarKind::Exception, OTHER_HANDLER + 2, HANDLER);
    s.run(OTHER_HANDLER + 2, NOP2);
    assert_eq!(
        s.finish()[1..],
        [
            To(OTHER_HANDLER, 2, far(FarKind::SoftwareInterrupt), HANDLER),
            To(HANDLER, 2, far(FarKind::Iret), OTHER_HANDLER + 2),
            Gap(OTHER_HANDLER + 2, 2),
        ]
    );
    let stats = s.assembler.stats();
    assert_eq!((stats.events, stats.unpaired_returns), (0, 0));
}
