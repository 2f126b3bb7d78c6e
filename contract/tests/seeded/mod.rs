//! Faults that are put into a policy, one for each rule of the contract.

use std::sync::Arc;

use vlbr_arch::{DebugCtl, Msr};
use vlbr_contract::ContractRule;
use vlbr_cpu::ledger::Actor;
use vlbr_host::hardware::LbrRegister;
use vlbr_host::kvm::{Access, Answer, Call, ExitLevel, Initiator, LbrStack, Note, Operation};
use vlbr_host::machine::Host;
use vlbr_host::perf::{Behaviour, Errno, EventAttr, KernelVersion};
use vlbr_host::policy::{Policy, Standing};
use vlbr_host::{Owned, VcpuId, VmId};
use vlbr_vmx::VmExit;

/// States up to which a scene is explored: all of them, under the policy without a fault.
pub(crate) const STATES: usize = 4000;

type Base<'a> = &'a dyn Policy;
type Hook = fn(Base<'_>, &mut Host, Call);

/// What is done in place of a policy's own hooks; each is given that policy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hooks {
    pub(crate) adjust: fn(Base<'_>, &mut Behaviour),
    pub(crate) access: fn(Base<'_>, &mut Host, Call, Access) -> Answer,
    pub(crate) before_entry: Hook,
    pub(crate) after_exit: Hook,
    pub(crate) load: Hook,
    pub(crate) put: Hook,
    pub(crate) reset: fn(Base<'_>, &mut Host, VcpuId),
}

/// The policy's own, without a fault.
pub(crate) const HOOKS: Hooks = Hooks {
    adjust: |base, behaviour| base.adjust(behaviour),
    access: |base, host, call, access| base.access(host, call, access),
    before_entry: |base, host, call| base.before_entry(host, call),
    // Behind the policy's own, which is called by the wrapper.
    after_exit: |_, _, _| {},
    load: |base, host, call| base.load(host, call),
    put: |base, host, call| base.put(host, call),
    reset: |base, host, vcpu| base.reset(host, vcpu),
};

/// A policy with some of its hooks replaced.
#[derive(Debug)]
pub(crate) struct Faulty {
    base: Arc<dyn Policy>,
    hooks: Hooks,
}

impl Faulty {
    pub(crate) fn new(base: Arc<dyn Policy>, hooks: Hooks) -> Self {
        Self { base, hooks }
    }
}

impl Policy for Faulty {
    fn name(&self) -> &str {
        "faulty"
    }

    fn title(&self) -> &str {
        "a policy with a fault"
    }

    fn kernel(&self) -> Option<KernelVersion> {
        self.base.kernel()
    }

    fn adjust(&self, behaviour: &mut Behaviour) {
        (self.hooks.adjust)(&*self.base, behaviour);
    }

    fn is_yardstick(&self) -> bool {
        self.base.is_yardstick()
    }

    fn standing(&self) -> Standing {
        self.base.standing()
    }

    fn is_architectural(&self) -> bool {
        self.base.is_architectural()
    }

    fn swaps_stacks(&self) -> bool {
        self.base.swaps_stacks()
    }

    fn refresh(&self, host: &mut Host, vcpu: VcpuId) {
        self.base.refresh(host, vcpu);
    }

    fn access(&self, host: &mut Host, call: Call, access: Access) -> Answer {
        (self.hooks.access)(&*self.base, host, call, access)
    }

    fn nested_debugctl(&self, host: &mut Host, call: Call, value: u64) -> Option<u64> {
        self.base.nested_debugctl(host, call, value)
    }

    fn before_entry(&self, host: &mut Host, call: Call) {
        (self.hooks.before_entry)(&*self.base, host, call);
    }

    fn after_exit(&self, host: &mut Host, call: Call, exit: &VmExit, level: ExitLevel) {
        self.base.after_exit(host, call, exit, level);
        (self.hooks.after_exit)(&*self.base, host, call);
    }

    fn load(&self, host: &mut Host, call: Call) {
        (self.hooks.load)(&*self.base, host, call);
    }

    fn put(&self, host: &mut Host, call: Call) {
        (self.hooks.put)(&*self.base, host, call);
    }

    fn sched_in(&self, host: &mut Host, call: Call) {
        self.base.sched_in(host, call);
    }

    fn sched_out(&self, host: &mut Host, call: Call) {
        self.base.sched_out(host, call);
    }

    fn reclaim(&self, host: &mut Host, call: Call) {
        self.base.reclaim(host, call);
    }

    fn pmi(&self, host: &mut Host, call: Call) {
        self.base.pmi(host, call);
    }

    fn reset(&self, host: &mut Host, vcpu: VcpuId) {
        (self.hooks.reset)(&*self.base, host, vcpu);
    }

    fn check_capability(&self, host: &Host) -> u32 {
        self.base.check_capability(host)
    }

    fn enable_capability(
        &self,
        host: &mut Host,
        vm: VmId,
        enable: bool,
        pointer_is_good: bool,
    ) -> Result<LbrStack, Errno> {
        let base = &self.base;
        base.enable_capability(host, vm, enable, pointer_is_good)
    }

    fn listed(&self, host: &Host) -> Vec<Msr> {
        self.base.listed(host)
    }
}

/// A fault in `mediated-lazy`, and what it is found by.
#[derive(Debug)]
pub(crate) struct Seed {
    pub(crate) rule: ContractRule,
    /// In words.
    pub(crate) fault: &'static str,
    /// A scene in which `mediated-lazy` keeps every rule.
    pub(crate) scene: &'static str,
    /// Actions of the shortest path that breaks the rule.
    pub(crate) actions: usize,
    pub(crate) hooks: Hooks,
}

/// In the order of the rules.
pub(crate) const SEEDS: &[Seed] = &[
    Seed {
        rule: ContractRule::GuestReadsOwn,
        fault: "an access of the guest goes to the registers without its stack being loaded",
        scene: "registers-pinned-cpu",
        actions: 4,
        hooks: Hooks {
            access: |base, host, call, access| match of_guest(host, call, access) {
                true => host.access_hardware(call, access),
                false => base.access(host, call, access),
            },
            ..HOOKS
        },
    },
    Seed {
        rule: ContractRule::HostReadsOwn,
        fault: "a guest that begins to record does not borrow the LBR",
        scene: "records-pinned-cpu",
        actions: 5,
        hooks: Hooks {
            access: |base, host, call, access| match recording(call, access) {
                Some(value) => {
                    written(host, call.vcpu, value);
                    Answer::Done
                }
                None => base.access(host, call, access),
            },
            before_entry: |_, _, _| {},
            ..HOOKS
        },
    },
    Seed {
        rule: ContractRule::RecordsKept,
        fault: "a vCPU that is put leaves its stack to nobody, where it should stay cached",
        scene: "records-pinned-cpu",
        actions: 5,
        hooks: Hooks {
            put: |base, host, call| {
                host.perf_mut().0.guest_lbr_drop(call.vcpu);
                base.put(host, call);
            },
            ..HOOKS
        },
    },
    Seed {
        rule: ContractRule::OwnProcessor,
        fault: "a stack that is in memory comes back without SELECT",
        scene: "registers-pinned-cpu",
        actions: 8,
        hooks: Hooks {
            load: |base, host, call| {
                let perf = host.perf_mut().0;
                if perf.guest_lbr(call.vcpu).is_some() {
                    perf.guest_lbr_mut(call.vcpu).filter = Owned::CLEARED;
                }
                base.load(host, call);
            },
            ..HOOKS
        },
    },
    Seed {
        rule: ContractRule::ServedAlone,
        fault: "an access of a guest whose stack is in memory gives `#GP`",
        scene: "registers-pinned-cpu",
        actions: 8,
        hooks: Hooks {
            access: |base, host, call, access| {
                let saved = host.perf().guest_lbr(call.vcpu).is_some();
                match saved && of_guest(host, call, access) {
                    true => Answer::Refused,
                    false => base.access(host, call, access),
                }
            },
            ..HOOKS
        },
    },
    Seed {
        rule: ContractRule::ServedBeside,
        fault: "an access of a guest gives `#GP` while an event with a branch stack is open",
        scene: "records-pinned-cpu",
        actions: 4,
        hooks: Hooks {
            access: |base, host, call, access| match rival(host) && of_guest(host, call, access) {
                true => Answer::Refused,
                false => base.access(host, call, access),
            },
            ..HOOKS
        },
    },
    Seed {
        rule: ContractRule::HostKeepsOff,
        fault: "every VM exit reads an entry",
        scene: "records-pinned-cpu",
        actions: 4,
        hooks: Hooks {
            after_exit: reads_an_entry,
            ..HOOKS
        },
    },
    Seed {
        rule: ContractRule::PassThroughWhereActive,
        fault: "the check before VM entry leaves a pass-through open that it should close",
        scene: "registers-pinned-cpu",
        actions: 7,
        hooks: Hooks {
            before_entry: |base, host, call| {
                let open = host.vcpu(call.vcpu).lbr.open;
                base.before_entry(host, call);
                if open {
                    host.set_passthrough(call.vcpu, true);
                }
            },
            ..HOOKS
        },
    },
    Seed {
        rule: ContractRule::ReferencesReturn,
        fault: "what deleting an event counts back goes by the filter that was added last, as in the kernel",
        scene: "two-filters",
        actions: 5,
        hooks: Hooks {
            adjust: |base, behaviour| {
                let kernel = behaviour.callstack_users_by_event;
                base.adjust(behaviour);
                behaviour.callstack_users_by_event = kernel;
            },
            ..HOOKS
        },
    },
    Seed {
        rule: ContractRule::HostRecords,
        fault: "recording makes the event of upstream, which perf does not arbitrate, and borrows nothing",
        scene: "pmi-lbr",
        actions: 6,
        hooks: Hooks {
            adjust: |base, behaviour| {
                let upstream = behaviour.guest_lbr;
                base.adjust(behaviour);
                behaviour.guest_lbr = upstream;
            },
            access: makes_an_event,
            before_entry: |_, _, _| {},
            ..HOOKS
        },
    },
    Seed {
        rule: ContractRule::Recoverable,
        fault: "a guest that met an event with a branch stack is refused from then on",
        scene: "records-pinned-cpu",
        actions: 6,
        hooks: Hooks {
            access: |base, host, call, access| {
                if !of_guest(host, call, access) && recording(call, access).is_none() {
                    return base.access(host, call, access);
                }
                let met = rival(host);
                let refused = &mut host.vcpu_mut(call.vcpu).lbr.words[3];
                *refused |= u64::from(met);
                match *refused {
                    0 => base.access(host, call, access),
                    _ => Answer::Refused,
                }
            },
            ..HOOKS
        },
    },
    Seed {
        rule: ContractRule::OneExitASlice,
        fault: "an access is served and the pass-through stays closed",
        scene: "records-pinned-cpu",
        actions: 4,
        hooks: Hooks {
            access: |base, host, call, access| {
                let answer = base.access(host, call, access);
                host.set_passthrough(call.vcpu, false);
                answer
            },
            ..HOOKS
        },
    },
    Seed {
        rule: ContractRule::UnusedCostsNothing,
        fault: "a stack is loaded and saved with its vCPU, used or not",
        scene: "records-pinned-cpu",
        actions: 1,
        hooks: Hooks {
            load: |base, host, call| {
                base.load(host, call);
                let (perf, hardware) = host.perf_mut();
                perf.guest_lbr_load(hardware, call.cpu, call.vcpu);
            },
            put: |base, host, call| {
                base.put(host, call);
                let (perf, hardware) = host.perf_mut();
                perf.guest_lbr_flush(hardware, call.cpu);
            },
            ..HOOKS
        },
    },
    Seed {
        rule: ContractRule::NoWarningEachEntry,
        fault: "VM entry warns when the registers do not pass",
        scene: "records-pinned-cpu",
        actions: 2,
        hooks: Hooks {
            before_entry: |base, host, call| {
                base.before_entry(host, call);
                if !host.vcpu(call.vcpu).lbr.open {
                    host.note(call.vcpu, Note::Warned);
                }
            },
            ..HOOKS
        },
    },
    Seed {
        rule: ContractRule::HostComesBack,
        fault: "a vCPU that is put does not give the LBR back",
        scene: "records-pinned-cpu",
        actions: 6,
        hooks: Hooks {
            put: |_, _, _| {},
            ..HOOKS
        },
    },
];

/// A guest that begins to record has the event of upstream, and nothing is borrowed for it.
fn makes_an_event(base: Base<'_>, host: &mut Host, call: Call, access: Access) -> Answer {
    let Some(value) = recording(call, access) else {
        return base.access(host, call, access);
    };
    written(host, call.vcpu, value);
    let made = host.create_lbr_event(call, EventAttr::VIRTUAL_GUEST_LBR);
    made.map_or(Answer::Refused, |()| Answer::Done)
}

/// As no code of the kernel does.
pub(crate) fn reads_an_entry(_: Base<'_>, host: &mut Host, call: Call) {
    let first = Msr::new(0x680);
    // What it reads is of no interest.
    let _ = host.hardware_mut().rdmsr(call.cpu, Actor::Host, first);
}

/// The guest accesses an entry, TOS or the filter.
fn of_guest(host: &Host, call: Call, access: Access) -> bool {
    let register = host.lbr_msrs().register(access.msr);
    let passable = matches!(
        register,
        Some(LbrRegister::Entry(..) | LbrRegister::Tos | LbrRegister::Filter)
    );
    passable && call.initiator == Initiator::Guest
}

/// What the guest writes into `IA32_DEBUGCTL` to record.
fn recording(call: Call, access: Access) -> Option<u64> {
    let Operation::Write(value) = access.operation else {
        return None;
    };
    let debugctl = access.msr == Msr::DEBUGCTL && call.initiator == Initiator::Guest;
    let records = value.value & DebugCtl::LBR.bits() != 0;
    (debugctl && records).then_some(value.value)
}

fn written(host: &mut Host, vcpu: VcpuId, value: u64) {
    let written = host.write_guest_debugctl(vcpu, value);
    assert!(written.is_ok(), "{written:?}");
}

/// Whether an event of the host that asks for branches is open.
fn rival(host: &Host) -> bool {
    let mut events = host.perf().events();
    events.any(|(_, event)| event.attr().branch_sample_type.is_some())
}
