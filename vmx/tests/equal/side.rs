//! What both processors can do, and what may be looked at.

use std::collections::BTreeMap;

use vlbr_arch::vmx::VmcsField;
use vlbr_arch::{BranchClass, Cpl, FarKind, LvtPc, Transfer};
use vlbr_cpu::ledger::{Actor, Event as Row};
use vlbr_lbr::Record;
use vlbr_pmu::{CounterSet, Horizon, Increments, Interrupt, Outcome, Pending, Source};

use crate::ends::{Ends, Told};
use crate::model::{Access, Gprs, Mode};
use crate::ram::Ram;

/// Something retires.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// So many instructions that are no branches.
    Plain(u64, Cpl),
    /// A conditional branch that falls through.
    NotTaken(Cpl),
    /// A transfer; interrupts and exceptions are no instructions.
    Taken(Transfer),
}

/// What retirement showed outside.
pub(crate) type Seen = Vec<(Outcome, Option<Interrupt>)>;

/// What can be looked at without changing it.
#[derive(Debug, PartialEq)]
pub(crate) struct Look {
    pub(crate) mode: Mode,
    pub(crate) vmcs: Option<(bool, BTreeMap<u32, u64>)>,
    pub(crate) gprs: Gprs,
    pub(crate) timer: Ends,
    pub(crate) rows: BTreeMap<(Actor, Row), u64>,
    pub(crate) devices: Option<Devices>,
}

/// What MSRs and devices tell.
#[derive(Debug, PartialEq)]
pub(crate) struct Devices {
    pub(crate) msrs: Vec<(u32, Result<u64, Ends>)>,
    pub(crate) records: Vec<Record>,
    pub(crate) frozen: bool,
    pub(crate) pending: Option<Pending>,
    pub(crate) lvtpc: LvtPc,
    pub(crate) armed: CounterSet,
    pub(crate) horizon: Horizon,
}

/// A processor with its memory.
pub(crate) trait Side {
    fn ram(&mut self) -> &mut Ram;
    fn memory(&self) -> (&Ram, &Ram);
    fn power(&mut self);
    fn set_smm(&mut self, smm: bool);
    fn pass(&mut self, clocks: u64);
    fn rdmsr(&mut self, actor: Actor, msr: u32) -> Ends;
    fn wrmsr(&mut self, actor: Actor, msr: u32, value: u64) -> Ends;
    fn vmxon(&mut self, at: u64) -> Ends;
    fn vmxoff(&mut self) -> Ends;
    fn vmclear(&mut self, at: u64) -> Ends;
    fn vmptrld(&mut self, at: u64) -> Ends;
    fn vmptrst(&mut self) -> Ends;
    fn vmread(&mut self, actor: Actor, field: VmcsField, wide: bool) -> Ends;
    fn vmwrite(&mut self, actor: Actor, field: VmcsField, value: u64, wide: bool) -> Ends;
    fn enter(&mut self, launch: bool, shadow: bool) -> Ends;
    fn exit(&mut self, told: &Told) -> Ends;
    fn guest_msr(&mut self, access: Access, msr: u32, cpl: u8) -> Ends;
    fn exception(&mut self, vector: u8, kind: u32, code: Option<u32>, dr6: u64) -> Ends;
    fn nmi(&mut self) -> Ends;
    fn external_interrupt(&mut self, vector: u8) -> Ends;
    fn rdpmc_exits(&mut self) -> Ends;
    fn rdpmc(&mut self, ecx: u32, cpl: Cpl, pce: bool) -> Ends;
    fn xsaves(&mut self, restore: bool, mask: u64, xss: u64) -> Ends;
    fn timer_exits(&self) -> Ends;
    fn set_lvtpc(&mut self, entry: u32);
    /// Retires a step, up to the PMI that the core takes; what each instruction led to.
    fn retire(&mut self, step: &Step) -> Seen;
    /// A transfer that is no instruction.
    fn record(&mut self, transfer: &Transfer);
    fn look(&mut self, depth: Depth) -> Look;
}

/// How much of MSRs and devices is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Depth {
    Nothing,
    /// Of registers of LBR entries one in [`TURNS`]: entries are compared whole beside.
    Turn(u32),
    Everything,
}

pub(crate) const TURNS: u32 = 8;

/// Addresses at which a register may be, and some at which none is.
pub(crate) fn addresses(depth: Depth) -> impl Iterator<Item = u32> {
    let all = [
        0..=0x1,
        0x40..=0x47,
        0x60..=0x67,
        0xc1..=0xc8,
        0x186..=0x18d,
        0x1a0..=0x1a0,
        0x1a6..=0x1a7,
        0x1c8..=0x1c9,
        0x1d9..=0x1e0,
        0x309..=0x30c,
        0x329..=0x329,
        0x345..=0x345,
        0x38d..=0x392,
        0x570..=0x570,
        0x834..=0x834,
        0xda0..=0xda0,
        0x3f1..=0x3f7,
        0x480..=0x493,
        0x4c1..=0x4c8,
        0x600..=0x600,
        0x680..=0x69f,
        0x6c0..=0x6df,
        0xdc0..=0xddf,
        0x1200..=0x121f,
        0x1309..=0x130c,
        0x14c1..=0x14cf,
        0x1500..=0x151f,
        0x1600..=0x161f,
        0xc000_0100..=0xc000_0101,
    ];
    all.into_iter().flatten().filter(move |msr| match depth {
        Depth::Nothing => false,
        Depth::Turn(turn) => !is_entry(*msr) || msr % TURNS == turn,
        Depth::Everything => true,
    })
}

const fn is_entry(msr: u32) -> bool {
    matches!(
        msr,
        0x40..=0x67 | 0x680..=0x6df | 0xdc0..=0xddf | 0x1200..=0x121f | 0x1500..=0x161f
    )
}

/// What a step adds to the counters, without what the LBR inserts.
pub(crate) fn increments(step: &Step) -> Option<Increments> {
    match step {
        Step::Plain(n, cpl) => {
            let mut run = Increments::new();
            run.add(Source::Instructions, *cpl, *n);
            Some(run)
        }
        Step::NotTaken(cpl) => Some(Increments::branch(BranchClass::Jcc, false, false, *cpl)),
        Step::Taken(transfer) => {
            let asynchronous = matches!(
                transfer.class,
                BranchClass::Far(FarKind::Interrupt | FarKind::Exception | FarKind::DebugException)
            );
            (!asynchronous).then(|| {
                let mut run = Increments::branch(
                    transfer.class,
                    true,
                    transfer.mispredicted,
                    transfer.cpl_before,
                );
                run.in_tx = transfer.in_tx;
                run
            })
        }
    }
}
