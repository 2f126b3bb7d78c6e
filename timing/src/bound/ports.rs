//! How fast the execution ports take the micro-operations.

use crate::ports::PortSet;

/// Cycles per iteration if micro-operations are spread over their ports as well as can be.
///
/// Micro-operations that must go to a group of ports take at least their number over that of the
/// ports; the best spread reaches the worst group. Only unions of the sets in use matter.
pub(super) fn ports(uops: &[(PortSet, u32)], unions: &mut Vec<PortSet>) -> f32 {
    worst_group(uops, unions).1
}

/// The group of ports that takes longest, and its cycles.
pub(super) fn worst_group(uops: &[(PortSet, u32)], unions: &mut Vec<PortSet>) -> (PortSet, f32) {
    unions.clear();
    for &(set, _) in uops {
        for at in 0..unions.len() {
            let union = unions[at].union(set);
            if !unions.contains(&union) {
                unions.push(union);
            }
        }
        if !unions.contains(&set) {
            unions.push(set);
        }
    }
    let mut worst = (PortSet::default(), 0.0_f32);
    for &union in unions.iter() {
        let inside: u32 = uops
            .iter()
            .filter(|(set, _)| set.within(union))
            .map(|(_, count)| count)
            .sum();
        let cycles = inside as f32 / union.len() as f32;
        if cycles > worst.1 {
            worst = (union, cycles);
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_group_of_ports_binds() {
        let set = |ports: &[u8]| PortSet::of(ports);
        let mut work = Vec::new();
        assert_eq!(ports(&[], &mut work), 0.0);
        // Two on 06 and three on 0156: five over four ports are more than two over two.
        let uops = [(set(&[0, 6]), 2), (set(&[0, 1, 5, 6]), 3)];
        assert_eq!(ports(&uops, &mut work), 1.25);
        // A union of sets of which none holds the other.
        let uops = [(set(&[0, 1]), 3), (set(&[1, 5]), 3)];
        assert_eq!(ports(&uops, &mut work), 2.0);
        assert_eq!(worst_group(&uops, &mut work).0, set(&[0, 1, 5]));
    }
}
