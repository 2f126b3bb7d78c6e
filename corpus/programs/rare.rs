//! Makes `rare.vlt`: what recorders of a virtual processor never or seldom see. Debug exceptions,
//! SMIs with 16-bit code behind a segment base, RSM, transactions and their aborts, in a program of
//! recursive functions and a kernel. The same bytes at each run.
//!
//! `cargo run --release -p vlbr-replay --example rare -- corpus/rare.vlt`

use std::error::Error;
use std::path::Path;

use vlbr_arch::{CodeSize, Cpl, FarKind};
use vlbr_cpu::{Block, Exit, Interner, Mode, Step, StepId, Target};
use vlbr_traces::vlt::{
    Meta, Process, Scope, SideStreams, Thread, Writer, WriterOptions, encode_chunk,
};

type Done = Result<(), Box<dyn Error>>;

const FUNCTIONS: u64 = 12;
/// Function whose steps run in transactions.
const TRANSACTIONAL: u64 = 7;
const STEPS_OF_CHUNK: usize = 16_000;
/// Calls inside one another at most, more than any LBR holds.
const DEEPEST: u64 = 40;

const USER: Mode = Mode::user64(0);
const KERNEL: Mode = Mode {
    cpl: Cpl::Ring0,
    ..USER
};
const SMM: Mode = Mode {
    code_size: CodeSize::Bits16,
    cs_base: 0x3_0000,
    ..KERNEL
};

const SYSCALL_ENTRY: u64 = 0xffff_ffff_8100_0000;
const INTERRUPT_ENTRY: u64 = 0xffff_ffff_8100_0100;
const DEBUG_ENTRY: u64 = 0xffff_ffff_8100_0200;
const KERNEL_FUNCTION: u64 = 0xffff_ffff_8100_0300;
const ABORT_HANDLER: u64 = 0x50_0000;
const SMM_ENTRY: u64 = 0x8000;

const fn function(number: u64) -> u64 {
    0x40_1000 + number % FUNCTIONS * 0x100
}

/// A processor that makes up its program.
struct Machine {
    interner: Interner,
    steps: Vec<StepId>,
    random: u64,
    /// What may strike in this chunk.
    rare: &'static [FarKind],
    in_tx: bool,
}

impl Machine {
    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn below(&mut self, count: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % count
    }

    fn step(&mut self, block: Block, retired: u16, exit: Exit) -> Done {
        let block = self.interner.block(block)?;
        let step = self.interner.step(Step {
            block,
            retired,
            exit,
        })?;
        self.steps.push(step);
        Ok(())
    }

    /// Runs the block at `address` and its branch to `to`, in mode `after`.
    fn taken(&mut self, address: u64, mode: Mode, bytes: &[u8], to: u64, after: Mode) -> Done {
        self.strike(address, mode)?;
        let block = Block::decode(address, mode, bytes)?;
        let exit = Exit::Taken {
            target: target(to, after),
            mispredicted: self.one_in(9),
            in_tx: self.in_tx,
        };
        let retired = block.instructions();
        self.step(block, retired, exit)
    }

    /// As [`Machine::taken`], not taken.
    fn passed(&mut self, address: u64, mode: Mode, bytes: &[u8]) -> Done {
        self.strike(address, mode)?;
        let block = Block::decode(address, mode, bytes)?;
        let retired = block.instructions();
        self.step(block, retired, Exit::Sequential)
    }

    /// At times something rare happens before the instruction at `address`, and comes back.
    fn strike(&mut self, address: u64, mode: Mode) -> Done {
        if mode != USER || !self.one_in(60) {
            return Ok(());
        }
        let kind = match self.in_tx {
            true => FarKind::TsxAbort,
            false => self.rare[self.below(self.rare.len() as u64) as usize],
        };
        let (entry, there) = match kind {
            FarKind::TsxAbort => (ABORT_HANDLER, USER),
            FarKind::Smi => (SMM_ENTRY, SMM),
            FarKind::DebugException => (DEBUG_ENTRY, KERNEL),
            _ => (INTERRUPT_ENTRY, KERNEL),
        };
        let exit = Exit::Event {
            kind,
            target: target(entry, there),
            in_tx: self.in_tx,
        };
        self.step(Block::empty(address, USER), 0, exit)?;
        self.in_tx = false;
        match kind {
            // jmp rax
            FarKind::TsxAbort => self.taken(entry, there, &[0xff, 0xe0], address, USER),
            FarKind::Smi => {
                // call 0x8100; nop; ret; call 0x8103; ret; rsm
                self.taken(entry, there, &[0xe8, 0xfd, 0x00], 0x8100, there)?;
                self.taken(0x8100, there, &[0x90, 0xc3], entry + 3, there)?;
                self.taken(entry + 3, there, &[0xe8, 0xfd, 0x00], 0x8103, there)?;
                self.taken(0x8103, there, &[0xc3], entry + 6, there)?;
                self.taken(entry + 6, there, &[0x0f, 0xaa], address, USER)
            }
            _ => {
                self.kernel(entry)?;
                // iretq
                self.taken(entry + 5, there, &[0x48, 0xcf], address, USER)
            }
        }
    }

    /// `call` from `entry` to a function of the kernel, and back.
    fn kernel(&mut self, entry: u64) -> Done {
        let call = relative_call(entry, KERNEL_FUNCTION);
        self.taken(entry, KERNEL, &call, KERNEL_FUNCTION, KERNEL)?;
        // nop; ret
        self.taken(KERNEL_FUNCTION, KERNEL, &[0x90, 0xc3], entry + 5, KERNEL)
    }

    /// Runs function `number`, called from before `back`, which calls `deeper` others inside one
    /// another.
    fn function(&mut self, number: u64, back: u64, deeper: u64) -> Done {
        let at = function(number);
        let outside = self.in_tx;
        self.in_tx = number % FUNCTIONS == TRANSACTIONAL;
        let inside = self.in_tx;
        // nop; je at+0x10
        let first = [0x90, 0x74, 0x0d];
        if deeper > 0 {
            self.taken(at, USER, &first, at + 0x10, USER)?;
            // call rel32
            let callee = number + 1;
            let call = relative_call(at + 0x10, function(callee));
            self.taken(at + 0x10, USER, &call, function(callee), USER)?;
            self.function(callee, at + 0x15, deeper - 1)?;
            // jmp rax
            self.taken(at + 0x15, USER, &[0xff, 0xe0], at + 0x20, USER)?;
            if self.one_in(3) {
                // je at+0x24
                self.taken(at + 0x20, USER, &[0x74, 0x02], at + 0x24, USER)?;
            } else {
                self.passed(at + 0x20, USER, &[0x74, 0x02])?;
                // call rax
                let callee = self.below(FUNCTIONS);
                self.taken(at + 0x22, USER, &[0xff, 0xd0], function(callee), USER)?;
                self.function(callee, at + 0x24, (deeper - 1).min(2))?;
            }
            // call to the next instruction
            let zero = [0xe8, 0, 0, 0, 0];
            self.taken(at + 0x24, USER, &zero, at + 0x29, USER)?;
        } else {
            self.passed(at, USER, &first)?;
            // jmp at+0x29
            self.taken(at + 3, USER, &[0xeb, 0x24], at + 0x29, USER)?;
        }
        // jne at+0x2d
        if inside || self.one_in(2) {
            self.taken(at + 0x29, USER, &[0x75, 0x02], at + 0x2d, USER)?;
        } else {
            self.passed(at + 0x29, USER, &[0x75, 0x02])?;
            // syscall; call; sysretq
            self.taken(at + 0x2b, USER, &[0x0f, 0x05], SYSCALL_ENTRY, KERNEL)?;
            self.kernel(SYSCALL_ENTRY)?;
            let sysret = [0x48, 0x0f, 0x07];
            self.taken(SYSCALL_ENTRY + 5, KERNEL, &sysret, at + 0x2d, USER)?;
        }
        // ret
        self.taken(at + 0x2d, USER, &[0xc3], back, USER)?;
        self.in_tx = outside;
        Ok(())
    }
}

fn target(address: u64, mode: Mode) -> Target {
    Target {
        address,
        cs_base: mode.cs_base,
        code_size: mode.code_size,
        cpl: mode.cpl,
    }
}

fn relative_call(from: u64, to: u64) -> [u8; 5] {
    let distance = to.wrapping_sub(from + 5) as u32;
    let [a, b, c, d] = distance.to_le_bytes();
    [0xe8, a, b, c, d]
}

fn main() -> Done {
    let output = std::env::args_os().nth(1).unwrap_or("rare.vlt".into());
    let meta = Meta {
        engine: "made up".into(),
        scope: Scope::System,
        ..Meta::default()
    };
    let options = WriterOptions {
        overwrite: true,
        ..WriterOptions::default()
    };
    let mut writer = Writer::create(Path::new(&output), &meta, options)?;
    let process = writer.add_process(&Process::default())?;
    let thread = writer.add_thread(&Thread {
        process,
        tid: 0,
        vcpu: Some(0),
        name: String::new(),
    })?;
    let mut machine = Machine {
        interner: Interner::new(),
        steps: Vec::new(),
        random: 1,
        rare: &[],
        in_tx: false,
    };
    // A debug exception may end the recording for good, so it comes late; the last chunk has none
    // and finds the registers as the one before left them.
    let chunks: [&[FarKind]; 4] = [
        &[FarKind::Interrupt, FarKind::Exception],
        &[FarKind::Smi, FarKind::Interrupt],
        &[FarKind::DebugException, FarKind::Smi],
        &[FarKind::Interrupt],
    ];
    for rare in chunks {
        machine.rare = rare;
        machine.steps.clear();
        // call rax; jmp 0x400000
        while machine.steps.len() < STEPS_OF_CHUNK {
            let callee = machine.below(FUNCTIONS);
            machine.taken(0x40_0000, USER, &[0xff, 0xd0], function(callee), USER)?;
            let deeper = [3, 9, DEEPEST][machine.below(3) as usize];
            machine.function(callee, 0x40_0002, deeper)?;
            machine.taken(0x40_0002, USER, &[0xeb, 0xfc], 0x40_0000, USER)?;
        }
        writer.sync_code(machine.interner.code())?;
        let sides = SideStreams::default();
        let code = machine.interner.code();
        writer.write_chunk(&encode_chunk(thread, &machine.steps, code, &sides, 19)?)?;
    }
    writer.finish(&[])?;
    Ok(())
}
