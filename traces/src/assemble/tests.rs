//! The rules of the module, one by one.

use std::sync::{Arc, RwLock};

use vlbr_arch::{BranchClass, CodeSize, Cpl, FarKind, Transfer};
use vlbr_cpu::{Block, Exit, Interner, Mode, ModeSource};

use super::*;

const KERNEL: u64 = 0xffff_ffff_8100_0000;
const HANDLER: u64 = 0xffff_ffff_81e0_0000;
const OTHER_HANDLER: u64 = 0xffff_ffff_81e1_0000;

const NOP2: &[u8] = &[0x90, 0x90];
const RET: &[u8] = &[0x90, 0xc3];
const IRETQ: &[u8] = &[0x90, 0x48, 0xcf];
const SYSCALL: &[u8] = &[0x90, 0x0f, 0x05];
const SIGRETURN: &[u8] = &[0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05];
/// `nop; rep movsb`.
const REP: &[u8] = &[0x90, 0xf3, 0xa4];

/// A stream under test.
struct Stream {
    table: RawTable,
    interner: Arc<RwLock<Interner>>,
    assembler: Assembler,
}

/// A step as the tests state it: block address, instructions retired, exit.
#[derive(Debug, PartialEq)]
enum Seen {
    /// On to the next instruction.
    On(u64, u16),
    /// A transfer of this class to this address.
    To(u64, u16, BranchClass, u64),
    /// Nothing known.
    Gap(u64, u16),
}

use Seen::{Gap, On, To};

fn far(kind: FarKind) -> BranchClass {
    BranchClass::Far(kind)
}

impl Stream {
    fn new(kind: Kind) -> Self {
        let interner = Arc::new(RwLock::new(Interner::new()));
        Self {
            table: RawTable::new(),
            assembler: Assembler::new(kind, Arc::clone(&interner), 1 << 20),
            interner,
        }
    }

    fn system() -> Self {
        Self::new(Kind::System)
    }

    fn user() -> Self {
        Self::new(Kind::User { space: 3 })
    }

    /// Executes 64-bit code `bytes` at `start`.
    fn run(&mut self, start: u64, bytes: &[u8]) {
        let block = Block::decode(start, Mode::user64(0), bytes).unwrap();
        let lengths = block.lengths().to_vec();
        self.run_raw(start, bytes, &lengths, None);
    }

    fn run_raw(&mut self, start: u64, bytes: &[u8], lengths: &[u8], mode: Option<RecordedMode>) {
        let raw = RawBlock {
            start,
            lengths,
            bytes,
            mode,
        };
        // An id for each, so that equal blocks meet in the interner, except for neighbours: a
        // repeat must hit the cache too.
        let known = (0..self.table.len() as u32).find(|&id| self.table.raw(id) == Some(raw));
        let id = known.unwrap_or_else(|| self.table.add(raw).unwrap());
        assert_eq!(self.assembler.push(&self.table, &[id]), Ok(1));
    }

    fn transfers(&mut self) -> Vec<Transfer> {
        let chunk = self.assembler.seal();
        let interner = self.interner.read().unwrap();
        let code = interner.code();
        chunk
            .steps
            .iter()
            .filter_map(|&step| code.transfer(step).copied())
            .collect()
    }

    fn steps(&mut self) -> Vec<Seen> {
        let chunk = self.assembler.seal();
        let interner = self.interner.read().unwrap();
        let code = interner.code();
        let steps: Vec<Seen> = chunk
            .steps
            .iter()
            .map(|&id| {
                let step = code.step(id);
                let address = code.block(step.block).address();
                match (step.exit, code.transfer(id)) {
                    (_, Some(transfer)) => To(address, step.retired, transfer.class, transfer.to),
                    (Exit::Gap, None) => Gap(address, step.retired),
                    _ => On(address, step.retired),
                }
            })
            .collect();
        let retired: u64 = chunk
            .steps
            .iter()
            .map(|&id| u64::from(code.step(id).retired))
            .sum();
        assert_eq!(retired, chunk.retired, "running count of instructions");
        steps
    }

    fn finish(&mut self) -> Vec<Seen> {
        self.assembler.finish().unwrap();
        self.steps()
    }
}

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

/// `jmp +0xe`.
const JMP_AHEAD: &[u8] = &[0xeb, 0x0e];

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
fn modes_firmware_starts_in_real_mode_with_its_segment() {
    let mut s = Stream::system();
    s.run_raw(0xffff_fff0, &[0xea, 0x5b, 0xe0, 0x00, 0xf0], &[5], None);
    // mov ax, 1; jmp -5: lengths of 16-bit code
    s.run_raw(0xf_e05b, &[0xb8, 1, 0, 0xeb, 0xfb], &[3, 2], None);
    s.run_raw(0xf_e05b, &[0xb8, 1, 0, 0xeb, 0xfb], &[3, 2], None);
    let transfers = s.transfers();
    assert_eq!(
        (
            transfers[0].from,
            transfers[0].from_cs_base,
            transfers[0].from_size
        ),
        (0xfff0, 0xffff_0000, CodeSize::Bits16)
    );
    assert_eq!(
        (transfers[1].to, transfers[1].to_cs_base),
        (0xe05b, 0xf_0000)
    );
    assert_eq!(transfers[1].cpl_after, Cpl::Ring0);
    assert_eq!(s.assembler.stats().problems(), 0);
}

#[test]
fn modes_code_size_changes_at_far_transfers_to_what_decodes() {
    let mut s = Stream::system();
    // 66 ea: jmp 8:0x10000
    s.run_raw(0x9000, &[0x66, 0xea, 0, 0, 1, 0, 8, 0], &[8], None);
    // mov eax, imm32 in 32-bit code, then retf
    s.run_raw(0x1_0000, &[0xb8, 1, 0, 0, 0, 0xcb], &[5, 1], None);
    // mov rax, rbx needs a REX prefix
    s.run_raw(0x2_0000, &[0x48, 0x89, 0xd8, 0xeb, 0xfb], &[3, 2], None);
    s.run_raw(0x2_0000, &[0x48, 0x89, 0xd8, 0xeb, 0xfb], &[3, 2], None);
    let transfers = s.transfers();
    let sizes: Vec<_> = transfers.iter().map(|t| t.from_size).collect();
    assert_eq!(
        sizes,
        [CodeSize::Bits16, CodeSize::Bits32, CodeSize::Bits64]
    );
    assert_eq!(s.assembler.stats().size_surprises, 0);
}

#[test]
fn modes_low_code_is_ring_0_until_the_high_half_returns_to_it() {
    let mut s = Stream::system();
    s.run(0x10_0000_0000, &[0xff, 0xe0]); // a decompressor jumps to the kernel
    s.run(KERNEL, &[0xff, 0xd0]); // EFI call
    s.run(0x20_0000_0000, RET);
    s.run(KERNEL + 2, IRETQ);
    s.run(0x40_0000, &[0xff, 0xe0]);
    s.run(0x50_0000, NOP2);
    let cpls: Vec<_> = s
        .transfers()
        .iter()
        .map(|t| (t.cpl_before, t.cpl_after))
        .collect();
    let (k, u) = (Cpl::Ring0, Cpl::Ring3);
    assert_eq!(cpls, [(k, k), (k, k), (k, k), (k, u), (u, u)]);
    assert_eq!(s.assembler.stats().problems(), 0);
}

#[test]
fn modes_what_was_recorded_is_taken() {
    let mut s = Stream::system();
    let mode = |cpl, space| RecordedMode {
        cpl,
        code_size: Some(CodeSize::Bits32),
        cs_base: Some(0x100),
        space: Some(space),
    };
    s.run_raw(0x1100, &[0xeb, 0x00], &[2], Some(mode(Cpl::Ring1, 7)));
    s.run_raw(0x1102, &[0x90], &[1], Some(mode(Cpl::Ring1, 7)));
    s.finish();
    let interner = s.interner.read().unwrap();
    let block = &interner.code().blocks()[0];
    assert_eq!(block.address(), 0x1000);
    let mode = block.mode();
    assert_eq!(
        (mode.cpl, mode.space, mode.source),
        (Cpl::Ring1, 7, ModeSource::Recorded)
    );
    assert_eq!(mode.cs_base, 0x100);
}

#[test]
fn modified_code_makes_other_blocks() {
    let mut s = Stream::user();
    for code in [[0x90, 0xeb, 0xfd], [0xf8, 0xeb, 0xfd], [0x90, 0xeb, 0xfd]] {
        s.run(0x1000, &code);
    }
    s.finish();
    let interner = s.interner.read().unwrap();
    assert_eq!(interner.code().blocks().len(), 2);
}

#[test]
fn what_makes_no_block_leaves_a_counted_gap() {
    let mut s = Stream::user();
    s.run(0x1000, NOP2);
    s.run_raw(0x1002, &[0x90, 0x90, 0x90], &[2, 1], None);
    s.run(0x1005, NOP2);
    assert_eq!(s.finish(), [Gap(0x1000, 2), Gap(0x1005, 2)]);
    let stats = s.assembler.stats();
    assert_eq!((stats.undecodable, stats.gaps), (1, 1));
}

#[test]
fn an_unknown_block_is_an_error() {
    let mut s = Stream::user();
    assert_eq!(
        s.assembler.push(&s.table, &[4]),
        Err(AssembleError::UnknownBlock { id: 4 })
    );
}

#[test]
fn chunks_hold_no_more_than_their_limit_and_lose_nothing() {
    let interner = Arc::new(RwLock::new(Interner::new()));
    let mut assembler = Assembler::new(Kind::User { space: 0 }, interner, 10_000);
    let mut table = RawTable::new();
    let id = table
        .add(RawBlock {
            start: 0x1000,
            lengths: &[1, 2],
            bytes: &[0x90, 0xeb, 0xfd],
            mode: None,
        })
        .unwrap();
    let ids = vec![id; 50_000];
    let (mut done, mut retired, mut steps) = (0, 0, 0);
    while done < ids.len() {
        done += assembler.push(&table, &ids[done..]).unwrap();
        let chunk = assembler.seal();
        assert!(chunk.retired <= 10_000 && chunk.retired > 0);
        retired += chunk.retired;
        steps += chunk.steps.len();
    }
    assert_eq!((retired, steps), (2 * 49_999, 49_999));
}

#[test]
fn the_fast_path_and_the_slow_path_agree() {
    // A walk over a small graph of jumps, calls by register and repeats, in two ways: one block a
    // call, which leaves the fast path each time, and all at once.
    let mut table = RawTable::new();
    for index in 0..8u64 {
        let start = 0x1000 + index * 0x10;
        let (bytes, lengths): (&[u8], &[u8]) = match index % 4 {
            0 => (&[0x90, 0xff, 0xe0], &[1, 2]),
            1 => (&[0x75, 0x0e], &[2]),
            2 => (&[0xf3, 0xa4], &[2]),
            _ => (&[0xc3], &[1]),
        };
        table
            .add(RawBlock {
                start,
                lengths,
                bytes,
                mode: None,
            })
            .unwrap();
    }
    let mut seed = 1u64;
    let ids: Vec<u32> = (0..20_000)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 61) as u32
        })
        .collect();
    let run = |parts: usize| {
        let interner = Arc::new(RwLock::new(Interner::new()));
        let mut assembler = Assembler::new(Kind::User { space: 0 }, Arc::clone(&interner), 1 << 30);
        for part in ids.chunks(parts) {
            assert_eq!(assembler.push(&table, part), Ok(part.len()));
        }
        assembler.finish().unwrap();
        (assembler.seal(), assembler.stats())
    };
    assert_eq!(run(1), run(ids.len()));
}
