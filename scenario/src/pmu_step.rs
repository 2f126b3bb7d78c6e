//! Steps about counters, their interrupts and PEBS.

use vlbr_arch::Cpl;
use vlbr_pmu::{Interrupt, Source};

use crate::{Check, Expr, ReadCheck};

/// A field of the core's state that PEBS records hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StateField {
    /// A general-purpose register, by its number.
    Gpr(usize),
    /// RFLAGS.
    Rflags,
    /// Address of the next instruction.
    Rip,
    /// Address of the sampled instruction.
    EventingIp,
    /// Time-stamp counter.
    Tsc,
    /// Linear address of the data accessed.
    DataAddress,
    /// Data source.
    DataSource,
    /// Latency.
    Latency,
    /// Transaction information.
    TxAbort,
}

impl StateField {
    /// Every field with its name.
    pub const NAMED: [(Self, &'static str); 24] = [
        (Self::Gpr(0), "rax"),
        (Self::Gpr(1), "rcx"),
        (Self::Gpr(2), "rdx"),
        (Self::Gpr(3), "rbx"),
        (Self::Gpr(4), "rsp"),
        (Self::Gpr(5), "rbp"),
        (Self::Gpr(6), "rsi"),
        (Self::Gpr(7), "rdi"),
        (Self::Gpr(8), "r8"),
        (Self::Gpr(9), "r9"),
        (Self::Gpr(10), "r10"),
        (Self::Gpr(11), "r11"),
        (Self::Gpr(12), "r12"),
        (Self::Gpr(13), "r13"),
        (Self::Gpr(14), "r14"),
        (Self::Gpr(15), "r15"),
        (Self::Rflags, "rflags"),
        (Self::Rip, "rip"),
        (Self::EventingIp, "eventing_ip"),
        (Self::Tsc, "tsc"),
        (Self::DataAddress, "data_address"),
        (Self::DataSource, "data_source"),
        (Self::Latency, "latency"),
        (Self::TxAbort, "tx_abort"),
    ];
}

/// What a step about counters does or expects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PmuStep {
    /// `run`: so much of each source, on one boundary.
    Run {
        /// Amounts.
        amounts: Vec<(Expr, Source)>,
        /// Where it executes.
        cpl: Cpl,
        /// In a transaction.
        in_tx: bool,
    },
    /// `rdpmc`.
    Rdpmc {
        /// ECX.
        ecx: Expr,
        /// Where it executes.
        cpl: Cpl,
        /// CR4.PCE.
        pce: bool,
        /// What it gives.
        check: ReadCheck,
    },
    /// Software writes the LVT entry.
    SetLvtpc(Expr),
    /// The LVT entry.
    Lvtpc(Check),
    /// The core takes interrupts: what PMI is delivered.
    Deliver(Option<Interrupt>),
    /// Eight bytes of memory are written.
    SetMemory(Expr, Expr),
    /// Eight bytes of memory.
    Memory(Expr, Check),
    /// The core's state changes.
    SetState(StateField, Expr),
}
