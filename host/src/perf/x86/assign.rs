//! Counters for a list of events: `perf_assign_events`.

use super::FIXED;
use super::constraints::Constraint;

/// A counter for each constraint, `None` for one without counter; nothing if they do not all fit.
/// The tightest constraints choose first; of its counters an event takes a fixed one before the
/// lowest general-purpose one. Backtracking for overlapping constraints is left out: no event of
/// the model's lists has one.
pub(crate) fn assign(constraints: &[Constraint]) -> Option<Vec<Option<u8>>> {
    let mut chosen = vec![None; constraints.len()];
    if constraints.iter().any(|constraint| constraint.is_empty()) {
        return None;
    }
    let mut order: Vec<usize> = (0..constraints.len())
        .filter(|n| !constraints[*n].no_counter)
        .collect();
    order.sort_by_key(|n| constraints[*n].weight());
    let mut used = 0u64;
    for n in order {
        let free = constraints[n].mask & !used;
        let fixed = free >> FIXED << FIXED;
        let from = if fixed != 0 { fixed } else { free };
        if from == 0 {
            return None;
        }
        let idx = from.trailing_zeros() as u8;
        used |= 1 << idx;
        chosen[n] = Some(idx);
    }
    Some(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(masks: &[u64]) -> Option<Vec<Option<u8>>> {
        let constraints: Vec<Constraint> = masks
            .iter()
            .map(|mask| Constraint {
                mask: *mask,
                no_counter: false,
            })
            .collect();
        assign(&constraints)
    }

    #[test]
    fn fixed_counters_are_preferred() {
        assert_eq!(of(&[0x1_0000_000f]), Some(vec![Some(32)]));
        let twice = of(&[0x1_0000_000f, 0x1_0000_000f]);
        assert_eq!(twice, Some(vec![Some(32), Some(0)]));
    }

    #[test]
    fn the_tightest_constraint_chooses_first() {
        assert_eq!(of(&[0xf, 0x1]), Some(vec![Some(1), Some(0)]));
        assert_eq!(of(&[0x3, 0x3, 0x3]), None);
        assert_eq!(of(&[0x3, 0]), None, "the empty constraint fits nowhere");
    }

    #[test]
    fn an_event_without_counter_uses_none() {
        let mut constraints = vec![
            Constraint {
                mask: 0xf,
                no_counter: true,
            };
            2
        ];
        constraints.push(Constraint {
            mask: 1,
            no_counter: false,
        });
        assert_eq!(assign(&constraints), Some(vec![None, None, Some(0)]));
        constraints[0].mask = 0;
        assert_eq!(assign(&constraints), None, "a slot in other hands");
    }
}
