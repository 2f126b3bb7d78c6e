//! VMX capabilities as data.

mod builtin;
mod raw;

use vlbr_arch::Msr;
use vlbr_arch::vmx::{
    EntryControls, ExitControls, PinControls, PrimaryControls, SecondaryControls, VmcsField,
    VmxBasic, VmxMisc,
};
use vlbr_data::Named;

pub use raw::VmxProfileError;

/// Allowed settings of a control vector. SDM volume 3, "Reserved Controls and Default Settings".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Allowed {
    /// Low half of the capability MSR: a control whose bit is 1 must be 1.
    pub allowed0: u32,
    /// High half: a control whose bit is 0 must be 0.
    pub allowed1: u32,
}

impl Allowed {
    /// The capability MSR.
    #[must_use]
    pub const fn msr(self) -> u64 {
        (self.allowed1 as u64) << 32 | self.allowed0 as u64
    }

    /// Controls that must be 1 and are not.
    #[must_use]
    pub const fn missing(self, controls: u32) -> u32 {
        self.allowed0 & !controls
    }

    /// Controls that are 1 and may not be.
    #[must_use]
    pub const fn excess(self, controls: u32) -> u32 {
        controls & !self.allowed1
    }

    /// `wanted`, with what must be 1 set and what may not be 1 cleared, as hypervisors adjust.
    #[must_use]
    pub const fn adjust(self, wanted: u32) -> u32 {
        (wanted | self.allowed0) & self.allowed1
    }
}

/// The VMX capabilities of a generation of processors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmxProfile {
    name: String,
    title: String,
    cpus: Vec<String>,
    basic: VmxBasic,
    misc: VmxMisc,
    pin: Allowed,
    primary: Allowed,
    secondary: Allowed,
    exit: Allowed,
    entry: Allowed,
    /// Low halves of the TRUE MSRs: pin, primary, exit, entry.
    true_allowed0: Option<[u32; 4]>,
}

impl Named for VmxProfile {
    fn name(&self) -> &str {
        &self.name
    }

    /// It goes by the names of its processors.
    fn is_called(&self, text: &str) -> bool {
        self.cpus.iter().any(|known| known == text)
    }
}

impl VmxProfile {
    /// The built-in profiles, oldest first.
    #[must_use]
    pub fn all() -> &'static [Self] {
        builtin::PROFILES.all()
    }

    /// The built-in profile of the processor whose LBR profile has this name.
    ///
    /// # Errors
    /// There is none.
    pub fn of_processor(cpu: &str) -> Result<&'static Self, VmxProfileError> {
        builtin::PROFILES
            .named(cpu)
            .ok_or_else(|| VmxProfileError::Unknown(cpu.to_owned()))
    }

    /// Reads a profile from TOML; `vmx/profiles/README.md` says the form.
    ///
    /// # Errors
    /// Text that is not TOML, or a profile that contradicts itself.
    pub fn from_toml(text: &str) -> Result<Self, VmxProfileError> {
        raw::parse(text)
    }

    /// Short name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name for people.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Names of the LBR profiles it belongs to.
    #[must_use]
    pub fn cpus(&self) -> &[String] {
        &self.cpus
    }

    /// `IA32_VMX_BASIC`.
    #[must_use]
    pub const fn basic(&self) -> VmxBasic {
        self.basic
    }

    /// `IA32_VMX_MISC`.
    #[must_use]
    pub const fn misc(&self) -> VmxMisc {
        self.misc
    }

    fn relaxed(&self, allowed: Allowed, n: usize) -> Allowed {
        match self.true_allowed0 {
            Some(lows) => Allowed {
                allowed0: lows[n],
                ..allowed
            },
            None => allowed,
        }
    }

    /// Pin-based controls, the TRUE ones where they exist; so are the next three.
    #[must_use]
    pub fn pin(&self) -> Allowed {
        self.relaxed(self.pin, 0)
    }

    /// Primary processor-based controls.
    #[must_use]
    pub fn primary(&self) -> Allowed {
        self.relaxed(self.primary, 1)
    }

    /// VM-exit controls.
    #[must_use]
    pub fn exit(&self) -> Allowed {
        self.relaxed(self.exit, 2)
    }

    /// VM-entry controls.
    #[must_use]
    pub fn entry(&self) -> Allowed {
        self.relaxed(self.entry, 3)
    }

    /// Secondary processor-based controls; all 0 where there are none.
    #[must_use]
    pub const fn secondary(&self) -> Allowed {
        self.secondary
    }

    /// RDMSR of a capability MSR, `None` for one that does not exist or is not modelled.
    #[must_use]
    pub fn msr(&self, msr: Msr) -> Option<u64> {
        let relaxed = |allowed, n| self.true_allowed0.map(|_| self.relaxed(allowed, n).msr());
        match msr {
            Msr::VMX_BASIC => Some(self.basic.bits()),
            Msr::VMX_PINBASED_CTLS => Some(self.pin.msr()),
            Msr::VMX_PROCBASED_CTLS => Some(self.primary.msr()),
            Msr::VMX_EXIT_CTLS => Some(self.exit.msr()),
            Msr::VMX_ENTRY_CTLS => Some(self.entry.msr()),
            Msr::VMX_MISC => Some(self.misc.bits()),
            Msr::VMX_PROCBASED_CTLS2 => self.has_secondary().then(|| self.secondary.msr()),
            Msr::VMX_TRUE_PINBASED_CTLS => relaxed(self.pin, 0),
            Msr::VMX_TRUE_PROCBASED_CTLS => relaxed(self.primary, 1),
            Msr::VMX_TRUE_EXIT_CTLS => relaxed(self.exit, 2),
            Msr::VMX_TRUE_ENTRY_CTLS => relaxed(self.entry, 3),
            _ => None,
        }
    }

    fn has_secondary(&self) -> bool {
        self.may_primary(PrimaryControls::ACTIVATE_SECONDARY_CONTROLS)
    }

    fn may_primary(&self, control: PrimaryControls) -> bool {
        self.primary.excess(control.bits()) == 0
    }

    fn may_entry(&self, control: EntryControls) -> bool {
        self.entry.excess(control.bits()) == 0
    }

    fn may_exit(&self, control: ExitControls) -> bool {
        self.exit.excess(control.bits()) == 0
    }

    /// Whether VM exits save `IA32_LBR_CTL`: they do wherever its field exists.
    #[must_use]
    pub fn has_lbr_ctl(&self) -> bool {
        self.has_field(VmcsField::GUEST_IA32_LBR_CTL)
    }

    /// Whether the VMCS has this field: some exist only with the 1-setting of a control. SDM
    /// volume 3, footnotes of appendix "Field Encoding in VMCS".
    #[must_use]
    pub fn has_field(&self, field: VmcsField) -> bool {
        use {EntryControls as Entry, ExitControls as Exit};
        let full = field.full();
        if !crate::Vmcs::has(full)
            || (field.is_high() && field.width() != vlbr_arch::vmx::FieldWidth::Bits64)
        {
            return false;
        }
        match full {
            VmcsField::MSR_BITMAP => self.may_primary(PrimaryControls::USE_MSR_BITMAPS),
            VmcsField::SECONDARY_VM_EXEC_CONTROL => self.has_secondary(),
            VmcsField::XSS_EXIT_BITMAP => {
                self.has_secondary()
                    && self
                        .secondary
                        .excess(SecondaryControls::ENABLE_XSAVES_XRSTORS.bits())
                        == 0
            }
            VmcsField::VMX_PREEMPTION_TIMER_VALUE => {
                self.pin
                    .excess(PinControls::ACTIVATE_PREEMPTION_TIMER.bits())
                    == 0
            }
            VmcsField::GUEST_IA32_PAT => {
                self.may_entry(Entry::LOAD_PAT) || self.may_exit(Exit::SAVE_PAT)
            }
            VmcsField::GUEST_IA32_EFER => {
                self.may_entry(Entry::LOAD_EFER) || self.may_exit(Exit::SAVE_EFER)
            }
            VmcsField::GUEST_IA32_PERF_GLOBAL_CTRL => {
                self.may_entry(Entry::LOAD_PERF_GLOBAL_CTRL)
                    || self.may_exit(Exit::SAVE_PERF_GLOBAL_CTRL)
            }
            VmcsField::GUEST_BNDCFGS => {
                self.may_entry(Entry::LOAD_BNDCFGS) || self.may_exit(Exit::CLEAR_BNDCFGS)
            }
            VmcsField::GUEST_IA32_RTIT_CTL => {
                self.may_entry(Entry::LOAD_RTIT_CTL) || self.may_exit(Exit::CLEAR_RTIT_CTL)
            }
            VmcsField::GUEST_IA32_LBR_CTL => {
                self.may_entry(Entry::LOAD_LBR_CTL) || self.may_exit(Exit::CLEAR_LBR_CTL)
            }
            VmcsField::GUEST_IA32_PKRS => self.may_entry(Entry::LOAD_PKRS),
            VmcsField::GUEST_UINV => self.may_entry(Entry::LOAD_UINV),
            VmcsField::HOST_IA32_PAT => self.may_exit(Exit::LOAD_PAT),
            VmcsField::HOST_IA32_EFER => self.may_exit(Exit::LOAD_EFER),
            VmcsField::HOST_IA32_PERF_GLOBAL_CTRL => self.may_exit(Exit::LOAD_PERF_GLOBAL_CTRL),
            VmcsField::HOST_IA32_PKRS => self.may_exit(Exit::LOAD_PKRS),
            VmcsField::SECONDARY_VM_EXIT_CONTROLS => {
                self.may_exit(Exit::ACTIVATE_SECONDARY_CONTROLS)
            }
            VmcsField::TERTIARY_VM_EXEC_CONTROL => {
                self.may_primary(PrimaryControls::ACTIVATE_TERTIARY_CONTROLS)
            }
            _ => true,
        }
    }
}
