//! Software swaps of the whole stack: at every exit and entry, or with the vCPU's load and put.

use serde::{Deserialize, Serialize};
use vlbr_arch::Msr;
use vlbr_cpu::ledger::{Actor, MsrAccess as _};
use vlbr_vmx::VmExit;

use super::Policy;
use super::offer::{self, Offer};
use super::rules::knob;
use crate::hardware::{LbrMsrs, LbrRegister};
use crate::kvm::{Access, Answer, Call, ExitLevel, Initiator, Operation, SavedStack, Spare};
use crate::machine::{Host, HostError};
use crate::perf::{Behaviour, GuestLbr};
use crate::{CpuId, VcpuId};

knob! {
    /// Where the stacks are swapped.
    SwapAt {
        /// At every VM exit and before every VM entry, the fast path included.
        Exit,
        /// At every VM exit that leaves the fast path, and before the entry that follows.
        RunLoop,
        /// When the vCPU is loaded and put.
        Put,
    }
}
knob! {
    /// Whose stacks are swapped.
    SwapWhom {
        /// The guest's; the host's too while its perf uses the LBR.
        HostIfUsed,
        /// The guest's alone: the host has none.
        GuestOnly,
    }
}

/// The knobs of a swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SwapRules {
    /// Where.
    pub at: SwapAt,
    /// Whose.
    pub whom: SwapWhom,
    /// LBR is offered to the guest; if not, only the cost of the swap is there.
    pub offered: bool,
}

/// All of the stack is read and written by software.
#[derive(Clone, Debug)]
pub struct SwapPolicy {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) rules: SwapRules,
}

impl SwapPolicy {
    /// A swap at every exit and entry.
    #[must_use]
    pub fn naive() -> Self {
        Self {
            name: "naive".to_owned(),
            title: "the whole stack is swapped by software at every exit and entry".to_owned(),
            rules: SwapRules {
                at: SwapAt::Exit,
                whom: SwapWhom::HostIfUsed,
                offered: true,
            },
        }
    }

    /// What a mediated vPMU would cost if it switched the LBR with the counters.
    #[must_use]
    pub fn mediated() -> Self {
        Self {
            name: "mediated-swap".to_owned(),
            title: "a mediated vPMU that would swap the stack at load and put".to_owned(),
            rules: SwapRules {
                at: SwapAt::Put,
                whom: SwapWhom::HostIfUsed,
                offered: true,
            },
        }
    }

    /// A swap of these rules.
    #[must_use]
    pub fn new(name: &str, title: &str, rules: SwapRules) -> Self {
        Self {
            name: name.to_owned(),
            title: title.to_owned(),
            rules,
        }
    }

    /// Its rules.
    #[must_use]
    pub const fn rules(&self) -> &SwapRules {
        &self.rules
    }

    fn offer(&self, host: &Host) -> Offer {
        Offer {
            starts_full: true,
            architectural: host.lbr_msrs().arch,
            ..Offer::default()
        }
    }

    fn swaps_host(&self, host: &Host, cpu: CpuId) -> bool {
        self.rules.whom == SwapWhom::HostIfUsed && host.perf().lbr_cpu(cpu).users() != 0
    }

    /// The guest's stack goes into memory; the host's comes back.
    fn save_guest(&self, host: &mut Host, call: Call) {
        let stack = host.vcpu_mut(call.vcpu).lbr.spare.0.take();
        let saved = save(host, call.cpu, stack.unwrap_or_default());
        host.vcpu_mut(call.vcpu).lbr.saved = saved.ok();
        if let Some(stack) = host.vcpu_mut(call.vcpu).lbr.host.take() {
            load(host, call.cpu, &stack);
        }
    }

    fn load_guest(&self, host: &mut Host, call: Call) {
        if self.swaps_host(host, call.cpu) {
            let saved = save(host, call.cpu, SavedStack::default());
            host.vcpu_mut(call.vcpu).lbr.host = saved.ok();
        }
        // The guest's first stack is empty.
        let stack = host
            .vcpu_mut(call.vcpu)
            .lbr
            .saved
            .take()
            .unwrap_or_default();
        load(host, call.cpu, &stack);
        host.vcpu_mut(call.vcpu).lbr.spare = Spare(Some(stack));
    }

    /// User space finds the guest's stack where it is kept: in memory, or on the processor between
    /// load and put.
    fn by_user(&self, host: &mut Host, call: Call, access: Access) -> Answer {
        let msrs = *host.lbr_msrs();
        let Some(register) = Host::named(host.vcpu(call.vcpu).lbr.msrs.as_ref(), access.msr) else {
            return Answer::Unknown;
        };
        if self.rules.at == SwapAt::Put {
            return host.access_hardware(call, access);
        }
        if let Operation::Write(value) = access.operation {
            // What the processor would not take cannot be loaded before entry either.
            let mut fresh = host.hardware().fresh().clone();
            if fresh.wrmsr(access.msr, value.value).is_err() {
                return Answer::Refused;
            }
        }
        let saved = &mut host.vcpu_mut(call.vcpu).lbr.saved;
        access_saved(saved.get_or_insert_default(), &msrs, register, access)
    }

    fn swaps(&self, host: &Host, vcpu: VcpuId, at: SwapAt) -> bool {
        let on = !self.rules.offered || host.vcpu(vcpu).lbr.msrs.is_some();
        on && self.rules.at == at
    }
}

/// An access to a register of a stack that is kept in memory.
pub(super) fn access_saved(
    stack: &mut SavedStack,
    msrs: &LbrMsrs,
    register: LbrRegister,
    access: Access,
) -> Answer {
    let kept = match register {
        LbrRegister::Tos => Some(&mut stack.tos),
        LbrRegister::Filter if msrs.select.is_some() => Some(&mut stack.filter),
        LbrRegister::Entry(word, n) => {
            let mut entry = stack.entries.entry(n);
            return match access.operation {
                Operation::Read => Answer::Value(entry.get(word)),
                Operation::Write(value) => {
                    entry.set(word, value);
                    stack.entries.set_entry(n, entry);
                    Answer::Done
                }
            };
        }
        _ => None,
    };
    match (kept, access.operation) {
        (None, _) => Answer::Unknown,
        (Some(kept), Operation::Read) => Answer::Value(*kept),
        (Some(kept), Operation::Write(value)) => {
            *kept = value;
            Answer::Done
        }
    }
}

/// TOS, the filter, then every entry by slot: N * E + 2 reads of a legacy part with SELECT.
fn save(host: &mut Host, cpu: CpuId, mut stack: SavedStack) -> Result<SavedStack, HostError> {
    let msrs = *host.lbr_msrs();
    let actor = Actor::WorldSwitch;
    if let Some(tos) = msrs.tos {
        stack.tos = host.rdmsr(cpu, actor, tos)?;
    }
    if let Some(filter) = msrs.select {
        stack.filter = host.rdmsr(cpu, actor, filter)?;
    }
    let (processor, _, ledger) = host.hardware_mut().split(cpu);
    processor.read_stack(ledger, actor, &mut stack.entries)?;
    Ok(stack)
}

/// The same back. A value that was read from the processor never faults when it is written.
fn load(host: &mut Host, cpu: CpuId, stack: &SavedStack) {
    let msrs = *host.lbr_msrs();
    let actor = Actor::WorldSwitch;
    let (processor, _, ledger) = host.hardware_mut().split(cpu);
    let mut done = processor.write_stack(ledger, actor, &stack.entries);
    for (msr, value) in [(msrs.select, stack.filter), (msrs.tos, stack.tos)] {
        if let Some(msr) = msr {
            done = done.and(processor.wrmsr(ledger, actor, msr, value));
        }
    }
    debug_assert!(done.is_ok(), "{done:?}");
}

impl Policy for SwapPolicy {
    fn name(&self) -> &str {
        &self.name
    }

    fn title(&self) -> &str {
        &self.title
    }

    fn adjust(&self, behaviour: &mut Behaviour) {
        behaviour.guest_lbr = GuestLbr::None;
    }

    fn swaps_stacks(&self) -> bool {
        true
    }

    fn refresh(&self, host: &mut Host, vcpu: VcpuId) {
        if self.rules.offered {
            self.offer(host).refresh(host, vcpu);
            // The guest's registers are its own whenever it runs.
            host.set_passthrough(vcpu, true);
        }
    }

    fn access(&self, host: &mut Host, call: Call, access: Access) -> Answer {
        if !self.rules.offered {
            return offer::without_lbr(host, call, access);
        }
        let offer = self.offer(host);
        match access.msr {
            Msr::PERF_CAPABILITIES => {
                let answer = offer.capabilities(host, call, access);
                host.set_passthrough(call.vcpu, true);
                answer
            }
            Msr::DEBUGCTL => offer.debugctl(host, call, access),
            _ if call.initiator == Initiator::UserSpace => self.by_user(host, call, access),
            _ => Answer::Unknown,
        }
    }

    fn before_entry(&self, host: &mut Host, call: Call) {
        let loaded = host.vcpu(call.vcpu).lbr.armed;
        if !loaded
            && (self.swaps(host, call.vcpu, SwapAt::Exit)
                || self.swaps(host, call.vcpu, SwapAt::RunLoop))
        {
            self.load_guest(host, call);
            host.vcpu_mut(call.vcpu).lbr.armed = true;
        }
    }

    fn after_exit(&self, host: &mut Host, call: Call, _: &VmExit, level: ExitLevel) {
        let leaves = level != ExitLevel::FastPath;
        let swaps = self.swaps(host, call.vcpu, SwapAt::Exit)
            || leaves && self.swaps(host, call.vcpu, SwapAt::RunLoop);
        if swaps && host.vcpu(call.vcpu).lbr.armed {
            self.save_guest(host, call);
            host.vcpu_mut(call.vcpu).lbr.armed = false;
        }
    }

    fn load(&self, host: &mut Host, call: Call) {
        if self.swaps(host, call.vcpu, SwapAt::Put) {
            self.load_guest(host, call);
        }
    }

    fn put(&self, host: &mut Host, call: Call) {
        if self.swaps(host, call.vcpu, SwapAt::Put) {
            self.save_guest(host, call);
        }
    }

    fn pmi(&self, host: &mut Host, call: Call) {
        offer::freeze_at_virtual_pmi(host, call.vcpu);
    }

    fn nested_debugctl(&self, host: &mut Host, call: Call, value: u64) -> Option<u64> {
        let offer = self.offer(host);
        offer.valid_debugctl(host, call.vcpu, value, false)
    }

    fn reset(&self, host: &mut Host, vcpu: VcpuId) {
        host.vcpu_mut(vcpu).lbr.saved = None;
    }
}
