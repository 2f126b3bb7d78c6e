//! The routines of a guest kernel that uses the LBR, in the order of accesses in which Linux makes
//! them: `intel_pmu_handle_irq`, `intel_pmu_lbr_read`, `__intel_pmu_lbr_enable` and
//! `intel_pmu_lbr_reset` of arch/x86/events/intel/{core,lbr}.c.

use vlbr_arch::{DebugCtl, LbrCtl, Msr};
use vlbr_lbr::{Interface, Profile};

use super::draft::{Decide, Draft, Drafts, Ending, Label};
use super::fragment::{Access, Fragment};
use super::spec::LbrUse;

/// Fixed counter 0 counts at every level and interrupts.
const COUNT_INSTRUCTIONS: u64 = 0xb;
/// Its enable in `IA32_PERF_GLOBAL_CTRL`, its overflow in `IA32_PERF_GLOBAL_STATUS`.
const FIXED_0: u64 = 1 << 32;
/// The LBR is frozen, as `IA32_PERF_GLOBAL_STATUS` says it from perfmon version 4 on.
const LBRS_FROZEN: u64 = 1 << 58;

/// First blocks of the routines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Routines {
    pub(super) start: usize,
    pub(super) read: usize,
    pub(super) stop: usize,
}

struct Registers {
    depth: u32,
    from: u32,
    to: u32,
    info: Option<u32>,
    arch: bool,
    version: u8,
}

fn registers(profile: &Profile) -> Registers {
    let version = profile.perfmon_version();
    match profile.interface() {
        Interface::Legacy(legacy) => Registers {
            depth: legacy.depth,
            from: legacy.from.value(),
            to: legacy.to.value(),
            info: legacy.info.map(Msr::value),
            arch: false,
            version,
        },
        Interface::Arch(_) => Registers {
            depth: profile.max_depth(),
            from: Msr::LBR_0_FROM_IP.value(),
            to: Msr::LBR_0_TO_IP.value(),
            info: Some(Msr::LBR_0_INFO.value()),
            arch: true,
            version,
        },
    }
}

/// Writes the routines. `runs` is how often a read, and a session, is expected in the unit of weight.
pub(super) fn write(drafts: &mut Drafts, usage: &LbrUse, runs: (f64, f64)) -> Option<Routines> {
    // A checked spec names a profile.
    let profile = Profile::named(&usage.cpu).ok()?;
    let registers = registers(profile);
    let selectable = registers.arch || registers.has_select(profile);
    let routine = Routine {
        usage,
        registers,
        selectable,
    };
    let (reads, sessions) = runs;
    Some(Routines {
        start: routine.start(drafts, sessions),
        read: routine.read(drafts, reads),
        stop: routine.stop(drafts, sessions),
    })
}

impl Registers {
    fn has_select(&self, profile: &Profile) -> bool {
        match profile.interface() {
            Interface::Legacy(legacy) => legacy.select != vlbr_lbr::SelectLayout::None,
            Interface::Arch(_) => false,
        }
    }

    /// Registers of the stack, each the first of `depth`.
    fn stack(&self) -> impl Iterator<Item = u32> {
        [Some(self.from), Some(self.to), self.info]
            .into_iter()
            .flatten()
    }
}

struct Routine<'a> {
    usage: &'a LbrUse,
    registers: Registers,
    selectable: bool,
}

impl Routine<'_> {
    fn push(drafts: &mut Drafts, own: Fragment, ending: Ending<Label>, weight: f64) -> usize {
        drafts.push(Draft::of(own, ending, weight))
    }

    fn name(drafts: &mut Drafts, block: usize, name: &str) -> usize {
        drafts.blocks[block].name = Some(name.to_owned());
        block
    }

    /// Switches recording on or off.
    fn control(&self, code: &mut Fragment, on: bool) {
        if self.registers.arch {
            let filter = if self.usage.select == 0 {
                (LbrCtl::OS | LbrCtl::USR).bits() | ALL_BRANCHES
            } else {
                self.usage.select & !LbrCtl::LBR_EN.bits()
            };
            let enable = if on { LbrCtl::LBR_EN.bits() } else { 0 };
            code.write(Msr::LBR_CTL.value(), filter | enable);
            return;
        }
        code.read(Msr::DEBUGCTL.value());
        let bits = (DebugCtl::LBR | DebugCtl::FREEZE_LBRS_ON_PMI).bits();
        code.write(Msr::DEBUGCTL.value(), if on { bits } else { 0 });
    }

    /// Counts on from `period` events before the overflow.
    fn reload(&self, code: &mut Fragment) {
        let value = self.usage.period.wrapping_neg() & ((1 << 47) - 1);
        code.write(Msr::FIXED_CTR0.value(), value);
    }

    /// A session begins: the stack is cleared, filter and counter are set.
    fn start(&self, drafts: &mut Drafts, weight: f64) -> usize {
        let depth = f64::from(self.registers.depth);
        let mut code = Fragment::default();
        code.push(&[0x50]); // push rax
        if self.usage.counter {
            code.write(Msr::PERF_GLOBAL_CTRL.value(), 0);
        }
        if self.registers.arch {
            // Writing the depth clears the stack.
            code.write(Msr::LBR_DEPTH.value(), self.registers.depth.into());
        }
        code.push(&[0x31, 0xdb]); // xor ebx, ebx
        let first = Self::push(drafts, code, Ending::Sequential, weight);
        if !self.registers.arch {
            let mut clear = Fragment::default();
            for base in self.registers.stack() {
                clear.indexed(base);
                clear.access(&[0x0f, 0x30], Access::ClearIndexed(base));
            }
            clear.push(&[0xff, 0xc3]); // inc ebx
            clear.push(&[0x83, 0xfb, self.registers.depth as u8]); // cmp ebx, depth
            self.passes(drafts, clear, weight * depth);
        }
        let mut code = Fragment::default();
        if self.selectable && !self.registers.arch {
            code.write(Msr::LBR_SELECT.value(), self.usage.select);
        }
        self.control(&mut code, true);
        if self.usage.counter {
            code.write(Msr::FIXED_CTR_CTRL.value(), COUNT_INSTRUCTIONS);
            self.reload(&mut code);
            code.write(Msr::PERF_GLOBAL_CTRL.value(), FIXED_0);
        }
        code.push(&[0x58]); // pop rax
        Self::push(drafts, code, Ending::InterruptReturn, weight);
        Self::name(drafts, first, "lbr_start")
    }

    /// A loop over the stack.
    fn passes(&self, drafts: &mut Drafts, code: Fragment, weight: f64) {
        let at = drafts.next();
        let ending = Ending::Conditional {
            target: Label::Block(at),
            decide: Decide::Count(self.registers.depth),
        };
        Self::push(drafts, code, ending, weight);
    }

    /// The handler that reads the stack.
    fn read(&self, drafts: &mut Drafts, weight: f64) -> usize {
        let mut code = Fragment::default();
        code.push(&[0x50]); // push rax
        if self.usage.counter {
            code.write(Msr::PERF_GLOBAL_CTRL.value(), 0);
            code.read(Msr::PERF_GLOBAL_STATUS.value());
        } else {
            self.control(&mut code, false);
        }
        if !self.registers.arch {
            code.read(Msr::LASTBRANCH_TOS.value());
        }
        code.push(&[0x31, 0xdb]); // xor ebx, ebx
        let first = Self::push(drafts, code, Ending::Sequential, weight);
        let mut each = Fragment::default();
        for base in self.registers.stack() {
            each.indexed(base);
            each.access(&[0x0f, 0x32], Access::ReadIndexed(base));
            each.push(&[0x89, 0x43, 0x10]); // mov [rbx + 16], eax
        }
        each.push(&[0xff, 0xc3]); // inc ebx
        each.push(&[0x83, 0xfb, self.registers.depth as u8]); // cmp ebx, depth
        self.passes(drafts, each, weight * f64::from(self.registers.depth));
        let mut code = Fragment::default();
        if self.usage.counter {
            let frozen = if self.registers.version < 4 {
                0
            } else {
                LBRS_FROZEN
            };
            code.write(Msr::PERF_GLOBAL_OVF_CTRL.value(), FIXED_0 | frozen);
            self.reload(&mut code);
            // From perfmon version 4 on the acknowledgement sets the LBR free; before, the PMI
            // cleared the enable.
            if self.registers.version < 4 && !self.registers.arch {
                self.control(&mut code, true);
            }
            code.write(Msr::PERF_GLOBAL_CTRL.value(), FIXED_0);
        } else {
            self.control(&mut code, true);
        }
        code.push(&[0x58]); // pop rax
        Self::push(drafts, code, Ending::InterruptReturn, weight);
        Self::name(drafts, first, "lbr_read")
    }

    /// A session ends.
    fn stop(&self, drafts: &mut Drafts, weight: f64) -> usize {
        let mut code = Fragment::default();
        code.push(&[0x50]); // push rax
        if self.usage.counter {
            code.write(Msr::PERF_GLOBAL_CTRL.value(), 0);
        }
        self.control(&mut code, false);
        code.push(&[0x58]); // pop rax
        let first = Self::push(drafts, code, Ending::InterruptReturn, weight);
        Self::name(drafts, first, "lbr_stop")
    }
}

/// The filter bits of every class of branch.
const ALL_BRANCHES: u64 = 0x7f << 16;
