//! QEMU's plugin API, versions 1 (QEMU 7.2) to 6 (QEMU 10.2), declared by hand.
//!
//! Functions that every version has are linked; the others are looked up, and their absence is
//! taken as the answer.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::sys;

/// Newest version whose signatures are known here.
pub(crate) const NEWEST: i32 = 6;

pub(crate) const CB_NO_REGS: c_int = 0;
pub(crate) const CB_R_REGS: c_int = 1;
pub(crate) const MEM_RW: c_int = 3;

/// `qemu_info_t`. The structure is longer; only QEMU makes it.
#[repr(C)]
#[derive(Debug)]
pub struct Info {
    pub(crate) target_name: *const c_char,
    pub(crate) version_min: c_int,
    pub(crate) version_cur: c_int,
    pub(crate) system_emulation: bool,
}

/// `struct qemu_plugin_tb`.
#[repr(C)]
pub(crate) struct Tb {
    _opaque: [u8; 0],
}

/// `struct qemu_plugin_insn`.
#[repr(C)]
pub(crate) struct Insn {
    _opaque: [u8; 0],
}

pub(crate) type BlockCallback = extern "C" fn(c_uint, *mut c_void);
pub(crate) type MemoryCallback = extern "C" fn(c_uint, u32, u64, *mut c_void);
pub(crate) type VcpuCallback = extern "C" fn(u64, c_uint);
#[rustfmt::skip]
pub(crate) type SyscallCallback =
    extern "C" fn(u64, c_uint, i64, u64, u64, u64, u64, u64, u64, u64, u64);

unsafe extern "C" {
    pub(crate) fn qemu_plugin_register_vcpu_init_cb(id: u64, callback: VcpuCallback);
    pub(crate) fn qemu_plugin_register_vcpu_exit_cb(id: u64, callback: VcpuCallback);
    pub(crate) fn qemu_plugin_register_vcpu_tb_trans_cb(
        id: u64,
        callback: extern "C" fn(u64, *mut Tb),
    );
    pub(crate) fn qemu_plugin_register_vcpu_tb_exec_cb(
        tb: *mut Tb,
        callback: BlockCallback,
        flags: c_int,
        data: *mut c_void,
    );
    pub(crate) fn qemu_plugin_register_vcpu_insn_exec_cb(
        insn: *mut Insn,
        callback: BlockCallback,
        flags: c_int,
        data: *mut c_void,
    );
    pub(crate) fn qemu_plugin_register_vcpu_mem_cb(
        insn: *mut Insn,
        callback: MemoryCallback,
        flags: c_int,
        rw: c_int,
        data: *mut c_void,
    );
    pub(crate) fn qemu_plugin_register_vcpu_syscall_cb(id: u64, callback: SyscallCallback);
    pub(crate) fn qemu_plugin_register_vcpu_syscall_ret_cb(
        id: u64,
        callback: extern "C" fn(u64, c_uint, i64, i64),
    );
    pub(crate) fn qemu_plugin_register_atexit_cb(
        id: u64,
        callback: extern "C" fn(u64, *mut c_void),
        data: *mut c_void,
    );
    pub(crate) fn qemu_plugin_tb_n_insns(tb: *const Tb) -> usize;
    pub(crate) fn qemu_plugin_tb_vaddr(tb: *const Tb) -> u64;
    pub(crate) fn qemu_plugin_tb_get_insn(tb: *const Tb, index: usize) -> *mut Insn;
    pub(crate) fn qemu_plugin_insn_haddr(insn: *const Insn) -> *mut c_void;
    pub(crate) fn qemu_plugin_insn_size(insn: *const Insn) -> usize;
    pub(crate) fn qemu_plugin_mem_size_shift(info: u32) -> c_uint;
    pub(crate) fn qemu_plugin_mem_is_store(info: u32) -> bool;
}

/// The version this plugin declares; QEMU reads it before it installs the plugin.
#[unsafe(no_mangle)]
pub(crate) static qemu_plugin_version: AtomicI32 = AtomicI32::new(1);

/// First function of each version, newest first. Version 2 took `qemu_plugin_n_vcpus` away.
const MARKS: [(i32, &CStr); 5] = [
    (6, c"qemu_plugin_register_vcpu_discon_cb"),
    (5, c"qemu_plugin_write_register"),
    (4, c"qemu_plugin_read_memory_vaddr"),
    (3, c"qemu_plugin_register_vcpu_tb_exec_cond_cb"),
    (2, c"qemu_plugin_num_vcpus"),
];

extern "C" fn choose_version() {
    let newest = MARKS.iter().find(|(_, name)| !sys::symbol(name).is_null());
    // QEMU 10.2 has the mark of version 6 and still calls itself 5; a declared version above QEMU's
    // own is refused, one below is not.
    let version = newest.map_or(1, |&(version, _)| version.min(5));
    qemu_plugin_version.store(version, Ordering::Relaxed);
}

#[used]
#[unsafe(link_section = ".init_array")]
static CHOOSE_VERSION: extern "C" fn() = choose_version;

/// Discontinuity callback of version 6.
pub(crate) type DiscontinuityCallback = extern "C" fn(u64, c_uint, c_int, u64, u64);
type RegisterDiscontinuity = unsafe extern "C" fn(u64, c_int, DiscontinuityCallback);

/// `qemu_plugin_register_vcpu_discon_cb` for interrupts and exceptions, if QEMU has it.
pub(crate) fn register_discontinuity(id: u64, callback: DiscontinuityCallback) {
    let function = sys::symbol(c"qemu_plugin_register_vcpu_discon_cb");
    if function.is_null() {
        return;
    }
    const INTERRUPT_AND_EXCEPTION: c_int = 3;
    // SAFETY: a function of this name has this signature in the versions that `install` accepts.
    unsafe {
        let register: RegisterDiscontinuity = std::mem::transmute(function);
        register(id, INTERRUPT_AND_EXCEPTION, callback);
    }
}

type InsnDataPointer = unsafe extern "C" fn(*const Insn) -> *const u8;
type InsnDataCopy = unsafe extern "C" fn(*const Insn, *mut u8, usize) -> usize;

/// `qemu_plugin_insn_data`, whose signature changed with version 3.
enum InsnData {
    Pointer(InsnDataPointer),
    Copy(InsnDataCopy),
}

static INSN_DATA: OnceLock<InsnData> = OnceLock::new();

/// Chooses by the version QEMU reports. False if QEMU lacks the function.
pub(crate) fn choose_insn_data(version: i32) -> bool {
    let function = sys::symbol(c"qemu_plugin_insn_data");
    if function.is_null() {
        return false;
    }
    // SAFETY: the signature is the one of that version.
    let data = unsafe {
        if version >= 3 {
            InsnData::Copy(std::mem::transmute::<*mut c_void, InsnDataCopy>(function))
        } else {
            InsnData::Pointer(std::mem::transmute::<*mut c_void, InsnDataPointer>(
                function,
            ))
        }
    };
    INSN_DATA.set(data).is_ok()
}

/// Appends an instruction's bytes and returns their number, 0 if there is none or it is no x86
/// length.
///
/// # Safety
/// `insn` comes from QEMU in the running translation callback.
pub(crate) unsafe fn append_insn(insn: *const Insn, bytes: &mut Vec<u8>) -> u8 {
    // SAFETY: the caller's.
    let size = unsafe { qemu_plugin_insn_size(insn) };
    let Some(length) = u8::try_from(size)
        .ok()
        .filter(|size| (1..=16).contains(size))
    else {
        return 0;
    };
    let old = bytes.len();
    match INSN_DATA.get() {
        // SAFETY: QEMU's pointer is good for `size` bytes until the callback returns.
        Some(InsnData::Pointer(function)) => unsafe {
            let data = function(insn);
            if data.is_null() {
                return 0;
            }
            bytes.extend_from_slice(std::slice::from_raw_parts(data, size));
        },
        Some(InsnData::Copy(function)) => {
            bytes.resize(old + size, 0);
            // SAFETY: there is room for `size` bytes at `old`.
            if unsafe { function(insn, bytes.as_mut_ptr().add(old), size) } != size {
                bytes.truncate(old);
                return 0;
            }
        }
        None => return 0,
    }
    length
}
