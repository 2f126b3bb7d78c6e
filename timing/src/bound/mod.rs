//! The block bound: the fewest cycles an iteration of a repeated block can take.
//!
//! Each part of the core alone gives a bound; the largest binds. The parts are predecode, decode,
//! issue, execution ports, the divider, and cycles of dependences.

mod decode;
mod loops;
mod ports;
mod predecode;

use iced_x86::Instruction;

use crate::chain::{Step, slowest_cycle};
use crate::dependence::Work;
use crate::environment::Environment;
use crate::lower::{Facts, LowerError, Lowered, Lowering, Place, Serial};
use crate::microarchitecture::Microarchitecture;
use crate::ports::PortSet;

pub(crate) use decode::{Decoders, Delay};
pub(crate) use loops::{Delivery, Uncached};
pub(crate) use predecode::WindowCycles;

/// Cycles per iteration of the renamer. Joining a high byte with its register has a cycle of its
/// own, which ends the group before it.
fn issue(issued: u32, merges: u32, width: u32) -> f32 {
    if merges == 0 {
        issued as f32 / width as f32
    } else {
        (merges + issued.div_ceil(width)) as f32
    }
}

/// How a block is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Repetition {
    /// Copies of the block one behind the other, too many for the uop cache.
    Unrolled,
    /// The block is a hot loop. The uop cache or the queue behind it delivers it if they can hold it.
    Loop,
}

impl Repetition {
    /// Its name in output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unrolled => "unrolled",
            Self::Loop => "loop",
        }
    }
}

/// The part of the core that a bound is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Cutting bytes into instructions.
    Predecode,
    /// Instructions into micro-operations.
    Decode,
    /// The uop cache, or the loop stream detector.
    UopCache,
    /// Taken branches, of which there is one a cycle at most.
    Branches,
    /// Renaming.
    Issue,
    /// Execution ports.
    Ports,
    /// The divider.
    Divider,
    /// Stores leaving the store buffer, one after the other.
    Stores,
    /// Values that an iteration needs from the one before.
    Dependence,
    /// Instructions that serialize.
    Serial,
}

impl Part {
    /// Every part, as tables list them.
    pub const ALL: [Self; 10] = [
        Self::Predecode,
        Self::Decode,
        Self::UopCache,
        Self::Branches,
        Self::Issue,
        Self::Ports,
        Self::Divider,
        Self::Stores,
        Self::Dependence,
        Self::Serial,
    ];

    /// Its name in output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Predecode => "predecode",
            Self::Decode => "decode",
            Self::UopCache => "uop-cache",
            Self::Branches => "branches",
            Self::Issue => "issue",
            Self::Ports => "ports",
            Self::Divider => "divider",
            Self::Stores => "stores",
            Self::Dependence => "dependence",
            Self::Serial => "serial",
        }
    }
}

/// Bounds of one block, in cycles per iteration.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bound {
    parts: [f32; Part::ALL.len()],
}

impl Bound {
    /// The bound that `part` gives; 0 if it gives none.
    #[must_use]
    pub fn of(&self, part: Part) -> f32 {
        self.parts[part as usize]
    }

    /// Cycles per iteration, and the part that says so.
    #[must_use]
    pub fn binding(&self) -> (Part, f32) {
        let mut best = (Part::Issue, self.of(Part::Issue));
        for part in Part::ALL {
            if self.of(part) > best.1 {
                best = (part, self.of(part));
            }
        }
        best
    }

    /// Cycles per iteration.
    #[must_use]
    pub fn cycles(&self) -> f32 {
        self.binding().1
    }

    /// Cycles of an iteration that do not overlap with an instruction that serializes. Dependences have that
    /// instruction in them.
    fn behind(&self, serial: Serial) -> f32 {
        let apart = |part: &Part| match part {
            Part::Ports | Part::Divider => true,
            Part::Dependence | Part::Serial | Part::Stores => false,
            _ => serial == Serial::Fetch,
        };
        let parts = Part::ALL.into_iter().filter(apart);
        parts.map(|part| self.of(part)).fold(0.0, f32::max)
    }

    /// The bounds without that of `part`.
    #[must_use]
    pub fn without(mut self, part: Part) -> Self {
        self.parts[part as usize] = 0.0;
        self
    }
}

/// Computes bounds of blocks on one core. Keeps its memory from block to block.
#[derive(Debug)]
pub struct BlockModel<'a> {
    core: &'a Microarchitecture,
    lowering: Lowering,
    windows: predecode::Windows,
    unions: Vec<PortSet>,
    work: Work,
    /// Where loops begin.
    address: Option<u64>,
    /// Loops that the uop cache cannot hold come from the decoders.
    limited: bool,
}

impl<'a> BlockModel<'a> {
    /// A model of `core` for blocks that begin in `environment`.
    #[must_use]
    pub fn new(core: &'a Microarchitecture, environment: Environment) -> Self {
        Self {
            core,
            lowering: Lowering::new(environment),
            windows: predecode::Windows::default(),
            unions: Vec::new(),
            work: Work::default(),
            address: None,
            limited: false,
        }
    }

    /// From now on loops that the uop cache cannot hold come from the decoders. Without it every loop is
    /// taken as held, as the retirement scoreboard takes it.
    pub fn limit_uop_cache(&mut self) {
        self.limited = true;
    }

    fn limits(&self) -> Option<loops::Limits> {
        self.limited.then_some(loops::Limits {
            start: (self.address.unwrap_or(0) % u64::from(self.core.parameters.uop_cache_window))
                as u32,
            erratum: self.core.pipeline.jcc_erratum,
        })
    }

    /// Says where the loops to come lie: which instructions share a window of the uop cache follows from
    /// it, and which do not fuse because a cache line ends between them. Without it they begin at a window.
    pub fn begin_at(&mut self, address: u64) {
        self.address = Some(address);
    }

    fn place(&self, repetition: Repetition) -> Place {
        let looped = repetition == Repetition::Loop;
        Place {
            looped,
            address: self.address.filter(|_| looped),
        }
    }

    /// The bounds of 64-bit code.
    ///
    /// # Errors
    /// Bytes that are no instructions, none, or too many.
    pub fn bound(&mut self, bytes: &[u8], repetition: Repetition) -> Result<Bound, LowerError> {
        let place = self.place(repetition);
        self.lowering.lower(bytes, 64, place, self.core)?;
        Ok(self.bound_lowered(repetition))
    }

    /// The bounds with everything they follow from. Slow.
    pub(crate) fn examine(
        &mut self,
        bytes: &[u8],
        repetition: Repetition,
    ) -> Result<Examined<'_>, LowerError> {
        let place = self.place(repetition);
        let (instructions, facts) = self.lowering.lower_with_facts(bytes, place, self.core)?;
        let instructions = instructions.to_vec();
        let bound = self.bound_lowered(repetition);
        let lowered = &self.lowering.lowered;
        let parameters = &self.core.parameters;
        Ok(Examined {
            bound,
            instructions,
            facts,
            worst_ports: ports::worst_group(&lowered.uops, &mut self.unions).0,
            windows: match bound.of(Part::Predecode) > 0.0 {
                true => self.windows.cycles(parameters),
                false => Vec::new(),
            },
            delivery: match repetition {
                Repetition::Unrolled => None,
                Repetition::Loop => Some(loops::delivery(lowered, self.limits(), parameters)),
            },
            delays: decode::delays(&lowered.layout, parameters),
            slowest: slowest_cycle(
                &lowered.dependences,
                bound.of(Part::Dependence),
                &mut self.work,
            ),
            lowered,
        })
    }

    fn bound_lowered(&mut self, repetition: Repetition) -> Bound {
        let lowered = &self.lowering.lowered;
        let parameters = &self.core.parameters;
        let mut bound = Bound::default();
        let mut set = |part: Part, cycles: f32| bound.parts[part as usize] = cycles;
        let delivery = match repetition {
            Repetition::Unrolled => None,
            Repetition::Loop => Some(loops::delivery(lowered, self.limits(), parameters)),
        };
        let branch = lowered.layout.last().is_some_and(|last| last.branch);
        match delivery {
            Some(Delivery::Cache(cycles) | Delivery::Queue { cycles, .. }) => {
                set(Part::UopCache, cycles);
            }
            None | Some(Delivery::Decoders(_)) => {
                // A taken branch leads to the beginning of a window.
                let bytes = match delivery {
                    Some(_) if branch => lowered.bytes.next_multiple_of(parameters.fetch),
                    _ => lowered.bytes,
                };
                let predecoded =
                    predecode::predecode(&lowered.layout, bytes, parameters, &mut self.windows);
                set(Part::Predecode, predecoded);
                set(Part::Decode, decode::decode(&lowered.layout, parameters));
            }
        }
        if branch && repetition == Repetition::Loop {
            set(Part::Branches, 1.0);
        }
        set(
            Part::Issue,
            issue(lowered.issued, lowered.merges, parameters.issue),
        );
        set(Part::Ports, ports::ports(&lowered.uops, &mut self.unions));
        set(Part::Divider, lowered.dividers[0].max(lowered.dividers[1]));
        set(Part::Dependence, lowered.dependences.bound(&mut self.work));
        set(
            Part::Stores,
            lowered.stores as f32 / parameters.commit as f32 + lowered.new_pages * parameters.page,
        );
        // Of what else has cycles of its own some may overlap with the rest.
        let alone = lowered
            .serial
            .map_or(0.0, |(serial, cycles)| cycles + bound.behind(serial));
        bound.parts[Part::Serial as usize] = lowered.floor.max(alone);
        bound
    }

    /// The core.
    #[must_use]
    pub fn core(&self) -> &'a Microarchitecture {
        self.core
    }

    /// What is known when blocks begin.
    #[must_use]
    pub fn environment(&self) -> Environment {
        self.lowering.environment()
    }
}

/// A block with everything that its bounds follow from.
#[derive(Debug)]
pub(crate) struct Examined<'m> {
    pub(crate) bound: Bound,
    pub(crate) instructions: Vec<Instruction>,
    /// What became of each instruction.
    pub(crate) facts: Vec<Facts>,
    pub(crate) lowered: &'m Lowered,
    /// The ports that take longest.
    pub(crate) worst_ports: PortSet,
    /// Where the micro-operations of a loop come from.
    pub(crate) delivery: Option<Delivery>,
    /// The predecoder's windows, of code that it sees.
    pub(crate) windows: Vec<WindowCycles>,
    /// Instructions that the decoders delay.
    pub(crate) delays: Vec<(usize, Delay)>,
    /// The slowest cycle of dependences.
    pub(crate) slowest: Vec<Step>,
}

/// Cycles per iteration of the execution ports.
#[cfg(test)]
pub(crate) fn port_bound(uops: &[(PortSet, u32)]) -> f32 {
    ports::ports(uops, &mut Vec::new())
}

#[cfg(test)]
mod tests;
