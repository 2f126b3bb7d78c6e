//! How fast unrolled code is cut into instructions.

use crate::lower::Layout;
use crate::microarchitecture::Parameters;

/// Memory that is used again from block to block.
#[derive(Clone, Debug, Default)]
pub(super) struct Windows {
    windows: Vec<Window>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    /// Instructions that end in it, and those that only have their opcode in it.
    count: u32,
    /// Length-changing prefixes of instructions that end in it.
    prefixes: u32,
}

/// Cycles per iteration of code of `bytes` bytes that is repeated without a gap.
///
/// A window of 16 bytes takes a cycle for every five instructions that end in it or have their
/// opcode in it and end in the next. A length-changing prefix stalls, but what the window before
/// took beyond its first cycle hides part of that.
pub(super) fn predecode(
    layout: &[Layout],
    bytes: u32,
    parameters: &Parameters,
    work: &mut Windows,
) -> f32 {
    let fetch = parameters.fetch;
    let shift = fetch.trailing_zeros();
    // After so many iterations the code is aligned as it was.
    let iterations = fetch / gcd(bytes, fetch);
    let count = (bytes * iterations / fetch) as usize;
    work.windows.clear();
    work.windows.resize(count, Window::default());
    for iteration in 0..iterations {
        for instruction in layout {
            let start = iteration * bytes + instruction.start;
            let opcode = (start + u32::from(instruction.opcode)) >> shift;
            let end = (start + u32::from(instruction.length) - 1) >> shift;
            let last = &mut work.windows[end as usize];
            last.count += 1;
            last.prefixes += u32::from(instruction.length_changing);
            if opcode != end {
                work.windows[opcode as usize].count += 1;
            }
        }
    }
    let cycles = |window: &Window| window.count.div_ceil(parameters.predecode).max(1);
    let mut before = work.windows.last().map_or(1, cycles);
    let mut sum = 0;
    for window in &work.windows {
        let own = cycles(window);
        sum += own;
        sum += (parameters.lcp * window.prefixes).saturating_sub(before - 1);
        before = own;
    }
    sum as f32 / iterations as f32
}

/// A window of the fetch block's size, as [`predecode`] left it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowCycles {
    /// First byte, counted from the beginning of an iteration that is aligned.
    pub(crate) start: u32,
    /// Instructions that end in it, and those that only have their opcode in it.
    pub(crate) count: u32,
    /// Length-changing prefixes of instructions that end in it.
    pub(crate) prefixes: u32,
    /// Cycles it takes.
    pub(crate) cycles: u32,
}

impl Windows {
    /// The windows of the code until it is aligned as at the beginning.
    pub(super) fn cycles(&self, parameters: &Parameters) -> Vec<WindowCycles> {
        let own = |window: &Window| window.count.div_ceil(parameters.predecode).max(1);
        let mut before = self.windows.last().map_or(1, own);
        (0..)
            .zip(&self.windows)
            .map(|(number, window)| {
                let hidden = std::mem::replace(&mut before, own(window)) - 1;
                let stalls = (parameters.lcp * window.prefixes).saturating_sub(hidden);
                WindowCycles {
                    start: number * parameters.fetch,
                    count: window.count,
                    prefixes: window.prefixes,
                    cycles: own(window) + stalls,
                }
            })
            .collect()
    }
}

fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
