//! [`Device`] for the reference.

use vlbr_arch::{CpuidResult, Cycles, Msr, Transfer, XSTATE_LBR_SIZE};

use super::Lbr;
use crate::{Access, Device, GpFault, InsertsEvent, Pmi, Profile, Record, Reset, Verdict};

impl Device for Lbr {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn rdmsr(&self, msr: Msr) -> Result<u64, GpFault> {
        self.read(msr).map_err(|reason| GpFault {
            access: Access::Rdmsr(msr),
            reason,
        })
    }

    fn wrmsr(&mut self, msr: Msr, value: u64) -> Result<(), GpFault> {
        self.write(msr, value).map_err(|reason| GpFault {
            access: Access::Wrmsr(msr, value),
            reason,
        })
    }

    fn msrs(&self) -> Vec<Msr> {
        self.places().into_iter().map(|(msr, _)| msr).collect()
    }

    fn reserved_bits(&self, msr: Msr) -> u64 {
        self.bits_never_taken(msr)
    }

    fn retire(&mut self, transfer: &Transfer, now: Cycles) -> Verdict {
        self.retire_literally(transfer, now)
    }

    fn verdict(&self, transfer: &Transfer) -> Verdict {
        self.decide(transfer)
    }

    fn recording(&self) -> bool {
        self.is_recording()
    }

    fn tos(&self) -> usize {
        if self.locked_out() { 0 } else { self.top() }
    }

    fn depth(&self) -> usize {
        self.slots.len()
    }

    fn records(&self) -> Vec<Record> {
        let depth = self.slots.len();
        let mut records = Vec::new();
        for age in 0..depth {
            let slot = if self.arch().is_some() {
                age
            } else {
                (self.tos + depth - age) % depth
            };
            let words = if self.locked_out() {
                [0; 3]
            } else {
                self.slot_words(&self.slots[slot])
            };
            records.push(self.read_record(words));
        }
        records
    }

    fn freeze_on_pmi(&mut self, pmi: Pmi) {
        self.freeze(pmi);
    }

    fn lbr_frz(&self) -> bool {
        self.frz
    }

    fn set_lbr_frz(&mut self, frozen: bool) {
        self.software_frz(frozen);
    }

    fn deep_c_state(&mut self) {
        self.sleep();
    }

    fn reset(&mut self, reset: Reset) {
        self.do_reset(reset);
    }

    fn set_trace_en(&mut self, enabled: bool) {
        self.trace(enabled);
    }

    fn xsaves(&self, image: &mut [u8; XSTATE_LBR_SIZE]) -> Result<(), GpFault> {
        self.save_image(image)
    }

    fn xrstors(&mut self, image: &[u8; XSTATE_LBR_SIZE]) -> Result<(), GpFault> {
        self.load_image(image)
    }

    fn xrstors_init(&mut self) -> Result<(), GpFault> {
        self.load_initial()
    }

    fn cpuid_1c(&self) -> CpuidResult {
        match self.arch() {
            Some(arch) => CpuidResult {
                eax: arch.eax,
                ebx: arch.ebx,
                ecx: arch.ecx,
                edx: 0,
            },
            None => CpuidResult::default(),
        }
    }

    fn cpuid_d_15(&self) -> CpuidResult {
        match self.arch() {
            Some(_) => CpuidResult {
                eax: 0x328,
                ebx: 0,
                ecx: 1,
                edx: 0,
            },
            None => CpuidResult::default(),
        }
    }

    fn segment_test_failed(&mut self) {
        self.segment_test();
    }

    fn log_event(&mut self, pmc: u8) {
        self.log(pmc);
    }

    fn lbr_inserts(&self) -> Option<u64> {
        match self.profile.lbr_inserts {
            InsertsEvent::None => None,
            InsertsEvent::Pushes | InsertsEvent::PushesAndPops => Some(self.inserts),
        }
    }
}
