//! What the property test does to a pair of devices, and how it is drawn.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use vlbr_arch::{BranchClass, CodeSize, Cpl, FarKind, Msr, Transfer, XSTATE_LBR_SIZE};
use vlbr_lbr::{
    FreezeFlavour, Options, Pmi, Profile, Quirk, QuirkSet, ReservedWrite, Reset, ReturnGate,
};

/// One step.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Legal control values that record.
    Enable {
        filter: Index,
        freeze: bool,
        smm: bool,
    },
    /// Transfers, each so many cycles after the one before.
    Retire(Vec<(Transfer, u64)>),
    /// Calls first, then returns, at one privilege.
    CallsAndReturns {
        calls: usize,
        returns: usize,
        cpl: Cpl,
    },
    /// WRMSR of some register that exists.
    Write {
        register: Index,
        value: u64,
    },
    /// WRMSR of some address near those that exist.
    WriteAddress {
        msr: u32,
        value: u64,
    },
    /// RDMSR, some bits flipped, WRMSR.
    WriteBack {
        register: Index,
        flip: u64,
    },
    /// WRMSR of DEPTH, on parts that have it.
    Depth(u64),
    Freeze(Pmi),
    SetFrz(bool),
    DeepCState,
    Reset(Reset),
    TraceEn(bool),
    /// XSAVES, some words replaced, XRSTORS.
    Restore {
        changes: Vec<(usize, u64)>,
    },
    RestoreInit,
    SegmentTest,
    LogEvent(u8),
}

/// Profiles whose particulars no built-in one has.
pub(crate) const ODD_PROFILES: [&str; 5] = [
    // 32-bit offsets, no LER, no PMI freeze.
    r#"
        name = "odd-offset"
        title = "format 0"
        models = ["06_0E"]
        linear_address_bits = 48
        perfmon_version = 1
        tsx = false
        debugctl = ["LBR", "BTF", "TR"]
        lbr_inserts = "pushes-and-pops"
        [legacy]
        depth = 2
        tos_bits = 1
        from = 0x40
        to = 0x60
        format = 0
        select = "haswell"
        ler = false
        survives_warm_reset = true
        deep_c_state_reset = true
    "#,
    // Effective addresses, no flags.
    r#"
        name = "odd-eip"
        title = "format 2"
        models = ["06_0E"]
        linear_address_bits = 57
        perfmon_version = 2
        tsx = false
        debugctl = ["LBR", "FREEZE_LBRS_ON_PMI", "FREEZE_WHILE_SMM", "TR"]
        lbr_inserts = "pushes"
        [legacy]
        depth = 8
        tos_bits = 3
        from = 0x680
        to = 0x6C0
        format = 2
        select = "sandy-bridge"
        ler = true
        survives_warm_reset = false
        freeze_clears_tr = true
        deep_c_state_reset = false
    "#,
    // Nothing but records.
    r#"
        name = "odd-arch-bare"
        title = "no filters, no fields"
        models = ["06_0E"]
        linear_address_bits = 57
        perfmon_version = 5
        tsx = true
        debugctl = ["LBR", "BTF"]
        lbr_inserts = "pushes-and-pops"
        [arch]
        cpuid_1c_eax = 0x00000001
        cpuid_1c_ebx = 0x00000000
        cpuid_1c_ecx = 0x00000000
    "#,
    // A call stack without filters, events and cycles only.
    r#"
        name = "odd-arch-stack"
        title = "call stack, events and cycles only"
        models = ["06_0E"]
        linear_address_bits = 48
        perfmon_version = 3
        tsx = false
        debugctl = ["LBR", "BTF", "FREEZE_LBRS_ON_PMI", "FREEZE_WHILE_SMM"]
        lbr_inserts = "pushes-and-pops"
        [arch]
        cpuid_1c_eax = 0x80000003
        cpuid_1c_ebx = 0x00000004
        cpuid_1c_ecx = 0x00050002
    "#,
    // Type filter without CPL filter.
    r#"
        name = "odd-arch-types"
        title = "type filter only"
        models = ["06_0E"]
        linear_address_bits = 48
        perfmon_version = 5
        tsx = true
        debugctl = ["LBR", "FREEZE_LBRS_ON_PMI"]
        lbr_inserts = "none"
        [arch]
        cpuid_1c_eax = 0x4000000A
        cpuid_1c_ebx = 0x00000006
        cpuid_1c_ecx = 0x00000005
    "#,
];

/// Every profile, built in and odd.
pub(crate) fn profiles() -> Vec<Profile> {
    let odd = ODD_PROFILES
        .iter()
        .map(|text| Profile::from_toml(text).expect("odd profile"));
    Profile::all().iter().cloned().chain(odd).collect()
}

/// Values of `LBR_SELECT` that mean something.
pub(crate) const SELECTS: [u64; 14] = [
    0, 1, 2, 3, 0x0c0, 0x040, 0x080, 0x100, 0x1c4, 0x0e5, 0x1f9, 0x3c4, 0x3c5, 0x3c6,
];

/// Values of `LBR_CTL` that mean something.
pub(crate) const CTLS: [u64; 12] = [
    0x7f_0007, 0x7f_0005, 0x7f_0003, 0x7f_0001, 0x7, 0x38_000d, 0x38_000b, 0x38_000f, 0x40_0007,
    0x23_0007, 0x1, 0x9,
];

fn cpl() -> impl Strategy<Value = Cpl> {
    select(
        &[
            Cpl::Ring0,
            Cpl::Ring0,
            Cpl::Ring1,
            Cpl::Ring2,
            Cpl::Ring3,
            Cpl::Ring3,
        ][..],
    )
}

fn size() -> impl Strategy<Value = CodeSize> {
    prop_oneof![
        6 => Just(CodeSize::Bits64),
        1 => Just(CodeSize::Bits32),
        1 => Just(CodeSize::Bits16),
    ]
}

/// Addresses: canonical edges of both widths, wild ones, zero, ordinary ones.
pub(crate) fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0x40_0000u64..0x50_0000,
        2 => (0u64..0x1000).prop_map(|low| 0xffff_ffff_8100_0000 + low),
        2 => select(&[
            0, 1, 0x7fff_ffff_ffff, 0x8000_0000_0000, 0xffff_8000_0000_0000,
            0xffff_7fff_ffff_ffff, 0x00ff_ffff_ffff_ffff, 0x0100_0000_0000_0000,
            0xff00_0000_0000_0000, 0xfeff_ffff_ffff_ffff, u64::MAX, 0xffff_ffff, 1 << 32,
        ][..]),
        1 => any::<u64>(),
    ]
}

fn class() -> impl Strategy<Value = BranchClass> {
    prop_oneof![
        1 => Just(BranchClass::Jcc),
        1 => Just(BranchClass::NearRelJmp),
        1 => Just(BranchClass::NearIndJmp),
        2 => Just(BranchClass::NearRelCall),
        1 => Just(BranchClass::NearRelCallZero),
        2 => Just(BranchClass::NearIndCall),
        3 => Just(BranchClass::NearRet),
        4 => select(&FarKind::ALL[..]).prop_map(BranchClass::Far),
        1 => select(&[FarKind::Smi, FarKind::Rsm][..]).prop_map(BranchClass::Far),
    ]
}

/// Any transfer, sensible or not.
pub(crate) fn transfer() -> impl Strategy<Value = Transfer> {
    let ends = (
        address(),
        address(),
        select(&[0u64, 0x10_0000, 0xffff_f000][..]),
        0u64..0x2_0000,
    );
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), 0u8..16);
    (class(), ends, (size(), size()), (cpl(), cpl()), flags).prop_map(
        |(class, (from, to, from_cs_base, to_cs_base), sizes, cpls, flags)| Transfer {
            from,
            to,
            from_cs_base,
            to_cs_base,
            from_size: sizes.0,
            to_size: sizes.1,
            class,
            cpl_before: cpls.0,
            cpl_after: cpls.1,
            mispredicted: flags.0,
            in_tx: flags.1,
            tx_abort: flags.2,
            fused: flags.3,
        },
    )
}

/// Values for registers: control words, addresses with flags on top, single bits, anything.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => select(&SELECTS[..]),
        3 => select(&CTLS[..]),
        3 => address(),
        2 => (address(), 0u64..8).prop_map(|(address, flags)| address ^ flags << 61),
        2 => (0u32..64).prop_map(|n| 1 << n),
        2 => select(&[8u64, 16, 24, 32, 40, 0x801, 0x4001, 0x4841, 0x1fc3][..]),
        1 => any::<u64>(),
    ]
}

fn gap() -> impl Strategy<Value = u64> {
    prop_oneof![5 => 0u64..50, 1 => 65_530u64..65_540, 1 => any::<u32>().prop_map(u64::from)]
}

fn msr_address() -> impl Strategy<Value = u32> {
    let bases = [
        0x40u32, 0x60, 0x680, 0x6c0, 0xdc0, 0x1200, 0x1500, 0x1600, 0x1c8, 0x1d8, 0x1dd, 0x14ce,
    ];
    (select(bases.to_vec()), 0u32..40).prop_map(|(base, n)| base + n)
}

/// A word of an XSAVE image: CTL, DEPTH and LER often, entries at times.
fn word() -> impl Strategy<Value = usize> {
    prop_oneof![2 => 0usize..5, 1 => 0usize..XSTATE_LBR_SIZE / 8]
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let pmi = select(&[Pmi::Counter, Pmi::Pebs, Pmi::Bts][..]);
    let reset = select(&[Reset::Cold, Reset::Warm, Reset::WarmInC6, Reset::Init][..]);
    let flip = prop_oneof![3 => Just(0), 1 => (0u32..64).prop_map(|n| 1 << n)];
    prop_oneof![
        6 => (any::<Index>(), any::<bool>(), any::<bool>())
            .prop_map(|(filter, freeze, smm)| Op::Enable { filter, freeze, smm }),
        12 => vec((transfer(), gap()), 1..20).prop_map(Op::Retire),
        4 => (0usize..40, 0usize..40, cpl())
            .prop_map(|(calls, returns, cpl)| Op::CallsAndReturns { calls, returns, cpl }),
        6 => (any::<Index>(), value()).prop_map(|(register, value)| Op::Write { register, value }),
        2 => (msr_address(), value()).prop_map(|(msr, value)| Op::WriteAddress { msr, value }),
        4 => (any::<Index>(), flip).prop_map(|(register, flip)| Op::WriteBack { register, flip }),
        3 => select(&[8u64, 8, 16, 16, 32, 0, 24, 64, 1 << 32 | 8][..]).prop_map(Op::Depth),
        3 => pmi.prop_map(Op::Freeze),
        2 => any::<bool>().prop_map(Op::SetFrz),
        1 => Just(Op::DeepCState),
        1 => reset.prop_map(Op::Reset),
        2 => prop_oneof![2 => Just(false), 1 => Just(true)].prop_map(Op::TraceEn),
        4 => vec((word(), value()), 0..3).prop_map(|changes| Op::Restore { changes }),
        1 => Just(Op::RestoreInit),
        1 => Just(Op::SegmentTest),
        1 => (0u8..5).prop_map(Op::LogEvent),
    ]
}

pub(crate) fn options() -> impl Strategy<Value = Options> {
    let rare = || prop_oneof![3 => Just(false), 1 => Just(true)];
    let reserved = || {
        select(
            &[
                ReservedWrite::Fault,
                ReservedWrite::Drop,
                ReservedWrite::Keep,
            ][..],
        )
    };
    let quirks = prop_oneof![
        1 => Just(None),
        2 => vec(select(&Quirk::ALL[..]), 0..8)
            .prop_map(|quirks| Some(quirks.into_iter().collect::<QuirkSet>())),
    ];
    let flavour = select(&[FreezeFlavour::Legacy, FreezeFlavour::Streamlined][..]);
    let gate = select(
        &[
            ReturnGate::Either,
            ReturnGate::Both,
            ReturnGate::Indirect,
            ReturnGate::Relative,
        ][..],
    );
    (
        (
            quirks,
            any::<u64>(),
            option::weighted(0.5, any::<bool>()),
            gate,
        ),
        (
            rare(),
            any::<bool>(),
            rare(),
            any::<bool>(),
            rare(),
            any::<bool>(),
        ),
        (
            rare(),
            rare(),
            rare(),
            option::weighted(0.3, flavour),
            rare(),
            any::<bool>(),
        ),
        (
            rare(),
            rare(),
            select(&[0xffffu16, 0xff, 0][..]),
            reserved(),
            reserved(),
            rare(),
        ),
        (
            option::weighted(0.3, any::<bool>()),
            0u8..4,
            1u32..4,
            rare(),
            any::<bool>(),
            rare(),
            rare(),
        ),
    )
        .prop_map(|(a, b, c, d, e)| Options {
            quirks: a.0,
            seed: a.1,
            tsx: a.2,
            nehalem_return_gate: a.3,
            callstack_saturate: b.0,
            pops_clear_slots: b.1,
            tsx_abort_ignores_far: b.2,
            arch_mask_from: b.3,
            arch_cpl_before: b.4,
            legacy_rsm_recorded: b.5,
            legacy_smi_recorded: c.0,
            legacy_init_recorded: c.1,
            alternative_format: c.2,
            freeze: c.3,
            init_clears_control: c.4,
            ler_software_interrupts: c.5,
            ler_addresses_only: d.0,
            tr_records: d.1,
            cycle_saturation: d.2,
            legacy_info_reserved: d.3,
            arch_info_reserved: d.4,
            tos_write_masks: d.5,
            deep_c_state_reset: e.0,
            early_freeze_branches: e.1,
            duplicate_top_one_in: e.2.try_into().expect("not zero"),
            inserts_count_empty_pops: e.3,
            arch_ler_filtered: e.4,
            depth_write_clears_ler: e.5,
            fused_from_compare: e.6,
        })
}

/// Addresses that some generation has and this part may not.
pub(crate) const PROBES: [u32; 16] = [
    0x40, 0x48, 0x68, 0x1c8, 0x1c9, 0x1d9, 0x1dd, 0x1e0, 0x690, 0x6a0, 0xdc0, 0xde0, 0x1208,
    0x1510, 0x1620, 0x14cf,
];

/// The address of [`PROBES`] as a register.
pub(crate) fn probe(address: u32) -> Msr {
    Msr::new(address)
}
