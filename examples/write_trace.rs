//! A trace from one's own producer of instructions: a loop that runs ten times and returns.
//!
//! Blocks and steps are interned once; the trace is a sequence of step ids.

use std::error::Error;
use std::path::Path;

use vlbr_cpu::{Block, Exit, Interner, Mode, Step, Target};
use vlbr_traces::vlt::{Meta, Process, SideStreams, Thread, Writer, WriterOptions, encode_chunk};

fn main() -> Result<(), Box<dyn Error>> {
    let output = std::env::args_os()
        .nth(1)
        .unwrap_or_else(|| "loop.vlt".into());
    let mode = Mode::user64(0);
    let to = |address| Target {
        address,
        cs_base: 0,
        code_size: mode.code_size,
        cpl: mode.cpl,
    };
    let taken = |address| Exit::Taken {
        target: to(address),
        mispredicted: false,
        in_tx: false,
    };

    let mut interner = Interner::new();
    // 0x1000: dec ecx; jne 0x1000        0x1004: ret
    let body = interner.block(Block::decode(0x1000, mode, &[0xff, 0xc9, 0x75, 0xfc])?)?;
    let end = interner.block(Block::decode(0x1004, mode, &[0xc3])?)?;
    let again = interner.step(Step {
        block: body,
        retired: 2,
        exit: taken(0x1000),
    })?;
    let done = interner.step(Step {
        block: body,
        retired: 2,
        exit: Exit::Sequential,
    })?;
    let back = interner.step(Step {
        block: end,
        retired: 1,
        exit: taken(0x2000),
    })?;
    let mut steps = vec![again; 9];
    steps.extend([done, back]);

    let meta = Meta {
        recorder: "example".into(),
        engine: "by hand".into(),
        ..Meta::default()
    };
    let options = WriterOptions {
        overwrite: true,
        ..WriterOptions::default()
    };
    let mut writer = Writer::create(Path::new(&output), &meta, options)?;
    let process = writer.add_process(&Process {
        pid: 1,
        path: "/bin/loop".into(),
        ..Process::default()
    })?;
    let thread = writer.add_thread(&Thread {
        process,
        tid: 1,
        vcpu: None,
        name: String::new(),
    })?;
    writer.sync_code(interner.code())?;
    let sides = SideStreams::default();
    writer.write_chunk(&encode_chunk(thread, &steps, interner.code(), &sides, 9)?)?;
    writer.finish(&[])?;
    println!("{} steps in {}", steps.len(), Path::new(&output).display());
    Ok(())
}
