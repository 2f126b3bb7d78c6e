//! Groups of events and frequencies: what is written, as the reader has it back.

use std::io::Cursor;
use std::path::Path;

use vlbr_traces::perfdata::{
    AttrFlags, CounterValue, EventInfo, Features, FileInfo, GroupDescription, Mapping,
    PerfDataWriter, PerfFile, PerfWriteError, ReadFormat, Record, RecordType, SampleRecord,
    SampleType,
};

use super::files::{TASK, entries, read_all, sample};

/// The counts of one sample, by instance: `(instance, [leader, members...])`.
type Counts = (u32, [u64; 3]);

const COUNTS: [Counts; 4] = [
    (1, [100, 40, 0]),
    (0, [100, 41, 7]),
    (1, [200, 90, 0]),
    (0, [201, 41, 9]),
];

fn group() -> FileInfo {
    let mut info = FileInfo::new(EventInfo::branches(100));
    let kernel = EventInfo {
        exclude_kernel: false,
        ..EventInfo::near_taken(0x20c4, 0)
    };
    info.group = vec![EventInfo::instructions(0), kernel];
    info
}

fn written(folder: &Path, info: FileInfo, counts: &[Counts]) -> Vec<u8> {
    let path = folder.join("perf.data");
    let mut writer = PerfDataWriter::create(&path, info).expect("created");
    writer.comm(TASK, "name", true, 1).expect("written");
    writer
        .mapping(&Mapping::user(10, 0x1000, 0x1000, 0, "/x"), 2)
        .expect("written");
    for (number, (instance, counts)) in counts.iter().enumerate() {
        writer
            .sample(&SampleRecord {
                counts,
                instance: *instance,
                ..sample(number as u64, &entries(2))
            })
            .expect("written");
    }
    writer.exit(TASK, TASK, 3).expect("written");
    let written = writer.finish().expect("finished");
    let bytes = std::fs::read(&path).expect("read");
    assert_eq!(written.bytes, bytes.len() as u64);
    bytes
}

fn features(bytes: &[u8]) -> Features {
    let mut file = PerfFile::new(Cursor::new(bytes)).expect("opened");
    file.features().expect("read")
}

#[test]
fn each_event_of_a_group_has_an_attribute_as_perf_record_opens_it() {
    let folder = tempfile::tempdir().expect("folder");
    let bytes = written(folder.path(), group(), &COUNTS);
    let file = PerfFile::new(Cursor::new(&bytes)).expect("opened");
    let events = &file.metadata().events;
    let programmed: Vec<_> = events
        .iter()
        .map(|event| {
            (
                event.attr.event_type,
                event.attr.config,
                event.attr.sample_period,
            )
        })
        .collect();
    assert_eq!(programmed, [(0, 4, 100), (0, 1, 0), (4, 0x20c4, 0)]);
    for event in events {
        let wanted = SampleType::READ | SampleType::ID | SampleType::PERIOD;
        assert!(event.attr.sample_type.contains(wanted));
        assert_eq!(event.attr.sample_type, events[0].attr.sample_type);
        assert_eq!(event.attr.read_format, ReadFormat::GROUP | ReadFormat::ID);
        assert!(event.attr.flags.contains(AttrFlags::SAMPLE_ID_ALL));
        assert!(!event.attr.flags.contains(AttrFlags::INHERIT));
    }
    let of_the_leader = AttrFlags::DISABLED | AttrFlags::MMAP2 | AttrFlags::COMM | AttrFlags::TASK;
    assert!(events[0].attr.flags.contains(of_the_leader));
    assert_eq!(events[1].attr.flags.0 & of_the_leader.0, 0);
    let user: Vec<_> = events
        .iter()
        .map(|event| event.attr.flags.contains(AttrFlags::EXCLUDE_KERNEL))
        .collect();
    assert_eq!(user, [true, true, false]);
}

#[test]
fn the_header_names_the_group_its_events_and_the_ids_of_every_instance() {
    let folder = tempfile::tempdir().expect("folder");
    let bytes = written(folder.path(), group(), &COUNTS);
    let features = features(&bytes);
    let whole = GroupDescription {
        name: "{anon_group}".into(),
        leader: 0,
        members: 3,
    };
    assert_eq!(features.groups, [whole]);
    let file = PerfFile::new(Cursor::new(&bytes)).expect("opened");
    let names = ["branches", "instructions", "br_inst_retired.near_taken"];
    let mut all = Vec::new();
    for ((described, event), name) in features
        .events
        .iter()
        .zip(&file.metadata().events)
        .zip(names)
    {
        assert_eq!(described.name, name);
        assert_eq!(described.attr, event.attr);
        assert_eq!(described.ids, event.ids);
        assert_eq!(event.ids.len(), 2, "two tasks had samples");
        all.extend(&event.ids);
    }
    assert_eq!(features.events.len(), names.len());
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 6, "no two have one id");
    assert!(!all.contains(&0), "0 is the id of no event");
}

#[test]
fn samples_of_a_group_hold_every_count_with_the_id_of_its_task() {
    let folder = tempfile::tempdir().expect("folder");
    let bytes = written(folder.path(), group(), &COUNTS);
    let mut file = PerfFile::new(Cursor::new(&bytes)).expect("opened");
    // The ids of an event are in the order of the instances.
    let ids: Vec<Vec<u64>> = file
        .metadata()
        .events
        .iter()
        .map(|e| e.ids.clone())
        .collect();
    let mut records = file.records().expect("records");
    let (mut expected, mut others) = (COUNTS.iter().enumerate(), 0);
    while let Some(raw) = records.next_record().expect("record") {
        let Record::Sample(read) = raw.parse().expect("parsed") else {
            others += 1;
            let trailer = raw.sample_id().expect("long enough").expect("there is one");
            assert_eq!(trailer.id, Some(0), "{:?}", raw.kind);
            assert_eq!(trailer.cpu, Some(0));
            if raw.kind == RecordType::EXIT {
                assert_eq!(trailer.time, Some(3));
            }
            continue;
        };
        let (number, (instance, counts)) = expected.next().expect("no more samples");
        let plain = sample(number as u64, &[]);
        assert_eq!(read.id, Some(ids[0][*instance as usize]));
        assert_eq!((read.ip, read.time), (Some(plain.ip), Some(plain.time_ns)));
        assert_eq!((read.cpu, read.period), (Some(0), Some(1)));
        let values = read.read.expect("counts");
        assert_eq!((values.time_enabled, values.time_running), (None, None));
        let counters: Vec<_> = counts
            .iter()
            .zip(&ids)
            .map(|(&value, ids)| CounterValue {
                value,
                id: Some(ids[*instance as usize]),
                lost: None,
            })
            .collect();
        assert_eq!(values.counters, counters);
        assert_eq!(read.branch_stack.expect("a stack").entries, entries(2));
        assert!(read.rest.is_empty());
    }
    assert_eq!((expected.next(), others), (None, 3));
}

#[test]
fn the_same_group_gives_the_same_bytes_and_no_cut_of_them_panics() {
    let folder = tempfile::tempdir().expect("folder");
    let bytes = written(folder.path(), group(), &COUNTS);
    assert_eq!(written(folder.path(), group(), &COUNTS), bytes);
    assert_eq!(read_all(&bytes).expect("whole"), COUNTS.len() + 3);
    for end in 0..bytes.len() {
        assert!(read_all(&bytes[..end]).is_err() || features_are_cut(&bytes[..end]));
    }
}

/// Whether only what stands behind the records is missing.
fn features_are_cut(bytes: &[u8]) -> bool {
    PerfFile::new(Cursor::new(bytes)).is_ok_and(|mut file| file.features().is_err())
}

#[test]
fn a_group_without_a_sample_has_events_without_ids() {
    let folder = tempfile::tempdir().expect("folder");
    let bytes = written(folder.path(), group(), &[]);
    let file = PerfFile::new(Cursor::new(&bytes)).expect("opened");
    assert_eq!(file.metadata().events.len(), 3);
    assert!(file.metadata().events.iter().all(|e| e.ids.is_empty()));
    assert_eq!(features(&bytes).groups[0].members, 3);
}

#[test]
fn a_frequency_stands_in_place_of_the_period() {
    let folder = tempfile::tempdir().expect("folder");
    for members in [0, 2] {
        let mut info = group();
        info.group.truncate(members);
        info.event.frequency = Some(4000);
        let path = folder.path().join("perf.data");
        let writer = PerfDataWriter::create(&path, info).expect("created");
        writer.finish().expect("finished");
        let file = PerfFile::open(&path).expect("opened");
        let mut events = file.metadata().events.iter().map(|event| &event.attr);
        let leader = events.next().expect("the event");
        assert!(leader.flags.contains(AttrFlags::FREQ));
        assert_eq!(leader.sample_period, 4000);
        assert!(leader.sample_type.contains(SampleType::PERIOD));
        assert!(
            events.all(|attr| attr.sample_period == 0 && !attr.flags.contains(AttrFlags::FREQ))
        );
    }
}

#[test]
fn one_event_alone_has_no_ids_no_counts_and_no_group() {
    let folder = tempfile::tempdir().expect("folder");
    let bytes = super::files::regular(folder.path(), 3);
    let file = PerfFile::new(Cursor::new(&bytes)).expect("opened");
    let [event] = &file.metadata().events[..] else {
        panic!("one event");
    };
    assert!(!event.attr.sample_type.contains(SampleType::READ));
    assert!(!event.attr.sample_type.contains(SampleType::ID));
    assert_eq!(event.attr.read_format, ReadFormat::default());
    assert!(event.attr.flags.contains(AttrFlags::INHERIT));
    assert!(!event.attr.flags.contains(AttrFlags::FREQ));
    assert!(event.ids.is_empty());
    assert!(features(&bytes).groups.is_empty());
}

#[test]
fn counts_that_are_not_those_of_the_group_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("perf.data");
    let refused = |info: FileInfo, counts: &[u64]| {
        let mut writer = PerfDataWriter::create(&path, info).expect("created");
        let result = writer.sample(&SampleRecord {
            counts,
            ..sample(0, &[])
        });
        result.expect_err("refused").to_string()
    };
    for counts in [&[][..], &[1, 2], &[1, 2, 3, 4]] {
        assert_eq!(
            refused(group(), counts),
            format!("sample with {} counts in a group of 3 events", counts.len())
        );
    }
    assert_eq!(
        refused(FileInfo::new(EventInfo::branches(1)), &[1]),
        "sample with 1 counts in a group of 0 events"
    );
}

#[test]
fn a_count_falls_only_from_one_task_to_another() {
    let folder = tempfile::tempdir().expect("folder");
    let mut writer =
        PerfDataWriter::create(&folder.path().join("perf.data"), group()).expect("created");
    let mut take = |instance, counts: [u64; 3]| {
        writer.sample(&SampleRecord {
            counts: &counts,
            instance,
            ..sample(0, &[])
        })
    };
    take(0, [10, 20, 30]).expect("the first");
    take(0, [10, 20, 30]).expect("nothing in between");
    take(1, [1, 2, 3]).expect("another task");
    let refused = take(0, [11, 19, 31]).expect_err("fell");
    assert!(
        matches!(
            refused,
            PerfWriteError::CountFell {
                event: 1,
                before: 20,
                count: 19
            }
        ),
        "{refused}"
    );
}
