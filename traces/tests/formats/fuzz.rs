//! Many damaged files, the same ones for the same seed.
//!
//! `VLBR_FUZZ_ITERATIONS` and `VLBR_FUZZ_SEED` set how many and which; for a long run:
//! `VLBR_FUZZ_ITERATIONS=10000000 cargo test --release -p vlbr-traces --test formats fuzz -- \
//! --nocapture`

use std::path::Path;

use vlbr_traces::symbols::parse_kallsyms;

use super::damaged::Damage;
use super::files::{ask_elf, packed, piped, read_all, reference, regular, small_elf};

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().expect(variable),
        Err(_) => default,
    }
}

struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn damage(&mut self) -> Damage {
        let near_header = self.next().is_multiple_of(2);
        let at = if near_header {
            self.below(512)
        } else {
            self.next() as usize
        };
        match self.below(10) {
            0..4 => Damage::Byte(at, self.next() as u8),
            4..8 => {
                let extremes = [
                    0,
                    1,
                    8,
                    0xffff,
                    u64::from(u32::MAX),
                    i64::MAX as u64,
                    u64::MAX,
                    self.next(),
                ];
                Damage::Word(at & !7, extremes[self.below(extremes.len())])
            }
            8 => Damage::Cut(at),
            _ => Damage::Repeat(at, self.below(256)),
        }
    }
}

/// Most memory this process ever held, in bytes.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes << 10)
}

/// Damages the seeds and gives them to `read`, which tells whether it took one. Returns how many
/// were taken and how many refused.
fn throw(seeds: &[Vec<u8>], mut read: impl FnMut(&[u8]) -> bool) -> (u64, u64) {
    let iterations = number("VLBR_FUZZ_ITERATIONS", 10_000);
    let mut numbers = Numbers(number("VLBR_FUZZ_SEED", 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (mut taken, mut bytes) = (0, Vec::new());
    for _ in 0..iterations {
        bytes.clear();
        bytes.extend_from_slice(&seeds[numbers.below(seeds.len())]);
        for _ in 0..=numbers.below(4) {
            numbers.damage().apply(&mut bytes);
        }
        taken += u64::from(read(&bytes));
    }
    if let Some(peak) = peak_memory() {
        assert!(peak < 1 << 30, "{peak} bytes of memory");
    }
    println!(
        "{iterations} inputs, {taken} read, peak memory {:?}",
        peak_memory()
    );
    (taken, iterations - taken)
}

#[test]
fn fuzz_perf_data() {
    let folder = tempfile::tempdir().expect("folder");
    let regular = regular(folder.path(), 20);
    let mut seeds = vec![packed(&regular, 1000), piped(&regular), regular];
    seeds.extend(
        ["flags.perf.data", "ro_sample.perf"]
            .into_iter()
            .filter_map(reference),
    );
    let (taken, refused) = throw(&seeds, |bytes| match read_all(bytes) {
        // Only compressed records can be more than there is room for.
        Ok(count) => {
            assert!(count <= 1 << 20, "{count} records");
            true
        }
        Err(_) => false,
    });
    assert!(taken > 0 && refused > 0);
}

#[test]
fn fuzz_elf() {
    let mut seeds = vec![small_elf()];
    seeds.extend(reference("propeller_sample_1.bin"));
    let (taken, refused) = throw(&seeds, |bytes| ask_elf(bytes).is_some());
    assert!(taken > 0 && refused > 0);
}

#[test]
fn fuzz_kallsyms() {
    let seeds = [
        b"ffffffff81000000 T _text\nffffffff81000040 t helper\t[module]\n\
        ffffffff81000080 D data\nffffffff81000100 W weak\n"
            .to_vec(),
    ];
    let (taken, refused) = throw(&seeds, |bytes| {
        parse_kallsyms(bytes, Path::new("list"))
            .is_ok_and(|table| table.lookup(u64::MAX).is_none() || !table.is_empty())
    });
    assert!(taken > 0 && refused > 0);
}
