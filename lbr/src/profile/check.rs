//! What must hold in every profile.

use vlbr_arch::{DebugCtl, LbrFormat, Msr};

use super::raw::{ProfileError, invalid};
use super::{ArchLbr, Interface, LegacyLbr, Profile};

/// Registers that no LBR array may cover.
const FIXED: [Msr; 6] = [
    Msr::LBR_SELECT,
    Msr::LASTBRANCH_TOS,
    Msr::DEBUGCTL,
    Msr::LER_FROM,
    Msr::LER_TO,
    Msr::LER_INFO,
];

pub(super) fn check(profile: &Profile) -> Result<(), ProfileError> {
    check_names(profile)?;
    if ![48, 57].contains(&profile.linear_address_bits) {
        return Err(invalid("linear_address_bits", "is neither 48 nor 57"));
    }
    if !(1..=6).contains(&profile.perfmon_version) {
        return Err(invalid("perfmon_version", "is not from 1 to 6"));
    }
    if !profile.debugctl.contains(DebugCtl::LBR) {
        return Err(invalid("debugctl", "lacks LBR, which every part accepts"));
    }
    if profile.debugctl.contains(DebugCtl::RTM_DEBUG) {
        return Err(invalid(
            "debugctl",
            "RTM_DEBUG follows from tsx and is not listed",
        ));
    }
    let freeze = DebugCtl::FREEZE_LBRS_ON_PMI | DebugCtl::FREEZE_PERFMON_ON_PMI;
    if profile.perfmon_version < 2 && profile.debugctl.intersects(freeze) {
        return Err(invalid(
            "debugctl",
            "freezing on PMI needs perfmon version 2",
        ));
    }
    match &profile.interface {
        Interface::Legacy(legacy) => check_legacy(legacy),
        Interface::Arch(arch) => check_arch(arch),
    }
}

fn check_names(profile: &Profile) -> Result<(), ProfileError> {
    let plain = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if !plain(&profile.name) {
        return Err(invalid("name", "is not made of a-z, 0-9 and -"));
    }
    for (i, alias) in profile.aliases.iter().enumerate() {
        if !plain(alias) {
            return Err(invalid(
                "aliases",
                format!("{alias:?} is not made of a-z, 0-9 and -"),
            ));
        }
        if *alias == profile.name || profile.aliases[..i].contains(alias) {
            return Err(invalid("aliases", format!("{alias:?} stands twice")));
        }
    }
    if profile.models.is_empty() {
        return Err(invalid("models", "is empty"));
    }
    for (i, model) in profile.models.iter().enumerate() {
        if profile.models[..i].contains(model) {
            return Err(invalid("models", format!("{model} stands twice")));
        }
    }
    Ok(())
}

fn check_legacy(legacy: &LegacyLbr) -> Result<(), ProfileError> {
    if !legacy.depth.is_power_of_two() || !(2..=32).contains(&legacy.depth) {
        return Err(invalid("legacy.depth", "is not 2, 4, 8, 16 or 32"));
    }
    let needs_info = |format| matches!(format, LbrFormat::EIP_INFO | LbrFormat::LIP_INFO);
    for format in [Some(legacy.format), legacy.format_alternative]
        .into_iter()
        .flatten()
    {
        if needs_info(format) != legacy.info.is_some() {
            return Err(invalid(
                "legacy.info",
                "is given exactly with formats 5 and 7",
            ));
        }
    }
    // The low half of a VMX MSR bitmap covers MSRs below 0x2000; every LBR MSR lies there.
    let ranges: Vec<(u32, u32)> = [Some(legacy.from), Some(legacy.to), legacy.info]
        .into_iter()
        .flatten()
        .map(|base| (base.value(), base.value().saturating_add(legacy.depth)))
        .collect();
    for (i, &(start, end)) in ranges.iter().enumerate() {
        if end > 0x2000 {
            return Err(invalid("legacy", "an MSR lies above 0x1FFF"));
        }
        if FIXED.iter().any(|msr| (start..end).contains(&msr.value()))
            || ranges[..i].iter().any(|&(s, e)| start < e && s < end)
        {
            return Err(invalid("legacy", "MSRs overlap"));
        }
    }
    Ok(())
}

fn check_arch(arch: &ArchLbr) -> Result<(), ProfileError> {
    let depths = arch.eax & 0xff;
    // Bits 0, 1 and 3 are depths 8, 16 and 32, the powers of two that the register file holds.
    if depths == 0 || depths & !0xb != 0 {
        return Err(invalid(
            "arch.cpuid_1c_eax",
            "enumerates depths other than 8, 16 and 32",
        ));
    }
    for (field, value, allowed) in [
        ("arch.cpuid_1c_eax", arch.eax, 0xc000_00ff),
        ("arch.cpuid_1c_ebx", arch.ebx, 0x7),
        ("arch.cpuid_1c_ecx", arch.ecx, 0x000f_0007),
    ] {
        if value & !allowed != 0 {
            return Err(invalid(
                field,
                format!("reserved bits {:#x} are set", value & !allowed),
            ));
        }
    }
    Ok(())
}
