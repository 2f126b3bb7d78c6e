//! The LBR as perf programs it, and what software would read for each step of a trace.

use rustc_hash::FxHashMap;
use thiserror::Error;
use vlbr_arch::{
    BranchClass, Cycles, DebugCtl, FarKind, LbrCtl, LbrFormat, LbrSelect, Msr, Transfer,
};
use vlbr_cpu::run::{Counting, Op, Plan, PlanError};
use vlbr_cpu::{Code, Exit, StepId};
use vlbr_host::perf::{
    FilterError, HardwareFilter, LbrFilter, X86Br, branch_type, perf_branch_type, stand_in,
};
use vlbr_lbr::{GpFault, Interface, Lbr, Options, Profile, Quirk, Record, Verdict};
use vlbr_traces::perfdata::{
    BranchEntry, BranchFlags, BranchPrivilege, BranchSampleType, BranchType,
};

/// Why an LBR cannot be programmed.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum DeviceError {
    /// perf refuses the branch filter.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The device refuses a register value.
    #[error("programming the LBR: {0}")]
    Fault(#[from] GpFault),
    /// The trace is too large for the plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// What perf hands out for the record of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenderedEntry {
    /// The entry.
    pub entry: BranchEntry,
    /// Whether the software filter keeps it.
    pub keep: bool,
}

/// An LBR with perf's filter in its registers, recording.
#[derive(Clone, Debug)]
pub struct ProgrammedLbr {
    lbr: Lbr,
    filter: LbrFilter,
}

impl ProgrammedLbr {
    /// Programs a fresh device as perf does when it enables an event with `sample_type` branches:
    /// the filter, then the enable bit with FREEZE_LBRS_ON_PMI unless in call-stack mode.
    /// Linux `__intel_pmu_lbr_enable`.
    ///
    /// # Errors
    /// perf or the device refuses.
    pub fn new(
        profile: &Profile,
        options: Options,
        sample_type: BranchSampleType,
    ) -> Result<Self, DeviceError> {
        let filter = LbrFilter::new(profile, sample_type)?;
        let mut lbr = Lbr::new(profile, options);
        let call_stack = sample_type.contains(BranchSampleType::CALL_STACK);
        let freeze = if call_stack {
            DebugCtl::default()
        } else {
            DebugCtl::FREEZE_LBRS_ON_PMI
        };
        match filter.hardware() {
            HardwareFilter::None => {}
            HardwareFilter::Select(select) => lbr.wrmsr(Msr::LBR_SELECT, select.bits())?,
            HardwareFilter::Ctl(ctl) => lbr.wrmsr(Msr::LBR_CTL, ctl.bits())?,
        }
        let enable = if profile.is_arch() {
            freeze
        } else {
            DebugCtl::LBR | freeze
        };
        // Parts without the freeze bit get none, as perf leaves it out there.
        let enable = DebugCtl::from_bits(enable.bits() & profile.debugctl().bits());
        lbr.wrmsr(Msr::DEBUGCTL, enable.bits())?;
        Ok(Self { lbr, filter })
    }

    /// The device.
    #[must_use]
    pub fn lbr(&self) -> &Lbr {
        &self.lbr
    }

    /// perf's filter.
    #[must_use]
    pub fn filter(&self) -> &LbrFilter {
        &self.filter
    }

    /// Value of `LBR_SELECT` or `LBR_CTL`, and which.
    #[must_use]
    pub fn filter_register(&self) -> Option<(Msr, u64)> {
        match self.filter.hardware() {
            HardwareFilter::None => None,
            HardwareFilter::Select(select) => Some((Msr::LBR_SELECT, select.bits())),
            HardwareFilter::Ctl(ctl) => Some((Msr::LBR_CTL, ctl.bits())),
        }
    }

    /// Whether perf's interrupt handler writes the enable bits again when it leaves. From version 4
    /// of perfmon on it only acknowledges `GLOBAL_STATUS`, which ends a freeze but does not bring
    /// back what `#DB` cleared. Linux `__intel_pmu_lbr_enable`.
    pub(crate) fn rewritten_by_handler(&self) -> bool {
        self.lbr.profile().perfmon_version() < 4
    }

    /// Whether records of `code` depend on more than their transfer and the registers, so that
    /// transfers must go through the device in order.
    #[must_use]
    pub fn needs_order(&self, code: &Code) -> bool {
        let options = self.lbr.options();
        let quirks = options.quirks.unwrap_or(self.lbr.profile().quirks());
        let call_stack = match self.filter.hardware() {
            HardwareFilter::Select(select) => select.contains(LbrSelect::EN_CALLSTACK),
            HardwareFilter::Ctl(ctl) => ctl.contains(LbrCtl::CALL_STACK),
            HardwareFilter::None => false,
        };
        let has = |kind: FarKind| {
            (0..code.steps().len() as u32)
                .filter_map(|index| code.transfer(StepId(index)))
                .any(|transfer| transfer.class == BranchClass::Far(kind))
        };
        quirks.contains(Quirk::DuplicateTop)
            || (call_stack && (options.callstack_saturate || !options.pops_clear_slots))
            || (quirks.contains(Quirk::DoubleAbort) && has(FarKind::TsxAbort))
    }

    /// The largest cycle count that perf hands out for a record of `code`; 0 if it hands out none.
    pub(crate) fn cycle_limit(&self, code: &Code) -> u16 {
        let pushed = (0..code.steps().len() as u32)
            .filter_map(|index| code.transfer(StepId(index)))
            .find(|transfer| self.lbr.verdict(transfer) == Verdict::Push);
        let Some(transfer) = pushed else {
            return 0;
        };
        let mut lbr = self.after(transfer);
        lbr.retire(transfer, Cycles::new(u64::MAX));
        let record = lbr.stack().next().unwrap_or_default();
        self.read(&record, X86Br::NONE).entry.flags.cycles
    }

    /// What each step of `code` does under the filter, counting what `counting` says.
    ///
    /// # Errors
    /// The trace is too large.
    pub fn plan(&self, code: &Code, counting: &Counting) -> Result<Plan, PlanError> {
        Plan::new(
            code,
            self.lbr.depth() as u8,
            counting,
            |transfer| match self.lbr.verdict(transfer) {
                Verdict::Ignore => Op::Ignore,
                Verdict::Push => Op::Push,
                Verdict::Pop => Op::Pop,
            },
        )
    }

    /// For each step of `code` what perf reads and keeps of the record it makes; `None` for steps
    /// that make none.
    #[must_use]
    pub fn render(&self, code: &Code) -> Vec<Option<RenderedEntry>> {
        let bytes = BytesAt::new(code);
        (0..code.steps().len() as u32)
            .map(|index| {
                let id = StepId(index);
                let transfer = code.transfer(id)?;
                (self.lbr.verdict(transfer) == Verdict::Push)
                    .then(|| self.entry(transfer, bytes.of(code, id)))
            })
            .collect()
    }

    /// The record of one transfer as the device makes it and perf reads it.
    fn entry(&self, transfer: &Transfer, code: Option<&[u8]>) -> RenderedEntry {
        let record = self.after(transfer).stack().next().unwrap_or_default();
        self.read(&record, self.kind(&record, transfer, code))
    }

    /// The device after one transfer.
    fn after(&self, transfer: &Transfer) -> Lbr {
        let mut lbr = self.lbr.clone();
        lbr.retire(transfer, Cycles::new(0));
        lbr
    }

    /// perf's type of a record of `transfer`.
    fn kind(&self, record: &Record, transfer: &Transfer, code: Option<&[u8]>) -> X86Br {
        let masked = self.lbr.profile().is_arch() && record.from == MASKED;
        let code = code.filter(|_| !masked);
        let Record {
            from, to, abort, ..
        } = *record;
        branch_type(from, to, abort, code, transfer.from_size)
    }

    /// What perf reads and keeps of `record`, whose instruction has the type `kind`.
    /// Linux `intel_pmu_lbr_read_64`, `intel_pmu_store_lbr`, `intel_pmu_lbr_filter`.
    #[must_use]
    pub fn read(&self, record: &Record, kind: X86Br) -> RenderedEntry {
        let sample_type = self.filter.sample_type();
        let profile = self.lbr.profile();
        let quirks = self.lbr.options().quirks.unwrap_or(profile.quirks());
        let format = match profile.interface() {
            Interface::Legacy(legacy) if self.lbr.options().alternative_format => {
                legacy.format_alternative.unwrap_or(legacy.format)
            }
            _ => profile.format(),
        };
        let bare = matches!(
            format,
            LbrFormat::OFFSET_32 | LbrFormat::LIP | LbrFormat::EIP
        );
        // perf knows that Knights Landing has the flag its format denies.
        let has_flags = !bare || quirks.contains(Quirk::HiddenMispred);
        let has_info = matches!(
            format,
            LbrFormat::EIP_INFO | LbrFormat::LIP_INFO | LbrFormat::ARCH
        );
        let unwanted = has_info
            && sample_type.contains(BranchSampleType::NO_FLAGS | BranchSampleType::NO_CYCLES);
        let flags = has_flags && !unwanted;
        let filters = self.filter.software_filters();
        let saved = filters && self.filter.saves_types();
        let privilege = if !filters || !sample_type.contains(BranchSampleType::PRIV_SAVE) {
            BranchPrivilege::UNKNOWN
        } else if kind.contains(X86Br::KERNEL) {
            BranchPrivilege::KERNEL
        } else if kind.contains(X86Br::USER) {
            BranchPrivilege::USER
        } else {
            BranchPrivilege::UNKNOWN
        };
        RenderedEntry {
            entry: BranchEntry {
                from: record.from,
                to: record.to,
                flags: BranchFlags {
                    mispred: flags && record.mispredicted,
                    predicted: flags && !record.mispredicted,
                    in_tx: flags && record.in_tx,
                    abort: flags && record.abort,
                    cycles: if unwanted {
                        0
                    } else {
                        record.cycles.unwrap_or(0)
                    },
                    branch_type: if saved {
                        BranchType::new(perf_branch_type(kind)).unwrap_or_default()
                    } else {
                        BranchType::default()
                    },
                    privilege,
                    ..BranchFlags::default()
                },
            },
            keep: !filters || self.filter.keeps(kind, record.in_tx),
        }
    }

    /// perf's type of the record of each step, by FROM, TO and the abort flag as recorded: for
    /// records that do not come by way of [`ProgrammedLbr::render`].
    #[must_use]
    pub fn types(&self, code: &Code) -> FxHashMap<(u64, u64, bool), X86Br> {
        let bytes = BytesAt::new(code);
        let mut types = FxHashMap::default();
        for id in (0..code.steps().len() as u32).map(StepId) {
            if let Some(transfer) = code.transfer(id)
                && self.lbr.verdict(transfer) == Verdict::Push
            {
                let lbr = self.after(transfer);
                for record in lbr.stack().take_while(|record| !record.is_empty()) {
                    let kind = self.kind(&record, transfer, bytes.of(code, id));
                    let recorded = (record.from, record.to, record.abort);
                    types.entry(recorded).or_insert(kind);
                }
            }
        }
        types
    }
}

/// FROM of a transfer out of a filtered privilege level, on architectural LBR.
const MASKED: u64 = 0xffff_ffff;

/// Code bytes at an address, for perf's decoding of the instruction at FROM.
struct BytesAt {
    blocks: FxHashMap<(u64, u32), u32>,
}

impl BytesAt {
    fn new(code: &Code) -> Self {
        let mut blocks = FxHashMap::default();
        // Only steps that were left by an event can have their FROM outside their own block.
        if code
            .steps()
            .iter()
            .any(|step| matches!(step.exit, Exit::Event { .. }))
        {
            for (index, block) in code.blocks().iter().enumerate() {
                if block.instructions() > 0 {
                    blocks
                        .entry((block.address(), block.mode().space))
                        .or_insert(index as u32);
                }
            }
        }
        Self { blocks }
    }

    /// The instruction at FROM of the step's transfer, as far as the trace holds it.
    fn of<'c>(&self, code: &'c Code, id: StepId) -> Option<&'c [u8]> {
        let step = code.step(id);
        let block = code.block(step.block);
        let index = match step.exit {
            Exit::Taken { .. } => block.instructions().saturating_sub(1),
            _ => step.retired,
        };
        if index < block.instructions() {
            let start = (block.address_of(index).wrapping_sub(block.address())) as usize;
            return block.bytes().get(start..);
        }
        let elsewhere = self
            .blocks
            .get(&(block.address_of(index), block.mode().space));
        match elsewhere {
            Some(&other) => Some(code.blocks()[other as usize].bytes()),
            None => code.transfer(id).and_then(stand_in),
        }
    }
}
