//! Digests of a sequence of samples that say where two sequences part.

use sha2::{Digest, Sha256};
use vlbr_traces::perfdata::SampleRecord;

/// Segments are kept finer than a sixteenth of the sequence.
const MOST_SEGMENTS: usize = 32;

/// The first 64 bits of a SHA-256.
fn hash(bytes: &[u8]) -> u64 {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    u64::from_be_bytes(std::array::from_fn(|i| digest[i]))
}

/// The digest of two neighbours.
fn join(left: u64, right: u64) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&left.to_be_bytes());
    bytes[8..].copy_from_slice(&right.to_be_bytes());
    hash(&bytes)
}

/// The digests of equal parts of a sequence whose length is not known before its end: a hash tree
/// that is cut off so low that at most 32 nodes remain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Segments {
    /// Whole segments hold `1 << level` samples.
    level: u32,
    /// Level and digest, whole segments first, then the parts of the last one, larger first.
    nodes: Vec<(u32, u64)>,
    samples: u64,
}

impl Segments {
    /// Appends a sample, given as bytes. Whether segments became larger.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> bool {
        self.nodes.push((0, hash(bytes)));
        self.samples += 1;
        while let [.., (left_level, left), (level, right)] = self.nodes[..]
            && left_level == level
            && level < self.level
        {
            self.nodes.truncate(self.nodes.len() - 2);
            self.nodes.push((level + 1, join(left, right)));
        }
        let full = self.nodes.len() == MOST_SEGMENTS
            && self.nodes.last().is_some_and(|node| node.0 == self.level);
        if full {
            self.level += 1;
            let pairs = self.nodes.chunks_exact(2);
            self.nodes = pairs
                .map(|pair| (self.level, join(pair[0].1, pair[1].1)))
                .collect();
        }
        full
    }

    /// Samples so far.
    pub(crate) fn samples(&self) -> u64 {
        self.samples
    }

    /// Samples of a segment.
    pub(crate) fn size(&self) -> u64 {
        1 << self.level
    }

    /// The digests of the segments; the last one may be shorter.
    pub(crate) fn finish(&self) -> Vec<u64> {
        let whole = self.nodes.partition_point(|node| node.0 == self.level);
        let (whole, rest) = self.nodes.split_at(whole);
        let mut digests: Vec<u64> = whole.iter().map(|node| node.1).collect();
        let rest = rest.iter().map(|node| node.1);
        digests.extend(rest.rev().reduce(|right, left| join(left, right)));
        digests
    }
}

/// Where two sequences part, as the range of samples it happens in. `None` if all segments that
/// both have are equal.
pub(crate) fn first_difference(
    (old_size, old): (u64, &[u64]),
    (new_size, new): (u64, &[u64]),
) -> Option<(u64, u64)> {
    let size = old_size.max(new_size).max(1);
    let (old, new) = (coarser(old_size, size, old), coarser(new_size, size, new));
    let index = old.iter().zip(&new).position(|(old, new)| old != new)?;
    let first = index as u64 * size;
    Some((first, first + size - 1))
}

/// Segments of `size` samples joined into segments of `wanted`, a larger power of two.
fn coarser(size: u64, wanted: u64, digests: &[u64]) -> Vec<u64> {
    let mut size = size.max(1);
    let mut digests = digests.to_vec();
    while size < wanted {
        digests = digests
            .chunks(2)
            .map(|pair| match *pair {
                [left, right] => join(left, right),
                _ => pair[0],
            })
            .collect();
        size *= 2;
    }
    digests
}

/// The parts of samples, each with a checksum of its own: which of them differ tells what kind of
/// fault it is.
pub(crate) const ASPECTS: [&str; 7] = ["ip", "task", "time", "from", "to", "flags", "index"];

/// CRC-32C of each of [`ASPECTS`].
pub(crate) type Aspects = [u32; ASPECTS.len()];

/// Adds a sample to the checksums.
pub(crate) fn add_aspects(aspects: &mut Aspects, sample: &SampleRecord<'_>) {
    let [ip, task, time, from, to, flags, index] = aspects;
    let add = |crc: &mut u32, word: u64| *crc = crc32c::crc32c_append(*crc, &word.to_le_bytes());
    add(ip, sample.ip ^ u64::from(sample.kernel) << 62);
    add(task, u64::from(sample.pid) << 32 | u64::from(sample.tid));
    add(task, u64::from(sample.cpu));
    add(time, sample.time_ns);
    add(index, sample.hw_idx.unwrap_or(u64::MAX));
    for entry in sample.branches {
        add(from, entry.from);
        add(to, entry.to);
        add(flags, entry.flags.to_word());
    }
}

/// The sample as bytes, everything in it.
pub(crate) fn encode(sample: &SampleRecord<'_>, out: &mut Vec<u8>) {
    out.clear();
    let words = [
        sample.ip,
        u64::from(sample.pid) << 32 | u64::from(sample.tid),
        sample.time_ns,
        u64::from(sample.cpu) << 1 | u64::from(sample.kernel),
        sample.period,
        u64::from(sample.hw_idx.is_some()),
        sample.hw_idx.unwrap_or(0),
        sample.branches.len() as u64,
    ];
    words
        .iter()
        .for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    sample
        .branches
        .iter()
        .for_each(|entry| out.extend_from_slice(&entry.encode()));
    let chain = sample.callchain.unwrap_or_default();
    chain
        .iter()
        .for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segments(samples: impl Iterator<Item = u32>) -> (u64, Vec<u64>) {
        let mut segments = Segments::default();
        samples.for_each(|sample| {
            segments.push(&sample.to_le_bytes());
        });
        (segments.size(), segments.finish())
    }

    proptest! {
        #[test]
        fn a_change_is_found_in_a_range_of_at_most_a_sixteenth(count in 1u32..3000, at in 0u32..3000) {
            let at = at % count;
            let (size, old) = segments(0..count);
            let (new_size, new) = segments((0..count).map(|i| if i == at { !i } else { i }));
            prop_assert_eq!(size, new_size);
            prop_assert!(old.len() <= MOST_SEGMENTS);
            prop_assert!(size == 1 || size * 16 <= u64::from(count));
            let (first, last) = first_difference((size, &old), (new_size, &new)).unwrap();
            prop_assert!((first..=last).contains(&u64::from(at)));
            prop_assert_eq!(first_difference((size, &old), (size, &old)), None);
        }

        #[test]
        fn sequences_of_other_length_are_compared_as_far_as_both_go(
            count in 64u32..3000, more in 1u32..9000, at in 0u32..3000,
        ) {
            let at = at % count;
            let (size, old) = segments(0..count);
            let longer = (0..count + more).map(|i| if i == at { !i } else { i });
            let (new_size, new) = segments(longer);
            if let Some((first, last)) = first_difference((size, &old), (new_size, &new)) {
                // The last segment of the shorter one is no whole one.
                prop_assert!(first <= u64::from(at));
                let whole = u64::from(count) / size.max(new_size) * size.max(new_size);
                prop_assert!(u64::from(at) <= last || first >= whole);
            }
        }
    }
}
