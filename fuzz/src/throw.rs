//! Damaged inputs for a reader, with an eye on it.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::damage::Numbers;
use crate::form::Form;
use crate::heap::{HEAP, peak_resident};

/// Most memory that a process may ever hold.
const MAX_MEMORY: usize = 1 << 30;
/// Longest time for one input.
const MAX_TIME: Duration = Duration::from_secs(10);
/// Time after which a reader that does not come back ends the process, in seconds.
const STUCK: u32 = 60;
/// Most of an input that is shown.
const SHOWN: usize = 4096;

/// A folder for inputs that only a path leads to, in memory if possible.
///
/// # Panics
/// There is no room for one.
#[must_use]
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a temporary folder")
}

/// Which inputs, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Which inputs.
    pub seed: u64,
    /// Number of the first one.
    pub first: u64,
    /// How many, unless `time` says it.
    pub inputs: u64,
    /// For how long, in place of a number.
    pub time: Option<Duration>,
}

impl Plan {
    /// The plan of the environment; without one, `inputs` inputs.
    ///
    /// # Panics
    /// A variable is no number.
    #[must_use]
    pub fn new(inputs: u64) -> Self {
        let number = |variable: &str| -> Option<u64> {
            let text = std::env::var(variable).ok()?;
            Some(text.parse().expect(variable))
        };
        Self {
            seed: number("VLBR_FUZZ_SEED").unwrap_or(1),
            first: number("VLBR_FUZZ_FIRST").unwrap_or(0),
            inputs: number("VLBR_FUZZ_ITERATIONS").unwrap_or(inputs),
            time: number("VLBR_FUZZ_SECONDS").map(Duration::from_secs),
        }
    }
}

/// What became of the inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Read.
    pub taken: u64,
    /// Refused.
    pub refused: u64,
}

/// Gives `read` every seed, which it must take, and then `inputs` damaged ones or what the
/// environment says. `read` tells whether it took the input.
///
/// # Panics
/// If `read` does, refuses a seed, takes more than ten seconds for an input, or the process ever
/// held a gibibyte. The input is printed, with its number. A reader that is stuck ends the process.
pub fn throw(
    name: &str,
    inputs: u64,
    form: Form,
    seeds: &[Vec<u8>],
    read: impl FnMut(&[u8]) -> bool,
) -> Tally {
    run(Plan::new(inputs), name, form, seeds, read)
}

fn run(
    plan: Plan,
    name: &str,
    form: Form,
    seeds: &[Vec<u8>],
    mut read: impl FnMut(&[u8]) -> bool,
) -> Tally {
    for (number, seed) in seeds.iter().enumerate() {
        assert!(read(seed), "{name}: seed {number} is refused");
    }
    let watch = Watch::new(name, plan.seed);
    let (mut tally, mut bytes) = (Tally::default(), Vec::new());
    let start = Instant::now();
    let mut number = plan.first;
    let mut before = start;
    let mut slowest = (Duration::ZERO, 0);
    loop {
        let more = match plan.time {
            Some(time) => before - start < time,
            None => number - plan.first < plan.inputs,
        };
        if !more {
            break;
        }
        let mut numbers = Numbers::new(plan.seed, number);
        bytes.clear();
        bytes.extend_from_slice(&seeds[numbers.below(seeds.len())]);
        for _ in 0..=numbers.below(4) {
            form.damage(&mut bytes, seeds, &mut numbers);
        }
        watch.input.store(number, Ordering::Relaxed);
        let shown = Shown {
            name,
            seed: plan.seed,
            number,
            bytes: &bytes,
        };
        if read(&bytes) {
            tally.taken += 1;
        } else {
            tally.refused += 1;
        }
        let now = Instant::now();
        slowest = slowest.max((now - before, number));
        assert!(now - before < MAX_TIME, "{:?} for one input", now - before);
        assert!(HEAP.peak() < MAX_MEMORY, "{} bytes of heap", HEAP.peak());
        drop(shown);
        before = now;
        number += 1;
    }
    // What C libraries allocate is not on the heap.
    let resident = peak_resident().unwrap_or(0);
    assert!(resident < MAX_MEMORY, "{name}: {resident} bytes of memory");
    println!(
        "{name}: {} inputs in {:.1?}, {} read; slowest {:.1?} (input {}); peak heap {}, memory {resident}",
        number - plan.first,
        before - start,
        tally.taken,
        slowest.0,
        slowest.1,
        HEAP.peak(),
    );
    tally
}

/// Shows the input if the reader panics.
struct Shown<'a> {
    name: &'a str,
    seed: u64,
    number: u64,
    bytes: &'a [u8],
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "{}: input {} of seed {}, {} bytes: \"{}\"",
                self.name,
                self.number,
                self.seed,
                self.bytes.len(),
                self.bytes[..self.bytes.len().min(SHOWN)].escape_ascii()
            );
        }
    }
}

/// Ends the process when one input takes forever.
struct Watch {
    input: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    fn new(name: &str, seed: u64) -> Self {
        let (input, over) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let name = name.to_owned();
        let seen = (Arc::clone(&input), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            let (input, over) = seen;
            let (mut last, mut since) = (0, 0);
            while !over.load(Ordering::Relaxed) {
                std::thread::park_timeout(Duration::from_secs(1));
                let now = input.load(Ordering::Relaxed);
                since = if now == last { since + 1 } else { 0 };
                last = now;
                if since >= STUCK {
                    // Past the test harness, which would keep it.
                    let _ = writeln!(
                        std::io::stderr(),
                        "{name}: input {now} of seed {seed} takes more than {STUCK} s"
                    );
                    std::process::abort();
                }
            }
        });
        Self {
            input,
            over,
            thread: Some(thread),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It does nothing that can fail.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan {
        seed: 1,
        first: 0,
        inputs: 500,
        time: None,
    };

    fn seeds() -> Vec<Vec<u8>> {
        vec![b"one 1\ntwo 22\n".to_vec(), b"three 0x333\n".to_vec()]
    }

    #[test]
    fn an_input_depends_on_seed_and_number_alone() {
        let inputs = |form| {
            let mut seen = Vec::new();
            let tally = run(PLAN, "same", form, &seeds(), |bytes| {
                seen.push(bytes.to_vec());
                true
            });
            assert!(tally.refused == 0 && tally.taken + 2 == seen.len() as u64);
            seen
        };
        for form in [Form::Binary, Form::Text] {
            let seen = inputs(form);
            assert_eq!(seen, inputs(form));
            let mut different = seen.clone();
            different.sort();
            different.dedup();
            assert!(different.len() * 2 > seen.len(), "{}", different.len());
        }
    }

    #[test]
    #[should_panic(expected = "seed 1 is refused")]
    fn seeds_must_be_valid() {
        run(PLAN, "seeds", Form::Text, &seeds(), |bytes| {
            bytes[0] == b'o'
        });
    }

    #[test]
    fn memory_is_counted_that_is_never_touched() {
        let before = HEAP.peak();
        let reserved = std::hint::black_box(Vec::<u8>::with_capacity(before + (1 << 20)));
        assert!(HEAP.peak() >= reserved.capacity());
    }
}
