//! How micro-operations spread over the ports that can execute them.

use crate::ports::PortSet;

/// Rounds after which the spread is taken as settled.
const ROUNDS: usize = 2000;

/// The share of each set's micro-operations that each port gets, so that the busiest port has as little
/// as can be, and of the others the busiest again. In the order of `uops`.
pub(super) fn spread(uops: &[(PortSet, u32)]) -> Vec<[f64; PortSet::MAX]> {
    let mut shares = vec![[0.0; PortSet::MAX]; uops.len()];
    let mut loads = [0.0; PortSet::MAX];
    for (&(set, count), share) in uops.iter().zip(&mut shares) {
        for port in ports(set) {
            share[port] = 1.0 / f64::from(set.len());
            loads[port] += share[port] * f64::from(count);
        }
    }
    // Each set in turn is poured anew over what the others left, which lowers the sum of squares of the
    // loads; its minimum is the even spread.
    for _ in 0..ROUNDS {
        let mut moved = 0.0_f64;
        for (&(set, count), share) in uops.iter().zip(&mut shares) {
            let count = f64::from(count);
            let mut others: Vec<(f64, usize)> = ports(set)
                .map(|port| (loads[port] - share[port] * count, port))
                .collect();
            others.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let level = level(&others, count);
            for (other, port) in others {
                let own = (level - other).max(0.0) / count;
                moved = moved.max((own - share[port]).abs() * count);
                loads[port] = other + own * count;
                share[port] = own;
            }
        }
        if moved < 1e-7 {
            break;
        }
    }
    shares
}

/// The height to which `count` fills vessels of these heights, ascending.
fn level(heights: &[(f64, usize)], count: f64) -> f64 {
    let mut sum = count;
    let mut level = 0.0;
    for (number, &(height, _)) in heights.iter().enumerate() {
        if number > 0 && height >= level {
            break;
        }
        sum += height;
        level = sum / (number + 1) as f64;
    }
    level
}

/// The ports of a set.
pub(super) fn ports(set: PortSet) -> impl Iterator<Item = usize> {
    (0..PortSet::MAX).filter(move |port| set.bits() & 1 << port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn loads(uops: &[(PortSet, u32)]) -> [f64; PortSet::MAX] {
        let mut loads = [0.0; PortSet::MAX];
        for ((_, count), share) in uops.iter().zip(spread(uops)) {
            for (load, share) in loads.iter_mut().zip(share) {
                *load += share * f64::from(*count);
            }
        }
        loads
    }

    #[test]
    fn operations_with_a_choice_leave_the_busy_ports() {
        // Two that need port 0 and two for 0156: those go to 1, 5 and 6.
        let set = PortSet::of;
        let loads = loads(&[(set(&[0]), 2), (set(&[0, 1, 5, 6]), 2)]);
        for (port, load) in [(0, 2.0), (1, 2.0 / 3.0), (5, 2.0 / 3.0), (6, 2.0 / 3.0)] {
            assert!((loads[port] - load).abs() < 1e-6, "{loads:?}");
        }
    }

    proptest! {
        #[test]
        fn the_busiest_port_has_what_the_bound_says(
            uops in proptest::collection::btree_map(1_u16..4096, 1_u32..9, 1..8)
        ) {
            let uops: Vec<(PortSet, u32)> = uops
                .into_iter()
                .map(|(bits, count)| {
                    let ports: Vec<u8> = (0..12).filter(|p| bits & 1 << p != 0).collect();
                    (PortSet::of(&ports), count)
                })
                .collect();
            let total: u32 = uops.iter().map(|(_, count)| count).sum();
            let loads = loads(&uops);
            prop_assert!((loads.iter().sum::<f64>() - f64::from(total)).abs() < 1e-4);
            let worst = loads.iter().copied().fold(0.0, f64::max);
            let bound = crate::bound::port_bound(&uops);
            prop_assert!((worst - f64::from(bound)).abs() < 1e-3, "{worst} {bound}");
        }
    }
}
