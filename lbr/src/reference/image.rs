//! The XSAVE image, field by field.

use vlbr_arch::{Msr, XSTATE_LBR_SIZE};

use super::Lbr;
use super::access::Place;
use super::words::{Cell, Slot};
use crate::{Access, GpFault, GpReason};

fn put(image: &mut [u8; XSTATE_LBR_SIZE], offset: usize, value: u64) {
    for n in 0..8 {
        image[offset + n] = (value >> (8 * n)) as u8;
    }
}

fn get(image: &[u8; XSTATE_LBR_SIZE], offset: usize) -> u64 {
    let mut value = 0;
    for n in 0..8 {
        value |= u64::from(image[offset + n]) << (8 * n);
    }
    value
}

fn fault(at: Option<(Msr, u64)>, reason: GpReason) -> GpFault {
    GpFault {
        access: Access::Xrstors(at),
        reason,
    }
}

impl Lbr {
    pub(super) fn save_image(&self, image: &mut [u8; XSTATE_LBR_SIZE]) -> Result<(), GpFault> {
        if self.legacy().is_some() {
            return Err(GpFault {
                access: Access::Xsaves,
                reason: GpReason::NoArchLbr,
            });
        }
        image.fill(0);
        put(image, 0x00, self.ctl);
        put(image, 0x08, self.slots.len() as u64);
        put(image, 0x10, self.ler[0]);
        put(image, 0x18, self.ler[1]);
        put(image, 0x20, self.ler[2]);
        for (n, slot) in self.slots.iter().enumerate() {
            let [from, to, info] = self.slot_words(slot);
            put(image, 0x28 + 24 * n, from);
            put(image, 0x28 + 24 * n + 8, to);
            put(image, 0x28 + 24 * n + 16, info);
        }
        Ok(())
    }

    pub(super) fn load_image(&mut self, image: &[u8; XSTATE_LBR_SIZE]) -> Result<(), GpFault> {
        if self.legacy().is_some() {
            return Err(fault(None, GpReason::NoArchLbr));
        }
        let field = |place, msr, offset| {
            let value = get(image, offset);
            self.check(place, value)
                .map_err(|reason| fault(Some((msr, value)), reason))
        };
        let ctl = field(Place::Ctl, Msr::LBR_CTL, 0x00)?;
        if get(image, 0x08) != self.slots.len() as u64 {
            self.wipe_entries();
            self.ler = [0; 3];
            self.ctl = ctl;
            return Ok(());
        }
        let ler = [
            field(Place::LerFrom, Msr::LER_FROM, 0x10)?,
            field(Place::LerTo, Msr::LER_TO, 0x18)?,
            field(Place::LerInfo, Msr::LER_INFO, 0x20)?,
        ];
        let mut slots = Vec::new();
        for (n, offset) in (0..self.slots.len()).zip(0..) {
            let at = 0x28 + 24 * n;
            slots.push(Slot {
                from: Cell::Software(field(Place::From(n), Msr::LBR_0_FROM_IP.plus(offset), at)?),
                to: Cell::Software(field(Place::To(n), Msr::LBR_0_TO_IP.plus(offset), at + 8)?),
                info: Cell::Software(field(
                    Place::Info(n),
                    Msr::LBR_0_INFO.plus(offset),
                    at + 16,
                )?),
            });
        }
        self.ctl = ctl;
        self.ler = ler;
        self.slots = slots;
        Ok(())
    }

    pub(super) fn load_initial(&mut self) -> Result<(), GpFault> {
        if self.legacy().is_some() {
            return Err(fault(None, GpReason::NoArchLbr));
        }
        self.ctl = 0;
        self.ler = [0; 3];
        self.wipe_entries();
        Ok(())
    }
}
