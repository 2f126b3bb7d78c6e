//! Lines of recordings: every form that is read, and every wrong one with what is said of it.

use std::io::BufReader;
use std::path::Path;

use vlbr_scene::import::{Import, ImportError, ImportOptions, LineError, TextKind};

fn read(text: &str, kind: Option<TextKind>) -> Result<Import, ImportError> {
    let mut import = Import::new(kind);
    let mut reader = BufReader::new(text.as_bytes());
    import.read(Path::new("recorded.txt"), &mut reader)?;
    Ok(import)
}

/// What is said of a text, on which line.
fn refused(text: &str, kind: Option<TextKind>) -> (u64, LineError) {
    match read(text, kind) {
        Err(ImportError::Line { path, line, error }) => {
            assert_eq!(path, Path::new("recorded.txt"));
            (line, error)
        }
        other => panic!("{text:?}: {other:?}"),
    }
}

/// Imports two lines around this one, and says what was counted: events, skipped, lost, exits.
fn counted(line: &str) -> (u64, usize, u64, u64) {
    let perf = line.contains(" kvm:") || line.contains(" sched:") || line.contains(" cycles");
    let text = match perf || line.contains("PERF_RECORD") {
        true => format!(
            "qemu  7/8 [001] 1.000000: kvm:kvm_exit: vcpu 0 reason HLT rip 0x1\n{line}\n\
             qemu  7/8 [001] 9.000000: kvm:kvm_exit: vcpu 0 reason HLT rip 0x1\n"
        ),
        false => format!(
            "qemu-8 [001] 1.000000: kvm_exit: vcpu 0 reason HLT rip 0x1\n{line}\n\
             qemu-8 [001] 9.000000: kvm_exit: vcpu 0 reason HLT rip 0x1\n"
        ),
    };
    let import = read(&text, None).unwrap_or_else(|error| panic!("{line}: {error}"));
    let summary = import.finish(&ImportOptions::default()).unwrap().summary;
    let exits = summary.vcpus.iter().map(|vcpu| vcpu.exit_count).sum();
    let skipped = summary.skipped.len();
    (summary.events, skipped, summary.lost, exits)
}

#[test]
fn every_form_of_an_event_is_read() {
    let exits = [
        // perf script: thread only; process and thread; nanoseconds; period; names with blanks.
        " CPU 0/KVM  1240 [003] 2.550637: kvm:kvm_exit: reason EXTERNAL_INTERRUPT rip 0xffffffff81c01f58 info 0 800000fd",
        " CPU 0/KVM  1234/1240 [003]     2.550637123:   kvm:kvm_exit: vcpu 3 reason MSR_WRITE rip 0x1 info1 \
         0x0000000000000000 info2 0x0000000000000000 intr_info 0x00000000 error_code 0x00000000",
        "fc_vcpu 1  599500 [039] 2.550600:          1  kvm:kvm_exit:  vcpu 1 reason EPT_VIOLATION rip 0x2 info1 0x181 \
         info2 0x0 intr_info 0x0 error_code 0x0 requests 0x0000000000000000",
        "odd [012] name  12/13 [000] 2.550600: kvm:kvm_exit: reason UNKNOWN (74) rip 0x1 func+0x10 info 0 0",
        ":1240  1240 [003] 2.550637: kvm:kvm_exit: reason 0x4b rip 0x1",
        "1240 [003] 2.550637: kvm:kvm_exit: reason CPUID rip 0x1",
        // trace-cmd: without and with flags, with the process, as `trace` of the kernel, with -l.
        " CPU 0/KVM-1240  [003]     2.550637: kvm_exit:             reason HLT rip 0xffffffff8104e52b info 0 0",
        " CPU 0/KVM-1240  [003] d..1.     2.550637: kvm_exit:             vcpu 0 reason HLT rip 0x1 info1 0x0 info2 0x0",
        "           <...>-1240    (   1234) [003] d.... 2.550637123: kvm_exit: reason PAUSE_INSTRUCTION rip 0x1 info 0 0",
        "           <...>-1240    (-------) [003] d.... 2.550637: kvm_exit: reason XSETBV rip 0x1",
        "CPU 0/KV-1240    3d..1. 2.550637: kvm_exit: reason WBINVD rip 0x1 info 0 0",
        "a-b-1240 [003] .N.. 2.550637: kvm_exit: reason PENDING_INTERRUPT rip 0x1 info 0 0",
    ];
    for line in exits {
        assert_eq!(counted(line), (3, 0, 0, 3), "{line}");
    }
    let others = [
        " CPU 0/KVM  1240 [003] 2.5: ",
        " CPU 0/KVM  1240 [003] 2.550637: kvm:kvm_entry: vcpu 0",
        " CPU 0/KVM  1240 [003] 2.550637: kvm:kvm_entry:  vcpu 0 rip 0xffffffff81036706",
        " CPU 0/KVM  1240 [003] 2.550637: kvm:kvm_entry: vcpu 0, rip 0x1 intr_info 0x0 error_code 0x0 [immediate exit]",
        " CPU 0/KVM  1240 [003] 2.550637: kvm:kvm_msr: msr_write 6e0 = 0x10e8aebe830c9e",
        " CPU 0/KVM  1240 [003] 2.550637: kvm:kvm_msr: msr_read 1d9 = 0x0 (#GP)",
        " CPU 0/KVM  1240 [003] 2.550637: kvm:kvm_userspace_exit: reason restart (4)",
        "   swapper     0 [003] 2.550637: sched:sched_switch: prev_comm=swapper/3 prev_pid=0 prev_prio=120 prev_state=R \
         ==> next_comm=CPU 0/KVM next_pid=1240 next_prio=120",
        "   swapper     0 [003] 2.550637: sched:sched_switch: swapper/3:0 [120] R ==> CPU 0/KVM:1240 [120]",
        "       irq  30 [003] 2.550637: sched:sched_switch: irq/9-acpi:30 [-51] D|K ==> x ==> y:1240 [120]",
        "   swapper     0 [003] 2.550637: sched:sched_migrate_task: comm=CPU 0/KVM pid=1240 prio=120 orig_cpu=0 dest_cpu=1",
        " CPU 0/KVM-1240  [003] d..3 2.550637: sched_switch:         CPU 0/KVM:1240 [120] S ==> swapper/3:0 [120]",
        "    <idle>-0     [003] d..2 2.550637: sched_switch: prev_comm=swapper/3 prev_pid=0 prev_prio=120 prev_state=R+ ==> \
         next_comm=a ==> b next_pid=5 next_prio=98",
    ];
    for line in &others[1..] {
        assert_eq!(counted(line), (3, 0, 0, 2), "{line}");
    }
}

#[test]
fn other_events_and_lines_are_counted_or_passed_over() {
    for line in [
        " CPU 0/KVM  1240 [003] 2.550637: kvm:kvm_pio: pio_write at 0x70 size 1 count 1 val 0x8f",
        " CPU 0/KVM  1240 [003] 2.550637:     250000 cycles:P:  ffffffff8104e52b vmx_vcpu_run+0x1 ([kernel.kallsyms])",
        " CPU 0/KVM-1240  [003] 2.550637: kvm_pio:              pio_write at 0x70 size 1 count 1 val 0x8f",
        " CPU 0/KVM  1240 [003] 2.550637: PERF_RECORD_SWITCH OUT cycles",
    ] {
        assert_eq!(counted(line), (3, 1, 0, 2), "{line}");
    }
    for line in [
        "",
        "   ",
        "# tracer: nop",
        "\tffffffff8104e52b vmx_vcpu_run+0x1 (/lib/modules/kvm-intel.ko) kvm:",
        "version = 7",
        "CPU 3 is empty",
        " => vmx_vcpu_run",
        "cpus=8",
    ] {
        assert_eq!(counted(line), (2, 0, 0, 2), "{line}");
    }
    assert_eq!(counted("CPU:3 [LOST 17 EVENTS]").2, 17);
    assert_eq!(counted("CPU:3 [EVENTS DROPPED]").2, 1);
    let lost = " qemu  7/8 [003] 2.550637: PERF_RECORD_LOST lost 12";
    assert_eq!(counted(lost).2, 12);
}

#[test]
fn every_wrong_line_is_refused_with_its_reason() {
    let perf = |text: &str| format!("qemu  7/8 [001] 2.000000: {text}");
    let field = |event, needed, at: &str| LineError::Field {
        event,
        needed,
        at: at.to_owned(),
    };
    let cases = [
        // What stands before the event.
        (
            "qemu 7/8 2.000000: kvm:kvm_exit: reason HLT rip 0x1".to_owned(),
            LineError::NoCpu,
        ),
        ("nonsense".to_owned(), LineError::NoCpu),
        (
            "qemu 7/8 [1x] 2.000000: kvm:kvm_exit: reason HLT rip 0x1".to_owned(),
            LineError::NoCpu,
        ),
        (
            "qemu 7/8 [1024] 2.000000: kvm:a:".to_owned(),
            LineError::Cpu("1024".to_owned()),
        ),
        (
            "qemu 7/8 [99999] 2.000000: kvm:a:".to_owned(),
            LineError::Cpu("99999".to_owned()),
        ),
        (
            "qemu [001] 2.000000: kvm:a:".to_owned(),
            LineError::Task("qemu".to_owned()),
        ),
        (
            "[001] 2.000000: kvm:a:".to_owned(),
            LineError::Task(String::new()),
        ),
        (
            "qemu 7/x [001] 2.000000: kvm:a:".to_owned(),
            LineError::Task("qemu 7/x".to_owned()),
        ),
        (
            "qemu-99999999999 [001] 2.000000: a:".to_owned(),
            LineError::Task("qemu-99999999999".to_owned()),
        ),
        (
            "host.dat:  CPU 0/KVM-8 [001] 2.000000: a:".to_owned(),
            LineError::Task("host.dat:  CPU 0/KVM-8".to_owned()),
        ),
        (
            "qemu-8 (x) [001] 2.000000: a:".to_owned(),
            LineError::Task("qemu-8 (x)".to_owned()),
        ),
        (
            "qemu 7/8 [001] 2: kvm:a:".to_owned(),
            LineError::Time("2".to_owned()),
        ),
        (
            "qemu 7/8 [001] 2.00: kvm:a:".to_owned(),
            LineError::Time("2.00".to_owned()),
        ),
        (
            "qemu 7/8 [001] -2.000000: kvm:a:".to_owned(),
            LineError::Time("-2.000000".to_owned()),
        ),
        (
            "qemu 7/8 [001] 2.0000000000: kvm:a:".to_owned(),
            LineError::Time("2.0000000000".to_owned()),
        ),
        (
            "qemu 7/8 [001] 99999999999.000000: kvm:a:".to_owned(),
            LineError::Time("99999999999.000000".to_owned()),
        ),
        ("qemu 7/8 [001] ".to_owned(), LineError::Time(String::new())),
        (
            "qemu 7/8 [001] d..1 x y z 2.000000: a:".to_owned(),
            LineError::Time("d..1".to_owned()),
        ),
        (perf(""), LineError::NoEvent),
        (perf("kvm:kvm_exit reason HLT"), LineError::NoEvent),
        (perf("kvm:: reason HLT"), LineError::NoEvent),
        ("cpus=0".to_owned(), LineError::Cpus("0".to_owned())),
        ("cpus=1025".to_owned(), LineError::Cpus("1025".to_owned())),
        ("cpus=many".to_owned(), LineError::Cpus("many".to_owned())),
        (
            "CPU:3 [LOST many EVENTS]".to_owned(),
            LineError::Lost("many".to_owned()),
        ),
        (
            perf("PERF_RECORD_LOST lost"),
            LineError::Lost("lost".to_owned()),
        ),
        // kvm_entry.
        (perf("kvm:kvm_entry: "), field("kvm_entry", "vcpu", "")),
        (
            perf("kvm:kvm_entry: vcpu x"),
            field("kvm_entry", "the number of the vCPU", "x"),
        ),
        (
            perf("kvm:kvm_entry: vcpu 0, rip"),
            field("kvm_entry", "the address of rip", ""),
        ),
        (
            perf("kvm:kvm_entry: vcpu 0, rip 0xz"),
            field("kvm_entry", "the address of rip", "0xz"),
        ),
        (
            perf("kvm:kvm_entry: vcpu 0, pc 0x1"),
            field("kvm_entry", "rip", "pc 0x1"),
        ),
        // kvm_exit.
        (perf("kvm:kvm_exit: "), field("kvm_exit", "reason", "")),
        (
            perf("kvm:kvm_exit: vcpu"),
            field("kvm_exit", "the number of the vCPU", ""),
        ),
        (
            perf("kvm:kvm_exit: vcpu 0"),
            field("kvm_exit", "reason", ""),
        ),
        (
            perf("kvm:kvm_exit: reason"),
            field("kvm_exit", "the reason", ""),
        ),
        (
            perf("kvm:kvm_exit: reason rip 0x1"),
            field("kvm_exit", "the reason", "rip 0x1"),
        ),
        (
            perf("kvm:kvm_exit: reason HLT"),
            field("kvm_exit", "rip", ""),
        ),
        (
            perf("kvm:kvm_exit: reason HLT pc 0x1"),
            field("kvm_exit", "rip", "pc 0x1"),
        ),
        (
            perf("kvm:kvm_exit: reason HLT rip x"),
            field("kvm_exit", "the address of rip", "x"),
        ),
        (
            perf("kvm:kvm_exit: reason HLT rip 0x1 info 0"),
            field("kvm_exit", "the second number of info", ""),
        ),
        (
            perf("kvm:kvm_exit: reason HLT rip 0x1 info1 0x0 info2"),
            field("kvm_exit", "a number", ""),
        ),
        (
            perf("kvm:kvm_exit: reason UNKNOWN rip 0x1"),
            field("kvm_exit", "the number of the reason", "rip 0x1"),
        ),
        (
            perf("kvm:kvm_exit: reason UNKNOWN (1024) rip 0x1"),
            LineError::Reason("UNKNOWN (1024)".to_owned()),
        ),
        (
            perf("kvm:kvm_exit: reason HALT rip 0x1"),
            LineError::Reason("HALT".to_owned()),
        ),
        (
            perf("kvm:kvm_exit: reason 0x400 rip 0x1"),
            LineError::Reason("0x400".to_owned()),
        ),
        (
            perf("kvm:kvm_exit: vcpu 0 reason npf rip 0x4ad5"),
            LineError::Svm("npf".to_owned()),
        ),
        (
            perf("kvm:kvm_exit: reason PF excp rip 0x1"),
            LineError::Svm("PF".to_owned()),
        ),
        (
            perf("kvm:kvm_exit: reason EXIT_NPF rip 0x1"),
            LineError::Svm("EXIT_NPF".to_owned()),
        ),
        // kvm_msr, kvm_userspace_exit.
        (
            perf("kvm:kvm_msr: write 6e0 = 0x1"),
            field("kvm_msr", "msr_read", "write 6e0 = 0x1"),
        ),
        (
            perf("kvm:kvm_msr: msr_write xyz = 0x1"),
            field("kvm_msr", "the number of the MSR", "xyz = 0x1"),
        ),
        (
            perf("kvm:kvm_msr: msr_write 1c8000006e0 = 0x1"),
            field("kvm_msr", "the number of the MSR", "1c8000006e0 = 0x1"),
        ),
        (
            perf("kvm:kvm_msr: msr_write 6e0 0x1"),
            field("kvm_msr", "=", "0x1"),
        ),
        (
            perf("kvm:kvm_msr: msr_write 6e0 ="),
            field("kvm_msr", "the value", ""),
        ),
        (
            perf("kvm:kvm_msr: msr_write 6e0 = 0x1 (#G"),
            field("kvm_msr", "(#GP) or the end", "(#G"),
        ),
        (
            perf("kvm:kvm_userspace_exit: KVM_EXIT_IO"),
            field("kvm_userspace_exit", "reason", "KVM_EXIT_IO"),
        ),
        (
            perf("kvm:kvm_userspace_exit: reason"),
            field("kvm_userspace_exit", "the reason", ""),
        ),
        // sched_switch.
        (
            perf("sched:sched_switch: prev_comm=a prev_pid=1 prev_prio=120 prev_state=R"),
            field(
                "sched_switch",
                "==>",
                "a prev_pid=1 prev_prio=120 prev_state=R",
            ),
        ),
        (
            perf(
                "sched:sched_switch: prev_comm=a prev_pid=1 prev_prio=120 ==> next_comm=b next_pid=2 next_prio=1",
            ),
            field("sched_switch", "prev_state=", "a prev_pid=1 prev_prio=120"),
        ),
        (
            perf(
                "sched:sched_switch: prev_comm=a prev_prio=120 prev_state=R ==> next_comm=b next_pid=2 next_prio=1",
            ),
            field("sched_switch", " prev_pid=", "a prev_prio=120"),
        ),
        (
            perf(
                "sched:sched_switch: prev_comm=a prev_pid=1 prev_state=R ==> next_comm=b next_pid=2 next_prio=1",
            ),
            field("sched_switch", " prev_prio=", "a prev_pid=1"),
        ),
        (
            perf(
                "sched:sched_switch: prev_comm=a prev_pid=1 prev_prio=1 prev_state=? ==> next_comm=b next_pid=2 next_prio=1",
            ),
            field("sched_switch", "the state", "?"),
        ),
        (
            perf(
                "sched:sched_switch: prev_comm=a prev_pid=1 prev_prio=1 prev_state=R ==> next_comm=b next_prio=1",
            ),
            field("sched_switch", " next_pid=", "b next_prio=1"),
        ),
        (
            perf(
                "sched:sched_switch: prev_comm=a prev_pid=1 prev_prio=1 prev_state=R ==> next_comm=b next_pid=2",
            ),
            field("sched_switch", " next_prio=", "b next_pid=2"),
        ),
        (
            perf(
                "sched:sched_switch: prev_comm=a prev_pid=1 prev_prio=1 prev_state=R ==> next_comm=b next_pid=x next_prio=1",
            ),
            field("sched_switch", " next_pid=", "b next_pid=x next_prio=1"),
        ),
        (
            perf("sched:sched_switch: a:1 [120] R b:2 [120]"),
            field("sched_switch", "==>", "a:1 [120] R b:2 [120]"),
        ),
        (
            perf("sched:sched_switch: a:1 [120] ! ==> b:2 [120]"),
            field("sched_switch", "the state", "!"),
        ),
        (
            perf("sched:sched_switch: a:1 R ==> b:2 [120]"),
            field("sched_switch", "NAME:TID [PRIORITY]", "a:1"),
        ),
        (
            perf("sched:sched_switch: a:1 [120] R ==> b [120]"),
            field("sched_switch", "NAME:TID [PRIORITY]", "b [120]"),
        ),
        (
            perf("sched:sched_switch: a:1 [120] R ==> b:2 [12"),
            field("sched_switch", "NAME:TID [PRIORITY]", "b:2 [12"),
        ),
        // sched_migrate_task.
        (
            perf("sched:sched_migrate_task: pid=1"),
            field("sched_migrate_task", "comm=", "pid=1"),
        ),
        (
            perf("sched:sched_migrate_task: comm=a pid=1 prio=1 orig_cpu=0"),
            field(
                "sched_migrate_task",
                "dest_cpu=",
                "comm=a pid=1 prio=1 orig_cpu=0",
            ),
        ),
        (
            perf("sched:sched_migrate_task: comm=a pid=1 prio=1 orig_cpu=x dest_cpu=1"),
            field(
                "sched_migrate_task",
                "orig_cpu=",
                "comm=a pid=1 prio=1 orig_cpu=x dest_cpu=...",
            ),
        ),
    ];
    let mut wrong = Vec::new();
    for (line, error) in cases {
        let said = refused(&format!("# a comment\n{line}\n"), None);
        if said != (2, error.clone()) {
            wrong.push(format!("{line}: {said:?}, not {error:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_text_that_ends_within_a_line_is_refused() {
    let line = "qemu 7/8 [001] 2.000000: kvm:kvm_exit: reason HLT rip 0x1";
    for end in [line.len(), line.len() - 1, 20, 1] {
        let text = format!("{line}\n{}", &line[..end]);
        assert_eq!(refused(&text, None), (2, LineError::Cut));
    }
    let long = format!("{line}\n{}\n", "x".repeat(1 << 15));
    assert_eq!(refused(&long, None), (2, LineError::TooLong(1 << 14)));
}

#[test]
fn time_that_runs_backwards_is_refused() {
    let exit = |thread, cpu, time| {
        format!("q  {thread} [{cpu}] {time}: kvm:kvm_exit: reason HLT rip 0x1\n")
    };
    let order = |at, before, on: &str| LineError::Order {
        at,
        before,
        on: on.to_owned(),
    };
    let cpu = exit(1, "001", "2.000000") + &exit(2, "001", "1.999999");
    assert_eq!(
        refused(&cpu, None),
        (2, order(1_999_999_000, 2_000_000_000, "cpu1"))
    );
    let start = exit(1, "001", "2.000000") + &exit(2, "002", "1.999999");
    assert_eq!(
        refused(&start, None),
        (2, order(1_999_999_000, 2_000_000_000, "cpu2"))
    );
    let thread =
        exit(9, "000", "1.000000") + &exit(1, "001", "2.000000") + &exit(1, "002", "1.500000");
    assert_eq!(
        refused(&thread, None),
        (3, order(1_500_000_000, 2_000_000_000, "thread 1"))
    );
    // On different processors lines may come in any order, and equal times are in order.
    let free =
        exit(9, "000", "1.000000") + &exit(1, "001", "2.000000") + &exit(2, "002", "1.500000");
    assert!(read(&(free + &exit(2, "002", "1.500000")), None).is_ok());
}

#[test]
fn a_line_of_the_other_tool_is_refused() {
    let perf = "q  1 [001] 2.000000: kvm:kvm_exit: reason HLT rip 0x1\n";
    let trace = "q-1 [001] 2.000000: kvm_exit: reason HLT rip 0x1\n";
    let wrong = |found, expected| LineError::Kind { found, expected };
    let (script, cmd) = (TextKind::PerfScript, TextKind::TraceCmd);
    assert_eq!(
        refused(&format!("{perf}{trace}"), None),
        (2, wrong(cmd, script))
    );
    assert_eq!(
        refused(&format!("{trace}{perf}"), None),
        (2, wrong(script, cmd))
    );
    assert_eq!(refused(perf, Some(cmd)), (1, wrong(script, cmd)));
    assert_eq!(refused(trace, Some(script)), (1, wrong(cmd, script)));
    assert_eq!(refused("cpus=4\n", Some(script)), (1, wrong(cmd, script)));
}

#[test]
fn a_thread_is_one_vcpu() {
    let entry = |vcpu| format!("q  1 [001] 2.000000: kvm:kvm_entry: vcpu {vcpu}, rip 0x1\n");
    let text = entry(3) + &entry(3) + &entry(4);
    let error = LineError::Vcpu {
        thread: 1,
        was: 3,
        is: 4,
    };
    assert_eq!(refused(&text, None), (3, error));
    let many: String = (0..4097)
        .map(|n| format!("q  {n} [001] 2.000000: kvm:kvm_entry: vcpu 0\n"))
        .collect();
    assert_eq!(refused(&many, None), (4097, LineError::TooManyVcpus(4096)));
}

#[test]
fn a_text_with_nothing_to_make_a_scene_of_is_refused() {
    let finish = |text: &str| read(text, None).unwrap().finish(&ImportOptions::default());
    for text in [
        "",
        "# nothing\n",
        "q  1 [001] 2.000000: kvm:kvm_entry: vcpu 0\n",
    ] {
        assert!(matches!(finish(text), Err(ImportError::NoExit)), "{text}");
    }
    let once = "q  1 [001] 2.000000: kvm:kvm_exit: reason HLT rip 0x1\n";
    assert!(matches!(finish(once), Err(ImportError::NoTime)));
    let text = format!("{once}{}", once.replace("2.0", "3.0"));
    let bad = |options| {
        read(&text, None)
            .unwrap()
            .finish(&options)
            .unwrap_err()
            .to_string()
    };
    let options = ImportOptions::default;
    let cases = [
        (
            ImportOptions {
                part: "skylark".to_owned(),
                ..options()
            },
            "skylark",
        ),
        (
            ImportOptions {
                ipc: f64::NAN,
                ..options()
            },
            "ipc",
        ),
        (
            ImportOptions {
                mhz: 0,
                ..options()
            },
            "ipc",
        ),
        (
            ImportOptions {
                guest_perf: Some("branches".to_owned()),
                ..options()
            },
            "guest-perf",
        ),
        (
            ImportOptions {
                duration_us: Some(u64::MAX >> 1),
                ..options()
            },
            "duration-us",
        ),
    ];
    for (options, said) in cases {
        assert!(bad(options).contains(said), "{said}");
    }
}

#[test]
fn threads_without_process_make_vms_by_the_numbers_of_their_vcpus() {
    let line = |thread, vcpu, time| {
        format!("q  {thread} [001] {time}.000000: kvm:kvm_exit: vcpu {vcpu} reason HLT rip 0x1\n")
    };
    let text: String = [(30, 1), (20, 0), (11, 1), (10, 0), (31, 2)]
        .into_iter()
        .enumerate()
        .map(|(n, (thread, vcpu))| line(thread, vcpu, n))
        .collect();
    let summary = read(&text, None)
        .unwrap()
        .finish(&ImportOptions::default())
        .unwrap()
        .summary;
    let vcpus: Vec<_> = summary
        .vcpus
        .iter()
        .map(|vcpu| (vcpu.thread, vcpu.vm.as_str()))
        .collect();
    let expected = [
        (10, "vm0"),
        (11, "vm0"),
        (20, "vm1"),
        (30, "vm1"),
        (31, "vm1"),
    ];
    assert_eq!(vcpus, expected);
}
