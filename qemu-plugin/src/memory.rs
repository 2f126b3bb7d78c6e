//! Data addresses, and reading guest memory in user mode.

use std::ffi::{c_uint, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{api, ring, sys};

const TAG: u32 = 1 << 31;

/// Host address of guest address 0 in user mode; QEMU chooses 0 whenever it can.
static GUEST_BASE: AtomicU64 = AtomicU64::new(0);

/// Learns the guest base from an instruction's two addresses.
pub(crate) fn learn_guest_base(guest: u64, host: u64) {
    if host != 0 {
        GUEST_BASE.store(host.wrapping_sub(guest), Ordering::Relaxed);
    }
}

/// Host address of guest address 0.
pub(crate) fn guest_base() -> u64 {
    GUEST_BASE.load(Ordering::Relaxed)
}

/// Head of a record that follows a block's id.
pub(crate) fn head(kind: u32, instruction: u32, detail: u32) -> u32 {
    TAG | kind << 28 | (instruction & 0xfff) << 16 | detail & 0xffff
}

/// Called by QEMU at every data access with `mem=on`; `data` is the instruction's index.
pub(crate) extern "C" fn accessed(vcpu: c_uint, info: u32, address: u64, data: *mut c_void) {
    // SAFETY: `info` is the value QEMU passed.
    let (shift, store) = unsafe {
        (
            api::qemu_plugin_mem_size_shift(info),
            api::qemu_plugin_mem_is_store(info),
        )
    };
    let head = head(0, data.addr() as u32, shift & 15 | u32::from(store) << 4);
    ring::push(vcpu, [head, address as u32, (address >> 32) as u32]);
}

/// Fills `bytes` from guest address `address`. False on any fault.
fn read(address: u64, bytes: &mut [u8]) -> bool {
    let address = address.wrapping_add(guest_base());
    let local = sys::IoVec {
        base: bytes.as_mut_ptr().cast(),
        length: bytes.len(),
    };
    let remote = sys::IoVec {
        base: std::ptr::with_exposed_provenance_mut(address as usize),
        length: bytes.len(),
    };
    // The kernel checks the address, which this process could not do without a fault.
    // SAFETY: one local entry that covers `bytes`.
    let count = unsafe {
        sys::process_vm_readv(std::process::id().cast_signed(), &local, 1, &remote, 1, 0)
    };
    usize::try_from(count).is_ok_and(|count| count == bytes.len())
}

/// A guest pointer.
pub(crate) fn read_pointer(address: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    read(address, &mut bytes).then(|| u64::from_le_bytes(bytes))
}

/// A guest string of at most `limit` bytes without its NUL.
pub(crate) fn read_string(mut address: u64, limit: usize) -> Option<Vec<u8>> {
    let mut string = Vec::new();
    while string.len() <= limit {
        // Not across a page: the next one may be unmapped.
        let room = (0x1000 - (address as usize & 0xfff)).min(256);
        let mut piece = [0; 256];
        if !read(address, &mut piece[..room]) {
            return None;
        }
        if let Some(end) = piece[..room].iter().position(|&byte| byte == 0) {
            string.extend_from_slice(&piece[..end]);
            return (string.len() <= limit).then_some(string);
        }
        string.extend_from_slice(&piece[..room]);
        address = address.checked_add(room as u64)?;
    }
    None
}
