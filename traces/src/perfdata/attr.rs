//! `struct perf_event_attr`: what an event counts and what its samples hold.

use super::abi::{AttrFlags, BranchSampleType, ReadFormat, SampleType};

/// Size of `perf_event_attr` as written here: `PERF_ATTR_SIZE_VER7`, Linux 6.1.
pub(super) const ATTR_SIZE: usize = 128;
/// Size of the first published `perf_event_attr`.
pub(super) const ATTR_SIZE_VER0: usize = 64;

/// The fields of `perf_event_attr`. A field the file is too old to hold is 0.
///
/// Bytes past 128, which a newer kernel may write, are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventAttr {
    /// `PERF_TYPE_*`: 0 hardware, 1 software, 4 raw.
    pub event_type: u32,
    /// The size the file states.
    pub size: u32,
    /// Which event of its type.
    pub config: u64,
    /// Period, or frequency in Hz with [`AttrFlags::FREQ`].
    pub sample_period: u64,
    /// Fields of a sample.
    pub sample_type: SampleType,
    /// Fields of counter values.
    pub read_format: ReadFormat,
    /// One-bit fields.
    pub flags: AttrFlags,
    /// Wake-up after so many events or bytes.
    pub wakeup: u32,
    /// Kind of breakpoint.
    pub bp_type: u32,
    /// Second event word, or breakpoint address.
    pub config1: u64,
    /// Third event word, or breakpoint length.
    pub config2: u64,
    /// Which branches.
    pub branch_sample_type: BranchSampleType,
    /// User registers dumped.
    pub sample_regs_user: u64,
    /// Bytes of user stack dumped.
    pub sample_stack_user: u32,
    /// Clock.
    pub clockid: i32,
    /// Registers dumped at the interrupt.
    pub sample_regs_intr: u64,
    /// AUX wake-up.
    pub aux_watermark: u32,
    /// Longest call chain.
    pub sample_max_stack: u16,
    /// Unused half word after `sample_max_stack`.
    pub reserved_2: u16,
    /// AUX bytes per sample.
    pub aux_sample_size: u32,
    /// Unused word after `aux_sample_size`.
    pub reserved_3: u32,
    /// User data for SIGTRAP.
    pub sig_data: u64,
}

impl EventAttr {
    /// Reads an attribute of `bytes.len()` bytes; missing ones read as 0, later ones are ignored.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        let mut padded = [0; ATTR_SIZE];
        let known = bytes.len().min(ATTR_SIZE);
        padded[..known].copy_from_slice(&bytes[..known]);
        let u16_at = |at: usize| u16::from_le_bytes(std::array::from_fn(|i| padded[at + i]));
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| padded[at + i]));
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| padded[at + i]));
        Self {
            event_type: u32_at(0),
            size: u32_at(4),
            config: u64_at(8),
            sample_period: u64_at(16),
            sample_type: SampleType(u64_at(24)),
            read_format: ReadFormat(u64_at(32)),
            flags: AttrFlags(u64_at(40)),
            wakeup: u32_at(48),
            bp_type: u32_at(52),
            config1: u64_at(56),
            config2: u64_at(64),
            branch_sample_type: BranchSampleType(u64_at(72)),
            sample_regs_user: u64_at(80),
            sample_stack_user: u32_at(88),
            clockid: u32_at(92) as i32,
            sample_regs_intr: u64_at(96),
            aux_watermark: u32_at(104),
            sample_max_stack: u16_at(108),
            reserved_2: u16_at(110),
            aux_sample_size: u32_at(112),
            reserved_3: u32_at(116),
            sig_data: u64_at(120),
        }
    }

    /// The attribute in 128 bytes. The size field is the one stored.
    #[must_use]
    pub fn encode(&self) -> [u8; ATTR_SIZE] {
        let mut out = [0; ATTR_SIZE];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&self.event_type.to_le_bytes());
        put(&self.size.to_le_bytes());
        put(&self.config.to_le_bytes());
        put(&self.sample_period.to_le_bytes());
        put(&self.sample_type.0.to_le_bytes());
        put(&self.read_format.0.to_le_bytes());
        put(&self.flags.0.to_le_bytes());
        put(&self.wakeup.to_le_bytes());
        put(&self.bp_type.to_le_bytes());
        put(&self.config1.to_le_bytes());
        put(&self.config2.to_le_bytes());
        put(&self.branch_sample_type.0.to_le_bytes());
        put(&self.sample_regs_user.to_le_bytes());
        put(&self.sample_stack_user.to_le_bytes());
        put(&self.clockid.to_le_bytes());
        put(&self.sample_regs_intr.to_le_bytes());
        put(&self.aux_watermark.to_le_bytes());
        put(&self.sample_max_stack.to_le_bytes());
        put(&self.reserved_2.to_le_bytes());
        put(&self.aux_sample_size.to_le_bytes());
        put(&self.reserved_3.to_le_bytes());
        put(&self.sig_data.to_le_bytes());
        out
    }

    /// `precise_ip`: 0 arbitrary skid to 3 none.
    #[must_use]
    pub const fn precise_ip(&self) -> u8 {
        (self.flags.0 >> 15 & 3) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_attribute_of_our_size_survives(bytes in prop::collection::vec(any::<u8>(), ATTR_SIZE)) {
            let encoded = EventAttr::decode(&bytes).encode();
            prop_assert_eq!(encoded.as_slice(), bytes.as_slice());
        }
    }

    #[test]
    fn fields_missing_in_an_old_attribute_are_zero() {
        let attr = EventAttr::decode(&[0xff; ATTR_SIZE_VER0]);
        assert_eq!(attr.config1, u64::MAX);
        assert_eq!(attr.config2, 0);
        assert!(attr.branch_sample_type.is_empty());
    }
}
