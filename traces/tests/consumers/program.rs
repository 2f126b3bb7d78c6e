//! A small real program, and samples of a walk through its machine code.
//!
//! The walk decodes the linked binary and decides every conditional branch by a fixed sequence of
//! numbers. So the branch stacks are ones that a processor could record, and are the same always.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Mnemonic};
use vlbr_traces::export::{ExportError, SampleSink};
use vlbr_traces::perfdata::{
    BranchEntry, BranchFlags, BranchType, CONTEXT_USER, Mapping, SampleRecord, TaskId,
};
use vlbr_traces::symbols::{CodeBytes, ElfImage};

const SOURCE: &str = r"
__attribute__((noinline)) unsigned leaf(unsigned x) { return x & 1 ? x * 3 + 1 : x / 2; }
__attribute__((noinline)) unsigned middle(unsigned n) {
    unsigned sum = 0;
    for (unsigned i = 0; i < n; i++) {
        if (leaf(sum + i) & 4) sum += leaf(i);
        else sum ^= i;
    }
    return sum;
}
__attribute__((noinline)) unsigned fib(unsigned n) {
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}
int main(int argc, char **argv) {
    unsigned total = 0;
    for (unsigned i = 0; i < 1000u * (unsigned)argc; i++) total += middle(i) + fib(i & 15);
    return (int)(total & 127);
}
";

/// Taken branches between two samples.
const PERIOD: u64 = 97;
/// Entries of the modelled LBR.
const DEPTH: usize = 32;
/// Samples of a walk.
const SAMPLES: usize = 400;
/// The process of the walk.
pub(crate) const TASK: TaskId = TaskId {
    pid: 4242,
    tid: 4242,
};

/// The path of a tool, or `None` with a message. A missing tool fails the test under `CI=true`.
pub(crate) fn tool(path: &str) -> Option<PathBuf> {
    let found = if path.contains('/') {
        Some(PathBuf::from(path)).filter(|p| p.exists())
    } else {
        let dirs = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&dirs)
            .map(|dir| dir.join(path))
            .find(|p| p.exists())
    };
    if found.is_none() {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "{path} is missing"
        );
        eprintln!("skipped: {path} is missing");
    }
    found
}

/// Runs a command and returns what it printed; panics with its messages when it fails.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command
        .env("PERF_CONFIG", "/dev/null")
        .output()
        .expect("started");
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The program, linked with relocations so that BOLT takes it.
pub(crate) struct Program {
    pub path: PathBuf,
    pub image: ElfImage,
    code: CodeBytes,
    bias: u64,
}

impl Program {
    /// Builds it below `folder`; `None` where no clang is installed.
    pub(crate) fn build(folder: &Path, pie: bool) -> Option<Self> {
        let clang = [
            "/usr/lib/llvm-16/bin/clang",
            "/usr/lib/llvm-19/bin/clang",
            "clang",
        ]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or("clang");
        let clang = tool(clang)?;
        let path = folder.join(if pie { "program-pie" } else { "program" });
        let source = folder.join("program.c");
        std::fs::write(&source, SOURCE).expect("written");
        run(Command::new(clang)
            .current_dir(folder)
            .args([
                "-O1",
                "-g",
                "-fdebug-info-for-profiling",
                "-Wl,-q",
                "-Wl,--build-id",
            ])
            .args(if pie {
                ["-fPIE", "-pie"]
            } else {
                ["-fno-pie", "-no-pie"]
            })
            .args(["-o", path.to_str().expect("UTF-8"), "program.c"]));
        let image = ElfImage::open(&path).expect("ELF");
        assert_eq!(image.position_independent(), pie);
        let code = image.read_code().expect("code");
        let bias = if pie { 0x5555_5555_4000 } else { 0 };
        Some(Self {
            path,
            image,
            code,
            bias,
        })
    }

    pub(crate) fn mapping(&self) -> Mapping {
        let segment = self
            .image
            .segments()
            .iter()
            .find(|s| s.executable)
            .expect("code");
        let (first, offset) = (segment.address & !4095, segment.file_offset & !4095);
        let end = (segment.address + segment.size).next_multiple_of(4096);
        let mut mapping = Mapping::user(
            TASK.pid,
            self.bias + first,
            end - first,
            offset,
            self.path.clone(),
        );
        mapping.build_id = self.image.build_id().map(<[u8]>::to_vec);
        mapping
    }

    pub(crate) fn symbol(&self, name: &str) -> u64 {
        self.image
            .symbols()
            .find(name.as_bytes())
            .expect("the program has it")
            .address
            + self.bias
    }
}

/// What the walk puts into its samples.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options {
    /// Call stacks in place of the last branches.
    pub call_stack: bool,
    /// Branch types in the entries.
    pub types: bool,
    /// Hardware index in the samples.
    pub hw_idx: bool,
}

struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Feeds a walk through the program to a sink: name, mapping, samples, exit.
pub(crate) fn walk(
    program: &Program,
    options: Options,
    sink: &mut dyn SampleSink,
) -> Result<(), ExportError> {
    let parent = TaskId { pid: 1, tid: 1 };
    sink.fork(parent, TASK, 500)?;
    sink.comm(TASK, "program", true, 1000)?;
    sink.mapping(&program.mapping(), 2000)?;
    let main = program.symbol("main");
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut ip = main;
    let (mut stack, mut lbr): (Vec<u64>, VecDeque<BranchEntry>) = (Vec::new(), VecDeque::new());
    let (mut taken, mut samples, mut since, mut time) = (0u64, 0usize, 0u16, 10_000u64);
    while samples < SAMPLES {
        let linked = ip - program.bias;
        let bytes = program.code.at(linked).expect("the walk stays in the code");
        let instruction =
            Decoder::with_ip(64, &bytes[..bytes.len().min(15)], ip, DecoderOptions::NONE).decode();
        (since, time) = (since.saturating_add(1), time + 1);
        let next = instruction.next_ip();
        let target = match instruction.flow_control() {
            FlowControl::Next => None,
            FlowControl::ConditionalBranch => {
                (!numbers.next().is_multiple_of(3)).then(|| instruction.near_branch_target())
            }
            FlowControl::UnconditionalBranch => Some(instruction.near_branch_target()),
            FlowControl::Call => {
                stack.push(next);
                Some(instruction.near_branch_target())
            }
            FlowControl::Return if !stack.is_empty() => stack.pop(),
            other => {
                assert_eq!(other, FlowControl::Return, "{:?}", instruction.mnemonic());
                // main is over: the next run starts with an empty stack of branches.
                lbr.clear();
                ip = main;
                continue;
            }
        };
        let Some(to) = target else {
            ip = next;
            continue;
        };
        let call = instruction.mnemonic() == Mnemonic::Call;
        let ret = instruction.mnemonic() == Mnemonic::Ret;
        let kind = match instruction.flow_control() {
            FlowControl::ConditionalBranch => BranchType::COND,
            FlowControl::Call => BranchType::CALL,
            FlowControl::Return => BranchType::RET,
            _ => BranchType::UNCOND,
        };
        let missed = numbers.next().is_multiple_of(16);
        let flags = BranchFlags {
            mispred: missed && !options.call_stack,
            predicted: !missed && !options.call_stack,
            cycles: if options.call_stack { 0 } else { since },
            branch_type: if options.types {
                kind
            } else {
                BranchType::UNKNOWN
            },
            ..BranchFlags::default()
        };
        if !options.call_stack || call {
            lbr.push_front(BranchEntry {
                from: ip,
                to,
                flags,
            });
            lbr.truncate(DEPTH);
        } else if ret {
            lbr.pop_front();
        }
        (ip, since) = (to, 0);
        taken += 1;
        if stack.len() > 20 {
            // Deep recursion: another run starts.
            stack.clear();
            lbr.clear();
            ip = main;
            continue;
        }
        // perf 6.1 reads beyond the end of an empty call-stack LBR.
        if taken.is_multiple_of(PERIOD) && !(options.call_stack && lbr.is_empty()) {
            samples += 1;
            let branches: Vec<_> = lbr.iter().copied().collect();
            let chain = [CONTEXT_USER, ip];
            sink.sample(&SampleRecord {
                ip,
                pid: TASK.pid,
                tid: TASK.tid,
                time_ns: time * 1000,
                cpu: 3,
                period: PERIOD,
                kernel: false,
                branches: &branches,
                hw_idx: (options.hw_idx || options.call_stack).then_some(taken % DEPTH as u64),
                callchain: options.call_stack.then_some(&chain),
                counts: &[],
                instance: 0,
            })?;
        }
    }
    sink.exit(parent, TASK, time * 1000 + 1)?;
    sink.finish()
}
