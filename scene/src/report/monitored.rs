//! What user space did to vCPUs.

use std::fmt::Write as _;

use serde::Serialize;

use crate::{CarriedRecords, Carry, MonitorAct, Outcome, Scene};

/// Registers that are named one by one.
const NAMED: usize = 4;

/// A request of the scene and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MonitorRow {
    /// When it was done, in microseconds; `None`: the vCPU did not run after it was asked for.
    pub at_us: Option<u64>,
    /// The vCPU.
    pub vcpu: usize,
    /// What was done.
    pub does: MonitorAct,
    /// Which MSRs.
    pub carry: Carry,
    /// MSRs that were read.
    pub read: usize,
    /// MSRs that were written.
    pub written: usize,
    /// MSRs that could not be read or written.
    pub refused: Vec<String>,
    /// What became of the guest's records, of a migration.
    pub records: Option<CarriedRecords>,
    /// What became of the other registers of its LBR that were not 0.
    pub controls: Vec<(String, String)>,
}

impl MonitorRow {
    /// In the order in which they were done; those that were not, behind them.
    pub(super) fn all(scene: &Scene, outcome: &Outcome) -> Vec<Self> {
        let row = |request: usize| {
            let spec = scene.monitor[request];
            Self {
                at_us: None,
                vcpu: spec.vcpu,
                does: spec.does,
                carry: spec.carry,
                read: 0,
                written: 0,
                refused: Vec::new(),
                records: None,
                controls: Vec::new(),
            }
        };
        let done = outcome.monitored.iter().map(|tally| Self {
            at_us: Some(tally.at_us),
            read: tally.read,
            written: tally.written,
            refused: tally.refused.clone(),
            records: tally.records,
            controls: tally.controls.clone(),
            ..row(tally.request)
        });
        let was_done = |n: &usize| outcome.monitored.iter().any(|tally| tally.request == *n);
        let not_done = (0..scene.monitor.len()).filter(|n| !was_done(n)).map(row);
        done.chain(not_done).collect()
    }

    /// A line.
    pub(super) fn text(&self) -> String {
        let what = match self.does {
            MonitorAct::GetMsrs => "get-msrs",
            MonitorAct::SetMsrs => "set-msrs",
            MonitorAct::Migrate => "migrate",
        };
        let which = match self.carry {
            Carry::Listed => "listed",
            Carry::Named => "named",
        };
        let mut line = format!("vcpu{}: {what}, {which}", self.vcpu);
        let Some(at) = self.at_us else {
            return line + ": not done, the vCPU did not run any more";
        };
        // Writing to a String does not fail.
        let _ = write!(
            line,
            " at {at} us: {} MSRs read, {} written",
            self.read, self.written
        );
        if !self.refused.is_empty() {
            let named: Vec<&str> = self
                .refused
                .iter()
                .take(NAMED)
                .map(String::as_str)
                .collect();
            let more = self.refused.len() - named.len();
            let _ = write!(
                line,
                ", {} refused: {}",
                self.refused.len(),
                named.join(", ")
            );
            if more != 0 {
                let _ = write!(line, " and {more} more");
            }
        }
        if let Some(records) = self.records {
            let _ = write!(
                line,
                "; of {} records {} equal, {} lost, {} foreign, {} refused",
                records.held, records.equal, records.lost, records.foreign, records.refused
            );
        }
        for (register, became) in &self.controls {
            let _ = write!(line, "; {register} {became}");
        }
        line
    }
}
