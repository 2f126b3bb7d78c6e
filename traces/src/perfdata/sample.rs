//! PERF_RECORD_SAMPLE: every field that `sample_type` can ask for.
//!
//! The order is that of `perf_output_sample` in `kernel/events/core.c`.

use std::ops::Range;

use super::abi::{BranchSampleType, ReadFormat, SampleType};
use super::attr::EventAttr;
use super::cursor::{Cursor, Cut};
use super::entry::{BranchEntry, ENTRY_SIZE};

/// The branch stack of a sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BranchStack {
    /// Index of the newest entry in the hardware ring; all ones where the CPU has none.
    pub hw_idx: Option<u64>,
    /// Entries, newest first.
    pub entries: Vec<BranchEntry>,
    /// Occurrences of other events, a word an entry.
    pub counters: Option<Vec<u64>>,
}

impl BranchStack {
    fn decode(cursor: &mut Cursor<'_>, attr: &EventAttr) -> Result<Self, Cut> {
        let count = cursor.u64("the number of branch entries")?;
        let hw_idx = if attr.branch_sample_type.contains(BranchSampleType::HW_INDEX) {
            Some(cursor.u64("the hardware index")?)
        } else {
            None
        };
        let bytes = cursor.table(count, ENTRY_SIZE, "the branch entries")?;
        let (chunks, _) = bytes.as_chunks::<ENTRY_SIZE>();
        let entries = chunks.iter().map(BranchEntry::decode).collect();
        let counters = if attr.branch_sample_type.contains(BranchSampleType::COUNTERS) {
            Some(cursor.words(count, "the branch counters")?)
        } else {
            None
        };
        Ok(Self {
            hw_idx,
            entries,
            counters,
        })
    }

    /// The stack as it stands in a sample: count, hardware index, entries, counters.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = (self.entries.len() as u64).to_le_bytes().to_vec();
        out.extend(self.hw_idx.into_iter().flat_map(u64::to_le_bytes));
        out.extend(self.entries.iter().flat_map(BranchEntry::encode));
        out.extend(
            self.counters
                .iter()
                .flatten()
                .flat_map(|word| word.to_le_bytes()),
        );
        out
    }
}

/// One counter of a sample with counter values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterValue {
    /// The count.
    pub value: u64,
    /// Id of the event.
    pub id: Option<u64>,
    /// Samples lost.
    pub lost: Option<u64>,
}

/// The counters of a sample with counter values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterValues {
    /// ns enabled.
    pub time_enabled: Option<u64>,
    /// ns running.
    pub time_running: Option<u64>,
    /// The event, or every event of its group.
    pub counters: Vec<CounterValue>,
}

impl CounterValues {
    fn decode(cursor: &mut Cursor<'_>, format: ReadFormat) -> Result<Self, Cut> {
        const WHAT: &str = "the counter values";
        let optional = |cursor: &mut Cursor<'_>, bit| {
            if format.contains(bit) {
                cursor.u64(WHAT).map(Some)
            } else {
                Ok(None)
            }
        };
        if format.contains(ReadFormat::GROUP) {
            let count = cursor.u64(WHAT)?;
            let time_enabled = optional(cursor, ReadFormat::TOTAL_TIME_ENABLED)?;
            let time_running = optional(cursor, ReadFormat::TOTAL_TIME_RUNNING)?;
            let mut counters = Vec::new();
            // Each takes at least 8 bytes of the record, so this ends within 64 KiB.
            for _ in 0..count {
                counters.push(CounterValue {
                    value: cursor.u64(WHAT)?,
                    id: optional(cursor, ReadFormat::ID)?,
                    lost: optional(cursor, ReadFormat::LOST)?,
                });
            }
            return Ok(Self {
                time_enabled,
                time_running,
                counters,
            });
        }
        let value = cursor.u64(WHAT)?;
        let time_enabled = optional(cursor, ReadFormat::TOTAL_TIME_ENABLED)?;
        let time_running = optional(cursor, ReadFormat::TOTAL_TIME_RUNNING)?;
        let id = optional(cursor, ReadFormat::ID)?;
        let lost = optional(cursor, ReadFormat::LOST)?;
        Ok(Self {
            time_enabled,
            time_running,
            counters: vec![CounterValue { value, id, lost }],
        })
    }
}

/// Registers of a sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// `PERF_SAMPLE_REGS_ABI_*`: 0 none, 1 32-bit, 2 64-bit.
    pub abi: u64,
    /// Values, in the order of the bits of the attribute's mask.
    pub values: Vec<u64>,
}

impl Registers {
    fn decode(cursor: &mut Cursor<'_>, mask: u64) -> Result<Self, Cut> {
        let abi = cursor.u64("the registers")?;
        let count = if abi == 0 {
            0
        } else {
            u64::from(mask.count_ones())
        };
        Ok(Self {
            abi,
            values: cursor.words(count, "the registers")?,
        })
    }
}

/// Copy of the top of the user stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserStack<'a> {
    /// The bytes copied.
    pub bytes: &'a [u8],
    /// How many of them hold stack.
    pub dynamic_size: u64,
}

/// A sample. A field is `None` when the event did not ask for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample<'a> {
    /// Id of the event, first in the record.
    pub identifier: Option<u64>,
    /// Instruction pointer.
    pub ip: Option<u64>,
    /// Process and thread.
    pub task: Option<(u32, u32)>,
    /// Time in ns.
    pub time: Option<u64>,
    /// Data address.
    pub addr: Option<u64>,
    /// Id of the event.
    pub id: Option<u64>,
    /// Id of the event's instance.
    pub stream_id: Option<u64>,
    /// CPU.
    pub cpu: Option<u32>,
    /// Period.
    pub period: Option<u64>,
    /// Counter values.
    pub read: Option<CounterValues>,
    /// Call chain with its context markers.
    pub callchain: Option<Vec<u64>>,
    /// Raw bytes.
    pub raw: Option<&'a [u8]>,
    /// Branch stack.
    pub branch_stack: Option<BranchStack>,
    /// Where in the record's body the branch stack lies.
    pub branch_stack_range: Option<Range<usize>>,
    /// User registers.
    pub user_registers: Option<Registers>,
    /// User stack.
    pub user_stack: Option<UserStack<'a>>,
    /// Weight, or its structure as one word.
    pub weight: Option<u64>,
    /// Where the data came from.
    pub data_src: Option<u64>,
    /// Why a transaction aborted.
    pub transaction: Option<u64>,
    /// Registers at the interrupt.
    pub interrupt_registers: Option<Registers>,
    /// Physical data address.
    pub phys_addr: Option<u64>,
    /// Control group.
    pub cgroup: Option<u64>,
    /// Size of the data page.
    pub data_page_size: Option<u64>,
    /// Size of the code page.
    pub code_page_size: Option<u64>,
    /// AUX data.
    pub aux: Option<&'a [u8]>,
    /// Bytes after the last field that is known here.
    pub rest: &'a [u8],
}

impl<'a> Sample<'a> {
    /// Reads the body of a sample of the event `attr`.
    pub(super) fn decode(body: &'a [u8], attr: &EventAttr) -> Result<Self, Cut> {
        let has = |bit| attr.sample_type.contains(bit);
        let mut cursor = Cursor::new(body);
        let c = &mut cursor;
        let word = |c: &mut Cursor<'_>, bit, what| {
            if attr.sample_type.contains(bit) {
                c.u64(what).map(Some)
            } else {
                Ok(None)
            }
        };
        let mut s = Sample {
            identifier: word(c, SampleType::IDENTIFIER, "the identifier")?,
            ip: word(c, SampleType::IP, "the instruction pointer")?,
            ..Self::default()
        };
        if has(SampleType::TID) {
            s.task = Some((c.u32("the process")?, c.u32("the thread")?));
        }
        s.time = word(c, SampleType::TIME, "the time")?;
        s.addr = word(c, SampleType::ADDR, "the data address")?;
        s.id = word(c, SampleType::ID, "the id")?;
        s.stream_id = word(c, SampleType::STREAM_ID, "the stream id")?;
        if has(SampleType::CPU) {
            s.cpu = Some(c.u32("the CPU")?);
            c.u32("the CPU")?;
        }
        s.period = word(c, SampleType::PERIOD, "the period")?;
        if has(SampleType::READ) {
            s.read = Some(CounterValues::decode(c, attr.read_format)?);
        }
        if has(SampleType::CALLCHAIN) {
            let count = c.u64("the call chain")?;
            s.callchain = Some(c.words(count, "the call chain")?);
        }
        if has(SampleType::RAW) {
            let size = c.u32("the raw data")?;
            s.raw = Some(c.bytes(size as usize, "the raw data")?);
        }
        if has(SampleType::BRANCH_STACK) {
            let start = c.position();
            s.branch_stack = Some(BranchStack::decode(c, attr)?);
            s.branch_stack_range = Some(start..c.position());
        }
        if has(SampleType::REGS_USER) {
            s.user_registers = Some(Registers::decode(c, attr.sample_regs_user)?);
        }
        if has(SampleType::STACK_USER) {
            s.user_stack = Some(user_stack(c)?);
        }
        if has(SampleType::WEIGHT) || has(SampleType::WEIGHT_STRUCT) {
            s.weight = Some(c.u64("the weight")?);
        }
        s.data_src = word(c, SampleType::DATA_SRC, "the data source")?;
        s.transaction = word(c, SampleType::TRANSACTION, "the transaction")?;
        if has(SampleType::REGS_INTR) {
            s.interrupt_registers = Some(Registers::decode(c, attr.sample_regs_intr)?);
        }
        s.phys_addr = word(c, SampleType::PHYS_ADDR, "the physical address")?;
        s.cgroup = word(c, SampleType::CGROUP, "the cgroup")?;
        s.data_page_size = word(c, SampleType::DATA_PAGE_SIZE, "the data page size")?;
        s.code_page_size = word(c, SampleType::CODE_PAGE_SIZE, "the code page size")?;
        if has(SampleType::AUX) {
            let size = c.u64("the AUX data")?;
            s.aux = Some(c.table(size, 1, "the AUX data")?);
        }
        s.rest = c.rest();
        Ok(s)
    }
}

fn user_stack<'a>(cursor: &mut Cursor<'a>) -> Result<UserStack<'a>, Cut> {
    let size = cursor.u64("the user stack")?;
    if size == 0 {
        return Ok(UserStack::default());
    }
    let bytes = cursor.table(size, 1, "the user stack")?;
    Ok(UserStack {
        bytes,
        dynamic_size: cursor.u64("the user stack")?,
    })
}
