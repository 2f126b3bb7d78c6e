//! What a timing program printed.

use core::fmt;

use vlbr_arch::Msr;
use vlbr_arch::vmx::MsrArea;

/// Type of a core, from CPUID leaf 0x1A.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Core {
    /// All cores are the same.
    Only,
    /// Intel Atom.
    Atom,
    /// Intel Core.
    Core,
}

/// Which processor it was, from CPUID leaf 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Vendor string of leaf 0.
    pub vendor: String,
    /// DisplayFamily.
    pub family: u16,
    /// DisplayModel.
    pub model: u8,
    /// Stepping.
    pub stepping: u8,
    /// Type of the core, on parts with several.
    pub core: Core,
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {:02X}_{:02X} stepping {}",
            self.vendor, self.family, self.model, self.stepping
        )?;
        f.write_str(match self.core {
            Core::Only => "",
            Core::Atom => " (Atom core)",
            Core::Core => " (Core core)",
        })
    }
}

/// What was timed: who may call a figure measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A processor.
    Hardware,
    /// What a hypervisor or an emulator of this name shows.
    Virtual(String),
    /// Nothing: the text says that it was made up.
    Synthetic,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hardware => f.write_str("hardware"),
            Self::Virtual(name) => write!(f, "{name}, not hardware"),
            Self::Synthetic => f.write_str("synthetic"),
        }
    }
}

/// Which of the programs it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The Linux module.
    Module,
    /// The bare-metal image.
    Image,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Module => "module",
            Self::Image => "image",
        })
    }
}

/// What a row timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// CPUID of this leaf: the control that tells a processor from a hypervisor.
    Cpuid(u32),
    /// RDMSR.
    Rdmsr(Msr),
    /// WRMSR of the value that is there.
    Wrmsr(Msr),
    /// RDPMC with this index. No cost of a model: the ledger counts none.
    Rdpmc(u32),
    /// An access that faults: exception delivery and IRET.
    Fault,
    /// XSAVES of component 15.
    Xsaves,
    /// XRSTORS of component 15.
    Xrstors,
    /// VMREAD.
    Vmread,
    /// VMWRITE.
    Vmwrite,
    /// VM exit and entry; the exit's basic reason.
    RoundTrip(u16),
    /// VM exit and entry with one MSR area that names this register so many times.
    Area(MsrArea, Msr, u32),
    /// VM exit and entry with so many MSRs loaded from fields of the VMCS.
    Fields(u32),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpuid(leaf) => write!(f, "cpuid leaf={leaf:#x}"),
            Self::Rdmsr(msr) => write!(f, "rdmsr msr={:#x}", msr.value()),
            Self::Wrmsr(msr) => write!(f, "wrmsr msr={:#x}", msr.value()),
            Self::Rdpmc(index) => write!(f, "rdpmc index={index:#x}"),
            Self::Fault => f.write_str("fault"),
            Self::Xsaves => f.write_str("xsaves"),
            Self::Xrstors => f.write_str("xrstors"),
            Self::Vmread => f.write_str("vmread"),
            Self::Vmwrite => f.write_str("vmwrite"),
            Self::RoundTrip(reason) => write!(f, "round_trip reason={reason}"),
            Self::Area(area, msr, entries) => {
                let (list, msr) = (area_name(*area), msr.value());
                write!(f, "area list={list} msr={msr:#x} entries={entries}")
            }
            Self::Fields(count) => write!(f, "fields loads={count}"),
        }
    }
}

/// The areas by the names they have in the lines.
pub(crate) const AREAS: [(MsrArea, &str); 3] = [
    (MsrArea::EntryLoad, "entry-load"),
    (MsrArea::ExitStore, "exit-store"),
    (MsrArea::ExitLoad, "exit-load"),
];

fn area_name(area: MsrArea) -> &'static str {
    AREAS
        .iter()
        .find(|(known, _)| *known == area)
        .map_or("unknown", |(_, name)| name)
}

/// Samples of one row, in ticks of the TSC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    /// Operations timed together, back to back.
    pub batch: u32,
    /// Samples.
    pub count: u32,
    /// Median of the empty timing, which every figure holds.
    pub overhead: u32,
    /// Shortest sample.
    pub min: u32,
    /// First quartile.
    pub q1: u32,
    /// Median.
    pub median: u32,
    /// Third quartile.
    pub q3: u32,
    /// What the clocks did meanwhile; `None` where the processor has no APERF and MPERF.
    pub clock: Option<Clock>,
}

/// Core clocks against the TSC while a row was sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Advance of `IA32_APERF`, in core clocks.
    pub aperf: u64,
    /// Advance of `IA32_MPERF`, in ticks of the TSC.
    pub mperf: u64,
}

/// A row: what was timed and what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// What.
    pub kind: Kind,
    /// The samples.
    pub ticks: Ticks,
}

/// Something that was not timed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// Name of the row kind, with its number if it has one.
    pub what: String,
    /// Why.
    pub reason: String,
}

/// All that one run of a program printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The program.
    pub program: Program,
    /// The processor.
    pub signature: Signature,
    /// Revision of its microcode.
    pub microcode: u32,
    /// Kernel with its release, or the image with its version.
    pub system: String,
    /// What was timed.
    pub origin: Origin,
    /// Frequency of the TSC in kHz.
    pub tsc_khz: u32,
    /// How that was found.
    pub tsc_from: String,
    /// The rows.
    pub rows: Vec<Row>,
    /// What was left out.
    pub skips: Vec<Skip>,
}
