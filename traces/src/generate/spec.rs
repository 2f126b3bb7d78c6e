//! What is to be generated: the fields of a spec, as TOML has them. docs/gen.md explains each.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use vlbr_data::{TomlError, parse_toml};

use super::check::{SpecError, check};

/// A share of a whole that goes with a value, such as loops of so many trips.
pub type Share<T> = (T, f64);

/// A synthetic guest or program.
///
/// Every `Spec` that [`Spec::from_toml`] returns was checked; one made otherwise is checked by
/// [`Spec::check`] before it is used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Name of the guest or program, which the trace repeats.
    pub name: String,
    /// Everything random follows from it.
    #[serde(default)]
    pub seed: u64,
    /// Instructions of each thread or vCPU.
    pub instructions: u64,
    /// Threads; vCPUs if there is a kernel.
    #[serde(default = "one")]
    pub threads: u32,
    /// Share of the instructions that run at CPL 0, if there is code of both rings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_share: Option<f64>,
    /// System calls, interrupts and faults.
    #[serde(default)]
    pub events: Events,
    /// Code at CPL 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<CodeSpec>,
    /// Code at CPL 0; without it the kernel is not seen, as in a recording of a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<CodeSpec>,
    /// Use of the LBR by the guest's kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lbr: Option<LbrUse>,
    /// Instructions that can cause VM exits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exits: Vec<ExitRate>,
}

/// How often the ring changes, per million instructions of any ring.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Events {
    /// SYSCALL instructions of the user code.
    pub syscalls: f64,
    /// Interrupts, those that end a HLT included and those of `lbr` not.
    pub interrupts: f64,
    /// Faults.
    pub exceptions: f64,
    /// Average instructions of a handler in a guest without user code; with user code the share of
    /// the kernel decides.
    pub handler: f64,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            syscalls: 0.0,
            interrupts: 0.0,
            exceptions: 0.0,
            handler: 1000.0,
        }
    }
}

/// The code of one ring.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodeSpec {
    /// Functions at most.
    pub functions: u32,
    /// Instructions per branch, the branch included.
    pub block: f64,
    /// Branches by class.
    pub branches: Branches,
    /// Conditional branches that go forward.
    #[serde(default)]
    pub conditional: Conditional,
    /// Conditional branches that go backward.
    #[serde(default)]
    pub loops: Loops,
    /// Call depth and recursion.
    #[serde(default)]
    pub calls: Calls,
    /// Targets of indirect branches.
    #[serde(default)]
    pub indirect: Indirect,
}

/// Shares of the near branches that retire. With a return for each call but those to the next
/// instruction they sum to 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Branches {
    /// Jcc, taken or not.
    pub conditional: f64,
    /// JMP rel.
    pub jump: f64,
    /// JMP r/m.
    pub indirect_jump: f64,
    /// CALL rel; at least 0.001.
    pub call: f64,
    /// CALL r/m.
    pub indirect_call: f64,
    /// CALL rel to the next instruction, which nothing returns from.
    pub zero_call: f64,
}

impl Branches {
    /// Share of returns.
    #[must_use]
    pub fn returns(&self) -> f64 {
        self.call + self.indirect_call
    }
}

/// Bias of the forward conditional branches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conditional {
    /// Probability of a site's branch to be taken, with the share of executions at such sites.
    pub taken: Vec<Share<f64>>,
}

impl Default for Conditional {
    fn default() -> Self {
        Self {
            taken: vec![
                (0.0, 0.35),
                (0.02, 0.25),
                (0.5, 0.15),
                (0.98, 0.15),
                (1.0, 0.1),
            ],
        }
    }
}

/// Loops.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Loops {
    /// Share of the conditional branches that end a loop's pass.
    pub share: f64,
    /// Average passes each time a loop is entered, with the share of the loop branches' executions.
    pub trips: Vec<Share<f64>>,
    /// Deepest nest of loops in a function.
    pub nest: u32,
}

impl Default for Loops {
    fn default() -> Self {
        Self {
            share: 0.2,
            trips: vec![(3.0, 0.4), (12.0, 0.4), (60.0, 0.2)],
            nest: 2,
        }
    }
}

/// Call depth, counted in calls since the thread began or the kernel was entered. Calls of a function
/// to itself do not count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Calls {
    /// Frames below everything else: user code enters them once, a kernel at each entry.
    pub base: u32,
    /// Shares of the calls that lead to depth `base` + 1, `base` + 2, ...
    pub depth: Vec<f64>,
    /// Share of the calls that are those of a function to itself.
    pub recursion: f64,
    /// Average number of frames of a recursion.
    pub recursion_depth: f64,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            base: 1,
            depth: vec![0.15, 0.25, 0.25, 0.2, 0.1, 0.05],
            recursion: 0.0,
            recursion_depth: 4.0,
        }
    }
}

/// Targets of indirect branches: how many a site has, with the share of executions at such sites.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Indirect {
    /// Of JMP r/m.
    pub jump_targets: Vec<Share<u32>>,
    /// Of CALL r/m.
    pub call_targets: Vec<Share<u32>>,
}

impl Default for Indirect {
    fn default() -> Self {
        Self {
            jump_targets: vec![(2, 0.4), (8, 0.6)],
            call_targets: vec![(1, 0.5), (3, 0.5)],
        }
    }
}

/// An instruction that can cause a VM exit, with its rate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExitRate {
    /// Name as the SDM writes it, in any case: "cpuid", "hlt", "mov to cr3".
    pub instruction: String,
    /// How often it retires, per million instructions of any ring.
    pub per_million: f64,
    /// Ring of the code that holds it, 0 or 3; the kernel's if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<u8>,
    /// EAX of CPUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaf: Option<u32>,
    /// ECX of CPUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subleaf: Option<u32>,
    /// Port of IN, OUT, INS and OUTS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Register of RDMSR, WRMSR and WRMSRNS: the SDM's name or 0x and its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msr: Option<String>,
    /// What is written by WRMSR, WRMSRNS and OUT; 0 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<u64>,
}

/// Use of the LBR by the guest's kernel: interrupts whose handler reads the whole stack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LbrUse {
    /// Processor whose registers are accessed, by the name of its LBR profile.
    pub cpu: String,
    /// Instructions between two reads of the stack.
    pub period: u64,
    /// What is written to `MSR_LBR_SELECT`, or to the filter bits of `IA32_LBR_CTL`.
    #[serde(default)]
    pub select: u64,
    /// Whether a counter is programmed and its PMIs acknowledged, as Linux's handler does; otherwise a
    /// timer interrupts, and the handler stops the LBR while it reads.
    #[serde(default = "yes")]
    pub counter: bool,
    /// Instructions from the start of a session to its end; without it the LBR is used all the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<u64>,
    /// Instructions from the end of a session to the start of the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<u64>,
}

const fn one() -> u32 {
    1
}

const fn yes() -> bool {
    true
}

/// Why a text is no spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It is no TOML, or has other fields.
    #[error(transparent)]
    Toml(#[from] TomlError),
    /// What it asks for cannot be.
    #[error(transparent)]
    Spec(#[from] SpecError),
}

impl Spec {
    /// Reads and checks a spec.
    ///
    /// # Errors
    /// See [`ParseError`].
    pub fn from_toml(text: &str) -> Result<Self, ParseError> {
        let spec: Self = parse_toml(text)?;
        spec.check()?;
        Ok(spec)
    }

    /// Whether it can be generated.
    ///
    /// # Errors
    /// The first field that cannot be so, and why.
    pub fn check(&self) -> Result<(), SpecError> {
        check(self)
    }

    /// The spec as TOML that [`Spec::from_toml`] reads.
    #[must_use]
    pub fn to_toml(&self) -> String {
        // A checked spec has numbers, texts and tables only, and no number above 2^63.
        toml::to_string(self).unwrap_or_default()
    }

    /// SHA-256 of [`Spec::to_toml`], in hexadecimal: the same for the same trace.
    #[must_use]
    pub fn digest(&self) -> String {
        let digest = Sha256::digest(self.to_toml().as_bytes());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Instructions of all threads.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.instructions * self.threads as u64
    }
}
