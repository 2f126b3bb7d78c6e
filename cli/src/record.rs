//! `vlbr record`

use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::IsTerminal;
use vlbr_traces::qemu::{self, GuestEnd};
use vlbr_traces::record::{self, Engine, Machine, Outcome as Recorded, Progress, RecordOptions};

use crate::args::{EngineArg, RecordArgs};
use crate::common::{Outcome, count};

/// A flag that SIGINT, SIGTERM and SIGHUP set.
pub(crate) fn stop_flag() -> Result<Arc<AtomicBool>, io::Error> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// Runs the subcommand.
pub(crate) fn run(args: &RecordArgs) -> Outcome {
    let stop = stop_flag()?;
    let mut options = RecordOptions::new(args.output.clone());
    options.overwrite = args.force;
    options.memory = args.mem;
    options.level = args.level;
    options.extra = args.qemu_arg.iter().map(Into::into).collect();
    let bar = bar();
    let show = |progress: &Progress| {
        let seconds = progress.elapsed.as_secs_f64().max(1e-3);
        bar.set_message(format!(
            "recording: {} instructions, {} million a second, {} written, {} process(es), {} thread(s)",
            HumanCount(progress.instructions),
            HumanCount((progress.instructions as f64 / seconds / 1e6) as u64),
            HumanBytes(progress.bytes),
            progress.processes,
            progress.streams
        ));
    };
    let recorded = match &args.kernel {
        Some(kernel) => {
            let mut machine = Machine::new(kernel.clone());
            machine.initrd.clone_from(&args.initrd);
            machine.append = args.append.clone().map(Into::into);
            machine.memory_mib = args.memory;
            machine.smp = args.smp;
            machine.kallsyms.clone_from(&args.symbols);
            record::record_system(&options, &machine, &stop, &show)?
        }
        None => {
            let engine = match args.engine {
                EngineArg::Auto => Engine::Auto,
                EngineArg::Qemu => Engine::Qemu,
                EngineArg::Ptrace => Engine::Ptrace,
            };
            if let (EngineArg::Auto, Some(why)) = (args.engine, no_qemu()) {
                eprintln!("vlbr: single-stepping with ptrace, which is slow: {why}");
            }
            let (program, arguments) = args.program.split_first().ok_or("no program to record")?;
            record::record_user(engine, &options, program, arguments, &stop, &show)?
        }
    };
    bar.finish_and_clear();
    report(&recorded, args);
    Ok(status(&recorded))
}

/// Why QEMU cannot record.
fn no_qemu() -> Option<qemu::Error> {
    qemu::find_qemu(false)
        .err()
        .or_else(|| qemu::find_plugin().err())
}

fn bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// What was recorded, in the manner of perf record.
fn report(recorded: &Recorded, args: &RecordArgs) {
    eprintln!(
        "[ vlbr record: {} instructions of {} process(es), {} thread(s), by {} -> {} ({}{}) ]",
        count(recorded.stats.retired),
        recorded.processes,
        recorded.streams,
        recorded.engine,
        args.output.display(),
        HumanBytes(recorded.size),
        if recorded.stats.retired == 0 {
            String::new()
        } else {
            let bits = 8.0 * recorded.size as f64 / recorded.stats.retired as f64;
            format!(", {bits:.3} bit per instruction")
        }
    );
    let problems = recorded.stats.problems();
    if problems > 0 {
        eprintln!(
            "vlbr: {} places are guessed or missing: {} gaps, {} undecodable blocks, {} interrupts \
             without a return, {} changes of code size without a far transfer",
            count(problems),
            recorded.stats.gaps,
            recorded.stats.undecodable,
            recorded.stats.unpaired_events,
            recorded.stats.size_surprises
        );
    }
    for lost in &recorded.lost {
        eprintln!("vlbr: not recorded: {}", lost.what);
    }
    if recorded.stopped {
        eprintln!("vlbr: stopped; what ran until then is in the trace");
    } else if let Some(GuestEnd::Signaled(signal)) = recorded.end {
        eprintln!(
            "vlbr: the program was killed by signal {signal}; what ran until then is in the trace"
        );
    }
}

/// The program's own status, as a shell reports it.
fn status(recorded: &Recorded) -> ExitCode {
    if recorded.stopped {
        return ExitCode::from(130);
    }
    match recorded.end {
        None => ExitCode::SUCCESS,
        Some(GuestEnd::Exited(status)) => ExitCode::from((status & 0xff) as u8),
        Some(GuestEnd::Signaled(signal)) => ExitCode::from(128 + (signal & 0x7f) as u8),
    }
}

/// What the end of a conversion says.
pub(crate) fn converted(recorded: &Recorded) -> Result<String, Box<dyn Error>> {
    Ok(format!(
        "{} instructions, {} bytes, {} problems",
        count(recorded.stats.retired),
        count(recorded.size),
        count(recorded.stats.problems())
    ))
}
