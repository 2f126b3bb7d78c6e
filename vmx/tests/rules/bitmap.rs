//! MSR bitmaps.

use proptest::prelude::*;
use vlbr_arch::Msr;
use vlbr_vmx::{Access, BitmapError, MsrBitmap};

use crate::common::Ram;

/// KVM's formula: `vmx_set_msr_bitmap_read` and `_write` set bits of 64-bit words at these offsets.
fn kvm_bit(page: &[u8; 4096], msr: u32, write: bool) -> Option<bool> {
    let (base, bit) = match (msr, write) {
        (0..=0x1fff, false) => (0x000, msr),
        (0..=0x1fff, true) => (0x800, msr),
        (0xc000_0000..=0xc000_1fff, false) => (0x400, msr & 0x1fff),
        (0xc000_0000..=0xc000_1fff, true) => (0xc00, msr & 0x1fff),
        _ => return None,
    };
    let at = base + 8 * (bit as usize / 64);
    let word = u64::from_le_bytes(page[at..at + 8].try_into().unwrap());
    Some(word >> (bit % 64) & 1 == 1)
}

fn every_msr() -> impl Iterator<Item = u32> {
    (0..0x2000).chain(0xc000_0000..0xc000_2000)
}

#[test]
fn every_bit_is_where_kvms_formula_has_it() {
    for (access, write) in [(Access::Read, false), (Access::Write, true)] {
        for msr in every_msr() {
            let mut bitmap = MsrBitmap::intercepting_none();
            bitmap.set(Msr::new(msr), access, true).unwrap();
            assert_eq!(kvm_bit(bitmap.as_page(), msr, write), Some(true));
            let ones: u32 = bitmap.as_page().iter().map(|byte| byte.count_ones()).sum();
            assert_eq!(ones, 1);
        }
    }
}

#[test]
fn t17_the_bytes_of_lbr_registers() {
    for (msr, byte, bit) in [
        (Msr::DEBUGCTL, 0x3b, 1),
        (Msr::LBR_SELECT, 0x39, 0),
        (Msr::LASTBRANCH_TOS, 0x39, 1),
        (Msr::LASTBRANCH_0_FROM_IP, 0xd0, 0),
        (Msr::new(0x69f), 0xd3, 7),
        (Msr::LASTBRANCH_0_TO_IP, 0xd8, 0),
        (Msr::new(0x6df), 0xdb, 7),
        (Msr::LBR_INFO_0, 0x1b8, 0),
        (Msr::new(0xddf), 0x1bb, 7),
        (Msr::LBR_CTL, 0x299, 6),
        (Msr::LBR_DEPTH, 0x299, 7),
        (Msr::LBR_0_INFO, 0x240, 0),
        (Msr::LBR_0_FROM_IP, 0x2a0, 0),
        (Msr::LBR_0_TO_IP, 0x2c0, 0),
    ] {
        for (access, offset) in [(Access::Read, 0), (Access::Write, 0x800)] {
            assert_eq!(
                MsrBitmap::position(msr, access),
                Some(8 * (byte + offset) + bit),
                "{msr}"
            );
            let mut page = [0xff; 4096];
            page[byte + offset] = !(1 << bit);
            let bitmap = MsrBitmap::from_page(&page).unwrap();
            assert!(!bitmap.intercepts(msr, access), "{msr}");
            assert!(bitmap.intercepts(msr.plus(1), access));
        }
    }
}

#[test]
fn msrs_outside_both_ranges_always_exit() {
    let bitmap = MsrBitmap::intercepting_none();
    for msr in [0x2000, 0x4b56_4d00, 0xbfff_ffff, 0xc000_2000, u32::MAX] {
        for access in [Access::Read, Access::Write] {
            assert!(bitmap.intercepts(Msr::new(msr), access), "{msr:#x}");
        }
    }
    for msr in [0, 0x1fff, 0xc000_0000, 0xc000_1fff] {
        assert!(!bitmap.intercepts(Msr::new(msr), Access::Read), "{msr:#x}");
    }
}

#[test]
fn msrs_without_a_bit_cannot_be_passed() {
    let mut bitmap = MsrBitmap::default();
    let outside = Msr::new(0x2000);
    assert_eq!(
        bitmap.set(outside, Access::Read, false),
        Err(BitmapError::OutsideRanges(outside))
    );
    let low = Msr::new(0x1ff0);
    assert_eq!(
        bitmap.set_range(low..=outside, Access::Read, false),
        Err(BitmapError::OutsideRanges(outside))
    );
    let high = Msr::new(0xc000_0000);
    assert_eq!(
        bitmap.set_range(low..=high, Access::Read, false),
        Err(BitmapError::Range(low, high))
    );
    let backwards = Msr::new(0x10)..=Msr::new(0xf);
    assert!(matches!(
        bitmap.set_range(backwards, Access::Write, false),
        Err(BitmapError::Range(..))
    ));
    assert_eq!(bitmap, MsrBitmap::intercepting_all());
}

#[test]
fn pages_of_another_length_or_alignment_are_refused() {
    for length in [0, 4095, 4097] {
        let page = vec![0; length];
        assert_eq!(
            MsrBitmap::from_page(&page),
            Err(BitmapError::Length(length))
        );
    }
    let mut ram = Ram::default();
    let bitmap = MsrBitmap::intercepting_none();
    assert_eq!(
        MsrBitmap::load(&ram, 0x3008),
        Err(BitmapError::Unaligned(0x3008))
    );
    assert_eq!(
        bitmap.store(&mut ram, 0x3800),
        Err(BitmapError::Unaligned(0x3800))
    );
    assert_eq!(
        MsrBitmap::load(&ram, 0x3000),
        Ok(MsrBitmap::intercepting_all())
    );
}

#[test]
fn what_is_passed_is_listed() {
    let mut bitmap = MsrBitmap::default();
    let entries = Msr::LBR_INFO_0..=Msr::LBR_INFO_0.plus(31);
    bitmap.set_range(entries, Access::Write, false).unwrap();
    let passed: Vec<_> = bitmap.passed(Access::Write).collect();
    assert_eq!(
        passed,
        (0..32).map(|n| Msr::LBR_INFO_0.plus(n)).collect::<Vec<_>>()
    );
    assert_eq!(bitmap.passed(Access::Read).count(), 0);
}

proptest! {
    #[test]
    fn a_page_is_loaded_and_stored_byte_for_byte(page in prop::collection::vec(any::<u8>(), 4096)) {
        let bitmap = MsrBitmap::from_page(&page).unwrap();
        prop_assert_eq!(bitmap.as_page().as_slice(), page.as_slice());
        let mut ram = Ram::default();
        bitmap.store(&mut ram, 0x5000).unwrap();
        prop_assert_eq!(MsrBitmap::load(&ram, 0x5000).unwrap(), bitmap.clone());
        for msr in every_msr() {
            for (access, write) in [(Access::Read, false), (Access::Write, true)] {
                let expected = kvm_bit(bitmap.as_page(), msr, write).unwrap();
                prop_assert_eq!(bitmap.intercepts(Msr::new(msr), access), expected);
            }
        }
    }

    #[test]
    fn a_range_is_its_bits_one_by_one(
        first in 0u32..0x2000,
        length in 0u32..200,
        high: bool,
        write: bool,
        exits: bool,
    ) {
        let base = if high { 0xc000_0000 } else { 0 };
        let last = (first + length).min(0x1fff);
        let access = if write { Access::Write } else { Access::Read };
        let start = if exits { MsrBitmap::intercepting_none() } else { MsrBitmap::intercepting_all() };
        let (mut at_once, mut one_by_one) = (start.clone(), start);
        at_once
            .set_range(Msr::new(base + first)..=Msr::new(base + last), access, exits)
            .unwrap();
        for msr in first..=last {
            one_by_one.set(Msr::new(base + msr), access, exits).unwrap();
        }
        prop_assert_eq!(at_once, one_by_one);
    }
}
