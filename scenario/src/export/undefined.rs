//! Bits of the final registers that another emulator may have otherwise.

use serde::Serialize;
use vlbr_lbr::Profile;

use super::hash::State;
use super::hex::Hex;
use super::layout::Layout;
use super::register::{Kind, kind};

/// Bits of some registers in a row that need not agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Undefined {
    pub(super) first: Hex,
    pub(super) last: Hex,
    pub(super) mask: Hex,
    pub(super) reason: String,
}

/// The bits of each register of a state, with the reason.
#[derive(Clone, Debug, Default)]
pub(super) struct Masks(Vec<(usize, u64, String)>);

impl Masks {
    /// What follows from the layout: reserved bits, and cycles if no step tells the time.
    pub(super) fn of_layout(
        profile: &Profile,
        layout: &Layout,
        timed: bool,
        known: &[u64],
        state: &State,
    ) -> Self {
        let mut masks = Self::default();
        for (n, (msr, _)) in state.iter().enumerate() {
            let (cycles, reserved) = match kind(profile, *msr) {
                Kind::To | Kind::LerTo => (layout.to_cycles.0, 0),
                Kind::Info => (layout.info_cycles.0, layout.info_reserved.0),
                Kind::LerInfo => (
                    0,
                    layout.info_reserved.0
                        | layout.info_cycles.0
                        | layout.info_cycles_valid.0
                        | layout.info_events.0,
                ),
                Kind::From | Kind::LerFrom | Kind::Other => (0, 0),
            };
            masks.add(n, if timed { 0 } else { cycles }, "cycles");
            masks.add(n, reserved, "reserved");
            masks.add(n, !known[n], "not-modelled");
        }
        masks
    }

    /// The bits in which `other` differs from `state`.
    pub(super) fn add_differences(&mut self, state: &State, other: &State, reason: &str) {
        for (n, ((_, value), (_, other))) in state.iter().zip(other).enumerate() {
            let bits = match (value, other) {
                (Some(value), Some(other)) => value ^ other,
                (None, None) => 0,
                _ => !0,
            };
            self.add(n, bits, reason);
        }
    }

    fn add(&mut self, n: usize, bits: u64, reason: &str) {
        if bits == 0 {
            return;
        }
        let known = |(at, _, known): &&mut (usize, u64, String)| *at == n && known == reason;
        match self.0.iter_mut().find(known) {
            Some((_, mask, _)) => *mask |= bits,
            None => self.0.push((n, bits, reason.to_owned())),
        }
    }

    /// The undefined bits of the `n`-th register.
    pub(super) fn mask(&self, n: usize) -> u64 {
        let of = self.0.iter().filter(|(at, ..)| *at == n);
        of.fold(0, |all, (_, mask, _)| all | mask)
    }

    /// By reason and register; neighbours with one mask together.
    pub(super) fn list(&self, state: &State) -> Vec<Undefined> {
        let mut all = self.0.clone();
        all.sort_by(|a, b| (&a.2, a.0).cmp(&(&b.2, b.0)));
        let mut list: Vec<Undefined> = Vec::new();
        for (n, mask, reason) in all {
            let msr = Hex(state[n].0.value().into());
            match list.last_mut() {
                Some(run)
                    if run.last.0 + 1 == msr.0 && run.mask == Hex(mask) && run.reason == reason =>
                {
                    run.last = msr;
                }
                _ => list.push(Undefined {
                    first: msr,
                    last: msr,
                    mask: Hex(mask),
                    reason,
                }),
            }
        }
        list
    }
}
