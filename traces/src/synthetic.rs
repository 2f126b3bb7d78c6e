//! Synthetic instruction traces: a random program and its execution, the same for the same seed.
//!
//! The code is real x86 code with loops, calls, recursion, returns, switches, indirect calls, REP
//! strings and, if asked for, system calls, interrupts and faults served by a small kernel. The
//! steps obey every rule of [`vlbr_cpu::Step::check`].

mod program;
mod record;
mod rng;
mod walk;

use vlbr_arch::CodeSize;
use vlbr_cpu::{Code, CodeError, Interner, StepId};

pub(crate) use program::BODY;
use program::Program;
pub use record::{RecordError, record};
pub(crate) use rng::Rng;
use walk::Walk;

/// What to generate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntheticConfig {
    /// Everything random follows from it.
    pub seed: u64,
    /// Functions of the user program; its code grows in proportion.
    pub functions: u16,
    /// Average number of blocks of a function, at least 3.
    pub blocks_per_function: u16,
    /// Threads, which run the same program each in its own way.
    pub threads: u16,
    /// Code size; 16-bit code is generated as 32-bit code.
    pub code_size: CodeSize,
    /// Whether there are system calls, and a kernel that serves them.
    pub kernel: bool,
    /// With a kernel: one user step in this many is interrupted or faults; 0 for none.
    pub one_in_interrupted: u32,
    /// One taken branch in this many was mispredicted; 0 for none.
    pub one_in_mispredicted: u32,
}

impl Default for SyntheticConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            functions: 60,
            blocks_per_function: 12,
            threads: 1,
            code_size: CodeSize::Bits64,
            kernel: true,
            one_in_interrupted: 2000,
            one_in_mispredicted: 0,
        }
    }
}

impl SyntheticConfig {
    /// The default program of this seed.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        Self {
            seed,
            ..Self::default()
        }
    }
}

/// A random program in execution. Runs for ever: the caller decides how many steps to take.
///
/// ```
/// use vlbr_traces::synthetic::{Synthetic, SyntheticConfig};
///
/// let mut synthetic = Synthetic::new(&SyntheticConfig::with_seed(7))?;
/// let steps = synthetic.run(0, 10_000)?;
/// let retired: u64 = steps.iter().map(|&s| u64::from(synthetic.code().step(s).retired)).sum();
/// assert!((10_000..20_000).contains(&retired));
/// # Ok::<(), vlbr_cpu::CodeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Synthetic {
    program: Program,
    interner: Interner,
    walks: Vec<Walk>,
}

impl Synthetic {
    /// Builds the program.
    ///
    /// # Errors
    /// None for any configuration known; the type is that of the code table.
    pub fn new(config: &SyntheticConfig) -> Result<Self, CodeError> {
        let config = SyntheticConfig {
            code_size: match config.code_size {
                CodeSize::Bits64 => CodeSize::Bits64,
                CodeSize::Bits16 | CodeSize::Bits32 => CodeSize::Bits32,
            },
            ..config.clone()
        };
        let program = Program::build(&config)?;
        let mut seeds = Rng::new(!config.seed);
        let walks = (0..config.threads.max(1))
            .map(|_| Walk::new(&program, &config, seeds.next()))
            .collect();
        Ok(Self {
            program,
            interner: Interner::new(),
            walks,
        })
    }

    /// Number of threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.walks.len()
    }

    /// Addresses of the user program's code.
    #[must_use]
    pub const fn user_code(&self) -> std::ops::Range<u64> {
        program::USER_BASE..self.program.user_end
    }

    /// The next step of a thread. Numbers above [`Synthetic::threads`] wrap.
    ///
    /// # Errors
    /// The code table is full.
    pub fn step(&mut self, thread: usize) -> Result<StepId, CodeError> {
        let thread = thread % self.walks.len();
        self.walks[thread].step(&self.program, &mut self.interner)
    }

    /// Steps of a thread until at least `instructions` have retired.
    ///
    /// # Errors
    /// The code table is full.
    pub fn run(&mut self, thread: usize, instructions: u64) -> Result<Vec<StepId>, CodeError> {
        let mut steps = Vec::new();
        let mut retired = 0;
        while retired < instructions {
            let id = self.step(thread)?;
            retired += u64::from(self.code().step(id).retired);
            steps.push(id);
        }
        Ok(steps)
    }

    /// The blocks and steps met so far.
    #[must_use]
    pub fn code(&self) -> &Code {
        self.interner.code()
    }

    /// The same, given up.
    #[must_use]
    pub fn into_code(self) -> Code {
        self.interner.into_code()
    }
}

#[cfg(test)]
mod tests;
