//! Damaged VMCS texts, bitmap pages, areas and profiles: refused, or something that works.

use std::fs;
use std::path::Path;

use vlbr_arch::Msr;
use vlbr_arch::vmx::{Interruptibility, VmcsField};
use vlbr_cpu::ledger::{Ledger, MsrAccess};
use vlbr_fuzz::{Form, throw};
use vlbr_vmx::{
    Access, Context, Launch, MsrBitmap, OperandSize, Options, PhysicalMemory, Registers, Vmcs, Vmx,
    VmxProfile,
};

/// Files of the crate's own profiles.
fn profiles() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|file| fs::read(file).unwrap())
        .collect()
}

/// Text that enters on a Skylake.
const GUEST: &str = "\
revision 0x4
state clear
PIN_BASED_VM_EXEC_CONTROL 0x16
CPU_BASED_VM_EXEC_CONTROL 0x14006172
VM_EXIT_CONTROLS 0x36dff
VM_ENTRY_CONTROLS 0x11ff
VM_ENTRY_MSR_LOAD_COUNT 3
VM_ENTRY_MSR_LOAD_ADDR 0x8010
VM_EXIT_MSR_STORE_COUNT 2
VM_EXIT_MSR_STORE_ADDR 0x8010
MSR_BITMAP 0x3000
GUEST_IA32_DEBUGCTL 0x801
GUEST_RFLAGS 0x2
GUEST_RIP 0x401000
HOST_RIP 0xffff800000001000
";

/// One page that answers at every address.
struct Memory(Vec<u8>);

impl PhysicalMemory for Memory {
    fn read(&self, address: u64, bytes: &mut [u8]) {
        for (n, byte) in bytes.iter_mut().enumerate() {
            let at = (address as usize).wrapping_add(n);
            *byte = self
                .0
                .get(at % self.0.len().max(1))
                .copied()
                .unwrap_or(0xff);
        }
    }

    fn write(&mut self, address: u64, bytes: &[u8]) {
        let length = self.0.len();
        for (n, byte) in bytes.iter().enumerate() {
            self.0[(address as usize).wrapping_add(n) % length] = *byte;
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("#GP(0)")]
struct Gp;

/// Registers of which every second exists.
struct Msrs;

impl MsrAccess for Msrs {
    type Fault = Gp;

    fn rdmsr(&mut self, msr: Msr) -> Result<u64, Gp> {
        match msr.value() % 2 {
            1 => Ok(msr.value().into()),
            _ => Err(Gp),
        }
    }

    fn wrmsr(&mut self, msr: Msr, _: u64) -> Result<(), Gp> {
        self.rdmsr(msr).map(drop)
    }

    fn reserved_bits(&self, _: Msr) -> u64 {
        0xffff_0000
    }
}

/// Entry, and exit if it entered, with these fields and this page.
fn run(profile: &VmxProfile, vmcs: &Vmcs, page: &[u8]) {
    let mut page = page.to_vec();
    page.resize(4096, 0xff);
    let mut memory = Memory(page);
    let mut vmx = Vmx::new(profile, Options::default());
    let revision = profile.basic().revision().to_le_bytes();
    memory.write(0x1000, &revision);
    vmx.vmxon(&memory, 0x1000).unwrap();
    memory.write(0x2000, &revision);
    vmx.vmptrld(&memory, 0x2000).unwrap();
    for (field, value) in vmcs.fields() {
        let _ = vmx.vmwrite(field, value, OperandSize::Bits64);
    }
    let (mut registers, mut ledger) = (Registers::default(), Ledger::new());
    let mut context = Context {
        msrs: &mut Msrs,
        memory: &mut memory,
        registers: &mut registers,
        ledger: &mut ledger,
        tsc: 0,
    };
    if vmx
        .enter(Launch::Launch, Interruptibility::default(), &mut context)
        .is_ok()
    {
        for msr in [0x1d9, 0x2000, 0xc000_0100] {
            let _ = vmx.intercepts_msr(Msr::new(msr), Access::Write, context.memory);
        }
        let exit = vmx.preemption_timer(u64::MAX).unwrap();
        let hlt = vlbr_vmx::VmExit::new(vlbr_arch::vmx::ExitReason::HLT);
        let _ = vmx.exit(&exit.unwrap_or(hlt), &mut context);
    }
}

fn skylake() -> &'static VmxProfile {
    VmxProfile::of_processor("skylake").unwrap()
}

#[test]
fn fuzz_vmcs() {
    let page = [0x1d; 4096];
    let tally = throw("VMCS", 10_000, Form::Text, &[GUEST.into()], |bytes| {
        let text = str::from_utf8(bytes).ok();
        let Some(vmcs) = text.and_then(|text| text.parse::<Vmcs>().ok()) else {
            return false;
        };
        assert_eq!(vmcs.to_string().parse(), Ok(vmcs.clone()));
        run(skylake(), &vmcs, &page);
        true
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}

#[test]
fn fuzz_bitmap() {
    let seed = MsrBitmap::intercepting_none().as_page().to_vec();
    let tally = throw("MSR bitmap", 3000, Form::Binary, &[seed], |bytes| {
        let Ok(bitmap) = MsrBitmap::from_page(bytes) else {
            return false;
        };
        assert_eq!(bitmap.as_page().as_slice(), bytes);
        let passed = bitmap.passed(Access::Read).count() + bitmap.passed(Access::Write).count();
        let zeros: u32 = bytes.iter().map(|byte| byte.count_zeros()).sum();
        assert_eq!(passed, zeros as usize);
        true
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}

#[test]
fn fuzz_areas() {
    let entry = |msr: u32| [&u64::from(msr).to_le_bytes()[..], &[0; 8]].concat();
    let seed = [entry(0x1d9), entry(0x1c9), entry(0x681)]
        .concat()
        .repeat(86)[..4096]
        .to_vec();
    let vmcs: Vmcs = GUEST.parse().unwrap();
    let tally = throw("MSR areas", 5000, Form::Binary, &[seed], |bytes| {
        run(skylake(), &vmcs, bytes);
        true
    });
    assert!(tally.taken > 0);
}

#[test]
fn fuzz_vmx_profile() {
    let vmcs: Vmcs = GUEST.parse().unwrap();
    let tally = throw("VMX profile", 2000, Form::Text, &profiles(), |bytes| {
        let text = str::from_utf8(bytes).ok();
        let Some(profile) = text.and_then(|text| VmxProfile::from_toml(text).ok()) else {
            return false;
        };
        for (field, ..) in VmcsField::NAMED {
            let _ = profile.has_field(field.high());
        }
        run(&profile, &vmcs, &[0xff; 4096]);
        true
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}

#[test]
fn fuzz_vmx_options() {
    let seed =
        "physical_address_bits = 39\narea_beyond_limit = \"process\"\narea_banned = [0x79]\n";
    let tally = throw("VMX options", 1000, Form::Text, &[seed.into()], |bytes| {
        str::from_utf8(bytes).is_ok_and(|text| Options::from_toml(text).is_ok())
    });
    assert!(tally.taken > 0 && tally.refused > 0);
}
