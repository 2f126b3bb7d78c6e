//! States of perf events as a run goes on.

use std::collections::BTreeMap;

use vlbr_host::VcpuId;
use vlbr_host::perf::{EventId, EventState};

use crate::simulation::Simulation;

/// What an event is, between two looks: none, or its state and whether it is on a processor.
type State = (Option<EventId>, &'static str);

/// How often each event went from what to what. Looked at whenever the run stands still: at every
/// switch, timer, opening and closing.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// By the vCPU whose LBR event it is.
    vcpus: Vec<Track>,
    /// By its number in the scene, and by processor.
    events: BTreeMap<(usize, usize), Track>,
}

#[derive(Debug)]
struct Track {
    last: State,
    changes: BTreeMap<(&'static str, &'static str), u64>,
}

impl Default for Track {
    fn default() -> Self {
        Self {
            last: (None, "none"),
            changes: BTreeMap::new(),
        }
    }
}

impl Track {
    fn see(&mut self, state: State) {
        if state != self.last {
            let change = (self.last.1, state.1);
            *self.changes.entry(change).or_default() += 1;
            self.last = state;
        }
    }

    fn text(&self) -> BTreeMap<String, u64> {
        let changes = self.changes.iter();
        changes
            .map(|((from, to), count)| (format!("{from} > {to}"), *count))
            .collect()
    }
}

const fn name(state: EventState) -> &'static str {
    match state {
        EventState::Dead => "dead",
        EventState::Exit => "exit",
        EventState::Error => "error",
        EventState::Off => "off",
        EventState::Inactive => "inactive",
        EventState::Active => "active",
    }
}

impl Watch {
    /// Looks at every event.
    pub(super) fn look(&mut self, run: &Simulation<'_>) {
        let host = run.machine().host();
        let state = |id: Option<EventId>| match id.and_then(|id| host.perf().event(id)) {
            Some(event) => (id, name(event.state())),
            None => (None, "none"),
        };
        self.vcpus.resize_with(host.vcpus().len(), Track::default);
        for (n, track) in self.vcpus.iter_mut().enumerate() {
            track.see(state(host.vcpu(VcpuId(n as u16)).lbr.event));
        }
        for (&(n, _), track) in &mut self.events {
            if !run.events().contains_key(&n) {
                track.see((None, "closed"));
            }
        }
        for (&n, opened) in run.events() {
            for (cpu, id) in opened.iter().enumerate() {
                let track = self.events.entry((n, cpu)).or_default();
                track.see(state(Some(*id)));
            }
        }
    }

    /// A vCPU's LBR event.
    pub(super) fn vcpu(&self, n: usize) -> BTreeMap<String, u64> {
        self.vcpus.get(n).map(Track::text).unwrap_or_default()
    }

    /// Events of the scene: number, which of those opened for it, changes.
    pub(super) fn events(
        &self,
    ) -> impl Iterator<Item = (usize, usize, BTreeMap<String, u64>)> + '_ {
        let events = self.events.iter();
        events.map(|(&(n, cpu), track)| (n, cpu, track.text()))
    }
}
