//! Which loads read what earlier stores wrote, from what the block itself says of addresses.

mod content;
mod effect;

use iced_x86::{Instruction, Register, UsedMemory};

use crate::dependence::{Dependences, Value};
use crate::environment::Environment;
use crate::lower::memory::content::{Content, Registers};
use crate::lower::values::{BLOCKED, COMMITTED, FIRST_STORE};
use crate::microarchitecture::Parameters;

/// A load or store of the block.
#[derive(Clone, Copy, Debug)]
struct Access {
    instruction: u32,
    base: Register,
    index: Register,
    scale: u32,
    displacement: i64,
    size: i64,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Positions of the edge that waits for a store and of the output that holds back stores.
    Load { source: usize, blocked: usize },
    /// The value that the store writes.
    Store(Value),
}

/// Bytes of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    address: Content,
    size: i64,
}

impl Span {
    fn overlaps(&self, other: &Self) -> bool {
        self.address.root == other.address.root
            && self.address.offset < other.address.offset + other.size
            && other.address.offset < self.address.offset + self.size
    }

    /// BHive maps every page to the same one.
    fn physical(mut self, environment: Environment) -> Self {
        if self.address.is_number() && environment == Environment::Bhive {
            self.address.offset &= PAGE - 1;
        }
        self
    }

    fn within(&self, other: &Self) -> bool {
        other.address.offset <= self.address.offset
            && self.address.offset + self.size <= other.address.offset + other.size
    }
}

/// A store that ran.
#[derive(Clone, Copy, Debug)]
struct Stored {
    iteration: u32,
    access: u32,
    value: Value,
    span: Span,
    content: Option<Content>,
}

/// Iterations that are followed; the last one is taken as any other.
const ITERATIONS: u32 = 3;
/// Iterations are followed in blocks of at most so many accesses.
const MAX_ACCESSES: usize = 512;

const PAGE: i64 = 4096;
/// Steps of so many pages cost little: found in the measurements, not explained.
const FAR: f32 = 4.0;

/// Loads and stores of a block.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    accesses: Vec<Access>,
    /// General-purpose registers that each instruction writes.
    written: Vec<u16>,
    /// Edges that order the stores behind each other.
    commits: Vec<(usize, usize)>,
    loads: u32,
    stores: u32,
    ran: Vec<Stored>,
    untouched: Vec<(Span, Content)>,
    /// Address of each store in the iteration before the last one.
    before: Vec<i64>,
    /// Distinct steps of the stores that move.
    moving: Vec<i64>,
}

impl Memory {
    pub(super) fn clear(&mut self) {
        self.accesses.clear();
        self.written.clear();
        self.commits.clear();
        self.loads = 0;
        self.stores = 0;
    }

    /// Notes what an instruction writes.
    pub(super) fn instruction(&mut self, written: u16) {
        self.written.push(written);
    }

    fn access(&mut self, memory: &UsedMemory, kind: Kind) {
        let size = i64::try_from(memory.memory_size().size()).unwrap_or(1);
        self.accesses.push(Access {
            instruction: self.written.len() as u32,
            base: memory.base(),
            index: memory.index(),
            scale: memory.scale(),
            displacement: memory.displacement() as i64,
            size: size.max(1),
            kind,
        });
    }

    /// Notes a load with the edge that waits for a store, and the output that holds back stores.
    pub(super) fn load(&mut self, memory: &UsedMemory, source: usize, blocked: usize) {
        self.loads += 1;
        self.access(memory, Kind::Load { source, blocked });
    }

    /// Notes a store; its value.
    pub(super) fn store(&mut self, memory: &UsedMemory) -> Value {
        let value = FIRST_STORE + self.stores as Value;
        self.stores += 1;
        self.access(memory, Kind::Store(value));
        value
    }

    /// Notes the edges to the store before and the one behind. They matter, and are connected, only
    /// if a load waits until a store has left the store buffer.
    pub(super) fn commit(&mut self, before: usize, after: usize) {
        self.commits.push((before, after));
    }

    /// Pages that an iteration stores to and none before it did.
    pub(super) fn new_pages(&self) -> f32 {
        let pages = |step: &i64| match step.unsigned_abs() as f32 / PAGE as f32 {
            far if far >= FAR => 1.0 / 8.0,
            near => near.min(1.0),
        };
        self.moving.iter().map(pages).sum()
    }

    /// Where a store goes in one of the last two iterations.
    fn note_address(&mut self, access: usize, iteration: u32, address: Content) {
        let Some(address) = address.as_number() else {
            return;
        };
        if iteration + 2 == ITERATIONS {
            self.before[access] = address;
        } else if iteration + 1 == ITERATIONS && self.before[access] != i64::MIN {
            let step = address.wrapping_sub(self.before[access]);
            if step != 0 && !self.moving.contains(&step) {
                self.moving.push(step);
            }
        }
    }

    /// Follows some iterations and connects each load of the last one to the store it reads.
    pub(super) fn resolve(
        &mut self,
        instructions: &[Instruction],
        environment: Environment,
        parameters: &Parameters,
        dependences: &mut Dependences,
    ) {
        self.moving.clear();
        let forwards = self.loads > 0 && self.stores > 0;
        let moves = environment == Environment::Bhive && self.stores > 0;
        if !(forwards || moves) || self.accesses.len() > MAX_ACCESSES {
            return;
        }
        self.before.clear();
        self.before.resize(self.accesses.len(), i64::MIN);
        self.ran.clear();
        self.untouched.clear();
        let mut registers = Registers::new(environment);
        let mut kept = 0;
        for iteration in 0..ITERATIONS {
            let mut next = 0;
            for (at, instruction) in instructions.iter().enumerate() {
                let first = next;
                while self
                    .accesses
                    .get(next)
                    .is_some_and(|a| a.instruction == at as u32)
                {
                    next += 1;
                }
                let mut loaded = None;
                for access in first..next {
                    let access = self.accesses[access];
                    let Kind::Load { source, blocked } = access.kind else {
                        continue;
                    };
                    let Some(span) = self.span(&access, &registers) else {
                        continue;
                    };
                    let span = span.physical(environment);
                    let found = self.latest(&span);
                    loaded = self.read(&span, found, &mut registers, environment);
                    if iteration + 1 < ITERATIONS {
                        continue;
                    }
                    let Some(stored) = found.map(|f| self.ran[f]) else {
                        continue;
                    };
                    let whole = span.within(&stored.span);
                    let latency = if whole {
                        parameters.forward
                    } else {
                        parameters.forward_blocked
                    };
                    let distance = iteration - stored.iteration;
                    if distance > 1 {
                        continue;
                    }
                    if !whole {
                        dependences.patch(source, COMMITTED, latency);
                        dependences.patch(blocked, BLOCKED, 0.0);
                        for (before, after) in self.commits.drain(..) {
                            dependences.patch(before, COMMITTED, 1.0);
                            dependences.patch(after, COMMITTED, 0.0);
                        }
                        continue;
                    }
                    let mut value = stored.value;
                    if distance == 1 && stored.access < first as u32 {
                        // The store of this iteration has run: the older one needs a name.
                        value = FIRST_STORE + (self.stores + kept) as Value;
                        kept += 1;
                        dependences.begin();
                        dependences.input(stored.value, 0.0);
                        dependences.output(value, 0.0);
                    }
                    dependences.patch(source, value, latency);
                }
                let written = self.written[at];
                let outcome = effect::follow(instruction, written, loaded, &mut registers);
                for access in first..next {
                    let noted = self.accesses[access];
                    let Kind::Store(value) = noted.kind else {
                        continue;
                    };
                    // PUSH stores below the RSP that it reads.
                    if let Some(span) = self.span(&noted, &outcome.before) {
                        self.note_address(access, iteration, span.address);
                        let span = span.physical(environment);
                        self.ran.push(Stored {
                            iteration,
                            access: access as u32,
                            value,
                            span,
                            content: outcome.stored,
                        });
                    }
                }
            }
        }
    }

    fn span(&self, access: &Access, registers: &Registers) -> Option<Span> {
        let mut address = Content::number(access.displacement);
        for (register, scale) in [(access.base, 1), (access.index, access.scale)] {
            // RIP: the displacement is the address; each copy of the block has its own.
            if register == Register::None {
                continue;
            }
            if !register.is_gpr64() && !register.is_gpr32() {
                return None;
            }
            let content = registers.get(register)?;
            address = address.plus(content.times(i64::from(scale))?)?;
        }
        Some(Span {
            address,
            size: access.size,
        })
    }

    fn latest(&self, span: &Span) -> Option<usize> {
        self.ran
            .iter()
            .rposition(|stored| stored.span.overlaps(span))
    }

    /// What a load delivers.
    fn read(
        &mut self,
        span: &Span,
        found: Option<usize>,
        registers: &mut Registers,
        environment: Environment,
    ) -> Option<Content> {
        if let Some(found) = found {
            let stored = &self.ran[found];
            let same = stored.span.address == span.address;
            return match stored.content {
                Some(content) if same && stored.span.size == span.size => Some(content),
                Some(content) if same && span.size < stored.span.size => {
                    content.low_bytes(span.size)
                }
                _ => None,
            };
        }
        if environment == Environment::Bhive && span.address.is_number() {
            return content::fill(span.address.offset, span.size);
        }
        // The same bytes keep what they hold.
        if let Some((_, content)) = self.untouched.iter().find(|(s, _)| s == span) {
            return Some(*content);
        }
        let content = registers.fresh();
        self.untouched.push((*span, content));
        Some(content)
    }
}
