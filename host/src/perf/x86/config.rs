//! What becomes of attributes when an event is opened: `intel_pmu_hw_config`, `validate_event`,
//! `validate_group`.

use vlbr_traces::perfdata::BranchSampleType as B;

use super::assign::assign;
use super::constraints::{Constraint, Share};
use crate::perf::event::{Branch, HwEvent};
use crate::perf::lbr::SharedSlot;
use crate::perf::{
    Creator, Errno, EventAttr, EventId, EventKind, EventState, GuestLbr, HardwareFilter, LbrFilter,
    Perf,
};

/// Branches that PEBS's repair of the address can share: `precise_br_compat`.
fn repairs(attr: &EventAttr, filter: B) -> bool {
    let user = filter.contains(B::USER) != attr.exclude_user;
    let kernel = filter.contains(B::KERNEL) != attr.exclude_kernel;
    filter.0 & B::ANY.0 != 0 && user && kernel
}

impl Perf {
    /// `x86_pmu_hw_config` and `intel_pmu_hw_config`: the attributes as they stand afterwards, and
    /// what the hardware needs.
    pub(crate) fn hw_config(
        &self,
        mut attr: EventAttr,
        creator: Creator,
    ) -> Result<(EventAttr, HwEvent), Errno> {
        let virtual_lbr = attr.kind == EventKind::VirtualLbr;
        if attr.precise_ip != 0 && attr.kind != EventKind::Software {
            let most = match self.pmu.pebs {
                0 => 0,
                _ if self.model.nr != 0 || self.pmu.pebs_format >= 2 => 2,
                _ => 1,
            };
            if attr.precise_ip > most + u8::from(self.pmu.pebs_format >= 2) {
                return Err(Errno::EOPNOTSUPP);
            }
            if !attr.is_sampling() || virtual_lbr {
                return Err(Errno::EINVAL);
            }
            if attr.precise_ip > 1 && self.pmu.pebs_format < 2 {
                match attr.branch_sample_type {
                    Some(filter) if !repairs(&attr, filter) => return Err(Errno::EOPNOTSUPP),
                    Some(_) => {}
                    None => {
                        let mut filter = B::ANY;
                        if !attr.exclude_user {
                            filter |= B::USER;
                        }
                        if !attr.exclude_kernel {
                            filter |= B::KERNEL;
                        }
                        attr.branch_sample_type = Some(filter);
                    }
                }
            }
        }
        let branch = match attr.branch_sample_type {
            Some(filter) if attr.kind != EventKind::Software => Some(self.filter(filter)?),
            _ => None,
        };
        let v8 = self.behaviour.guest_lbr == GuestLbr::V8;
        let no_counter = v8 && attr.exclude_host && creator.is_kernel() && branch.is_some();
        let branch = branch.map(|mut branch| {
            if no_counter {
                branch.config = branch.config.map(|config| config | 1 << 62);
            }
            branch
        });
        let longest = self.pmu.max_period();
        let sample_period = match attr.period {
            0 => longest,
            period => period,
        };
        let hw = HwEvent {
            sample_period,
            last_period: sample_period,
            period_left: sample_period as i64,
            // The flag comes with the constraint, which validation looks up first.
            lbr_select: virtual_lbr && self.behaviour.select_flag_propagates,
            no_counter,
            branch,
            ..HwEvent::default()
        };
        Ok((attr, hw))
    }

    /// `intel_pmu_setup_lbr_filter`.
    fn filter(&self, filter: B) -> Result<Branch, Errno> {
        if self.model.nr == 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if filter.contains(B::CALL_STACK) && !self.model.call_stack {
            return Err(Errno::EOPNOTSUPP);
        }
        if filter.contains(B::COUNTERS) && !self.model.counters {
            return Err(Errno::EINVAL);
        }
        let made = LbrFilter::new(&self.model.profile, filter)?;
        let without_info = filter.contains(B::NO_CYCLES | B::NO_FLAGS) && self.model.info.is_some();
        let config = match made.hardware() {
            HardwareFilter::None => None,
            HardwareFilter::Select(_) if !self.model.select_map => None,
            HardwareFilter::Select(select) => {
                Some(select.bits() | u64::from(without_info && !self.model.arch) << 63)
            }
            HardwareFilter::Ctl(ctl) => Some(ctl.bits() & !1),
        };
        Ok(Branch {
            br_sel: made.br_sel(),
            config,
            alloc: false,
        })
    }

    /// `validate_event`, `validate_group`: whether the event alone, or its group with it, fits on
    /// an empty PMU. Siblings that are off are not counted, as in `collect_events`.
    pub(crate) fn validate(
        &self,
        attr: &EventAttr,
        hw: &HwEvent,
        leader: Option<EventId>,
    ) -> Result<(), Errno> {
        if attr.kind == EventKind::Software {
            return Ok(());
        }
        let mut members = vec![(*attr, hw.clone())];
        if let Some(leader) = leader {
            for id in self.members(leader) {
                let event = self.event_ref(id);
                let counted = id == leader || event.state > EventState::Off;
                if counted && !event.is_software() {
                    members.push((event.attr, event.hw.clone()));
                }
            }
            // The new event is collected last.
            members.rotate_left(1);
        }
        if members.len() > self.collection_limit() {
            return Err(Errno::EINVAL);
        }
        let mut slot = SharedSlot::default();
        let constraints: Vec<Constraint> = members
            .iter()
            .map(|(attr, hw)| {
                let share = Share {
                    config: hw.branch.and_then(|branch| branch.config),
                    alloc: false,
                };
                self.constraint(attr, hw.no_counter, share, &mut slot, true)
                    .0
            })
            .collect();
        assign(&constraints).map(|_| ()).ok_or(Errno::EINVAL)
    }
}
