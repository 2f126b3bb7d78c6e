//! Encodes the header features of a written file.

use super::abi::{BranchSampleType, Feature, NAME_ALIGN, misc};
use super::attr::{ATTR_SIZE, EventAttr};
use super::events_write::Instances;
use super::info::FileInfo;

/// Build-id of a mapped file.
#[derive(Debug)]
pub(super) struct KnownBuildId {
    pub(super) path: Vec<u8>,
    pub(super) kernel: bool,
    pub(super) id: Vec<u8>,
}

/// The sections in the order of their bits, which is their order in the file.
pub(super) fn sections(
    info: &FileInfo,
    attrs: &[EventAttr],
    instances: &Instances,
    build_ids: &[KnownBuildId],
    sample_time: Option<(u64, u64)>,
) -> Vec<(Feature, Vec<u8>)> {
    let mut out = Vec::new();
    if !build_ids.is_empty() {
        out.push((
            Feature::BUILD_ID,
            build_ids.iter().flat_map(build_id_entry).collect(),
        ));
    }
    text(&mut out, Feature::HOSTNAME, &info.hostname);
    text(&mut out, Feature::OSRELEASE, &info.os_release);
    text(&mut out, Feature::VERSION, &info.version);
    text(&mut out, Feature::ARCH, "x86_64");
    let cpus = info.nr_cpus.to_le_bytes();
    out.push((Feature::NRCPUS, [cpus, cpus].concat()));
    text(&mut out, Feature::CPUDESC, &info.cpu_desc);
    text(&mut out, Feature::CPUID, &info.cpuid);
    if !info.cmdline.is_empty() {
        let mut bytes = (info.cmdline.len() as u32).to_le_bytes().to_vec();
        for argument in &info.cmdline {
            string(&mut bytes, argument);
        }
        out.push((Feature::CMDLINE, bytes));
    }
    out.push((Feature::EVENT_DESC, event_desc(info, attrs, instances)));
    // With this bit perf report opens in branch mode and shows no call graph.
    if !info.branch_sample_type.is_empty()
        && !info
            .branch_sample_type
            .contains(BranchSampleType::CALL_STACK)
    {
        out.push((Feature::BRANCH_STACK, Vec::new()));
    }
    if !info.group.is_empty() {
        out.push((Feature::GROUP_DESC, group_desc(attrs.len() as u32)));
    }
    if let Some((first, last)) = sample_time {
        out.push((
            Feature::SAMPLE_TIME,
            [first.to_le_bytes(), last.to_le_bytes()].concat(),
        ));
    }
    if let Some(depth) = info.lbr_depth {
        let mut bytes = 1u32.to_le_bytes().to_vec();
        string(&mut bytes, "branches");
        string(&mut bytes, &depth.to_string());
        out.push((Feature::CPU_PMU_CAPS, bytes));
    }
    out
}

fn text(out: &mut Vec<(Feature, Vec<u8>)>, feature: Feature, value: &str) {
    if !value.is_empty() {
        let mut bytes = Vec::new();
        string(&mut bytes, value);
        out.push((feature, bytes));
    }
}

/// Length with padding, the bytes, zeros.
fn string(out: &mut Vec<u8>, value: &str) {
    let padded = (value.len() + 1).next_multiple_of(NAME_ALIGN);
    out.extend_from_slice(&(padded as u32).to_le_bytes());
    out.extend_from_slice(value.as_bytes());
    out.resize(out.len() + padded - value.len(), 0);
}

fn event_desc(info: &FileInfo, attrs: &[EventAttr], instances: &Instances) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&(attrs.len() as u32).to_le_bytes());
    out.extend_from_slice(&(ATTR_SIZE as u32).to_le_bytes());
    let events = std::iter::once(&info.event).chain(&info.group);
    for (number, (attr, event)) in attrs.iter().zip(events).enumerate() {
        let ids = instances.ids(number);
        out.extend_from_slice(&attr.encode());
        out.extend_from_slice(&(ids.len() as u32).to_le_bytes());
        string(&mut out, &event.name);
        out.extend(ids.flat_map(u64::to_le_bytes));
    }
    out
}

/// One group of all events, without a name: perf then gives it this one.
fn group_desc(events: u32) -> Vec<u8> {
    let mut out = 1u32.to_le_bytes().to_vec();
    string(&mut out, "{anon_group}");
    out.extend_from_slice(&0u32.to_le_bytes());
    out.extend_from_slice(&events.to_le_bytes());
    out
}

/// `struct perf_record_header_build_id`.
fn build_id_entry(entry: &KnownBuildId) -> Vec<u8> {
    let name = (entry.path.len() + 1).next_multiple_of(NAME_ALIGN);
    let size = 8 + 4 + 24 + name;
    let mode = if entry.kernel {
        misc::KERNEL
    } else {
        misc::USER
    };
    let mut out = Vec::with_capacity(size);
    out.extend_from_slice(&0u32.to_le_bytes());
    out.extend_from_slice(&(mode | misc::BUILD_ID_SIZE).to_le_bytes());
    out.extend_from_slice(&(size as u16).to_le_bytes());
    out.extend_from_slice(&(-1i32).to_le_bytes());
    out.extend_from_slice(&entry.id);
    out.resize(32, 0);
    out.push(entry.id.len() as u8);
    out.resize(36, 0);
    out.extend_from_slice(&entry.path);
    out.resize(size, 0);
    out
}
