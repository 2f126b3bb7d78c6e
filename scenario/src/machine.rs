//! What a step does to a core and what it compares.

mod pmu;
pub(crate) mod view;
mod vmx;

use core::ops::Range;
use std::collections::BTreeMap;

use vlbr_arch::{
    BranchClass, Cycles, DebugCtl, FarKind, LbrCtl, LbrSelect, Msr, Transfer, XSTATE_LBR_SIZE,
};
use vlbr_cpu::processor::{Boundary, MsrFault, Options, ProcessorError};
use vlbr_lbr::{Device, Interface, Pmi, Profile, Record, Reset};
use vlbr_pmu::{Increments, PmiCause};

use crate::compare::{
    Mismatch, Outcome, compare, compare_fault, compare_read, compare_record, describe, eval,
    mismatch, outcome, transfer,
};
use crate::expr::Scope;
use crate::smt::{Core, THREADS, Thread};
use crate::world::World;
use crate::{Action, Branch, DeviceKind, Expected, Expr, ImageField, Register};

/// A core of one profile with what stands around it in a scenario.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    profile: &'a Profile,
    core: Core,
    clock: u64,
    worlds: [World; THREADS],
    images: BTreeMap<char, [u8; XSTATE_LBR_SIZE]>,
    vmx: BTreeMap<usize, vmx::Side>,
}

impl<'a> Machine<'a> {
    pub(crate) fn new(
        kind: DeviceKind,
        profile: &'a Profile,
        options: &Options,
    ) -> Result<Self, ProcessorError> {
        Ok(Self {
            profile,
            core: Core::new(kind, profile, options)?,
            clock: 0,
            worlds: Default::default(),
            images: BTreeMap::new(),
            vmx: BTreeMap::new(),
        })
    }

    fn thread(&mut self, cpu: usize) -> Result<&mut dyn Thread, Mismatch> {
        self.core.thread(cpu).ok_or_else(|| absent(cpu))
    }

    fn lbr(&mut self, cpu: usize) -> Result<&mut dyn Device, Mismatch> {
        Ok(self.thread(cpu)?.lbr())
    }

    pub(crate) fn depth(&mut self, cpu: usize) -> u64 {
        self.lbr(cpu).map_or(0, |lbr| lbr.depth() as u64)
    }

    /// Does or compares what a step says.
    pub(crate) fn step(&mut self, cpu: usize, what: &Action, scope: Scope) -> Outcome {
        match what {
            Action::LbrOn {
                kernel,
                user,
                call_stack,
            } => self.lbr_on(cpu, *kernel, *user, *call_stack),
            Action::LbrOff => self.lbr_off(cpu),
            Action::Wrmsr(register, value, outcome) => {
                let msr = self.address(register, scope)?;
                let value = eval(value, scope)?;
                let done = self.wrmsr(cpu, msr, value)?;
                compare_fault(*outcome, done)
            }
            Action::Rdmsr(register, check) => {
                let msr = self.address(register, scope)?;
                compare_read(check, self.thread(cpu)?.rdmsr(msr), scope)
            }
            Action::Branch(branch) => self.branch(cpu, branch, scope),
            Action::Unseen(_) => Ok(()),
            Action::Pmu(step) => self.pmu_step(cpu, step, scope),
            Action::Vmx(step) => self.vmx_step(cpu, step, scope),
            Action::Host(_) => Err(mismatch("a step of a processor", "one of a host")),
            Action::Wait(cycles) => {
                self.clock = self.clock.saturating_add(eval(cycles, scope)?);
                Ok(())
            }
            Action::Pmi(pmi) => {
                self.thread(cpu)?.raise_pmi(match pmi {
                    Pmi::Counter => PmiCause::Counter,
                    Pmi::Pebs => PmiCause::Pebs,
                    Pmi::Bts => PmiCause::Bts,
                });
                Ok(())
            }
            Action::DeepCState => {
                self.thread(cpu)?.deep_c_state();
                Ok(())
            }
            Action::Reset(reset) => {
                self.thread(cpu)?.reset(*reset);
                if *reset != Reset::Init {
                    // RESET ends VMX operation.
                    self.vmx.remove(&cpu);
                }
                Ok(())
            }
            Action::SegmentTestFails => {
                self.lbr(cpu)?.segment_test_failed();
                Ok(())
            }
            Action::LogEvent(pmc) => {
                self.lbr(cpu)?.log_event(*pmc);
                Ok(())
            }
            Action::Xsaves(image, outcome) => {
                let mut bytes = [0; XSTATE_LBR_SIZE];
                let done = self.lbr(cpu)?.xsaves(&mut bytes);
                if done.is_ok() {
                    self.images.insert(*image, bytes);
                }
                compare_fault(*outcome, done)
            }
            Action::Xrstors(image, outcome) => {
                let bytes = *self.image(*image);
                let done = self.lbr(cpu)?.xrstors(&bytes);
                compare_fault(*outcome, done)
            }
            Action::XrstorsInit(outcome) => {
                let done = self.lbr(cpu)?.xrstors_init();
                compare_fault(*outcome, done)
            }
            Action::SetImage(image, field, value) => {
                let at = image_offset(field, scope)?;
                let value = eval(value, scope)?;
                self.image(*image)[at..at + 8].copy_from_slice(&value.to_le_bytes());
                Ok(())
            }
            Action::Image(image, field, check) => {
                let at = image_offset(field, scope)?;
                let mut word = [0; 8];
                word.copy_from_slice(&self.image(*image)[at..at + 8]);
                compare(check, u64::from_le_bytes(word), scope)
            }
            Action::Cpuid(leaf, _, register, check) => {
                let thread = self.thread(cpu)?;
                let result = match *leaf {
                    0xa => thread.pmu().profile().cpuid_0a(),
                    0x1c => thread.lbr().cpuid_1c(),
                    _ => thread.lbr().cpuid_d_15(),
                };
                let registers = [result.eax, result.ebx, result.ecx, result.edx];
                let found = registers.get(*register).copied().unwrap_or(0);
                compare(check, u64::from(found), scope)
            }
            Action::Entry(index, expected) => self.compare_entry(cpu, index, expected, scope),
            Action::Holds(count) => self.compare_count(cpu, eval(count, scope)?),
            Action::LbrInserts(count) => {
                let expected = eval(count, scope)?;
                match self.lbr(cpu)?.lbr_inserts() {
                    Some(found) if found == expected => Ok(()),
                    Some(found) => Err(mismatch(expected, found)),
                    None => Err(mismatch(expected, "the part has no event LBR_INSERTS")),
                }
            }
        }
    }

    fn image(&mut self, name: char) -> &mut [u8; XSTATE_LBR_SIZE] {
        self.images.entry(name).or_insert([0; XSTATE_LBR_SIZE])
    }

    /// The address of a register on this part.
    pub(crate) fn address(&self, register: &Register, scope: Scope) -> Result<Msr, Mismatch> {
        let (from, to, info) = match self.profile.interface() {
            Interface::Legacy(legacy) => (
                legacy.from,
                legacy.to,
                legacy.info.unwrap_or(Msr::LBR_INFO_0),
            ),
            Interface::Arch(_) => (Msr::LBR_0_FROM_IP, Msr::LBR_0_TO_IP, Msr::LBR_0_INFO),
        };
        let (base, index) = match register {
            Register::At(msr) => return Ok(*msr),
            Register::From(index) => (from, index),
            Register::To(index) => (to, index),
            Register::Info(index) => (info, index),
        };
        let index = eval(index, scope)?;
        u32::try_from(index)
            .ok()
            .filter(|index| *index < 0x100)
            .map(|index| base.plus(index))
            .ok_or_else(|| mismatch("an entry below 256", index))
    }

    pub(crate) fn wrmsr(
        &mut self,
        cpu: usize,
        msr: Msr,
        value: u64,
    ) -> Result<Result<(), MsrFault>, Mismatch> {
        self.core.wrmsr(cpu, msr, value).ok_or_else(|| absent(cpu))
    }

    fn lbr_on(&mut self, cpu: usize, kernel: bool, user: bool, call_stack: bool) -> Outcome {
        let writes = self.lbr_on_writes(cpu, kernel, user, call_stack)?;
        writes
            .into_iter()
            .try_for_each(|(msr, value)| self.must_write(cpu, msr, value))
    }

    /// `lbr on`: the register writes that scenarios/README.md lists.
    pub(crate) fn lbr_on_writes(
        &mut self,
        cpu: usize,
        kernel: bool,
        user: bool,
        call_stack: bool,
    ) -> Result<Vec<(Msr, u64)>, Mismatch> {
        let set = |on: bool, bits: u64| if on { bits } else { 0 };
        if self.profile.is_arch() {
            let types = if call_stack {
                LbrCtl::CALL_STACK
                    | LbrCtl::NEAR_REL_CALL
                    | LbrCtl::NEAR_IND_CALL
                    | LbrCtl::NEAR_RET
            } else {
                LbrCtl::ALL_TYPES
            };
            let ctl = (LbrCtl::LBR_EN | types).bits()
                | set(kernel, LbrCtl::OS.bits())
                | set(user, LbrCtl::USR.bits());
            return Ok(vec![(Msr::LBR_CTL, ctl)]);
        }
        let select = set(!kernel, LbrSelect::CPL_EQ_0.bits())
            | set(!user, LbrSelect::CPL_NEQ_0.bits())
            | set(call_stack, 0x3c4);
        let has_select = self.lbr(cpu)?.rdmsr(Msr::LBR_SELECT).is_ok();
        let mut writes = Vec::new();
        if has_select || select != 0 {
            writes.push((Msr::LBR_SELECT, select));
        }
        let debugctl = self.must_read(cpu, Msr::DEBUGCTL)? | DebugCtl::LBR.bits();
        writes.push((Msr::DEBUGCTL, debugctl));
        Ok(writes)
    }

    fn lbr_off(&mut self, cpu: usize) -> Outcome {
        let (msr, value) = self.lbr_off_write(cpu)?;
        self.must_write(cpu, msr, value)
    }

    /// `lbr off`: the register write that scenarios/README.md lists.
    pub(crate) fn lbr_off_write(&mut self, cpu: usize) -> Result<(Msr, u64), Mismatch> {
        let (msr, bit) = if self.profile.is_arch() {
            (Msr::LBR_CTL, LbrCtl::LBR_EN.bits())
        } else {
            (Msr::DEBUGCTL, DebugCtl::LBR.bits())
        };
        Ok((msr, self.must_read(cpu, msr)? & !bit))
    }

    fn must_write(&mut self, cpu: usize, msr: Msr, value: u64) -> Outcome {
        let done = self.wrmsr(cpu, msr, value)?;
        done.map_err(|fault| mismatch(format!("WRMSR {msr} = {value:#x}"), fault))
    }

    fn must_read(&mut self, cpu: usize, msr: Msr) -> Result<u64, Mismatch> {
        let read = self.thread(cpu)?.rdmsr(msr);
        read.map_err(|fault| mismatch(format!("RDMSR {msr}"), fault))
    }

    fn branch(&mut self, cpu: usize, branch: &Branch, scope: Scope) -> Outcome {
        self.clock = self.clock.saturating_add(branch.after);
        let now = Cycles::new(self.clock);
        let transfer = transfer(branch, scope)?;
        let foretold = self.lbr(cpu)?.verdict(&transfer);
        let verdict = self.retire(cpu, &transfer, now)?;
        if foretold != verdict {
            return Err(mismatch(outcome(foretold), outcome(verdict)));
        }
        match branch.outcome {
            Some(expected) if expected != outcome(verdict) => {
                Err(mismatch(expected, outcome(verdict)))
            }
            _ => Ok(()),
        }
    }

    /// A taken transfer, as the event it is.
    fn retire(
        &mut self,
        cpu: usize,
        transfer: &Transfer,
        now: Cycles,
    ) -> Result<vlbr_lbr::Verdict, Mismatch> {
        let world = self.worlds.get_mut(cpu).ok_or_else(|| absent(cpu))?;
        world.state.eventing_ip = transfer.from;
        world.state.rip = transfer.to;
        let thread = self.core.thread(cpu).ok_or_else(|| absent(cpu))?;
        let kind = match transfer.class {
            BranchClass::Far(kind) => Some(kind),
            _ => None,
        };
        match kind {
            Some(FarKind::Smi) => return Ok(thread.smi(transfer, now)),
            Some(FarKind::TsxAbort) => return Ok(thread.abort(transfer, now, world)),
            Some(FarKind::Init) => {
                let verdict = thread.transfer(transfer, now, world);
                thread.reset(Reset::Init);
                return Ok(verdict);
            }
            Some(
                FarKind::Interrupt | FarKind::Exception | FarKind::DebugException | FarKind::Sipi,
            ) => return Ok(thread.transfer(transfer, now, world)),
            _ => {}
        }
        let (class, mispredicted) = (transfer.class, transfer.mispredicted);
        let mut run = Increments::branch(class, true, mispredicted, transfer.cpl_before);
        run.in_tx = transfer.in_tx;
        let boundary = Boundary {
            run: &run,
            transfer: Some(transfer),
            now,
        };
        let retired = match kind {
            Some(FarKind::Rsm) => Some(thread.rsm(boundary, world)),
            _ => self.core.retire(cpu, boundary, &mut self.worlds),
        };
        let verdict = retired.and_then(|retired| retired.verdict);
        verdict.ok_or_else(|| absent(cpu))
    }

    /// FROM, TO and INFO of the `n`-th youngest of `depth` entries.
    pub(crate) fn entry_registers(
        &mut self,
        cpu: usize,
        n: u64,
        depth: u64,
    ) -> Result<(Msr, Msr, Option<Msr>), Mismatch> {
        let has_info = match self.profile.interface() {
            Interface::Legacy(legacy) => legacy.info.is_some(),
            Interface::Arch(_) => true,
        };
        let slot = if self.profile.is_arch() {
            n
        } else {
            (self.must_read(cpu, Msr::LASTBRANCH_TOS)? + depth - n) % depth
        };
        let scope = Scope { depth, n };
        let address =
            |register: fn(Expr) -> Register| self.address(&register(Expr::Number(slot)), scope);
        let info = has_info.then(|| address(Register::Info)).transpose()?;
        Ok((address(Register::From)?, address(Register::To)?, info))
    }

    /// Every entry, youngest first; those in `checked` are compared with their registers.
    fn records(&mut self, cpu: usize, checked: Range<usize>) -> Result<Vec<Record>, Mismatch> {
        let records = self.lbr(cpu)?.records();
        let depth = records.len() as u64;
        for (n, record) in (0..depth).zip(&records) {
            if !checked.contains(&(n as usize)) {
                continue;
            }
            let (from, to, info) = self.entry_registers(cpu, n, depth)?;
            let info = info.map_or(Ok(0), |info| self.must_read(cpu, info))?;
            let words = [self.must_read(cpu, from)?, self.must_read(cpu, to)?, info];
            if words != record.raw {
                let told = format!("entry {n} as its registers read: {words:#x?}");
                return Err(mismatch(told, format!("{:#x?}", record.raw)));
            }
        }
        Ok(records)
    }

    fn compare_entry(
        &mut self,
        cpu: usize,
        index: &Expr,
        expected: &Expected,
        scope: Scope,
    ) -> Outcome {
        let index = usize::try_from(eval(index, scope)?).unwrap_or(usize::MAX);
        let records = self.records(cpu, index..index.saturating_add(1))?;
        let Some(record) = records.get(index) else {
            return Err(mismatch(
                format!("an entry {index}"),
                format!("{} entries", records.len()),
            ));
        };
        match expected {
            Expected::Empty if record.raw == [0; 3] => Ok(()),
            Expected::Empty => Err(mismatch("an empty entry", describe(record))),
            Expected::Record(check) => compare_record(check, record, scope),
        }
    }

    fn compare_count(&mut self, cpu: usize, expected: u64) -> Outcome {
        let records = self.records(cpu, 0..usize::MAX)?;
        let filled = records.iter().take_while(|record| !record.is_empty());
        let filled = filled.count();
        if filled as u64 != expected {
            return Err(mismatch(
                format!("{expected} entries"),
                format!("{filled} entries"),
            ));
        }
        match records[filled..].iter().position(|r| r.raw != [0; 3]) {
            None => Ok(()),
            Some(n) => Err(mismatch(
                format!("{expected} entries and nothing behind them"),
                format!("entry {}: {}", filled + n, describe(&records[filled + n])),
            )),
        }
    }
}

fn absent(cpu: usize) -> Mismatch {
    mismatch(format!("logical processor {cpu}"), "none")
}

/// Byte offset of a word of the image.
pub(crate) fn image_offset(field: &ImageField, scope: Scope) -> Result<usize, Mismatch> {
    let (base, index) = match field {
        ImageField::Offset(offset) => (0, Some((offset, 1))),
        ImageField::Ctl => (0x00, None),
        ImageField::Depth => (0x08, None),
        ImageField::LerFrom => (0x10, None),
        ImageField::LerTo => (0x18, None),
        ImageField::LerInfo => (0x20, None),
        ImageField::From(index) => (0x28, Some((index, 24))),
        ImageField::To(index) => (0x30, Some((index, 24))),
        ImageField::Info(index) => (0x38, Some((index, 24))),
    };
    let offset = match index {
        None => Some(base),
        Some((index, size)) => eval(index, scope)?
            .checked_mul(size)
            .and_then(|offset| offset.checked_add(base)),
    };
    offset
        .and_then(|offset| usize::try_from(offset).ok())
        .filter(|offset| *offset <= XSTATE_LBR_SIZE - 8)
        .ok_or_else(|| {
            let found = offset.map_or_else(|| "one beyond 64 bits".to_owned(), |at| at.to_string());
            mismatch("an offset inside the image", found)
        })
}
