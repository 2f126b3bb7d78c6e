//! How fast instructions become micro-operations without the uop cache.

use crate::lower::Layout;
use crate::microarchitecture::Parameters;

/// Iterations after which the pattern of decoders is taken as settled.
const ITERATIONS: usize = 24;

/// Cycles per iteration of the decoders.
///
/// The first decoder takes any instruction, the others only those of one micro-operation; behind
/// an instruction of several, as many decoders stay idle as the width of the output asks for.
pub(super) fn decode(layout: &[Layout], parameters: &Parameters) -> f32 {
    watched(layout, parameters, |_, _| {})
}

/// Why an instruction is not decoded in the cycle of the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Delay {
    /// Every decoder has an instruction, or one before ended the group.
    Full,
    /// It needs the first decoder.
    First,
    /// It could fuse with a branch, which the last decoder cannot see.
    Fusible,
    /// The microcode sequencer delivers it, for so many cycles.
    Sequencer(u32),
}

/// The delays of each instruction, each kind once.
pub(super) fn delays(layout: &[Layout], parameters: &Parameters) -> Vec<(usize, Delay)> {
    let mut found = Vec::new();
    watched(layout, parameters, |at, delay| {
        if !found.contains(&(at, delay)) {
            found.push((at, delay));
        }
    });
    found.sort_unstable();
    found
}

/// [`decode`], telling every delay.
#[inline(always)]
fn watched(
    layout: &[Layout],
    parameters: &Parameters,
    mut delayed: impl FnMut(usize, Delay),
) -> f32 {
    let mut decoders = Decoders::new(parameters);
    let mut starts: [(u32, u32); ITERATIONS] = [(0, 0); ITERATIONS];
    for iteration in 0..ITERATIONS {
        for (at, instruction) in layout.iter().enumerate() {
            if instruction.decoded == 0 {
                continue;
            }
            decoders.take(instruction, |delay| delayed(at, delay));
            if at == 0 {
                starts[iteration] = (decoders.used, decoders.cycle);
                // The same decoder takes the first instruction again: the pattern repeats.
                let here = decoders.used;
                let earlier = starts[..iteration].iter().rposition(|s| s.0 == here);
                if let Some(earlier) = earlier {
                    let cycles = decoders.cycle - starts[earlier].1;
                    return cycles as f32 / (iteration - earlier) as f32;
                }
            }
        }
    }
    decoders.cycle as f32 / ITERATIONS as f32
}

/// The decoders of a cycle.
#[derive(Clone, Debug)]
pub(crate) struct Decoders {
    width: u32,
    output: u32,
    sequencer: f32,
    fusible_last: bool,
    cycle: u32,
    /// Instructions decoded in this cycle so far, which is the decoder that takes the next one.
    taken: u32,
    /// Decoders and micro-operations of this cycle so far.
    used: u32,
    delivered: u32,
}

impl Decoders {
    /// The first instruction begins a cycle.
    pub(crate) fn new(parameters: &Parameters) -> Self {
        Self {
            width: parameters.decoders,
            output: parameters.decoded,
            sequencer: parameters.sequencer,
            fusible_last: parameters.fusible_waits,
            cycle: 0,
            taken: 0,
            used: parameters.decoders,
            delivered: 0,
        }
    }

    fn next(&mut self) {
        self.cycle += 1;
        self.taken = 0;
        self.used = 0;
        self.delivered = 0;
    }

    /// Decodes the next instruction; tells what delays it.
    #[inline(always)]
    pub(crate) fn take(&mut self, instruction: &Layout, mut delayed: impl FnMut(Delay)) {
        let uops = u32::from(instruction.decoded);
        let microcoded = uops > 4;
        let full = self.used >= self.width || self.delivered + uops.min(4) > self.output;
        // It could fuse with what the next cycle decodes.
        let waits = self.fusible_last && instruction.fusible && self.taken + 1 == self.width;
        let first = instruction.complex && self.used > 0;
        if full || waits || first {
            delayed(match (full, first) {
                (true, _) => Delay::Full,
                (_, true) => Delay::First,
                _ => Delay::Fusible,
            });
            self.next();
        }
        self.taken += 1;
        self.used += 1;
        if instruction.complex {
            let left = (self.width - 1).saturating_sub(u32::from(instruction.leaves));
            self.used += left;
        }
        self.delivered += uops.min(4);
        if microcoded {
            let cycles = self.sequencer as u32 + (uops - 4).div_ceil(4);
            delayed(Delay::Sequencer(cycles));
            self.cycle += cycles;
            self.used = self.width;
        } else if instruction.branch {
            self.used = self.width;
        }
    }
}
