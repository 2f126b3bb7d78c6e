//! The device alone, with made-up flags and times.
//!
//! Recorders know no mispredictions, transactions or clocks, so no trace would tell a fault in how
//! they are kept. Therefore the first transfers of every trace also go through a device of every
//! configuration with flags and times drawn from a fixed sequence.

use vlbr_arch::{Cycles, Msr, Transfer};
use vlbr_host::perf::X86Br;
use vlbr_lbr::{Lbr, Record};
use vlbr_traces::vlt::{ChunkBuffer, Trace};

use super::digest::Segments;
use crate::device::{DeviceError, ProgrammedLbr};
use crate::error::ReplayError;
use crate::region::Region;

/// Transfers taken.
const TRANSFERS: u64 = 20_000;
/// Transfers between two looks at the stack, not a multiple of any depth.
const BETWEEN: u64 = 61;

/// What software reads after the exercise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Exercised {
    /// Transfers that went through.
    pub(super) transfers: u64,
    /// Digests of what was read on the way.
    pub(super) digests: Vec<u64>,
    /// The last stack.
    pub(super) records: Vec<Record>,
}

/// Exercises the LBR with the first transfers of `region`.
pub(super) fn exercise(
    trace: &Trace,
    region: Region,
    programmed: &ProgrammedLbr,
) -> Result<Exercised, ReplayError> {
    let mut device = programmed.lbr().clone();
    let enable: Vec<(Msr, u64)> = [Msr::DEBUGCTL, Msr::LBR_CTL]
        .into_iter()
        .filter_map(|msr| Some((msr, device.rdmsr(msr).ok()?)))
        .collect();
    let (mut transfers, mut now) = (0, 0);
    let mut seen = Segments::default();
    let mut buffer = ChunkBuffer::default();
    'chunks: for index in region.chunks(trace.chunks().len()) {
        let chunk = trace.decode(index, &mut buffer)?;
        let (start, end) = region.steps(index, chunk.ids.len());
        for position in start..end {
            let id = chunk.map[chunk.ids.local(position)];
            let Some(transfer) = trace.code().transfer(id) else {
                continue;
            };
            let (transfer, clocks) = made_up(transfer, transfers);
            now += clocks;
            device.retire(&transfer, Cycles::new(now));
            transfers += 1;
            if transfers % BETWEEN == 0 {
                seen.push(&read(&device));
                // Debug exceptions end the recording.
                for &(msr, value) in &enable {
                    device.wrmsr(msr, value).map_err(DeviceError::Fault)?;
                }
            }
            if transfers == TRANSFERS {
                break 'chunks;
            }
        }
    }
    seen.push(&read(&device));
    Ok(Exercised {
        transfers,
        digests: seen.finish(),
        records: device.stack().collect(),
    })
}

/// The transfer with flags, and clocks since the one before, for transfer `number`.
fn made_up(transfer: &Transfer, number: u64) -> (Transfer, u64) {
    let random = mix(number);
    let in_tx = random >> 8 & 7 == 0;
    let transfer = Transfer {
        mispredicted: random & 3 == 0,
        in_tx,
        tx_abort: in_tx && random >> 16 & 3 == 0,
        ..*transfer
    };
    // Mostly short, at times longer than any counter counts.
    let clocks = random >> 32
        & if random >> 24 & 15 == 0 {
            0x3_ffff
        } else {
            0x3f
        };
    (transfer, clocks)
}

/// SplitMix64's output function.
const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Everything of the stack that software can read, as bytes.
fn read(device: &Lbr) -> Vec<u8> {
    let mut bytes = (device.tos() as u64).to_le_bytes().to_vec();
    for record in device.stack() {
        let words = record.raw.into_iter().chain([record.from, record.to]);
        words.for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    }
    bytes
}

/// What perf makes of a record, whatever it would filter.
pub(super) fn as_perf_reads(
    programmed: &ProgrammedLbr,
    record: &Record,
) -> vlbr_traces::perfdata::BranchEntry {
    programmed.read(record, X86Br::NONE).entry
}
