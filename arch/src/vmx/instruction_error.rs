//! VM-instruction error numbers.

use core::fmt;

/// Number in the VM-instruction error field (0x4400) after VMfailValid. SDM volume 3, "VM
/// Instruction Error Numbers". Numbers without a name keep their value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmInstructionError(u32);

macro_rules! errors {
    ($( $name:ident = $number:literal, $text:literal; )*) => {
        impl VmInstructionError {
            $( #[doc = concat!($text, ".")] pub const $name: Self = Self($number); )*

            /// Every error with its text, ascending.
            pub const NAMED: &'static [(Self, &'static str)] = &[$( (Self::$name, $text), )*];

            /// The error with this number.
            #[must_use]
            pub const fn new(number: u32) -> Self {
                Self(number)
            }

            /// The number.
            #[must_use]
            pub const fn number(self) -> u32 {
                self.0
            }
        }
    };
}

errors! {
    VMCALL_IN_ROOT = 1, "VMCALL executed in VMX root operation";
    VMCLEAR_ADDRESS = 2, "VMCLEAR with invalid physical address";
    VMCLEAR_VMXON_POINTER = 3, "VMCLEAR with VMXON pointer";
    VMLAUNCH_NOT_CLEAR = 4, "VMLAUNCH with non-clear VMCS";
    VMRESUME_NOT_LAUNCHED = 5, "VMRESUME with non-launched VMCS";
    VMRESUME_AFTER_VMXOFF = 6, "VMRESUME after VMXOFF";
    ENTRY_CONTROLS = 7, "VM entry with invalid control fields";
    ENTRY_HOST_STATE = 8, "VM entry with invalid host-state fields";
    VMPTRLD_ADDRESS = 9, "VMPTRLD with invalid physical address";
    VMPTRLD_VMXON_POINTER = 10, "VMPTRLD with VMXON pointer";
    VMPTRLD_REVISION = 11, "VMPTRLD with incorrect VMCS revision identifier";
    UNSUPPORTED_COMPONENT = 12, "VMREAD/VMWRITE from/to unsupported VMCS component";
    READ_ONLY_COMPONENT = 13, "VMWRITE to read-only VMCS component";
    VMXON_IN_ROOT = 15, "VMXON executed in VMX root operation";
    ENTRY_EXECUTIVE_POINTER = 16, "VM entry with invalid executive-VMCS pointer";
    ENTRY_EXECUTIVE_NOT_LAUNCHED = 17, "VM entry with non-launched executive VMCS";
    ENTRY_EXECUTIVE_NOT_VMXON = 18, "VM entry with executive-VMCS pointer not VMXON pointer";
    VMCALL_NOT_CLEAR = 19, "VMCALL with non-clear VMCS";
    VMCALL_EXIT_CONTROLS = 20, "VMCALL with invalid VM-exit control fields";
    VMCALL_MSEG_REVISION = 22, "VMCALL with incorrect MSEG revision identifier";
    VMXOFF_DUAL_MONITOR = 23, "VMXOFF under dual-monitor treatment of SMIs and SMM";
    VMCALL_SMM_FEATURES = 24, "VMCALL with invalid SMM-monitor features";
    ENTRY_EXECUTIVE_CONTROLS = 25, "VM entry with invalid VM-execution control fields in executive VMCS";
    ENTRY_MOV_SS = 26, "VM entry with events blocked by MOV SS";
    INVALIDATE_OPERAND = 28, "invalid operand to INVEPT/INVVPID";
}

impl fmt::Display for VmInstructionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMED.iter().find(|(known, _)| known == self) {
            Some((_, text)) => write!(f, "VM-instruction error {}: {text}", self.0),
            None => write!(f, "VM-instruction error {}", self.0),
        }
    }
}
