//! The slow processor as a side.

use vlbr_arch::vmx::VmcsField;
use vlbr_arch::{Cpl, LvtPc, Transfer};
use vlbr_cpu::ledger::Actor;
use vlbr_pmu::{Device as _, Increments, Source};

use crate::ends::{Ends, Told};
use crate::model::{Access, Slow};
use crate::ram::Ram;
use crate::side::{Depth, Devices, Look, Seen, Side, Step, addresses, increments};

impl Side for Slow {
    fn ram(&mut self) -> &mut Ram {
        &mut self.ram
    }

    fn memory(&self) -> (&Ram, &Ram) {
        (&self.ram, &self.msrs.store.ram)
    }

    fn power(&mut self) {
        Self::power(self);
    }

    fn set_smm(&mut self, smm: bool) {
        self.in_smm = smm;
    }

    fn pass(&mut self, clocks: u64) {
        Self::pass(self, clocks);
        self.msrs.clock += clocks;
    }

    fn rdmsr(&mut self, actor: Actor, msr: u32) -> Ends {
        Self::rdmsr(self, actor, msr).map_or_else(|ends| ends, Ends::Value)
    }

    fn wrmsr(&mut self, actor: Actor, msr: u32, value: u64) -> Ends {
        Self::wrmsr(self, actor, msr, value).map_or_else(|ends| ends, |()| Ends::Done)
    }

    fn vmxon(&mut self, at: u64) -> Ends {
        Self::vmxon(self, at)
    }

    fn vmxoff(&mut self) -> Ends {
        Self::vmxoff(self)
    }

    fn vmclear(&mut self, at: u64) -> Ends {
        Self::vmclear(self, at)
    }

    fn vmptrld(&mut self, at: u64) -> Ends {
        Self::vmptrld(self, at)
    }

    fn vmptrst(&mut self) -> Ends {
        Self::vmptrst(self)
    }

    fn vmread(&mut self, actor: Actor, field: VmcsField, wide: bool) -> Ends {
        Self::vmread(self, actor, field, wide)
    }

    fn vmwrite(&mut self, actor: Actor, field: VmcsField, value: u64, wide: bool) -> Ends {
        Self::vmwrite(self, actor, field, value, wide)
    }

    fn enter(&mut self, launch: bool, shadow: bool) -> Ends {
        Self::enter(self, launch, shadow)
    }

    fn exit(&mut self, told: &Told) -> Ends {
        Self::exit(self, told)
    }

    fn guest_msr(&mut self, access: Access, msr: u32, cpl: u8) -> Ends {
        Self::guest_msr(self, access, msr, cpl)
    }

    fn exception(&mut self, vector: u8, kind: u32, code: Option<u32>, dr6: u64) -> Ends {
        Self::exception(self, vector, kind, code, dr6)
    }

    fn nmi(&mut self) -> Ends {
        Self::nmi(self)
    }

    fn external_interrupt(&mut self, vector: u8) -> Ends {
        Self::external_interrupt(self, vector)
    }

    fn rdpmc_exits(&mut self) -> Ends {
        Self::rdpmc(self)
    }

    fn rdpmc(&mut self, ecx: u32, cpl: Cpl, pce: bool) -> Ends {
        let read = self.msrs.pmu.rdpmc(ecx, cpl, pce);
        read.map_or(Ends::Gp, Ends::Value)
    }

    fn xsaves(&mut self, restore: bool, mask: u64, xss: u64) -> Ends {
        Self::xsaves(self, restore, mask, xss, 4)
    }

    fn timer_exits(&self) -> Ends {
        Self::timer_exits(self)
    }

    fn set_lvtpc(&mut self, entry: u32) {
        self.msrs.pmu.set_lvtpc(LvtPc::from_bits(entry));
    }

    /// Instruction by instruction.
    fn retire(&mut self, step: &Step) -> Seen {
        let mut seen = Seen::new();
        match step {
            Step::Plain(n, cpl) => {
                for _ in 0..*n {
                    let outcome = self.msrs.retire(&Increments::instruction(*cpl));
                    let interrupt = self.msrs.pmu.deliver();
                    seen.push((outcome, interrupt));
                    if interrupt.is_some() {
                        break;
                    }
                }
            }
            Step::NotTaken(_) => {
                if let Some(run) = increments(step) {
                    let outcome = self.msrs.retire(&run);
                    seen.push((outcome, self.msrs.pmu.deliver()));
                }
            }
            Step::Taken(transfer) => {
                let inserts = self.msrs.transfer(transfer);
                let mut run = increments(step).unwrap_or_default();
                run.add(Source::LbrInserts, transfer.cpl_before, inserts);
                let outcome = self.msrs.retire(&run);
                seen.push((outcome, self.msrs.pmu.deliver()));
            }
        }
        seen
    }

    fn record(&mut self, transfer: &Transfer) {
        let inserts = self.msrs.transfer(transfer);
        let mut run = Increments::new();
        run.add(Source::LbrInserts, transfer.cpl_before, inserts);
        self.msrs.retire(&run);
    }

    fn look(&mut self, depth: Depth) -> Look {
        let region = self.current.and_then(|at| self.regions.get(&at));
        Look {
            mode: self.mode,
            vmcs: region.map(|region| (region.launched, region.fields.clone())),
            gprs: self.gprs,
            timer: self.timer_exits(),
            rows: self.rows.clone(),
            devices: (!matches!(depth, Depth::Nothing)).then(|| Devices {
                msrs: addresses(depth)
                    .map(|msr| (msr, self.msrs.read(msr)))
                    .collect(),
                records: vlbr_lbr::Device::records(&self.msrs.lbr),
                frozen: vlbr_lbr::Device::lbr_frz(&self.msrs.lbr),
                pending: self.msrs.pmu.pending(),
                lvtpc: self.msrs.pmu.lvtpc(),
                armed: self.msrs.pmu.armed(),
                horizon: self.msrs.pmu.horizon(),
            }),
        }
    }
}
