//! Reading the stack for a sample: `intel_pmu_lbr_read`.

use vlbr_arch::LbrInfo;
use vlbr_cpu::ledger::Actor;

use super::{BranchRecord, BranchStack, CodeBytes};
use crate::hardware::{Entry, Hardware, Word};
use crate::perf::{Perf, X86Br};
use crate::{CpuId, Owned, Owner};

const BY: Actor = Actor::HostPmi;

/// `LBR_NO_INFO`, of the slot's value.
const NO_INFO: u64 = 1 << 63;

fn record(from: Owned, to: Owned, info_owner: Owner) -> BranchRecord {
    BranchRecord {
        from,
        to,
        info_owner,
        mispredicted: false,
        predicted: false,
        in_tx: false,
        abort: false,
        cycles: 0,
        hardware_type: 0,
        kind: X86Br::NONE,
    }
}

/// Without the upper `n` bits, which the one below them replaces.
const fn sign_extended(value: u64, n: u32) -> u64 {
    (((value << n) as i64) >> n) as u64
}

impl Perf {
    /// Refreshes the processor's branch stack. False if it was left as it is: nobody wants it, the
    /// guest owns the LBR, or every user takes its stack from adaptive PEBS.
    pub(crate) fn lbr_read(&mut self, hw: &mut Hardware, cpu: CpuId, code: &dyn CodeBytes) -> bool {
        let lbr = &self.cpu(cpu).lbr;
        if lbr.users == 0 || lbr.users == lbr.pebs_users || self.guest_owns_lbr(cpu) {
            return false;
        }
        let stack = if self.model.arch {
            self.read_arch(hw, cpu)
        } else if self.model.format_32 {
            self.read_32(hw, cpu)
        } else {
            self.read_64(hw, cpu)
        };
        self.cpu_mut(cpu).lbr.stack = stack;
        self.lbr_filter(cpu, code);
        true
    }

    fn tos(&mut self, hw: &mut Hardware, cpu: CpuId) -> u64 {
        let tos = self.model.msrs.tos;
        tos.map_or(0, |tos| self.rdmsr(hw, cpu, BY, tos).value)
    }

    fn word(&mut self, hw: &mut Hardware, cpu: CpuId, word: Word, slot: u32) -> Owned {
        let msr = self.model.msrs.entry(word, slot);
        msr.map_or(Owned::CLEARED, |msr| self.rdmsr(hw, cpu, BY, msr))
    }

    /// `intel_pmu_lbr_read_32`: one register holds both addresses.
    fn read_32(&mut self, hw: &mut Hardware, cpu: CpuId) -> BranchStack {
        let tos = self.tos(hw, cpu);
        let mut records = Vec::new();
        for i in 0..self.model.nr {
            let slot = self.model.msrs.older(tos as u32, i);
            let both = self.word(hw, cpu, Word::From, slot);
            let half = |value| Owned::new(value, both.owner);
            let (from, to) = (half(both.value & 0xffff_ffff), half(both.value >> 32));
            records.push(record(from, to, both.owner));
        }
        BranchStack {
            records,
            hw_idx: self.behaviour.hw_index.then_some(tos),
        }
    }

    /// `intel_pmu_lbr_read_64`.
    fn read_64(&mut self, hw: &mut Hardware, cpu: CpuId) -> BranchStack {
        let tos = self.tos(hw, cpu);
        let config = self.select_value(cpu);
        let wants_info = config.is_some_and(|config| config & NO_INFO == 0);
        let call_stack = self.call_stack_config(cpu);
        let mut records: Vec<BranchRecord> = Vec::new();
        for i in 0..self.model.nr {
            let slot = self.model.msrs.older(tos as u32, i);
            let mut from = self.word(hw, cpu, Word::From, slot);
            from.value = self.model.from_after_read(from.value);
            let to = self.word(hw, cpu, Word::To, slot);
            if call_stack && from.value == 0 {
                break;
            }
            let read = if self.model.info.is_none() {
                self.flags_of_format(from, to)
            } else if wants_info {
                let info = self.word(hw, cpu, Word::Info, slot);
                self.flags_of_info(from, to, info)
            } else {
                record(from, to, from.owner)
            };
            // The second record of an abort, which has no flag, stands before it.
            if read.abort && self.model.double_abort {
                records.pop();
            }
            records.push(read);
        }
        BranchStack {
            records,
            hw_idx: self.behaviour.hw_index.then_some(tos),
        }
    }

    fn flags_of_info(&self, from: Owned, to: Owned, info: Owned) -> BranchRecord {
        let bits = LbrInfo::from_bits(info.value);
        let mispredicted = bits.contains(LbrInfo::MISPRED);
        BranchRecord {
            mispredicted,
            predicted: !mispredicted,
            in_tx: self.model.tsx && bits.contains(LbrInfo::IN_TSX),
            abort: self.model.tsx && bits.contains(LbrInfo::TSX_ABORT),
            cycles: bits.cycles(),
            ..record(from, to, info.owner)
        }
    }

    /// Flags in FROM, cycles in TO.
    fn flags_of_format(&self, mut from: Owned, mut to: Owned) -> BranchRecord {
        let bits = LbrInfo::from_bits(from.value);
        let model = &self.model;
        let mispredicted = model.from_flags && bits.contains(LbrInfo::MISPRED);
        let mut read = record(from, to, from.owner);
        read.mispredicted = mispredicted;
        read.predicted = model.from_flags && !mispredicted;
        read.in_tx = model.tsx && bits.contains(LbrInfo::IN_TSX);
        read.abort = model.tsx && bits.contains(LbrInfo::TSX_ABORT);
        let flags = match (model.tsx, model.from_flags) {
            (true, _) => 3,
            (false, true) => 1,
            (false, false) => 0,
        };
        from.value = sign_extended(from.value, flags);
        if model.to_cycles {
            read.cycles = (to.value >> 48) as u16;
            to.value = sign_extended(to.value, 16);
        }
        (read.from, read.to) = (from, to);
        read
    }

    /// `intel_pmu_arch_lbr_read`, `intel_pmu_arch_lbr_read_xsave`.
    fn read_arch(&mut self, hw: &mut Hardware, cpu: CpuId) -> BranchStack {
        let mut entries: Vec<Entry> = Vec::new();
        if self.model.xsaves {
            let (processor, _, ledger) = hw.split(cpu);
            match processor.xsaves(ledger, BY) {
                Ok(image) => entries.extend(image.entries()),
                Err(_) => self.unchecked += 1,
            }
        } else {
            for n in 0..self.model.nr {
                let from = self.word(hw, cpu, Word::From, n);
                if from.value == 0 {
                    break;
                }
                let to = self.word(hw, cpu, Word::To, n);
                let info = self.word(hw, cpu, Word::Info, n);
                entries.push(Entry::new(from, to, info));
            }
        }
        self.store(&entries)
    }

    /// `intel_pmu_store_lbr`: entries, youngest first, up to the first empty one.
    pub(super) fn store(&self, entries: &[Entry]) -> BranchStack {
        let valid = entries.iter().take_while(|entry| entry.from().value != 0);
        let [mispredictions, cycles, types] = self.model.tells;
        let records = valid.map(|entry| {
            let (from, to, info) = (entry.from(), entry.to(), entry.info());
            let bits = LbrInfo::from_bits(info.value);
            let arch = self.model.arch;
            let mispredicted = (!arch || mispredictions) && bits.contains(LbrInfo::MISPRED);
            let counted = !arch || cycles && bits.contains(LbrInfo::CYC_CNT_VALID);
            BranchRecord {
                mispredicted,
                predicted: !mispredicted,
                in_tx: bits.contains(LbrInfo::IN_TSX),
                abort: bits.contains(LbrInfo::TSX_ABORT),
                cycles: if counted { bits.cycles() } else { 0 },
                hardware_type: if arch && types {
                    bits.branch_type().value()
                } else {
                    0
                },
                ..record(from, to, info.owner)
            }
        });
        BranchStack {
            records: records.collect(),
            hw_idx: None,
        }
    }

    /// `intel_pmu_store_pebs_lbrs`: the LBR group of an adaptive PEBS record becomes the
    /// processor's branch stack, whoever owns the LBR.
    pub(crate) fn store_pebs(
        &mut self,
        cpu: CpuId,
        (entries, tos): (&[Entry], u64),
        code: &dyn CodeBytes,
    ) {
        let mut stack = self.store(entries);
        let told = self.behaviour.hw_index && !self.model.arch && self.pmu.pebs_format < 4;
        stack.hw_idx = told.then_some(tos);
        self.cpu_mut(cpu).lbr.stack = stack;
        self.lbr_filter(cpu, code);
    }
}
