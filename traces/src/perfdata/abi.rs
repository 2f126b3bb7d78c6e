//! Numbers of the perf ABI and of the perf.data container.
//!
//! Sources: `include/uapi/linux/perf_event.h`, `tools/perf/util/header.h`,
//! `tools/lib/perf/include/perf/event.h` and `perf.data-file-format.txt` of Linux 6.1. Number
//! spaces are open: unknown values survive and print as numbers.

use std::fmt;

/// First eight bytes of a file whose numbers are little-endian.
pub(super) const MAGIC: [u8; 8] = *b"PERFILE2";
/// The same magic written by a big-endian machine.
pub(super) const MAGIC_SWAPPED: [u8; 8] = *b"2ELIFREP";
/// Size of the file header with the feature bitmap.
pub(super) const FILE_HEADER_SIZE: u64 = 104;
/// Size of the header that starts a file in pipe mode.
pub(super) const PIPE_HEADER_SIZE: u64 = 16;
/// Size of `struct perf_event_header`.
pub(super) const RECORD_HEADER_SIZE: usize = 8;
/// Strings of header features and build-id entries are padded to a multiple of this.
pub(super) const NAME_ALIGN: usize = 64;
/// `PERF_CONTEXT_KERNEL`: what follows in a call chain is kernel code.
pub const CONTEXT_KERNEL: u64 = -128i64 as u64;
/// `PERF_CONTEXT_USER`: what follows in a call chain is user code.
pub const CONTEXT_USER: u64 = -512i64 as u64;

macro_rules! open_enum {
    ($(#[$doc:meta])* $name:ident($repr:ty) {
        $($(#[$vdoc:meta])* $variant:ident = $value:expr,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $repr);

        impl $name {
            $($(#[$vdoc])* pub const $variant: Self = Self($value);)*

            /// perf's name for the number, or `None`.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($variant)),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}", self.0),
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

open_enum!(
    /// `perf_event_header.type`.
    RecordType(u32) {
        /// A mapping of executable code, without protection and inode.
        MMAP = 1,
        /// Events were lost.
        LOST = 2,
        /// A thread was named.
        COMM = 3,
        /// A thread ended.
        EXIT = 4,
        /// Sampling was throttled.
        THROTTLE = 5,
        /// Throttling ended.
        UNTHROTTLE = 6,
        /// A thread was created.
        FORK = 7,
        /// Counts of an event.
        READ = 8,
        /// A sample.
        SAMPLE = 9,
        /// A mapping with device, inode or build-id, protection and flags.
        MMAP2 = 10,
        /// Data arrived in the AUX area.
        AUX = 11,
        /// An instruction trace started.
        ITRACE_START = 12,
        /// Samples were lost.
        LOST_SAMPLES = 13,
        /// A context switch.
        SWITCH = 14,
        /// A context switch, with the other task.
        SWITCH_CPU_WIDE = 15,
        /// Namespaces of a task.
        NAMESPACES = 16,
        /// A kernel symbol came or went.
        KSYMBOL = 17,
        /// A BPF program was loaded or unloaded.
        BPF_EVENT = 18,
        /// A cgroup.
        CGROUP = 19,
        /// Kernel text was changed.
        TEXT_POKE = 20,
        /// Identity of AUX output.
        AUX_OUTPUT_HW_ID = 21,
        /// An attribute, in pipe mode.
        HEADER_ATTR = 64,
        /// A tracepoint's name, old files.
        HEADER_EVENT_TYPE = 65,
        /// Tracing data; it follows the record.
        HEADER_TRACING_DATA = 66,
        /// A build-id, in pipe mode.
        HEADER_BUILD_ID = 67,
        /// perf read every buffer once.
        FINISHED_ROUND = 68,
        /// Ids of an event.
        ID_INDEX = 69,
        /// What an AUX trace is.
        AUXTRACE_INFO = 70,
        /// AUX data; it follows the record.
        AUXTRACE = 71,
        /// A decoding error.
        AUXTRACE_ERROR = 72,
        /// A list of threads.
        THREAD_MAP = 73,
        /// A list of CPUs.
        CPU_MAP = 74,
        /// Settings of `perf stat`.
        STAT_CONFIG = 75,
        /// A count.
        STAT = 76,
        /// A round of counts.
        STAT_ROUND = 77,
        /// A change of an event.
        EVENT_UPDATE = 78,
        /// How to turn the TSC into time.
        TIME_CONV = 79,
        /// A header feature, in pipe mode.
        HEADER_FEATURE = 80,
        /// zstd data that holds records.
        COMPRESSED = 81,
        /// perf finished writing what it synthesised.
        FINISHED_INIT = 82,
        /// zstd data with its length, newer perf.
        COMPRESSED2 = 83,
    }
);

open_enum!(
    /// Bit number of a header feature.
    Feature(u32) {
        /// Tracepoint formats.
        TRACING_DATA = 1,
        /// Build-ids of the mapped files.
        BUILD_ID = 2,
        /// Name of the machine.
        HOSTNAME = 3,
        /// Kernel release.
        OSRELEASE = 4,
        /// Version of perf.
        VERSION = 5,
        /// Architecture.
        ARCH = 6,
        /// Number of CPUs, available and online.
        NRCPUS = 7,
        /// Name of the CPU.
        CPUDESC = 8,
        /// Vendor, family, model, stepping.
        CPUID = 9,
        /// Memory in kB.
        TOTAL_MEM = 10,
        /// perf's command line.
        CMDLINE = 11,
        /// Attributes, names and ids of the events.
        EVENT_DESC = 12,
        /// Cores and threads.
        CPU_TOPOLOGY = 13,
        /// NUMA nodes.
        NUMA_TOPOLOGY = 14,
        /// Samples have branch stacks.
        BRANCH_STACK = 15,
        /// Numbers of the PMUs.
        PMU_MAPPINGS = 16,
        /// Groups of events.
        GROUP_DESC = 17,
        /// AUX trace index.
        AUXTRACE = 18,
        /// Written by `perf stat`.
        STAT = 19,
        /// Caches.
        CACHE = 20,
        /// Time of the first and of the last sample.
        SAMPLE_TIME = 21,
        /// Memory of the nodes.
        MEM_TOPOLOGY = 22,
        /// Clock of the timestamps.
        CLOCKID = 23,
        /// The file is in a directory.
        DIR_FORMAT = 24,
        /// BPF programs.
        BPF_PROG_INFO = 25,
        /// BPF types.
        BPF_BTF = 26,
        /// Compression of the records.
        COMPRESSED = 27,
        /// Abilities of the CPU's PMU, LBR depth among them.
        CPU_PMU_CAPS = 28,
        /// Clock and wall time.
        CLOCK_DATA = 29,
        /// PMUs of a hybrid machine.
        HYBRID_TOPOLOGY = 30,
        /// Abilities of the PMUs.
        PMU_CAPS = 31,
    }
);

macro_rules! bit_set {
    ($(#[$doc:meta])* $name:ident { $($(#[$bdoc:meta])* $bit:ident = $number:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            $($(#[$bdoc])* pub const $bit: Self = Self(1 << $number);)*

            /// Whether every bit of `other` is set.
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// The bits of both.
            #[must_use]
            pub const fn union(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// Whether no bit is set.
            #[must_use]
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }
        }

        impl std::ops::BitOr for $name {
            type Output = Self;
            fn bitor(self, other: Self) -> Self {
                self.union(other)
            }
        }

        impl std::ops::BitOrAssign for $name {
            fn bitor_assign(&mut self, other: Self) {
                *self = self.union(other);
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut rest = self.0;
                let mut first = true;
                $(
                    if self.contains(Self::$bit) {
                        rest &= !Self::$bit.0;
                        if !first {
                            f.write_str("|")?;
                        }
                        first = false;
                        f.write_str(stringify!($bit))?;
                    }
                )*
                if rest != 0 || first {
                    write!(f, "{}{rest:#x}", if first { "" } else { "|" })?;
                }
                Ok(())
            }
        }
    };
}

bit_set!(
    /// `perf_event_attr.sample_type`: which fields a sample has.
    SampleType {
        /// Instruction pointer.
        IP = 0,
        /// Process and thread.
        TID = 1,
        /// Time in ns.
        TIME = 2,
        /// Data address.
        ADDR = 3,
        /// Counter values.
        READ = 4,
        /// Call chain.
        CALLCHAIN = 5,
        /// Id of the event.
        ID = 6,
        /// CPU.
        CPU = 7,
        /// Period since the last sample.
        PERIOD = 8,
        /// Id of the event's instance.
        STREAM_ID = 9,
        /// Raw bytes.
        RAW = 10,
        /// Branch stack.
        BRANCH_STACK = 11,
        /// User registers.
        REGS_USER = 12,
        /// Copy of the user stack.
        STACK_USER = 13,
        /// Weight, one number.
        WEIGHT = 14,
        /// Where data came from.
        DATA_SRC = 15,
        /// Id of the event, first in the sample.
        IDENTIFIER = 16,
        /// Why a transaction aborted.
        TRANSACTION = 17,
        /// Registers at the interrupt.
        REGS_INTR = 18,
        /// Physical data address.
        PHYS_ADDR = 19,
        /// AUX data.
        AUX = 20,
        /// Control group.
        CGROUP = 21,
        /// Size of the data page.
        DATA_PAGE_SIZE = 22,
        /// Size of the code page.
        CODE_PAGE_SIZE = 23,
        /// Weight, a structure.
        WEIGHT_STRUCT = 24,
    }
);

bit_set!(
    /// `perf_event_attr.branch_sample_type`: which branches are recorded, and what of them.
    BranchSampleType {
        /// Target in user mode.
        USER = 0,
        /// Target in the kernel.
        KERNEL = 1,
        /// Target in the hypervisor.
        HV = 2,
        /// Any branch.
        ANY = 3,
        /// Any call.
        ANY_CALL = 4,
        /// Any return.
        ANY_RETURN = 5,
        /// Indirect calls.
        IND_CALL = 6,
        /// Transaction aborts.
        ABORT_TX = 7,
        /// In a transaction.
        IN_TX = 8,
        /// Not in a transaction.
        NO_TX = 9,
        /// Conditional branches.
        COND = 10,
        /// Call-stack mode.
        CALL_STACK = 11,
        /// Indirect jumps.
        IND_JUMP = 12,
        /// Direct calls.
        CALL = 13,
        /// Leave out prediction and transaction flags.
        NO_FLAGS = 14,
        /// Leave out cycles.
        NO_CYCLES = 15,
        /// Save the branch type.
        TYPE_SAVE = 16,
        /// Save the index of the newest entry.
        HW_INDEX = 17,
        /// Save the privilege level.
        PRIV_SAVE = 18,
        /// Save occurrences of other events.
        COUNTERS = 19,
    }
);

bit_set!(
    /// `perf_event_attr.read_format`.
    ReadFormat {
        /// Time enabled.
        TOTAL_TIME_ENABLED = 0,
        /// Time running.
        TOTAL_TIME_RUNNING = 1,
        /// Id of each event.
        ID = 2,
        /// Every event of the group.
        GROUP = 3,
        /// Lost samples of each event.
        LOST = 4,
    }
);

bit_set!(
    /// The one-bit fields of `perf_event_attr`. Bits 15 and 16 are `precise_ip`.
    AttrFlags {
        /// Starts disabled.
        DISABLED = 0,
        /// Children inherit it.
        INHERIT = 1,
        /// Always on the PMU.
        PINNED = 2,
        /// Alone on the PMU.
        EXCLUSIVE = 3,
        /// Not in user mode.
        EXCLUDE_USER = 4,
        /// Not in the kernel.
        EXCLUDE_KERNEL = 5,
        /// Not in the hypervisor.
        EXCLUDE_HV = 6,
        /// Not when idle.
        EXCLUDE_IDLE = 7,
        /// Record mappings.
        MMAP = 8,
        /// Record names.
        COMM = 9,
        /// The period is a frequency.
        FREQ = 10,
        /// Counts per task.
        INHERIT_STAT = 11,
        /// The next exec enables it.
        ENABLE_ON_EXEC = 12,
        /// Record forks and exits.
        TASK = 13,
        /// Wake up by bytes.
        WATERMARK = 14,
        /// Record data mappings.
        MMAP_DATA = 17,
        /// Every record has an id trailer.
        SAMPLE_ID_ALL = 18,
        /// Not in the host.
        EXCLUDE_HOST = 19,
        /// Not in a guest.
        EXCLUDE_GUEST = 20,
        /// No kernel call chains.
        EXCLUDE_CALLCHAIN_KERNEL = 21,
        /// No user call chains.
        EXCLUDE_CALLCHAIN_USER = 22,
        /// Record mappings with inode.
        MMAP2 = 23,
        /// Mark names set by exec.
        COMM_EXEC = 24,
        /// Clock is chosen.
        USE_CLOCKID = 25,
        /// Record context switches.
        CONTEXT_SWITCH = 26,
        /// Ring is written backwards.
        WRITE_BACKWARD = 27,
        /// Record namespaces.
        NAMESPACES = 28,
        /// Record kernel symbols.
        KSYMBOL = 29,
        /// Record BPF events.
        BPF_EVENT = 30,
        /// Output goes to the AUX area.
        AUX_OUTPUT = 31,
        /// Record cgroups.
        CGROUP = 32,
        /// Record changes of kernel text.
        TEXT_POKE = 33,
        /// Build-ids in MMAP2.
        BUILD_ID = 34,
        /// Only threads inherit.
        INHERIT_THREAD = 35,
        /// Gone after exec.
        REMOVE_ON_EXEC = 36,
        /// SIGTRAP on overflow.
        SIGTRAP = 37,
    }
);

/// `perf_event_header.misc`.
pub mod misc {
    /// Bits that hold the CPU mode.
    pub const CPUMODE_MASK: u16 = 7;
    /// CPU mode: kernel.
    pub const KERNEL: u16 = 1;
    /// CPU mode: user.
    pub const USER: u16 = 2;
    /// A COMM record caused by exec.
    pub const COMM_EXEC: u16 = 1 << 13;
    /// A data mapping.
    pub const MMAP_DATA: u16 = 1 << 13;
    /// The instruction pointer of the sample is exact.
    pub const EXACT_IP: u16 = 1 << 14;
    /// An MMAP2 record with a build-id in place of device and inode.
    pub const MMAP_BUILD_ID: u16 = 1 << 14;
    /// A build-id entry that states the length of its build-id.
    pub const BUILD_ID_SIZE: u16 = 1 << 15;
}
