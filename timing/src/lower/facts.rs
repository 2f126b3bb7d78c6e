//! What lowering made of one instruction, for whoever explains a bound.

use core::ops::Range;

use iced_x86::Instruction;

use crate::forms::FormId;
use crate::lower::idiom::{Idiom, idiom};
use crate::lower::{Lowered, explicit_memory, operands};
use crate::microarchitecture::Microarchitecture;
use crate::ports::PortSet;

/// What an instruction adds to a lowered block.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// Its form.
    pub(crate) form: FormId,
    /// How the renamer treats it.
    pub(crate) idiom: Idiom,
    /// It became one micro-operation with the instruction before it.
    pub(crate) fused_before: bool,
    /// It is an LEA that adds three things.
    pub(crate) slow_lea: bool,
    /// Fused micro-operations renamed for it.
    pub(crate) issued: u32,
    /// Of them, those that bring RSP up to date.
    pub(crate) synchronizing: u32,
    /// Cycles in which the renamer only joins a high byte for it.
    pub(crate) merges: u32,
    /// Micro-operations by set of ports.
    pub(crate) uops: Vec<(PortSet, u32)>,
    /// Cycles of the dividers: of integers, of floating-point numbers.
    pub(crate) dividers: [f32; 2],
    /// Cycles it takes because it serializes.
    pub(crate) floor: f32,
    /// Stores.
    pub(crate) stores: u32,
    /// Its nodes of the dependences.
    pub(crate) nodes: Range<usize>,
}

impl Facts {
    /// The block before the instruction: [`Facts::complete`] takes the difference.
    pub(super) fn before(lowered: &Lowered) -> Self {
        Self {
            form: FormId::new(iced_x86::Code::INVALID, false),
            idiom: Idiom::None,
            fused_before: false,
            slow_lea: false,
            issued: lowered.issued,
            synchronizing: lowered.synchronizing,
            merges: lowered.merges,
            uops: lowered.uops.clone(),
            dividers: lowered.dividers,
            floor: lowered.floor,
            stores: lowered.stores,
            nodes: lowered.dependences.len()..0,
        }
    }

    /// Takes the difference to the block behind the instruction.
    pub(super) fn complete(
        &mut self,
        instruction: &Instruction,
        fused_before: bool,
        lowered: &Lowered,
        core: &Microarchitecture,
    ) {
        self.form = FormId::new(instruction.code(), explicit_memory(instruction));
        self.idiom = idiom(instruction, &core.parameters);
        self.fused_before = fused_before;
        self.slow_lea = operands::is_slow_lea(instruction);
        self.issued = lowered.issued - self.issued;
        self.synchronizing = lowered.synchronizing - self.synchronizing;
        self.merges = lowered.merges - self.merges;
        let before = |ports: PortSet| {
            let found = self.uops.iter().find(|(set, _)| *set == ports);
            found.map_or(0, |(_, count)| *count)
        };
        self.uops = lowered
            .uops
            .iter()
            .map(|&(ports, count)| (ports, count - before(ports)))
            .filter(|(_, count)| *count > 0)
            .collect();
        for (own, now) in self.dividers.iter_mut().zip(lowered.dividers) {
            *own = now - *own;
        }
        self.floor = lowered.floor - self.floor;
        self.stores = lowered.stores - self.stores;
        self.nodes.end = lowered.dependences.len();
    }
}
