//! The logical processors of a core.

use vlbr_arch::Msr;
use vlbr_lbr::{Interface, Lbr, Quirk, Scope};
use vlbr_pmu::Pmu;

use super::{
    Boundary, LogicalProcessor, MsrFault, Nothing, Options, ProcessorError, Retired, Surroundings,
};
use crate::ledger::MsrAccess;

/// Logical processors of one core, with what they share.
///
/// Where `MSR_LBR_SELECT` has core scope (quirk E24), a write by one filters for all. Counters with
/// AnyThread count what the others retire.
#[derive(Clone, Debug)]
pub struct Core<L = Lbr, P = Pmu> {
    threads: Vec<LogicalProcessor<L, P>>,
    shared_select: bool,
}

impl<L: vlbr_lbr::Device, P: vlbr_pmu::Device> Core<L, P> {
    /// A core of logical processors that were made with these options.
    #[must_use]
    pub fn of(threads: Vec<LogicalProcessor<L, P>>, options: &Options) -> Self {
        let shares =
            |thread: &LogicalProcessor<L, P>| shares_select(thread.lbr().profile(), &options.lbr);
        Self {
            shared_select: threads.first().is_some_and(shares),
            threads,
        }
    }

    /// A core of `threads` logical processors that `make` makes.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn with(
        threads: usize,
        options: &Options,
        make: impl Fn() -> Result<LogicalProcessor<L, P>, ProcessorError>,
    ) -> Result<Self, ProcessorError> {
        let threads = (0..threads).map(|_| make()).collect::<Result<_, _>>()?;
        Ok(Self::of(threads, options))
    }

    /// Number of logical processors.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.threads.len()
    }

    /// There is no logical processor.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }

    /// Logical processor `n`.
    #[must_use]
    pub fn thread(&self, n: usize) -> Option<&LogicalProcessor<L, P>> {
        self.threads.get(n)
    }

    /// Logical processor `n`, for everything but WRMSR and retirement.
    #[must_use]
    pub fn thread_mut(&mut self, n: usize) -> Option<&mut LogicalProcessor<L, P>> {
        self.threads.get_mut(n)
    }

    /// WRMSR by logical processor `n`. `None` if there is none.
    pub fn wrmsr(&mut self, n: usize, msr: Msr, value: u64) -> Option<Result<(), MsrFault>> {
        let written = self.threads.get_mut(n)?.wrmsr(msr, value);
        if written.is_ok() && self.shared_select && msr == Msr::LBR_SELECT {
            for thread in &mut self.threads {
                // Equal parts: what one takes all take.
                if let Err(fault) = thread.wrmsr(msr, value) {
                    return Some(Err(fault));
                }
            }
        }
        Some(written)
    }

    /// A boundary of logical processor `n`, which the others see. `around` holds what stands around
    /// each, in their order; those beyond it have [`Nothing`]. `None` if there is no `n`.
    pub fn retire<S: Surroundings>(
        &mut self,
        n: usize,
        boundary: Boundary<'_>,
        around: &mut [S],
    ) -> Option<Retired> {
        let thread = self.threads.get_mut(n)?;
        let retired = match around.get_mut(n) {
            Some(around) => thread.retire(boundary, around),
            None => thread.retire(boundary, &mut Nothing),
        };
        for (m, thread) in self.threads.iter_mut().enumerate() {
            match around.get_mut(m) {
                _ if m == n => {}
                Some(around) => {
                    thread.retire_sibling(boundary.run, around);
                }
                None => {
                    thread.retire_sibling(boundary.run, &mut Nothing);
                }
            }
        }
        Some(retired)
    }
}

/// Whether `MSR_LBR_SELECT` is one register for the core.
pub(super) fn shares_select(profile: &vlbr_lbr::Profile, options: &vlbr_lbr::Options) -> bool {
    let quirks = options.quirks.unwrap_or(profile.quirks());
    let core_scope = match profile.interface() {
        Interface::Legacy(legacy) => legacy.select_scope == Scope::Core,
        Interface::Arch(_) => false,
    };
    core_scope && quirks.contains(Quirk::SharedSelect)
}
