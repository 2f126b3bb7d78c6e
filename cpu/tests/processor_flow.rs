//! The order in which an event reaches LBR and PMU, on the fast and on the literal pair.

use vlbr_arch::{BranchClass, Cpl, Cycles, FarKind, LvtPc, Msr, Transfer};
use vlbr_cpu::ledger::MsrAccess;
use vlbr_cpu::processor::{Boundary, LogicalProcessor, Nothing, Options, Retired};
use vlbr_lbr::{Reset, Verdict};
use vlbr_pmu::{Device as _, Increments, Interrupt, PmiCause};

const LBR: u64 = 1;
const FREEZE_LBR: u64 = 1 << 11;
const FREEZE_COUNTERS: u64 = 1 << 12;
const FREEZE_SMM: u64 = 1 << 14;
/// Branches at every level, interrupting.
const BRANCHES: u64 = 0x53_00c4;

fn transfer(class: BranchClass, from: u64) -> Transfer {
    Transfer::near(class, from, from + 0x100, Cpl::Ring0)
}

fn jump<L: vlbr_lbr::Device, P: vlbr_pmu::Device>(
    cpu: &mut LogicalProcessor<L, P>,
    from: u64,
) -> Retired {
    let class = BranchClass::NearRelJmp;
    let run = Increments::branch(class, true, false, Cpl::Ring0);
    let boundary = Boundary {
        run: &run,
        transfer: Some(&transfer(class, from)),
        now: Cycles::new(from),
    };
    cpu.retire(boundary, &mut Nothing)
}

/// Runs `test` on both pairs of devices of a part.
macro_rules! on_both {
    ($name:literal, |$cpu:ident| $test:block) => {{
        let options = Options::default();
        let lbr = vlbr_lbr::Profile::named($name).unwrap();
        let pmu = vlbr_pmu::Profile::named($name).unwrap();
        {
            let mut $cpu = LogicalProcessor::new(lbr, pmu, options.clone()).unwrap();
            $test
        }
        {
            let lbr = vlbr_lbr::reference::Lbr::new(lbr, options.lbr.clone());
            let pmu = vlbr_pmu::reference::Pmu::new(pmu, options.pmu.clone());
            let mut $cpu = LogicalProcessor::of(lbr, pmu, &options).unwrap();
            $test
        }
    }};
}

#[test]
fn the_branch_that_overflows_stands_in_the_lbr_and_the_next_does_not() {
    on_both!("skylake", |cpu| {
        cpu.wrmsr(Msr::DEBUGCTL, LBR | FREEZE_LBR | FREEZE_COUNTERS)
            .unwrap();
        cpu.wrmsr(Msr::PERFEVTSEL0, BRANCHES).unwrap();
        cpu.wrmsr(Msr::PMC0, 0xffff_fffe).unwrap();
        assert_eq!(jump(&mut cpu, 0x1000).counted.pmi, None);
        let second = jump(&mut cpu, 0x2000);
        assert_eq!(second.verdict, Some(Verdict::Push));
        assert_eq!(second.counted.pmi, Some(PmiCause::Counter));
        let third = jump(&mut cpu, 0x3000);
        assert_eq!(third.verdict, Some(Verdict::Ignore));
        assert_eq!(cpu.rdmsr(Msr::PMC0), Ok(0), "frozen");
        let youngest = vlbr_lbr::Device::record(cpu.lbr(), 0).unwrap();
        assert_eq!(youngest.from, 0x2000);
        assert_eq!(cpu.rdmsr(Msr::PERF_GLOBAL_STATUS), Ok(3 << 58 | 1));
        assert_eq!(
            cpu.rdmsr(Msr::DEBUGCTL),
            Ok(LBR | FREEZE_LBR | FREEZE_COUNTERS)
        );
    });
}

#[test]
fn the_legacy_flavour_clears_both_enables() {
    on_both!("haswell", |cpu| {
        cpu.wrmsr(Msr::DEBUGCTL, LBR | FREEZE_LBR | FREEZE_COUNTERS)
            .unwrap();
        cpu.wrmsr(Msr::PERFEVTSEL0, BRANCHES).unwrap();
        cpu.wrmsr(Msr::PMC0, 0xffff_ffff).unwrap();
        assert_eq!(jump(&mut cpu, 0x1000).verdict, Some(Verdict::Push));
        assert_eq!(cpu.rdmsr(Msr::DEBUGCTL), Ok(FREEZE_LBR | FREEZE_COUNTERS));
        assert_eq!(cpu.rdmsr(Msr::PERF_GLOBAL_CTRL), Ok(0));
        assert_eq!(cpu.rdmsr(Msr::PERF_GLOBAL_STATUS), Ok(1));
        assert_eq!(jump(&mut cpu, 0x2000).verdict, Some(Verdict::Ignore));
    });
}

#[test]
fn delivery_masks_the_entry_and_comes_once() {
    on_both!("skylake", |cpu| {
        cpu.pmu_mut().set_lvtpc(LvtPc::from_bits(0x400));
        cpu.wrmsr(Msr::PERFEVTSEL0, BRANCHES).unwrap();
        cpu.wrmsr(Msr::PMC0, 0xffff_ffff).unwrap();
        jump(&mut cpu, 0x1000);
        assert_eq!(cpu.deliver(), Some(Interrupt::Nmi));
        assert_eq!(cpu.deliver(), None);
        assert_eq!(cpu.pmu().lvtpc().bits(), 0x1_0400);
    });
}

#[test]
fn smm_stops_both_and_rsm_starts_both() {
    on_both!("skylake", |cpu| {
        let wanted = LBR | FREEZE_SMM;
        cpu.wrmsr(Msr::DEBUGCTL, wanted).unwrap();
        cpu.wrmsr(Msr::PERFEVTSEL0, BRANCHES).unwrap();
        let enabled = cpu.rdmsr(Msr::PERF_GLOBAL_CTRL).unwrap();
        let smi = transfer(BranchClass::Far(FarKind::Smi), 0x1000);
        cpu.smi(&smi, Cycles::new(1));
        assert_eq!(cpu.rdmsr(Msr::DEBUGCTL).unwrap() & LBR, 0);
        assert_eq!(cpu.rdmsr(Msr::PERF_GLOBAL_CTRL), Ok(0));
        assert_eq!(jump(&mut cpu, 0x2000).verdict, Some(Verdict::Ignore));
        let class = BranchClass::Far(FarKind::Rsm);
        let run = Increments::branch(class, true, false, Cpl::Ring0);
        let boundary = Boundary {
            run: &run,
            transfer: Some(&transfer(class, 0x3000)),
            now: Cycles::new(2),
        };
        let retired = cpu.rsm(boundary, &mut Nothing);
        assert_eq!(retired.verdict, Some(Verdict::Push));
        assert_eq!(cpu.rdmsr(Msr::PMC0), Ok(0), "RSM runs in SMM");
        assert_eq!(cpu.rdmsr(Msr::DEBUGCTL), Ok(wanted));
        assert_eq!(cpu.rdmsr(Msr::PERF_GLOBAL_CTRL), Ok(enabled));
    });
}

#[test]
fn reset_takes_everything_back_and_init_masks_the_entry() {
    on_both!("skylake", |cpu| {
        cpu.pmu_mut().set_lvtpc(LvtPc::from_bits(0x400));
        cpu.wrmsr(Msr::DEBUGCTL, LBR).unwrap();
        cpu.wrmsr(Msr::PERF_GLOBAL_CTRL, 0).unwrap();
        cpu.wrmsr(Msr::RTIT_CTL, 1).unwrap();
        cpu.reset(Reset::Init);
        assert_eq!(cpu.pmu().lvtpc(), LvtPc::RESET);
        assert_eq!(cpu.rdmsr(Msr::PERF_GLOBAL_CTRL), Ok(0));
        assert_eq!(cpu.rdmsr(Msr::DEBUGCTL), Ok(LBR));
        assert_eq!(cpu.rdmsr(Msr::RTIT_CTL), Ok(1));
        cpu.reset(Reset::Warm);
        assert_eq!(
            cpu.rdmsr(Msr::PERF_GLOBAL_CTRL),
            Ok(0xf),
            "counters' enables"
        );
        assert_eq!(cpu.rdmsr(Msr::DEBUGCTL), Ok(0));
        assert_eq!(cpu.rdmsr(Msr::RTIT_CTL), Ok(0));
    });
}
