//! What a guest executes.

use vlbr_arch::{CodeSize, Cpl};
use vlbr_cpu::{Block, Code, Exit, ExitSites, Interner, Mode, ModeSource, Step, StepId, Target};
use vlbr_traces::vlt::{ChunkBuffer, MachineAccess, Position, SideBuffer, Trace, VltError};

use crate::{LoopSpec, SceneError};

/// Where a guest's instructions come from; made once and shared by all runs of a scene.
#[derive(Debug)]
pub enum GuestSource {
    /// A thread of a trace.
    Trace {
        /// The trace.
        trace: Box<Trace>,
        /// The numbers of the thread's chunks.
        chunks: Vec<usize>,
        /// It begins again when it has ended.
        repeat: bool,
    },
    /// A loop.
    Loop {
        /// Its code.
        code: Box<Code>,
        /// A round of it.
        steps: Vec<StepId>,
    },
}

impl GuestSource {
    /// A thread of a trace.
    ///
    /// # Errors
    /// The trace has no such thread, or nothing of it.
    pub fn trace(trace: Trace, thread: usize, repeat: bool) -> Result<Self, String> {
        let threads = trace.threads().len();
        if thread >= threads {
            return Err(format!("thread {thread}: the trace has {threads}"));
        }
        let chunks = trace.chunks().iter().enumerate();
        let chunks: Vec<_> = chunks
            .filter(|(_, chunk)| chunk.thread.0 as usize == thread)
            .map(|(index, _)| index)
            .collect();
        if chunks.is_empty() {
            return Err(format!("thread {thread}: nothing of it was recorded"));
        }
        Ok(Self::Trace {
            trace: Box::new(trace),
            chunks,
            repeat,
        })
    }

    /// A loop of jumps in a guest's kernel.
    ///
    /// # Errors
    /// Its blocks cannot be made; with a checked specification they can.
    pub fn looped(spec: LoopSpec) -> Result<Self, SceneError> {
        let bad = |error: &dyn core::fmt::Display| SceneError::value("loop", error.to_string());
        const BASE: u64 = 0xffff_ffff_8100_0000;
        const SPACING: u64 = 0x80;
        let mode = Mode {
            code_size: CodeSize::Bits64,
            cpl: Cpl::Ring0,
            cs_base: 0,
            space: 0,
            source: ModeSource::Inferred,
        };
        let branches = u64::from(spec.branches);
        let mut interner = Interner::new();
        let mut steps = Vec::with_capacity(usize::from(spec.branches));
        for n in 0..branches {
            let at = BASE + SPACING * n;
            let next = BASE + SPACING * ((n + 1) % branches);
            let mut bytes = vec![0x90; usize::from(spec.length) - 1];
            let end = at + bytes.len() as u64 + 5;
            bytes.push(0xe9);
            bytes.extend((next.wrapping_sub(end) as u32).to_le_bytes());
            let block = Block::decode(at, mode, &bytes).map_err(|e| bad(&e))?;
            let retired = block.instructions();
            let block = interner.block(block).map_err(|e| bad(&e))?;
            let exit = Exit::Taken {
                target: Target {
                    address: next,
                    cs_base: 0,
                    code_size: CodeSize::Bits64,
                    cpl: Cpl::Ring0,
                },
                mispredicted: false,
                in_tx: false,
            };
            let step = Step {
                block,
                retired,
                exit,
            };
            steps.push(interner.step(step).map_err(|e| bad(&e))?);
        }
        Ok(Self::Loop {
            code: Box::new(interner.into_code()),
            steps,
        })
    }

    /// How many instructions there are, up to a limit; `None`: without end.
    #[must_use]
    pub fn instructions(&self, limit: Option<u64>) -> Option<u64> {
        let own = match self {
            Self::Trace {
                trace,
                chunks,
                repeat: false,
            } => {
                let all = trace.chunks();
                Some(
                    chunks
                        .iter()
                        .map(|n| all[*n].counts.instructions.total())
                        .sum::<u64>(),
                )
            }
            _ => None,
        };
        match (own, limit) {
            (Some(own), Some(limit)) => Some(own.min(limit)),
            (own, limit) => own.or(limit),
        }
    }

    /// The blocks and steps.
    #[must_use]
    pub fn code(&self) -> &Code {
        match self {
            Self::Trace { trace, .. } => trace.code(),
            Self::Loop { code, .. } => code,
        }
    }
}

/// A guest on its way through its instructions. Memory does not grow with the way.
#[derive(Debug)]
pub struct Guest<'s> {
    source: &'s GuestSource,
    sites: ExitSites,
    buffer: ChunkBuffer,
    side: SideBuffer,
    /// The chunk's steps.
    steps: Vec<StepId>,
    accesses: Vec<(Position, MachineAccess)>,
    /// The next step of `steps`, and of `accesses`.
    next: usize,
    next_access: usize,
    /// The next chunk.
    chunk: usize,
    ended: bool,
}

impl<'s> Guest<'s> {
    /// At the beginning.
    #[must_use]
    pub fn new(source: &'s GuestSource) -> Self {
        let steps = match source {
            GuestSource::Trace { .. } => Vec::new(),
            GuestSource::Loop { steps, .. } => steps.clone(),
        };
        Self {
            source,
            sites: ExitSites::new(source.code()),
            buffer: ChunkBuffer::new(),
            side: SideBuffer::default(),
            steps,
            accesses: Vec::new(),
            next: 0,
            next_access: 0,
            chunk: 0,
            ended: false,
        }
    }

    /// The blocks and steps.
    #[must_use]
    pub fn code(&self) -> &'s Code {
        self.source.code()
    }

    /// Instructions that may exit, block by block.
    #[must_use]
    pub const fn sites(&self) -> &ExitSites {
        &self.sites
    }

    /// Whether everything has been executed.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        self.ended
    }

    /// The next step.
    ///
    /// # Errors
    /// The trace is damaged.
    pub fn step(&mut self) -> Result<Option<StepId>, VltError> {
        loop {
            if let Some(step) = self.steps.get(self.next) {
                self.next += 1;
                return Ok(Some(*step));
            }
            if self.ended || !self.refill()? {
                self.ended = true;
                return Ok(None);
            }
        }
    }

    /// What instruction `index` of the step that was given last accessed, as far as recorded.
    pub fn access(&mut self, index: u16) -> Option<MachineAccess> {
        let position = Position {
            step: self.next.saturating_sub(1) as u32,
            instruction: index,
        };
        while let Some((at, access)) = self.accesses.get(self.next_access) {
            if *at > position {
                return None;
            }
            self.next_access += 1;
            if *at == position {
                return Some(*access);
            }
        }
        None
    }

    fn refill(&mut self) -> Result<bool, VltError> {
        let GuestSource::Trace {
            trace,
            chunks,
            repeat,
        } = self.source
        else {
            self.next = 0;
            return Ok(true);
        };
        if self.chunk == chunks.len() && *repeat {
            self.chunk = 0;
        }
        let Some(&index) = chunks.get(self.chunk) else {
            return Ok(false);
        };
        self.chunk += 1;
        self.accesses = trace.machine_accesses(index, &mut self.side)?;
        let chunk = trace.decode(index, &mut self.buffer)?;
        self.steps.clear();
        self.steps.extend(chunk.steps());
        self.next = 0;
        self.next_access = 0;
        Ok(true)
    }
}
