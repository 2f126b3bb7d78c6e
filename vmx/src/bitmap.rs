//! MSR bitmaps.

use core::fmt;
use core::ops::RangeInclusive;

use bitvec::array::BitArray;
use bitvec::order::Lsb0;
use vlbr_arch::Msr;

use crate::PhysicalMemory;

/// Bytes of the page.
const PAGE: usize = 4096;
/// MSRs in each of the two ranges.
const RANGE: u32 = 0x2000;
/// First MSR of the high range.
const HIGH: u32 = 0xc000_0000;

/// Reading or writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// RDMSR.
    Read,
    /// WRMSR.
    Write,
}

/// Why a bitmap page cannot be loaded or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BitmapError {
    /// The page has another length.
    #[error("an MSR bitmap has 4096 bytes, not {0}")]
    Length(usize),
    /// The address is not the beginning of a page.
    #[error("the MSR bitmap at {0:#x} is not aligned to 4 KiB")]
    Unaligned(u64),
    /// An MSR outside 0 to 0x1FFF and 0xC0000000 to 0xC0001FFF always exits.
    #[error("{0} has no bit in the MSR bitmaps: it always exits")]
    OutsideRanges(Msr),
    /// A range that begins in one of the two ranges and ends in the other, or runs backwards.
    #[error("from {0} to {1} is no range of MSRs")]
    Range(Msr, Msr),
}

/// The four MSR bitmaps in their 4-KiB page. SDM volume 3, "MSR-Bitmap Address".
///
/// Bytes 0x000: reads of MSRs 0 to 0x1FFF; 0x400: reads of 0xC0000000 to 0xC0001FFF; 0x800 and 0xC00:
/// writes likewise. Bit n of a bitmap is bit n mod 8 of byte n / 8; 1 means VM exit.
#[derive(Clone, PartialEq, Eq)]
pub struct MsrBitmap {
    bits: BitArray<[u8; PAGE], Lsb0>,
}

impl MsrBitmap {
    /// A page that makes every access exit.
    #[must_use]
    pub const fn intercepting_all() -> Self {
        Self {
            bits: BitArray {
                _ord: core::marker::PhantomData,
                data: [0xff; PAGE],
            },
        }
    }

    /// A page that lets every access through, except those to MSRs outside both ranges.
    #[must_use]
    pub const fn intercepting_none() -> Self {
        Self {
            bits: BitArray {
                _ord: core::marker::PhantomData,
                data: [0; PAGE],
            },
        }
    }

    /// A page as a hypervisor wrote it.
    ///
    /// # Errors
    /// Another length than 4096.
    pub fn from_page(page: &[u8]) -> Result<Self, BitmapError> {
        let data: [u8; PAGE] = page
            .try_into()
            .map_err(|_| BitmapError::Length(page.len()))?;
        Ok(Self {
            bits: BitArray::new(data),
        })
    }

    /// The page, byte for byte.
    #[must_use]
    pub const fn as_page(&self) -> &[u8; PAGE] {
        &self.bits.data
    }

    /// Reads the page at a physical address.
    ///
    /// # Errors
    /// The address is not aligned to 4 KiB.
    pub fn load(memory: &(impl PhysicalMemory + ?Sized), at: u64) -> Result<Self, BitmapError> {
        aligned(at)?;
        let mut bitmap = Self::intercepting_all();
        memory.read(at, &mut bitmap.bits.data);
        Ok(bitmap)
    }

    /// Writes the page to a physical address.
    ///
    /// # Errors
    /// The address is not aligned to 4 KiB; nothing is written.
    pub fn store(
        &self,
        memory: &mut (impl PhysicalMemory + ?Sized),
        at: u64,
    ) -> Result<(), BitmapError> {
        aligned(at)?;
        memory.write(at, self.as_page());
        Ok(())
    }

    /// Number of the bit in the page; `None` outside both ranges.
    #[must_use]
    pub const fn position(msr: Msr, access: Access) -> Option<usize> {
        let bitmap = match access {
            Access::Read => 0,
            Access::Write => 2 * RANGE,
        };
        let n = match msr.value() {
            n @ 0..RANGE => n,
            n if n >= HIGH && n - HIGH < RANGE => RANGE + (n - HIGH),
            _ => return None,
        };
        Some((bitmap + n) as usize)
    }

    /// Whether the access exits: its bit is 1, or it has none.
    #[must_use]
    pub fn intercepts(&self, msr: Msr, access: Access) -> bool {
        match Self::position(msr, access) {
            Some(n) => self.bits.get(n).is_none_or(|bit| *bit),
            None => true,
        }
    }

    /// Sets or clears the bit of one access.
    ///
    /// # Errors
    /// The MSR has no bit.
    pub fn set(&mut self, msr: Msr, access: Access, exits: bool) -> Result<(), BitmapError> {
        self.set_range(msr..=msr, access, exits)
    }

    /// Sets or clears the bits of a run of MSRs.
    ///
    /// # Errors
    /// The run leaves the two ranges or runs backwards; nothing is changed.
    pub fn set_range(
        &mut self,
        msrs: RangeInclusive<Msr>,
        access: Access,
        exits: bool,
    ) -> Result<(), BitmapError> {
        let (first, last) = msrs.into_inner();
        let bit = |msr| Self::position(msr, access).ok_or(BitmapError::OutsideRanges(msr));
        let (from, to) = (bit(first)?, bit(last)?);
        if first > last || (first.value() < HIGH) != (last.value() < HIGH) {
            return Err(BitmapError::Range(first, last));
        }
        if let Some(run) = self.bits.get_mut(from..=to) {
            run.fill(exits);
        }
        Ok(())
    }

    /// The MSRs whose access does not exit, ascending.
    pub fn passed(&self, access: Access) -> impl Iterator<Item = Msr> + '_ {
        (0..RANGE)
            .chain(HIGH..HIGH + RANGE)
            .map(Msr::new)
            .filter(move |&msr| !self.intercepts(msr, access))
    }
}

impl Default for MsrBitmap {
    fn default() -> Self {
        Self::intercepting_all()
    }
}

impl fmt::Debug for MsrBitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MsrBitmap")
            .field(
                "reads_passed",
                &self.passed(Access::Read).collect::<Vec<_>>(),
            )
            .field(
                "writes_passed",
                &self.passed(Access::Write).collect::<Vec<_>>(),
            )
            .finish()
    }
}

fn aligned(at: u64) -> Result<(), BitmapError> {
    if at.is_multiple_of(PAGE as u64) {
        Ok(())
    } else {
        Err(BitmapError::Unaligned(at))
    }
}
