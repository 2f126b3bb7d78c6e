//! A VMCS as text.

use proptest::prelude::*;
use vlbr_arch::vmx::VmcsField;
use vlbr_vmx::{DumpError, LaunchState, Vmcs};

#[test]
fn fields_go_by_name_or_encoding() {
    let text = "# of a guest\nrevision 0x4\nstate launched\nGUEST_IA32_DEBUGCTL 0x801 # LBR\n\n0x400c 0x36fff\nVIRTUAL_PROCESSOR_ID 7\n";
    let vmcs: Vmcs = text.parse().unwrap();
    assert_eq!(vmcs.revision(), 4);
    assert_eq!(vmcs.launch_state(), LaunchState::Launched);
    let fields: Vec<_> = vmcs.fields().collect();
    let expected = [
        (VmcsField::VIRTUAL_PROCESSOR_ID, 7),
        (VmcsField::GUEST_IA32_DEBUGCTL, 0x801),
        (VmcsField::VM_EXIT_CONTROLS, 0x3_6fff),
    ];
    assert_eq!(fields, expected);
    assert_eq!(
        vmcs.to_string(),
        "revision 0x4\nstate launched\nVIRTUAL_PROCESSOR_ID 0x7\nGUEST_IA32_DEBUGCTL 0x801\nVM_EXIT_CONTROLS 0x36fff\n"
    );
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let name = |name: &str| name.to_owned();
    for (text, expected) in [
        ("", DumpError::Revision),
        ("revision 0x80000004", DumpError::Revision),
        ("revision 0x100000004", DumpError::Revision),
        ("revision 4\nVPID", DumpError::Form { line: 2 }),
        (
            "revision 4\nVIRTUAL_PROCESSOR_ID 1 2",
            DumpError::Form { line: 2 },
        ),
        ("state lunched", DumpError::Form { line: 1 }),
        (
            "revision 4\nVPIT 1",
            DumpError::UnknownField {
                line: 2,
                name: name("VPIT"),
            },
        ),
        (
            "0x2803 1",
            DumpError::UnknownField {
                line: 1,
                name: name("0x2803"),
            },
        ),
        (
            "0x9999 1",
            DumpError::UnknownField {
                line: 1,
                name: name("0x9999"),
            },
        ),
        (
            "VIRTUAL_PROCESSOR_ID +1",
            DumpError::Number {
                line: 1,
                value: name("+1"),
            },
        ),
        (
            "VIRTUAL_PROCESSOR_ID 0x+1",
            DumpError::Number {
                line: 1,
                value: name("0x+1"),
            },
        ),
        (
            "VIRTUAL_PROCESSOR_ID 0x",
            DumpError::Number {
                line: 1,
                value: name("0x"),
            },
        ),
        (
            "VIRTUAL_PROCESSOR_ID -1",
            DumpError::Number {
                line: 1,
                value: name("-1"),
            },
        ),
        (
            "GUEST_RIP 0x10000000000000000",
            DumpError::Number {
                line: 1,
                value: name("0x10000000000000000"),
            },
        ),
        (
            "VIRTUAL_PROCESSOR_ID 0x10000",
            DumpError::Width {
                line: 1,
                field: VmcsField::VIRTUAL_PROCESSOR_ID,
                bits: 16,
                value: 0x10000,
            },
        ),
        (
            "VM_EXIT_CONTROLS 0x100000000",
            DumpError::Width {
                line: 1,
                field: VmcsField::VM_EXIT_CONTROLS,
                bits: 32,
                value: 1 << 32,
            },
        ),
        (
            "VIRTUAL_PROCESSOR_ID 1\n0x0 1",
            DumpError::Twice {
                line: 2,
                name: name("0x0"),
            },
        ),
        (
            "revision 1\nrevision 1",
            DumpError::Twice {
                line: 2,
                name: name("revision"),
            },
        ),
        (
            "state clear\nstate clear",
            DumpError::Twice {
                line: 2,
                name: name("state"),
            },
        ),
    ] {
        assert_eq!(text.parse::<Vmcs>(), Err(expected), "{text:?}");
    }
}

proptest! {
    #[test]
    fn every_vmcs_reads_back(
        revision in 0u32..1 << 31,
        values in prop::collection::vec((0..VmcsField::NAMED.len(), any::<u64>()), 0..60),
    ) {
        let mut vmcs = Vmcs::new(revision);
        for (n, value) in values {
            vmcs.set(VmcsField::NAMED[n].0, value);
        }
        prop_assert_eq!(vmcs.to_string().parse(), Ok(vmcs));
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "(revision|state|VIRTUAL_PROCESSOR_ID|GUEST_RIP|0x[0-9a-f]{1,5}|[ \n#]|[0-9x]{1,20}){0,40}") {
        if let Ok(vmcs) = text.parse::<Vmcs>() {
            prop_assert_eq!(vmcs.to_string().parse(), Ok(vmcs));
        }
    }
}
