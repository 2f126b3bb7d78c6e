//! RDMSR and WRMSR, register by register.

use vlbr_arch::{DebugCtl, LbrCtl, LbrFormat, Msr};

use super::words::Cell;
use super::{Lbr, bit, set_bit, split_mix};
use crate::{GpReason, Quirk, ReservedWrite, SelectLayout};

/// What an MSR address means here.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    From(usize),
    To(usize),
    Info(usize),
    Tos,
    Select,
    DebugCtl,
    LerFrom,
    LerTo,
    LerInfo,
    Ctl,
    Depth,
}

impl Lbr {
    /// Every register of the part with what it means, in ascending order.
    pub(super) fn places(&self) -> Vec<(Msr, Place)> {
        let mut places = vec![(Msr::DEBUGCTL, Place::DebugCtl)];
        let arrays = match self.legacy() {
            Some(legacy) => {
                places.push((Msr::LASTBRANCH_TOS, Place::Tos));
                if legacy.select != SelectLayout::None {
                    places.push((Msr::LBR_SELECT, Place::Select));
                }
                if legacy.ler {
                    places.push((Msr::LER_FROM, Place::LerFrom));
                    places.push((Msr::LER_TO, Place::LerTo));
                }
                (legacy.from, legacy.to, legacy.info)
            }
            None => {
                places.push((Msr::LBR_CTL, Place::Ctl));
                places.push((Msr::LBR_DEPTH, Place::Depth));
                places.push((Msr::LER_FROM, Place::LerFrom));
                places.push((Msr::LER_TO, Place::LerTo));
                places.push((Msr::LER_INFO, Place::LerInfo));
                (Msr::LBR_0_FROM_IP, Msr::LBR_0_TO_IP, Some(Msr::LBR_0_INFO))
            }
        };
        for (n, offset) in (0..self.slots.len()).zip(0..) {
            places.push((arrays.0.plus(offset), Place::From(n)));
            places.push((arrays.1.plus(offset), Place::To(n)));
            if let Some(info) = arrays.2 {
                places.push((info.plus(offset), Place::Info(n)));
            }
        }
        places.sort_by_key(|(msr, _)| *msr);
        places
    }

    fn place(&self, msr: Msr) -> Result<Place, GpReason> {
        for (known, place) in self.places() {
            if known == msr {
                return Ok(place);
            }
        }
        if self.arch().is_some() {
            for base in [Msr::LBR_0_INFO, Msr::LBR_0_FROM_IP, Msr::LBR_0_TO_IP] {
                for entry in 0..32 {
                    if base.plus(entry) == msr {
                        let depth = self.slots.len() as u32;
                        return Err(GpReason::BeyondDepth { entry, depth });
                    }
                }
            }
        }
        Err(GpReason::NoSuchMsr)
    }

    pub(super) fn read(&self, msr: Msr) -> Result<u64, GpReason> {
        let place = self.place(msr)?;
        if self.locked_out() && !matches!(place, Place::DebugCtl) {
            return Ok(0);
        }
        Ok(match place {
            Place::From(n) => self.slot_words(&self.slots[n])[0],
            Place::To(n) => self.slot_words(&self.slots[n])[1],
            Place::Info(n) => self.slot_words(&self.slots[n])[2],
            Place::Tos => self.tos as u64,
            Place::Select => self.select,
            Place::DebugCtl => self.debugctl,
            Place::LerFrom => self.ler[0],
            Place::LerTo => {
                let mut value = self.ler[1];
                if self.has(Quirk::LerToHighBits) && self.legacy().is_some() {
                    let noise = split_mix(self.options.seed, self.ler[1]);
                    for n in 61..64 {
                        set_bit(&mut value, n, bit(noise, n));
                    }
                }
                value
            }
            Place::LerInfo => self.ler[2],
            Place::Ctl => self.ctl,
            Place::Depth => self.slots.len() as u64,
        })
    }

    pub(super) fn write(&mut self, msr: Msr, value: u64) -> Result<(), GpReason> {
        let place = self.place(msr)?;
        if self.locked_out() && !matches!(place, Place::DebugCtl) {
            self.forget_history();
            return Ok(());
        }
        let value = self.check(place, value)?;
        match place {
            Place::From(n) => self.slots[n].from = Cell::Software(value),
            Place::To(n) => self.slots[n].to = Cell::Software(value),
            Place::Info(n) => self.slots[n].info = Cell::Software(value),
            Place::Tos => self.tos = value as usize,
            Place::Select => self.select = value,
            Place::DebugCtl => self.debugctl = value,
            Place::LerFrom => self.ler[0] = value,
            Place::LerTo => self.ler[1] = value,
            Place::LerInfo => self.ler[2] = value,
            Place::Ctl => self.ctl = value,
            Place::Depth => {
                self.slots.resize(value as usize, Default::default());
                self.wipe_entries();
                if self.options.depth_write_clears_ler {
                    self.ler = [0; 3];
                }
            }
        }
        self.forget_history();
        Ok(())
    }

    /// The value that a register takes when `value` is written, or why it refuses.
    pub(super) fn check(&self, place: Place, value: u64) -> Result<u64, GpReason> {
        match place {
            Place::From(_) => self.check_from(value),
            Place::To(_) => self.check_to(value),
            Place::LerFrom | Place::LerTo
                if self.legacy().is_some() && self.options.ler_addresses_only =>
            {
                self.check_canonical(value)
            }
            Place::LerFrom => self.check_from(value),
            Place::LerTo => self.check_to(value),
            Place::Info(_) | Place::LerInfo => self.check_info(value),
            Place::Tos => {
                let depth = self.slots.len() as u64;
                let kept = value % depth;
                if kept == value || self.options.tos_write_masks {
                    Ok(kept)
                } else {
                    Err(GpReason::Reserved(value - kept))
                }
            }
            Place::Select => {
                let haswell = self
                    .legacy()
                    .is_some_and(|legacy| legacy.select == SelectLayout::Haswell);
                let width = if haswell { 10 } else { 9 };
                let reserved = value >> width << width;
                if reserved == 0 {
                    Ok(value)
                } else {
                    Err(GpReason::Reserved(reserved))
                }
            }
            Place::DebugCtl => self.check_debugctl(value),
            Place::Ctl => self.check_ctl(value),
            Place::Depth => {
                let eax = self.arch().map_or(0, |arch| arch.eax);
                for n in 0..8 {
                    if bit(eax.into(), n) && value == u64::from(8 * (n + 1)) {
                        return Ok(value);
                    }
                }
                Err(GpReason::UnsupportedDepth(value))
            }
        }
    }

    /// Bits that no accepted value has, found by trying values.
    pub(super) fn bits_never_taken(&self, msr: Msr) -> u64 {
        let Ok(place) = self.place(msr) else {
            return u64::MAX;
        };
        let mut taken = 0;
        for n in 0..64 {
            // A bit alone, as part of a negative address, and as part of a depth.
            for value in [
                1 << n,
                !0,
                !0 << 47,
                !0 << 56,
                8,
                16,
                24,
                32,
                40,
                48,
                56,
                64,
            ] {
                if self.check(place, value).is_ok() {
                    taken |= value;
                }
            }
        }
        !taken
    }

    fn check_from(&self, value: u64) -> Result<u64, GpReason> {
        match self.format() {
            LbrFormat::OFFSET_32 => check_offset(value),
            LbrFormat::EIP_FLAGS | LbrFormat::LIP_CYCLES => check_sign(value, 62),
            LbrFormat::EIP_FLAGS_TSX if self.has(Quirk::TsxSignExtension) && !self.tsx() => {
                check_sign(value, 62)
            }
            LbrFormat::EIP_FLAGS_TSX => check_sign(value, 60),
            _ if self.hides_mispred() => check_sign(value, 62),
            _ => self.check_canonical(value),
        }
    }

    fn check_to(&self, value: u64) -> Result<u64, GpReason> {
        match self.format() {
            LbrFormat::OFFSET_32 => check_offset(value),
            LbrFormat::LIP_CYCLES => Ok(value),
            _ => self.check_canonical(value),
        }
    }

    fn check_canonical(&self, value: u64) -> Result<u64, GpReason> {
        let bits = self.profile.linear_address_bits;
        let sign = bit(value, u32::from(bits) - 1);
        for n in u32::from(bits)..64 {
            if bit(value, n) != sign {
                return Err(GpReason::NonCanonical(bits));
            }
        }
        Ok(value)
    }

    fn check_info(&self, value: u64) -> Result<u64, GpReason> {
        let mut reserved = 0;
        for n in 0..64 {
            let defined = match (n, self.arch()) {
                (0..16 | 63, _) => true,
                (61 | 62, None) => self.format() == LbrFormat::EIP_INFO,
                (56..=62, Some(_)) => true,
                (32..40, Some(arch)) => arch.ecx >> 16 & 0xf != 0,
                _ => false,
            };
            if !defined {
                set_bit(&mut reserved, n, bit(value, n));
            }
        }
        let policy = if self.arch().is_some() {
            self.options.arch_info_reserved
        } else {
            self.options.legacy_info_reserved
        };
        match policy {
            _ if reserved == 0 => Ok(value),
            ReservedWrite::Fault => Err(GpReason::Reserved(reserved)),
            ReservedWrite::Drop => Ok(value - reserved),
            ReservedWrite::Keep => Ok(value),
        }
    }

    fn check_debugctl(&self, value: u64) -> Result<u64, GpReason> {
        let mut reserved = 0;
        let mut unsupported = DebugCtl::default();
        for n in 0..64 {
            if !bit(value, n) {
                continue;
            }
            let this = DebugCtl::from_bits(1 << n);
            let named = DebugCtl::NAMED.iter().any(|(known, _)| *known == this);
            let exists = if this == DebugCtl::RTM_DEBUG {
                self.tsx()
            } else {
                self.profile.debugctl.contains(this)
            };
            if !named {
                reserved |= 1 << n;
            } else if !exists {
                unsupported = unsupported | this;
            }
        }
        if reserved != 0 {
            return Err(GpReason::Reserved(reserved));
        }
        if unsupported != DebugCtl::default() {
            return Err(GpReason::UnsupportedDebugCtl(unsupported));
        }
        let mut kept = value;
        match self.legacy() {
            // Writable, reads 0.
            None => set_bit(&mut kept, 0, false),
            Some(legacy) if legacy.freeze_clears_tr && bit(value, 11) => {
                set_bit(&mut kept, 6, false);
            }
            Some(_) => {}
        }
        Ok(kept)
    }

    pub(super) fn check_ctl(&self, value: u64) -> Result<u64, GpReason> {
        let ebx = self.arch().map_or(0, |arch| u64::from(arch.ebx));
        let mut reserved = 0;
        let mut unsupported = LbrCtl::default();
        for n in 0..64 {
            if !bit(value, n) {
                continue;
            }
            let capability = match n {
                0 => continue,
                1 | 2 => 0,
                3 => 2,
                16..=22 => 1,
                _ => {
                    reserved |= 1 << n;
                    continue;
                }
            };
            if !bit(ebx, capability) {
                unsupported = unsupported | LbrCtl::from_bits(1 << n);
            }
        }
        if reserved != 0 {
            return Err(GpReason::Reserved(reserved));
        }
        if unsupported != LbrCtl::default() {
            return Err(GpReason::UnsupportedLbrCtl(unsupported));
        }
        Ok(value)
    }
}

fn check_offset(value: u64) -> Result<u64, GpReason> {
    let upper = value - value % (1 << 32);
    if upper == 0 {
        Ok(value)
    } else {
        Err(GpReason::Reserved(upper))
    }
}

/// Bits 48 to `high` equal bit 47.
fn check_sign(value: u64, high: u8) -> Result<u64, GpReason> {
    for n in 48..=u32::from(high) {
        if bit(value, n) != bit(value, 47) {
            return Err(GpReason::SignExtension { high });
        }
    }
    Ok(value)
}
