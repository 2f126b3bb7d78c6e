//! A part of a trace, between two places control reaches.

use vlbr_cpu::StepId;
use vlbr_traces::vlt::{ChunkBuffer, Trace, VltError};

use crate::error::ReplayError;
use crate::names::{Moment, Names};

/// A place in the sequence of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    chunk: usize,
    step: usize,
}

/// The steps from one place to before another, in file order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    start: Option<Place>,
    end: Option<Place>,
}

impl Region {
    /// The whole trace.
    #[must_use]
    pub fn whole() -> Self {
        Self::default()
    }

    /// From the first step at `from` (the start of the trace if `None`) to before the next step after
    /// it at `to` (the end if `None`). `None` if control never reaches `from`.
    ///
    /// # Errors
    /// The trace is damaged.
    pub fn between(
        trace: &Trace,
        from: Option<&Entrance<'_>>,
        to: Option<&Entrance<'_>>,
    ) -> Result<Option<Self>, VltError> {
        let beginning = Place { chunk: 0, step: 0 };
        let start = match from {
            None => beginning,
            Some(entrance) => match find(trace, entrance, beginning)? {
                Some(place) => place,
                None => return Ok(None),
            },
        };
        let behind = Place {
            step: start.step + 1,
            ..start
        };
        let end = match to {
            None => None,
            Some(entrance) => find(trace, entrance, behind)?,
        };
        Ok(Some(Self {
            start: Some(start),
            end,
        }))
    }

    /// Whether control reached its end.
    #[must_use]
    pub fn has_end(&self) -> bool {
        self.end.is_some()
    }

    /// The chunks it touches, of `count`.
    pub(crate) fn chunks(&self, count: usize) -> std::ops::Range<usize> {
        let start = self.start.map_or(0, |place| place.chunk);
        let end = self.end.map_or(count, |place| count.min(place.chunk + 1));
        start..end.max(start)
    }

    /// The steps of `chunk` that belong to it, of `count`.
    pub(crate) fn steps(&self, chunk: usize, count: usize) -> (usize, usize) {
        let start = match self.start {
            Some(place) if place.chunk == chunk => place.step.min(count),
            _ => 0,
        };
        let end = match self.end {
            Some(place) if place.chunk == chunk => place.step.min(count),
            _ => count,
        };
        (start, end.max(start))
    }
}

/// Where control enters what a name means: a symbol, or an address `0x...`.
#[derive(Debug)]
pub struct Entrance<'n> {
    /// Ascending. Of a symbol, those that may be its: whether one is depends on the time.
    addresses: Vec<u64>,
    symbol: Option<(&'n Names, &'n str)>,
}

impl<'n> Entrance<'n> {
    /// The entrance `name` of `trace`, which `names` is of.
    ///
    /// # Errors
    /// [`ReplayError::NoSymbol`]: no block of the trace starts where this symbol does, in any
    /// process.
    pub fn new(trace: &Trace, names: &'n Names, name: &'n str) -> Result<Self, ReplayError> {
        let unknown = || ReplayError::NoSymbol(name.to_owned());
        if let Some(digits) = name.strip_prefix("0x") {
            let address = u64::from_str_radix(digits, 16).map_err(|_| unknown())?;
            return Ok(Self {
                addresses: vec![address],
                symbol: None,
            });
        }
        let blocks = trace.code().blocks().iter();
        let mut addresses: Vec<u64> = blocks
            .filter(|block| block.instructions() > 0)
            .map(vlbr_cpu::Block::address)
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        // The name an address has can only change when a mapping comes.
        let chunks = trace.mappings().iter().map(|m| m.from_chunk as usize);
        let mut chunks: Vec<usize> = chunks.chain([0]).collect();
        chunks.sort_unstable();
        chunks.dedup();
        let processes = trace.processes().len() as u32;
        addresses.retain(|&address| {
            (0..processes).any(|process| {
                let mut moments = chunks.iter().map(|&chunk| Moment { process, chunk });
                moments.any(|at| begins(names, name, at, address))
            })
        });
        if addresses.is_empty() {
            return Err(unknown());
        }
        Ok(Self {
            addresses,
            symbol: Some((names, name)),
        })
    }

    fn is_at(&self, at: Moment, address: u64) -> bool {
        self.addresses.binary_search(&address).is_ok()
            && self
                .symbol
                .is_none_or(|(names, name)| begins(names, name, at, address))
    }
}

/// Whether the symbol `name` begins at `address`.
fn begins(names: &Names, name: &str, at: Moment, address: u64) -> bool {
    names.symbol(at, address).is_some_and(|symbol| {
        symbol.offset == 0 && (symbol.name == name.as_bytes() || symbol.display_name() == name)
    })
}

/// The first step at or behind `after` whose block starts at `entrance`.
fn find(trace: &Trace, entrance: &Entrance<'_>, after: Place) -> Result<Option<Place>, VltError> {
    let code = trace.code();
    let mut buffer = ChunkBuffer::default();
    for index in after.chunk..trace.chunks().len() {
        let at = Moment::of_chunk(trace, index);
        let wanted = |step: StepId| {
            let block = code.block_of(step);
            block.instructions() > 0 && entrance.is_at(at, block.address())
        };
        let chunk = trace.decode(index, &mut buffer)?;
        let hits: Vec<bool> = chunk.map.iter().map(|&step| wanted(step)).collect();
        if !hits.contains(&true) {
            continue;
        }
        let first = if index == after.chunk { after.step } else { 0 };
        let found = (first..chunk.ids.len()).find(|&step| hits[chunk.ids.local(step)]);
        if let Some(step) = found {
            return Ok(Some(Place { chunk: index, step }));
        }
    }
    Ok(None)
}
