//! Clocks of threads keep their rules whatever a trace holds: code of any size, blocks of no instruction,
//! instructions the decoder does not know, events and gaps anywhere.

use iced_x86::{Decoder, DecoderOptions};
use proptest::prelude::*;
use vlbr_arch::{CodeSize, Cpl, FarKind};
use vlbr_cpu::{Block, Code, Exit, Mode, Step, StepClock, StepId, Target, Terminator};
use vlbr_timing::predict::predictors;
use vlbr_timing::{Mispredicts, StepBounds, StepPrograms, microarchitectures};

/// What a block is made of.
#[derive(Clone, Debug)]
struct Piece {
    address: u64,
    size: CodeSize,
    bytes: Vec<u8>,
    cs_base: u64,
    /// It goes on behind what the decoder does not know.
    unknown: bool,
}

fn piece() -> impl Strategy<Value = Piece> {
    let size = prop_oneof![
        1 => Just(CodeSize::Bits16),
        1 => Just(CodeSize::Bits32),
        4 => Just(CodeSize::Bits64)
    ];
    // Bytes that are often prefixes, moves, pushes, string instructions, loads and stores.
    let byte = prop_oneof![
        3 => any::<u8>(),
        1 => prop::sample::select(&[0x0f, 0x48, 0x66, 0x67, 0xf3, 0xa4, 0x89, 0x8b, 0x50, 0x58, 0xc4, 0x62][..]),
    ];
    let place = prop_oneof![
        Just(0x40_1000_u64),
        Just(u64::MAX - 40),
        Just(0xfff0),
        any::<u64>()
    ];
    let base = prop_oneof![Just(0), Just(0xffff_0000)];
    let unknown = prop::bool::weighted(0.02);
    let bytes = prop::collection::vec(byte, 0..60);
    (place, size, bytes, base, unknown).prop_map(|(address, size, bytes, base, unknown)| Piece {
        address,
        size,
        bytes,
        cs_base: match size {
            CodeSize::Bits64 => 0,
            _ => base,
        },
        unknown,
    })
}

/// The longest block that the bytes begin with; what the decoder does not know has three bytes.
fn block(piece: &Piece) -> Block {
    let mode = Mode {
        code_size: piece.size,
        cs_base: piece.cs_base,
        cpl: Cpl::Ring3,
        ..Mode::user64(1)
    };
    let (mut at, mut lengths) = (0, Vec::new());
    let mut found = Block::empty(piece.address, mode);
    while at < piece.bytes.len() {
        let mut decoder = Decoder::new(piece.size.bits(), &piece.bytes[at..], DecoderOptions::NONE);
        let instruction = decoder.decode();
        if instruction.is_invalid() && !piece.unknown {
            break;
        }
        let length = match instruction.is_invalid() {
            true => 3.min(piece.bytes.len() - at),
            false => instruction.len(),
        };
        lengths.push(length as u8);
        at += length;
        match Block::with_lengths(piece.address, mode, &piece.bytes[..at], &lengths) {
            Ok(block) => found = block,
            Err(_) => break,
        }
    }
    found
}

/// Every way to leave each block, after each number of its instructions.
fn code(pieces: &[Piece]) -> Code {
    let mut code = Code::new();
    for piece in pieces {
        let block = block(piece);
        let instructions = block.instructions();
        let target = |address| Target {
            address,
            cs_base: block.mode().cs_base,
            code_size: block.mode().code_size,
            cpl: block.mode().cpl,
        };
        let mut exits = vec![Exit::Sequential, Exit::Gap];
        exits.push(Exit::Event {
            kind: FarKind::Interrupt,
            target: target(0x1234),
            in_tx: false,
        });
        if let Terminator::Branch(branch) = block.terminator() {
            for mispredicted in [false, true] {
                exits.push(Exit::Taken {
                    target: target(branch.target.unwrap_or(u64::MAX - 1)),
                    mispredicted,
                    in_tx: false,
                });
            }
        }
        let id = code.add_block(block).expect("few blocks");
        for retired in 0..=instructions {
            for &exit in &exits {
                let step = Step {
                    block: id,
                    retired,
                    exit,
                };
                // What cannot be a step is none.
                let _ = code.add_step(step);
            }
        }
    }
    code
}

/// Runs `order` and checks every rule of [`StepClock`]; the times.
fn run<C: StepClock>(clock: &C, code: &Code, order: &[usize]) -> Vec<u64> {
    let mut clock = clock.clone();
    let (mut now, mut transferred) = (0, None);
    let mut times = Vec::new();
    for &number in order {
        let id = StepId((number % code.steps().len()) as u32);
        let time = clock.retire(code, id);
        let end = time.end.value();
        assert!(end >= now, "time goes back from {now} to {end}");
        let step = code.step(id);
        assert!(!time.mispredicted || code.retires_branch(id), "no branch");
        let mut before = now;
        for index in 0..step.retired {
            let retired = clock.retired_at(index).value();
            assert!(
                (before..=end).contains(&retired),
                "{retired} in {before}..={end}"
            );
            before = retired;
        }
        if step.retired > 0 && !matches!(step.exit, Exit::Event { .. }) {
            assert_eq!(before, end, "the last instruction ends the step");
        }
        if code.transfer(id).is_some() {
            assert!(
                transferred.is_none_or(|last| end > last),
                "two records in {end}"
            );
            transferred = Some(end);
        }
        // No part of a core keeps a step of a few instructions for as long.
        assert!(end - now < 1_000_000, "{} cycles", end - now);
        now = end;
        times.push(end);
    }
    times
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn clocks_keep_their_rules_on_any_code(
        pieces in prop::collection::vec(piece(), 1..6),
        order in prop::collection::vec(any::<usize>(), 1..400),
        core in 0..5_usize,
    ) {
        let code = code(&pieces);
        let core = &microarchitectures().all()[core];
        let predictor = predictors().named(core.name()).expect("a predictor").clone();
        let bounds = StepBounds::new(core, &code);
        prop_assert_eq!(
            run(&bounds.clock(), &code, &order),
            run(&StepBounds::new(core, &code).clock(), &code, &order)
        );
        for mispredicts in [Mispredicts::Recorded, Mispredicts::Predicted(predictor)] {
            let programs = StepPrograms::new(core, &code, &mispredicts).expect("short blocks");
            prop_assert_eq!(
                run(&programs.clock(), &code, &order),
                run(&programs.clock(), &code, &order)
            );
        }
    }
}
