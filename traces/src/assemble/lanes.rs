//! What is remembered of blocks and of the ways between them.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::mode::State;
use super::transition::Decoded;

/// No block.
pub(super) const NONE: u32 = u32::MAX;
/// Cached outcome "a repeat, no step", and an unused place in a chunk.
pub(super) const HOLE: u32 = u32::MAX;
/// States whose ways are kept; when another comes, all are forgotten.
const MAX_KEPT: usize = 64;

/// The two ways on from a block that were seen first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) next: [u32; 2],
    pub(super) step: [u32; 2],
    pub(super) retired: [u16; 2],
}

const EMPTY_NODE: Node = Node {
    next: [NONE; 2],
    step: [HOLE; 2],
    retired: [0; 2],
};

/// What is known in one mode state: the same raw block is another block in another mode.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) state: State,
    /// By raw id.
    pub(super) nodes: Vec<Node>,
    /// Ways on beyond the two in the node: step and retired instructions.
    pub(super) more: FxHashMap<u64, (u32, u16)>,
    pub(super) decoded: FxHashMap<u32, Arc<Decoded>>,
}

/// Key of the way from block `previous` to block `next`.
pub(super) fn way(previous: u32, next: u32) -> u64 {
    u64::from(previous) << 32 | u64::from(next)
}

impl Lane {
    /// Remembers the way from `previous` to `next`.
    pub(super) fn remember(&mut self, previous: u32, next: u32, step: u32, retired: u16) {
        let index = previous as usize;
        if self.nodes.len() <= index {
            self.nodes.resize(index + 1, EMPTY_NODE);
        }
        let node = &mut self.nodes[index];
        match node.next.iter().position(|&id| id == NONE) {
            Some(free) => {
                node.next[free] = next;
                node.step[free] = step;
                node.retired[free] = retired;
            }
            None => {
                self.more.insert(way(previous, next), (step, retired));
            }
        }
    }
}

/// The lanes of a stream. Indices stay valid.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    by_state: FxHashMap<State, usize>,
    /// Lanes added since all were forgotten.
    kept: usize,
}

impl Lanes {
    pub(super) fn get(&self, index: usize) -> Option<&Lane> {
        self.lanes.get(index)
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Lane> {
        self.lanes.get_mut(index)
    }

    /// Index of the lane of `state`.
    pub(super) fn of(&mut self, state: State) -> usize {
        if let Some(&index) = self.by_state.get(&state) {
            return index;
        }
        if self.kept == MAX_KEPT {
            self.kept = 0;
            self.forget_ways();
            for lane in &mut self.lanes {
                lane.decoded = FxHashMap::default();
            }
        }
        self.kept += 1;
        let index = self.lanes.len();
        self.by_state.insert(state, index);
        self.lanes.push(Lane {
            state,
            nodes: Vec::new(),
            more: FxHashMap::default(),
            decoded: FxHashMap::default(),
        });
        index
    }

    /// Forgets all ways.
    pub(super) fn forget_ways(&mut self) {
        for lane in &mut self.lanes {
            lane.nodes = Vec::new();
            lane.more = FxHashMap::default();
        }
    }
}
