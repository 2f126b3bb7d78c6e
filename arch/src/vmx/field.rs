//! Fields of the VMCS by encoding.

use core::fmt;
use core::str::FromStr;

/// Width of a field, bits 14:13 of its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldWidth {
    /// 16 bits.
    Bits16,
    /// 64 bits.
    Bits64,
    /// 32 bits.
    Bits32,
    /// As wide as the processor: 64 bits.
    Natural,
}

impl FieldWidth {
    /// Bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Bits16 => 16,
            Self::Bits32 => 32,
            Self::Bits64 | Self::Natural => 64,
        }
    }

    /// The bits that a field of this width has.
    #[must_use]
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }
}

/// Type of a field, bits 11:10 of its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldKind {
    /// Controls VM execution, entry or exit.
    Control,
    /// VM-exit information: read only unless the processor says otherwise.
    ExitInformation,
    /// Guest state.
    Guest,
    /// Host state.
    Host,
}

/// Encoding of a VMCS field, the operand of VMREAD and VMWRITE, with the names of Linux's
/// `asm/vmx.h`. SDM volume 3, "Software Use of the
/// VMCS", and appendix "Field Encoding in VMCS".
///
/// Bit 0: access type (0 full, 1 high half of a 64-bit field); 9:1 index; 11:10 type; 14:13 width.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmcsField(u32);

macro_rules! fields {
    ($( $name:ident = $encoding:literal, $text:literal; )*) => {
        impl VmcsField {
            $( #[doc = concat!($text, ".")] pub const $name: Self = Self($encoding); )*

            /// Every field with its name and what it is, by encoding; full access type only.
            pub const NAMED: &'static [(Self, &'static str, &'static str)] =
                &[$( (Self::$name, stringify!($name), $text), )*];
        }
    };
}

fields! {
    VIRTUAL_PROCESSOR_ID = 0x0000, "Virtual-processor identifier";
    POSTED_INTR_NV = 0x0002, "Posted-interrupt notification vector";
    EPTP_INDEX = 0x0004, "EPTP index";
    HLAT_PREFIX_SIZE = 0x0006, "HLAT prefix size";
    LAST_PID_POINTER_INDEX = 0x0008, "Last PID-pointer index";
    GUEST_ES_SELECTOR = 0x0800, "Guest ES selector";
    GUEST_CS_SELECTOR = 0x0802, "Guest CS selector";
    GUEST_SS_SELECTOR = 0x0804, "Guest SS selector";
    GUEST_DS_SELECTOR = 0x0806, "Guest DS selector";
    GUEST_FS_SELECTOR = 0x0808, "Guest FS selector";
    GUEST_GS_SELECTOR = 0x080a, "Guest GS selector";
    GUEST_LDTR_SELECTOR = 0x080c, "Guest LDTR selector";
    GUEST_TR_SELECTOR = 0x080e, "Guest TR selector";
    GUEST_INTR_STATUS = 0x0810, "Guest interrupt status";
    GUEST_PML_INDEX = 0x0812, "Index into the page-modification log";
    GUEST_UINV = 0x0814, "Guest UINV";
    HOST_ES_SELECTOR = 0x0c00, "Host ES selector";
    HOST_CS_SELECTOR = 0x0c02, "Host CS selector";
    HOST_SS_SELECTOR = 0x0c04, "Host SS selector";
    HOST_DS_SELECTOR = 0x0c06, "Host DS selector";
    HOST_FS_SELECTOR = 0x0c08, "Host FS selector";
    HOST_GS_SELECTOR = 0x0c0a, "Host GS selector";
    HOST_TR_SELECTOR = 0x0c0c, "Host TR selector";
    IO_BITMAP_A = 0x2000, "Address of I/O bitmap A";
    IO_BITMAP_B = 0x2002, "Address of I/O bitmap B";
    MSR_BITMAP = 0x2004, "Address of the MSR bitmaps";
    VM_EXIT_MSR_STORE_ADDR = 0x2006, "VM-exit MSR-store address";
    VM_EXIT_MSR_LOAD_ADDR = 0x2008, "VM-exit MSR-load address";
    VM_ENTRY_MSR_LOAD_ADDR = 0x200a, "VM-entry MSR-load address";
    EXECUTIVE_VMCS_POINTER = 0x200c, "Executive-VMCS pointer";
    PML_ADDRESS = 0x200e, "Address of the page-modification log";
    TSC_OFFSET = 0x2010, "TSC offset";
    VIRTUAL_APIC_PAGE_ADDR = 0x2012, "Virtual-APIC address";
    APIC_ACCESS_ADDR = 0x2014, "APIC-access address";
    POSTED_INTR_DESC_ADDR = 0x2016, "Posted-interrupt descriptor address";
    VM_FUNCTION_CONTROL = 0x2018, "VM-function controls";
    EPT_POINTER = 0x201a, "EPT pointer";
    EOI_EXIT_BITMAP0 = 0x201c, "EOI-exit bitmap 0";
    EOI_EXIT_BITMAP1 = 0x201e, "EOI-exit bitmap 1";
    EOI_EXIT_BITMAP2 = 0x2020, "EOI-exit bitmap 2";
    EOI_EXIT_BITMAP3 = 0x2022, "EOI-exit bitmap 3";
    EPTP_LIST_ADDRESS = 0x2024, "EPTP-list address";
    VMREAD_BITMAP = 0x2026, "VMREAD-bitmap address";
    VMWRITE_BITMAP = 0x2028, "VMWRITE-bitmap address";
    VE_INFORMATION_ADDRESS = 0x202a, "Virtualization-exception information address";
    XSS_EXIT_BITMAP = 0x202c, "XSS-exiting bitmap";
    ENCLS_EXITING_BITMAP = 0x202e, "ENCLS-exiting bitmap";
    SPP_TABLE_POINTER = 0x2030, "Sub-page-permission-table pointer";
    TSC_MULTIPLIER = 0x2032, "TSC multiplier";
    TERTIARY_VM_EXEC_CONTROL = 0x2034, "Tertiary processor-based VM-execution controls";
    ENCLV_EXITING_BITMAP = 0x2036, "ENCLV-exiting bitmap";
    LOW_PASID_DIRECTORY = 0x2038, "Low PASID directory address";
    HIGH_PASID_DIRECTORY = 0x203a, "High PASID directory address";
    SHARED_EPT_POINTER = 0x203c, "Shared EPT pointer";
    PCONFIG_EXITING_BITMAP = 0x203e, "PCONFIG-exiting bitmap";
    HLAT_POINTER = 0x2040, "Hypervisor-managed linear-address translation pointer";
    PID_POINTER_TABLE = 0x2042, "PID-pointer table address";
    SECONDARY_VM_EXIT_CONTROLS = 0x2044, "Secondary VM-exit controls";
    SPEC_CTRL_MASK = 0x204a, "IA32_SPEC_CTRL mask";
    SPEC_CTRL_SHADOW = 0x204c, "IA32_SPEC_CTRL shadow";
    GUEST_PHYSICAL_ADDRESS = 0x2400, "Guest-physical address";
    VMCS_LINK_POINTER = 0x2800, "VMCS link pointer";
    GUEST_IA32_DEBUGCTL = 0x2802, "Guest IA32_DEBUGCTL";
    GUEST_IA32_PAT = 0x2804, "Guest IA32_PAT";
    GUEST_IA32_EFER = 0x2806, "Guest IA32_EFER";
    GUEST_IA32_PERF_GLOBAL_CTRL = 0x2808, "Guest IA32_PERF_GLOBAL_CTRL";
    GUEST_PDPTR0 = 0x280a, "Guest PDPTE 0";
    GUEST_PDPTR1 = 0x280c, "Guest PDPTE 1";
    GUEST_PDPTR2 = 0x280e, "Guest PDPTE 2";
    GUEST_PDPTR3 = 0x2810, "Guest PDPTE 3";
    GUEST_BNDCFGS = 0x2812, "Guest IA32_BNDCFGS";
    GUEST_IA32_RTIT_CTL = 0x2814, "Guest IA32_RTIT_CTL";
    GUEST_IA32_LBR_CTL = 0x2816, "Guest IA32_LBR_CTL";
    GUEST_IA32_PKRS = 0x2818, "Guest IA32_PKRS";
    HOST_IA32_PAT = 0x2c00, "Host IA32_PAT";
    HOST_IA32_EFER = 0x2c02, "Host IA32_EFER";
    HOST_IA32_PERF_GLOBAL_CTRL = 0x2c04, "Host IA32_PERF_GLOBAL_CTRL";
    HOST_IA32_PKRS = 0x2c06, "Host IA32_PKRS";
    PIN_BASED_VM_EXEC_CONTROL = 0x4000, "Pin-based VM-execution controls";
    CPU_BASED_VM_EXEC_CONTROL = 0x4002, "Primary processor-based VM-execution controls";
    EXCEPTION_BITMAP = 0x4004, "Exception bitmap";
    PAGE_FAULT_ERROR_CODE_MASK = 0x4006, "Page-fault error-code mask";
    PAGE_FAULT_ERROR_CODE_MATCH = 0x4008, "Page-fault error-code match";
    CR3_TARGET_COUNT = 0x400a, "CR3-target count";
    VM_EXIT_CONTROLS = 0x400c, "VM-exit controls";
    VM_EXIT_MSR_STORE_COUNT = 0x400e, "VM-exit MSR-store count";
    VM_EXIT_MSR_LOAD_COUNT = 0x4010, "VM-exit MSR-load count";
    VM_ENTRY_CONTROLS = 0x4012, "VM-entry controls";
    VM_ENTRY_MSR_LOAD_COUNT = 0x4014, "VM-entry MSR-load count";
    VM_ENTRY_INTR_INFO_FIELD = 0x4016, "VM-entry interruption-information field";
    VM_ENTRY_EXCEPTION_ERROR_CODE = 0x4018, "VM-entry exception error code";
    VM_ENTRY_INSTRUCTION_LEN = 0x401a, "VM-entry instruction length";
    TPR_THRESHOLD = 0x401c, "TPR threshold";
    SECONDARY_VM_EXEC_CONTROL = 0x401e, "Secondary processor-based VM-execution controls";
    PLE_GAP = 0x4020, "PLE gap";
    PLE_WINDOW = 0x4022, "PLE window";
    NOTIFY_WINDOW = 0x4024, "Instruction-timeout control";
    VM_INSTRUCTION_ERROR = 0x4400, "VM-instruction error";
    VM_EXIT_REASON = 0x4402, "Exit reason";
    VM_EXIT_INTR_INFO = 0x4404, "VM-exit interruption information";
    VM_EXIT_INTR_ERROR_CODE = 0x4406, "VM-exit interruption error code";
    IDT_VECTORING_INFO_FIELD = 0x4408, "IDT-vectoring information";
    IDT_VECTORING_ERROR_CODE = 0x440a, "IDT-vectoring error code";
    VM_EXIT_INSTRUCTION_LEN = 0x440c, "VM-exit instruction length";
    VMX_INSTRUCTION_INFO = 0x440e, "VM-exit instruction information";
    GUEST_ES_LIMIT = 0x4800, "Guest ES limit";
    GUEST_CS_LIMIT = 0x4802, "Guest CS limit";
    GUEST_SS_LIMIT = 0x4804, "Guest SS limit";
    GUEST_DS_LIMIT = 0x4806, "Guest DS limit";
    GUEST_FS_LIMIT = 0x4808, "Guest FS limit";
    GUEST_GS_LIMIT = 0x480a, "Guest GS limit";
    GUEST_LDTR_LIMIT = 0x480c, "Guest LDTR limit";
    GUEST_TR_LIMIT = 0x480e, "Guest TR limit";
    GUEST_GDTR_LIMIT = 0x4810, "Guest GDTR limit";
    GUEST_IDTR_LIMIT = 0x4812, "Guest IDTR limit";
    GUEST_ES_AR_BYTES = 0x4814, "Guest ES access rights";
    GUEST_CS_AR_BYTES = 0x4816, "Guest CS access rights";
    GUEST_SS_AR_BYTES = 0x4818, "Guest SS access rights";
    GUEST_DS_AR_BYTES = 0x481a, "Guest DS access rights";
    GUEST_FS_AR_BYTES = 0x481c, "Guest FS access rights";
    GUEST_GS_AR_BYTES = 0x481e, "Guest GS access rights";
    GUEST_LDTR_AR_BYTES = 0x4820, "Guest LDTR access rights";
    GUEST_TR_AR_BYTES = 0x4822, "Guest TR access rights";
    GUEST_INTERRUPTIBILITY_INFO = 0x4824, "Guest interruptibility state";
    GUEST_ACTIVITY_STATE = 0x4826, "Guest activity state";
    GUEST_SMBASE = 0x4828, "Guest SMBASE";
    GUEST_SYSENTER_CS = 0x482a, "Guest IA32_SYSENTER_CS";
    VMX_PREEMPTION_TIMER_VALUE = 0x482e, "VMX-preemption timer value";
    HOST_IA32_SYSENTER_CS = 0x4c00, "Host IA32_SYSENTER_CS";
    CR0_GUEST_HOST_MASK = 0x6000, "CR0 guest/host mask";
    CR4_GUEST_HOST_MASK = 0x6002, "CR4 guest/host mask";
    CR0_READ_SHADOW = 0x6004, "CR0 read shadow";
    CR4_READ_SHADOW = 0x6006, "CR4 read shadow";
    CR3_TARGET_VALUE0 = 0x6008, "CR3-target value 0";
    CR3_TARGET_VALUE1 = 0x600a, "CR3-target value 1";
    CR3_TARGET_VALUE2 = 0x600c, "CR3-target value 2";
    CR3_TARGET_VALUE3 = 0x600e, "CR3-target value 3";
    EXIT_QUALIFICATION = 0x6400, "Exit qualification";
    IO_RCX = 0x6402, "I/O RCX";
    IO_RSI = 0x6404, "I/O RSI";
    IO_RDI = 0x6406, "I/O RDI";
    IO_RIP = 0x6408, "I/O RIP";
    GUEST_LINEAR_ADDRESS = 0x640a, "Guest-linear address";
    GUEST_CR0 = 0x6800, "Guest CR0";
    GUEST_CR3 = 0x6802, "Guest CR3";
    GUEST_CR4 = 0x6804, "Guest CR4";
    GUEST_ES_BASE = 0x6806, "Guest ES base";
    GUEST_CS_BASE = 0x6808, "Guest CS base";
    GUEST_SS_BASE = 0x680a, "Guest SS base";
    GUEST_DS_BASE = 0x680c, "Guest DS base";
    GUEST_FS_BASE = 0x680e, "Guest FS base";
    GUEST_GS_BASE = 0x6810, "Guest GS base";
    GUEST_LDTR_BASE = 0x6812, "Guest LDTR base";
    GUEST_TR_BASE = 0x6814, "Guest TR base";
    GUEST_GDTR_BASE = 0x6816, "Guest GDTR base";
    GUEST_IDTR_BASE = 0x6818, "Guest IDTR base";
    GUEST_DR7 = 0x681a, "Guest DR7";
    GUEST_RSP = 0x681c, "Guest RSP";
    GUEST_RIP = 0x681e, "Guest RIP";
    GUEST_RFLAGS = 0x6820, "Guest RFLAGS";
    GUEST_PENDING_DBG_EXCEPTIONS = 0x6822, "Guest pending debug exceptions";
    GUEST_SYSENTER_ESP = 0x6824, "Guest IA32_SYSENTER_ESP";
    GUEST_SYSENTER_EIP = 0x6826, "Guest IA32_SYSENTER_EIP";
    GUEST_S_CET = 0x6828, "Guest IA32_S_CET";
    GUEST_SSP = 0x682a, "Guest SSP";
    GUEST_INTR_SSP_TABLE = 0x682c, "Guest IA32_INTERRUPT_SSP_TABLE_ADDR";
    HOST_CR0 = 0x6c00, "Host CR0";
    HOST_CR3 = 0x6c02, "Host CR3";
    HOST_CR4 = 0x6c04, "Host CR4";
    HOST_FS_BASE = 0x6c06, "Host FS base";
    HOST_GS_BASE = 0x6c08, "Host GS base";
    HOST_TR_BASE = 0x6c0a, "Host TR base";
    HOST_GDTR_BASE = 0x6c0c, "Host GDTR base";
    HOST_IDTR_BASE = 0x6c0e, "Host IDTR base";
    HOST_IA32_SYSENTER_ESP = 0x6c10, "Host IA32_SYSENTER_ESP";
    HOST_IA32_SYSENTER_EIP = 0x6c12, "Host IA32_SYSENTER_EIP";
    HOST_RSP = 0x6c14, "Host RSP";
    HOST_RIP = 0x6c16, "Host RIP";
    HOST_S_CET = 0x6c18, "Host IA32_S_CET";
    HOST_SSP = 0x6c1a, "Host SSP";
    HOST_INTR_SSP_TABLE = 0x6c1c, "Host IA32_INTERRUPT_SSP_TABLE_ADDR";
}

impl VmcsField {
    /// The field with this encoding.
    #[must_use]
    pub const fn new(encoding: u32) -> Self {
        Self(encoding)
    }

    /// The encoding.
    #[must_use]
    pub const fn encoding(self) -> u32 {
        self.0
    }

    /// Bits 9:1.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0 >> 1 & 0x1ff
    }

    /// Bits 11:10.
    #[must_use]
    pub const fn kind(self) -> FieldKind {
        match self.0 >> 10 & 3 {
            0 => FieldKind::Control,
            1 => FieldKind::ExitInformation,
            2 => FieldKind::Guest,
            _ => FieldKind::Host,
        }
    }

    /// Bits 14:13.
    #[must_use]
    pub const fn width(self) -> FieldWidth {
        match self.0 >> 13 & 3 {
            0 => FieldWidth::Bits16,
            1 => FieldWidth::Bits64,
            2 => FieldWidth::Bits32,
            _ => FieldWidth::Natural,
        }
    }

    /// Bit 0: this names the high half of a 64-bit field.
    #[must_use]
    pub const fn is_high(self) -> bool {
        self.0 & 1 != 0
    }

    /// The high half of this field.
    #[must_use]
    pub const fn high(self) -> Self {
        Self(self.0 | 1)
    }

    /// The whole of the field that this names half of.
    #[must_use]
    pub const fn full(self) -> Self {
        Self(self.0 & !1)
    }
}

impl fmt::Display for VmcsField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let full = self.full();
        match Self::NAMED.binary_search_by_key(&full, |(known, ..)| *known) {
            Ok(n) => {
                f.write_str(Self::NAMED[n].2)?;
                f.write_str(if self.is_high() { " (high)" } else { "" })
            }
            Err(_) => write!(f, "VMCS field {:#x}", self.0),
        }
    }
}

impl fmt::Debug for VmcsField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VmcsField({:#x} {self})", self.0)
    }
}

/// A text that names no field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownField(
    /// The text.
    pub String,
);

impl fmt::Display for UnknownField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no VMCS field is named {:?}", self.0)
    }
}

impl std::error::Error for UnknownField {}

impl FromStr for VmcsField {
    type Err = UnknownField;

    /// Reads an encoding (`0x2802`) or a name as in [`Self::NAMED`] (`GUEST_IA32_DEBUGCTL`), in any case.
    fn from_str(text: &str) -> Result<Self, UnknownField> {
        let unknown = || UnknownField(text.to_owned());
        if let Some(digits) = text.strip_prefix("0x") {
            return u32::from_str_radix(digits, 16)
                .map(Self)
                .map_err(|_| unknown());
        }
        Self::NAMED
            .iter()
            .find(|(_, name, _)| name.eq_ignore_ascii_case(text))
            .map(|(field, ..)| *field)
            .ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_ascend_and_their_names_read_back() {
        assert!(VmcsField::NAMED.is_sorted_by_key(|(field, ..)| *field));
        for (i, (field, name, text)) in VmcsField::NAMED.iter().enumerate() {
            assert_eq!(name.parse(), Ok(*field));
            assert_eq!(field.to_string(), *text);
            assert!(!field.is_high() && field.encoding() < 1 << 15);
            assert!(
                !VmcsField::NAMED[..i]
                    .iter()
                    .any(|(_, known, _)| known == name)
            );
        }
    }

    #[test]
    fn an_encoding_tells_width_type_and_index() {
        for (field, width, kind, index) in [
            (
                VmcsField::VIRTUAL_PROCESSOR_ID,
                FieldWidth::Bits16,
                FieldKind::Control,
                0,
            ),
            (
                VmcsField::MSR_BITMAP,
                FieldWidth::Bits64,
                FieldKind::Control,
                2,
            ),
            (
                VmcsField::GUEST_IA32_DEBUGCTL,
                FieldWidth::Bits64,
                FieldKind::Guest,
                1,
            ),
            (
                VmcsField::GUEST_IA32_LBR_CTL,
                FieldWidth::Bits64,
                FieldKind::Guest,
                11,
            ),
            (
                VmcsField::HOST_IA32_PERF_GLOBAL_CTRL,
                FieldWidth::Bits64,
                FieldKind::Host,
                2,
            ),
            (
                VmcsField::VM_EXIT_CONTROLS,
                FieldWidth::Bits32,
                FieldKind::Control,
                6,
            ),
            (
                VmcsField::VM_EXIT_REASON,
                FieldWidth::Bits32,
                FieldKind::ExitInformation,
                1,
            ),
            (
                VmcsField::VMX_PREEMPTION_TIMER_VALUE,
                FieldWidth::Bits32,
                FieldKind::Guest,
                23,
            ),
            (
                VmcsField::EXIT_QUALIFICATION,
                FieldWidth::Natural,
                FieldKind::ExitInformation,
                0,
            ),
            (
                VmcsField::GUEST_RIP,
                FieldWidth::Natural,
                FieldKind::Guest,
                15,
            ),
            (
                VmcsField::HOST_RIP,
                FieldWidth::Natural,
                FieldKind::Host,
                11,
            ),
        ] {
            assert_eq!(
                (field.width(), field.kind(), field.index()),
                (width, kind, index),
                "{field}"
            );
        }
        assert_eq!(VmcsField::new(0x2817).full(), VmcsField::GUEST_IA32_LBR_CTL);
        assert_eq!(
            VmcsField::GUEST_IA32_LBR_CTL.high().to_string(),
            "Guest IA32_LBR_CTL (high)"
        );
    }

    #[test]
    fn texts_that_name_no_field_are_refused() {
        for text in ["", "0x", "0x1ffffffff", "2802", "guest ia32_debugctl"] {
            assert!(text.parse::<VmcsField>().is_err(), "{text:?}");
        }
        assert_eq!("0x2802".parse(), Ok(VmcsField::GUEST_IA32_DEBUGCTL));
        assert_eq!(
            "guest_ia32_lbr_ctl".parse(),
            Ok(VmcsField::GUEST_IA32_LBR_CTL)
        );
    }
}
