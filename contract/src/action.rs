//! What may happen in a scene.

use vlbr_arch::vmx::ExitReason;
use vlbr_arch::{BranchClass, Cpl, Cycles, DebugCtl, Msr, Transfer};
use vlbr_host::hardware::{Running, Word};
use vlbr_host::kvm::{ExitLevel, Place};
use vlbr_host::machine::{ExitCause, FastPath, Input, Machine};
use vlbr_host::perf::{EventId, EventState};
use vlbr_pmu::Increments;

use crate::scene::{Scene, Start};

/// What a guest writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Write {
    /// `IA32_DEBUGCTL.LBR`.
    DebugCtlLbr,
    /// 0 to `IA32_DEBUGCTL`.
    DebugCtlZero,
    /// 1 to `MSR_LBR_SELECT`.
    Select,
}

impl Write {
    const ALL: [Self; 3] = [Self::DebugCtlLbr, Self::DebugCtlZero, Self::Select];

    const fn access(self) -> (Msr, u64) {
        match self {
            Self::DebugCtlLbr => (Msr::DEBUGCTL, DebugCtl::LBR.bits()),
            Self::DebugCtlZero => (Msr::DEBUGCTL, 0),
            Self::Select => (Msr::LBR_SELECT, 1),
        }
    }
}

/// Something that may happen next. The order is that in which paths of one length are preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// `KVM_RUN` begins.
    Run,
    /// VM entry.
    Enter,
    /// The guest writes an MSR.
    GuestWrite(Write),
    /// The guest reads `MSR_LBR_SELECT`.
    ReadSelect,
    /// The guest reads FROM of the entry that TOS names.
    ReadYoungest,
    /// Whoever runs on the processor branches.
    Branch,
    /// The host's event is opened.
    Open,
    /// It is closed.
    Close,
    /// It is enabled.
    Enable,
    /// It is disabled.
    Disable,
    /// The rotation timer of perf.
    Rotate,
    /// HLT exits.
    Exit,
    /// `KVM_RUN` returns.
    Leave,
    /// The vCPU's thread gets the processor.
    SwitchIn,
    /// The processor idles.
    SwitchOut,
    /// The idle processor goes through a deep C-state.
    DeepCState,
    /// The vCPU is reset.
    Reset,
}

impl Action {
    /// What may happen now, in order.
    pub(crate) fn enabled(
        machine: &Machine,
        rival: Option<EventId>,
        budget: [u8; 3],
        into: &mut Vec<Self>,
    ) {
        let host = machine.host();
        let on = host.current(Scene::CPU) == Some(Scene::THREAD);
        let place = host.vcpu(Scene::VCPU).place;
        let guest = place == Place::Guest;
        let event = rival.and_then(|rival| host.perf().event(rival));
        let off = event.is_some_and(|event| event.state() == EventState::Off);
        // The rest takes an event that is enabled already; it is what user space may do at ERROR.
        let error = event.is_some_and(|event| event.state() == EventState::Error);
        let mut add = |when: bool, action| {
            if when {
                into.push(action);
            }
        };
        add(on && place == Place::UserSpace, Self::Run);
        add(place == Place::Kernel, Self::Enter);
        for write in Write::ALL {
            add(guest, Self::GuestWrite(write));
        }
        add(guest, Self::ReadSelect);
        add(guest, Self::ReadYoungest);
        add(
            budget[usize::from(!guest)] != 0 && records(machine),
            Self::Branch,
        );
        add(rival.is_none() && budget[2] != 0, Self::Open);
        add(rival.is_some(), Self::Close);
        add((off || error) && budget[2] != 0, Self::Enable);
        add(rival.is_some() && !off, Self::Disable);
        add(true, Self::Rotate);
        add(guest, Self::Exit);
        add(place == Place::Kernel, Self::Leave);
        add(!on, Self::SwitchIn);
        add(on, Self::SwitchOut);
        add(!on, Self::DeepCState);
        add(!guest, Self::Reset);
    }

    /// Whether it is the guest's first step to what it has to get back.
    pub(crate) fn asks_for_lbr(self) -> bool {
        self == Self::GuestWrite(Write::Select)
    }

    /// The host's input and the same as a step of a scenario, up to what it leads to. `opened` is
    /// how many events the path has opened.
    pub(crate) fn input(
        self,
        start: &Start,
        machine: &Machine,
        rival: Option<EventId>,
        opened: u32,
    ) -> (Input, String) {
        let (cpu, vcpu) = (Scene::CPU, Scene::VCPU);
        let event = rival.unwrap_or(EventId(u32::MAX));
        let name = format!("h{}", opened.saturating_sub(1));
        let (input, text) = match self {
            Self::Run => (Input::Run(vcpu), "run v0"),
            Self::Enter => (Input::Enter(vcpu, FastPath::No), "enter v0"),
            Self::GuestWrite(write) => {
                let (msr, value) = write.access();
                let input = Input::GuestWrite(vcpu, msr, value, Cpl::Ring0);
                return (input, format!("guest v0 wrmsr {msr} {value:#x}"));
            }
            Self::ReadSelect => {
                let msr = Msr::LBR_SELECT;
                let input = Input::GuestRead(vcpu, msr, Cpl::Ring0);
                return (input, format!("guest v0 rdmsr {msr}"));
            }
            Self::ReadYoungest => {
                let processor = machine.host().hardware().cpu(cpu);
                let tos = processor.logical().lbr().tos() as u32;
                let msr = processor.lbr_msrs().entry(Word::From, tos);
                let input = Input::GuestRead(vcpu, msr.unwrap_or(Msr::LBR_SELECT), Cpl::Ring0);
                return (input, format!("guest v0 rdmsr FROM[{tos}]"));
            }
            Self::Branch => return branch(machine),
            Self::Open => {
                let input = Input::Open(
                    start.rival.clone(),
                    start.target,
                    vlbr_host::perf::Creator::User,
                    None,
                );
                return (input, format!("event h{opened} {}", start.event_text));
            }
            Self::Close => return (Input::Close(event), format!("close {name}")),
            Self::Enable => return (Input::Enable(event), format!("enable {name}")),
            Self::Disable => return (Input::Disable(event), format!("disable {name}")),
            Self::Rotate => (Input::Rotate(cpu), "rotate cpu0"),
            Self::Exit => {
                let cause = ExitCause::Instruction(ExitReason::HLT, 1);
                (Input::Exit(vcpu, cause, ExitLevel::RunLoop), "exit v0 hlt")
            }
            Self::Leave => (Input::Leave(vcpu), "leave v0"),
            Self::SwitchIn => (Input::Switch(cpu, Some(Scene::THREAD)), "switch cpu0 v0"),
            Self::SwitchOut => (Input::Switch(cpu, None), "switch cpu0 idle"),
            Self::DeepCState => (Input::DeepCState(cpu), "c6 cpu0"),
            Self::Reset => (Input::Reset(vcpu), "reset v0"),
        };
        (input, text.to_owned())
    }
}

/// Whether a branch leaves something anywhere: in the processor's LBR, or in that of a processor of
/// the guest's own.
fn records(machine: &Machine) -> bool {
    !machine.is_quiet(Scene::CPU)
}

/// The guest in user mode, or the host's kernel.
fn branch(machine: &Machine) -> (Input, String) {
    let processor = machine.host().hardware().cpu(Scene::CPU);
    let (from, to, cpl, level) = match processor.running() {
        Running::Guest(_) => (0x40_1000, 0x40_2000, Cpl::Ring3, ""),
        Running::Host(_) => (0x50_1000, 0x50_2000, Cpl::Ring0, " kernel"),
    };
    let class = BranchClass::NearRelJmp;
    let run = Increments::branch(class, true, false, cpl);
    let transfer = Transfer::near(class, from, to, cpl);
    let input = Input::Retire(Scene::CPU, Box::new((run, Some(transfer))), Cycles::new(0));
    let text = format!("on cpu0 jmp rel {from:#x} -> {to:#x}{level}");
    (input, text)
}
