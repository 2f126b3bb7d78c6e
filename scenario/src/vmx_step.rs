//! Steps about VMX.

use vlbr_arch::Cpl;
use vlbr_arch::vmx::{MsrArea, VmcsField};
use vlbr_vmx::Launch;

use crate::{Check, Expr, Fault, Register};

/// How a step that may fail ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VmxOutcome {
    /// It completes; a guest access passes.
    Ok,
    /// VMfail with this number; 0 is VMfailInvalid.
    Fail(u32),
    /// VM exit, or an entry that fails as one: exit reason, and qualification if said.
    Exit(u32, Option<u64>),
    /// VMX abort with this indicator.
    Abort(u32),
    /// `#GP(0)`.
    Gp(Fault),
    /// `#UD`.
    Ud,
}

/// What a read gives, or how else it ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum VmxRead {
    /// A value.
    Value(Check),
    /// Something else.
    Ends(VmxOutcome),
}

/// Which bits of the MSR bitmaps a step changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BitmapBits {
    /// Every bit.
    All,
    /// Those of so many registers from one on, for reads (true) or writes.
    Run(bool, Register, Expr),
}

/// What reaches a guest, and may exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuestEvent {
    /// NMI.
    Nmi,
    /// An external interrupt with this vector.
    Interrupt(u8),
    /// An exception with this vector and error code.
    Exception(u8, Option<u32>),
}

/// What a step about VMX does or expects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum VmxStep {
    /// `vmx on`: VMXON, and a current VMCS that enters.
    On,
    /// `vmwrite`.
    Vmwrite(VmcsField, Expr, VmxOutcome),
    /// `vmread`.
    Vmread(VmcsField, VmxRead),
    /// `vmcs set`, `vmcs clear`: bits of a field.
    Bits(VmcsField, Expr, bool),
    /// `msr-bitmap exit`, `msr-bitmap pass`.
    Bitmap(bool, BitmapBits),
    /// A byte of the MSR-bitmap page is written.
    SetByte(Expr, Expr),
    /// A byte of the MSR-bitmap page.
    Byte(Expr, Check),
    /// An entry is added to an area: register, value, bits 63:32.
    Area(MsrArea, Register, Expr, Expr),
    /// The value in an entry of the MSR-store area, from 1 on.
    Stored(Expr, Check),
    /// `vmlaunch`, `vmresume`.
    Enter(Launch, VmxOutcome),
    /// A VM exit with this reason.
    Exit(Expr, VmxOutcome),
    /// RDMSR of the guest.
    Rdmsr(Cpl, Register, VmxRead),
    /// WRMSR of the guest.
    Wrmsr(Cpl, Register, Expr, VmxOutcome),
    /// WRMSRNS of the guest.
    Wrmsrns(Cpl, Register, Expr, VmxOutcome),
    /// RDPMC of the guest, with this ECX and CR4.PCE.
    Rdpmc(Cpl, bool, Expr, VmxRead),
    /// An event while the guest runs.
    Event(GuestEvent, VmxOutcome),
    /// XSAVES or XRSTORS (true) of component 15 by the guest, which has `IA32_XSS[15]` = 1.
    Xsaves(bool, VmxOutcome),
    /// The preemption timer: whether it exits now.
    Timer(bool),
}
