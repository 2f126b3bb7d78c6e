//! Exit reasons by the names that Linux prints.

use vlbr_arch::vmx::ExitReason;

/// `VMX_EXIT_REASONS` of `arch/x86/include/uapi/asm/vmx.h`, with the names that older kernels and
/// the plugin of libtraceevent have beside it.
const NAMES: [(&str, u32); 75] = [
    ("EXCEPTION_NMI", 0),
    ("EXTERNAL_INTERRUPT", 1),
    ("TRIPLE_FAULT", 2),
    ("INIT_SIGNAL", 3),
    ("SIPI_SIGNAL", 4),
    ("IO_SMI", 5),
    ("OTHER_SMI", 6),
    ("INTERRUPT_WINDOW", 7),
    ("NMI_WINDOW", 8),
    ("TASK_SWITCH", 9),
    ("CPUID", 10),
    ("GETSEC", 11),
    ("HLT", 12),
    ("INVD", 13),
    ("INVLPG", 14),
    ("RDPMC", 15),
    ("RDTSC", 16),
    ("RSM", 17),
    ("VMCALL", 18),
    ("VMCLEAR", 19),
    ("VMLAUNCH", 20),
    ("VMPTRLD", 21),
    ("VMPTRST", 22),
    ("VMREAD", 23),
    ("VMRESUME", 24),
    ("VMWRITE", 25),
    ("VMOFF", 26),
    ("VMON", 27),
    ("CR_ACCESS", 28),
    ("DR_ACCESS", 29),
    ("IO_INSTRUCTION", 30),
    ("MSR_READ", 31),
    ("MSR_WRITE", 32),
    ("INVALID_STATE", 33),
    ("MSR_LOAD_FAIL", 34),
    ("MWAIT_INSTRUCTION", 36),
    ("MONITOR_TRAP_FLAG", 37),
    ("MONITOR_INSTRUCTION", 39),
    ("PAUSE_INSTRUCTION", 40),
    ("MCE_DURING_VMENTRY", 41),
    ("TPR_BELOW_THRESHOLD", 43),
    ("APIC_ACCESS", 44),
    ("EOI_INDUCED", 45),
    ("GDTR_IDTR", 46),
    ("LDTR_TR", 47),
    ("EPT_VIOLATION", 48),
    ("EPT_MISCONFIG", 49),
    ("INVEPT", 50),
    ("RDTSCP", 51),
    ("PREEMPTION_TIMER", 52),
    ("INVVPID", 53),
    ("WBINVD", 54),
    ("XSETBV", 55),
    ("APIC_WRITE", 56),
    ("RDRAND", 57),
    ("INVPCID", 58),
    ("VMFUNC", 59),
    ("ENCLS", 60),
    ("RDSEED", 61),
    ("PML_FULL", 62),
    ("XSAVES", 63),
    ("XRSTORS", 64),
    ("SPP_EVENT", 66),
    ("UMWAIT", 67),
    ("TPAUSE", 68),
    ("LOADIWKEY", 69),
    ("BUS_LOCK", 74),
    ("NOTIFY", 75),
    ("SEAMCALL", 76),
    ("TDCALL", 77),
    ("MSR_READ_IMM", 84),
    ("MSR_WRITE_IMM", 85),
    // Until 5.5.
    ("PENDING_INTERRUPT", 7),
    ("MSR_READING", 31),
    ("MSR_WRITING", 32),
];

/// Greatest number that a name or number of an exit may stand for.
pub(crate) const LAST: u32 = 127;

/// The exit with this name, as Linux prints it, or with this number, `0x4b`.
pub(crate) fn exit_named(name: &str) -> Option<ExitReason> {
    if let Some(digits) = name.strip_prefix("0x") {
        let number = u32::from_str_radix(digits, 16).ok()?;
        return (number <= LAST).then(|| ExitReason::new(number));
    }
    let found = NAMES.iter().find(|(known, _)| *known == name);
    found.map(|(_, number)| ExitReason::new(*number))
}

/// The name that Linux prints, or the number.
pub(crate) fn exit_name(reason: ExitReason) -> String {
    let number = reason.basic().value();
    let found = NAMES.iter().find(|(_, known)| *known == number);
    found.map_or_else(|| format!("{number:#x}"), |(name, _)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_one_first_name_and_every_name_its_number() {
        for (name, number) in NAMES {
            assert_eq!(exit_named(name), Some(ExitReason::new(number)));
        }
        for number in 0..=LAST {
            let reason = ExitReason::new(number);
            assert_eq!(exit_named(&exit_name(reason)), Some(reason));
        }
        for wrong in ["", "npf", "0x80", "0x", "cpuid", "CPUID "] {
            assert_eq!(exit_named(wrong), None, "{wrong:?}");
        }
    }
}
