//! The preemption timer.

use proptest::prelude::*;
use vlbr_arch::vmx::{ExitControls, ExitReason, PinControls, VmcsField};
use vlbr_vmx::{PreemptionTimer, VmExit};

use crate::common::Machine;

fn ready(cpu: &str, value: u64, save: bool) -> Machine {
    let mut machine = Machine::ready(cpu);
    let activate = PinControls::ACTIVATE_PREEMPTION_TIMER;
    machine.set(VmcsField::PIN_BASED_VM_EXEC_CONTROL, activate.bits());
    if save {
        let save = ExitControls::SAVE_PREEMPTION_TIMER;
        machine.set(VmcsField::VM_EXIT_CONTROLS, save.bits());
    }
    machine.write(VmcsField::VMX_PREEMPTION_TIMER_VALUE, value);
    machine
}

#[test]
fn it_counts_down_when_the_tsc_bit_of_the_generation_changes() {
    for (cpu, shift) in [
        ("ivy-bridge", 5),
        ("broadwell", 5),
        ("silvermont", 6),
        ("skylake", 7),
        ("goldmont", 7),
        ("alder-lake-p", 7),
    ] {
        let mut machine = ready(cpu, 3, false);
        let period = 1u64 << shift;
        machine.tsc = 10 * period + 1;
        machine.launch().unwrap();
        assert_eq!(
            machine.vmx.preemption_deadline(),
            Ok(Some(13 * period)),
            "{cpu}"
        );
        assert_eq!(machine.vmx.preemption_timer(13 * period - 1), Ok(None));
        let exit = machine.vmx.preemption_timer(13 * period).unwrap();
        assert_eq!(exit, Some(VmExit::new(ExitReason::PREEMPTION_TIMER)));
    }
}

#[test]
fn a_value_of_0_exits_before_the_first_instruction() {
    let mut machine = ready("skylake", 0, false);
    machine.tsc = 12345;
    machine.launch().unwrap();
    assert!(machine.vmx.preemption_timer(12345).unwrap().is_some());
}

#[test]
fn it_does_not_run_without_its_control() {
    let mut machine = Machine::ready("skylake");
    machine.write(VmcsField::VMX_PREEMPTION_TIMER_VALUE, 1);
    machine.launch().unwrap();
    assert_eq!(machine.vmx.preemption_timer(u64::MAX), Ok(None));
    assert_eq!(machine.vmx.preemption_deadline(), Ok(None));
}

#[test]
fn exit_saves_what_remains_only_if_told_to() {
    for (save, elapsed, expected) in [
        (true, 2 * 128, 98),
        (true, 1 << 20, 0),
        (false, 2 * 128, 100),
    ] {
        let mut machine = ready("skylake", 100, save);
        machine.launch().unwrap();
        machine.tsc += elapsed;
        machine.hlt();
        assert_eq!(
            machine.read(VmcsField::VMX_PREEMPTION_TIMER_VALUE),
            expected
        );
    }
}

#[test]
fn it_stops_in_root_operation_and_starts_again_at_entry() {
    let mut machine = ready("skylake", 100, true);
    machine.launch().unwrap();
    machine.tsc += 1280;
    machine.hlt();
    machine.tsc += 1 << 30;
    machine.resume().unwrap();
    assert_eq!(
        machine.vmx.preemption_deadline(),
        Ok(Some(machine.tsc + 90 * 128))
    );
}

proptest! {
    /// Against a walk over every TSC value.
    #[test]
    fn the_deadline_is_the_first_tsc_at_which_it_reads_0(
        value in 0u32..40, start in 0u64..1000, shift in 0u32..6,
    ) {
        let timer = PreemptionTimer::new(value, start, shift);
        let (mut tsc, mut left) = (start, value);
        while left > 0 {
            tsc += 1;
            if (tsc ^ (tsc - 1)) >> shift & 1 == 1 {
                left -= 1;
            }
            prop_assert_eq!(timer.remaining(tsc), left);
        }
        prop_assert_eq!(timer.deadline(), Some(tsc));
    }
}
