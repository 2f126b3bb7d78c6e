//! The path: taken branches by address and target.

use super::branch::Branch;
use super::config::PathConfig;
use super::history::{History, Push};

/// Bits of an address that stand side by side in the footprint as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Group {
    /// Where the lowest bit of the footprint lies in the address, turned round 64.
    turn: u32,
    mask: u64,
}

/// The path of the branches that were taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) history: History,
    branch: Vec<Group>,
    target: Vec<Group>,
}

/// What `bits` says in as few groups as can be.
fn groups(bits: &[i8; 16]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (place, &bit) in bits.iter().enumerate().filter(|(_, bit)| **bit >= 0) {
        let turn = (bit as u32).wrapping_sub(place as u32) % 64;
        let mask = 1 << place;
        match groups.iter_mut().find(|group| group.turn == turn) {
            Some(group) => group.mask |= mask,
            None => groups.push(Group { turn, mask }),
        }
    }
    groups
}

fn gather(groups: &[Group], address: u64) -> u64 {
    groups.iter().fold(0, |sum, group| {
        sum | address.rotate_right(group.turn) & group.mask
    })
}

impl Path {
    pub(crate) fn new(config: &PathConfig) -> Self {
        Self {
            history: History::new(),
            branch: groups(&config.branch),
            target: groups(&config.target),
        }
    }

    /// What a taken branch adds.
    #[inline]
    pub(crate) fn push_of(&self, branch: &Branch) -> Push {
        let last = branch.fallthrough.wrapping_sub(1);
        let footprint = gather(&self.branch, last) ^ gather(&self.target, branch.target);
        Push(footprint as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::super::branch::BranchKind;
    use super::super::catalog::predictors;
    use super::super::lfsr::Lfsr;
    use super::*;

    #[test]
    fn a_footprint_has_the_bits_that_its_configuration_names() {
        let mut random = Lfsr::new(3);
        let mut word = || u64::from(random.next()) << 32 | u64::from(random.next());
        let far = PathConfig {
            branch: std::array::from_fn(|place| 63 - place as i8),
            target: [-1; 16],
        };
        let built_in = predictors().all().iter().map(|config| &config.path);
        for config in built_in.chain([&far]) {
            let path = Path::new(config);
            for _ in 0..1000 {
                let branch = Branch {
                    address: 0,
                    fallthrough: word(),
                    kind: BranchKind::Jump,
                    taken: true,
                    target: word(),
                };
                let bit = |address: u64, bit: i8| bit >= 0 && address >> bit & 1 != 0;
                let expected = (0..16).map(|place| {
                    let set = bit(branch.fallthrough - 1, config.branch[place])
                        != bit(branch.target, config.target[place]);
                    u16::from(set) << place
                });
                assert_eq!(path.push_of(&branch).0, expected.sum::<u16>());
            }
        }
    }
}
