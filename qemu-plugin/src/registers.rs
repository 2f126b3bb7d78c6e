//! Register reads, where QEMU offers them (plugin API 2 and later), and what is made of them: the
//! mode of each block, and the values of RDMSR, WRMSR, CPUID, IN, OUT and MOV to CR3.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::memory::head;
use crate::{api, ring, sys};

/// `GArray` and `GByteArray` begin alike.
#[repr(C)]
pub(crate) struct GArray {
    pub(crate) data: *mut u8,
    pub(crate) length: c_uint,
}

#[repr(C)]
struct Descriptor {
    handle: *mut c_void,
    name: *const c_char,
    feature: *const c_char,
}

struct Functions {
    get_registers: unsafe extern "C" fn() -> *mut GArray,
    // Version 6 returns a bool; the length of the array says enough in every version.
    read_register: unsafe extern "C" fn(*mut c_void, *mut GArray) -> c_int,
    array_free: unsafe extern "C" fn(*mut GArray, c_int) -> *mut c_char,
    bytes_new: unsafe extern "C" fn() -> *mut GArray,
    bytes_set_size: unsafe extern "C" fn(*mut GArray, c_uint) -> *mut GArray,
    bytes_free: unsafe extern "C" fn(*mut GArray, c_int) -> *mut u8,
}

fn functions() -> Option<&'static Functions> {
    static FUNCTIONS: OnceLock<Option<Functions>> = OnceLock::new();
    let find = || {
        let found = [
            c"qemu_plugin_get_registers",
            c"qemu_plugin_read_register",
            c"g_array_free",
            c"g_byte_array_new",
            c"g_byte_array_set_size",
            c"g_byte_array_free",
        ]
        .map(sys::symbol);
        if found.iter().any(|function| function.is_null()) {
            return None;
        }
        let [get, read, array_free, new, set_size, bytes_free] = found;
        // SAFETY: functions of QEMU and GLib with these names have these signatures.
        unsafe {
            Some(Functions {
                get_registers: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn() -> *mut GArray,
                >(get),
                read_register: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*mut c_void, *mut GArray) -> c_int,
                >(read),
                array_free: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*mut GArray, c_int) -> *mut c_char,
                >(array_free),
                bytes_new: std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> *mut GArray>(
                    new,
                ),
                bytes_set_size: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*mut GArray, c_uint) -> *mut GArray,
                >(set_size),
                bytes_free: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*mut GArray, c_int) -> *mut u8,
                >(bytes_free),
            })
        }
    };
    FUNCTIONS.get_or_init(find).as_ref()
}

/// Whether this QEMU lets plugins read registers.
pub(crate) fn offered() -> bool {
    functions().is_some()
}

/// Registers used here; the general ones in the order of their encoding.
const NAMES: [&CStr; 22] = [
    c"rax", c"rcx", c"rdx", c"rbx", c"rsp", c"rbp", c"rsi", c"rdi", c"r8", c"r9", c"r10", c"r11",
    c"r12", c"r13", c"r14", c"r15", c"cs", c"eflags", c"cr0", c"cr3", c"efer", c"rip",
];
const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;
const CS: usize = 16;
const EFLAGS: usize = 17;
const CR0: usize = 18;
const CR3: usize = 19;
const EFER: usize = 20;
const RIP: usize = 21;

struct Handles([*mut c_void; NAMES.len()]);

// SAFETY: the pointers are opaque numbers to QEMU, equal for all vCPUs and valid in all threads.
unsafe impl Send for Handles {}
// SAFETY: as above.
unsafe impl Sync for Handles {}

static HANDLES: OnceLock<Handles> = OnceLock::new();
static COMPLETE: AtomicBool = AtomicBool::new(false);

/// Finds the registers. Called when a vCPU begins, in its context.
pub(crate) fn find_handles() {
    let Some(functions) = functions() else { return };
    if HANDLES.get().is_some() {
        return;
    }
    let mut handles = [ptr::null_mut::<c_void>(); NAMES.len()];
    // SAFETY: called in a vCPU's context as QEMU asks; the array holds `length` descriptors whose
    // names are NUL-terminated, and it is freed once.
    unsafe {
        let array = (functions.get_registers)();
        if array.is_null() {
            return;
        }
        let descriptors = (*array).data.cast::<Descriptor>();
        for index in 0..(*array).length as usize {
            let descriptor = &*descriptors.add(index);
            let name = CStr::from_ptr(descriptor.name);
            if let Some(place) = NAMES.iter().position(|known| *known == name)
                && handles[place].is_null()
            {
                handles[place] = descriptor.handle;
            }
        }
        (functions.array_free)(array, 1);
    }
    let complete = handles.iter().all(|handle| !handle.is_null());
    if HANDLES.set(Handles(handles)).is_ok() {
        COMPLETE.store(complete, Ordering::Release);
    }
}

/// Reads the registers of `wanted`. `None` if QEMU does not show them all. Called in a vCPU's
/// context.
fn read<const N: usize>(wanted: [usize; N]) -> Option<[u64; N]> {
    if !COMPLETE.load(Ordering::Acquire) {
        return None;
    }
    let (functions, handles) = (functions()?, HANDLES.get()?);
    let mut values = [0; N];
    // SAFETY: the buffer is GLib's, used by this thread alone and freed once; QEMU appends the
    // register's bytes to it.
    unsafe {
        let buffer = (functions.bytes_new)();
        let mut complete = true;
        for (value, register) in values.iter_mut().zip(wanted) {
            (functions.bytes_set_size)(buffer, 0);
            (functions.read_register)(handles.0[register], buffer);
            let length = (*buffer).length as usize;
            complete &= (1..=8).contains(&length);
            let bytes = std::slice::from_raw_parts((*buffer).data, length.min(8));
            *value = bytes
                .iter()
                .rev()
                .fold(0, |value, &byte| value << 8 | u64::from(byte));
        }
        (functions.bytes_free)(buffer, 1);
        complete.then_some(values)
    }
}

/// What keys a block: see the protocol's block message.
pub(crate) struct Mode {
    pub(crate) cs: u32,
    pub(crate) eflags: u32,
    pub(crate) cr0: u64,
    pub(crate) cr3: u64,
    pub(crate) efer: u64,
}

impl Mode {
    pub(crate) const fn long(&self) -> bool {
        self.efer & 1 << 10 != 0
    }

    const fn real(&self) -> bool {
        self.cr0 & 1 == 0
    }
}

/// The mode of the block being translated.
pub(crate) fn mode() -> Option<Mode> {
    let [cs, eflags, cr0, cr3, efer] = read([CS, EFLAGS, CR0, CR3, EFER])?;
    Some(Mode {
        cs: cs as u32 & 0xffff,
        eflags: eflags as u32,
        cr0,
        cr3,
        efer,
    })
}

/// The instruction pointer, without the base of CS.
pub(crate) fn instruction_pointer() -> Option<u64> {
    read([RIP]).map(|[rip]| rip)
}

const RDMSR: u32 = 1;
const WRMSR: u32 = 2;
const CPUID: u32 = 3;
const IN: u32 = 4;
const OUT: u32 = 5;
const MOV_CR3: u32 = 6;
const AFTER: u32 = 7;
const AFTER_BLOCK: u32 = 8;

/// An instruction whose registers are wanted, small enough for a callback's data pointer.
#[derive(Clone, Copy)]
pub(crate) struct Watched {
    what: u32,
    /// Port width in bytes.
    width: u32,
    /// Immediate port; `u32::MAX` if the port is in DX.
    port: u32,
    /// Source of MOV to CR3.
    register: u32,
}

impl Watched {
    /// Whether registers are wanted after it too.
    pub(crate) const fn has_result(self) -> bool {
        matches!(self.what, RDMSR | CPUID | IN)
    }

    /// Whether QEMU may end the block behind it, so that its result shows in the next block only.
    pub(crate) const fn is_input(self) -> bool {
        self.what == IN
    }

    const fn new(what: u32) -> Self {
        Watched {
            what,
            width: 0,
            port: u32::MAX,
            register: 0,
        }
    }

    fn pack(self, instruction: u32) -> *mut c_void {
        let port = if self.port == u32::MAX {
            1 << 8
        } else {
            self.port & 0xff
        };
        let low = self.what | self.width << 4 | self.register << 8 | port << 16;
        ptr::without_provenance_mut(low as usize | (instruction as usize) << 32)
    }

    fn unpack(data: *mut c_void) -> (Watched, u32) {
        let data = data.addr();
        let low = data as u32;
        let port = low >> 16;
        let watched = Watched {
            what: low & 15,
            width: low >> 4 & 15,
            port: if port & 1 << 8 != 0 {
                u32::MAX
            } else {
                port & 0xff
            },
            register: low >> 8 & 15,
        };
        (watched, (data >> 32) as u32)
    }
}

/// Recognises the instructions whose registers are recorded.
pub(crate) fn watch(bytes: &[u8], mode: &Mode) -> Option<Watched> {
    let mut at = 0;
    let mut operand_override = false;
    while let Some(0x66 | 0x67 | 0xf0 | 0xf2 | 0xf3 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65) =
        bytes.get(at)
    {
        operand_override |= bytes[at] == 0x66;
        at += 1;
    }
    let mut rex = 0;
    // In 16- and 32-bit code 40h to 4Fh is a whole instruction, so nothing would follow.
    if mode.long() && bytes.get(at).is_some_and(|byte| byte & 0xf0 == 0x40) {
        rex = bytes[at];
        at += 1;
    }
    // Without CS.D: real-address mode takes 16-bit operands, everything else here runs 32-bit code.
    let width = |wide: bool| match (wide, operand_override ^ mode.real()) {
        (false, _) => 1,
        (true, true) => 2,
        (true, false) => 4,
    };
    let rest = bytes.get(at..)?;
    match *rest {
        [0x0f, 0x32] => Some(Watched::new(RDMSR)),
        [0x0f, 0x30] => Some(Watched::new(WRMSR)),
        [0x0f, 0xa2] => Some(Watched::new(CPUID)),
        [0x0f, 0x22, modrm] if modrm >> 3 & 7 == 3 => {
            let register = u32::from(modrm & 7 | (rex & 1) << 3);
            Some(Watched {
                register,
                ..Watched::new(MOV_CR3)
            })
        }
        [code @ 0xe4..=0xe7, port] => Some(Watched {
            width: width(code & 1 != 0),
            port: u32::from(port),
            ..Watched::new(if code & 2 != 0 { OUT } else { IN })
        }),
        [code @ 0xec..=0xef] => Some(Watched {
            width: width(code & 1 != 0),
            ..Watched::new(if code & 2 != 0 { OUT } else { IN })
        }),
        _ => None,
    }
}

/// Asks QEMU to call back before `insn`, and before `next` for its result.
///
/// # Safety
/// Both come from QEMU in the running translation callback.
pub(crate) unsafe fn register_watched(
    watched: Watched,
    index: u32,
    insn: *mut api::Insn,
    next: Option<*mut api::Insn>,
) {
    // SAFETY: the caller's.
    unsafe {
        api::qemu_plugin_register_vcpu_insn_exec_cb(
            insn,
            registers_wanted,
            api::CB_R_REGS,
            watched.pack(index),
        );
        if let Some(next) = next {
            let after = Watched::new(AFTER).pack(index);
            api::qemu_plugin_register_vcpu_insn_exec_cb(
                next,
                registers_wanted,
                api::CB_R_REGS,
                after,
            );
        }
    }
}

/// Asks QEMU to call back at the first instruction of a block that follows an IN.
///
/// # Safety
/// `insn` comes from QEMU in the running translation callback.
pub(crate) unsafe fn register_after_input(insn: *mut api::Insn) {
    let data = Watched::new(AFTER_BLOCK).pack(0);
    // SAFETY: the caller's.
    unsafe {
        api::qemu_plugin_register_vcpu_insn_exec_cb(insn, registers_wanted, api::CB_R_REGS, data);
    }
}

extern "C" fn registers_wanted(vcpu: c_uint, data: *mut c_void) {
    let (watched, instruction) = Watched::unpack(data);
    match watched.what {
        AFTER | AFTER_BLOCK => {
            let kind = if watched.what == AFTER { 2 } else { 5 };
            if let Some(values) = read([RAX, RBX, RCX, RDX]) {
                let [eax, ebx, ecx, edx] = values.map(|value| value as u32);
                ring::push(vcpu, [head(kind, instruction, 0), eax, ebx, ecx, edx]);
            }
        }
        MOV_CR3 => {
            if let Some([value]) = read([watched.register as usize]) {
                let words = [head(3, instruction, 0), value as u32, (value >> 32) as u32];
                ring::push(vcpu, words);
            }
        }
        what => {
            if let Some(values) = read([RAX, RCX, RDX]) {
                let [eax, ecx, edx] = values.map(|value| value as u32);
                let port = if watched.port == u32::MAX {
                    edx & 0xffff
                } else {
                    watched.port
                };
                let head = head(1, instruction, what | watched.width << 8);
                ring::push(vcpu, [head, eax, ecx, edx, port]);
            }
        }
    }
}

/// Called by QEMU (API 6) after an interrupt or exception was taken.
pub(crate) extern "C" fn discontinuity(_id: u64, vcpu: c_uint, kind: c_int, from: u64, to: u64) {
    let head = head(4, 0, kind.cast_unsigned() & 3);
    let words = [
        head,
        from as u32,
        (from >> 32) as u32,
        to as u32,
        (to >> 32) as u32,
    ];
    ring::push(vcpu, words);
}
