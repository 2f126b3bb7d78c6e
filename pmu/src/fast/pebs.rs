//! PEBS records.

use vlbr_arch::{DebugCtl, PebsDataCfg, PerfCapabilities, PerfEvtSel, PerfGlobalStatus, ds};

use super::msr::METRICS;
use super::{Pmu, slot};
use crate::profile::{MAX_FIXED, MAX_GP, PebsFull};
use crate::{
    Counter, CounterSet, Environment, MachineState, MemoryFault, PebsOutcome, PebsRecord, Quirk,
};

/// Bytes of the records of formats 0 to 3.
const SIZES: [usize; 4] = [0x90, 0xb0, 0xc0, 0xc8];

/// The buffer as the debug store describes it.
struct Buffer {
    base: u64,
    index: u64,
    maximum: u64,
    threshold: u64,
}

impl Pmu {
    /// Takes the record of every armed counter. Tells whether the PMI of the threshold is due.
    pub(super) fn take_record(&mut self, environment: &mut dyn Environment) -> (PebsOutcome, bool) {
        let counters = CounterSet(self.armed);
        let machine = environment.machine();
        let record = if self.config.baseline() {
            self.adaptive_record(counters, &machine, environment)
        } else {
            self.plain_record(counters, &machine, environment)
        };
        let late = core::mem::take(&mut self.late_pmi);
        self.armed = 0;
        self.status &= !counters.0;
        let (outcome, reached) = match self.store(&record, counters, environment) {
            Ok(done) => done,
            Err(fault) => (PebsOutcome::Fault(fault), false),
        };
        if !self.config.has(Quirk::PebsLatePmi) {
            return (outcome, reached);
        }
        self.late_pmi = reached && !late;
        (outcome, late)
    }

    fn store(
        &mut self,
        record: &[u8],
        counters: CounterSet,
        environment: &mut dyn Environment,
    ) -> Result<(PebsOutcome, bool), MemoryFault> {
        let field = |offset: u64| environment.read(self.ds_area.wrapping_add(offset));
        let buffer = Buffer {
            base: field(ds::PEBS_BASE)?,
            index: field(ds::PEBS_INDEX)?,
            maximum: field(ds::PEBS_ABSOLUTE_MAXIMUM)?,
            threshold: field(ds::PEBS_INTERRUPT_THRESHOLD)?,
        };
        let resets = counters
            .iter()
            .map(|counter| Ok((counter, field(self.reset_offset(counter))?)))
            .collect::<Result<Vec<_>, MemoryFault>>()?;
        let size = record.len() as u64;
        let end = buffer
            .index
            .checked_add(size)
            .filter(|end| buffer.index >= buffer.base && *end <= buffer.maximum);
        let full = self.profile.pebs().map_or(PebsFull::Drop, |pebs| pebs.full);
        let Some(end) = end else {
            match full {
                PebsFull::Drop => self.reload(&resets),
                PebsFull::Status => self.status |= PerfGlobalStatus::OVF_BUFFER.bits(),
            }
            return Ok((PebsOutcome::Full, false));
        };
        environment.write(buffer.index, record)?;
        environment.write(
            self.ds_area.wrapping_add(ds::PEBS_INDEX),
            &end.to_le_bytes(),
        )?;
        self.reload(&resets);
        let reached = end >= buffer.threshold;
        let shown = !self.config.has(Quirk::BufferBitGated)
            || environment
                .debugctl()
                .contains(DebugCtl::FREEZE_PERFMON_ON_PMI);
        if reached && shown {
            self.status |= PerfGlobalStatus::OVF_BUFFER.bits();
        }
        let stored = PebsRecord {
            address: buffer.index,
            size,
        };
        Ok((PebsOutcome::Stored(stored), reached))
    }

    fn reset_offset(&self, counter: Counter) -> u64 {
        let fixed = self.profile.pebs().and_then(|pebs| pebs.fixed_reset_offset);
        match counter {
            Counter::Gp(n) => ds::PEBS_RESET + 8 * u64::from(n),
            Counter::Fixed(i) => fixed.unwrap_or(ds::PEBS_RESET) + 8 * u64::from(i),
        }
    }

    fn reload(&mut self, resets: &[(Counter, u64)]) {
        for &(counter, value) in resets {
            let mask = match counter {
                Counter::Gp(_) => self.config.gp_mask,
                Counter::Fixed(_) => self.config.fixed_mask,
            };
            self.values[slot(counter)] = value & mask;
        }
    }

    /// A record of formats 0 to 3.
    fn plain_record(
        &self,
        counters: CounterSet,
        machine: &MachineState,
        environment: &dyn Environment,
    ) -> Vec<u8> {
        let format = self.config.pebs_format;
        let upper = self.profile.pebs().is_some_and(|pebs| pebs.upper_halves);
        let machine = &narrowed(machine, upper);
        let [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, high @ ..] = self.registers(machine);
        let mut words = vec![machine.rflags, self.record_ip(machine)];
        words.extend([rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp]);
        words.extend(high);
        words.push(match format {
            3 => counters.0,
            _ => self.global_status(environment),
        });
        words.extend([machine.data_address, machine.data_source, machine.latency]);
        words.extend([machine.eventing_ip, machine.tx_abort, machine.tsc]);
        if let Some(pebs) = self.profile.pebs() {
            for offset in &pebs.reserved {
                words[*offset as usize / 8] = 0;
            }
        }
        let size = SIZES[usize::from(format).min(SIZES.len() - 1)];
        words.truncate(size / 8);
        bytes(&words)
    }

    fn record_ip(&self, machine: &MachineState) -> u64 {
        if self
            .config
            .capabilities
            .contains(PerfCapabilities::PEBS_TRAP)
        {
            machine.rip
        } else {
            machine.eventing_ip
        }
    }

    fn registers(&self, machine: &MachineState) -> [u64; 16] {
        let stored = self
            .config
            .capabilities
            .contains(PerfCapabilities::PEBS_ARCH_REG);
        if stored { machine.gprs } else { [0; 16] }
    }

    /// A record of formats 4 and up.
    fn adaptive_record(
        &self,
        counters: CounterSet,
        machine: &MachineState,
        environment: &dyn Environment,
    ) -> Vec<u8> {
        let machine = &narrowed(machine, false);
        let adaptive = counters.iter().any(|counter| match counter {
            Counter::Gp(n) => self.evtsel[usize::from(n)].contains(PerfEvtSel::ADAPTIVE_RECORD),
            Counter::Fixed(i) => self.fixed_ctrl.adaptive_record(u32::from(i)),
        });
        let config = PebsDataCfg::from_bits(if adaptive { self.pebs_data_cfg } else { 0 });
        let mut words = vec![0, machine.eventing_ip, counters.0, machine.tsc];
        if config.contains(PebsDataCfg::MEMORY_INFO) {
            words.extend([
                machine.data_address,
                machine.data_source,
                machine.latency,
                machine.tx_abort,
            ]);
        }
        if config.contains(PebsDataCfg::GPRS) {
            words.extend([machine.rflags, self.record_ip(machine)]);
            words.extend(self.registers(machine));
        }
        if config.contains(PebsDataCfg::XMMS) {
            words.extend(machine.xmms.as_flattened());
        }
        if config.contains(PebsDataCfg::LBRS) {
            for index in 0..config.lbr_entries() {
                words.extend(environment.lbr_entry(index).unwrap_or_default());
            }
        }
        if config.contains(PebsDataCfg::COUNTERS) {
            self.push_counters(config, &mut words);
        }
        let timing = self
            .config
            .capabilities
            .contains(PerfCapabilities::PEBS_TIMING_INFO);
        let middle = if timing {
            machine.retire_latency
        } else {
            config.gp_counters()
        };
        let size = 8 * words.len() as u64;
        words[0] = config.bits() & 0xffff_ffff | u64::from(middle) << 32 | size << 48;
        bytes(&words)
    }

    fn push_counters(&self, config: PebsDataCfg, words: &mut Vec<u64>) {
        let (gp, fixed) = (config.gp_counters(), config.fixed_counters());
        let metrics = config.contains(PebsDataCfg::METRICS);
        words.push(u64::from(gp) | u64::from(fixed) << 32);
        words.push(if metrics { 3 } else { 0 });
        for n in (0..MAX_GP as u8).filter(|n| gp >> n & 1 != 0) {
            words.push(self.values[slot(Counter::Gp(n))]);
        }
        for i in (0..MAX_FIXED as u8).filter(|i| fixed >> i & 1 != 0) {
            words.push(self.values[slot(Counter::Fixed(i))]);
        }
        if metrics {
            words.extend([self.values[slot(Counter::Fixed(3))], self.stored[METRICS]]);
        }
    }
}

/// What is left of the registers outside IA-32e mode.
fn narrowed(machine: &MachineState, upper_halves: bool) -> MachineState {
    let mut machine = machine.clone();
    if machine.ia32e || upper_halves {
        return machine;
    }
    let low = |value: &mut u64| *value &= 0xffff_ffff;
    low(&mut machine.rflags);
    low(&mut machine.rip);
    machine.gprs[..8].iter_mut().for_each(low);
    machine.gprs[8..].fill(0);
    machine
}

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
