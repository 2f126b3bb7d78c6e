//! One logical processor of the host.

use core::convert::Infallible;

use vlbr_arch::{Cpl, Cycles, Msr, Transfer};
use vlbr_cpu::ledger::{Actor, EntryBlock, Ledger, MsrAccess};
use vlbr_cpu::processor::{Boundary, LogicalProcessor, MsrFault, Nothing, Retired};
use vlbr_lbr::Verdict;
use vlbr_vmx::{Registers, Vmx};

use super::{Entry, LbrMsrs, Owners, Stack, Word};
use crate::{Owned, Owner, TaskId, VcpuId};

/// Who executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Running {
    /// The host: the kernel, and this task if one is on; in user mode the task alone.
    Host(Option<TaskId>),
    /// A guest, in non-root operation.
    Guest(VcpuId),
}

impl Running {
    /// Whose a branch is that retires at `cpl`.
    #[must_use]
    pub const fn owner(self, cpl: Cpl) -> Owner {
        match self {
            Self::Guest(vcpu) => Owner::Guest(vcpu),
            Self::Host(Some(task)) if !cpl.is_kernel() => Owner::Task(task),
            Self::Host(_) => Owner::Kernel,
        }
    }
}

/// LBR, PMU and VMX of a logical processor, and whose each value in its LBR is.
///
/// [`MsrAccess`] is RDMSR and WRMSR without a count; what it writes belongs to the owner that
/// [`Processor::in_vmx`] was given. The host goes through [`Processor::rdmsr`] and
/// [`Processor::wrmsr`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Processor {
    logical: LogicalProcessor,
    /// VMX, where the part's capabilities are known.
    vmx: Option<Box<Vmx>>,
    /// RIP and the like, as VM entry and exit switch them.
    registers: Registers,
    msrs: LbrMsrs,
    owners: Owners,
    running: Running,
    writer: Owner,
    now: Cycles,
    msr_by_msr: bool,
}

impl Processor {
    /// A processor after power-up.
    #[must_use]
    pub fn new(logical: LogicalProcessor, vmx: Option<Vmx>) -> Self {
        let msrs = LbrMsrs::of(logical.lbr().profile());
        Self {
            owners: Owners::new(&msrs),
            logical,
            vmx: vmx.map(Box::new),
            registers: Registers::default(),
            msrs,
            running: Running::Host(None),
            writer: Owner::Kernel,
            now: Cycles::new(0),
            msr_by_msr: false,
        }
    }

    /// Its LBR registers.
    #[must_use]
    pub const fn lbr_msrs(&self) -> &LbrMsrs {
        &self.msrs
    }

    /// Its devices.
    #[must_use]
    pub const fn logical(&self) -> &LogicalProcessor {
        &self.logical
    }

    /// Its devices, for what is no MSR access: the LVT entry, delivery of a PMI.
    #[must_use]
    pub const fn logical_mut(&mut self) -> &mut LogicalProcessor {
        &mut self.logical
    }

    /// Whose what is.
    #[must_use]
    pub const fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Who executes.
    #[must_use]
    pub const fn running(&self) -> Running {
        self.running
    }

    /// Someone else executes from now on.
    pub const fn set_running(&mut self, running: Running) {
        self.running = running;
    }

    /// The clock.
    #[must_use]
    pub const fn now(&self) -> Cycles {
        self.now
    }

    /// Time passes.
    pub const fn set_now(&mut self, now: Cycles) {
        self.now = now;
    }

    /// VMX, if the part's capabilities are known.
    #[must_use]
    pub fn vmx(&self) -> Option<&Vmx> {
        self.vmx.as_deref()
    }

    /// VMX, for VMREAD, VMWRITE and VMPTRLD.
    #[must_use]
    pub fn vmx_mut(&mut self) -> Option<&mut Vmx> {
        self.vmx.as_deref_mut()
    }

    /// Runs a VMX operation, whose accesses to MSRs write on behalf of `writer`. `None` without
    /// VMX.
    pub fn in_vmx<T>(
        &mut self,
        writer: Owner,
        operation: impl FnOnce(&mut Vmx, &mut Self, &mut Registers) -> T,
    ) -> Option<T> {
        let mut vmx = self.vmx.take()?;
        let mut registers = self.registers;
        let before = core::mem::replace(&mut self.writer, writer);
        let result = operation(&mut vmx, self, &mut registers);
        self.writer = before;
        self.registers = registers;
        self.vmx = Some(vmx);
        Some(result)
    }

    /// RDMSR, with the owner of what it gives; of registers that are not the LBR's nobody.
    ///
    /// # Errors
    /// `#GP(0)`; it is counted.
    pub fn rdmsr(
        &mut self,
        ledger: &mut Ledger,
        actor: Actor,
        msr: Msr,
    ) -> Result<Owned, MsrFault> {
        let owner = self.owner_of(msr);
        let value = ledger.rdmsr(actor, &mut self.logical, msr)?;
        Ok(Owned { value, owner })
    }

    /// WRMSR of an owner's value.
    ///
    /// # Errors
    /// `#GP(0)`; it is counted.
    pub fn wrmsr(
        &mut self,
        ledger: &mut Ledger,
        actor: Actor,
        msr: Msr,
        value: Owned,
    ) -> Result<(), MsrFault> {
        ledger.wrmsr(actor, &mut self.logical, msr, value.value)?;
        self.wrote(msr, value.owner);
        Ok(())
    }

    /// Owner of a register of the LBR; nobody of others.
    #[must_use]
    pub fn owner_of(&self, msr: Msr) -> Owner {
        let register = self.msrs.register(msr);
        register.map_or(Owner::Nobody, |register| self.owners.of(register))
    }

    /// What RDMSR would give, without a count and without an effect.
    #[must_use]
    pub fn peek(&self, msr: Msr) -> Option<u64> {
        MsrAccess::rdmsr(&mut self.logical.clone(), msr).ok()
    }

    /// A register of the LBR was written otherwise than by WRMSR.
    pub(super) fn set_owner(&mut self, register: super::LbrRegister, owner: Owner) {
        self.owners.write(register, owner);
    }

    fn wrote(&mut self, msr: Msr, owner: Owner) {
        if let Some(register) = self.msrs.register(msr) {
            self.owners.write(register, owner);
        }
    }

    /// Whether entries are read and written MSR by MSR even where they could be at once; what
    /// happens and what is counted is the same.
    pub const fn set_msr_by_msr(&mut self, on: bool) {
        self.msr_by_msr = on;
    }

    const fn block(&self, first: u32, count: u32) -> EntryBlock {
        EntryBlock {
            bases: (self.msrs.from, self.msrs.to, self.msrs.info),
            nr: self.msrs.nr,
            first,
            count,
            down: !self.msrs.arch,
        }
    }

    /// Reads entries with `actor`'s RDMSRs: `count` of them from `first` on, each older than
    /// the one before ([`LbrMsrs::older`]), FROM before TO before INFO. Ends before the first whose
    /// FROM is 0 if `stop_at_zero`: that FROM was read.
    ///
    /// # Errors
    /// `#GP(0)`.
    pub fn read_entries(
        &mut self,
        ledger: &mut Ledger,
        actor: Actor,
        (first, count): (u32, u32),
        stop_at_zero: bool,
        entries: &mut Vec<Entry>,
    ) -> Result<(), MsrFault> {
        entries.clear();
        let block = self.block(first, count);
        let mut done = 0;
        if !self.msr_by_msr {
            let lbr = self.logical.lbr();
            entries.reserve_exact(count as usize);
            entries.extend(block.numbers().map_while(|n| {
                let words = lbr.read_entry(n)?;
                let goes_on = !(stop_at_zero && words[0] == 0);
                goes_on.then(|| Entry::of(words, self.owners.entry(n)))
            }));
            done = entries.len() as u32;
            let read = EntryBlock {
                count: done,
                ..block
            };
            let counted = ledger.rdmsr_block(actor, read, || Ok::<_, Infallible>(()));
            let Ok(()) = counted;
        }
        for position in done..count {
            let slot = block.entry(position);
            let mut entry = Entry::default();
            for word in self.msrs.words_of_entry() {
                let Some(msr) = self.msrs.entry(word, slot) else {
                    continue;
                };
                let read = self.rdmsr(ledger, actor, msr)?;
                if stop_at_zero && word == Word::From && read.value == 0 {
                    return Ok(());
                }
                entry.set(word, read);
            }
            entries.push(entry);
        }
        Ok(())
    }

    /// Writes entries with `actor`'s WRMSRs, in the order of [`Processor::read_entries`].
    ///
    /// # Errors
    /// `#GP(0)`; what was written before stays.
    pub fn write_entries(
        &mut self,
        ledger: &mut Ledger,
        actor: Actor,
        first: u32,
        entries: impl ExactSizeIterator<Item = Entry>,
    ) -> Result<(), MsrFault> {
        let block = self.block(first, entries.len() as u32);
        let mut entries = entries.enumerate().peekable();
        let mut done = 0;
        if !self.msr_by_msr
            && let Some(mut writes) = self.logical.lbr_mut().write_entries()
        {
            for n in block.numbers() {
                let Some((_, entry)) = entries.peek() else {
                    break;
                };
                if !writes.write(n, entry.values()) {
                    break;
                }
                self.owners.set_entry(n, entry.owners());
                entries.next();
                done += 1;
            }
            let written = EntryBlock {
                count: done,
                ..block
            };
            let counted = ledger.wrmsr_block(actor, written, || Ok::<_, Infallible>(()));
            let Ok(()) = counted;
        }
        for (position, entry) in entries {
            let slot = block.entry(position as u32);
            for word in self.msrs.words_of_entry() {
                if let Some(msr) = self.msrs.entry(word, slot) {
                    self.wrmsr(ledger, actor, msr, entry.get(word))?;
                }
            }
        }
        Ok(())
    }

    /// Reads every entry with `actor`'s RDMSRs, from 0 on in the order of
    /// [`Processor::read_entries`].
    ///
    /// # Errors
    /// `#GP(0)`.
    pub fn read_stack(
        &mut self,
        ledger: &mut Ledger,
        actor: Actor,
        stack: &mut Stack,
    ) -> Result<(), MsrFault> {
        let all = self.block(0, self.msrs.nr);
        if self.has_all_entries() && self.logical.lbr().read_stack(stack.words_mut()) {
            self.owners.read_stack(stack.owners_mut());
            let counted = ledger.rdmsr_block(actor, all, || Ok::<_, Infallible>(()));
            let Ok(()) = counted;
            return Ok(());
        }
        let mut entries = Vec::new();
        self.read_entries(ledger, actor, (0, self.msrs.nr), false, &mut entries)?;
        for (n, entry) in all.numbers().zip(entries) {
            stack.set_entry(n, entry);
        }
        Ok(())
    }

    /// Writes every entry with `actor`'s WRMSRs, in the order of [`Processor::read_stack`].
    ///
    /// # Errors
    /// `#GP(0)`; what was written before stays.
    pub fn write_stack(
        &mut self,
        ledger: &mut Ledger,
        actor: Actor,
        stack: &Stack,
    ) -> Result<(), MsrFault> {
        let all = self.block(0, self.msrs.nr);
        if self.has_all_entries() && self.logical.lbr_mut().write_stack(stack.words()) {
            self.owners.write_stack(stack.owners());
            let counted = ledger.wrmsr_block(actor, all, || Ok::<_, Infallible>(()));
            let Ok(()) = counted;
            return Ok(());
        }
        let entries: Vec<_> = all.numbers().map(|n| stack.entry(n)).collect();
        self.write_entries(ledger, actor, 0, entries.into_iter())
    }

    /// Whether entries are moved at once, and every register of them exists: software may have
    /// set an architectural LBR to a depth below the part's.
    fn has_all_entries(&self) -> bool {
        !self.msr_by_msr && self.logical.lbr().depth() as u32 == self.msrs.nr
    }

    /// A boundary: what retired, by whoever runs.
    pub fn retire(&mut self, boundary: Boundary<'_>) -> Retired {
        let cpl = boundary.transfer.map(|transfer| transfer.cpl_before);
        self.now = boundary.now;
        let retired = self.logical.retire(boundary, &mut Nothing);
        if let (Some(verdict), Some(cpl)) = (retired.verdict, cpl) {
            self.recorded(verdict, cpl);
        }
        if retired.counted.pmi.is_some() {
            // It may have frozen the LBR: DEBUGCTL.LBR or LBR_FRZ changed for whoever ran.
            let owner = self.running.owner(cpl.unwrap_or(Cpl::Ring0));
            self.owners.write(super::LbrRegister::DebugCtl, owner);
            self.owners.set_frozen(owner);
        }
        retired
    }

    /// A transfer that is no instruction: an interrupt, an exception.
    pub fn transfer(&mut self, transfer: &Transfer) -> Verdict {
        let verdict = self.logical.transfer(transfer, self.now, &mut Nothing);
        self.recorded(verdict, transfer.cpl_before);
        verdict
    }

    fn recorded(&mut self, verdict: Verdict, cpl: Cpl) {
        if verdict != Verdict::Ignore {
            let tos = self.logical.lbr().tos() as u32;
            self.owners.record(verdict, tos, self.running.owner(cpl));
        }
    }

    /// What an owner caused of entries, TOS and filter is gone, as on a processor where it never was.
    /// Nobody's accesses: they stand in no ledger.
    pub(crate) fn forget(&mut self, owner: Owner) {
        let (msrs, mut none) = (self.msrs, Ledger::new());
        let entries = (0..msrs.nr).flat_map(|n| {
            let words = msrs.words_of_entry();
            words.filter_map(move |word| msrs.entry(word, n))
        });
        for msr in entries.chain(msrs.tos).chain(msrs.filter()) {
            if self.owner_of(msr) == owner {
                let cleared = self.wrmsr(&mut none, Actor::Host, msr, Owned::CLEARED);
                debug_assert!(cleared.is_ok());
            }
        }
    }

    /// Wakes from a C-state deeper than C1, which may have cleared the LBR.
    pub fn deep_c_state(&mut self) {
        self.logical.deep_c_state();
        if self.logical.lbr().stack().all(|record| record.is_empty()) {
            self.owners.clear();
        }
    }
}

impl MsrAccess for Processor {
    type Fault = MsrFault;

    fn rdmsr(&mut self, msr: Msr) -> Result<u64, MsrFault> {
        self.logical.rdmsr(msr)
    }

    fn wrmsr(&mut self, msr: Msr, value: u64) -> Result<(), MsrFault> {
        self.logical.wrmsr(msr, value)?;
        self.wrote(msr, self.writer);
        Ok(())
    }

    fn reserved_bits(&self, msr: Msr) -> u64 {
        self.logical.reserved_bits(msr)
    }
}
