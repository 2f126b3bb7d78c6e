//! The local APIC's LVT performance monitoring entry.

use crate::bits::register_bits;

register_bits! {
    /// LVT performance monitoring entry: offset 0x340 of the xAPIC page, MSR 0x834 in x2APIC mode.
    /// SDM volume 3, "Local Vector Table".
    LvtPc: u32 {
        /// An interrupt was accepted by the APIC and not yet by the core. Read only.
        DELIVERY_STATUS = 12,
        /// Nothing is delivered. Set by hardware when a PMI is, cleared by software only.
        MASK = 16,
    }
}

impl LvtPc {
    /// The value after RESET and INIT: masked.
    pub const RESET: Self = Self::MASK;
    /// Bits that software may set.
    pub const WRITABLE: u32 = 0x1_07ff;

    /// Bits 7:0, the vector of a fixed interrupt.
    #[must_use]
    pub const fn vector(self) -> u8 {
        self.bits() as u8
    }

    /// Bits 10:8.
    #[must_use]
    pub const fn delivery_mode(self) -> DeliveryMode {
        match self.bits() >> 8 & 7 {
            0 => DeliveryMode::Fixed,
            2 => DeliveryMode::Smi,
            4 => DeliveryMode::Nmi,
            5 => DeliveryMode::Init,
            7 => DeliveryMode::ExtInt,
            other => DeliveryMode::Reserved(other as u8),
        }
    }
}

/// What an LVT entry makes of its interrupt. SDM volume 3, "Local Vector Table".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryMode {
    /// The interrupt of the vector.
    Fixed,
    /// SMI.
    Smi,
    /// NMI.
    Nmi,
    /// INIT.
    Init,
    /// As from an external interrupt controller, which gives the vector.
    ExtInt,
    /// An encoding that is reserved in an LVT entry.
    Reserved(u8),
}
