//! QEMU TCG plugin that streams executed blocks to `vlbr record`.
//!
//! Loaded as `-plugin libvlbr_qemu_plugin.so,session=DIR[,mem=on]` by `qemu-x86_64` or
//! `qemu-system-x86_64` from 7.2 (plugin API 1) on. `DIR/control` is the recorder's socket; the
//! protocol is written down in the recorder, `traces/src/qemu/protocol.rs`. `empty=on` instead of a
//! session registers a callback that does nothing for each block, the baseline of speed figures.
//!
//! Nothing here may end or change the guest: whatever fails, recording stops and the guest goes on.

mod api;
mod arguments;
mod control;
mod exec;
mod fork;
mod interrupts;
mod maps;
mod memory;
mod moved;
mod registers;
mod ring;
mod sys;
mod syscalls;
mod translate;

pub use arguments::qemu_plugin_install;
