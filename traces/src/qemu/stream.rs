//! One stream's reader: ring words to batches.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::blocks::{BlockTable, RawBlock};
use super::connection::{Lifetime, Shared};
use super::error::{Error, SinkError};
use super::ring::Ring;
use super::sink::{
    Batch, Event, EventKind, MemoryAccess, PortSize, Sink, StreamEnd, StreamInfo, StreamSink,
};

/// Words taken from the ring at once: the copy stays in the second-level cache.
const TAKE: usize = 64 << 10;
const POLL_FIRST: Duration = Duration::from_micros(50);
const POLL_LAST: Duration = Duration::from_millis(5);

const TAG: u32 = 1 << 31;
/// Kind of the record that tells the result of an IN in the block before.
const AFTER_BLOCK: u32 = 5;

/// Words behind the head of a record of this kind.
fn record_length(kind: u32) -> Option<usize> {
    Some(match kind {
        0 | 3 => 2,
        1 | 2 | 4 | AFTER_BLOCK => 4,
        _ => return None,
    })
}

fn pair(words: &[u32]) -> u64 {
    u64::from(words[0]) | u64::from(words[1]) << 32
}

/// Separates block ids from the records between them.
#[derive(Debug, Default)]
struct Decoder {
    ids: Vec<u32>,
    memory: Vec<MemoryAccess>,
    events: Vec<Event>,
    /// A "registers before" whose "after" may still come.
    pending: Option<Event>,
    highest: Option<u32>,
}

impl Decoder {
    fn clear(&mut self) {
        self.ids.clear();
        self.memory.clear();
        self.events.clear();
        if let Some(pending) = &mut self.pending {
            pending.preceding = 0;
        }
    }

    fn flush_pending(&mut self) {
        self.events.extend(self.pending.take());
    }

    fn preceding(&self) -> u32 {
        // A batch holds at most TAKE ids.
        self.ids.len() as u32
    }

    /// The result of an IN that ended its block comes behind the next block's id. Takes both from
    /// the front of `words` and says how many words these are: 0 if the result is missing. `None` if
    /// that cannot be told yet.
    fn late_input(&mut self, words: &[u32], last: bool) -> Option<usize> {
        let Some(Event {
            kind: EventKind::In { value: None, .. },
            ..
        }) = self.pending
        else {
            return Some(0);
        };
        match *words {
            [id, head, eax, ebx, ecx, edx, ..]
                if head & TAG != 0 && head >> 28 & 7 == AFTER_BLOCK =>
            {
                let mut event = self.pending.take()?;
                complete(&mut event.kind, &[eax, ebx, ecx, edx]);
                self.events.push(event);
                self.highest = self.highest.max(Some(id));
                self.ids.push(id);
                Some(6)
            }
            [_] if !last => None,
            [_, head, ..]
                if !last && words.len() < 6 && head & TAG != 0 && head >> 28 & 7 == AFTER_BLOCK =>
            {
                None
            }
            _ => Some(0),
        }
    }

    /// Decodes whole records from the front of `words` and says how many words they took. `last` if
    /// nothing follows these.
    fn decode(&mut self, words: &[u32], last: bool) -> Result<usize, String> {
        let mut at = 0;
        while at < words.len() {
            let rest = &words[at..];
            let plain = rest
                .iter()
                .position(|&word| word & TAG != 0)
                .unwrap_or(rest.len());
            if plain > 0 {
                match self.late_input(rest, last) {
                    None => break,
                    Some(0) => {}
                    Some(taken) => {
                        at += taken;
                        continue;
                    }
                }
                self.flush_pending();
                self.highest = self.highest.max(rest[..plain].iter().max().copied());
                self.ids.extend_from_slice(&rest[..plain]);
                at += plain;
                continue;
            }
            let head = rest[0];
            let kind = head >> 28 & 7;
            let Some(length) = record_length(kind) else {
                return Err(format!("unknown record {head:#010x} in the ring"));
            };
            let Some(body) = rest.get(1..=length) else {
                break;
            };
            self.record(kind, head, body)?;
            at += 1 + length;
        }
        Ok(at)
    }

    fn record(&mut self, kind: u32, head: u32, body: &[u32]) -> Result<(), String> {
        let instruction = (head >> 16 & 0xfff) as u16;
        let preceding = self.preceding();
        let event = |kind| Event {
            preceding,
            instruction,
            kind,
        };
        match kind {
            0 => self.memory.push(MemoryAccess {
                preceding,
                instruction,
                address: pair(body),
                size: 1 << (head & 15),
                store: head & 16 != 0,
            }),
            1 => {
                self.flush_pending();
                self.pending = Some(event(before(head, body)?));
            }
            2 => {
                if let Some(mut pending) = self.pending.take() {
                    complete(&mut pending.kind, body);
                    self.events.push(pending);
                }
            }
            // The IN it could answer was interrupted, or the block was reached another way.
            AFTER_BLOCK => {}
            3 => {
                self.flush_pending();
                self.events
                    .push(event(EventKind::AddressSpace { cr3: pair(body) }));
            }
            _ => {
                self.flush_pending();
                self.events.push(event(EventKind::Discontinuity {
                    interrupt: head & 1 != 0,
                    certain: head & 4 == 0,
                    from: pair(&body[..2]),
                    to: pair(&body[2..]),
                }));
            }
        }
        Ok(())
    }
}

fn mask(value: u32, size: PortSize) -> u32 {
    match size {
        PortSize::Byte => value & 0xff,
        PortSize::Word => value & 0xffff,
        PortSize::Dword => value,
    }
}

fn before(head: u32, body: &[u32]) -> Result<EventKind, String> {
    let [eax, ecx, edx] = [body[0], body[1], body[2]];
    let port = (body[3] & 0xffff) as u16;
    let size = match head >> 8 & 0xff {
        1 => PortSize::Byte,
        2 => PortSize::Word,
        _ => PortSize::Dword,
    };
    Ok(match head & 0xff {
        1 => EventKind::ReadMsr {
            msr: ecx,
            value: None,
        },
        2 => EventKind::WriteMsr {
            msr: ecx,
            value: u64::from(edx) << 32 | u64::from(eax),
        },
        3 => EventKind::Cpuid {
            leaf: eax,
            subleaf: ecx,
            value: None,
        },
        4 => EventKind::In {
            port,
            size,
            value: None,
        },
        5 => EventKind::Out {
            port,
            size,
            value: mask(eax, size),
        },
        other => return Err(format!("unknown register record {other} in the ring")),
    })
}

fn complete(kind: &mut EventKind, after: &[u32]) {
    let [eax, ebx, ecx, edx] = [after[0], after[1], after[2], after[3]];
    match kind {
        EventKind::ReadMsr { value, .. } => *value = Some(u64::from(edx) << 32 | u64::from(eax)),
        EventKind::Cpuid { value, .. } => *value = Some([eax, ebx, ecx, edx]),
        EventKind::In { size, value, .. } => *value = Some(mask(eax, *size)),
        _ => {}
    }
}

/// State of one reader.
struct StreamReader<'a, S: Sink> {
    shared: &'a Shared<'a, S>,
    table: &'a BlockTable,
    known: Vec<Arc<RawBlock>>,
    decoder: Decoder,
    words: Vec<u32>,
    sink: S::Stream,
}

/// How a reader's loop came to its end.
enum Stop {
    End(StreamEnd),
    Sink(SinkError),
}

/// What one look at a ring came to.
enum Step {
    Read,
    Empty,
    Done(StreamEnd),
}

impl<S: Sink> StreamReader<'_, S> {
    /// Hands on all whole records of `words`.
    fn deliver(&mut self, last: bool) -> Result<(), Stop> {
        let damaged = |reason| Stop::End(StreamEnd::Damaged(reason));
        self.decoder.clear();
        let taken = self.decoder.decode(&self.words, last);
        let highest = self.decoder.highest.map_or(0, |id| id as usize + 1);
        if highest > self.known.len() && !self.table.extend(&mut self.known, highest) {
            return Err(damaged(format!("block {} was never defined", highest - 1)));
        }
        let decoder = &self.decoder;
        if !(decoder.ids.is_empty() && decoder.memory.is_empty() && decoder.events.is_empty()) {
            let batch = Batch {
                blocks: &self.known,
                ids: &decoder.ids,
                memory: &decoder.memory,
                events: &decoder.events,
            };
            self.sink.batch(&batch).map_err(Stop::Sink)?;
            self.shared
                .progress
                .blocks
                .fetch_add(decoder.ids.len() as u64, Ordering::Relaxed);
        }
        self.words.drain(..taken.map_err(damaged)?);
        Ok(())
    }

    fn read(&mut self, ring: &mut Ring, lifetime: &Lifetime) -> Stop {
        let mut pause = POLL_FIRST;
        loop {
            // Before the ring is looked at: all that a stream wrote before its end is then seen.
            let end = if ring.closed() {
                Some(StreamEnd::ThreadExit)
            } else {
                lifetime.ended().map(StreamEnd::Process)
            };
            if self.shared.failed() {
                let reason = "the recording failed".to_owned();
                return Stop::End(StreamEnd::Damaged(reason));
            }
            if end.is_some() {
                // A process that outlives the recording fills the ring no more.
                ring.stop();
            }
            match self.step(ring, end) {
                Ok(Step::Read) => pause = POLL_FIRST,
                Ok(Step::Empty) => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(POLL_LAST);
                }
                Ok(Step::Done(end)) => return Stop::End(end),
                Err(stop) => return stop,
            }
        }
    }

    /// Delivers what is in the ring, or if that is empty and the stream is over, in its stage.
    fn step(&mut self, ring: &mut Ring, end: Option<StreamEnd>) -> Result<Step, Stop> {
        let damaged = |reason| Stop::End(StreamEnd::Damaged(reason));
        let available = ring.available().map_err(damaged)?;
        if available > 0 {
            ring.take(available, TAKE, &mut self.words);
            self.deliver(false)?;
            return Ok(Step::Read);
        }
        let Some(end) = end else {
            return Ok(Step::Empty);
        };
        if ring.take_stage(&mut self.words).map_err(damaged)?.is_none() {
            return Ok(Step::Read);
        }
        self.deliver(true)?;
        Ok(Step::Done(end))
    }

    fn finish(mut self, stop: Stop) -> Result<(), SinkError> {
        match stop {
            Stop::Sink(error) => Err(error),
            Stop::End(end) => {
                if self.decoder.pending.is_some() {
                    self.decoder.clear();
                    self.decoder.flush_pending();
                    self.sink.batch(&Batch {
                        blocks: &self.known,
                        ids: &[],
                        memory: &[],
                        events: &self.decoder.events,
                    })?;
                }
                self.sink.end(end)
            }
        }
    }
}

/// Reads a stream to its end. Runs in its own thread.
pub(super) fn run<S: Sink>(
    shared: &Shared<'_, S>,
    info: &StreamInfo,
    mut ring: Ring,
    table: &BlockTable,
    lifetime: &Lifetime,
) {
    let result = shared.sink.stream(info).and_then(|sink| {
        let mut reader = StreamReader {
            shared,
            table,
            known: Vec::new(),
            decoder: Decoder::default(),
            words: Vec::with_capacity(TAKE),
            sink,
        };
        let stop = reader.read(&mut ring, lifetime);
        ring.stop();
        if let Stop::End(StreamEnd::Damaged(reason)) = &stop
            && !shared.failed()
        {
            shared.lost(
                Some(info.process),
                format!("stream {}: {reason}", info.id.0),
            );
        }
        reader.finish(stop)
    });
    if let Err(error) = result {
        shared.fail(Error::Sink(error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_belong_to_the_block_before_them() {
        let mut decoder = Decoder::default();
        let access = TAG | 5 << 16 | 16 | 3;
        assert_eq!(decoder.decode(&[4, 9, access, 0x10, 1, 2], false), Ok(6));
        assert_eq!(decoder.ids, [4, 9, 2]);
        assert_eq!(decoder.highest, Some(9));
        let expected = MemoryAccess {
            preceding: 2,
            instruction: 5,
            address: 0x1_0000_0010,
            size: 8,
            store: true,
        };
        assert_eq!(decoder.memory, [expected]);
    }

    #[test]
    fn a_record_cut_by_the_batch_waits_for_its_rest() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(&[1, TAG, 7], false), Ok(1));
        decoder.clear();
        assert_eq!(decoder.decode(&[TAG, 7, 0], false), Ok(3));
        assert_eq!(
            (decoder.memory[0].preceding, decoder.memory[0].address),
            (0, 7)
        );
    }

    #[test]
    fn registers_after_complete_the_event_before() {
        let mut decoder = Decoder::default();
        let rdmsr = TAG | 1 << 28 | 2 << 16 | 1;
        let after = TAG | 2 << 28;
        assert_eq!(decoder.decode(&[1, rdmsr, 0, 0x1d9, 0, 0], false), Ok(6));
        assert!(decoder.events.is_empty());
        decoder.clear();
        assert_eq!(decoder.decode(&[after, 7, 0, 0x1d9, 1, 3], false), Ok(6));
        let kind = EventKind::ReadMsr {
            msr: 0x1d9,
            value: Some(0x1_0000_0007),
        };
        assert_eq!(
            decoder.events,
            [Event {
                preceding: 0,
                instruction: 2,
                kind
            }]
        );
    }

    #[test]
    fn an_address_read_from_a_stack_is_marked() {
        let mut decoder = Decoder::default();
        for (detail, interrupt, certain) in [(1, true, true), (5, true, false), (6, false, false)] {
            decoder.clear();
            let head = TAG | 4 << 28 | detail;
            assert_eq!(decoder.decode(&[3, head, 1, 2, 3, 4, 5], false), Ok(7));
            let kind = EventKind::Discontinuity {
                interrupt,
                certain,
                from: 0x2_0000_0001,
                to: 0x4_0000_0003,
            };
            let expected = Event {
                preceding: 1,
                instruction: 0,
                kind,
            };
            assert_eq!(decoder.events, [expected]);
        }
    }

    #[test]
    fn an_event_without_after_is_delivered_without_value() {
        let mut decoder = Decoder::default();
        let cpuid = TAG | 1 << 28 | 3;
        assert_eq!(decoder.decode(&[1, cpuid, 7, 0, 0, 0, 2], false), Ok(7));
        let kind = EventKind::Cpuid {
            leaf: 7,
            subleaf: 0,
            value: None,
        };
        assert_eq!(
            decoder.events,
            [Event {
                preceding: 1,
                instruction: 0,
                kind
            }]
        );
    }

    #[test]
    fn the_result_of_an_input_may_come_with_the_next_block() {
        let input = [TAG | 1 << 28 | 1 << 8 | 4, 0xff00, 0, 0x71, 0x71];
        let after = [TAG | AFTER_BLOCK << 28, 0x1234_ff5a, 0, 0, 0];
        let event = |value| Event {
            preceding: 1,
            instruction: 0,
            kind: EventKind::In {
                port: 0x71,
                size: PortSize::Byte,
                value,
            },
        };
        let words = [&[1][..], &input, &[2], &after, &[3]].concat();
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(&words, false), Ok(13));
        assert_eq!(
            (&decoder.ids[..], &decoder.events[..]),
            (&[1, 2, 3][..], &[event(Some(0x5a))][..])
        );

        // Cut anywhere, the rest is waited for.
        for cut in 7..12 {
            let mut decoder = Decoder::default();
            assert_eq!(decoder.decode(&words[..cut], false), Ok(6));
            assert_eq!(decoder.decode(&words[6..], false), Ok(7));
            assert_eq!(decoder.events, [event(Some(0x5a))]);
        }

        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(&words[..7], true), Ok(7));
        assert_eq!(
            (&decoder.ids[..], &decoder.events[..]),
            (&[1, 2][..], &[event(None)][..])
        );
    }

    #[test]
    fn a_late_result_without_its_input_is_dropped() {
        let mut decoder = Decoder::default();
        let words = [1, TAG | AFTER_BLOCK << 28, 9, 9, 9, 9, 2];
        assert_eq!(decoder.decode(&words, false), Ok(7));
        assert_eq!(
            (&decoder.ids[..], &decoder.events[..]),
            (&[1, 2][..], &[][..])
        );
    }

    #[test]
    fn unknown_records_are_refused() {
        assert!(
            Decoder::default()
                .decode(&[TAG | 7 << 28, 0, 0], false)
                .is_err()
        );
        assert!(
            Decoder::default()
                .decode(&[TAG | 1 << 28 | 99, 0, 0, 0, 0], false)
                .is_err()
        );
    }
}
