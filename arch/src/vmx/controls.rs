//! The control vectors of the VMCS.

use crate::bits::register_bits;

register_bits! {
    /// Pin-based VM-execution controls (field 0x4000). SDM volume 3, "Pin-Based VM-Execution
    /// Controls".
    PinControls: u32 {
        /// External interrupts cause VM exits.
        EXTERNAL_INTERRUPT_EXITING = 0,
        /// NMIs cause VM exits.
        NMI_EXITING = 3,
        /// NMIs are never blocked by the guest's NMIs; blocking is virtual.
        VIRTUAL_NMIS = 5,
        /// The preemption timer counts in non-root operation.
        ACTIVATE_PREEMPTION_TIMER = 6,
        /// Posted interrupts are processed.
        PROCESS_POSTED_INTERRUPTS = 7,
    }
}

register_bits! {
    /// Primary processor-based VM-execution controls (field 0x4002). SDM volume 3,
    /// "Processor-Based VM-Execution Controls".
    PrimaryControls: u32 {
        /// VM exit as soon as interrupts can be taken.
        INTERRUPT_WINDOW_EXITING = 2,
        /// RDTSC adds the TSC offset.
        USE_TSC_OFFSETTING = 3,
        /// HLT exits.
        HLT_EXITING = 7,
        /// INVLPG exits.
        INVLPG_EXITING = 9,
        /// MWAIT exits.
        MWAIT_EXITING = 10,
        /// RDPMC exits.
        RDPMC_EXITING = 11,
        /// RDTSC and RDTSCP exit.
        RDTSC_EXITING = 12,
        /// MOV to CR3 exits, but for the target values.
        CR3_LOAD_EXITING = 15,
        /// MOV from CR3 exits.
        CR3_STORE_EXITING = 16,
        /// There are tertiary controls.
        ACTIVATE_TERTIARY_CONTROLS = 17,
        /// MOV to CR8 exits.
        CR8_LOAD_EXITING = 19,
        /// MOV from CR8 exits.
        CR8_STORE_EXITING = 20,
        /// TPR virtualization.
        USE_TPR_SHADOW = 21,
        /// VM exit as soon as no NMI is blocked.
        NMI_WINDOW_EXITING = 22,
        /// MOV DR exits.
        MOV_DR_EXITING = 23,
        /// Every I/O instruction exits.
        UNCONDITIONAL_IO_EXITING = 24,
        /// The I/O bitmaps decide which I/O instructions exit.
        USE_IO_BITMAPS = 25,
        /// VM exit after the next instruction.
        MONITOR_TRAP_FLAG = 27,
        /// The MSR bitmaps decide which RDMSR and WRMSR exit; without it, all do.
        USE_MSR_BITMAPS = 28,
        /// MONITOR exits.
        MONITOR_EXITING = 29,
        /// PAUSE exits.
        PAUSE_EXITING = 30,
        /// The secondary controls are in force; without it they act as 0.
        ACTIVATE_SECONDARY_CONTROLS = 31,
    }
}

register_bits! {
    /// Secondary processor-based VM-execution controls (field 0x401E): those that MSRs, XSAVES and
    /// the LBR depend on. SDM volume 3, "Processor-Based VM-Execution Controls".
    SecondaryControls: u32 {
        /// EPT.
        ENABLE_EPT = 1,
        /// RDTSCP exists.
        ENABLE_RDTSCP = 3,
        /// MSRs 0x800 to 0x8FF reach the virtual APIC.
        VIRTUALIZE_X2APIC_MODE = 4,
        /// VPID.
        ENABLE_VPID = 5,
        /// The guest may run unpaged or in real mode.
        UNRESTRICTED_GUEST = 7,
        /// Virtual-interrupt delivery.
        VIRTUAL_INTERRUPT_DELIVERY = 9,
        /// VMFUNC exists.
        ENABLE_VM_FUNCTIONS = 13,
        /// VMREAD and VMWRITE may reach a shadow VMCS.
        VMCS_SHADOWING = 14,
        /// VMX is hidden from Intel PT.
        CONCEAL_VMX_FROM_PT = 19,
        /// XSAVES and XRSTORS exist; the XSS-exiting bitmap decides which exit.
        ENABLE_XSAVES_XRSTORS = 20,
        /// TSC scaling.
        USE_TSC_SCALING = 25,
    }
}

register_bits! {
    /// VM-exit controls (field 0x400C). SDM volume 3, "VM-Exit Controls".
    ExitControls: u32 {
        /// DR7 and `IA32_DEBUGCTL` are saved.
        SAVE_DEBUG_CONTROLS = 2,
        /// The host is in 64-bit mode.
        HOST_ADDRESS_SPACE_SIZE = 9,
        /// `IA32_PERF_GLOBAL_CTRL` is loaded from the host-state area.
        LOAD_PERF_GLOBAL_CTRL = 12,
        /// An external interrupt that exits is acknowledged.
        ACKNOWLEDGE_INTERRUPT = 15,
        /// `IA32_PAT` is saved.
        SAVE_PAT = 18,
        /// `IA32_PAT` is loaded.
        LOAD_PAT = 19,
        /// `IA32_EFER` is saved.
        SAVE_EFER = 20,
        /// `IA32_EFER` is loaded.
        LOAD_EFER = 21,
        /// The preemption timer is saved.
        SAVE_PREEMPTION_TIMER = 22,
        /// `IA32_BNDCFGS` is cleared.
        CLEAR_BNDCFGS = 23,
        /// Intel PT does not show the exit.
        CONCEAL_VMX_FROM_PT = 24,
        /// `IA32_RTIT_CTL` is cleared.
        CLEAR_RTIT_CTL = 25,
        /// `IA32_LBR_CTL` is cleared.
        CLEAR_LBR_CTL = 26,
        /// UINV is cleared.
        CLEAR_UINV = 27,
        /// CET state is loaded.
        LOAD_CET = 28,
        /// `IA32_PKRS` is loaded.
        LOAD_PKRS = 29,
        /// `IA32_PERF_GLOBAL_CTRL` is saved.
        SAVE_PERF_GLOBAL_CTRL = 30,
        /// There are secondary VM-exit controls.
        ACTIVATE_SECONDARY_CONTROLS = 31,
    }
}

impl ExitControls {
    /// Bits that are 1 where the processor has no more to say (default 1): 8:0, 10, 11, 13, 14, 16, 17.
    pub const DEFAULT1: Self = Self::from_bits(0x0003_6dff);
}

register_bits! {
    /// VM-entry controls (field 0x4012). SDM volume 3, "VM-Entry Controls".
    EntryControls: u32 {
        /// DR7 and `IA32_DEBUGCTL` are loaded.
        LOAD_DEBUG_CONTROLS = 2,
        /// The guest is in IA-32e mode.
        IA32E_MODE_GUEST = 9,
        /// The guest is in SMM.
        ENTRY_TO_SMM = 10,
        /// The dual-monitor treatment ends.
        DEACTIVATE_DUAL_MONITOR = 11,
        /// `IA32_PERF_GLOBAL_CTRL` is loaded.
        LOAD_PERF_GLOBAL_CTRL = 13,
        /// `IA32_PAT` is loaded.
        LOAD_PAT = 14,
        /// `IA32_EFER` is loaded.
        LOAD_EFER = 15,
        /// `IA32_BNDCFGS` is loaded.
        LOAD_BNDCFGS = 16,
        /// Intel PT does not show the entry.
        CONCEAL_VMX_FROM_PT = 17,
        /// `IA32_RTIT_CTL` is loaded.
        LOAD_RTIT_CTL = 18,
        /// UINV is loaded.
        LOAD_UINV = 19,
        /// CET state is loaded.
        LOAD_CET = 20,
        /// `IA32_LBR_CTL` is loaded.
        LOAD_LBR_CTL = 21,
        /// `IA32_PKRS` is loaded.
        LOAD_PKRS = 22,
        /// FRED state is loaded.
        LOAD_FRED = 23,
        /// `IA32_SPEC_CTRL` is loaded.
        LOAD_SPEC_CTRL = 24,
    }
}

impl EntryControls {
    /// Bits that are 1 where the processor has no more to say (default 1): 8:0 and 12.
    pub const DEFAULT1: Self = Self::from_bits(0x0000_11ff);
}
