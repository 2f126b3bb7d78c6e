//! What a step asks perf and KVM for.

use vlbr_host::kvm::GuestCpu;
use vlbr_host::machine::Machine;
use vlbr_host::perf::{EventAttr, EventKind, Target};
use vlbr_lbr::{Interface, Profile};
use vlbr_pmu::Device as _;

use super::names::HostNames;
use crate::compare::{Mismatch, mismatch};
use crate::host_step::{Counts, EventText, VcpuModel};

/// The vCPU's processor: the host's part, perfmon version 2 with 4 and 3 counters, where the step
/// does not say otherwise.
pub(super) fn guest_cpu(profile: &Profile, model: &VcpuModel) -> Result<GuestCpu, Mismatch> {
    let first = profile.models().first().copied();
    let told = model.model.or(first);
    Ok(GuestCpu {
        model: told.ok_or_else(|| mismatch("a part with a model number", profile.name()))?,
        pdcm: !model.no_pdcm,
        pmu_version: model.pmu.unwrap_or(2),
        gp_counters: model.gp.unwrap_or(4),
        fixed_counters: model.fixed.unwrap_or(3),
        arch_lbr_ebx: match profile.interface() {
            Interface::Arch(arch) => model.arch_lbr_ebx.unwrap_or(arch.ebx),
            Interface::Legacy(_) => 0,
        },
    })
}

impl HostNames {
    pub(super) fn attr(&self, machine: &Machine, text: &EventText) -> Result<EventAttr, Mismatch> {
        let mut attr = match &text.counts {
            Counts::V8Lbr => EventAttr::V8_GUEST_LBR,
            Counts::VirtualLbr => EventAttr::VIRTUAL_GUEST_LBR,
            Counts::Software => EventAttr::counting(EventKind::Software),
            Counts::Named(name) => {
                let pmu = machine.host().hardware().fresh().pmu();
                let spec = pmu.profile().parse_event(name, pmu.options());
                let spec = spec.map_err(|error| mismatch("an event of the part", error))?;
                EventAttr::sampling(&spec, 0, None)
            }
        };
        attr.pinned |= text.pinned;
        attr.exclusive |= text.exclusive;
        attr.exclude_host |= text.exclude_host;
        attr.exclude_guest |= text.exclude_guest;
        attr.precise_ip = attr.precise_ip.max(text.precise.into());
        attr.period = text.period;
        attr.disabled |= text.disabled;
        attr.inherit |= text.inherit;
        attr.branch_sample_type = text.branch.or(attr.branch_sample_type);
        Ok(attr)
    }

    pub(super) fn target(&self, machine: &Machine, text: &EventText) -> Result<Target, Mismatch> {
        let task = text
            .task
            .as_deref()
            .map(|name| self.task(machine, name))
            .transpose()?;
        let cpu = text.cpu.map(|cpu| self.cpu(machine, cpu)).transpose()?;
        match (task, cpu) {
            (None, Some(cpu)) => Ok(Target::Cpu(cpu)),
            (Some(task), None) => Ok(Target::Task(task)),
            (Some(task), Some(cpu)) => Ok(Target::TaskOnCpu(task, cpu)),
            (None, None) => Err(mismatch("a processor or a task", "neither")),
        }
    }
}
