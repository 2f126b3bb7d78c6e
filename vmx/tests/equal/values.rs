//! Values of VMCS fields, likely and unlikely.

use proptest::prelude::*;
use proptest::sample::select;
use vlbr_arch::vmx::VmcsField;

use crate::ops::{AREAS, BITMAP};

pub(crate) fn bits() -> impl Strategy<Value = u64> {
    prop_oneof![
        2 => Just(0u64),
        2 => (0u32..64).prop_map(|bit| 1 << bit),
        1 => (0u32..64).prop_map(|bit| u64::MAX >> bit),
        1 => any::<u64>(),
        1 => 0u64..0x20,
    ]
}

/// Fields that entry and exit use, as against all.
pub(crate) const FIELDS: &[(VmcsField, &[u64])] = &[
    (
        VmcsField::MSR_BITMAP,
        &[BITMAP, BITMAP + 1, 1 << 40, 1 << 52],
    ),
    (
        VmcsField::GUEST_IA32_DEBUGCTL,
        &[0, 1, 0x801, 0x1801, 2, 8, 1 << 15, 1 << 40],
    ),
    (
        VmcsField::GUEST_IA32_PERF_GLOBAL_CTRL,
        &[0, 3, 0x7_0000_0003, 1 << 40, 1 << 48],
    ),
    (VmcsField::HOST_IA32_PERF_GLOBAL_CTRL, &[0, 1, 0xf, 1 << 40]),
    (
        VmcsField::GUEST_IA32_LBR_CTL,
        &[0, 0x7f_0007, 0x7f_000f, 1 << 8],
    ),
    (VmcsField::GUEST_DR7, &[0x400, 0x401, 1 << 32]),
    (
        VmcsField::GUEST_RFLAGS,
        &[2, 0x202, 0x302, 0x102, 0, 0xa, 1 << 22 | 2],
    ),
    (VmcsField::GUEST_ACTIVITY_STATE, &[0, 1, 2, 3, 4]),
    (
        VmcsField::GUEST_INTERRUPTIBILITY_INFO,
        &[0, 1, 2, 3, 4, 8, 16, 18, 32],
    ),
    (
        VmcsField::GUEST_PENDING_DBG_EXCEPTIONS,
        &[
            0,
            1 << 14,
            1 << 12,
            1 << 16 | 1 << 12,
            1 << 16,
            1 << 5,
            0x400f,
        ],
    ),
    (VmcsField::EXCEPTION_BITMAP, &[0, 2, 1 << 14, 0xffff_ffff]),
    (VmcsField::PAGE_FAULT_ERROR_CODE_MASK, &[0, 1, 7]),
    (VmcsField::PAGE_FAULT_ERROR_CODE_MATCH, &[0, 1]),
    (
        VmcsField::VMX_PREEMPTION_TIMER_VALUE,
        &[0, 1, 5, 1000, 0xffff_ffff],
    ),
    (
        VmcsField::VM_ENTRY_EXCEPTION_ERROR_CODE,
        &[0, 0x10, 1 << 14, 1 << 15],
    ),
    (VmcsField::VM_ENTRY_INSTRUCTION_LEN, &[0, 1, 2, 15, 16]),
    (VmcsField::GUEST_CR0, &[0x8000_0021, 0x20]),
    (VmcsField::XSS_EXIT_BITMAP, &[0, 1 << 15]),
    (VmcsField::VM_EXIT_MSR_STORE_ADDR, &[0x2_0008, 1 << 46, !15]),
    (
        VmcsField::VM_ENTRY_MSR_LOAD_COUNT,
        &[0, 1, 2, 513, 0xffff_ffff],
    ),
    (VmcsField::GUEST_RIP, &[0x40_1000]),
];

pub(crate) fn injection() -> impl Strategy<Value = u64> {
    let good = select(vec![
        0x8000_0202u64,
        0x8000_0040,
        0x8000_0301,
        0x8000_0306,
        0x8000_0b0d,
        0x8000_0312,
        0x8000_0480,
        0x8000_0603,
        0x8000_0700,
    ]);
    let kind = (0u64..8, prop_oneof![Just(2u64), 0u64..32, 0u64..256]);
    let any = (
        kind,
        any::<bool>(),
        prop_oneof![9 => Just(0u64), 1 => 0u64..0x8_0000],
        prop::bool::weighted(0.9),
    )
        .prop_map(|((kind, vector), code, reserved, valid)| {
            u64::from(valid) << 31 | reserved << 12 | u64::from(code) << 11 | kind << 8 | vector
        });
    prop_oneof![2 => good, 3 => any]
}

/// Fields that entry is about to look at.
pub(crate) fn before() -> impl Strategy<Value = Vec<(VmcsField, u64)>> {
    let useful = (select(FIELDS), any::<prop::sample::Index>())
        .prop_map(|((field, values), n)| vec![(field, *n.get(values))]);
    let event = injection().prop_map(|info| {
        vec![
            (VmcsField::VM_ENTRY_INTR_INFO_FIELD, info),
            (VmcsField::GUEST_RFLAGS, 0x202),
        ]
    });
    // In a state that few events end.
    let asleep = (injection(), 1u64..4).prop_map(|(info, activity)| {
        vec![
            (VmcsField::VM_ENTRY_INTR_INFO_FIELD, info),
            (VmcsField::GUEST_RFLAGS, 0x202),
            (VmcsField::GUEST_ACTIVITY_STATE, activity),
        ]
    });
    // The host's counters, which only a control makes matter.
    let host = select(vec![0u64, 1, 1 << 40, 1 << 63])
        .prop_map(|value| vec![(VmcsField::HOST_IA32_PERF_GLOBAL_CTRL, value)]);
    // An area around the end of memory.
    let edge = (0usize..3, select(vec![32u32, 46]), 1u64..4, 1u64..4).prop_map(
        |(area, bits, below, count)| {
            let (_, address, field) = AREAS[area];
            vec![
                (VmcsField::new(address), (1 << bits) - 16 * below),
                (VmcsField::new(field), count),
            ]
        },
    );
    // A single step pending or not, while events are held.
    let step = (
        select(vec![2u64, 0x102, 0x302]),
        select(vec![0u64, 2, 1, 3]),
        select(vec![0u64, 1 << 14]),
        0u64..3,
    )
        .prop_map(|(flags, debugctl, pending, shadow)| {
            vec![
                (VmcsField::GUEST_RFLAGS, flags),
                (VmcsField::GUEST_IA32_DEBUGCTL, debugctl),
                (VmcsField::GUEST_PENDING_DBG_EXCEPTIONS, pending),
                (VmcsField::GUEST_INTERRUPTIBILITY_INFO, shadow),
            ]
        });
    prop_oneof![4 => useful, 3 => event, 2 => asleep, 2 => host, 2 => edge, 2 => step]
}

pub(crate) fn field() -> impl Strategy<Value = u32> {
    let named: Vec<u32> = VmcsField::NAMED
        .iter()
        .map(|(field, ..)| field.encoding())
        .collect();
    prop_oneof![
        8 => select(named.clone()),
        2 => select(named).prop_map(|field| field | 1),
        1 => any::<u32>(),
    ]
}
