//! Rule 5 for stores into the page the code runs from.

use super::*;

/// `nop; incl 0x3a(%rip); nop`, then what a test puts behind it.
const CODE: &[u8] = &[0x90, 0xff, 0x05, 0x3a, 0, 0, 0, 0x90];
const STORE: &[u8] = &[0xff, 0x05, 0x3a, 0, 0, 0];

/// Branches that may go anywhere, and some with a target.
const BRANCHES: [(&[u8], BranchClass); 6] = [
    (&[0xc3], BranchClass::NearRet),
    (&[0xff, 0xe0], BranchClass::NearIndJmp),
    (&[0xff, 0xd0], BranchClass::NearIndCall),
    (&[0xcb], BranchClass::Far(FarKind::Ret)),
    (&[0x74, 0x40], BranchClass::Jcc),
    (&[0xeb, 0x40], BranchClass::NearRelJmp),
];
/// Where the two direct ones go.
const TARGET: u64 = 0x104a;

fn code(branch: &[u8]) -> Vec<u8> {
    [CODE, branch].concat()
}

#[test]
fn a_store_into_its_page_cuts_a_block_whatever_branch_ends_it() {
    for (branch, class) in BRANCHES {
        let mut s = Stream::user();
        let code = code(branch);
        let next = if code.len() == 9 { 0x2000 } else { TARGET };
        for _ in 0..3 {
            s.run(0x1000, &code);
            s.run(0x1001, STORE);
            s.run(0x1007, &code[7..]);
            s.run(next, &[0xe9, 0, 0, 0, 0]);
            s.run(next + 5, &[0xff, 0xe1]);
        }
        let steps = s.finish();
        assert_eq!(
            steps[..3],
            [On(0x1000, 1), On(0x1001, 1), To(0x1007, 2, class, next),]
        );
        assert_eq!(steps.len(), 15);
        let stats = s.assembler.stats();
        assert_eq!((stats.cut_blocks, stats.restarted), (3, 0), "{class:?}");
        assert_eq!((stats.retired, stats.problems()), (18, 0), "{class:?}");
    }
}

#[test]
fn a_store_that_is_the_first_instruction_restarts_the_block() {
    // The last goes back to the store, as a loop does.
    let more: (&[u8], BranchClass) = (&[0x75, 0xf7], BranchClass::Jcc);
    for (branch, class) in BRANCHES.into_iter().take(4).chain([more]) {
        let mut s = Stream::user();
        let code = code(branch);
        for _ in 0..2 {
            s.run(0x1001, &code[1..]);
            s.run(0x1001, STORE);
            s.run(0x1007, &code[7..]);
        }
        assert_eq!(
            s.finish()[..3],
            [On(0x1001, 1), To(0x1007, 2, class, 0x1001), On(0x1001, 1),]
        );
        let stats = s.assembler.stats();
        assert_eq!((stats.cut_blocks, stats.restarted), (0, 2), "{class:?}");
        assert_eq!((stats.retired, stats.problems()), (6, 0), "{class:?}");
    }
}

#[test]
fn the_push_of_an_indirect_call_is_run_again_alone() {
    let mut s = Stream::user();
    s.run(0x1000, &[0x90, 0xff, 0xd0]);
    s.run(0x1001, &[0xff, 0xd0]);
    s.run(0x2000, NOP2);
    assert_eq!(
        s.finish(),
        [
            On(0x1000, 1),
            To(0x1001, 1, BranchClass::NearIndCall, 0x2000),
            Gap(0x2000, 2),
        ]
    );
}

/// The first block is left by its RET to `next` at `start`.
fn stays_a_branch(mut s: Stream, at: u64, block: &[u8], start: u64, next: &[u8]) {
    s.run(at, block);
    s.run(start, next);
    let n = Block::decode(at, Mode::user64(0), block).unwrap();
    assert_eq!(
        s.finish()[0],
        To(at, n.instructions(), BranchClass::NearRet, start)
    );
    let stats = s.assembler.stats();
    assert_eq!((stats.cut_blocks, stats.restarted), (0, 0));
}

#[test]
fn a_real_target_inside_the_block_stays_a_branch() {
    let code = code(&[0xc3]);
    // More than the store.
    stays_a_branch(Stream::user(), 0x1000, &code, 0x1001, &code[1..]);
    // Another instruction, one at no boundary, another store.
    stays_a_branch(Stream::user(), 0x1000, &code, 0x1007, &[0x90]);
    stays_a_branch(Stream::user(), 0x1000, &code, 0x1002, &code[2..7]);
    stays_a_branch(
        Stream::user(),
        0x1000,
        &code,
        0x1001,
        &[0xff, 0x05, 9, 0, 0, 0],
    );
    // A load.
    let load = [0x8b, 0x00, 0xc3];
    stays_a_branch(Stream::user(), 0x1000, &load, 0x1000, &load[..2]);
    // The RET itself.
    stays_a_branch(Stream::user(), 0x1000, &code, 0x1008, &[0xc3]);
    // Blocks end at page ends: the store ends there, or crosses.
    stays_a_branch(Stream::user(), 0x1ff9, &code, 0x1ffa, STORE);
    stays_a_branch(Stream::user(), 0x1ffb, &code, 0x1ffc, STORE);
}

#[test]
fn a_recorder_of_what_retired_has_no_such_blocks() {
    let code = code(&[0xc3]);
    let mut s = Stream::user();
    s.assembler = s.assembler.exact();
    // A signal strikes behind the store.
    stays_a_branch(s, 0x1000, &code, 0x1001, STORE);
}
