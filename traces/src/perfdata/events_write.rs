//! The events of a written file: their attributes, and the ids of their instances.

use std::collections::BTreeMap;

use super::abi::{AttrFlags, ReadFormat, SampleType};
use super::attr::{ATTR_SIZE, EventAttr};
use super::error::PerfWriteError;
use super::info::{EventInfo, FileInfo, SampleRecord};

/// The attributes that the events have when perf opens them, the sampled one first.
///
/// A group is that of `perf record -e '{...}:S'` (`evsel__config`, `evsel__config_leader_sampling`
/// of perf 6.1): all sample types are the leader's, so that `ID` finds the event and `IDENTIFIER` is
/// not needed; nothing is inherited; members have no period, and mappings and tasks are the leader's.
/// `PERF_FORMAT_LOST` is left out, as on a kernel before 6.0: older perfs would misread the counts.
pub(super) fn attrs_of(info: &FileInfo) -> Vec<EventAttr> {
    let grouped = !info.group.is_empty();
    let mut sample_type =
        SampleType::IP | SampleType::TID | SampleType::TIME | SampleType::CPU | SampleType::PERIOD;
    if info.callchain {
        sample_type |= SampleType::CALLCHAIN;
    }
    if !info.branch_sample_type.is_empty() {
        sample_type |= SampleType::BRANCH_STACK;
    }
    let mut read_format = ReadFormat::default();
    if grouped {
        sample_type |= SampleType::READ | SampleType::ID;
        read_format = ReadFormat::ID | ReadFormat::GROUP;
    }
    let attr = |event: &EventInfo, flags: AttrFlags| EventAttr {
        event_type: event.event_type,
        size: ATTR_SIZE as u32,
        config: event.config,
        sample_type,
        read_format,
        flags: AttrFlags(flags.0 | privileges(event).0 | u64::from(event.precise_ip & 3) << 15)
            | AttrFlags::SAMPLE_ID_ALL
            | AttrFlags::EXCLUDE_GUEST,
        branch_sample_type: info.branch_sample_type,
        ..EventAttr::default()
    };
    let mut flags = AttrFlags::DISABLED
        | AttrFlags::MMAP
        | AttrFlags::COMM
        | AttrFlags::TASK
        | AttrFlags::MMAP2
        | AttrFlags::COMM_EXEC;
    if !grouped {
        flags |= AttrFlags::INHERIT;
    }
    if info.build_id_in_mmap {
        flags |= AttrFlags::BUILD_ID;
    }
    if info.event.frequency.is_some() {
        flags |= AttrFlags::FREQ;
    }
    let leader = EventAttr {
        sample_period: info.event.frequency.unwrap_or(info.event.period),
        ..attr(&info.event, flags)
    };
    let members = info
        .group
        .iter()
        .map(|event| attr(event, AttrFlags::default()));
    std::iter::once(leader).chain(members).collect()
}

/// The privilege levels that an event leaves out.
fn privileges(event: &EventInfo) -> AttrFlags {
    let mut flags = AttrFlags::default();
    // perf's modifiers u and k leave out the hypervisor too; without one nothing is left out.
    if event.exclude_kernel || event.exclude_user {
        flags |= AttrFlags::EXCLUDE_HV;
    }
    if event.exclude_kernel {
        flags |= AttrFlags::EXCLUDE_KERNEL;
    }
    if event.exclude_user {
        flags |= AttrFlags::EXCLUDE_USER;
    }
    flags
}

/// The instances of a group and what each has counted. perf takes the difference of two counts with
/// one id for what was counted in between, so every task or CPU has ids of its own.
#[derive(Debug)]
pub(super) struct Instances {
    /// Events of the group with its leader; 0 when the event is no group's.
    events: usize,
    counts: BTreeMap<u32, Vec<u64>>,
}

impl Instances {
    /// Of an event with `members` other ones.
    pub(super) fn new(members: usize) -> Self {
        Self {
            events: if members == 0 { 0 } else { members + 1 },
            counts: BTreeMap::new(),
        }
    }

    /// Checks the counts of a sample, and keeps them to check the next.
    pub(super) fn count(&mut self, sample: &SampleRecord<'_>) -> Result<(), PerfWriteError> {
        if sample.counts.len() != self.events {
            return Err(PerfWriteError::GroupSize {
                counts: sample.counts.len(),
                events: self.events,
            });
        }
        if self.events == 0 {
            return Ok(());
        }
        let known = self
            .counts
            .entry(sample.instance)
            .or_insert_with(|| vec![0; self.events]);
        for (event, (before, &count)) in known.iter().zip(sample.counts).enumerate() {
            if count < *before {
                return Err(PerfWriteError::CountFell {
                    event,
                    before: *before,
                    count,
                });
            }
        }
        known.copy_from_slice(sample.counts);
        Ok(())
    }

    /// The id of an event's instance. 0 is no id.
    pub(super) const fn id(&self, instance: u32, event: usize) -> u64 {
        1 + instance as u64 * self.events as u64 + event as u64
    }

    /// The ids of an event, of all instances that had a sample.
    pub(super) fn ids(&self, event: usize) -> impl ExactSizeIterator<Item = u64> {
        self.counts
            .keys()
            .map(move |&instance| self.id(instance, event))
    }
}
