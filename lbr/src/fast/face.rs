//! [`Device`] for the fast device.

use vlbr_arch::{CpuidResult, Cycles, Msr, Transfer, XSTATE_LBR_SIZE};

use super::Lbr;
use crate::{Device, GpFault, InsertsEvent, Pmi, Profile, Record, Reset, Verdict};

impl Device for Lbr {
    fn profile(&self) -> &Profile {
        self.profile()
    }

    fn rdmsr(&self, msr: Msr) -> Result<u64, GpFault> {
        self.rdmsr(msr)
    }

    fn wrmsr(&mut self, msr: Msr, value: u64) -> Result<(), GpFault> {
        self.wrmsr(msr, value)
    }

    fn msrs(&self) -> Vec<Msr> {
        self.list_msrs()
    }

    fn reserved_bits(&self, msr: Msr) -> u64 {
        self.always_refused(msr)
    }

    fn retire(&mut self, transfer: &Transfer, now: Cycles) -> Verdict {
        self.retire(transfer, now)
    }

    fn verdict(&self, transfer: &Transfer) -> Verdict {
        self.verdict(transfer)
    }

    fn recording(&self) -> bool {
        self.recording()
    }

    fn tos(&self) -> usize {
        self.tos()
    }

    fn depth(&self) -> usize {
        self.depth()
    }

    fn records(&self) -> Vec<Record> {
        self.stack().collect()
    }

    fn record(&self, index: usize) -> Option<Record> {
        self.stack().nth(index)
    }

    fn freeze_on_pmi(&mut self, pmi: Pmi) {
        self.freeze(pmi);
    }

    fn lbr_frz(&self) -> bool {
        self.control.lbr_frz
    }

    fn set_lbr_frz(&mut self, frozen: bool) {
        self.write_lbr_frz(frozen);
    }

    fn deep_c_state(&mut self) {
        self.leave_deep_c_state();
    }

    fn reset(&mut self, reset: Reset) {
        self.do_reset(reset);
    }

    fn set_trace_en(&mut self, enabled: bool) {
        self.write_trace_en(enabled);
    }

    fn xsaves(&self, image: &mut [u8; XSTATE_LBR_SIZE]) -> Result<(), GpFault> {
        self.save(image)
    }

    fn xrstors(&mut self, image: &[u8; XSTATE_LBR_SIZE]) -> Result<(), GpFault> {
        self.restore(image)
    }

    fn xrstors_init(&mut self) -> Result<(), GpFault> {
        self.restore_init()
    }

    fn cpuid_1c(&self) -> CpuidResult {
        self.leaf_1c()
    }

    fn cpuid_d_15(&self) -> CpuidResult {
        self.leaf_d_15()
    }

    fn segment_test_failed(&mut self) {
        self.fail_segment_test();
    }

    fn log_event(&mut self, pmc: u8) {
        self.count_event(pmc);
    }

    fn lbr_inserts(&self) -> Option<u64> {
        (self.config.inserts != InsertsEvent::None).then_some(self.inserts)
    }
}
