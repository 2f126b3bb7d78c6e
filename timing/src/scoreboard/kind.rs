//! Kinds of instructions that code is compiled for.

/// What an instruction does, or what the code for a kind of instructions can do: each of them runs by the first
/// kind that can do all it does, with one jump in place of a branch for each property.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kind {
    /// Loads from the memory that its operand says.
    pub(super) loads: bool,
    /// Stores to it.
    pub(super) stores: bool,
    /// Takes an execution port for its operation.
    pub(super) operates: bool,
    /// Changes what registers hold.
    pub(super) writes: bool,
    /// Computes with the address that its operand in memory has.
    pub(super) address: bool,
    /// Is fused with the instruction before it.
    pub(super) fused: bool,
    /// Does more than the other properties say; they are not read then.
    pub(super) other: bool,
    /// Inputs and outputs, at most.
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// One micro-operation, as decoded and as renamed.
    pub(super) single: bool,
    /// All that it does is to load one whole register.
    pub(super) plain: bool,
    /// Reads RSP, moves it through the stack engine, or writes it.
    pub(super) stack: bool,
    /// Moves RSP through the stack engine, or writes it.
    pub(super) moves_stack: bool,
    /// A branch, or what a branch is fused with.
    pub(super) branch: bool,
}

const NONE: Kind = Kind {
    loads: false,
    stores: false,
    operates: false,
    writes: false,
    address: false,
    fused: false,
    other: false,
    inputs: 2,
    outputs: 3,
    single: true,
    plain: false,
    stack: false,
    moves_stack: false,
    branch: false,
};

const SIMPLE: Kind = Kind {
    inputs: 1,
    outputs: 1,
    writes: true,
    ..NONE
};

const OPERATION: Kind = Kind {
    operates: true,
    writes: true,
    ..NONE
};

/// The kinds. Of two that can do the same the one of less code comes first.
pub(super) const KINDS: [Kind; 19] = [
    // The second one of a fused pair.
    Kind {
        fused: true,
        branch: true,
        single: false,
        ..NONE
    },
    // NOP.
    Kind {
        inputs: 0,
        outputs: 0,
        ..NONE
    },
    // MOV between registers, which the renamer does.
    SIMPLE,
    // Loads of registers.
    Kind {
        loads: true,
        plain: true,
        stack: true,
        ..SIMPLE
    },
    // Stores.
    Kind {
        stores: true,
        stack: true,
        ..SIMPLE
    },
    // PUSH.
    Kind {
        stores: true,
        stack: true,
        moves_stack: true,
        ..SIMPLE
    },
    // Other loads, POP.
    Kind {
        loads: true,
        stack: true,
        moves_stack: true,
        ..SIMPLE
    },
    // Branches of their own, that are not fused.
    Kind {
        operates: true,
        branch: true,
        inputs: 1,
        outputs: 0,
        ..NONE
    },
    // CMP, TEST.
    Kind {
        operates: true,
        branch: true,
        outputs: 2,
        ..NONE
    },
    // Arithmetic of which nobody reads the flags.
    Kind {
        outputs: 1,
        ..OPERATION
    },
    // LEA.
    Kind {
        address: true,
        stack: true,
        moves_stack: true,
        outputs: 1,
        ..OPERATION
    },
    // Arithmetic.
    Kind {
        stack: true,
        moves_stack: true,
        branch: true,
        ..OPERATION
    },
    // What the renamer does.
    Kind {
        stack: true,
        moves_stack: true,
        writes: true,
        ..NONE
    },
    // Arithmetic with an operand in memory.
    Kind {
        loads: true,
        branch: true,
        stack: true,
        moves_stack: true,
        outputs: 2,
        ..OPERATION
    },
    Kind {
        loads: true,
        branch: true,
        stack: true,
        moves_stack: true,
        ..OPERATION
    },
    // RET, if it is more than one micro-operation.
    Kind {
        loads: true,
        branch: true,
        stack: true,
        moves_stack: true,
        single: false,
        ..OPERATION
    },
    // CALL.
    Kind {
        stores: true,
        branch: true,
        stack: true,
        moves_stack: true,
        single: false,
        ..OPERATION
    },
    // Arithmetic on memory.
    Kind {
        loads: true,
        stores: true,
        branch: true,
        stack: true,
        moves_stack: true,
        single: false,
        ..OPERATION
    },
    // All others. It counts its own inputs and outputs.
    Kind {
        other: true,
        single: false,
        stack: true,
        moves_stack: true,
        branch: true,
        ..NONE
    },
];

/// What is fused with the instruction before it.
pub(super) const FUSED: usize = 0;
/// The kind of all others.
pub(super) const OTHER: usize = KINDS.len() - 1;

impl Kind {
    /// The number of the first kind that can do it.
    pub(super) fn number(&self) -> u8 {
        let found = KINDS.iter().position(|kind| kind.covers(self));
        found.unwrap_or(OTHER) as u8
    }

    fn covers(&self, needed: &Self) -> bool {
        let does = |kind: &Self| (kind.loads, kind.stores, kind.operates, kind.writes);
        let is = |kind: &Self| (kind.fused, kind.other);
        let has = |own: bool, needed: bool| own || !needed;
        does(self) == does(needed)
            && is(self) == is(needed)
            && has(self.address, needed.address)
            && has(self.stack, needed.stack)
            && has(self.moves_stack, needed.moves_stack)
            && has(self.branch, needed.branch)
            && has(needed.single, self.single)
            && has(needed.plain, self.plain)
            && self.inputs >= needed.inputs
            && self.outputs >= needed.outputs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_runs_by_the_first_kind_that_can_do_all_it_does() {
        for (number, kind) in KINDS.iter().enumerate() {
            assert_eq!(usize::from(kind.number()), number, "{kind:?}");
        }
        let needed = Kind {
            outputs: 3,
            ..KINDS[9]
        };
        let found = KINDS[usize::from(needed.number())];
        assert!(found.outputs == 3 && found.operates && found.writes && !found.loads);
        let unknown = Kind {
            address: true,
            ..KINDS[4]
        };
        assert_eq!(usize::from(unknown.number()), OTHER);
    }
}
