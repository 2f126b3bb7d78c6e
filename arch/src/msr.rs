//! Model-specific registers, by name.

use core::fmt;
use core::str::FromStr;

/// Address of a model-specific register, the ECX of RDMSR and WRMSR.
///
/// `Display` gives the name the SDM (volume 4) prints, or the number where none is known here.
/// Two generations reuse no address for different LBR registers, so a name needs no model.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Msr(u32);

impl Msr {
    /// The register at this address.
    #[must_use]
    pub const fn new(address: u32) -> Self {
        Self(address)
    }

    /// The address.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }

    /// The register `n` places above, as in "`FROM_IP` of entry n". Wraps at 2^32.
    #[must_use]
    pub const fn plus(self, n: u32) -> Self {
        Self(self.0.wrapping_add(n))
    }
}

/// A run of registers with one name pattern.
struct Family {
    base: Msr,
    count: u32,
    before: &'static str,
    after: &'static str,
}

macro_rules! msrs {
    (
        single { $( $(#[$doc:meta])* $name:ident = $address:literal, $text:literal; )* }
        indexed { $( $(#[$idoc:meta])* $iname:ident = $iaddress:literal, $icount:literal, $before:literal, $after:literal; )* }
    ) => {
        impl Msr {
            $( $(#[$doc])* pub const $name: Self = Self($address); )*
            $( $(#[$idoc])* pub const $iname: Self = Self($iaddress); )*
        }

        const SINGLE: &[(Msr, &str)] = &[$( (Msr::$name, $text), )*];
        const INDEXED: &[Family] = &[$( Family {
            base: Msr::$iname, count: $icount, before: $before, after: $after,
        }, )*];
    };
}

msrs! {
    single {
        /// Filter and call-stack mode of the legacy LBR: [`crate::LbrSelect`].
        LBR_SELECT = 0x1c8, "MSR_LBR_SELECT";
        /// Index of the youngest entry of the legacy LBR.
        LASTBRANCH_TOS = 0x1c9, "MSR_LASTBRANCH_TOS";
        /// Debug control: [`crate::DebugCtl`].
        DEBUGCTL = 0x1d9, "IA32_DEBUGCTL";
        /// FROM of the last branch before the last exception or interrupt.
        LER_FROM = 0x1dd, "MSR_LER_FROM_LIP";
        /// TO of the last branch before the last exception or interrupt.
        LER_TO = 0x1de, "MSR_LER_TO_LIP";
        /// INFO of the last branch before the last exception or interrupt (architectural LBR).
        LER_INFO = 0x1e0, "IA32_LER_INFO";
        /// Switches of the model; bits 7, 11 and 12 tell whether counters, BTS and PEBS exist.
        MISC_ENABLE = 0x1a0, "IA32_MISC_ENABLE";
        /// Which off-core responses the event OFFCORE_RESPONSE_0 counts.
        OFFCORE_RSP_0 = 0x1a6, "MSR_OFFCORE_RSP_0";
        /// Which off-core responses the event OFFCORE_RESPONSE_1 counts.
        OFFCORE_RSP_1 = 0x1a7, "MSR_OFFCORE_RSP_1";
        /// Topdown metrics, eight fractions of a byte each.
        PERF_METRICS = 0x329, "IA32_PERF_METRICS";
        /// Counters that make PEBS records: [`crate::PebsEnable`].
        PEBS_ENABLE = 0x3f1, "IA32_PEBS_ENABLE";
        /// Groups of adaptive PEBS records: [`crate::PebsDataCfg`].
        PEBS_DATA_CFG = 0x3f2, "MSR_PEBS_DATA_CFG";
        /// Least latency of loads that the load-latency event counts.
        PEBS_LD_LAT_THRESHOLD = 0x3f6, "MSR_PEBS_LD_LAT_THRESHOLD";
        /// What the precise front-end events count.
        PEBS_FRONTEND = 0x3f7, "MSR_PEBS_FRONTEND";
        /// Linear address of the debug store management area.
        DS_AREA = 0x600, "IA32_DS_AREA";
        /// LVT performance monitoring entry in x2APIC mode: [`crate::LvtPc`].
        X2APIC_LVT_PMI = 0x834, "IA32_X2APIC_LVT_PMI";
        /// Capabilities: [`crate::PerfCapabilities`].
        PERF_CAPABILITIES = 0x345, "IA32_PERF_CAPABILITIES";
        /// Modes of the fixed counters.
        FIXED_CTR_CTRL = 0x38d, "IA32_FIXED_CTR_CTRL";
        /// Overflow and freeze status: [`crate::PerfGlobalStatus`]. Read only.
        PERF_GLOBAL_STATUS = 0x38e, "IA32_PERF_GLOBAL_STATUS";
        /// Counter enables.
        PERF_GLOBAL_CTRL = 0x38f, "IA32_PERF_GLOBAL_CTRL";
        /// Clears status bits; from version 4 named `IA32_PERF_GLOBAL_STATUS_RESET`.
        PERF_GLOBAL_OVF_CTRL = 0x390, "IA32_PERF_GLOBAL_OVF_CTRL";
        /// Sets status bits (version 4 and later).
        PERF_GLOBAL_STATUS_SET = 0x391, "IA32_PERF_GLOBAL_STATUS_SET";
        /// Which facilities are in use (version 4 and later). Read only.
        PERF_GLOBAL_INUSE = 0x392, "IA32_PERF_GLOBAL_INUSE";
        /// Intel PT control; bit 0 is TraceEn.
        RTIT_CTL = 0x570, "IA32_RTIT_CTL";
        /// Supervisor XSAVE components; bit 15 selects the LBR state.
        XSS = 0xda0, "IA32_XSS";
        /// Control of architectural LBR: [`crate::LbrCtl`].
        LBR_CTL = 0x14ce, "IA32_LBR_CTL";
        /// Number of entries of architectural LBR.
        LBR_DEPTH = 0x14cf, "IA32_LBR_DEPTH";
        /// Opt-in to VMX operation in SMM (read and written in SMM only).
        SMM_MONITOR_CTL = 0x9b, "IA32_SMM_MONITOR_CTL";
        /// Base of SMRAM (readable in SMM only).
        SMBASE = 0x9e, "IA32_SMBASE";
        /// Starts a microcode update.
        BIOS_UPDT_TRIG = 0x79, "IA32_BIOS_UPDT_TRIG";
        /// Revision of the microcode.
        BIOS_SIGN_ID = 0x8b, "IA32_BIOS_SIGN_ID";
        /// Basic VMX information: [`crate::vmx::VmxBasic`].
        VMX_BASIC = 0x480, "IA32_VMX_BASIC";
        /// Allowed settings of the pin-based controls.
        VMX_PINBASED_CTLS = 0x481, "IA32_VMX_PINBASED_CTLS";
        /// Allowed settings of the primary processor-based controls.
        VMX_PROCBASED_CTLS = 0x482, "IA32_VMX_PROCBASED_CTLS";
        /// Allowed settings of the VM-exit controls.
        VMX_EXIT_CTLS = 0x483, "IA32_VMX_EXIT_CTLS";
        /// Allowed settings of the VM-entry controls.
        VMX_ENTRY_CTLS = 0x484, "IA32_VMX_ENTRY_CTLS";
        /// Miscellaneous VMX data: [`crate::vmx::VmxMisc`].
        VMX_MISC = 0x485, "IA32_VMX_MISC";
        /// Allowed settings of the secondary processor-based controls.
        VMX_PROCBASED_CTLS2 = 0x48b, "IA32_VMX_PROCBASED_CTLS2";
        /// As 0x481, without the default-1 bits that may be cleared.
        VMX_TRUE_PINBASED_CTLS = 0x48d, "IA32_VMX_TRUE_PINBASED_CTLS";
        /// As 0x482, without the default-1 bits that may be cleared.
        VMX_TRUE_PROCBASED_CTLS = 0x48e, "IA32_VMX_TRUE_PROCBASED_CTLS";
        /// As 0x483, without the default-1 bits that may be cleared.
        VMX_TRUE_EXIT_CTLS = 0x48f, "IA32_VMX_TRUE_EXIT_CTLS";
        /// As 0x484, without the default-1 bits that may be cleared.
        VMX_TRUE_ENTRY_CTLS = 0x490, "IA32_VMX_TRUE_ENTRY_CTLS";
        /// Base of FS.
        FS_BASE = 0xc000_0100, "IA32_FS_BASE";
        /// Base of GS.
        GS_BASE = 0xc000_0101, "IA32_GS_BASE";
    }
    indexed {
        /// General-purpose counter 0. Writes are sign-extended from 32 bits.
        PMC0 = 0xc1, 8, "IA32_PMC", "";
        /// Event select of general-purpose counter 0: [`crate::PerfEvtSel`].
        PERFEVTSEL0 = 0x186, 8, "IA32_PERFEVTSEL", "";
        /// Fixed counter 0, instructions retired.
        FIXED_CTR0 = 0x309, 4, "IA32_FIXED_CTR", "";
        /// Full-width alias of general-purpose counter 0.
        A_PMC0 = 0x4c1, 8, "IA32_A_PMC", "";
        /// Reload value of fixed counter 0 for PEBS output to Intel PT.
        RELOAD_FIXED_CTR0 = 0x1309, 4, "MSR_RELOAD_FIXED_CTR", "";
        /// Reload value of general-purpose counter 0 for PEBS output to Intel PT.
        RELOAD_PMC0 = 0x14c1, 8, "MSR_RELOAD_PMC", "";
        /// FROM of entry 0 on Core 2 and the Atoms before Goldmont.
        LASTBRANCH_0_FROM_IP_CORE = 0x40, 8, "MSR_LASTBRANCH_", "_FROM_IP";
        /// TO of entry 0 on Core 2 and the Atoms before Goldmont.
        LASTBRANCH_0_TO_IP_CORE = 0x60, 8, "MSR_LASTBRANCH_", "_TO_IP";
        /// FROM of entry 0 from Nehalem on.
        LASTBRANCH_0_FROM_IP = 0x680, 32, "MSR_LASTBRANCH_", "_FROM_IP";
        /// TO of entry 0 from Nehalem on.
        LASTBRANCH_0_TO_IP = 0x6c0, 32, "MSR_LASTBRANCH_", "_TO_IP";
        /// INFO of entry 0 from Skylake on.
        LBR_INFO_0 = 0xdc0, 32, "MSR_LBR_INFO_", "";
        /// INFO of entry 0, architectural LBR.
        LBR_0_INFO = 0x1200, 32, "IA32_LBR_", "_INFO";
        /// FROM of entry 0, architectural LBR.
        LBR_0_FROM_IP = 0x1500, 32, "IA32_LBR_", "_FROM_IP";
        /// TO of entry 0, architectural LBR.
        LBR_0_TO_IP = 0x1600, 32, "IA32_LBR_", "_TO_IP";
    }
}

impl fmt::Display for Msr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((_, name)) = SINGLE.iter().find(|(msr, _)| msr == self) {
            return f.write_str(name);
        }
        for family in INDEXED {
            let n = self.0.wrapping_sub(family.base.0);
            if n < family.count {
                return write!(f, "{}{n}{}", family.before, family.after);
            }
        }
        write!(f, "MSR {:#x}", self.0)
    }
}

impl fmt::Debug for Msr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Msr({:#x} {self})", self.0)
    }
}

/// A text that names no register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownMsr(
    /// The text.
    pub String,
);

impl fmt::Display for UnknownMsr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no register is named {:?}", self.0)
    }
}

impl std::error::Error for UnknownMsr {}

impl FromStr for Msr {
    type Err = UnknownMsr;

    /// Reads a hexadecimal address (`0x1d9`) or an SDM name (`IA32_DEBUGCTL`), in any case.
    ///
    /// `MSR_LASTBRANCH_n_FROM_IP` and `_TO_IP` name two addresses (0x40, 0x680): the newer one is
    /// returned.
    fn from_str(text: &str) -> Result<Self, UnknownMsr> {
        let unknown = || UnknownMsr(text.to_owned());
        let lower = text.to_ascii_lowercase();
        if let Some(digits) = lower.strip_prefix("0x") {
            return u32::from_str_radix(digits, 16)
                .map(Msr)
                .map_err(|_| unknown());
        }
        if let Some((msr, _)) = SINGLE
            .iter()
            .find(|(_, name)| name.eq_ignore_ascii_case(text))
        {
            return Ok(*msr);
        }
        INDEXED
            .iter()
            .rev()
            .find_map(|family| {
                let rest = lower.strip_prefix(&family.before.to_ascii_lowercase())?;
                let digits = rest.strip_suffix(&family.after.to_ascii_lowercase())?;
                let canonical = digits == "0" || !digits.starts_with(['0', '+']);
                let n: u32 = digits.parse().ok().filter(|_| canonical)?;
                (n < family.count).then(|| family.base.plus(n))
            })
            .ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_gives_sdm_names() {
        for (msr, name) in [
            (Msr::DEBUGCTL, "IA32_DEBUGCTL"),
            (Msr::new(0x69f), "MSR_LASTBRANCH_31_FROM_IP"),
            (Msr::new(0x47), "MSR_LASTBRANCH_7_FROM_IP"),
            (Msr::new(0x48), "MSR 0x48"),
            (Msr::new(0x1208), "IA32_LBR_8_INFO"),
            (Msr::new(0x161f), "IA32_LBR_31_TO_IP"),
            (Msr::new(0xdc3), "MSR_LBR_INFO_3"),
        ] {
            assert_eq!(msr.to_string(), name);
        }
    }

    #[test]
    fn every_name_reads_back_as_its_register() {
        for (msr, name) in SINGLE {
            assert_eq!(name.parse(), Ok(*msr));
        }
        for family in INDEXED {
            for n in 0..family.count {
                let msr = family.base.plus(n);
                let named: Msr = msr.to_string().parse().unwrap();
                assert_eq!(named.to_string(), msr.to_string());
            }
        }
    }

    #[test]
    fn texts_that_name_nothing_are_refused() {
        for text in [
            "",
            "0x",
            "0x1ffffffff",
            "IA32_LBR_32_INFO",
            "IA32_LBR_07_INFO",
            "TOS",
        ] {
            assert!(text.parse::<Msr>().is_err(), "{text:?}");
        }
    }
}
