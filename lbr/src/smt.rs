//! Logical processors of one core and the filter register they may share.

use vlbr_arch::Msr;

use crate::{Access, QuirkSet};
use crate::{Device, GpFault, GpReason, Interface, Lbr, Options, Profile, Quirk, Scope};

/// The LBRs of the logical processors of one core.
///
/// Where `MSR_LBR_SELECT` has core scope (E24: Nehalem, Westmere and the Atoms with the
/// register), a write by one logical processor filters for all. Everything else is per logical
/// processor: reach it through [`SmtCore::thread`] and [`SmtCore::thread_mut`].
#[derive(Clone, Debug, PartialEq)]
pub struct SmtCore<D = Lbr> {
    threads: Vec<D>,
    shared: bool,
}

impl SmtCore {
    /// A core of `threads` equal logical processors after power-up.
    #[must_use]
    pub fn new(profile: &Profile, options: &Options, threads: usize) -> Self {
        Self::of(profile, options, threads, Lbr::new)
    }
}

impl<D: Device> SmtCore<D> {
    /// A core of `threads` logical processors that `make` makes.
    #[must_use]
    pub fn of(
        profile: &Profile,
        options: &Options,
        threads: usize,
        make: impl Fn(&Profile, Options) -> D,
    ) -> Self {
        let quirks: QuirkSet = options.quirks.unwrap_or(profile.quirks);
        let core_scope = match &profile.interface {
            Interface::Legacy(legacy) => legacy.select_scope == Scope::Core,
            Interface::Arch(_) => false,
        };
        Self {
            threads: (0..threads)
                .map(|_| make(profile, options.clone()))
                .collect(),
            shared: core_scope && quirks.contains(Quirk::SharedSelect),
        }
    }

    /// Number of logical processors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.threads.len()
    }

    /// There is no logical processor.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }

    /// The LBR of logical processor `n`.
    #[must_use]
    pub fn thread(&self, n: usize) -> Option<&D> {
        self.threads.get(n)
    }

    /// The LBR of logical processor `n`, for everything but writes to `MSR_LBR_SELECT`.
    #[must_use]
    pub fn thread_mut(&mut self, n: usize) -> Option<&mut D> {
        self.threads.get_mut(n)
    }

    /// WRMSR by logical processor `n`.
    ///
    /// # Errors
    /// As [`Device::wrmsr`]; a logical processor that does not exist has no registers.
    pub fn wrmsr(&mut self, n: usize, msr: Msr, value: u64) -> Result<(), GpFault> {
        let absent = GpFault {
            access: Access::Wrmsr(msr, value),
            reason: GpReason::NoSuchMsr,
        };
        self.threads.get_mut(n).ok_or(absent)?.wrmsr(msr, value)?;
        if self.shared && msr == Msr::LBR_SELECT {
            for thread in &mut self.threads {
                thread.wrmsr(msr, value)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select_of_sibling(name: &str, options: &Options) -> u64 {
        let profile = Profile::named(name).unwrap();
        let mut fast = SmtCore::new(profile, options, 2);
        let mut slow = SmtCore::of(profile, options, 2, crate::reference::Lbr::new);
        fast.wrmsr(0, Msr::LBR_SELECT, 0x1c4).unwrap();
        slow.wrmsr(0, Msr::LBR_SELECT, 0x1c4).unwrap();
        assert_eq!(fast.thread(0).unwrap().select().bits(), 0x1c4);
        let sibling = fast.thread(1).unwrap().rdmsr(Msr::LBR_SELECT).unwrap();
        assert_eq!(slow.thread(1).unwrap().rdmsr(Msr::LBR_SELECT), Ok(sibling));
        sibling
    }

    #[test]
    fn nehalem_siblings_share_the_filter() {
        assert_eq!(select_of_sibling("nehalem", &Options::default()), 0x1c4);
    }

    #[test]
    fn sandy_bridge_siblings_do_not() {
        assert_eq!(select_of_sibling("sandy-bridge", &Options::default()), 0);
    }

    #[test]
    fn without_e24_nehalem_siblings_do_not_either() {
        let options = Options {
            quirks: Some(QuirkSet::EMPTY),
            ..Options::default()
        };
        assert_eq!(select_of_sibling("nehalem", &options), 0);
    }

    #[test]
    fn an_absent_sibling_has_no_registers() {
        let mut core = SmtCore::new(Profile::named("nhm").unwrap(), &Options::default(), 2);
        let fault = core.wrmsr(2, Msr::DEBUGCTL, 1).unwrap_err();
        assert_eq!(fault.reason, GpReason::NoSuchMsr);
    }
}
