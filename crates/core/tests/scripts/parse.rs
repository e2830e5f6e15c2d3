//! The words of a script. Scripts are ours: a mistake in one panics with the line.

use std::time::Duration;

use holdfast_core::metadata::Durability;
use holdfast_core::record_batch::{ProducerRef, RecordBatch, RecordBatchBuilder};
use holdfast_core::replication::{
    Assignment, Compacted, DurableState, Envelope, EpochIndex, Event, FetchKind, Loaded, Message, Position,
    ProducerTable, ReplicaConfig, RequestId,
};
use holdfast_core::{BrokerId, DirId, Incarnation, LeaderEpoch, Offset, ProducerId, ReplicaId, Term};

/// The run of the process under test.
const INCARNATION: Incarnation = Incarnation(7);

/// Something that happens next.
pub(crate) enum Step {
    Event(Event),
    Wait(Duration),
    /// The read that was asked for has ended.
    Read {
        to: ReplicaId,
        epoch: LeaderEpoch,
        from: Offset,
    },
}

/// The words of one line, taken one by one or by name.
struct Words<'a> {
    line: &'a str,
    words: Vec<&'a str>,
}

impl<'a> Words<'a> {
    fn new(line: &'a str) -> Words<'a> {
        Words { line, words: line.split_whitespace().collect() }
    }

    /// The word behind `name`.
    fn after(&self, name: &str) -> Option<&'a str> {
        let at = self.words.iter().position(|&word| word == name)?;
        self.words.get(at + 1).copied()
    }

    fn need(&self, name: &str) -> &'a str {
        self.after(name).unwrap_or_else(|| panic!("{name} is missing in: {}", self.line))
    }

    fn number(&self, name: &str) -> u64 {
        number(self.need(name))
    }

    fn has(&self, word: &str) -> bool {
        self.words.contains(&word)
    }

    /// All words behind `name` up to the next of `ends`.
    fn list(&self, name: &str, ends: &[&str]) -> &[&'a str] {
        let Some(at) = self.words.iter().position(|&word| word == name) else { return &[] };
        let rest = &self.words[at + 1..];
        let length = rest.iter().position(|word| ends.contains(word)).unwrap_or(rest.len());
        &rest[..length]
    }
}

fn number(word: &str) -> u64 {
    word.parse().unwrap_or_else(|_| panic!("{word:?} is not a number"))
}

/// `r2`: the replica on broker 2.
fn replica(word: &str) -> ReplicaId {
    let broker = word.strip_prefix('r').unwrap_or_else(|| panic!("{word:?} is not a replica"));
    ReplicaId { broker: BrokerId(number(broker) as u32), dir: DirId(number(broker)) }
}

/// `2.1`: run 1 of term 2.
fn epoch(word: &str) -> LeaderEpoch {
    let (term, run) = word.split_once('.').unwrap_or_else(|| panic!("{word:?} is not an epoch"));
    LeaderEpoch { term: Term(number(term) as u32), run: number(run) as u8 }
}

/// `1.0/4`: a log that ends before offset 4 with a batch of epoch 1.0.
fn position(word: &str) -> Position {
    let (at, end) = word.split_once('/').unwrap_or_else(|| panic!("{word:?} is not a position"));
    Position { epoch: epoch(at), end: Offset(number(end)) }
}

/// `2.0x3` or `2.0x3:p9:0`: three records appended in epoch 2.0, from sequence number 0 of producer 9. `2.0f3`: a filler of
/// three offsets.
fn batches(words: &[&str], mut base: Offset) -> Vec<RecordBatch> {
    let mut made = Vec::new();
    for word in words {
        let batch = if let Some((at, offsets)) = word.split_once('f') {
            RecordBatch::filler(base, base + number(offsets), epoch(at)).unwrap()
        } else {
            let (at, rest) = word.split_once('x').unwrap_or_else(|| panic!("{word:?} is not a batch"));
            unstamped(rest).stamped(base, epoch(at))
        };
        base = batch.header().next_offset();
        made.push(batch);
    }
    made
}

fn unstamped(word: &str) -> RecordBatch {
    let mut parts = word.split(':');
    let records = number(parts.next().unwrap_or_default());
    let producer = parts.next().map(|id| ProducerRef {
        id: ProducerId(number(id.trim_start_matches('p')) as i64),
        epoch: 0,
        base_sequence: number(parts.next().unwrap_or("0")) as i32,
    });
    let mut builder = RecordBatchBuilder::new();
    for _ in 0..records {
        builder.push(0, None, Some(b"value"), &[]).unwrap();
    }
    builder.build(producer).unwrap()
}

/// `replica r1 of r1 r2 r3 mode disk`, and optionally `term 1 leader r2`, `promise 1.0`, `log 1.0x2 2.0x1`, `hw 2`,
/// `nonvoter`, `tail-lost`, `cleaned 3`, `gone 2`, and `base 1.0/4` for a log that was trimmed. Without `term` it is a new replica that has yet to be assigned.
pub(crate) struct Header {
    me: ReplicaId,
    durability: Durability,
    state: DurableState,
    base: Position,
    log: Vec<RecordBatch>,
    watermark: Offset,
    tail_lost: bool,
    compacted: Compacted,
}

impl Header {
    pub(crate) fn parse(line: &str) -> Header {
        let words = Words::new(line);
        let set: Vec<ReplicaId> = words.list("of", &["mode"]).iter().map(|word| replica(word)).collect();
        let assignment = words.after("term").map(|term| Assignment {
            term: Term(number(term) as u32),
            leader: replica(words.need("leader")),
            set,
            prev: None,
            learners: vec![],
            unclean_term: None,
        });
        let ends = ["hw", "nonvoter", "tail-lost", "promise", "term", "base", "cleaned", "gone"];
        let base = words.after("base").map_or(Position::default(), position);
        Header {
            me: replica(words.words[0]),
            durability: if words.need("mode") == "disk" { Durability::Disk } else { Durability::Memory },
            state: DurableState {
                promise: words.after("promise").map_or(LeaderEpoch::ZERO, epoch),
                assignment,
                nonvoter: words.has("nonvoter"),
                recovered: None,
            },
            base,
            log: batches(words.list("log", &ends), base.end),
            watermark: Offset(words.after("hw").map_or(0, number)),
            tail_lost: words.has("tail-lost"),
            compacted: Compacted {
                cleaned_end: Offset(words.after("cleaned").map_or(0, number)),
                tombstones_gone_below: Offset(words.after("gone").map_or(0, number)),
            },
        }
    }

    /// Settings, the log, and what a start finds.
    pub(crate) fn load(self) -> (ReplicaConfig, Vec<RecordBatch>, Loaded) {
        let (mut epochs, mut producers) = (EpochIndex::starting_at(self.base), ProducerTable::default());
        for batch in &self.log {
            epochs.append(batch.header().epoch.unwrap(), batch.header().next_offset());
            producers.append(batch.header());
        }
        let config = ReplicaConfig { durability: self.durability, ..ReplicaConfig::default() };
        let loaded = Loaded {
            me: self.me,
            incarnation: INCARNATION,
            state: self.state,
            epochs,
            producers,
            compacted: self.compacted,
            high_watermark: self.watermark,
            tail_lost: self.tail_lost,
            damaged: false,
            life: 0,
        };
        (config, self.log, loaded)
    }
}

/// The event of a line behind `> `.
pub(crate) fn step(line: &str) -> Step {
    let words = Words::new(line);
    let event = match words.words[0] {
        "wait" => return Step::Wait(Duration::from_millis(words.number("wait"))),
        "read" => {
            let (to, epoch) = (replica(words.need("for")), epoch(words.need("in")));
            return Step::Read { to, epoch, from: Offset(words.number("from")) };
        }
        "assign" => Event::Assign(Assignment {
            term: Term(words.number("term") as u32),
            leader: replica(words.need("leader")),
            set: words
                .list("set", &["prev", "learners", "unclean"])
                .iter()
                .map(|word| replica(word))
                .collect(),
            prev: words
                .has("prev")
                .then(|| words.list("prev", &["learners"]).iter().map(|word| replica(word)).collect()),
            learners: if words.has("learners") {
                words.list("learners", &[]).iter().map(|word| replica(word)).collect()
            } else {
                vec![]
            },
            unclean_term: words.after("unclean").map(|term| Term(number(term) as u32)),
        }),
        "persisted" => Event::Persisted { number: words.number("persisted") },
        "flushed" => {
            Event::Flushed { generation: words.number("generation"), end: Offset(words.number("end")) }
        }
        "produce" => Event::Produce {
            request: RequestId(words.number("produce")),
            batch: unstamped(words.need("batch").trim_start_matches('x')),
        },
        "trim" => Event::Trim { to: Offset(words.number("to")) },
        "cleaned" => Event::Cleaned { cleaned_end: Offset(words.number("end")) },
        "drop-tombstones" => Event::DropTombstones { below: Offset(words.number("below")) },
        "storage-failed" => Event::StorageFailed,
        "connected" => Event::PeerConnected { broker: replica(words.need("connected")).broker },
        _ => Event::Receive(envelope(&words)),
    };
    Step::Event(event)
}

/// `fence-ok r2 to r1 in 2.0 ...`: the message, sender, receiver and epoch, then what it says.
fn envelope(words: &Words<'_>) -> Envelope {
    let offset = |name: &str| Offset(words.after(name).map_or(0, number));
    let message = match words.words[0] {
        "fence" => Message::Fence { set: Vec::new(), prev: None },
        "fence-ok" => {
            Message::FenceOk { position: position(words.need("at")), voter: !words.has("nonvoter") }
        }
        "lead" => Message::Lead {
            high_watermark: offset("hw"),
            log_end_offset: offset("end"),
            cleaned_by_all: offset("cleaned"),
        },
        "fetch" => Message::Fetch {
            position: position(words.need("at")),
            durable_end: offset("durable"),
            incarnation: Incarnation(words.after("incarnation").map_or(1, number)),
            kind: match words.after("kind") {
                Some("rejoin") => FetchKind::Rejoin,
                Some("recover") => FetchKind::Recover,
                _ => FetchKind::Follow,
            },
            restart: words.has("restart"),
            cleaned_end: offset("cleaned"),
        },
        "diverge" => {
            Message::Diverge { echo: position(words.need("at")), common: position(words.need("common")) }
        }
        "reset" => {
            let (echo, start) = (position(words.need("at")), position(words.need("start")));
            Message::Reset { echo, start, producers: ProducerTable::default() }
        }
        "data" => data(words),
        "stale" => Message::Stale { promise: epoch(words.need("promise")) },
        other => panic!("{other:?} is no event, in: {}", words.line),
    };
    Envelope {
        from: replica(words.words[1]),
        to: replica(words.need("to")),
        epoch: epoch(words.need("in")),
        message,
    }
}

fn data(words: &Words<'_>) -> Message {
    let echo = position(words.need("at"));
    let batches = batches(words.list("batches", &["hw", "end", "incarnation", "start", "gone"]), echo.end);
    let end = batches.last().map_or(echo.end, |batch| batch.header().next_offset());
    let watermark = Offset(words.after("hw").map_or(0, number));
    Message::Data {
        echo,
        batches,
        high_watermark: watermark,
        durable_high_watermark: watermark,
        log_end_offset: words.after("end").map_or(end, |end| Offset(number(end))),
        log_start_offset: words.after("start").map_or(Offset::ZERO, |start| Offset(number(start))),
        tombstones_gone_below: Offset(words.after("gone").map_or(0, number)),
        incarnation: words.after("incarnation").map(|run| Incarnation(number(run))),
    }
}
