//! Property tests against a second, literal reading of the rules.

use std::collections::BTreeMap;

use proptest::prelude::*;
use vlbr_arch::vmx::VmcsField;
use vlbr_arch::{Cpl, Msr};
use vlbr_cpu::ledger::MsrAccess;
use vlbr_vmx::{AreaEntry, EntryError, GuestMsr, GuestMsrStop, PhysicalMemory, State};

use crate::common::{BITMAP, ENTRY_LOAD, EXIT_LOAD, EXIT_STORE, Machine, VMCS};

/// How an access of a guest ends, step by step as the SDM lists the checks.
#[derive(Debug, PartialEq)]
enum Ends {
    Privilege,
    Exits(u32),
    Faults,
    Reads(u64),
    Writes,
}

fn literal(
    machine: &mut Machine,
    page: &[u8],
    use_bitmaps: bool,
    cpl: u8,
    write: Option<u64>,
    index: u32,
) -> Ends {
    let reason = if write.is_some() { 32 } else { 31 };
    if cpl > 0 {
        return Ends::Privilege;
    }
    if !use_bitmaps {
        return Ends::Exits(reason);
    }
    let low = index <= 0x1fff;
    let high = (0xc000_0000..=0xc000_1fff).contains(&index);
    if !low && !high {
        return Ends::Exits(reason);
    }
    let mut offset = 0;
    if write.is_some() {
        offset += 2048;
    }
    if high {
        offset += 1024;
    }
    let n = (index & 0x1fff) as usize;
    if page[offset + n / 8] >> (n % 8) & 1 == 1 {
        return Ends::Exits(reason);
    }
    match write {
        None => machine
            .msrs
            .rdmsr(Msr::new(index))
            .map_or(Ends::Faults, Ends::Reads),
        Some(value) => machine
            .msrs
            .wrmsr(Msr::new(index), value)
            .map_or(Ends::Faults, |()| Ends::Writes),
    }
}

fn index() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(0x1d9),
        Just(0x1c8),
        Just(0x1c9),
        0x680u32..0x6e0,
        0xdc0u32..0xde0,
        0u32..0x2100,
        0xc000_0000u32..0xc000_2100,
        any::<u32>(),
    ]
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..0x1000, any::<u64>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn accesses_are_checked_in_the_order_of_the_sdm(
        page in prop::collection::vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 4096),
        use_bitmaps in prop::bool::weighted(0.9),
        accesses in prop::collection::vec((0u8..5, prop::option::of(value()), index()), 1..20),
    ) {
        let mut machine = Machine::ready("skylake");
        machine.ram.write(BITMAP, &page);
        if !use_bitmaps {
            machine.clear(VmcsField::CPU_BASED_VM_EXEC_CONTROL, 1 << 28);
        }
        machine.launch().unwrap();
        let mut model = Machine::off("skylake", Default::default());
        for (cpl, write, index) in accesses {
            // Mostly CPL 0.
            let cpl = cpl.saturating_sub(1);
            let expected = literal(&mut model, &page, use_bitmaps, cpl, write, index);
            let instruction = write.map_or(GuestMsr::Rdmsr, GuestMsr::Wrmsr);
            let (vmx, mut context) = machine.context();
            let cpl = Cpl::from_number(cpl).unwrap();
            let found = match vmx.guest_msr(instruction, Msr::new(index), cpl, &mut context) {
                Err(GuestMsrStop::Privilege(_)) => Ends::Privilege,
                Err(GuestMsrStop::Exit(exit)) => Ends::Exits(exit.reason.value()),
                Err(GuestMsrStop::Gp(_)) => Ends::Faults,
                Err(GuestMsrStop::State(fail)) => panic!("{fail}"),
                Ok(_) if write.is_some() => Ends::Writes,
                Ok(value) => Ends::Reads(value),
            };
            prop_assert_eq!(found, expected, "{:#x}", index);
        }
        prop_assert_eq!(machine.msrs.lbr.rdmsr(Msr::DEBUGCTL), model.msrs.lbr.rdmsr(Msr::DEBUGCTL));
    }
}

/// Registers of a small world in which the areas are read literally: number, bits that exist.
const WORLD: [(u32, u64); 6] = [
    (0x1d9, 0xffc3),
    (0x38f, 0x7_0000_000f),
    (0x1c8, 0x3ff),
    (0x1c9, 0x1f),
    (0xc000_0100, u64::MAX),
    (0x9e, u64::MAX),
];

#[derive(Clone, Debug, PartialEq)]
struct World {
    msrs: BTreeMap<u32, u64>,
    stored: Vec<u64>,
    reason: u32,
    qualification: u64,
    abort: u32,
}

fn allowed(entry: &AreaEntry, load: bool) -> bool {
    if entry.reserved != 0 {
        return false;
    }
    if (0x800..=0x8ff).contains(&entry.index) || [0x79, 0x8b].contains(&entry.index) {
        return false;
    }
    match load {
        true => ![0xc000_0100, 0xc000_0101, 0x9b].contains(&entry.index),
        false => entry.index != 0x9e,
    }
}

fn literal_load(world: &mut World, entries: &[AreaEntry]) -> Option<u64> {
    for (n, entry) in (1..).zip(entries) {
        let bits = WORLD
            .iter()
            .find(|(msr, _)| *msr == entry.index)
            .map(|(_, bits)| *bits);
        let fits = bits.is_some_and(|bits| entry.data & !bits == 0);
        if !allowed(entry, true) || !fits {
            return Some(n);
        }
        world.msrs.insert(entry.index, entry.data);
    }
    None
}

/// Entry with an MSR-load area, HLT, exit with both areas.
fn literal_round(
    mut world: World,
    load: &[AreaEntry],
    store: &[AreaEntry],
    host: &[AreaEntry],
    debugctl: u64,
) -> World {
    world.msrs.insert(0x1d9, debugctl);
    if let Some(n) = literal_load(&mut world, load) {
        (world.reason, world.qualification) = (0x8000_0022, n);
    } else {
        world.reason = 12;
        for (n, entry) in store.iter().enumerate() {
            match world.msrs.get(&entry.index) {
                Some(value) if allowed(entry, false) => world.stored[n] = *value,
                _ => {
                    world.abort = 1;
                    return world;
                }
            }
        }
    }
    world.msrs.insert(0x1d9, 0);
    if literal_load(&mut world, host).is_some() {
        world.abort = 4;
    }
    world
}

fn area() -> impl Strategy<Value = Vec<AreaEntry>> {
    let index = prop_oneof![
        8 => prop::sample::select(vec![0x1d9u32, 0x38f, 0x1c8, 0x1c9]),
        1 => prop::sample::select(vec![0xc000_0100u32, 0x9e, 0x808, 0x79, 0x14ce]),
    ];
    let data = prop_oneof![8 => 0u64..4, 1 => any::<u64>()];
    let reserved = prop_oneof![20 => Just(0u32), 1 => any::<u32>()];
    let entry = (index, reserved, data).prop_map(|(index, reserved, data)| AreaEntry {
        index,
        reserved,
        data,
    });
    prop::collection::vec(entry, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn areas_do_what_a_literal_reading_does(
        load in area(),
        store in area(),
        host in area(),
        debugctl in prop::sample::select(vec![0u64, 1, 0x801]),
    ) {
        let mut machine = Machine::ready("skylake");
        for at in [Msr::SMM_MONITOR_CTL, Msr::GS_BASE, Msr::new(0x808), Msr::BIOS_SIGN_ID] {
            machine.msrs.others.remove(&at);
        }
        machine.write(VmcsField::GUEST_IA32_DEBUGCTL, debugctl);
        machine.area(ENTRY_LOAD, VmcsField::VM_ENTRY_MSR_LOAD_COUNT, &load);
        machine.area(EXIT_STORE, VmcsField::VM_EXIT_MSR_STORE_COUNT, &store);
        machine.area(EXIT_LOAD, VmcsField::VM_EXIT_MSR_LOAD_COUNT, &host);
        let start = World {
            msrs: WORLD.iter().map(|(msr, _)| (*msr, machine.rdmsr(Msr::new(*msr)))).collect(),
            stored: store.iter().map(|entry| entry.data).collect(),
            reason: 0,
            qualification: 0,
            abort: 0,
        };
        let expected = literal_round(start, &load, &store, &host, debugctl);
        match machine.launch() {
            Ok(_) => {
                let _ = machine.exit(&vlbr_vmx::VmExit::new(vlbr_arch::vmx::ExitReason::HLT));
            }
            Err(EntryError::Failure(_) | EntryError::Abort { .. }) => {}
            Err(other) => panic!("{other}"),
        }
        let stored = |n| {
            let mut bytes = [0; 8];
            machine.ram.read(EXIT_STORE + 16 * n + 8, &mut bytes);
            u64::from_le_bytes(bytes)
        };
        let vmcs = machine.vmcs();
        let found = World {
            stored: (0..store.len() as u64).map(stored).collect(),
            reason: vmcs.get(VmcsField::VM_EXIT_REASON).unwrap() as u32,
            qualification: vmcs.get(VmcsField::EXIT_QUALIFICATION).unwrap(),
            abort: machine.ram.word(VMCS + 4),
            msrs: WORLD.iter().map(|(msr, _)| {
                (*msr, machine.msrs.rdmsr(Msr::new(*msr)).unwrap())
            }).collect(),
        };
        let shut_down = machine.vmx.state() == State::Shutdown;
        prop_assert_eq!(shut_down, expected.abort != 0);
        prop_assert_eq!(found, expected);
    }
}
