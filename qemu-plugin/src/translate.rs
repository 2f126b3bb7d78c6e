//! Translation: a block's definition is sent and its execution callback registered.

use std::ptr;

use crate::control::{self, put_u32};
use crate::{api, interrupts, memory, moved, registers, ring};

/// Block ids are below the tag bit of ring words.
const MAX_BLOCKS: u32 = 1 << 31;

/// A block as its definition message needs it.
pub(crate) struct Block {
    pub(crate) start: u64,
    /// Host address of the first instruction, 0 if unknown.
    pub(crate) host: u64,
    pub(crate) sizes: Vec<u8>,
    pub(crate) bytes: Vec<u8>,
}

/// Called by QEMU for each block it translates.
pub(crate) extern "C" fn translated(_id: u64, tb: *mut api::Tb) {
    let Some(configuration) = control::configuration() else {
        return;
    };
    if !control::recording() {
        return;
    }
    // SAFETY: `tb` is QEMU's for this callback.
    let Some(block) = (unsafe { read_block(tb) }) else {
        return;
    };
    let mode = registers::mode();
    let Some(id) = define(&block, mode.as_ref(), configuration.system) else {
        return;
    };
    let address_known = mode.as_ref().filter(|_| configuration.system);
    let placed = address_known.and_then(|mode| moved::Placed::new(&block, id, mode));
    let handler = if configuration.system {
        interrupts::Handler::new(id, block.start)
    } else {
        None
    };
    // SAFETY: as above; the data of the callbacks is a number, or a block that is never freed.
    unsafe {
        if let Some(handler) = handler {
            api::qemu_plugin_register_vcpu_tb_exec_cb(
                tb,
                interrupts::handler_executed,
                api::CB_R_REGS,
                ptr::from_ref(handler).cast_mut().cast(),
            );
        } else if let Some(placed) = placed {
            api::qemu_plugin_register_vcpu_tb_exec_cb(
                tb,
                moved::block_executed,
                api::CB_R_REGS,
                ptr::from_ref(placed).cast_mut().cast(),
            );
        } else {
            api::qemu_plugin_register_vcpu_tb_exec_cb(
                tb,
                ring::block_executed,
                api::CB_NO_REGS,
                ptr::without_provenance_mut(id as usize),
            );
        }
        if configuration.memory {
            for index in 0..block.sizes.len() {
                api::qemu_plugin_register_vcpu_mem_cb(
                    api::qemu_plugin_tb_get_insn(tb, index),
                    memory::accessed,
                    api::CB_NO_REGS,
                    api::MEM_RW,
                    ptr::without_provenance_mut(index),
                );
            }
        }
        if configuration.system {
            watch_tables(tb, &block);
        }
        if let Some(mode) = mode.filter(|_| configuration.system) {
            watch_instructions(tb, &block, &mode);
        }
    }
}

/// # Safety
/// `tb` is QEMU's in the running translation callback.
unsafe fn read_block(tb: *mut api::Tb) -> Option<Block> {
    // SAFETY: the caller's; indices are below the count.
    unsafe {
        let count = api::qemu_plugin_tb_n_insns(tb);
        let mut block = Block {
            start: api::qemu_plugin_tb_vaddr(tb),
            host: 0,
            sizes: Vec::with_capacity(count),
            bytes: Vec::with_capacity(count * 4),
        };
        if count > 0 {
            let first = api::qemu_plugin_tb_get_insn(tb, 0);
            block.host = api::qemu_plugin_insn_haddr(first).addr() as u64;
        }
        for index in 0..count {
            let size = api::append_insn(api::qemu_plugin_tb_get_insn(tb, index), &mut block.bytes);
            if size == 0 {
                return None;
            }
            block.sizes.push(size);
        }
        (count > 0).then_some(block)
    }
}

/// Sends the definition and returns the block's id.
pub(crate) fn define(block: &Block, mode: Option<&registers::Mode>, system: bool) -> Option<u32> {
    let mut payload = Vec::with_capacity(64 + block.sizes.len() + block.bytes.len());
    let mut control = control::lock();
    if !system {
        memory::learn_guest_base(block.start, block.host);
        control.cover(block.start);
    }
    let id = control.next_block;
    if id >= MAX_BLOCKS {
        control.note_lost("more blocks than ids");
        control::stop_recording();
        return None;
    }
    put_u32(&mut payload, id);
    payload.extend_from_slice(&block.start.to_le_bytes());
    put_u32(&mut payload, u32::from(mode.is_some()));
    put_u32(&mut payload, u32::try_from(block.sizes.len()).ok()?);
    if let Some(mode) = mode {
        put_u32(&mut payload, mode.cs);
        put_u32(&mut payload, mode.eflags);
        for value in [mode.cr0, mode.cr3, mode.efer] {
            payload.extend_from_slice(&value.to_le_bytes());
        }
    }
    payload.extend_from_slice(&block.sizes);
    payload.extend_from_slice(&block.bytes);
    if !control.send(control::BLOCK, &payload) {
        return None;
    }
    control.next_block = id + 1;
    Some(id)
}

/// # Safety
/// `tb` is QEMU's in the running translation callback, and `block` was read from it.
unsafe fn watch_tables(tb: *mut api::Tb, block: &Block) {
    let mut offset = 0;
    for (index, &size) in block.sizes.iter().enumerate() {
        let bytes = &block.bytes[offset..offset + usize::from(size)];
        offset += usize::from(size);
        // SAFETY: the caller's; the index is below the count.
        unsafe { interrupts::watch(api::qemu_plugin_tb_get_insn(tb, index), bytes) };
    }
}

/// # Safety
/// `tb` is QEMU's in the running translation callback, and `block` was read from it.
unsafe fn watch_instructions(tb: *mut api::Tb, block: &Block, mode: &registers::Mode) {
    if control::lock().after_input.contains(&block.start) {
        // SAFETY: the caller's; a block has a first instruction.
        unsafe { registers::register_after_input(api::qemu_plugin_tb_get_insn(tb, 0)) };
    }
    let mut offset = 0;
    for (index, &size) in block.sizes.iter().enumerate() {
        let bytes = &block.bytes[offset..offset + usize::from(size)];
        offset += usize::from(size);
        let Some(watched) = registers::watch(bytes, mode) else {
            continue;
        };
        let last = index + 1 == block.sizes.len();
        if watched.is_input() && last {
            let end = block.start.wrapping_add(offset as u64);
            control::lock().after_input.insert(end);
        }
        let next = (watched.has_result() && !last)
            // SAFETY: the caller's; the index is below the count.
            .then(|| unsafe { api::qemu_plugin_tb_get_insn(tb, index + 1) });
        // SAFETY: as above.
        unsafe {
            let insn = api::qemu_plugin_tb_get_insn(tb, index);
            registers::register_watched(watched, index as u32, insn, next);
        }
    }
}

/// Called by QEMU for each block with `empty=on`.
pub(crate) extern "C" fn translated_empty(_id: u64, tb: *mut api::Tb) {
    // SAFETY: `tb` is QEMU's for this callback.
    unsafe {
        api::qemu_plugin_register_vcpu_tb_exec_cb(
            tb,
            ring::nothing,
            api::CB_NO_REGS,
            ptr::null_mut(),
        );
    }
}
