//! Where interrupts and exceptions of a guest struck, for a QEMU that does not tell plugins (plugin
//! API 1).
//!
//! The blocks alone do not show it: what ran before a handler may have been interrupted behind its last
//! instruction or have faulted at it, and a conditional branch may have been taken or not. The processor
//! puts the address on the handler's stack. Plugins of this API see neither stack nor registers, but
//! QEMU exports the functions of its debugger to its own modules, and so to plugins: they read RSP and
//! memory, and with them the operand of LIDT, the gates of the table it names, and the frame on the
//! stack when a block begins that a gate names. Where QEMU has no such functions the recorder works it
//! out from the returns.
//!
//! Only 64-bit kernels above 4 GiB are looked at: their frames have one form (SDM volume 3, "64-Bit Mode
//! Stack Frame"). What the stack says is marked as to be checked, as a handler can be called too.

use std::cell::Cell;
use std::ffi::{c_int, c_uint, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::memory::head;
use crate::registers::GArray;
use crate::{api, ring, sys};

/// First address above what 32-bit code reaches.
const ABOVE_32_BITS: u64 = 1 << 32;
/// A table of 256 gates.
const MAX_TABLE: usize = 256 * GATE;
/// Bytes of a gate in 64-bit mode.
const GATE: usize = 16;
/// Number of RSP at the debugger: the general registers come first, in its own order.
const RSP: c_int = 7;
/// The non-maskable interrupt is no exception.
const NMI: u8 = 2;
/// Vectors from here on are interrupts.
const FIRST_INTERRUPT: u8 = 32;
/// RFLAGS.IF: without it no interrupt is taken, and the handler was called or is that of INT n.
const INTERRUPT_FLAG: u64 = 1 << 9;
/// Exceptions that push an error code: #DF, #TS, #NP, #SS, #GP, #PF, #AC, #CP, #VC, #SX.
const WITH_ERROR_CODE: u32 = 1 << 8 | 0x1f << 10 | 1 << 17 | 1 << 21 | 1 << 29 | 1 << 30;

/// What QEMU's debugger reads with.
struct Debugger {
    cpu: unsafe extern "C" fn(c_int) -> *mut c_void,
    register: unsafe extern "C" fn(*mut c_void, *mut GArray, c_int) -> c_int,
    memory: unsafe extern "C" fn(*mut c_void, u64, *mut c_void, usize, bool) -> c_int,
    bytes_new: unsafe extern "C" fn() -> *mut GArray,
    bytes_set_size: unsafe extern "C" fn(*mut GArray, c_uint) -> *mut GArray,
}

static WANTED: AtomicBool = AtomicBool::new(false);

/// Makes this module look at handlers. Called once, for a machine whose QEMU has plugin API 1.
pub(crate) fn look_at_handlers() {
    WANTED.store(true, Ordering::Relaxed);
}

fn debugger() -> Option<&'static Debugger> {
    static DEBUGGER: OnceLock<Option<Debugger>> = OnceLock::new();
    let find = || {
        let found = [
            c"qemu_get_cpu",
            c"x86_cpu_gdb_read_register",
            c"cpu_memory_rw_debug",
            c"g_byte_array_new",
            c"g_byte_array_set_size",
        ]
        .map(sys::symbol);
        if !WANTED.load(Ordering::Relaxed) || found.iter().any(|function| function.is_null()) {
            return None;
        }
        let [cpu, register, memory, bytes_new, bytes_set_size] = found;
        // SAFETY: functions of GLib, and of a QEMU of plugin API 1, with these names have these
        // signatures.
        unsafe {
            Some(Debugger {
                cpu: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(c_int) -> *mut c_void>(
                    cpu,
                ),
                register: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*mut c_void, *mut GArray, c_int) -> c_int,
                >(register),
                memory: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*mut c_void, u64, *mut c_void, usize, bool) -> c_int,
                >(memory),
                bytes_new: std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> *mut GArray>(
                    bytes_new,
                ),
                bytes_set_size: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*mut GArray, c_uint) -> *mut GArray,
                >(bytes_set_size),
            })
        }
    };
    DEBUGGER.get_or_init(find).as_ref()
}

impl Debugger {
    /// QEMU's `CPUState` of a vCPU. Null if there is none.
    fn cpu(&self, vcpu: c_uint) -> *mut c_void {
        // SAFETY: any number is allowed.
        c_int::try_from(vcpu).map_or(ptr::null_mut(), |vcpu| unsafe { (self.cpu)(vcpu) })
    }

    /// Fills `bytes` from linear address `address` of `cpu`, in whose thread this runs. False if
    /// nothing is mapped there.
    fn read(&self, cpu: *mut c_void, address: u64, bytes: &mut [u8]) -> bool {
        if cpu.is_null() {
            return false;
        }
        // SAFETY: `cpu` is QEMU's, and the buffer is as long as stated.
        unsafe { (self.memory)(cpu, address, bytes.as_mut_ptr().cast(), bytes.len(), false) == 0 }
    }

    /// RSP of `cpu`, in whose thread a block is about to begin.
    fn stack(&self, cpu: *mut c_void) -> Option<u64> {
        if cpu.is_null() {
            return None;
        }
        // SAFETY: `cpu` is QEMU's; the buffer is GLib's, used by this thread alone and never freed.
        unsafe {
            let buffer = BUFFER.with(|buffer| {
                if buffer.get().is_null() {
                    buffer.set((self.bytes_new)());
                }
                buffer.get()
            });
            (self.bytes_set_size)(buffer, 0);
            (self.register)(cpu, buffer, RSP);
            let complete = (*buffer).length as usize == size_of::<u64>();
            complete.then(|| (*buffer).data.cast::<u64>().read_unaligned())
        }
    }
}

thread_local! {
    /// Where QEMU keeps the vCPU that this thread runs now.
    static CURRENT: Cell<*const *mut c_void> = const { Cell::new(ptr::null()) };
    /// Where QEMU puts a register's value.
    static BUFFER: Cell<*mut GArray> = const { Cell::new(ptr::null_mut()) };
}

/// QEMU's `CPUState` of the vCPU that translates. Null if QEMU does not show it.
fn translating() -> *mut c_void {
    CURRENT.with(|current| {
        if current.get().is_null() {
            // The symbol of a variable of the thread is found at this thread's address.
            current.set(sys::symbol(c"current_cpu").cast());
        }
        // SAFETY: null, or the address of this thread's variable.
        unsafe { current.get().as_ref() }.map_or(ptr::null_mut(), |cpu| *cpu)
    })
}

/// The interrupt descriptor table of a vCPU.
struct Table {
    /// Address of its `CPUState`.
    cpu: usize,
    base: u64,
    size: usize,
    /// What it held when it was looked at last.
    gates: Vec<u8>,
    /// Handlers in it and the lowest vector of each, by address.
    handlers: Vec<(u64, u8)>,
}

/// The tables that LIDT loaded last, one for each vCPU at most.
static TABLES: Mutex<Vec<Table>> = Mutex::new(Vec::new());

impl Table {
    /// Lowest vector whose gate names `handler` now.
    fn vector_of(&mut self, debugger: &Debugger, cpu: *mut c_void, handler: u64) -> Option<u8> {
        let mut now = [0; MAX_TABLE];
        let now = &mut now[..self.size];
        if !debugger.read(cpu, self.base, now) {
            return None;
        }
        if self.gates != now {
            self.gates = now.to_vec();
            let gates = (0..=u8::MAX).zip(now.chunks_exact(GATE));
            self.handlers = gates.map(|(vector, gate)| (offset(gate), vector)).collect();
            self.handlers.sort_unstable();
        }
        let index = self
            .handlers
            .partition_point(|&(address, _)| address < handler);
        let &(address, vector) = self.handlers.get(index)?;
        (address == handler).then_some(vector)
    }
}

/// The handler that a gate of 64-bit mode names. SDM volume 3, "64-Bit IDT Gate Descriptors".
fn offset(gate: &[u8]) -> u64 {
    let bytes = [0, 1, 6, 7, 8, 9, 10, 11].map(|at| gate[at]);
    u64::from_le_bytes(bytes)
}

/// Whether an instruction is LIDT.
fn is_lidt(bytes: &[u8]) -> bool {
    let prefix = |byte: &&u8| {
        matches!(
            byte,
            0x66 | 0x67 | 0xf0 | 0xf2 | 0xf3 | 0x26 | 0x2e | 0x36 | 0x3e | 0x40
                ..=0x4f | 0x64 | 0x65
        )
    };
    let prefixes = bytes.iter().take_while(prefix).count();
    matches!(bytes[prefixes..], [0x0f, 0x01, modrm, ..] if modrm < 0xc0 && modrm >> 3 & 7 == 3)
}

/// Asks QEMU to call back when `insn` loads an interrupt descriptor table.
///
/// # Safety
/// `insn` comes from QEMU in the running translation callback, and `bytes` are its.
pub(crate) unsafe fn watch(insn: *mut api::Insn, bytes: &[u8]) {
    if is_lidt(bytes) && debugger().is_some() {
        // SAFETY: the caller's.
        unsafe {
            api::qemu_plugin_register_vcpu_mem_cb(
                insn,
                operand_read,
                api::CB_NO_REGS,
                api::MEM_RW,
                ptr::null_mut(),
            );
        }
    }
}

/// Called by QEMU when LIDT has read a part of its operand: the limit, then the base.
extern "C" fn operand_read(vcpu: c_uint, info: u32, address: u64, _data: *mut c_void) {
    const LIMIT: c_uint = 1;
    let Some(debugger) = debugger() else { return };
    let mut operand = [0; 10];
    // SAFETY: `info` is the value QEMU passed.
    let shift = unsafe { api::qemu_plugin_mem_size_shift(info) };
    if shift != LIMIT || !debugger.read(debugger.cpu(vcpu), address, &mut operand) {
        return;
    }
    let [l0, l1, base @ ..] = operand;
    let (base, limit) = (u64::from_le_bytes(base), u16::from_le_bytes([l0, l1]));
    let table = Table {
        cpu: debugger.cpu(vcpu).addr(),
        base,
        size: (usize::from(limit) + 1).min(MAX_TABLE),
        gates: Vec::new(),
        handlers: Vec::new(),
    };
    let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
    tables.retain(|known| known.cpu != table.cpu);
    tables.push(table);
}

/// A block that a gate names.
pub(crate) struct Handler {
    id: u32,
    start: u64,
    vector: u8,
}

impl Handler {
    /// Block `id` at `start`, which is being translated, if a gate names it. It is kept for ever, as
    /// QEMU does not say when it drops a block.
    pub(crate) fn new(id: u32, start: u64) -> Option<&'static Self> {
        if start < ABOVE_32_BITS {
            return None;
        }
        let debugger = debugger()?;
        let cpu = translating();
        let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
        let table = tables.iter_mut().find(|table| table.cpu == cpu.addr())?;
        let vector = table.vector_of(debugger, cpu, start)?;
        Some(Box::leak(Box::new(Self { id, start, vector })))
    }
}

/// Called by QEMU before a block that a gate names; `data` is a [`Handler`].
pub(crate) extern "C" fn handler_executed(vcpu: c_uint, data: *mut c_void) {
    // SAFETY: the pointer was made in `Handler::new` and is never freed.
    let handler: &'static Handler = unsafe { &*data.cast_const().cast::<Handler>() };
    if let Some(from) = interrupted(vcpu, handler.vector) {
        /// Of the record: to be checked.
        const READ: u32 = 4;
        let interrupt = handler.vector >= FIRST_INTERRUPT || handler.vector == NMI;
        let detail = READ | if interrupt { 1 } else { 2 };
        let words = [
            head(4, 0, detail),
            from as u32,
            (from >> 32) as u32,
            handler.start as u32,
            (handler.start >> 32) as u32,
        ];
        ring::push(vcpu, words);
    }
    ring::push(vcpu, [handler.id]);
}

/// The return address in the frame on the stack of `vcpu`, which comes to a handler.
fn interrupted(vcpu: c_uint, vector: u8) -> Option<u64> {
    let debugger = debugger()?;
    let cpu = debugger.cpu(vcpu);
    let stack = debugger.stack(cpu)?;
    let error_code = vector < FIRST_INTERRUPT && WITH_ERROR_CODE >> vector & 1 != 0;
    let mut frame = [0; 24];
    let address = stack.wrapping_add(u64::from(error_code) * 8);
    debugger.read(cpu, address, &mut frame).then_some(())?;
    let [rip, cs, rflags] = [0, 8, 16].map(|at| {
        let mut word = [0; 8];
        word.copy_from_slice(&frame[at..at + 8]);
        u64::from_le_bytes(word)
    });
    let enabled = vector < FIRST_INTERRUPT || rflags & INTERRUPT_FLAG != 0;
    ((1..=0xffff).contains(&cs) && enabled).then_some(rip)
}
