//! Recorded and inferred modes.

use super::*;

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
fn modes_a_far_jump_with_a_size_prefix_goes_to_the_other_size() {
    let mut s = Stream::system();
    s.run_raw(0x9000, &[0x66, 0xea, 0, 0, 1, 0, 8, 0], &[8], None);
    // and cl, 0xfe; jmp +0: the same in all sizes
    let either = [0x80, 0xe1, 0xfe, 0xeb, 0x00];
    s.run_raw(0x1_0000, &either, &[3, 2], None);
    s.run_raw(0x1_0005, &[0x66, 0xea, 0, 0, 8, 0], &[6], None);
    s.run_raw(0x2_0000, &either, &[3, 2], None);
    s.run_raw(0x2_0005, &either, &[3, 2], None);
    let sizes: Vec<_> = s.transfers().iter().map(|t| t.from_size).collect();
    use CodeSize::{Bits16, Bits32};
    assert_eq!(sizes, [Bits16, Bits32, Bits32, Bits16]);
    assert_eq!(s.assembler.stats().size_surprises, 0);
}

#[test]
fn modes_system_management_mode_is_entered_by_an_smi_and_left_to_what_it_interrupted() {
    let mut s = Stream::system();
    s.run(KERNEL, IRETQ);
    s.run(0x40_0000, &[0xe6, 0xb2, 0x90, 0x90]); // out %al, $0xb2
    s.run_raw(0xa_8000, &[0x66, 0x31, 0xc0, 0x0f, 0xaa], &[3, 2], None); // rsm
    s.run(0x40_0002, &[0x48, 0x31, 0xc0, 0xeb, 0x00]);
    s.run(0x40_0007, NOP2);
    let seen: Vec<_> = s
        .transfers()
        .iter()
        .skip(1)
        .map(|t| (t.class, t.from, t.cpl_before, t.from_size))
        .collect();
    use CodeSize::{Bits16, Bits64};
    assert_eq!(
        seen,
        [
            (far(FarKind::Smi), 0x40_0002, Cpl::Ring3, Bits64),
            (far(FarKind::Rsm), 0x8003, Cpl::Ring0, Bits16),
            (BranchClass::NearRelJmp, 0x40_0005, Cpl::Ring3, Bits64),
        ]
    );
    assert_eq!(s.assembler.stats().problems(), 0);
}
