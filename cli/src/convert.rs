//! `vlbr convert`

use std::io::Read;
use std::process::ExitCode;

use vlbr_traces::files::open_regular;
use vlbr_traces::record::{LogOptions, RecordError, RecordOptions, convert_qemulog};
use vlbr_traces::rewrite::rewrite;
use vlbr_traces::vlt::{MAGIC, Writer, WriterOptions};

use crate::args::ConvertArgs;
use crate::common::{self, Outcome, count};
use crate::record;

/// Runs the subcommand.
pub(crate) fn run(args: &ConvertArgs) -> Outcome {
    let input = args.input.display();
    let output = args.output.display();
    let mut magic = Vec::new();
    open_regular(&args.input)
        .and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut magic))
        .map_err(|error| format!("{input}: {error}"))?;
    if magic != MAGIC {
        let mut options = RecordOptions::new(args.output.clone());
        options.overwrite = args.force;
        options.level = args.level;
        let log = LogOptions {
            elf: args.binary.clone(),
            ..LogOptions::default()
        };
        let stop = record::stop_flag()?;
        let recorded = convert_qemulog(&args.input, &log, &options, &stop).map_err(|error| {
            let about_input = matches!(error, RecordError::Log(_) | RecordError::Assemble { .. });
            if about_input {
                format!("{input}: {error}")
            } else {
                error.to_string()
            }
        })?;
        eprintln!(
            "[ vlbr convert: {input} -> {output}: {} ]",
            record::converted(&recorded)?
        );
        if recorded.stopped {
            eprintln!("vlbr: stopped; what was read until then is in the trace");
            return Ok(ExitCode::from(130));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let trace = common::open(&args.input, args.salvage)?;
    common::replaceable(&args.output, args.force)?;
    // Written beside the output and renamed when whole: it may be the input itself.
    let partial = common::beside(&args.output);
    let options = WriterOptions {
        overwrite: false,
        code_level: args.level,
    };
    let writer = Writer::create(&partial, trace.meta(), options)
        .map_err(|error| format!("{}: {error}", partial.display()))?;
    let bar = common::instruction_bar(trace.instructions(), "rewriting");
    let result = rewrite(&trace, writer, args.level, &mut |done| {
        bar.set_position(done)
    })
    .map_err(|error| error.to_string())
    .and_then(|_| std::fs::rename(&partial, &args.output).map_err(|error| error.to_string()));
    bar.finish_and_clear();
    if let Err(error) = result {
        let _ = std::fs::remove_file(&partial);
        return Err(format!("{output}: {error}").into());
    }
    let size = std::fs::metadata(&args.output).map_or(0, |meta| meta.len());
    eprintln!(
        "[ vlbr convert: {input} -> {output}: {} instructions, {} bytes ]",
        count(trace.instructions()),
        count(size)
    );
    Ok(ExitCode::SUCCESS)
}
