//! What the subcommands share.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use vlbr_cpu::Clock;
use vlbr_lbr::{Options, Profile};
use vlbr_replay::{Mispredictions, Rates, TimingModel, TimingOptions};
use vlbr_traces::files::{is_descriptor, read_text};
use vlbr_traces::vlt::{OpenOptions, Trace};

use crate::args::{ClockArg, MispredictsArg, TimingArg, TimingArgs};

/// Longest message, in bytes.
const LONGEST_LINE: usize = 1000;
/// Longest TOML file that is read, in bytes.
pub(crate) const MAX_TOML: u64 = 1 << 20;

/// How a subcommand ends.
pub(crate) type Outcome = Result<ExitCode, Box<dyn Error>>;

/// Prints an error with its causes on one line.
pub(crate) fn complain(error: &dyn Error) {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        // Transparent errors repeat their cause.
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = inner.source();
    }
    // Nothing is left to do if standard error is gone as well.
    let _ = writeln!(io::stderr(), "vlbr: {}", one_line(&line));
}

/// Names and texts out of files may hold anything: control characters are escaped, and what is too
/// long for a message is cut.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for character in text.chars() {
        if line.len() >= LONGEST_LINE {
            line.push('…');
            break;
        }
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// Prints `text` on standard output. A reader that has seen enough is no error.
pub(crate) fn print(text: &str) -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Whether the reader of standard output has seen enough.
pub(crate) fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let kind = match error.downcast_ref::<io::Error>() {
            Some(error) => Some(error.kind()),
            None => error
                .downcast_ref::<serde_json::Error>()
                .and_then(serde_json::Error::io_error_kind),
        };
        if kind == Some(io::ErrorKind::BrokenPipe) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Prints `value` as JSON.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<(), Box<dyn Error>> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Names the file an error is about.
pub(crate) fn about(path: &Path) -> impl Fn(vlbr_traces::vlt::VltError) -> Box<dyn Error> {
    let name = path.display().to_string();
    move |error| format!("{name}: {error}").into()
}

/// Opens a trace; of a damaged one, with `salvage`, what lies before the damage.
pub(crate) fn open(path: &Path, salvage: bool) -> Result<Trace, Box<dyn Error>> {
    // Chunks are checked when they are decoded; a salvaged file must know beforehand.
    let options = OpenOptions {
        salvage,
        check_chunks: salvage,
        ..OpenOptions::default()
    };
    let trace = Trace::open(path, options).map_err(about(path))?;
    if let Some(damage) = trace.damage() {
        let _ = writeln!(
            io::stderr(),
            "vlbr: {}: {damage}; using the {} instructions before it",
            path.display(),
            HumanCount(trace.instructions())
        );
    }
    Ok(trace)
}

/// The processor `--cpu` names: a profile or a TOML file.
pub(crate) fn profile(name: &str) -> Result<Profile, Box<dyn Error>> {
    let path = Path::new(name);
    if path
        .extension()
        .is_some_and(|extension| extension == "toml")
    {
        let text = read_text(path, MAX_TOML).map_err(|error| format!("{name}: {error}"))?;
        return Ok(Profile::from_toml(&text).map_err(|error| format!("{name}: {error}"))?);
    }
    Ok(Profile::named(name)
        .map_err(|error| format!("{error}; vlbr list shows them"))?
        .clone())
}

/// The options of `--options`.
pub(crate) fn device_options(path: Option<&Path>) -> Result<Options, Box<dyn Error>> {
    let Some(path) = path else {
        return Ok(Options::default());
    };
    let name = path.display();
    let text = read_text(path, MAX_TOML).map_err(|error| format!("{name}: {error}"))?;
    Ok(Options::from_toml(&text).map_err(|error| format!("{name}: {error}"))?)
}

/// Options of the PMU from a TOML file. What is fed the session decides, so that is not checked here.
pub(crate) fn pmu_options(path: Option<&Path>) -> Result<vlbr_pmu::Options, Box<dyn Error>> {
    let Some(path) = path else {
        return Ok(vlbr_pmu::Options::default());
    };
    let name = path.display();
    let text = read_text(path, MAX_TOML).map_err(|error| format!("{name}: {error}"))?;
    let options = vlbr_pmu::Options::unchecked_from_toml(&text)
        .map_err(|error| format!("{name}: {error}"))?;
    if options.feeds != vlbr_pmu::Options::default().feeds {
        return Err(format!("{name}: feeds: what is fed the trace and --clock decide").into());
    }
    Ok(options)
}

/// What feeds counters of clocks.
pub(crate) fn clock(clock: ClockArg) -> Clock {
    match clock {
        ClockArg::None => Clock::None,
        ClockArg::Instructions => Clock::Instructions,
    }
}

/// The timing model.
pub(crate) const fn model(timing: TimingArg) -> TimingModel {
    match timing {
        TimingArg::None => TimingModel::None,
        TimingArg::Bound => TimingModel::Bound,
        TimingArg::Scoreboard => TimingModel::Scoreboard,
    }
}

/// The clock of a replay.
pub(crate) fn timing(args: &TimingArgs) -> Result<TimingOptions, Box<dyn Error>> {
    if args.timing == TimingArg::None {
        for (given, name) in [
            (args.microarchitecture.is_some(), "--microarchitecture"),
            (args.mhz.is_some(), "--mhz"),
            (args.tsc_mhz.is_some(), "--tsc-mhz"),
        ] {
            if given {
                return Err(format!("{name} is of a timing model: --timing chooses one").into());
            }
        }
    }
    let rates = Rates::default();
    let core_mhz = args.mhz.unwrap_or(rates.core_mhz);
    Ok(TimingOptions {
        model: model(args.timing),
        core: args.microarchitecture.clone(),
        mispredictions: match (args.mispredicts, &args.predictor) {
            (Some(MispredictsArg::Recorded), Some(_)) => {
                return Err("--mispredicts recorded has no --predictor".into());
            }
            (Some(MispredictsArg::Recorded), None) => Some(Mispredictions::Recorded),
            (_, Some(name)) => Some(Mispredictions::PredictedBy(name.clone())),
            (Some(MispredictsArg::Predicted), None) => Some(Mispredictions::Predicted),
            (None, None) => None,
        },
        rates: Rates {
            core_mhz,
            tsc_mhz: args.tsc_mhz.unwrap_or(core_mhz),
        },
        warmup: args.warmup,
    })
}

/// A bar of instructions on standard error, if that is a terminal.
pub(crate) fn instruction_bar(total: u64, doing: &'static str) -> ProgressBar {
    bar(total, "instructions", doing)
}

/// A bar of anything on standard error, if that is a terminal.
pub(crate) fn bar(total: u64, what: &str, doing: &'static str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total);
    let template =
        format!("{{msg}} {{bar:40}} {{human_pos}}/{{human_len}} {what}, {{per_sec}}, {{eta}} left");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar.set_message(doing);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Refuses an output that is there, unless `force` says to replace it and a rename would replace a
/// file: not a device, and not the link that names an open file.
pub(crate) fn replaceable(output: &Path, force: bool) -> Result<(), String> {
    let said = output.display();
    match std::fs::symlink_metadata(output) {
        Ok(_) if !force => Err(format!("{said}: exists; -f overwrites it")),
        Ok(meta) if !meta.is_file() && !meta.is_symlink() || is_descriptor(output) => {
            Err(format!("{said}: not a regular file"))
        }
        _ => Ok(()),
    }
}

/// Whether both names lead to one file.
pub(crate) fn same_file(a: &Path, b: &Path) -> bool {
    match (std::fs::metadata(a), std::fs::metadata(b)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// A name of this process in the folder of `path`.
pub(crate) fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}-{}", std::process::id()))
}

/// `1234567` as `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    HumanCount(number).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_line_of_bounded_length() {
        assert_eq!(one_line("a\nb\u{1b}[1m"), "a\\nb\\u{1b}[1m");
        let long = one_line(&"x".repeat(1 << 20));
        assert!(long.len() < LONGEST_LINE + 8, "{}", long.len());
    }
}
