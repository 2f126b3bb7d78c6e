//! RDMSR and WRMSR.

use vlbr_arch::{DebugCtl, LbrCtl, LbrSelect, Msr};

use super::config::{AddressCheck, ArchConfig, Config, Kind};
use super::{Lbr, MAX_DEPTH, noise};
use crate::{Access, GpFault, GpReason, Quirk, ReservedWrite};

/// FROM, TO or INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    From,
    To,
    Info,
}

/// The register an address names on this part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    Entry(Word, u32),
    Tos,
    Select,
    DebugCtl,
    Ler(Word),
    Ctl,
    Depth,
}

impl Register {
    /// Intel PT takes it away while it excludes the LBR.
    const fn yields_to_pt(self) -> bool {
        !matches!(self, Self::DebugCtl)
    }
}

impl Lbr {
    fn register(&self, msr: Msr) -> Result<Register, GpReason> {
        if msr == Msr::DEBUGCTL {
            return Ok(Register::DebugCtl);
        }
        let index = |base: Msr, count: u32| {
            Some(msr.value().wrapping_sub(base.value())).filter(|n| *n < count)
        };
        match &self.config.kind {
            Kind::Legacy(legacy) => {
                let depth = self.config.max_depth;
                let bases = [
                    (Word::From, Some(legacy.from)),
                    (Word::To, Some(legacy.to)),
                    (Word::Info, legacy.info),
                ];
                for (word, base) in bases {
                    if let Some(n) = base.and_then(|base| index(base, depth)) {
                        return Ok(Register::Entry(word, n));
                    }
                }
                match msr {
                    Msr::LASTBRANCH_TOS => Ok(Register::Tos),
                    Msr::LBR_SELECT if legacy.select_mask.is_some() => Ok(Register::Select),
                    Msr::LER_FROM if legacy.ler => Ok(Register::Ler(Word::From)),
                    Msr::LER_TO if legacy.ler => Ok(Register::Ler(Word::To)),
                    _ => Err(GpReason::NoSuchMsr),
                }
            }
            Kind::Arch(_) => {
                let bases = [
                    (Word::From, Msr::LBR_0_FROM_IP),
                    (Word::To, Msr::LBR_0_TO_IP),
                    (Word::Info, Msr::LBR_0_INFO),
                ];
                for (word, base) in bases {
                    match index(base, MAX_DEPTH as u32) {
                        Some(n) if n < self.depth => return Ok(Register::Entry(word, n)),
                        Some(entry) => {
                            return Err(GpReason::BeyondDepth {
                                entry,
                                depth: self.depth,
                            });
                        }
                        None => {}
                    }
                }
                match msr {
                    Msr::LER_FROM => Ok(Register::Ler(Word::From)),
                    Msr::LER_TO => Ok(Register::Ler(Word::To)),
                    Msr::LER_INFO => Ok(Register::Ler(Word::Info)),
                    Msr::LBR_CTL => Ok(Register::Ctl),
                    Msr::LBR_DEPTH => Ok(Register::Depth),
                    _ => Err(GpReason::NoSuchMsr),
                }
            }
        }
    }

    /// Slot of the entry that MSR number n of an array names.
    pub(super) fn slot_of_msr(&self, n: u32) -> usize {
        let slot = if self.config.arch().is_some() {
            self.slot(n)
        } else {
            n
        };
        slot as usize & (MAX_DEPTH - 1)
    }

    /// See [`crate::Device::rdmsr`].
    ///
    /// # Errors
    /// As there.
    pub fn rdmsr(&self, msr: Msr) -> Result<u64, GpFault> {
        let fault = |reason| GpFault {
            access: Access::Rdmsr(msr),
            reason,
        };
        let register = self.register(msr).map_err(fault)?;
        if self.control.locked_out && register.yields_to_pt() {
            return Ok(0);
        }
        Ok(match register {
            Register::Entry(Word::From, n) => self.from[self.slot_of_msr(n)],
            Register::Entry(Word::To, n) => self.to[self.slot_of_msr(n)],
            Register::Entry(Word::Info, n) => self.info[self.slot_of_msr(n)],
            Register::Tos => u64::from(self.slot(0)),
            Register::Select => self.control.select.bits(),
            Register::DebugCtl => self.control.debugctl.bits(),
            Register::Ler(Word::From) => self.ler[0],
            Register::Ler(Word::To) => self.read_ler_to(),
            Register::Ler(Word::Info) => self.ler[2],
            Register::Ctl => self.control.ctl.bits(),
            Register::Depth => u64::from(self.depth),
        })
    }

    fn read_ler_to(&self) -> u64 {
        let value = self.ler[1];
        if !self.config.quirk(Quirk::LerToHighBits) || self.config.arch().is_some() {
            return value;
        }
        let high = 7u64 << 61;
        value & !high | noise(self.config.seed, value) & high
    }

    /// See [`crate::Device::wrmsr`].
    ///
    /// # Errors
    /// As there.
    pub fn wrmsr(&mut self, msr: Msr, value: u64) -> Result<(), GpFault> {
        let fault = |reason| GpFault {
            access: Access::Wrmsr(msr, value),
            reason,
        };
        let register = self.register(msr).map_err(fault)?;
        if !(self.control.locked_out && register.yields_to_pt()) {
            self.write(register, value).map_err(fault)?;
        }
        self.undo.clear();
        Ok(())
    }

    fn write(&mut self, register: Register, value: u64) -> Result<(), GpReason> {
        match register {
            Register::Entry(word, n) => {
                let value = self.config.check_word(word, value)?;
                let slot = self.slot_of_msr(n);
                match word {
                    Word::From => self.from[slot] = value,
                    Word::To => self.to[slot] = value,
                    Word::Info => self.info[slot] = value,
                }
            }
            Register::Tos => {
                let reserved = value & !u64::from(self.depth - 1);
                if reserved != 0 && !self.config.tos_write_masks {
                    return Err(GpReason::Reserved(reserved));
                }
                self.head = (value & u64::from(self.depth - 1)) as u32;
            }
            Register::Select => {
                let mask = self.config.legacy().and_then(|legacy| legacy.select_mask);
                let reserved = value & !mask.unwrap_or(0);
                if reserved != 0 {
                    return Err(GpReason::Reserved(reserved));
                }
                let select = LbrSelect::from_bits(value);
                if self.control.select != select {
                    self.control.select = select;
                    self.refresh();
                }
            }
            Register::DebugCtl => self.write_debugctl(value)?,
            Register::Ler(word) => {
                self.ler[word as usize] = self.config.check_ler(word, value)?;
            }
            Register::Ctl => {
                if let Some(arch) = self.config.arch() {
                    self.control.ctl = check_ctl(arch, value)?;
                    self.refresh();
                }
            }
            Register::Depth => {
                let eax = self.config.arch().map_or(0, |arch| arch.eax);
                let enumerated = (0..8).any(|n| eax & 1 << n != 0 && value == 8 * (n + 1));
                if !enumerated {
                    return Err(GpReason::UnsupportedDepth(value));
                }
                self.depth = value as u32;
                self.head = 0;
                self.clear_entries();
                if self.config.depth_write_clears_ler {
                    self.ler = [0; 3];
                }
            }
        }
        Ok(())
    }

    fn write_debugctl(&mut self, value: u64) -> Result<(), GpReason> {
        let refused = value & !self.config.debugctl_mask.bits();
        let named = DebugCtl::NAMED
            .iter()
            .fold(0, |all, (bit, _)| all | bit.bits());
        if refused & !named != 0 {
            return Err(GpReason::Reserved(refused & !named));
        }
        if refused != 0 {
            return Err(GpReason::UnsupportedDebugCtl(DebugCtl::from_bits(refused)));
        }
        let mut debugctl = DebugCtl::from_bits(value);
        match self.config.legacy() {
            None => debugctl = debugctl.without(DebugCtl::LBR),
            Some(legacy) => {
                if legacy.freeze_clears_tr && debugctl.contains(DebugCtl::FREEZE_LBRS_ON_PMI) {
                    debugctl = debugctl.without(DebugCtl::TR);
                }
            }
        }
        self.control.debugctl = debugctl;
        self.refresh();
        Ok(())
    }

    /// See [`crate::Device::reserved_bits`].
    pub(super) fn always_refused(&self, msr: Msr) -> u64 {
        let Ok(register) = self.register(msr) else {
            return u64::MAX;
        };
        let config = &self.config;
        match register {
            Register::Entry(word, _) => config.refused_in_word(word),
            Register::Ler(Word::From) => config.ler_from_check.always_refused(),
            Register::Ler(Word::To) => config.ler_to_check.always_refused(),
            Register::Ler(Word::Info) => config.refused_in_word(Word::Info),
            Register::Tos if config.tos_write_masks => 0,
            Register::Tos => !u64::from(self.depth - 1),
            Register::Select => {
                let mask = config.legacy().and_then(|legacy| legacy.select_mask);
                !mask.unwrap_or(0)
            }
            Register::DebugCtl => !config.debugctl_mask.bits(),
            Register::Ctl => !config.arch().map_or(0, |arch| arch.ctl_mask.bits()),
            Register::Depth => {
                let eax = config.arch().map_or(0, |arch| arch.eax);
                let depths = (0..8).filter(|n| eax & 1 << n != 0);
                !depths.fold(0, |all, n| all | (8 * (n + 1)))
            }
        }
    }

    pub(super) fn list_msrs(&self) -> Vec<Msr> {
        let mut list = vec![Msr::DEBUGCTL];
        let mut bases = Vec::with_capacity(3);
        match &self.config.kind {
            Kind::Legacy(legacy) => {
                bases.extend([legacy.from, legacy.to]);
                bases.extend(legacy.info);
                list.push(Msr::LASTBRANCH_TOS);
                list.extend(legacy.select_mask.map(|_| Msr::LBR_SELECT));
                if legacy.ler {
                    list.extend([Msr::LER_FROM, Msr::LER_TO]);
                }
            }
            Kind::Arch(_) => {
                bases.extend([Msr::LBR_0_FROM_IP, Msr::LBR_0_TO_IP, Msr::LBR_0_INFO]);
                list.extend([Msr::LER_FROM, Msr::LER_TO, Msr::LER_INFO]);
                list.extend([Msr::LBR_CTL, Msr::LBR_DEPTH]);
            }
        }
        for base in bases {
            list.extend((0..self.depth).map(|n| base.plus(n)));
        }
        list.sort_unstable();
        list
    }
}

impl Config {
    /// The value an entry word takes when software writes `value`.
    pub(super) fn check_word(&self, word: Word, value: u64) -> Result<u64, GpReason> {
        match word {
            Word::From => self.from_check.check(value),
            Word::To => self.to_check.check(value),
            Word::Info => self.check_info(value),
        }
    }

    fn refused_in_word(&self, word: Word) -> u64 {
        match word {
            Word::From => self.from_check.always_refused(),
            Word::To => self.to_check.always_refused(),
            Word::Info if self.info_reserved == ReservedWrite::Fault => !self.layout.info_defined,
            Word::Info => 0,
        }
    }

    pub(super) fn check_ler(&self, word: Word, value: u64) -> Result<u64, GpReason> {
        match word {
            Word::From => self.ler_from_check.check(value),
            Word::To => self.ler_to_check.check(value),
            Word::Info => self.check_info(value),
        }
    }

    fn check_info(&self, value: u64) -> Result<u64, GpReason> {
        let reserved = value & !self.layout.info_defined;
        match self.info_reserved {
            ReservedWrite::Fault if reserved != 0 => Err(GpReason::Reserved(reserved)),
            ReservedWrite::Fault | ReservedWrite::Keep => Ok(value),
            ReservedWrite::Drop => Ok(value & !reserved),
        }
    }
}

pub(super) fn check_ctl(arch: &ArchConfig, value: u64) -> Result<LbrCtl, GpReason> {
    let named = LbrCtl::NAMED
        .iter()
        .fold(0, |all, (bit, _)| all | bit.bits());
    let reserved = value & !named;
    if reserved != 0 {
        return Err(GpReason::Reserved(reserved));
    }
    let unsupported = LbrCtl::from_bits(value).without(arch.ctl_mask);
    if !unsupported.is_empty() {
        return Err(GpReason::UnsupportedLbrCtl(unsupported));
    }
    Ok(LbrCtl::from_bits(value))
}

impl AddressCheck {
    /// An address has no bit that is always 0, unless it has 32 bits.
    const fn always_refused(self) -> u64 {
        match self {
            Self::Low32 => !0 << 32,
            Self::Canonical(_) | Self::SignUpTo(_) | Self::Any => 0,
        }
    }

    fn check(self, value: u64) -> Result<u64, GpReason> {
        match self {
            Self::Canonical(bits) => {
                let unused = 64 - u32::from(bits);
                let extended = (((value << unused) as i64) >> unused) as u64;
                if extended == value {
                    Ok(value)
                } else {
                    Err(GpReason::NonCanonical(bits))
                }
            }
            Self::SignUpTo(high) => {
                let flags = 63 - u32::from(high);
                let address = ((value << flags) as i64) >> flags;
                let upper = address >> 47;
                if upper == 0 || upper == -1 {
                    Ok(value)
                } else {
                    Err(GpReason::SignExtension { high })
                }
            }
            Self::Low32 if value >> 32 != 0 => Err(GpReason::Reserved(value >> 32 << 32)),
            Self::Low32 | Self::Any => Ok(value),
        }
    }
}
