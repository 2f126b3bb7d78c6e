//! The few C library functions used, declared by hand for x86-64 Linux.

use std::ffi::{CStr, c_char, c_int, c_long, c_void};

pub(crate) const F_DUPFD_CLOEXEC: c_int = 1030;
pub(crate) const MSG_NOSIGNAL: c_int = 0x4000;
pub(crate) const POLLHUP: i16 = 0x10;
pub(crate) const POLLERR: i16 = 0x08;
pub(crate) const POLLRDHUP: i16 = 0x2000;
pub(crate) const PROT_READ_WRITE: c_int = 3;
pub(crate) const MAP_SHARED: c_int = 1;
pub(crate) const AT_FDCWD: c_int = -100;
pub(crate) const AT_EACCESS: c_int = 0x200;
pub(crate) const X_OK: c_int = 1;
const SYS_GETTID: c_long = 186;

#[repr(C)]
pub(crate) struct PollFd {
    pub(crate) fd: c_int,
    pub(crate) events: i16,
    pub(crate) revents: i16,
}

#[repr(C)]
pub(crate) struct IoVec {
    pub(crate) base: *mut c_void,
    pub(crate) length: usize,
}

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;
    fn syscall(number: c_long, ...) -> c_long;
    pub(crate) fn getppid() -> c_int;
    pub(crate) fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    pub(crate) fn send(fd: c_int, data: *const c_void, length: usize, flags: c_int) -> isize;
    pub(crate) fn poll(fds: *mut PollFd, count: u64, timeout: c_int) -> c_int;
    pub(crate) fn mmap(
        address: *mut c_void,
        length: usize,
        protection: c_int,
        flags: c_int,
        fd: c_int,
        offset: i64,
    ) -> *mut c_void;
    pub(crate) fn munmap(address: *mut c_void, length: usize) -> c_int;
    pub(crate) fn pthread_atfork(
        prepare: Option<unsafe extern "C" fn()>,
        parent: Option<unsafe extern "C" fn()>,
        child: Option<unsafe extern "C" fn()>,
    ) -> c_int;
    pub(crate) fn process_vm_readv(
        pid: c_int,
        local: *const IoVec,
        local_count: u64,
        remote: *const IoVec,
        remote_count: u64,
        flags: u64,
    ) -> isize;
    pub(crate) fn faccessat(fd: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int;
    pub(crate) fn execve(
        path: *const c_char,
        arguments: *const *const c_char,
        environment: *const *const c_char,
    ) -> c_int;
}

/// Address of a symbol of QEMU or a library it has loaded, null if there is none.
pub(crate) fn symbol(name: &CStr) -> *mut c_void {
    // SAFETY: a null handle is RTLD_DEFAULT, and the name ends with NUL.
    unsafe { dlsym(std::ptr::null_mut(), name.as_ptr()) }
}

/// Host thread id.
pub(crate) fn gettid() -> u32 {
    // SAFETY: gettid takes no argument and cannot fail.
    unsafe { syscall(SYS_GETTID) as u32 }
}
