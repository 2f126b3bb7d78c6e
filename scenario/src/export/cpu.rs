//! The processor of a case.

use serde::Serialize;
use vlbr_arch::{CPUID_LEAF_PERFMON, CpuidResult, Msr};
use vlbr_cpu::processor::Options;
use vlbr_lbr::CpuModel;
use vlbr_vmx::VmxProfile;

use super::flatten::CPUID;
use super::hex::Hex;
use super::layout::Layout;
use crate::compare::{Mismatch, mismatch};
use crate::machine::Machine;

/// A register of CPUID.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Cpuid {
    leaf: Hex,
    subleaf: Hex,
    register: &'static str,
    value: Hex,
    mask: Hex,
}

/// A processor as far as a case concerns it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Cpu {
    name: String,
    title: String,
    models: Vec<String>,
    linear_address_bits: u8,
    lbr_depth: u32,
    lbr_format: Hex,
    perf_capabilities: Hex,
    layout: Layout,
    cpuid: Vec<Cpuid>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vmx: Vec<(Hex, String, Hex)>,
}

/// CPUID leaf 1 EAX of stepping 0. SDM volume 2, CPUID.
fn signature(model: CpuModel) -> u32 {
    let (family, model) = (u32::from(model.family), u32::from(model.model));
    let (base, extended) = (family.min(15), family.saturating_sub(15));
    extended << 20 | (model >> 4) << 16 | base << 8 | (model & 15) << 4
}

const VMX_CAPABILITIES: [Msr; 11] = [
    Msr::VMX_BASIC,
    Msr::VMX_PINBASED_CTLS,
    Msr::VMX_PROCBASED_CTLS,
    Msr::VMX_EXIT_CTLS,
    Msr::VMX_ENTRY_CTLS,
    Msr::VMX_MISC,
    Msr::VMX_PROCBASED_CTLS2,
    Msr::VMX_TRUE_PINBASED_CTLS,
    Msr::VMX_TRUE_PROCBASED_CTLS,
    Msr::VMX_TRUE_EXIT_CTLS,
    Msr::VMX_TRUE_ENTRY_CTLS,
];

impl Cpu {
    /// The processor of a machine after power-up.
    pub(super) fn of(
        machine: &mut Machine<'_>,
        options: &Options,
        layout: Layout,
    ) -> Result<Self, Mismatch> {
        let capabilities = machine.capabilities()?;
        let [leaf_1c, leaf_d_15] = machine.cpuid()?;
        let profile = machine.profile();
        let pmu = vlbr_pmu::Profile::named(profile.name())
            .map_err(|error| mismatch("the PMU of the processor", error))?;
        let mut cpuid = Vec::new();
        let mut one = |(leaf, subleaf): (u32, u32), register, value: u32, mask: u32| {
            cpuid.push(Cpuid {
                leaf: leaf.into(),
                subleaf: subleaf.into(),
                register,
                value: value.into(),
                mask: mask.into(),
            });
        };
        if let Some(model) = profile.models().first() {
            one((1, 0), "eax", signature(*model), !0xf);
        }
        let tsx = if options.lbr.tsx.unwrap_or(profile.tsx()) {
            1 << 4 | 1 << 11
        } else {
            0
        };
        one((7, 0), "ebx", tsx, 1 << 4 | 1 << 11);
        one((7, 0), "edx", u32::from(profile.is_arch()) << 19, 1 << 19);
        let mut leaf = |leaf, result: CpuidResult| {
            one(leaf, "eax", result.eax, !0);
            one(leaf, "ebx", result.ebx, !0);
            one(leaf, "ecx", result.ecx, !0);
            one(leaf, "edx", result.edx, !0);
        };
        leaf((CPUID_LEAF_PERFMON, 0), pmu.cpuid_0a());
        leaf(CPUID[0], leaf_1c);
        leaf(CPUID[1], leaf_d_15);
        let of_vmx = VmxProfile::of_processor(profile.name()).ok();
        let known = |capabilities: &VmxProfile| {
            let one = |msr: Msr| {
                let value = capabilities.msr(msr)?;
                Some((Hex(msr.value().into()), msr.to_string(), Hex(value)))
            };
            VMX_CAPABILITIES.into_iter().filter_map(one).collect()
        };
        Ok(Self {
            name: profile.name().to_owned(),
            title: profile.title().to_owned(),
            models: profile.models().iter().map(ToString::to_string).collect(),
            linear_address_bits: profile.linear_address_bits(),
            lbr_depth: profile.max_depth(),
            lbr_format: Hex(capabilities & 0x3f),
            perf_capabilities: Hex(capabilities),
            layout,
            cpuid,
            vmx: of_vmx.map(known).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_splits_family_and_model_as_cpuid_does() {
        for (text, eax) in [
            ("06_4E", 0x406e0),
            ("06_0F", 0x006f0),
            ("13_01", 0x0040_0f10),
        ] {
            let model: CpuModel = text.parse().expect("a model");
            assert_eq!(signature(model), eax, "{text}");
        }
    }
}
