//! What the property test does to a pair of processors, and how it is drawn.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use vlbr_arch::vmx::{ExitReason, VmcsField};
use vlbr_arch::{BranchClass, Cpl, FarKind, Msr, Transfer};
use vlbr_cpu::ledger::Actor;
use vlbr_vmx::{BeyondLimit, Options};

use crate::ends::Told;
use crate::model::Access;
use crate::pair::Setup;
use crate::side::Step;
use crate::values::{FIELDS, before, bits, field, injection};

/// Where the regions stand; the last two are no good for one.
pub(crate) const VMXON: u64 = 0x1000;
pub(crate) const VMCS: [u64; 2] = [0x2000, 0x4000];
pub(crate) const BITMAP: u64 = 0x3000;
const PLACES: [u64; 7] = [
    0x1000,
    0x2000,
    0x4000,
    0x2010,
    0x5000,
    1 << 52,
    u64::MAX << 12,
];

/// Base of each area: entry load, exit store, exit load; and the fields that tell it.
pub(crate) const AREAS: [(u64, u32, u32); 3] = [
    (0x1_0000, 0x200a, 0x4014),
    (0x2_0000, 0x2006, 0x400e),
    (0x3_0000, 0x2008, 0x4010),
];

/// One step.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Vmxon(u64),
    Vmxoff,
    Vmclear(u64),
    Vmptrld(u64),
    Vmptrst,
    Vmread(u32, bool),
    Vmwrite(u32, u64, bool),
    /// One control of one of five vectors changes.
    Control(usize, u32, bool),
    /// Writes a VMCS that enters, with these controls where the part has them.
    Prepare([u64; 5]),
    /// An area gets these entries; its count is theirs, or another.
    Area(usize, Vec<(u32, u32, u64)>, Option<u64>),
    /// Some registers pass or exit.
    Bitmap {
        first: u32,
        count: u32,
        write: bool,
        exits: bool,
    },
    /// The first word of a region changes.
    Poke(u64, u64),
    /// VMLAUNCH or VMRESUME as the launch state wants, or the other one; before it VMWRITEs.
    Enter {
        wrong: bool,
        shadow: bool,
        before: Vec<(VmcsField, u64)>,
    },
    /// RDMSR and WRMSR of whoever runs.
    Rdmsr(u32),
    Wrmsr(u32, u64),
    /// As a guest, in another form or at another CPL.
    GuestMsr(Access, u32, u8),
    /// CPUID, HLT and whatever else exits always.
    Exit(Told),
    Exception(u8, u32, Option<u32>, u64),
    Nmi,
    ExternalInterrupt(u8),
    Rdpmc(u32, Cpl, bool),
    Xsaves(bool, u64, u64),
    Timer,
    Retire(Vec<Step>),
    Pass(u64),
    Smm(bool),
    Lvt(u32),
    /// A counter counts instructions or taken branches and overflows soon.
    Count(u32, u64, u64, u64),
    /// Every counter on, nothing frozen, the LVT entry open, the LBR on.
    Go(u64, u32),
    Power,
}

/// Registers that matter here, and how many stand in a row.
const REGISTERS: &[(Msr, u32)] = &[
    (Msr::DEBUGCTL, 1),
    (Msr::DEBUGCTL, 1),
    (Msr::LBR_CTL, 2),
    (Msr::LBR_CTL, 1),
    (Msr::LBR_SELECT, 2),
    (Msr::PERF_GLOBAL_CTRL, 1),
    (Msr::PERF_GLOBAL_CTRL, 1),
    (Msr::FIXED_CTR_CTRL, 6),
    (Msr::LASTBRANCH_0_FROM_IP, 32),
    (Msr::LASTBRANCH_0_TO_IP, 32),
    (Msr::LASTBRANCH_0_FROM_IP_CORE, 8),
    (Msr::LBR_INFO_0, 32),
    (Msr::LBR_0_FROM_IP, 32),
    (Msr::LBR_0_TO_IP, 32),
    (Msr::LBR_0_INFO, 32),
    (Msr::LER_FROM, 4),
    (Msr::PMC0, 8),
    (Msr::A_PMC0, 8),
    (Msr::PERFEVTSEL0, 8),
    (Msr::FIXED_CTR0, 4),
    (Msr::PERF_CAPABILITIES, 1),
    (Msr::VMX_BASIC, 20),
    (Msr::FS_BASE, 2),
    (Msr::SMBASE, 1),
    (Msr::SMM_MONITOR_CTL, 1),
    (Msr::BIOS_SIGN_ID, 1),
    (Msr::X2APIC_LVT_PMI, 1),
    (Msr::MISC_ENABLE, 1),
    (Msr::RTIT_CTL, 1),
    (Msr::XSS, 1),
    (Msr::new(0x7ff), 2),
    (Msr::new(0x8ff), 2),
    (Msr::new(0x1fff), 2),
    (Msr::new(0xbfff_ffff), 2),
    (Msr::new(0xc000_1fff), 2),
];

fn register() -> impl Strategy<Value = u32> {
    prop_oneof![
        30 => (select(REGISTERS), any::<u32>()).prop_map(|((msr, run), n)| msr.plus(n % run).value()),
        1 => any::<u32>(),
    ]
}

/// A register with a value, often one that it takes.
fn write() -> impl Strategy<Value = (u32, u64)> {
    let likely: Vec<(Msr, u64)> = vec![
        (Msr::DEBUGCTL, 1),
        (Msr::DEBUGCTL, 0x801),
        (Msr::DEBUGCTL, 0x1801),
        (Msr::DEBUGCTL, 2),
        (Msr::LBR_CTL, 0x7f_0007),
        (Msr::LBR_CTL, 0x7f_000f),
        (Msr::LBR_CTL, 0x3f_0005),
        (Msr::LBR_DEPTH, 8),
        (Msr::LBR_DEPTH, 32),
        (Msr::LBR_SELECT, 0x3c5),
        (Msr::LBR_SELECT, 0x9),
        (Msr::LASTBRANCH_TOS, 3),
        (Msr::PERF_GLOBAL_CTRL, 0x3),
        (Msr::PERF_GLOBAL_CTRL, 0x7_0000_0003),
        (Msr::PERF_GLOBAL_OVF_CTRL, 3 << 58),
        (Msr::PERF_GLOBAL_OVF_CTRL, 0x7_0000_000f),
        (Msr::FIXED_CTR_CTRL, 0xbb),
        (Msr::PMC0, 0xffff_fff8),
        (Msr::X2APIC_LVT_PMI, 0x400),
        (Msr::MISC_ENABLE, 0x80),
        (Msr::MISC_ENABLE, 0x880 | 1 << 3),
        (Msr::RTIT_CTL, 1),
        (Msr::RTIT_CTL, 0),
        (Msr::XSS, 1 << 15),
    ];
    prop_oneof![
        3 => (register(), bits()),
        4 => select(likely).prop_map(|(msr, value)| (msr.value(), value)),
    ]
}

fn vmwrite() -> impl Strategy<Value = Op> {
    let useful = (select(FIELDS), any::<prop::sample::Index>())
        .prop_map(|((field, values), n)| Op::Vmwrite(field.encoding(), *n.get(values), true));
    prop_oneof![
        8 => useful,
        3 => injection().prop_map(|info| {
            Op::Vmwrite(VmcsField::VM_ENTRY_INTR_INFO_FIELD.encoding(), info, true)
        }),
        1 => (select(vec![0x4400u32, 0x4402, 0x440c, 0x6400, 0x2400, 0x2401]), bits())
            .prop_map(|(field, value)| Op::Vmwrite(field, value, true)),
        4 => (field(), bits(), prop::bool::weighted(0.8))
            .prop_map(|(field, value, wide)| Op::Vmwrite(field, value, wide)),
    ]
}

/// Controls that matter here, by vector: pin, primary, secondary, exit, entry.
const CONTROLS: [&[u32]; 5] = [
    &[0, 3, 5, 6],
    &[11, 22, 27, 28, 31],
    &[7, 20],
    &[2, 12, 15, 22, 26, 30],
    &[2, 10, 11, 13, 21],
];

fn wanted(n: usize) -> impl Strategy<Value = u64> {
    vec(any::<bool>(), CONTROLS[n].len()).prop_map(move |on| {
        CONTROLS[n]
            .iter()
            .zip(on)
            .fold(0, |all, (bit, on)| all | u64::from(on) << bit)
    })
}

fn prepare() -> impl Strategy<Value = Op> {
    (wanted(0), wanted(1), wanted(2), wanted(3), wanted(4)).prop_map(
        |(mut pin, mut primary, secondary, mut exit, entry)| {
            // What cannot be without another comes without it seldom: single controls do that.
            if pin >> 3 & 1 == 0 {
                pin &= !(1 << 5);
            }
            if pin >> 5 & 1 == 0 {
                primary &= !(1 << 22);
            }
            if pin >> 6 & 1 == 0 {
                exit &= !(1 << 22);
            }
            Op::Prepare([pin, primary | 1 << 28, secondary, exit, entry & !(3 << 10)])
        },
    )
}

fn area_entry() -> impl Strategy<Value = (u32, u32, u64)> {
    prop_oneof![
        8 => write().prop_map(|(msr, value)| (msr, 0, value)),
        8 => select(vec![
            (0x1d9u32, 0u32, 0u64), (0x1d9, 0, 1), (0x1d9, 0, 0x801), (0x38f, 0, 0), (0x38f, 0, 1),
            (0xc1, 0, 0x10), (0x186, 0, 0x53_00c0), (0x1c9, 0, 3), (0x1c8, 0, 1),
        ]),
        1 => (write(), any::<u32>()).prop_map(|((msr, value), reserved)| (msr, reserved, value)),
    ]
}

fn cpl() -> impl Strategy<Value = Cpl> {
    prop_oneof![Just(Cpl::Ring0), Just(Cpl::Ring3)]
}

fn transfer() -> impl Strategy<Value = Transfer> {
    let class = prop_oneof![
        8 => select(vec![
            BranchClass::Jcc, BranchClass::NearRelJmp, BranchClass::NearIndJmp,
            BranchClass::NearRelCall, BranchClass::NearIndCall, BranchClass::NearRet,
        ]),
        2 => select(vec![
            BranchClass::Far(FarKind::Syscall), BranchClass::Far(FarKind::Sysret),
            BranchClass::Far(FarKind::Iret), BranchClass::Far(FarKind::Interrupt),
            BranchClass::Far(FarKind::Exception), BranchClass::Far(FarKind::DebugException),
        ]),
    ];
    let addresses = (0u64..0x1000, 0u64..0x1000, any::<bool>());
    (class, addresses, cpl(), cpl(), any::<bool>()).prop_map(
        |(class, (from, to, high), before, after, mispredicted)| {
            let base = if high {
                0xffff_8000_0010_0000
            } else {
                0x40_0000
            };
            let far = matches!(class, BranchClass::Far(_));
            Transfer {
                cpl_after: if far { after } else { before },
                mispredicted,
                ..Transfer::near(class, base + from, base + to, before)
            }
        },
    )
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1u64..40, cpl()).prop_map(|(n, cpl)| Step::Plain(n, cpl)),
        1 => cpl().prop_map(Step::NotTaken),
        5 => transfer().prop_map(Step::Taken),
    ];
    vec(step, 1..8)
}

fn told() -> impl Strategy<Value = Told> {
    let reason = prop_oneof![
        6 => select(vec![ExitReason::CPUID, ExitReason::HLT, ExitReason::VMCALL])
            .prop_map(ExitReason::value),
        1 => 0u32..90,
    ];
    let words = (any::<u32>(), any::<u32>(), any::<u64>(), any::<u64>());
    (reason, bits(), words, prop::bool::weighted(0.2)).prop_map(
        |(reason, qualification, (a, b, c, d), full)| {
            let plain = Told {
                reason,
                qualification,
                length: 2,
                ..Told::default()
            };
            if !full {
                return plain;
            }
            Told {
                interruption: a,
                error_code: b,
                idt_vectoring: b,
                idt_error_code: a,
                info: a ^ b,
                linear: c,
                physical: d,
                ..plain
            }
        },
    )
}

fn access() -> impl Strategy<Value = Access> {
    prop_oneof![
        3 => Just(Access::Rdmsr),
        2 => bits().prop_map(Access::Wrmsr),
        1 => bits().prop_map(Access::Wrmsrns),
        2 => (5u32..12).prop_map(Access::RdmsrImmediate),
        2 => (bits(), 5u32..12).prop_map(|(value, length)| Access::WrmsrnsImmediate(value, length)),
    ]
}

fn instructions() -> impl Strategy<Value = Op> {
    let place = || select(PLACES.to_vec());
    prop_oneof![
        2 => place().prop_map(Op::Vmxon),
        1 => Just(Op::Vmxoff),
        2 => place().prop_map(Op::Vmclear),
        3 => place().prop_map(Op::Vmptrld),
        3 => select(VMCS.to_vec()).prop_map(Op::Vmptrld),
        1 => Just(Op::Vmptrst),
        3 => (field(), any::<bool>()).prop_map(|(field, wide)| Op::Vmread(field, wide)),
        1 => (place(), prop_oneof![Just(0u64), any::<u64>()]).prop_map(|(at, word)| Op::Poke(at, word)),
    ]
}

fn setting() -> impl Strategy<Value = Op> {
    let control = (
        0usize..5,
        any::<prop::sample::Index>(),
        any::<bool>(),
        any::<u32>(),
    )
        .prop_map(|(vector, n, on, any)| {
            let known = *n.get(CONTROLS[vector]);
            let bit = if any % 5 == 0 { any / 5 % 32 } else { known };
            Op::Control(vector, bit, on)
        });
    prop_oneof![
        8 => vmwrite(),
        4 => control,
        4 => prepare(),
        4 => (0usize..3, vec(area_entry(), 0..5), prop::bool::weighted(0.15))
            .prop_map(|(area, entries, long)| Op::Area(area, entries, long.then_some(520))),
        3 => (register(), 1u32..40, any::<bool>(), any::<bool>())
            .prop_map(|(first, count, write, exits)| Op::Bitmap { first, count, write, exits }),
    ]
}

fn guest() -> impl Strategy<Value = Op> {
    let code = option::of(0u32..8);
    let kind = prop_oneof![4 => Just(3u32), 1 => Just(5), 1 => Just(6)];
    prop_oneof![
        6 => (access(), register(), prop_oneof![4 => Just(0u8), 1 => 1u8..4])
            .prop_map(|(access, msr, cpl)| Op::GuestMsr(access, msr, cpl)),
        4 => told().prop_map(Op::Exit),
        4 => (prop_oneof![1 => Just(1u8), 3 => Just(14), 1 => 0u8..40], kind, code, bits())
            .prop_map(|(vector, kind, code, dr6)| Op::Exception(vector, kind, code, dr6)),
        1 => Just(Op::Nmi),
        1 => any::<u8>().prop_map(Op::ExternalInterrupt),
        2 => (select(vec![0u32, 1, 7, 0x4000_0000, 0x4000_0003, 1 << 31]), cpl(), any::<bool>())
            .prop_map(|(ecx, cpl, pce)| Op::Rdpmc(ecx, cpl, pce)),
        1 => (any::<bool>(), select(vec![1u64 << 15, 7, 0]), select(vec![1u64 << 15, 1 << 8]))
            .prop_map(|(restore, mask, xss)| Op::Xsaves(restore, mask, xss)),
        2 => Just(Op::Timer),
    ]
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let count = (
        0u32..4,
        // Instructions, branches, LBR_INSERTS.
        select(vec![0xc0u64, 0xc4, 0x20cc]),
        select(vec![0x53_0000u64, 0x43_0000, 0x51_0000, 0x52_0000]),
        1u64..40,
    );
    let go = (
        select(vec![0x1u64, 0x801, 0x1801, 0x1001]),
        select(vec![0x400u32, 0x400, 0xf0, 0x1_0400]),
    );
    prop_oneof![
        4 => instructions(),
        14 => setting(),
        16 => (
            prop::bool::weighted(0.05),
            prop::bool::weighted(0.03),
            prop_oneof![6 => Just(Vec::new()), 4 => before()],
        )
            .prop_map(|(wrong, shadow, before)| Op::Enter {
                wrong,
                shadow,
                before
            }),
        14 => guest(),
        6 => register().prop_map(Op::Rdmsr),
        10 => write().prop_map(|(msr, value)| Op::Wrmsr(msr, value)),
        12 => steps().prop_map(Op::Retire),
        4 => prop_oneof![1u64..300, 1u64..200_000].prop_map(Op::Pass),
        1 => any::<bool>().prop_map(Op::Smm),
        1 => select(vec![0x400u32, 0xf0, 0x1_0400, 0x30]).prop_map(Op::Lvt),
        5 => count.prop_map(|(n, event, flags, soon)| Op::Count(n, event, flags, soon)),
        4 => go.prop_map(|(debugctl, lvt)| Op::Go(debugctl, lvt)),
        1 => Just(Op::Power),
    ]
}

fn options() -> impl Strategy<Value = Options> {
    (
        prop_oneof![Just(46u8), 32u8..53],
        any::<bool>(),
        vec(register(), 0..4),
    )
        .prop_map(|(physical_address_bits, process, area_banned)| Options {
            physical_address_bits,
            area_beyond_limit: if process {
                BeyondLimit::Process
            } else {
                BeyondLimit::MachineCheck
            },
            area_banned,
        })
}

pub(crate) fn setup() -> impl Strategy<Value = Setup> {
    (
        options(),
        any::<bool>(),
        prop_oneof![Just(0u64), 1u64..6],
        any::<bool>(),
        prop::bool::weighted(0.2),
        any::<bool>(),
    )
        .prop_map(
            |(vmx, feeds_inserts, skid, x2apic, ignores, alternative_format)| Setup {
                vmx,
                feeds_inserts,
                skid,
                x2apic,
                ignores,
                alternative_format,
            },
        )
}

/// Who accesses a register as the host.
pub(crate) const HOST: Actor = Actor::Host;
