//! What user space does to vCPUs beside running them: MSRs that it reads, writes, or carries to
//! another host.

use vlbr_host::VcpuId;
use vlbr_host::kvm::{ExitLevel, Place};
use vlbr_host::machine::{ExitCause, Input, Output};

use super::Simulation;
use crate::tally::{CarriedRecords, MonitorTally};
use crate::{MonitorAct, SceneError};

impl Simulation<'_> {
    /// It is asked for; it is done when the vCPU's thread runs.
    pub(super) fn ask(&mut self, request: usize) {
        let vcpu = self.scene.monitor[request].vcpu;
        self.vcpus[vcpu].asked.push_back(request);
    }

    /// The vCPU, whose thread runs, comes out to user space, which does what it was asked for.
    pub(super) fn serve_monitor(&mut self, cpu: usize, vcpu: usize) -> Result<(), SceneError> {
        let id = VcpuId(vcpu as u16);
        self.set_clock(cpu);
        if self.machine.host().vcpu(id).place == Place::Guest {
            let cause = ExitCause::ExternalInterrupt;
            self.apply(&Input::Exit(id, cause, ExitLevel::UserSpace))?;
        }
        if self.machine.host().vcpu(id).place == Place::Kernel {
            self.apply(&Input::Leave(id))?;
        }
        if !self.machine.host().vcpu(id).ran {
            self.offer_lbr(vcpu)?;
        }
        while let Some(request) = self.vcpus[vcpu].asked.pop_front() {
            let done = self.monitor(vcpu, request)?;
            self.monitored.push(MonitorTally {
                request,
                at_us: self.cpus[cpu].now / u64::from(self.scene.mhz),
                ..done
            });
        }
        Ok(())
    }

    fn monitor(&mut self, vcpu: usize, request: usize) -> Result<MonitorTally, SceneError> {
        let id = VcpuId(vcpu as u16);
        let thread = self.machine.host().vcpu(id).thread;
        let spec = self.scene.monitor[request];
        let carried = spec.carry.carried();
        let mut tally = MonitorTally::default();
        let names = |msrs: &[vlbr_arch::Msr]| msrs.iter().map(ToString::to_string).collect();
        match spec.does {
            MonitorAct::GetMsrs => {
                let output = self.apply(&Input::GetMsrs(thread, id, carried))?;
                if let Output::Msrs(values, refused) = output {
                    tally.read = values.len();
                    tally.refused = names(&refused);
                    self.vcpus[vcpu].msrs = values;
                }
            }
            MonitorAct::SetMsrs => {
                let values = self.vcpus[vcpu].msrs.clone();
                let count = values.len();
                let output = self.apply(&Input::SetMsrs(thread, id, values))?;
                if let Output::Refused(refused) = output {
                    tally.written = count - refused.len();
                    tally.refused = names(&refused);
                }
            }
            MonitorAct::Migrate => {
                let output = self.apply(&Input::Migrate(id, carried))?;
                if let Output::Migrated(migration) = output {
                    tally.read = migration.read;
                    tally.written = migration.written;
                    tally.refused = names(&migration.refused);
                    tally.records = Some(CarriedRecords::of(&migration));
                    let controls = migration.controls.iter();
                    let controls =
                        controls.map(|(msr, found)| (msr.to_string(), found.to_string()));
                    tally.controls = controls.collect();
                }
                // What perf saved of it was on the other host.
                self.vcpus[vcpu].left = None;
            }
        }
        Ok(tally)
    }
}
