//! Speed and memory side by side, from one run, as ratios.
//!
//! `vlbr-figures --trace FILE [--boot FILE] [--command PROG ARG...]` replays every file on every
//! road and runs the program under QEMU without plugin, with an empty callback per block, and under
//! `vlbr record`. The measurements take turns, so that a slow minute of the machine meets all of
//! them; each figure is the median of its runs, with the best one beside it. Replays are timed from
//! the compressed file to the last sample. What `vlbr record` wrote is replayed as well.
//! `vlbr-figures --exits COUNT` simulates VM exits instead.

mod exits;
mod measure;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use vlbr_fuzz::{HEAP, peak_resident};
use vlbr_traces::qemu::{find_plugin, find_qemu};

use measure::{Failure, Peer, Peers, ROADS, best, median};

/// Prints speed and memory of replays, recording and their peers.
#[derive(Debug, Parser)]
#[command(name = "vlbr-figures")]
struct Arguments {
    /// Trace of a program, may be repeated.
    #[arg(long, value_name = "FILE")]
    trace: Vec<PathBuf>,
    /// Trace of a whole machine.
    #[arg(long, value_name = "FILE")]
    boot: Option<PathBuf>,
    /// Processor.
    #[arg(long, default_value = "skylake", value_name = "NAME")]
    cpu: String,
    /// Runs a figure is the median of.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// The vlbr command [default: beside this program].
    #[arg(long, value_name = "FILE")]
    vlbr: Option<PathBuf>,
    /// Program to run under QEMU and to record; the rest of the line are its arguments.
    #[arg(long, num_args = 1.., allow_hyphen_values = true, value_name = "PROG")]
    command: Vec<OsString>,
    /// VM exits to simulate under naive, msr-list and v8, say 1000000.
    #[arg(long, value_name = "COUNT")]
    exits: Option<u64>,
    #[arg(long, hide = true)]
    memory_of_exits: Option<u64>,
    /// Replays the file on so many threads and prints the peak heap and peak resident bytes.
    #[arg(long, hide = true, num_args = 2)]
    memory_of: Vec<OsString>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vlbr-figures: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    if let [file, jobs] = &arguments.memory_of[..] {
        let jobs = jobs.to_str().and_then(|jobs| jobs.parse().ok());
        measure::replay_once(
            Path::new(file),
            &arguments.cpu,
            jobs.ok_or("threads: no number")?,
        )?;
        let resident = peak_resident().ok_or("/proc/self/status has no VmHWM")?;
        println!("{} {resident}", HEAP.peak());
        return Ok(());
    }
    if let Some(count) = arguments.memory_of_exits {
        return exits::once(count);
    }
    if let Some(count) = arguments.exits {
        println!("{}", machine());
        return exits::print(count, arguments.runs);
    }
    let folder = tempfile::tempdir()?;
    let peers = match arguments.command.first() {
        None => None,
        Some(_) => Some(peers(arguments, folder.path())?),
    };
    let recording = peers.as_ref().map(Peers::recording);
    let files = recording.iter().chain(&arguments.trace);
    let files: Vec<&PathBuf> = files.chain(&arguments.boot).collect();
    if files.is_empty() {
        return Err("nothing to measure: --trace, --boot or --command".into());
    }
    let mut peer_times = vec![Vec::new(); Peer::ALL.len()];
    let mut road_times = vec![vec![Vec::new(); ROADS.len()]; files.len()];
    for round in 1..=arguments.runs {
        eprintln!("round {round} of {}", arguments.runs);
        if let Some(peers) = &peers {
            for (peer, times) in Peer::ALL.iter().zip(&mut peer_times) {
                times.push(peers.time(*peer)?);
            }
        }
        for (file, times) in files.iter().zip(&mut road_times) {
            for (road, times) in ROADS.iter().zip(times) {
                times.push(measure::replay(file, &arguments.cpu, road)?);
            }
        }
    }
    println!("{}", machine());
    let qemu = match &peers {
        Some(peers) => Some(print_peers(peers, &mut peer_times)?),
        None => None,
    };
    for (file, times) in files.iter().zip(&mut road_times) {
        print_file(file, &arguments.cpu, times, qemu)?;
    }
    Ok(())
}

fn peers(arguments: &Arguments, folder: &Path) -> Result<Peers, Failure> {
    let own = std::env::current_exe()?;
    let vlbr = arguments
        .vlbr
        .clone()
        .unwrap_or_else(|| own.with_file_name("vlbr"));
    if !vlbr.is_file() {
        return Err(format!("{} is missing: build vlbr-cli first", vlbr.display()).into());
    }
    Ok(Peers {
        program: arguments.command.clone(),
        qemu: find_qemu(false)?,
        plugin: find_plugin()?,
        vlbr,
        folder: folder.to_owned(),
    })
}

/// Processor and number of cores.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |rest| {
        rest.trim_start_matches([':', '\t', ' '])
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{model}, {cores} cores\n")
}

/// Millions a second.
fn rate(instructions: u64, seconds: f64) -> f64 {
    instructions as f64 / seconds / 1e6
}

/// Prints the program's table; returns QEMU's instructions a second.
fn print_peers(peers: &Peers, times: &mut [Vec<f64>]) -> Result<f64, Failure> {
    let recording = peers.recording();
    let trace = measure::open(&recording)?;
    let instructions = trace.instructions();
    let program: Vec<_> = peers.program.iter().map(|word| word.display()).collect();
    let program: Vec<String> = program.iter().map(ToString::to_string).collect();
    println!("{}: {instructions} instructions", program.join(" "));
    let bests: Vec<f64> = times.iter().map(|times| best(times)).collect();
    let medians: Vec<f64> = times.iter_mut().map(|times| median(times)).collect();
    let of = |peer: Peer| {
        let index = Peer::ALL.iter().position(|known| *known == peer);
        index.map_or(f64::NAN, |index| medians[index])
    };
    let (qemu, empty) = (of(Peer::Qemu), of(Peer::EmptyPlugin));
    for ((peer, seconds), best) in Peer::ALL.iter().zip(&medians).zip(&bests) {
        println!(
            "  {:<40} {seconds:>8.3} s {:>8.0} M/s (best {:.0})  {:>6.2} of qemu  {:>6.2} of the \
             empty callback",
            peer.name(),
            rate(instructions, *seconds),
            rate(instructions, *best),
            qemu / seconds,
            empty / seconds
        );
    }
    println!();
    Ok(rate(instructions, qemu))
}

fn print_size(path: &Path) -> Result<(), Failure> {
    let trace = measure::open(path)?;
    let (sizes, instructions) = (trace.sizes(), trace.instructions().max(1));
    let bits = |bytes: u64| 8.0 * bytes as f64 / instructions as f64;
    let largest = trace.chunks().iter();
    let largest = largest.map(|chunk| chunk.counts.instructions.total()).max();
    println!(
        "  bit per instruction: {:.4} = blocks {:.4} + steps {:.4} + chunks {:.4} + symbols {:.4} + \
         rest {:.4}",
        bits(sizes.total()),
        bits(sizes.blocks),
        bits(sizes.steps),
        bits(sizes.chunks),
        bits(sizes.symbols),
        bits(sizes.description + sizes.sides),
    );
    println!(
        "  {} bytes, {} chunks, the largest of {} instructions",
        sizes.total(),
        trace.chunks().len(),
        largest.unwrap_or(0)
    );
    Ok(())
}

fn print_file(
    path: &Path,
    cpu: &str,
    times: &mut [Vec<f64>],
    qemu: Option<f64>,
) -> Result<(), Failure> {
    let instructions = measure::open(path)?.instructions();
    println!("{}: {instructions} instructions, {cpu}", path.display());
    for (road, times) in ROADS.iter().zip(times) {
        let best = rate(instructions, best(times));
        let seconds = median(times);
        let speed = rate(instructions, seconds);
        let ratio = qemu.map_or_else(String::new, |qemu| {
            format!("  {:>6.2} of qemu", speed / qemu)
        });
        println!(
            "  {:<40} {seconds:>8.3} s {speed:>8.0} M/s (best {best:.0}){ratio}",
            road.name
        );
    }
    print_size(path)?;
    print_memory(path, cpu)?;
    println!();
    Ok(())
}

/// Peak heap and peak resident memory of a process that replays on one thread, and what one more
/// thread adds.
fn print_memory(path: &Path, cpu: &str) -> Result<(), Failure> {
    let of = |jobs: &str| -> Result<(f64, f64), Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["--cpu", cpu, "--memory-of"])
            .arg(path)
            .arg(jobs);
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut numbers = text.split_whitespace().map(str::parse::<f64>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(heap)), Some(Ok(resident))) => Ok((heap, resident)),
            _ => Err(format!("measuring memory: {}", output.status).into()),
        }
    };
    let (one, two) = (of("1")?, of("2")?);
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    println!(
        "  peak heap on one thread {:.1} MiB, one more thread {:+.1} MiB; resident {:.1} MiB, {:+.1} MiB",
        mib(one.0),
        mib(two.0 - one.0),
        mib(one.1),
        mib(two.1 - one.1)
    );
    Ok(())
}
