//! Files to read: our own in every container, a small ELF file, the reference files.

use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};

use vlbr_traces::perfdata::{
    BranchEntry, BranchFlags, EventInfo, FileInfo, Mapping, PerfDataWriter, PerfFile,
    PerfReadError, Record, SampleRecord, TaskId,
};
use vlbr_traces::symbols::ElfImage;

/// Where a reference file is, or `None` with a message where the reference data is not at hand.
pub(crate) fn reference_path(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/data/lbr")
        .join(name);
    if !path.exists() {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

/// The bytes of a reference file.
pub(crate) fn reference(name: &str) -> Option<Vec<u8>> {
    Some(std::fs::read(reference_path(name)?).expect("the reference file is readable"))
}

pub(crate) const TASK: TaskId = TaskId { pid: 10, tid: 11 };

pub(crate) fn sample(number: u64, branches: &[BranchEntry]) -> SampleRecord<'_> {
    SampleRecord {
        ip: 0x1000 + number,
        pid: TASK.pid,
        tid: TASK.tid,
        time_ns: 1000 + number,
        cpu: 0,
        period: 1,
        kernel: false,
        branches,
        hw_idx: None,
        callchain: None,
        counts: &[],
        instance: 0,
    }
}

pub(crate) fn entries(count: u64) -> Vec<BranchEntry> {
    (0..count)
        .map(|i| BranchEntry {
            from: 0x1000 + i,
            to: 0x2000 + i * i,
            flags: BranchFlags::from_word(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        })
        .collect()
}

/// A regular file with a name, a mapping and samples.
pub(crate) fn regular(folder: &Path, samples: u64) -> Vec<u8> {
    let path = folder.join("perf.data");
    let info = FileInfo::new(EventInfo::branches(1));
    let mut writer = PerfDataWriter::create(&path, info).expect("created");
    writer.comm(TASK, "name", true, 1).expect("written");
    writer
        .mapping(&Mapping::user(10, 0x1000, 0x1000, 0, "/x"), 2)
        .expect("written");
    for number in 0..samples {
        writer
            .sample(&sample(number, &entries(number % 33)))
            .expect("written");
    }
    let written = writer.finish().expect("finished");
    assert_eq!((written.records, written.samples), (samples + 2, samples));
    let bytes = std::fs::read(&path).expect("read");
    assert_eq!(written.bytes, bytes.len() as u64);
    bytes
}

pub(crate) fn word(bytes: &[u8], at: usize) -> usize {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i])) as usize
}

pub(crate) fn record(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut out = kind.to_le_bytes().to_vec();
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&(body.len() as u16 + 8).to_le_bytes());
    out.extend_from_slice(body);
    out
}

/// The file with its records as one zstd stream, cut into COMPRESSED records anywhere.
pub(crate) fn packed(regular: &[u8], piece: usize) -> Vec<u8> {
    let (start, size) = (word(regular, 40), word(regular, 48));
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("encoder");
    for part in regular[start..start + size].chunks(3000) {
        encoder.write_all(part).expect("packed");
        encoder.flush().expect("flushed");
    }
    let stream = encoder.finish().expect("finished");
    let data: Vec<u8> = stream
        .chunks(piece)
        .flat_map(|part| record(81, part))
        .collect();
    let mut out = regular[..start].to_vec();
    out[48..56].copy_from_slice(&(data.len() as u64).to_le_bytes());
    out[72..104].fill(0);
    out.extend_from_slice(&data);
    out
}

/// The file as perf writes it to a pipe: header, attribute, features, records.
pub(crate) fn piped(regular: &[u8]) -> Vec<u8> {
    let mut out = regular[..8].to_vec();
    out.extend_from_slice(&16u64.to_le_bytes());
    out.extend(record(64, &regular[104..232]));
    let mut table = word(regular, 40) + word(regular, 48);
    for bit in (0..64).filter(|bit| word(regular, 72) >> bit & 1 != 0) {
        let (offset, size) = (word(regular, table), word(regular, table + 8));
        // BUILD_ID has a record of its own in this mode.
        if bit != 2 {
            let mut body = (bit as u64).to_le_bytes().to_vec();
            body.extend_from_slice(&regular[offset..offset + size]);
            out.extend(record(80, &body));
        }
        table += 16;
    }
    out.extend_from_slice(&regular[word(regular, 40)..][..word(regular, 48)]);
    out
}

/// A small ELF file: one executable segment at 0x1000, two functions.
pub(crate) fn small_elf() -> Vec<u8> {
    let code = [0x90, 0x74, 0xfd, 0xc3, 0x90, 0xc3];
    let strings = b"\0first\0second\0";
    let names = b"\0.text\0.symtab\0.strtab\0.shstrtab\0";
    let (code_at, symbols_at) = (0x78u64, 0x80u64);
    let strings_at = symbols_at + 3 * 24;
    let names_at = strings_at + strings.len() as u64;
    let sections_at = (names_at + names.len() as u64).next_multiple_of(8);
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut put = |bytes: &[u8]| out.extend_from_slice(bytes);
    put(&2u16.to_le_bytes());
    put(&62u16.to_le_bytes());
    put(&1u32.to_le_bytes());
    for word in [0x1078u64, 64, sections_at] {
        put(&word.to_le_bytes());
    }
    put(&0u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, 5, 4] {
        put(&half.to_le_bytes());
    }
    put(&1u32.to_le_bytes());
    put(&5u32.to_le_bytes());
    for word in [0u64, 0x1000, 0x1000, 0x80, 0x80, 0x1000] {
        put(&word.to_le_bytes());
    }
    put(&code);
    put(&[0; 2]);
    put(&[0; 24]);
    for (name, address, size) in [(1u32, 0x1078u64, 4u64), (7, 0x107c, 2)] {
        put(&name.to_le_bytes());
        put(&[0x12, 0]);
        put(&1u16.to_le_bytes());
        put(&address.to_le_bytes());
        put(&size.to_le_bytes());
    }
    put(strings);
    put(names);
    let padding = sections_at as usize - names_at as usize - names.len();
    put(&vec![0; padding]);
    let sections: [[u64; 10]; 5] = [
        [0; 10],
        [1, 1, 6, 0x1000 + code_at, code_at, 6, 0, 0, 1, 0],
        [7, 2, 0, 0, symbols_at, 72, 3, 1, 8, 24],
        [15, 3, 0, 0, strings_at, strings.len() as u64, 0, 0, 1, 0],
        [23, 3, 0, 0, names_at, names.len() as u64, 0, 0, 1, 0],
    ];
    for [
        name,
        kind,
        flags,
        address,
        offset,
        size,
        link,
        info,
        align,
        entry,
    ] in sections
    {
        put(&(name as u32).to_le_bytes());
        put(&(kind as u32).to_le_bytes());
        for word in [flags, address, offset, size] {
            put(&word.to_le_bytes());
        }
        put(&(link as u32).to_le_bytes());
        put(&(info as u32).to_le_bytes());
        put(&align.to_le_bytes());
        put(&entry.to_le_bytes());
    }
    out
}

/// Reads everything there is to read and returns how many records there were.
pub(crate) fn read_all(bytes: &[u8]) -> Result<usize, PerfReadError> {
    let mut file = PerfFile::new(Cursor::new(bytes))?;
    let known: Vec<_> = file.metadata().features.keys().copied().collect();
    for feature in known {
        // Refusing one feature must not keep the others from being read.
        let _ = file.feature_bytes(feature);
    }
    let _ = file.features();
    let mut records = file.records()?;
    let mut count = 0;
    while let Some(raw) = records.next_record()? {
        count += 1;
        let _ = raw.sample_id();
        if let Ok(Record::Sample(sample)) = raw.parse()
            && let (Some(stack), Some(range)) = (sample.branch_stack, sample.branch_stack_range)
        {
            assert_eq!(stack.encode(), &raw.body[range], "a typed stack lost a bit");
        }
    }
    Ok(count)
}

/// Opens the bytes as ELF and asks everything; `None` when they are refused.
pub(crate) fn ask_elf(bytes: &[u8]) -> Option<ElfImage> {
    let image = ElfImage::read(Path::new("bytes"), Cursor::new(bytes)).ok()?;
    for address in [0, 1, 0x1000, 0x1079, 0x1740, u64::MAX / 2, u64::MAX] {
        let _ = image.lookup(address);
        let _ = image.address_to_offset(address);
        let _ = image.offset_to_address(address);
        for length in [0, 1, 0x1000, u64::MAX] {
            let _ = image.load_bias(address, length, address);
            let _ = image.load_bias(0x7000_0000, length, address);
        }
    }
    if let Ok(code) = image.read_code_from(Cursor::new(bytes)) {
        assert!(code.size() <= bytes.len() * image.segments().len());
        let _ = code.at(u64::MAX);
    }
    for symbol in image.symbols().iter() {
        let _ = symbol.display_name();
    }
    Some(image)
}
