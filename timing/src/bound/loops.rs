//! Where the micro-operations of a loop come from, and how fast.
//!
//! Documented rules: Intel's optimization manual (decoded ICache, loop stream detector) and Intel's paper
//! "Mitigations for Jump Conditional Code Erratum" (November 2019). How often the loop stream detector
//! unrolls small loops is not documented: it is taken to fill half of the queue, at most eight times.

use crate::lower::{Layout, Lowered};
use crate::microarchitecture::Parameters;

/// Copies of a small loop at most.
const COPIES: u32 = 8;
/// The microcode sequencer delivers instructions of more micro-operations; they have a line alone.
const MICROCODE: u16 = 4;
/// Branches must not touch the end of so many bytes.
const ERRATUM: u32 = 32;

/// Why the uop cache does not hold a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Uncached {
    /// The window that begins at this offset needs more lines than there are for one.
    Lines {
        /// Offset of its first byte, counted from the window in which the loop begins.
        window: u32,
        /// Lines it needs.
        lines: u32,
    },
    /// This instruction is a branch that crosses a boundary of 32 bytes or ends at one.
    Branch(usize),
}

/// Where the micro-operations of a loop come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Delivery {
    /// The uop cache, in so many cycles per iteration.
    Cache(f32),
    /// The queue before the renamer, which holds so many copies of the loop.
    Queue {
        /// Copies.
        copies: u32,
        /// Cycles per iteration.
        cycles: f32,
    },
    /// The decoders.
    Decoders(Uncached),
}

/// What keeps a loop out of the uop cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The loop begins so many bytes behind a window's beginning.
    pub(super) start: u32,
    /// Branches that touch a boundary are not held.
    pub(super) erratum: bool,
}

/// Where the micro-operations of a loop come from; without limits never from the decoders.
pub(super) fn delivery(
    lowered: &Lowered,
    limits: Option<Limits>,
    parameters: &Parameters,
) -> Delivery {
    let layout = lowered.layout.as_slice();
    let branch = layout.last().is_some_and(|last| last.branch);
    if let Some(reason) = limits.and_then(|limits| uncached(layout, limits, parameters)) {
        return Delivery::Decoders(reason);
    }
    // What the renamer adds or takes apart is one in the queue.
    let uops: u32 = layout.iter().map(|l| u32::from(l.decoded)).sum();
    // Nothing behind a taken branch comes in its cycle.
    let width = parameters.uop_cache;
    let cached = match branch {
        true => uops.div_ceil(width) as f32,
        false => uops as f32 / width as f32,
    };
    if branch && uops > 0 && uops <= parameters.loop_queue {
        let copies = (parameters.loop_queue / 2 / uops).clamp(1, COPIES);
        let cycles = (uops * copies).div_ceil(parameters.issue) as f32 / copies as f32;
        // How many copies there are is assumed, so a uop cache that is as fast stays a lower limit.
        if cycles <= cached {
            return Delivery::Queue { copies, cycles };
        }
    }
    Delivery::Cache(cached)
}

fn uncached(layout: &[Layout], limits: Limits, parameters: &Parameters) -> Option<Uncached> {
    let Limits { start, erratum } = limits;
    let mut window = 0;
    let mut lines = 0;
    let mut used = 0;
    let mut fused_from = start;
    for (at, instruction) in layout.iter().enumerate() {
        let first = start + instruction.start;
        if instruction.decoded > 0 {
            fused_from = first;
        }
        let behind = first + u32::from(instruction.length);
        if erratum && instruction.branch && fused_from / ERRATUM != behind / ERRATUM {
            return Some(Uncached::Branch(at));
        }
        if instruction.decoded == 0 {
            continue;
        }
        let own = first / parameters.uop_cache_window;
        let alone = instruction.decoded > MICROCODE;
        let uops = u32::from(instruction.decoded.min(MICROCODE));
        if at == 0 || own != window || alone || used + uops > parameters.uop_cache_line {
            lines = if at > 0 && own == window {
                lines + 1
            } else {
                1
            };
            used = 0;
            window = own;
        }
        used += if alone {
            parameters.uop_cache_line
        } else {
            uops
        };
        if lines > parameters.uop_cache_lines {
            return Some(Uncached::Lines {
                window: own * parameters.uop_cache_window,
                lines,
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use crate::bound::{BlockModel, Part, Repetition};
    use crate::{Environment, microarchitectures};

    /// NOPs of so many bytes each and a jump back.
    fn nops(count: usize, length: usize) -> Vec<u8> {
        let nop: &[u8] = match length {
            1 => &[0x90],
            4 => &[0x0f, 0x1f, 0x40, 0],
            _ => &[0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
        };
        let mut bytes = nop.repeat(count);
        bytes.extend([0xeb, 0x80]);
        bytes
    }

    fn part(core: &str, bytes: &[u8], part: Part) -> f32 {
        let core = microarchitectures().named(core).expect("built in");
        let mut model = BlockModel::new(core, Environment::Unknown);
        model.limit_uop_cache();
        let bound = model.bound(bytes, Repetition::Loop).expect("a block");
        bound.of(part)
    }

    #[test]
    fn an_iteration_takes_whole_cycles_of_the_uop_cache() {
        // Seven micro-operations, six a cycle on Skylake, where the loop stream detector is off.
        assert_eq!(part("skylake", &nops(6, 4), Part::UopCache), 2.0);
        assert_eq!(part("skylake", &nops(5, 4), Part::UopCache), 1.0);
    }

    #[test]
    fn the_queue_of_haswell_streams_copies_of_a_small_loop() {
        // Five micro-operations: five copies fill half of 56; 25 take seven cycles of four.
        assert_eq!(part("haswell", &nops(4, 4), Part::UopCache), 7.0 / 5.0);
        // Two: eight copies, 16 take four.
        assert_eq!(part("haswell", &nops(1, 4), Part::UopCache), 0.5);
        // 57 do not fit: the uop cache gives four a cycle.
        assert_eq!(part("haswell", &nops(56, 8), Part::UopCache), 15.0);
    }

    #[test]
    fn a_window_of_32_bytes_has_three_lines_of_six() {
        // 18 one-byte NOPs fill three lines; with the jump there are 19 in the window.
        assert_eq!(part("skylake", &nops(17, 1), Part::UopCache), 3.0);
        assert_eq!(part("skylake", &nops(17, 1), Part::Decode), 0.0);
        assert_eq!(part("skylake", &nops(18, 1), Part::UopCache), 0.0);
        // 19 of four decoders: five cycles.
        assert_eq!(part("skylake", &nops(18, 1), Part::Decode), 5.0);
        // Windows of Golden Cove have 64 bytes and six lines of eight.
        assert_eq!(part("golden-cove", &nops(18, 1), Part::UopCache), 3.0);
    }

    #[test]
    fn branches_that_touch_a_boundary_are_not_held_where_the_erratum_is_mended() {
        let skylake = microarchitectures().named("skylake").expect("built in");
        let mut mended = skylake.clone();
        mended.pipeline.jcc_erratum = true;
        // Seven NOPs of four bytes and a jump of two: bytes 28 and 29.
        let bytes = nops(7, 4);
        let at = |core, start: u64| {
            let mut model = BlockModel::new(core, Environment::Unknown);
            model.begin_at(start);
            model.limit_uop_cache();
            let bound = model.bound(&bytes, Repetition::Loop).expect("a block");
            bound.of(Part::Decode) > 0.0
        };
        for (start, touches) in [(0, false), (1, false), (2, true), (3, true), (4, false)] {
            assert_eq!(at(&mended, start), touches, "{start}");
            assert!(!at(skylake, start));
        }
    }

    #[test]
    fn a_taken_branch_takes_a_cycle() {
        assert_eq!(part("skylake", &[0xeb, 0xfe], Part::Branches), 1.0);
        assert_eq!(part("skylake", &[0x90], Part::Branches), 0.0);
    }
}
