//! What else a form could cost.

use crate::forms::{Form, Role};
use crate::ports::{PortSet, PortUse};

/// Sets of ports that operations of Haswell and Skylake go to.
const SETS: [&str; 12] = [
    "0156", "015", "056", "06", "01", "15", "05", "56", "0", "1", "5", "6",
];

/// Variants of `form`: another latency, number or ports of micro-operations.
pub(super) fn candidates(form: &Form) -> Vec<Form> {
    let mut found = Vec::new();
    let mut push = |change: &dyn Fn(&mut Form)| {
        let mut variant = form.clone();
        change(&mut variant);
        if variant != *form && !found.contains(&variant) {
            found.push(variant);
        }
    };
    // Every pair of operands keeps a latency that is not negative.
    let least = form.least_latency();
    for step in [-3.0, -2.0, -1.0, 1.0, 2.0, 3.0] {
        push(&|f| f.latency = (f.latency + step).max(least));
    }
    if form.latency >= 8.0 {
        for factor in [0.3, 0.5, 0.7, 0.85, 1.15, 1.4, 2.0] {
            push(&|f| f.latency = (f.latency * factor).round().max(least));
        }
    }
    if form.divider > 0.0 || form.uops.total() > 4 {
        for cycles in [1.0, 2.0, -1.0, -2.0] {
            push(&|f| f.divider = (f.divider + cycles).max(0.0));
        }
        for factor in [0.5, 0.75, 1.25, 1.6] {
            push(&|f| f.divider = (f.divider.max(8.0) * factor).round());
        }
    }
    if form.uops.total() > 4 {
        for slots in [4, 8, 10, 16, 24, 32] {
            push(&|f| f.slots = slots);
        }
        for count in [4, 6, 10, 20, 30] {
            push(&|f| {
                f.uops = PortUse::parse(&format!("{count}*0156")).unwrap_or_default();
                f.slots = count;
            });
        }
    }
    push(&|f| f.slots += 1);
    push(&|f| f.slots = f.slots.saturating_sub(1));
    for role in [
        Role::Operand(0),
        Role::Operand(1),
        Role::Operand(2),
        Role::Implicit,
        Role::Flags,
    ] {
        for step in [-1.0, 1.0] {
            if form.from(role) + step >= 0.0 {
                push(&|f| f.add_from(role, step));
            }
            if form.latency + form.to(role) + step >= 0.0 {
                push(&|f| f.add_to(role, step));
            }
        }
    }
    for set in SETS.iter().filter_map(|s| PortSet::parse(s).ok()) {
        for at in 0..form.uops.parts().len() {
            push(&|f| f.uops = form.uops.moved(at, set));
        }
        if form.uops.total() < 4 {
            push(&|f| {
                f.uops = form.uops.with(set);
                f.slots += 1;
            });
        }
    }
    for at in 0..form.uops.parts().len() {
        push(&|f| {
            f.uops = form.uops.less(at);
            f.slots = f.slots.saturating_sub(1);
        });
    }
    found
}
