//! VMX controls.

use core::fmt;

use vlbr_arch::vmx::{
    EntryControls, ExitControls, MSR_AREA_ENTRY_SIZE, MsrArea, PinControls, PrimaryControls,
    VmcsField,
};

use crate::profile::Allowed;
use crate::{Vmcs, Vmx};

/// A vector of controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ControlVector {
    /// Pin-based VM-execution controls.
    Pin,
    /// Primary processor-based VM-execution controls.
    Primary,
    /// Secondary processor-based VM-execution controls.
    Secondary,
    /// VM-exit controls.
    Exit,
    /// VM-entry controls.
    Entry,
}

impl fmt::Display for ControlVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pin => "pin-based controls",
            Self::Primary => "primary controls",
            Self::Secondary => "secondary controls",
            Self::Exit => "VM-exit controls",
            Self::Entry => "VM-entry controls",
        })
    }
}

/// Why the controls are wrong: VMfailValid 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlFault {
    /// Controls that must be 1 are 0.
    #[error("{vector}: bits {bits:#x} must be 1")]
    MustBeOne {
        /// The vector.
        vector: ControlVector,
        /// The bits.
        bits: u32,
    },
    /// Controls that must be 0 are 1.
    #[error("{vector}: bits {bits:#x} must be 0")]
    MustBeZero {
        /// The vector.
        vector: ControlVector,
        /// The bits.
        bits: u32,
    },
    /// "Virtual NMIs" without "NMI exiting".
    #[error("\"virtual NMIs\" needs \"NMI exiting\"")]
    VirtualNmis,
    /// "NMI-window exiting" without "virtual NMIs".
    #[error("\"NMI-window exiting\" needs \"virtual NMIs\"")]
    NmiWindow,
    /// "Save preemption timer" without "activate preemption timer".
    #[error("\"save preemption timer\" needs \"activate preemption timer\"")]
    SavePreemptionTimer,
    /// The address of the MSR bitmaps is not a page within the physical-address width.
    #[error("the MSR bitmaps at {0:#x}: unaligned or beyond the physical-address width")]
    MsrBitmap(u64),
    /// An MSR area is not aligned to 16 bytes or does not end within the physical-address width.
    #[error(
        "{area} area of {count} entries at {at:#x}: unaligned or beyond the physical-address width"
    )]
    Area {
        /// Which.
        area: MsrArea,
        /// Its address.
        at: u64,
        /// Its count.
        count: u32,
    },
    /// "Entry to SMM" or "deactivate dual-monitor treatment" outside SMM.
    #[error("entry to SMM and the end of dual-monitor treatment need SMM")]
    OutsideSmm,
    /// Both "entry to SMM" and "deactivate dual-monitor treatment".
    #[error("entry to SMM and the end of dual-monitor treatment exclude each other")]
    SmmBoth,
}

fn allowed(vector: ControlVector, allowed: Allowed, controls: u32) -> Result<(), ControlFault> {
    match (allowed.missing(controls), allowed.excess(controls)) {
        (0, 0) => Ok(()),
        (0, bits) => Err(ControlFault::MustBeZero { vector, bits }),
        (bits, _) => Err(ControlFault::MustBeOne { vector, bits }),
    }
}

fn check_area(vmx: &Vmx, vmcs: &Vmcs, area: MsrArea) -> Result<(), ControlFault> {
    let (address, count) = crate::area::fields(area);
    let (at, count) = (vmcs.field(address), vmcs.field32(count));
    if count == 0 {
        return Ok(());
    }
    let last = at.checked_add(u64::from(count) * MSR_AREA_ENTRY_SIZE - 1);
    let fits = last.is_some_and(|last| last >> vmx.address_bits() == 0);
    if at % MSR_AREA_ENTRY_SIZE == 0 && fits {
        Ok(())
    } else {
        Err(ControlFault::Area { area, at, count })
    }
}

/// The checks that end in VMfailValid 7, apart from event injection.
pub(crate) fn check_controls(vmx: &Vmx, vmcs: &Vmcs) -> Result<(), ControlFault> {
    let profile = vmx.profile();
    let (pin, primary) = (vmcs.pin_controls(), vmcs.primary_controls());
    let (exit, entry) = (vmcs.exit_controls(), vmcs.entry_controls());
    allowed(ControlVector::Pin, profile.pin(), pin.bits())?;
    allowed(ControlVector::Primary, profile.primary(), primary.bits())?;
    if primary.contains(PrimaryControls::ACTIVATE_SECONDARY_CONTROLS) {
        let secondary = vmcs.secondary_controls().bits();
        allowed(ControlVector::Secondary, profile.secondary(), secondary)?;
    }
    let virtual_nmis = pin.contains(PinControls::VIRTUAL_NMIS);
    if virtual_nmis && !pin.contains(PinControls::NMI_EXITING) {
        return Err(ControlFault::VirtualNmis);
    }
    if primary.contains(PrimaryControls::NMI_WINDOW_EXITING) && !virtual_nmis {
        return Err(ControlFault::NmiWindow);
    }
    let bitmap = vmcs.field(VmcsField::MSR_BITMAP);
    if primary.contains(PrimaryControls::USE_MSR_BITMAPS)
        && (bitmap & 0xfff != 0 || bitmap >> vmx.address_bits() != 0)
    {
        return Err(ControlFault::MsrBitmap(bitmap));
    }
    allowed(ControlVector::Exit, profile.exit(), exit.bits())?;
    if exit.contains(ExitControls::SAVE_PREEMPTION_TIMER)
        && !pin.contains(PinControls::ACTIVATE_PREEMPTION_TIMER)
    {
        return Err(ControlFault::SavePreemptionTimer);
    }
    check_area(vmx, vmcs, MsrArea::ExitStore)?;
    check_area(vmx, vmcs, MsrArea::ExitLoad)?;
    allowed(ControlVector::Entry, profile.entry(), entry.bits())?;
    let smm = EntryControls::ENTRY_TO_SMM | EntryControls::DEACTIVATE_DUAL_MONITOR;
    if entry.intersects(smm) && !vmx.smm {
        return Err(ControlFault::OutsideSmm);
    }
    if entry.contains(smm) {
        return Err(ControlFault::SmmBoth);
    }
    check_area(vmx, vmcs, MsrArea::EntryLoad)
}
