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
    segment: Register,
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
            && (self.behind(other) < other.size as u64 || other.behind(self) < self.size as u64)
    }

    /// How far it begins behind `other`. Addresses go round at 2^64.
    fn behind(&self, other: &Self) -> u64 {
        self.address.offset.wrapping_sub(other.address.offset) as u64
    }

    /// BHive maps every page to the same one.
    fn physical(mut self, environment: Environment) -> Self {
        if self.address.is_number() && environment == Environment::Bhive {
            self.address.offset &= PAGE - 1;
        }
        self
    }

    fn within(&self, other: &Self) -> bool {
        other.size >= self.size && self.behind(other) <= (other.size - self.size) as u64
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

/// A load and the store that it reads.
#[derive(Clone, Copy, Debug)]
struct Link {
    source: usize,
    blocked: usize,
    store: Value,
    /// The store holds every byte of the load.
    whole: bool,
    /// The same store of this iteration comes before the load, which reads the older one.
    overtaken: bool,
}

/// Iterations that are followed; the last one is taken as any other.
const ITERATIONS: u32 = 3;
/// Iterations after which overlaps in part are taken as lasting.
const SETTLED: u32 = 12;
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
    /// What the loads of the latest iteration read.
    links: Vec<Link>,
    untouched: Vec<(Span, Content)>,
    /// Address of each store in the iteration before the last one.
    before: Vec<Option<i64>>,
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
            segment: memory.segment(),
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

    /// Notes where a store goes, and how far that is from the iteration before.
    fn note_address(&mut self, access: usize, address: Content) {
        let Some(address) = address.as_number() else {
            return;
        };
        let before = self.before[access].replace(address);
        let step = address.wrapping_sub(before.unwrap_or(address));
        if step != 0 && !self.moving.contains(&step) {
            self.moving.push(step);
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
        self.before.resize(self.accesses.len(), None);
        self.ran.clear();
        self.untouched.clear();
        let mut registers = Registers::new(environment);
        for iteration in 0..ITERATIONS {
            self.iterate(iteration, instructions, environment, &mut registers);
        }
        // What overlaps in part may do so on the way into the steady state only.
        if self.links.iter().any(|link| !link.whole) {
            for iteration in ITERATIONS..SETTLED {
                self.iterate(iteration, instructions, environment, &mut registers);
            }
        }
        self.connect(parameters, dependences);
    }

    /// Follows one iteration and notes what its loads read.
    fn iterate(
        &mut self,
        iteration: u32,
        instructions: &[Instruction],
        environment: Environment,
        registers: &mut Registers,
    ) {
        self.links.clear();
        self.moving.clear();
        let mut next = 0;
        for (at, instruction) in instructions.iter().enumerate() {
            let first = next;
            let own = |access: &Access| access.instruction == at as u32;
            while self.accesses.get(next).is_some_and(own) {
                next += 1;
            }
            let mut loaded = None;
            for access in first..next {
                let access = self.accesses[access];
                let Kind::Load { source, blocked } = access.kind else {
                    continue;
                };
                let Some(span) = span(&access, registers) else {
                    continue;
                };
                let span = span.physical(environment);
                let found = self.latest(&span);
                loaded = self.read(&span, found, registers, environment);
                let Some(stored) = found.map(|found| self.ran[found]) else {
                    continue;
                };
                if iteration - stored.iteration <= 1 {
                    self.links.push(Link {
                        source,
                        blocked,
                        store: stored.value,
                        whole: span.within(&stored.span),
                        overtaken: iteration != stored.iteration && stored.access < first as u32,
                    });
                }
            }
            let outcome = effect::follow(instruction, self.written[at], loaded, registers);
            for number in first..next {
                let access = self.accesses[number];
                let Kind::Store(value) = access.kind else {
                    continue;
                };
                // PUSH stores below the RSP that it reads.
                if let Some(span) = span(&access, &outcome.before) {
                    self.note_address(number, span.address);
                    self.ran.push(Stored {
                        iteration,
                        access: number as u32,
                        value,
                        span: span.physical(environment),
                        content: outcome.stored,
                    });
                }
            }
        }
    }

    /// Makes the loads of the last iteration wait for what they read.
    fn connect(&mut self, parameters: &Parameters, dependences: &mut Dependences) {
        let mut names = self.stores as Value;
        for link in &self.links {
            if !link.whole {
                dependences.patch(link.source, COMMITTED, parameters.forward_blocked);
                dependences.patch(link.blocked, BLOCKED, 0.0);
                for (before, after) in self.commits.drain(..) {
                    dependences.patch(before, COMMITTED, 1.0);
                    dependences.patch(after, COMMITTED, 0.0);
                }
                continue;
            }
            let mut value = link.store;
            if link.overtaken {
                value = FIRST_STORE + names;
                names += 1;
                dependences.begin();
                dependences.input(link.store, 0.0);
                dependences.output(value, 0.0);
            }
            dependences.patch(link.source, value, parameters.forward);
        }
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

/// The bytes that `access` is about, if something is known of them.
fn span(access: &Access, registers: &Registers) -> Option<Span> {
    // The base of FS and GS is not known.
    if matches!(access.segment, Register::FS | Register::GS) {
        return None;
    }
    let mut address = Content::number(access.displacement);
    for (register, scale) in [(access.base, 1), (access.index, access.scale)] {
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
