//! Who reads what the load writes: one beside it, and one at the end that begins anew.

use std::sync::Arc;

use holdfast_checker::Event;
use holdfast_checker::history::{PollStage, value_of};
use holdfast_client::{Client, ConsumeError, Consumer, FetchedBatch, StartAt, Until};
use tokio_util::sync::CancellationToken;

use super::witness::Witness;

/// How often everything is read again at the end where it did not get to the last offset known.
const PASSES: usize = 3;

/// A consumer of all partitions from their beginnings, as the history knows it: one process.
struct Reader {
    witness: Arc<Witness>,
    consumer: Consumer,
    process: u64,
    ops: u64,
    /// By partition: offset after the last record read.
    next: Vec<u64>,
}

impl Reader {
    async fn start(
        client: &Client,
        topic: &str,
        until: Until,
        witness: &Arc<Witness>,
    ) -> Result<Reader, holdfast_client::BuildError> {
        let consumer = client.consumer(topic).start(StartAt::Beginning).stop(until).build().await?;
        let (process, partitions) = (witness.new_process(), witness.keys().len());
        let now = witness.now_us();
        witness.note(witness.keys().iter().zip(0..).map(|(key, op)| Event::assign(now, process, op, key, 0)));
        let (witness, next) = (Arc::clone(witness), vec![0; partitions]);
        Ok(Reader { witness, consumer, process, ops: partitions as u64, next })
    }

    /// Reads and notes one batch; `None` at the end.
    async fn read(&mut self) -> Option<Result<(), ConsumeError>> {
        let began_us = self.witness.now_us();
        let batch = match self.consumer.next_batch().await? {
            Ok(batch) => batch,
            Err(error) => return Some(Err(error)),
        };
        self.note(began_us, &batch);
        Some(Ok(()))
    }

    fn note(&mut self, began_us: u64, batch: &FetchedBatch) {
        let Some(key) = self.witness.key(batch.partition) else { return };
        // What is not ours is a value that nobody sent.
        let value = |bytes: Option<&[u8]>| bytes.and_then(value_of).unwrap_or(u64::MAX);
        let records: Vec<(u64, u64)> =
            batch.records.iter().map(|record| (record.offset.0, value(record.value.as_deref()))).collect();
        self.ops += 1;
        let event = |at_us, stage| Event::poll(at_us, self.process, self.ops, key, stage);
        let high_watermark = Some(batch.high_watermark.0);
        self.witness.note([
            event(began_us, PollStage::Invoke),
            event(self.witness.now_us(), PollStage::Ok { records, high_watermark }),
        ]);
        if let Some(next) = self.next.get_mut(batch.partition as usize) {
            *next = batch.next_offset.0;
        }
    }

    /// Whether it read past every offset that anybody was told of.
    fn has_everything(&self) -> bool {
        let mut partitions = self.witness.keys().iter().zip(&self.next);
        partitions.all(|(key, &next)| self.witness.highest_offset(key).is_none_or(|highest| next > highest))
    }

    /// Polls what is empty too, so that the history knows that it was read.
    fn note_ends(&mut self) {
        let now = self.witness.now_us();
        for key in self.witness.keys() {
            self.ops += 1;
            let event = |stage| Event::poll(now, self.process, self.ops, key, stage);
            let nothing = PollStage::Ok { records: Vec::new(), high_watermark: None };
            self.witness.note([event(PollStage::Invoke), event(nothing)]);
        }
    }
}

/// Reads along from the beginning until it is told to stop; a new process begins anew after an error.
pub(super) async fn read_along(
    client: Client,
    topic: String,
    witness: Arc<Witness>,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        let Ok(mut reader) = Reader::start(&client, &topic, Until::Never, &witness).await else { continue };
        loop {
            let read = tokio::select! {
                () = stop.cancelled() => return,
                read = reader.read() => read,
            };
            let Some(Ok(())) = read else { break };
        }
    }
}

/// Reads everything from the beginning, with a client that knows nothing of the run, until past every offset that
/// anybody was told of; gives up after a few passes, and the verdict will say what is missing. Gives the number of
/// records that the last pass read.
pub(super) async fn read_back(client: &Client, topic: &str, witness: &Arc<Witness>) -> Result<u64, String> {
    witness.note([Event::begin_final(witness.now_us())]);
    let mut read = 0;
    for _ in 0..PASSES {
        let before = witness.counts().records_shown;
        let reader = Reader::start(client, topic, Until::HighWatermarkAtStart, witness).await;
        let mut reader = reader.map_err(|error| error.to_string())?;
        while let Some(batch) = reader.read().await {
            batch.map_err(|error| error.to_string())?;
        }
        reader.note_ends();
        read = witness.counts().records_shown - before;
        if reader.has_everything() {
            break;
        }
    }
    Ok(read)
}
