//! When micro-operations reach the queue in front of the renamer.

use crate::microarchitecture::Parameters;
use crate::pipeline::Pipeline;
use crate::scoreboard::inst::{Flags, Inst};

/// No window: that of the last address folds to another number.
const NOWHERE: u32 = u32::MAX;
/// Micro-operations that a decoder group or line takes until a new one begins.
const FULL: u32 = u32::MAX / 2;

/// Micro-operations of an instruction that is not microcode, at most.
pub(super) const IN_ONE: u32 = 4;

/// Where the micro-operations of a window come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// The uop cache.
    Cached,
    /// Predecoder and decoders.
    Decoded,
}

/// Fetch, decoders and uop cache, as a cursor that each instruction moves on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FrontEnd {
    /// Cycle in which the last micro-operations were delivered.
    pub(super) cycle: u64,
    path: Path,
    window: u32,
    /// Micro-operations delivered in this cycle, and from how many lines of the uop cache.
    delivered: u32,
    lines: u32,
    /// The decoders take the next instruction in another cycle.
    breaks: bool,
    /// Cycle in which the predecoder handed over its last instruction, and whether the next one lies behind it.
    predecoded: u64,
    follows: bool,
    cache: Vec<u32>,
    victim: Vec<u8>,
    sets: u32,
    ways: usize,
    /// Properties of instructions that the uop cache does not hold; of those that it does not deliver now.
    uncached: Flags,
    undelivered: Flags,
}

impl FrontEnd {
    pub(super) fn new(pipeline: &Pipeline) -> Self {
        let (sets, ways) = (pipeline.dsb_sets as usize, pipeline.dsb_ways as usize);
        Self {
            cycle: 0,
            path: Path::Decoded,
            window: NOWHERE,
            delivered: 0,
            lines: 0,
            breaks: true,
            predecoded: 0,
            follows: false,
            cache: vec![NOWHERE; sets * ways],
            victim: vec![0; sets],
            sets: pipeline.dsb_sets,
            ways,
            uncached: Flags::default().when(Flags::TOUCHES_WINDOW_END, pipeline.jcc_erratum),
            undelivered: Flags::EVERY,
        }
    }

    /// Fetching goes on elsewhere: after a taken branch, or behind what drained the pipeline.
    pub(super) fn redirect(&mut self) {
        self.window = NOWHERE;
        self.follows = false;
        self.predecoded = self.predecoded.max(self.cycle);
    }

    /// Nothing is delivered before `cycle` from now on.
    #[inline(always)]
    pub(super) fn hold(&mut self, cycle: u64) {
        if cycle > self.cycle {
            self.cycle = cycle;
            self.delivered = FULL;
            self.breaks = true;
        }
    }

    /// Whether the uop cache has a window; if not it will.
    fn look_up(&mut self, window: u32) -> bool {
        if self.sets == 0 {
            return false;
        }
        let set = if self.sets.is_power_of_two() {
            window & (self.sets - 1)
        } else {
            window % self.sets
        };
        let set = set as usize;
        let ways = &mut self.cache[set * self.ways..][..self.ways];
        // Without a way out: a vector compares them all.
        if ways
            .iter()
            .fold(false, |found, &way| found | (way == window))
        {
            return true;
        }
        let victim = &mut self.victim[set];
        ways[usize::from(*victim)] = window;
        *victim = if usize::from(*victim) + 1 == self.ways {
            0
        } else {
            *victim + 1
        };
        false
    }

    /// Delivers an instruction that is not fused with the one before; the cycle. `OTHER`: it may be microcode.
    #[inline(always)]
    pub(super) fn deliver<const OTHER: bool>(
        &mut self,
        inst: &Inst,
        uops: u32,
        parameters: &Parameters,
        pipeline: &Pipeline,
    ) -> u64 {
        if inst.window != self.window {
            self.enter(inst.window, pipeline);
        }
        if !inst.flags.any(self.undelivered) {
            self.cached::<OTHER>(uops, parameters, pipeline);
        } else {
            if self.path == Path::Cached {
                // The line was not kept: the decoders take over until the next window.
                self.set_path(Path::Decoded);
                self.cycle += u64::from(pipeline.dsb_switch);
                self.follows = false;
                self.predecoded = self.predecoded.max(self.cycle);
                self.breaks = true;
            }
            self.decode::<OTHER>(inst, uops, pipeline);
        }
        self.cycle
    }

    fn set_path(&mut self, path: Path) {
        self.path = path;
        self.undelivered = match path {
            Path::Cached => self.uncached,
            Path::Decoded => Flags::EVERY,
        };
    }

    #[inline(never)]
    fn enter(&mut self, window: u32, pipeline: &Pipeline) {
        let known = self.look_up(window);
        // From the decoders back to the uop cache only where fetching goes on elsewhere.
        let stays = self.path == Path::Decoded && self.window != NOWHERE;
        let path = if known && !stays {
            Path::Cached
        } else {
            Path::Decoded
        };
        match (self.path, path) {
            // A cycle delivers from one window and the one behind it.
            (Path::Cached, Path::Cached) if self.window != NOWHERE && self.lines < 2 => {
                self.lines += 1;
            }
            (_, Path::Cached) => self.delivered = FULL,
            (Path::Cached, Path::Decoded) => {
                self.cycle += u64::from(pipeline.dsb_switch);
                self.follows = false;
                self.predecoded = self.predecoded.max(self.cycle);
                self.breaks = true;
            }
            (Path::Decoded, Path::Decoded) if self.window == NOWHERE => self.breaks = true,
            (Path::Decoded, Path::Decoded) => {}
        }
        self.set_path(path);
        self.window = window;
    }

    #[inline(always)]
    fn cached<const OTHER: bool>(
        &mut self,
        uops: u32,
        parameters: &Parameters,
        pipeline: &Pipeline,
    ) {
        if OTHER && uops > IN_ONE {
            self.microcode(uops, pipeline);
            return;
        }
        if self.delivered + uops > parameters.uop_cache {
            self.cycle += 1;
            self.delivered = 0;
            self.lines = 1;
        }
        self.delivered += uops;
    }

    #[inline(never)]
    fn microcode(&mut self, uops: u32, pipeline: &Pipeline) {
        self.cycle += u64::from(pipeline.ms_switch) + u64::from(uops.div_ceil(4));
        self.delivered = FULL;
        self.breaks = true;
    }

    /// Decoders and predecoder: what they take in a cycle follows from the code, from where a block begins on.
    #[inline(always)]
    fn decode<const OTHER: bool>(&mut self, inst: &Inst, uops: u32, pipeline: &Pipeline) {
        let least = u64::from(!self.follows);
        self.follows = true;
        self.predecoded += least.max(inst.predecode.into());
        if OTHER && uops > IN_ONE {
            self.cycle = self.cycle.max(self.predecoded);
            self.microcode(uops, pipeline);
            return;
        }
        let begins = inst.flags.any(Flags::BEGINS_GROUP) | self.breaks;
        self.breaks = false;
        self.cycle = (self.cycle + u64::from(begins)).max(self.predecoded);
    }
}
