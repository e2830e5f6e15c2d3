//! The history of a run, as the checker reads it: written from many tasks, in the order that things happened. What another
//! program tells comes late through its pipe, and gets its place by its time in the end.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use holdfast_checker::history::{
    Edge, Event, Key, Poll, PollStage, Reader, RecordError, Recorder, Recording, Send, SendStage, What,
    Writer,
};

use crate::clock::Micros;
use crate::error::{ChaosError, chain};
use crate::record::{SendOutcome, Sent, lock};
use crate::zone::Zone;

/// Takes down what clients do and see.
#[derive(Debug)]
pub(crate) struct History {
    recorder: Recorder,
    recording: Mutex<Option<Recording>>,
    keys: Vec<Key>,
    /// Held while an event gets its time and its place, so that both are in one order.
    order: Mutex<()>,
    /// What other programs saw. A few events a second.
    adopted: Mutex<Vec<Event>>,
    path: Option<PathBuf>,
    broken: OnceLock<RecordError>,
}

impl History {
    /// Makes the file.
    pub(crate) fn create(path: &Path, topic: &str, partitions: u32) -> Result<History, ChaosError> {
        let what = || format!("creating {}", path.display());
        let file = File::create(path).map_err(ChaosError::io(what()))?;
        let history = History::write_to(file, topic, partitions)?;
        Ok(History { path: Some(path.to_owned()), ..history })
    }

    /// Writes anywhere.
    pub(crate) fn write_to(
        output: impl Write + std::marker::Send + 'static,
        topic: &str,
        partitions: u32,
    ) -> Result<History, ChaosError> {
        let (recorder, recording) =
            Recorder::write_to(output).map_err(ChaosError::io("starting to record history"))?;
        Ok(History {
            recorder,
            recording: Mutex::new(Some(recording)),
            keys: (0..partitions).map(|partition| format!("{topic}/{partition}").into()).collect(),
            order: Mutex::default(),
            adopted: Mutex::default(),
            path: None,
            broken: OnceLock::new(),
        })
    }

    /// Writes what waits.
    pub(crate) fn finish(&self) -> Result<(), ChaosError> {
        let recording = lock(&self.recording).take();
        let finished = recording.map_or(Ok(()), Recording::finish);
        let broken = self.broken.get().cloned().map_or(finished, Err);
        broken.map_err(|error| ChaosError::Io {
            what: "recording history".to_owned(),
            source: std::io::Error::other(chain(&error)),
        })?;
        let mut adopted = std::mem::take(&mut *lock(&self.adopted));
        match &self.path {
            Some(path) if !adopted.is_empty() => {
                adopted.sort_by_key(|event| event.at_us);
                merge(path, &adopted).map_err(ChaosError::io(format!("ordering {}", path.display())))
            }
            _ => Ok(()),
        }
    }

    /// A record is about to be sent.
    pub(crate) fn send_invoked(&self, sent: Sent) {
        self.send(sent, SendStage::Invoke { deadline_us: None });
    }

    /// Its outcome is known.
    pub(crate) fn send_done(&self, sent: Sent, outcome: &SendOutcome) {
        let stage = match outcome {
            SendOutcome::Acked { base_offset, epoch } => {
                SendStage::Ok { base_offset: *base_offset, epoch: u64::try_from(*epoch).ok() }
            }
            SendOutcome::Failed(why) => SendStage::Fail { error: why.as_str().into() },
            SendOutcome::Unknown(why) => SendStage::Info { error: why.as_str().into() },
        };
        self.send(sent, stage);
    }

    fn send(&self, sent: Sent, stage: SendStage) {
        let send = Send { key: self.key(sent.partition), values: vec![sent.value], stage };
        self.note(sent.process, sent.op, What::Send(send));
    }

    /// A process asks for records.
    pub(crate) fn poll_invoked(&self, process: u64, op: u64, partition: u32) {
        self.poll(process, op, partition, PollStage::Invoke);
    }

    /// Records came: offsets and values.
    pub(crate) fn polled(
        &self,
        process: u64,
        op: u64,
        partition: u32,
        records: Vec<(u64, u64)>,
        high_watermark: u64,
    ) {
        self.poll(process, op, partition, PollStage::Ok { records, high_watermark: Some(high_watermark) });
    }

    /// None came.
    pub(crate) fn poll_failed(&self, process: u64, op: u64, partition: u32, error: &str) {
        self.poll(process, op, partition, PollStage::Info { records: Vec::new(), error: error.into() });
    }

    fn poll(&self, process: u64, op: u64, partition: u32, stage: PollStage) {
        self.note(process, op, What::Poll(Poll { key: self.key(partition), stage }));
    }

    /// A process reads from an offset on.
    pub(crate) fn assigned(&self, process: u64, op: u64, partition: u32, offset: u64) {
        self.note(process, op, What::Assign { key: self.key(partition), offset });
    }

    /// A process ends.
    pub(crate) fn crashed(&self, process: u64, op: u64) {
        self.note(process, op, What::Crash);
    }

    /// Something is broken on purpose, or mended; when exactly.
    pub(crate) fn fault(&self, name: &str, zone: Option<Zone>, edge: Edge) -> Micros {
        let zone = zone.map(|zone| zone.name().into());
        self.note(0, 0, What::Fault { name: name.into(), zone, edge })
    }

    /// Everything is healed; everything is read.
    pub(crate) fn final_phase(&self) {
        self.note(0, 0, What::Final);
    }

    /// What another program saw, at its time: our clocks are one.
    pub(crate) fn adopt(&self, event: Event) {
        lock(&self.adopted).push(event);
    }

    fn note(&self, process: u64, op: u64, what: What) -> Micros {
        let _order = lock(&self.order);
        let at = Micros::now();
        self.record(&Event { at_us: at.0, process, op, what });
        at
    }

    fn record(&self, event: &Event) {
        if let Err(error) = self.recorder.record(event) {
            // The first reason is the one that counts; finish() tells it.
            let _ = self.broken.set(error);
        }
    }

    fn key(&self, partition: u32) -> Key {
        self.keys.get(partition as usize).cloned().unwrap_or_else(|| partition.to_string().into())
    }
}

/// Puts events, ordered by time, into a file that is.
fn merge(path: &Path, adopted: &[Event]) -> std::io::Result<()> {
    let merged = path.with_extension("merged");
    let mut writer = Writer::new(BufWriter::new(File::create(&merged)?));
    let mut rest = adopted.iter().peekable();
    for event in Reader::new(BufReader::new(File::open(path)?)) {
        let (_, event) = event.map_err(std::io::Error::other)?;
        while let Some(earlier) = rest.next_if(|adopted| adopted.at_us < event.at_us) {
            writer.write(earlier)?;
        }
        writer.write(&event)?;
    }
    rest.try_for_each(|event| writer.write(event))?;
    writer.finish()?;
    std::fs::rename(merged, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What came through a pipe after it had been read by somebody else stands before that, as it happened.
    #[test]
    fn adopted_events_stand_where_they_happened() {
        let folder = tempfile::tempdir().unwrap();
        let (file, other) = (folder.path().join("history.jsonl"), folder.path().join("other.jsonl"));
        let history = History::create(&file, "t", 1).unwrap();
        let elsewhere = History::create(&other, "t", 1).unwrap();
        elsewhere.send_invoked(Sent { process: 7, op: 1, partition: 0, value: 42 });
        elsewhere.finish().unwrap();
        while Micros::now() <= Micros(read(&other)[0].at_us) {}
        history.polled(8, 2, 0, vec![(0, 42)], 1);
        read(&other).into_iter().for_each(|event| history.adopt(event));
        history.finish().unwrap();
        let processes: Vec<u64> = read(&file).iter().map(|event| event.process).collect();
        assert_eq!(processes, [7, 8]);
    }

    fn read(path: &Path) -> Vec<Event> {
        Reader::new(BufReader::new(File::open(path).unwrap())).map(|event| event.unwrap().1).collect()
    }
}
