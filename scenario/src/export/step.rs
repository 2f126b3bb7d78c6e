//! Steps as they stand in the JSON.

use serde::Serialize;
use vlbr_arch::Msr;

use super::hex::Hex;
use crate::{Fault, WriteOutcome};

/// A step with its place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Line {
    /// Line of the scenario file, from 1.
    pub(super) line: usize,
    /// Logical processor.
    pub(super) cpu: usize,
    /// What it does.
    #[serde(flatten)]
    pub(super) step: Step,
}

/// A register by address and name.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Named {
    pub(super) msr: Hex,
    pub(super) name: String,
}

impl From<Msr> for Named {
    fn from(msr: Msr) -> Self {
        Self {
            msr: msr.value().into(),
            name: msr.to_string(),
        }
    }
}

/// How a step ends.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub(super) enum Expect {
    /// It completes.
    Ok,
    /// It reads a value: equal to this one under the mask, or (`differs`) not.
    Value {
        value: Hex,
        mask: Hex,
        #[serde(skip_serializing_if = "core::ops::Not::not")]
        differs: bool,
    },
    /// `#GP(0)`; the reason explains and need not be told.
    Gp {
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'static str>,
    },
    /// `#UD`.
    Ud,
    /// VMfailValid with this number.
    Vmfail { number: u32 },
    /// VMfailInvalid.
    VmfailInvalid,
    /// VM exit, or an entry that fails as one.
    Exit {
        reason: Hex,
        #[serde(skip_serializing_if = "Option::is_none")]
        qualification: Option<Hex>,
    },
    /// VMX abort.
    Abort { indicator: u32 },
}

impl From<Fault> for Expect {
    fn from(fault: Fault) -> Self {
        let named = Fault::NAMED.iter().find(|(known, _)| *known == fault);
        Self::Gp {
            reason: named.map(|(_, name)| *name),
        }
    }
}

impl From<WriteOutcome> for Expect {
    fn from(outcome: WriteOutcome) -> Self {
        match outcome {
            WriteOutcome::Ok => Self::Ok,
            WriteOutcome::Fault(fault) => fault.into(),
        }
    }
}

/// A read with what it gives.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Read {
    #[serde(flatten)]
    pub(super) register: Named,
    pub(super) value: Hex,
    pub(super) mask: Hex,
}

/// A control transfer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Branch {
    pub(super) class: &'static str,
    pub(super) from: Hex,
    pub(super) to: Hex,
    pub(super) cs_base: [Hex; 2],
    pub(super) code_size: [u8; 2],
    pub(super) cpl: [u8; 2],
    pub(super) mispredicted: bool,
    pub(super) in_tx: bool,
    pub(super) abort: bool,
    pub(super) fused: u8,
    pub(super) cycles: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) effect: Option<&'static str>,
}

/// A register of the guest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct GuestAccess {
    pub(super) cpl: u8,
    #[serde(flatten)]
    pub(super) register: Named,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<Hex>,
    pub(super) expect: Expect,
}

/// So much of a source.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Amount {
    pub(super) source: &'static str,
    pub(super) amount: Hex,
}

/// What a step does or compares.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub(super) enum Step {
    Wrmsr {
        #[serde(flatten)]
        register: Named,
        value: Hex,
        expect: Expect,
    },
    Rdmsr {
        #[serde(flatten)]
        register: Named,
        expect: Expect,
    },
    /// At least one of these reads gives something else.
    SomeDiffer {
        reads: Vec<Read>,
    },
    /// Each of these registers reads 0.
    AllZero {
        msrs: Vec<Hex>,
    },
    /// None of these registers reads 0.
    NoneZero {
        msrs: Vec<Hex>,
    },
    Branch(Branch),
    /// Happens, and no record is made of it.
    Unrecorded {
        what: &'static str,
    },
    /// Core clocks pass.
    Wait {
        cycles: u64,
    },
    Pmi {
        source: &'static str,
    },
    DeepCState,
    Reset {
        kind: &'static str,
    },
    SegmentTestFails,
    LogEvent {
        counter: u8,
    },
    Xsaves {
        image: char,
        expect: Expect,
    },
    Xrstors {
        image: char,
        expect: Expect,
    },
    XrstorsInit {
        expect: Expect,
    },
    ImageWrite {
        image: char,
        offset: Hex,
        value: Hex,
    },
    ImageRead {
        image: char,
        offset: Hex,
        expect: Expect,
    },
    Cpuid {
        leaf: Hex,
        subleaf: Hex,
        register: &'static str,
        expect: Expect,
    },
    EventCount {
        event: &'static str,
        value: u64,
    },
    MemoryWrite {
        address: Hex,
        bytes: String,
    },
    MemoryFill {
        address: Hex,
        length: u64,
        byte: u8,
    },
    MemoryRead {
        address: Hex,
        size: u8,
        expect: Expect,
    },
    Vmxon {
        address: Hex,
    },
    Vmclear {
        address: Hex,
    },
    Vmptrld {
        address: Hex,
    },
    Vmwrite {
        field: Hex,
        name: String,
        value: Hex,
        expect: Expect,
    },
    Vmread {
        field: Hex,
        name: String,
        expect: Expect,
    },
    VmEntry {
        instruction: &'static str,
        vmcs: String,
        expect: Expect,
    },
    VmExit {
        reason: Hex,
        instruction_length: u8,
        expect: Expect,
    },
    GuestRdmsr(GuestAccess),
    GuestWrmsr(GuestAccess),
    GuestWrmsrns(GuestAccess),
    GuestRdpmc {
        ecx: Hex,
        cpl: u8,
        pce: bool,
        expect: Expect,
    },
    /// An event while the guest runs.
    GuestEvent {
        event: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        vector: Option<u8>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error_code: Option<Hex>,
        expect: Expect,
    },
    GuestXsaves {
        expect: Expect,
    },
    GuestXrstors {
        expect: Expect,
    },
    PreemptionTimer {
        exits: bool,
    },
    /// So much retires on one boundary.
    Run {
        amounts: Vec<Amount>,
        cpl: u8,
        in_tx: bool,
    },
    Rdpmc {
        ecx: Hex,
        cpl: u8,
        pce: bool,
        expect: Expect,
    },
    LvtpcWrite {
        value: Hex,
    },
    LvtpcRead {
        expect: Expect,
    },
    /// The core takes interrupts.
    Deliver {
        interrupt: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        vector: Option<u8>,
    },
    LinearWrite {
        address: Hex,
        bytes: String,
    },
    LinearRead {
        address: Hex,
        size: u8,
        expect: Expect,
    },
    /// What PEBS records hold.
    State {
        field: &'static str,
        value: Hex,
    },
}
