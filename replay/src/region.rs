//! A part of a trace, between two places control reaches.

use vlbr_cpu::StepId;
use vlbr_traces::symbols::Symbolizer;
use vlbr_traces::vlt::{ChunkBuffer, Scope, Trace, VltError};

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

    /// From the first step at one of the addresses `from` (the start of the trace if `None`) to
    /// before the next step after it at one of the addresses `to` (the end if `None`). `None` if
    /// control never reaches `from`.
    ///
    /// # Errors
    /// The trace is damaged.
    pub fn between(
        trace: &Trace,
        from: Option<&[u64]>,
        to: Option<&[u64]>,
    ) -> Result<Option<Self>, VltError> {
        let beginning = Place { chunk: 0, step: 0 };
        let start = match from {
            None => beginning,
            Some(addresses) => match find(trace, addresses, beginning)? {
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
            Some(addresses) => find(trace, addresses, behind)?,
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

/// The run-time addresses at which blocks of `trace` start and that `name` means: a symbol, or an
/// address `0x...`. Ascending.
#[must_use]
pub fn symbol_addresses(trace: &Trace, symbols: &Symbolizer, name: &str) -> Vec<u64> {
    if let Some(digits) = name.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).into_iter().collect();
    }
    let mut pids: Vec<u32> = match trace.meta().scope {
        Scope::User => trace
            .processes()
            .iter()
            .map(|process| process.pid)
            .collect(),
        Scope::System => vec![0],
    };
    pids.sort_unstable();
    pids.dedup();
    let blocks = trace
        .code()
        .blocks()
        .iter()
        .filter(|block| block.instructions() > 0);
    let mut addresses: Vec<u64> = blocks.map(vlbr_cpu::Block::address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.retain(|&address| {
        pids.iter().any(|&pid| {
            let symbol = symbols
                .resolve(pid, address)
                .and_then(|resolved| resolved.symbol);
            symbol.is_some_and(|symbol| {
                symbol.offset == 0
                    && (symbol.name == name.as_bytes() || symbol.display_name() == name)
            })
        })
    });
    addresses
}

/// The first step at or behind `after` whose block starts at one of `addresses`.
fn find(trace: &Trace, addresses: &[u64], after: Place) -> Result<Option<Place>, VltError> {
    let code = trace.code();
    let wanted = |step: StepId| {
        let block = code.block_of(step);
        block.instructions() > 0 && addresses.contains(&block.address())
    };
    let mut buffer = ChunkBuffer::default();
    for index in after.chunk..trace.chunks().len() {
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
