//! Blocks, chunks and the fast path.

use super::*;

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
