//! Header features that are understood. The others stay readable as bytes.

use super::abi::{Feature, misc};
use super::attr::EventAttr;
use super::cursor::{Cursor, Cut, until_zero};
use super::error::PerfReadError;
use super::read::text;

/// A build-id of the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildIdEntry {
    /// `misc` of the entry: the CPU mode tells kernel from user files.
    pub misc: u16,
    /// Process, -1 for every one.
    pub pid: i32,
    /// Build-id; 20 bytes when the entry does not state its length.
    pub id: Vec<u8>,
    /// Path.
    pub path: Vec<u8>,
}

/// An event of EVENT_DESC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventDescription {
    /// Attribute.
    pub attr: EventAttr,
    /// Name.
    pub name: String,
    /// Ids.
    pub ids: Vec<u64>,
}

/// A group of GROUP_DESC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// Name, `{anon_group}` for a group without one.
    pub name: String,
    /// Index of its first event among the events of the file.
    pub leader: u32,
    /// Events, the leader included.
    pub members: u32,
}

/// Settings of COMPRESSED records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// Version, 1.
    pub version: u32,
    /// Method, 1 for zstd.
    pub method: u32,
    /// Level.
    pub level: u32,
    /// Ratio reached.
    pub ratio: u32,
    /// Size of the ring buffers.
    pub mmap_len: u32,
}

/// The header features that are understood; `None` or empty when the file lacks one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Build-ids.
    pub build_ids: Vec<BuildIdEntry>,
    /// Host name.
    pub hostname: Option<String>,
    /// Kernel release.
    pub os_release: Option<String>,
    /// Version of the writer.
    pub version: Option<String>,
    /// Architecture.
    pub arch: Option<String>,
    /// CPUs available and online.
    pub nr_cpus: Option<(u32, u32)>,
    /// Name of the CPU.
    pub cpu_desc: Option<String>,
    /// Vendor, family, model, stepping.
    pub cpuid: Option<String>,
    /// Memory in kB.
    pub total_mem: Option<u64>,
    /// Command line.
    pub cmdline: Vec<String>,
    /// Events with names.
    pub events: Vec<EventDescription>,
    /// Samples have branch stacks.
    pub branch_stack: bool,
    /// Groups of events.
    pub groups: Vec<GroupDescription>,
    /// Numbers and names of the PMUs.
    pub pmu_mappings: Vec<(u32, String)>,
    /// Time of the first and of the last sample.
    pub sample_time: Option<(u64, u64)>,
    /// Clock of the timestamps.
    pub clockid: Option<u64>,
    /// Compression.
    pub compression: Option<Compression>,
    /// Abilities of the CPU's PMU.
    pub cpu_pmu_caps: Vec<(String, String)>,
}

impl Features {
    /// Whether [`Features`] has a field for the feature.
    #[must_use]
    pub const fn knows(feature: Feature) -> bool {
        matches!(
            feature,
            Feature::BUILD_ID
                | Feature::HOSTNAME
                | Feature::OSRELEASE
                | Feature::VERSION
                | Feature::ARCH
                | Feature::NRCPUS
                | Feature::CPUDESC
                | Feature::CPUID
                | Feature::TOTAL_MEM
                | Feature::CMDLINE
                | Feature::EVENT_DESC
                | Feature::BRANCH_STACK
                | Feature::GROUP_DESC
                | Feature::PMU_MAPPINGS
                | Feature::SAMPLE_TIME
                | Feature::CLOCKID
                | Feature::COMPRESSED
                | Feature::CPU_PMU_CAPS
        )
    }

    pub(super) fn decode(
        &mut self,
        feature: Feature,
        bytes: &[u8],
        offset: u64,
    ) -> Result<(), PerfReadError> {
        self.decode_fields(feature, &mut Cursor::new(bytes))
            .map_err(|Cut(what)| PerfReadError::Feature {
                offset,
                feature,
                what,
            })
    }

    fn decode_fields(&mut self, feature: Feature, c: &mut Cursor<'_>) -> Result<(), Cut> {
        match feature {
            Feature::BUILD_ID => self.build_ids = build_ids(c)?,
            Feature::HOSTNAME => self.hostname = Some(string(c)?),
            Feature::OSRELEASE => self.os_release = Some(string(c)?),
            Feature::VERSION => self.version = Some(string(c)?),
            Feature::ARCH => self.arch = Some(string(c)?),
            Feature::NRCPUS => {
                self.nr_cpus = Some((c.u32("the CPUs available")?, c.u32("the CPUs online")?));
            }
            Feature::CPUDESC => self.cpu_desc = Some(string(c)?),
            Feature::CPUID => self.cpuid = Some(string(c)?),
            Feature::TOTAL_MEM => self.total_mem = Some(c.u64("the size")?),
            Feature::CMDLINE => self.cmdline = list(c, string)?,
            Feature::EVENT_DESC => self.events = event_desc(c)?,
            Feature::BRANCH_STACK => self.branch_stack = true,
            Feature::GROUP_DESC => self.groups = list(c, group)?,
            Feature::PMU_MAPPINGS => {
                self.pmu_mappings = list(c, |c| Ok((c.u32("a PMU's number")?, string(c)?)))?;
            }
            Feature::SAMPLE_TIME => {
                self.sample_time = Some((c.u64("the first time")?, c.u64("the last time")?));
            }
            Feature::CLOCKID => self.clockid = Some(c.u64("the clock")?),
            Feature::COMPRESSED => {
                const WHAT: &str = "the compression";
                self.compression = Some(Compression {
                    version: c.u32(WHAT)?,
                    method: c.u32(WHAT)?,
                    level: c.u32(WHAT)?,
                    ratio: c.u32(WHAT)?,
                    mmap_len: c.u32(WHAT)?,
                });
            }
            Feature::CPU_PMU_CAPS => {
                self.cpu_pmu_caps = list(c, |c| Ok((string(c)?, string(c)?)))?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// A length with padding, and a zero-terminated string.
fn string(c: &mut Cursor<'_>) -> Result<String, Cut> {
    let length = c.u32("a string's length")?;
    c.bytes(length as usize, "a string").map(text)
}

/// A count and so many items, each of which takes bytes: the count alone allocates nothing.
fn list<'a, T>(
    c: &mut Cursor<'a>,
    mut item: impl FnMut(&mut Cursor<'a>) -> Result<T, Cut>,
) -> Result<Vec<T>, Cut> {
    let count = c.u32("a count")?;
    let mut out = Vec::new();
    for _ in 0..count {
        out.push(item(c)?);
    }
    Ok(out)
}

fn event_desc(c: &mut Cursor<'_>) -> Result<Vec<EventDescription>, Cut> {
    let count = c.u32("the number of events")?;
    let size = c.u32("the size of an attribute")? as usize;
    let mut out = Vec::new();
    for _ in 0..count {
        let attr = EventAttr::decode(c.bytes(size, "an attribute")?);
        let ids = c.u32("the number of ids")?;
        let name = string(c)?;
        out.push(EventDescription {
            attr,
            name,
            ids: c.words(u64::from(ids), "the ids")?,
        });
    }
    Ok(out)
}

fn group(c: &mut Cursor<'_>) -> Result<GroupDescription, Cut> {
    Ok(GroupDescription {
        name: string(c)?,
        leader: c.u32("a group's leader")?,
        members: c.u32("the number of a group's events")?,
    })
}

fn build_ids(c: &mut Cursor<'_>) -> Result<Vec<BuildIdEntry>, Cut> {
    const FIXED: usize = 36;
    let mut out = Vec::new();
    while !c.rest().is_empty() {
        c.u32("a build-id's type")?;
        let misc = c.u16("a build-id's misc")?;
        let size = usize::from(c.u16("a build-id's size")?);
        let body = c.bytes(
            size.checked_sub(8).ok_or(Cut("a build-id's size"))?,
            "a build-id",
        )?;
        let (fixed, path) = body.split_at_checked(FIXED - 8).ok_or(Cut("a build-id"))?;
        let mut fields = Cursor::new(fixed);
        let pid = fields.u32("a build-id's process")? as i32;
        let id = fields.array::<24>("a build-id")?;
        let stated = if misc & misc::BUILD_ID_SIZE != 0 {
            usize::from(id[20])
        } else {
            20
        };
        let id = id[..20]
            .get(..stated)
            .ok_or(Cut("a build-id's length"))?
            .to_vec();
        out.push(BuildIdEntry {
            misc,
            pid,
            id,
            path: until_zero(path).to_vec(),
        });
    }
    Ok(out)
}
