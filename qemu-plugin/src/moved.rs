//! Blocks that run at other addresses than the one they were translated at.
//!
//! From version 8.0 on, QEMU's system emulation translates code of x86 once for each physical page
//! (`CF_PCREL`): a page that is mapped at two addresses, as shared libraries are, or a kernel's code
//! before and after it sets up its own mapping, runs the same block at both, and the address QEMU
//! tells a plugin is the one of the first run. So the instruction pointer is read whenever a block
//! does not follow the one before it in a way that leaves no doubt, and a block met at another
//! address becomes another block to the recorder.

use std::ffi::{c_uint, c_void};
use std::ptr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::registers::{self, Mode};
use crate::ring::{self, MAX_VCPUS};
use crate::translate::{Block, define};

/// Pages are mapped whole.
const PAGE: u64 = 0x1000;

/// A block at one address.
pub(crate) struct Placed {
    id: u32,
    start: u64,
    /// Base of CS: what the instruction pointer lacks.
    base: u64,
    /// Address behind it.
    end: u64,
    /// Target of its branch, if the instruction says it; else its start, which tells nothing new.
    target: u64,
    bytes: Box<[u8]>,
    sizes: Box<[u8]>,
    /// The same code at other addresses. Never freed, as QEMU does not say when it drops a block.
    others: Mutex<Vec<&'static Placed>>,
}

/// Block that each vCPU ran last.
static LAST: [AtomicPtr<Placed>; MAX_VCPUS] =
    [const { AtomicPtr::new(ptr::null_mut()) }; MAX_VCPUS];

impl Placed {
    /// `block`, which was defined as `id` and is about to run for the first time. `None` if QEMU
    /// does not tell the instruction pointer, or not the one of this block.
    pub(crate) fn new(block: &Block, id: u32, mode: &Mode) -> Option<&'static Self> {
        let base = block.start.wrapping_sub(registers::instruction_pointer()?);
        if mode.long() && base != 0 {
            return None;
        }
        Some(Self::at(block, id, base, mode.long()))
    }

    fn at(block: &Block, id: u32, base: u64, long: bool) -> &'static Self {
        let end = block.start.wrapping_add(block.bytes.len() as u64);
        let last = block.sizes.last().copied().map_or(0, usize::from);
        let branch = &block.bytes[block.bytes.len().saturating_sub(last)..];
        let target = displacement(branch)
            .filter(|_| long)
            .map_or(block.start, |displacement| {
                end.wrapping_add_signed(displacement)
            });
        Box::leak(Box::new(Self {
            id,
            start: block.start,
            base,
            end,
            target,
            bytes: block.bytes.as_slice().into(),
            sizes: block.sizes.as_slice().into(),
            others: Mutex::default(),
        }))
    }

    /// This block where it is about to run.
    fn here(&'static self) -> &'static Self {
        let Some(rip) = registers::instruction_pointer() else {
            return self;
        };
        let start = rip.wrapping_add(self.base);
        let moved = start.wrapping_sub(self.start);
        if moved == 0 || !moved.is_multiple_of(PAGE) {
            return self;
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = others.iter().find(|other| other.start == start) {
            return other;
        }
        let block = Block {
            start,
            host: 0,
            sizes: self.sizes.to_vec(),
            bytes: self.bytes.to_vec(),
        };
        let mode = registers::mode();
        let Some(id) = define(&block, mode.as_ref(), true) else {
            return self;
        };
        let other = Self::at(&block, id, self.base, mode.is_some_and(|mode| mode.long()));
        others.push(other);
        other
    }
}

/// Distance from the end of a direct branch of 64-bit code to its target.
fn displacement(branch: &[u8]) -> Option<i64> {
    match *branch {
        [0xeb | 0x70..=0x7f | 0xe0..=0xe3, short] => Some(i64::from(short.cast_signed())),
        [0xe8 | 0xe9, a, b, c, d] | [0x0f, 0x80..=0x8f, a, b, c, d] => {
            Some(i64::from(i32::from_le_bytes([a, b, c, d])))
        }
        _ => None,
    }
}

/// Called by QEMU before every block whose address may not be its own; `data` is a [`Placed`].
pub(crate) extern "C" fn block_executed(vcpu: c_uint, data: *mut c_void) {
    // SAFETY: the pointer was made in `Placed::new` and is never freed.
    let mut block: &'static Placed = unsafe { &*data.cast_const().cast::<Placed>() };
    let Some(slot) = LAST.get(vcpu as usize) else {
        return;
    };
    let last = slot.load(Ordering::Relaxed);
    // SAFETY: as above.
    let last = unsafe { last.as_ref() };
    if !last.is_some_and(|last| block.start == last.end || block.start == last.target) {
        block = block.here();
    }
    slot.store(ptr::from_ref(block).cast_mut(), Ordering::Relaxed);
    ring::push(vcpu, [block.id]);
}
