//! The MSR space of a part as a table.

use vlbr_arch::Msr;
use vlbr_lbr::{GpReason, Interface};
use vlbr_pmu::ReservedWrite;

use super::core_registers::MISC_READ_ONLY;
use super::smt::shares_select;
use super::{LogicalProcessor, MsrReason, Options, Owner, ProcessorError};
use crate::ledger::MsrAccess;

/// What may be done to a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MsrMode {
    /// RDMSR.
    ReadOnly,
    /// RDMSR and WRMSR.
    ReadWrite,
}

/// Whose a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MsrScope {
    /// The logical processor's.
    Thread,
    /// The core's: its logical processors share it.
    Core,
}

/// Which values WRMSR takes, beside those with reserved bits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ValueRule {
    /// All.
    Any,
    /// None: it is read only.
    None,
    /// Canonical addresses of so many bits.
    Canonical(u8),
    /// Bits from 48 up to this one equal bit 47.
    SignUpTo(u8),
    /// Bits 63:32 are ignored; the value is sign-extended from 32 bits to the counter's width.
    LowHalf,
    /// These.
    OneOf(Vec<u64>),
    /// Those that leave these bits as they are.
    Keeping(u64),
}

/// A register of a part after power-up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MsrDescription {
    /// Its number, and by that its name.
    pub msr: Msr,
    /// Who answers.
    pub owner: Owner,
    /// What may be done to it.
    pub mode: MsrMode,
    /// Bits with which WRMSR always faults.
    pub reserved: u64,
    /// What else WRMSR asks of the value.
    pub values: ValueRule,
    /// What it reads after power-up.
    pub reset: u64,
    /// Whose it is.
    pub scope: MsrScope,
    /// Options that change something of the above, or whether it exists.
    pub options: Vec<&'static str>,
}

/// Changes an option to what a profile does not say.
type Change = fn(&mut Options, bool);

/// Options that may matter here. The flag is whether the part has TSX.
const CHANGES: &[(&str, Change)] = &[
    ("tsx", |options, tsx| {
        options.lbr.tsx = Some(!tsx);
        options.pmu.tsx = Some(!tsx);
    }),
    ("lbr.quirks", |options, _| {
        options.lbr.quirks = Some(vlbr_lbr::QuirkSet::EMPTY);
    }),
    ("lbr.alternative_format", |options, _| {
        options.lbr.alternative_format ^= true;
    }),
    ("lbr.ler_addresses_only", |options, _| {
        options.lbr.ler_addresses_only ^= true;
    }),
    ("lbr.tos_write_masks", |options, _| {
        options.lbr.tos_write_masks ^= true;
    }),
    ("lbr.legacy_info_reserved", |options, _| {
        options.lbr.legacy_info_reserved = other(options.lbr.legacy_info_reserved);
    }),
    ("lbr.arch_info_reserved", |options, _| {
        options.lbr.arch_info_reserved = other(options.lbr.arch_info_reserved);
    }),
    ("pmu.pin_control_reserved", |options, _| {
        options.pmu.pin_control_reserved = match options.pmu.pin_control_reserved {
            ReservedWrite::Fault => ReservedWrite::Drop,
            ReservedWrite::Drop | ReservedWrite::Keep => ReservedWrite::Fault,
        };
    }),
    ("pmu.any_thread_deprecated", |options, _| {
        options.pmu.any_thread_deprecated = match options.pmu.any_thread_deprecated {
            ReservedWrite::Fault => ReservedWrite::Keep,
            ReservedWrite::Drop | ReservedWrite::Keep => ReservedWrite::Fault,
        };
    }),
    ("x2apic", |options, _| options.x2apic ^= true),
];

const fn other(reserved: vlbr_lbr::ReservedWrite) -> vlbr_lbr::ReservedWrite {
    match reserved {
        vlbr_lbr::ReservedWrite::Fault => vlbr_lbr::ReservedWrite::Keep,
        _ => vlbr_lbr::ReservedWrite::Fault,
    }
}

/// Every register of a part, ascending.
///
/// # Errors
/// The profiles or options do not fit together.
pub fn describe(
    lbr: &vlbr_lbr::Profile,
    pmu: &vlbr_pmu::Profile,
    options: &Options,
) -> Result<Vec<MsrDescription>, ProcessorError> {
    let mut table = plain(lbr, pmu, options)?;
    let tsx = options.lbr.tsx.unwrap_or(lbr.tsx());
    for (name, change) in CHANGES {
        let mut changed = options.clone();
        change(&mut changed, tsx);
        let changed = plain(lbr, pmu, &changed)?;
        for row in &mut table {
            let at = changed.binary_search_by_key(&row.msr, |other| other.msr);
            let same = at.is_ok_and(|at| changed.get(at).is_some_and(|new| new.equals(row)));
            if !same {
                row.options.push(name);
            }
        }
    }
    Ok(table)
}

impl MsrDescription {
    /// Equal but for the options.
    fn equals(&self, other: &Self) -> bool {
        (self.mode, self.reserved, &self.values) == (other.mode, other.reserved, &other.values)
            && (self.reset, self.scope) == (other.reset, other.scope)
    }
}

fn plain(
    lbr: &vlbr_lbr::Profile,
    pmu: &vlbr_pmu::Profile,
    options: &Options,
) -> Result<Vec<MsrDescription>, ProcessorError> {
    let mut processor = LogicalProcessor::new(lbr, pmu, options.clone())?;
    let shared_select = shares_select(lbr, &options.lbr);
    let registers = processor.msrs().to_vec();
    let rows = registers.into_iter().map(|(msr, owner)| {
        let reserved = processor.reserved_bits(msr);
        let values = rule(&mut processor, msr, reserved);
        MsrDescription {
            msr,
            owner,
            mode: match values {
                ValueRule::None => MsrMode::ReadOnly,
                _ => MsrMode::ReadWrite,
            },
            reserved: match values {
                ValueRule::Keeping(_) => 0,
                _ => reserved,
            },
            values,
            // Every register that is routed reads after power-up.
            reset: processor.rdmsr(msr).unwrap_or_default(),
            scope: match msr {
                Msr::LBR_SELECT if shared_select => MsrScope::Core,
                _ => MsrScope::Thread,
            },
            options: Vec::new(),
        }
    });
    Ok(rows.collect())
}

fn rule(processor: &mut LogicalProcessor, msr: Msr, reserved: u64) -> ValueRule {
    if msr == Msr::MISC_ENABLE {
        return ValueRule::Keeping(MISC_READ_ONLY);
    }
    if reserved == u64::MAX {
        return ValueRule::None;
    }
    if let (Msr::LBR_DEPTH, Interface::Arch(leaf)) =
        (msr, vlbr_lbr::Device::profile(processor.lbr()).interface())
    {
        let depths = (0..8u64).filter(|n| leaf.eax >> n & 1 != 0);
        return ValueRule::OneOf(depths.map(|n| 8 * (n + 1)).collect());
    }
    if (Msr::PMC0..Msr::PMC0.plus(8)).contains(&msr) {
        return ValueRule::LowHalf;
    }
    if reserved != 0 {
        return ValueRule::Any;
    }
    // A bit above every address and below every flag tells which check a register has: a refused
    // write changes nothing.
    match processor.clone().wrmsr(msr, 1 << 60).map_err(|f| f.reason) {
        Err(MsrReason::Lbr(GpReason::NonCanonical(bits)))
        | Err(MsrReason::Pmu(vlbr_pmu::GpReason::NonCanonical(bits))) => ValueRule::Canonical(bits),
        Err(MsrReason::Lbr(GpReason::SignExtension { high })) => ValueRule::SignUpTo(high),
        _ => ValueRule::Any,
    }
}
