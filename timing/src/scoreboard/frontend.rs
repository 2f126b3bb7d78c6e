//! When micro-operations reach the queue in front of the renamer.

use crate::microarchitecture::Parameters;
use crate::pipeline::Pipeline;
use crate::scoreboard::inst::{Flags, Inst};

/// No window: that of the last address folds to another number.
const NOWHERE: u32 = u32::MAX;
/// Micro-operations that a decoder group or line takes until a new one begins.
const FULL: u32 = u32::MAX / 2;

/// Windows of the uop cache that are found without a search.
const RECENT: usize = 512;

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
#[repr(C)]
pub(super) struct FrontEnd {
    /// Cycle in which the last micro-operations were delivered.
    pub(super) cycle: u64,
    window: u32,
    /// Micro-operations delivered in this cycle.
    delivered: u32,
    /// Properties of instructions that the uop cache does not deliver now.
    undelivered: Flags,
    /// Of those that it does not hold.
    uncached: Flags,
    /// Lines of the uop cache that delivered in this cycle.
    lines: u32,
    path: Path,
    /// The decoders take the next instruction in another cycle.
    breaks: bool,
    /// The next instruction lies behind the last one that the predecoder handed over.
    follows: bool,
    /// Cycle in which it did.
    predecoded: u64,
    /// Windows that the uop cache has, by their lowest bits: those that were looked up last.
    recent: Box<[u32; RECENT]>,
    cache: Vec<u32>,
    victim: Vec<u8>,
    sets: u32,
    ways: usize,
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
            recent: Box::new([NOWHERE; RECENT]),
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
    #[inline(always)]
    fn look_up(&mut self, window: u32) -> bool {
        self.is_recent(window) || self.search(window)
    }

    #[inline(always)]
    fn is_recent(&self, window: u32) -> bool {
        self.recent[window as usize % RECENT] == window && window != NOWHERE
    }

    #[inline(never)]
    fn search(&mut self, window: u32) -> bool {
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
            self.recent[window as usize % RECENT] = window;
            return true;
        }
        let victim = &mut self.victim[set];
        let gone = core::mem::replace(&mut ways[usize::from(*victim)], window);
        let recent = &mut self.recent[gone as usize % RECENT];
        if *recent == gone {
            *recent = NOWHERE;
        }
        *victim = if usize::from(*victim) + 1 == self.ways {
            0
        } else {
            *victim + 1
        };
        false
    }

    /// Delivers an instruction that is not fused with the one before; the cycle. `other`: it may be microcode.
    #[inline(always)]
    pub(super) fn deliver(
        &mut self,
        inst: &Inst,
        uops: u32,
        parameters: &Parameters,
        pipeline: &Pipeline,
        other: bool,
    ) -> u64 {
        let here = inst.window == self.window && !inst.flags.any(self.undelivered);
        if here && !(other && uops > IN_ONE) {
            self.cached(uops, parameters);
        } else {
            self.deliver_otherwise(inst, uops, parameters, pipeline);
        }
        self.cycle
    }

    /// The same where a window begins, by the decoders, or of microcode.
    #[inline(never)]
    fn deliver_otherwise(
        &mut self,
        inst: &Inst,
        uops: u32,
        parameters: &Parameters,
        pipeline: &Pipeline,
    ) {
        let turns = inst.window != self.window;
        // Most often the decoders go on, or the uop cache does to another window.
        if self.path == Path::Decoded && !turns && uops <= IN_ONE {
            self.predecode(inst);
            self.decode(inst);
            return;
        }
        if self.path == Path::Cached && turns && self.is_recent(inst.window) {
            self.turn(inst.window);
            if !inst.flags.any(self.undelivered) && uops <= IN_ONE {
                self.cached(uops, parameters);
                return;
            }
        }
        self.deliver_rarely(inst, uops, parameters, pipeline);
    }

    /// The same of all that the uop cache does not deliver from the window it is in or from another one.
    #[inline(never)]
    fn deliver_rarely(
        &mut self,
        inst: &Inst,
        uops: u32,
        parameters: &Parameters,
        pipeline: &Pipeline,
    ) {
        if inst.window != self.window {
            self.enter(inst.window, pipeline);
        }
        if !inst.flags.any(self.undelivered) {
            if uops > IN_ONE {
                self.microcode(uops, pipeline);
            } else {
                self.cached(uops, parameters);
            }
            return;
        }
        if self.path == Path::Cached {
            // The line was not kept: the decoders take over until the next window.
            self.set_path(Path::Decoded);
            self.switch(pipeline);
        }
        self.predecode(inst);
        if uops > IN_ONE {
            self.cycle = self.cycle.max(self.predecoded);
            self.microcode(uops, pipeline);
        } else {
            self.decode(inst);
        }
    }

    /// The uop cache goes on to another window.
    #[inline(always)]
    fn turn(&mut self, window: u32) {
        // A cycle delivers from one window and the one behind it.
        if self.window != NOWHERE && self.lines < 2 {
            self.lines += 1;
        } else {
            self.delivered = FULL;
        }
        self.window = window;
    }

    /// The decoders take over from the uop cache.
    fn switch(&mut self, pipeline: &Pipeline) {
        self.cycle += u64::from(pipeline.dsb_switch);
        self.follows = false;
        self.predecoded = self.predecoded.max(self.cycle);
        self.breaks = true;
    }

    fn set_path(&mut self, path: Path) {
        self.path = path;
        self.undelivered = match path {
            Path::Cached => self.uncached,
            Path::Decoded => Flags::EVERY,
        };
    }

    #[inline(always)]
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
            (Path::Cached, Path::Cached) => self.turn(window),
            (Path::Decoded, Path::Cached) => self.delivered = FULL,
            (Path::Cached, Path::Decoded) => self.switch(pipeline),
            (Path::Decoded, Path::Decoded) if self.window == NOWHERE => self.breaks = true,
            (Path::Decoded, Path::Decoded) => {}
        }
        self.set_path(path);
        self.window = window;
    }

    #[inline(always)]
    fn cached(&mut self, uops: u32, parameters: &Parameters) {
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

    /// The predecoder: what it takes in a cycle follows from the code, from where a block begins on.
    #[inline(always)]
    fn predecode(&mut self, inst: &Inst) {
        let least = u64::from(!self.follows);
        self.follows = true;
        self.predecoded += least.max(inst.predecode.into());
    }

    /// The decoders, behind it: the same.
    #[inline(always)]
    fn decode(&mut self, inst: &Inst) {
        let begins = inst.flags.any(Flags::BEGINS_GROUP) | self.breaks;
        self.breaks = false;
        self.cycle = (self.cycle + u64::from(begins)).max(self.predecoded);
    }
}
