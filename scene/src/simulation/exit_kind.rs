//! Exits that the rates of a scene say.

use vlbr_arch::vmx::ExitReason;
use vlbr_host::machine::ExitCause;

use super::clocks;
use crate::exit_names::exit_named;
use crate::random::Random;
use crate::{ExitSpec, Scene, VcpuSpec};

/// Causes of `ExitRates::rates`, in their order.
const CAUSES: [ExitCause; 8] = [
    ExitCause::ExternalInterrupt,
    ExitCause::EptViolation,
    ExitCause::Instruction(ExitReason::CPUID, 2),
    ExitCause::Instruction(ExitReason::IO_INSTRUCTION, 1),
    ExitCause::Instruction(ExitReason::WRMSR, 2),
    ExitCause::Instruction(ExitReason::HLT, 1),
    ExitCause::Instruction(ExitReason::PAUSE, 2),
    ExitCause::Instruction(ExitReason::PREEMPTION_TIMER, 0),
];

/// Parts of an instruction that gaps between exits are counted in, so that they come at the rate
/// that is asked for where they are close.
const PARTS: f64 = 1024.0;
/// Longest gap, in such parts.
const LONGEST: u64 = 1 << 62;

/// What KVM does after an exit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Handling {
    /// So many of a million are handled in the fast path, if it can handle them.
    pub(super) fast_path: Option<u32>,
    /// So many of a million of the others go out to user space.
    pub(super) user_space: u32,
    /// After so many of a million of the others the thread sleeps.
    pub(super) sleeps: u32,
    /// For so many clocks.
    pub(super) sleep: u64,
    /// So many on average, from half to one and a half of it.
    pub(super) varies: bool,
}

/// Exits of one cause at one rate.
#[derive(Clone, Debug)]
pub(super) struct ExitKind {
    pub(super) cause: ExitCause,
    pub(super) handling: Handling,
    gap: Gap,
}

/// Instructions between two exits, on average.
#[derive(Clone, Copy, Debug)]
enum Gap {
    Whole(u64),
    Parts(u64),
}

impl ExitKind {
    /// Those of a vCPU.
    pub(super) fn of(scene: &Scene, spec: &VcpuSpec) -> Vec<Self> {
        let named = spec.exits.rates().into_iter().zip(CAUSES);
        let named = named.filter(|((_, rate), _)| *rate != 0);
        let named = named.map(|((_, rate), cause)| Self {
            cause,
            handling: Handling::of(scene, spec, cause),
            gap: Gap::Whole(1_000_000 / u64::from(rate)),
        });
        let listed = spec
            .exit
            .iter()
            .filter_map(|exit| Some((exit, exit_named(&exit.reason)?)));
        let listed = listed.map(|(exit, reason)| Self {
            cause: cause(reason),
            handling: Handling::listed(scene, exit),
            gap: Gap::Parts(((1e6 * PARTS / exit.per_million) as u64).min(LONGEST)),
        });
        named.chain(listed).collect()
    }

    /// The instruction count at which the next one is due.
    pub(super) fn due(&self, random: &mut Random, now: u64) -> u64 {
        match self.gap {
            Gap::Whole(mean) => now.saturating_add(random.gap(mean)),
            Gap::Parts(mean) => now.saturating_add((random.gap(mean) / PARTS as u64).max(1)),
        }
    }
}

/// What makes an exit with this reason.
fn cause(reason: ExitReason) -> ExitCause {
    match reason {
        ExitReason::EXTERNAL_INTERRUPT => ExitCause::ExternalInterrupt,
        ExitReason::EPT_VIOLATION => ExitCause::EptViolation,
        reason => {
            let known = CAUSES.iter().find(
                |cause| matches!(cause, ExitCause::Instruction(known, _) if *known == reason),
            );
            known.copied().unwrap_or(ExitCause::Instruction(reason, 0))
        }
    }
}

impl Handling {
    /// What the rates of a vCPU say of an exit, also of one that its trace makes: WRMSR of a timer
    /// or an IPI and the preemption timer have a fast path, and after HLT the thread sleeps.
    pub(super) fn of(scene: &Scene, spec: &VcpuSpec, cause: ExitCause) -> Self {
        let fast = matches!(
            cause,
            ExitCause::Instruction(ExitReason::WRMSR | ExitReason::PREEMPTION_TIMER, _)
        );
        let halts = matches!(cause, ExitCause::Instruction(ExitReason::HLT, _));
        Self {
            fast_path: fast.then_some(spec.exits.fast_path_per_million),
            user_space: spec.exits.user_space_per_million,
            sleeps: if halts { 1_000_000 } else { 0 },
            sleep: clocks(scene, scene.scheduling.halt_us),
            varies: false,
        }
    }

    fn listed(scene: &Scene, exit: &ExitSpec) -> Self {
        Self {
            fast_path: Some(exit.fast_path_per_million),
            user_space: exit.user_space_per_million,
            sleeps: exit.sleeps_per_million,
            sleep: clocks(scene, exit.sleep_us.unwrap_or(scene.scheduling.halt_us)),
            varies: exit.sleep_us.is_some(),
        }
    }
}
