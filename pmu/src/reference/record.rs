//! PEBS records, word by word at the offsets of the tables.

use vlbr_arch::Msr;

use super::Pmu;
use crate::{
    Counter, Environment, MachineState, MemoryFault, PebsFull, PebsOutcome, PebsRecord, Quirk,
};

/// A record under construction.
struct Record {
    bytes: Vec<u8>,
}

impl Record {
    fn of(size: usize) -> Self {
        Self {
            bytes: vec![0; size],
        }
    }

    /// Writes a word, if the record reaches so far.
    fn set(&mut self, offset: usize, word: u64) {
        if let Some(place) = self.bytes.get_mut(offset..offset + 8) {
            place.copy_from_slice(&word.to_le_bytes());
        }
    }
}

impl Pmu {
    pub(super) fn make_record(&mut self, environment: &mut dyn Environment) -> (PebsOutcome, bool) {
        let mut counters = self.armed.clone();
        counters.sort_unstable();
        let machine = environment.machine();
        let record = if self.adaptive() {
            self.adaptive_record(&counters, &machine, environment)
        } else {
            self.fixed_record(&counters, &machine, environment)
        };
        self.armed.clear();
        for counter in &counters {
            self.set_bit(Msr::PERF_GLOBAL_STATUS, counter.bit(), false);
        }
        let (outcome, reached) = match self.put_down(&record, &counters, environment) {
            Ok(done) => done,
            Err(fault) => (PebsOutcome::Fault(fault), false),
        };
        if self.has(Quirk::PebsLatePmi) {
            let owed = self.pmi_owed;
            self.pmi_owed = reached && !owed;
            return (outcome, owed);
        }
        self.pmi_owed = false;
        (outcome, reached)
    }

    fn put_down(
        &mut self,
        record: &Record,
        counters: &[Counter],
        environment: &mut dyn Environment,
    ) -> Result<(PebsOutcome, bool), MemoryFault> {
        let area = self.get(Msr::DS_AREA);
        let base = environment.read(area.wrapping_add(0x20))?;
        let index = environment.read(area.wrapping_add(0x28))?;
        let maximum = environment.read(area.wrapping_add(0x30))?;
        let threshold = environment.read(area.wrapping_add(0x38))?;
        let mut resets = Vec::new();
        for counter in counters {
            let offset = match counter {
                Counter::Gp(n) => 0x40 + 8 * u64::from(*n),
                Counter::Fixed(i) => self.first_fixed_slot() + 8 * u64::from(*i),
            };
            resets.push((*counter, environment.read(area.wrapping_add(offset))?));
        }
        let size = record.bytes.len() as u64;
        let end = u128::from(index) + u128::from(size);
        let fits = index >= base && end <= u128::from(maximum);
        let goldmont = self.profile.pebs.as_ref().map(|pebs| pebs.full) == Some(PebsFull::Status);
        if !fits && goldmont {
            self.set_bit(Msr::PERF_GLOBAL_STATUS, 62, true);
            return Ok((PebsOutcome::Full, false));
        }
        if fits {
            environment.write(index, &record.bytes)?;
            environment.write(area.wrapping_add(0x28), &(end as u64).to_le_bytes())?;
        }
        for (counter, value) in resets {
            let kept = u128::from(value) % (1 << self.width(counter));
            self.put(Self::home(counter), kept as u64);
        }
        if !fits {
            return Ok((PebsOutcome::Full, false));
        }
        let reached = end >= u128::from(threshold);
        let hidden =
            self.has(Quirk::BufferBitGated) && environment.debugctl().bits() >> 12 & 1 == 0;
        if reached && !hidden {
            self.set_bit(Msr::PERF_GLOBAL_STATUS, 62, true);
        }
        let stored = PebsRecord {
            address: index,
            size,
        };
        Ok((PebsOutcome::Stored(stored), reached))
    }

    /// Behind eight general-purpose slots in format 4, behind thirty-two in later ones.
    fn first_fixed_slot(&self) -> u64 {
        let pebs = self.profile.pebs.as_ref();
        pebs.and_then(|pebs| pebs.fixed_reset_offset)
            .unwrap_or(0x40)
    }

    /// A register as it is stored.
    fn register(&self, machine: &MachineState, number: usize) -> u64 {
        let value = machine.gprs[number];
        let whole = machine.ia32e || self.keeps_upper_halves();
        match (self.capability(7), whole, number) {
            (false, ..) => 0,
            (true, true, _) => value,
            (true, false, 8..) => 0,
            (true, false, _) => value % (1 << 32),
        }
    }

    fn keeps_upper_halves(&self) -> bool {
        self.profile
            .pebs
            .as_ref()
            .is_some_and(|pebs| pebs.upper_halves)
    }

    fn flags_and_ip(&self, machine: &MachineState) -> [u64; 2] {
        let rip = match (machine.ia32e || self.keeps_upper_halves(), machine.rip) {
            (true, rip) => rip,
            (false, rip) => rip % (1 << 32),
        };
        // Without PEBSTrap the record is taken before the instruction.
        let ip = if self.capability(6) {
            rip
        } else {
            machine.eventing_ip
        };
        let flags = match machine.ia32e || self.keeps_upper_halves() {
            true => machine.rflags,
            false => machine.rflags % (1 << 32),
        };
        [flags, ip]
    }

    fn fixed_record(
        &self,
        counters: &[Counter],
        machine: &MachineState,
        environment: &dyn Environment,
    ) -> Record {
        let format = self.pebs_format();
        let mut record = Record::of(match format {
            0 => 0x90,
            1 => 0xb0,
            2 => 0xc0,
            _ => 0xc8,
        });
        let [flags, ip] = self.flags_and_ip(machine);
        record.set(0x00, flags);
        record.set(0x08, ip);
        // RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP.
        for (place, number) in [0, 3, 1, 2, 6, 7, 5, 4].into_iter().enumerate() {
            record.set(0x10 + 8 * place, self.register(machine, number));
        }
        for number in 8..16 {
            record.set(0x50 + 8 * (number - 8), self.register(machine, number));
        }
        if format == 3 {
            record.set(0x90, counters.iter().fold(0, |set, c| set | 1 << c.bit()));
        } else {
            record.set(0x90, self.status(environment));
        }
        record.set(0x98, machine.data_address);
        record.set(0xa0, machine.data_source);
        record.set(0xa8, machine.latency);
        record.set(0xb0, machine.eventing_ip);
        record.set(0xb8, machine.tx_abort);
        record.set(0xc0, machine.tsc);
        if let Some(pebs) = &self.profile.pebs {
            for offset in &pebs.reserved {
                record.set(*offset as usize, 0);
            }
        }
        record
    }

    fn adaptive_record(
        &self,
        counters: &[Counter],
        machine: &MachineState,
        environment: &dyn Environment,
    ) -> Record {
        let adaptive = counters.iter().any(|counter| match counter {
            Counter::Gp(n) => self.bit(Self::evtsel(*n), 34),
            Counter::Fixed(i) => self.bit(Msr::FIXED_CTR_CTRL, 32 + 4 * u32::from(*i)),
        });
        let config = if adaptive {
            self.get(Msr::PEBS_DATA_CFG)
        } else {
            0
        };
        let group = |bit: u32| config >> bit & 1 == 1;
        let entries = (config >> 24 & 0xff) as usize + 1;
        let stored: Vec<Counter> = self
            .counters()
            .into_iter()
            .filter(|counter| match counter {
                Counter::Gp(n) => group(32 + u32::from(*n)),
                Counter::Fixed(i) => group(48 + u32::from(*i)),
            })
            .collect();
        let sizes = [
            (true, 0x20),
            (group(0), 0x20),
            (group(1), 0x90),
            (group(2), 0x100),
            (group(3), 24 * entries),
            (group(4), 16 + 8 * stored.len() + 16 * usize::from(group(5))),
        ];
        let offset = |n: usize| {
            let before = sizes[..n].iter().filter(|(present, _)| *present);
            before.map(|(_, size)| *size).sum::<usize>()
        };
        let size = offset(sizes.len());
        let mut record = Record::of(size);
        let middle = match self.capability(17) {
            true => u64::from(machine.retire_latency),
            false => config >> 32 & 0xffff,
        };
        record.set(
            0x00,
            config % (1 << 32) + (middle << 32) + ((size as u64) << 48),
        );
        record.set(0x08, machine.eventing_ip);
        record.set(0x10, counters.iter().fold(0, |set, c| set | 1 << c.bit()));
        record.set(0x18, machine.tsc);
        if group(0) {
            let at = offset(1);
            record.set(at, machine.data_address);
            record.set(at + 0x08, machine.data_source);
            record.set(at + 0x10, machine.latency);
            record.set(at + 0x18, machine.tx_abort);
        }
        if group(1) {
            let at = offset(2);
            let [flags, ip] = self.flags_and_ip(machine);
            record.set(at, flags);
            record.set(at + 8, ip);
            for number in 0..16 {
                record.set(at + 0x10 + 8 * number, self.register(machine, number));
            }
        }
        if group(2) {
            for (number, [low, high]) in machine.xmms.iter().enumerate() {
                record.set(offset(3) + 16 * number, *low);
                record.set(offset(3) + 16 * number + 8, *high);
            }
        }
        if group(3) {
            for entry in 0..entries {
                let words = environment.lbr_entry(entry).unwrap_or([0, 0, 0]);
                for (n, word) in words.into_iter().enumerate() {
                    record.set(offset(4) + 24 * entry + 8 * n, word);
                }
            }
        }
        if group(4) {
            let at = offset(5);
            record.set(at, (config >> 32 & 0xffff) + ((config >> 48 & 0xff) << 32));
            record.set(at + 8, if group(5) { 3 } else { 0 });
            for (n, counter) in stored.iter().enumerate() {
                record.set(at + 16 + 8 * n, self.get(Self::home(*counter)));
            }
            if group(5) {
                let metrics = at + 16 + 8 * stored.len();
                record.set(metrics, self.get(Msr::FIXED_CTR0.plus(3)));
                record.set(metrics + 8, self.get(Msr::PERF_METRICS));
            }
        }
        record
    }
}
