//! Repairing logs that are open: what was met while reading, and what was found while nobody read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::metadata::Broker;
use holdfast_core::record_batch::RecordBatch;
use holdfast_core::replication::Event;
use holdfast_core::{BrokerId, Offset, PartitionId};
use holdfast_log::repair::{DamagedRange, MendError, Misfit, Verified};
use holdfast_log::{Damage, LogError};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::donors::{Answer, Request};
use super::{Repairs, lock};
use crate::partition::{Command, PartitionHandle};

/// Bytes that are verified at once. A repair ends when so many are whole.
const STRETCH: u64 = 1 << 20;
/// How long a repair goes on with damage behind the one that it was asked for, while others wait for it to end.
const TURN: Duration = Duration::from_secs(2);
/// How long what is not known to be committed is waited for.
const COMMIT_PATIENCE: Duration = Duration::from_secs(5);
/// How often a log may change under a repair.
const CHANGES: usize = 8;

/// How a repair ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// What was asked for is whole: repaired, or not damaged (any more).
    Whole,
    /// It is damaged, and somebody may come to give it.
    Unrepaired,
    /// It is damaged, and everybody who could have it says no.
    Lost,
    /// It could not be written: the replica goes out of service.
    Failed,
    /// The replica is gone.
    Gone,
    /// It takes longer.
    Pending,
}

/// A repair that is under way.
#[derive(Debug, Clone)]
pub(super) struct Running {
    /// Where it began.
    from: Offset,
    progress: watch::Receiver<Progress>,
}

#[derive(Debug, Clone, Copy)]
struct Progress {
    /// All from where it began up to here is whole (exclusive).
    reached: Offset,
    outcome: Option<Outcome>,
}

impl Repairs {
    /// Repairs what is damaged at `from` and right behind. Waits for that until `deadline`; it goes on without the caller.
    pub(crate) async fn repair(&self, partition: PartitionId, from: Offset, deadline: Instant) -> Outcome {
        loop {
            let Running { from: began, mut progress } = self.join(partition, from);
            let on_the_way = began <= from;
            let settled = progress.wait_for(|it| it.outcome.is_some() || (on_the_way && it.reached > from));
            let Ok(settled) = timeout_at(deadline, settled).await else { return Outcome::Pending };
            // Where its sender is gone the runtime is, too.
            let Ok(Progress { reached, outcome }) = settled.map(|it| *it) else { return Outcome::Gone };
            match outcome {
                _ if on_the_way && reached > from => return Outcome::Whole,
                Some(outcome) if began == from || outcome == Outcome::Gone => return outcome,
                // Another one that ended before it came here.
                _ => {}
            }
        }
    }

    /// The same without waiting.
    pub(super) fn repair_soon(&self, partition: PartitionId, from: Offset) {
        drop(self.join(partition, from));
    }

    /// The repair of that partition that is under way, or a new one.
    fn join(&self, partition: PartitionId, from: Offset) -> Running {
        let mut running = lock(&self.inner.running);
        if let Some(running) = running.get(&partition) {
            return running.clone();
        }
        let (sender, progress) = watch::channel(Progress { reached: from, outcome: None });
        let begun = Running { from, progress };
        running.insert(partition, begun.clone());
        let turn = Turn { repairs: self.clone(), partition, progress: sender };
        self.inner.runtime.spawn(turn.run(from));
        begun
    }
}

/// The one repair of a partition that is under way.
struct Turn {
    repairs: Repairs,
    partition: PartitionId,
    progress: watch::Sender<Progress>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock(&self.repairs.inner.running).remove(&self.partition);
    }
}

impl Turn {
    async fn run(self, from: Offset) {
        let inner = Arc::clone(&self.repairs.inner);
        // An error would say that it was closed, which nobody does.
        let Ok(_room) = inner.room.acquire().await else { return };
        let mut job = Job {
            turn: &self,
            request: Request::new(self.partition, Offset::ZERO),
            spare: None,
            repaired: Tally::default(),
            changes: 0,
        };
        let outcome = job.run(from).await;
        job.repaired.tell(self.partition);
        let progress = self.progress.clone();
        // First: whoever hears of the end may begin the next one.
        drop(self);
        progress.send_modify(|it| it.outcome = Some(outcome));
    }

    fn reached(&self, end: Offset) {
        self.progress.send_if_modified(|it| {
            let further = end > it.reached;
            it.reached = it.reached.max(end);
            further
        });
    }
}

/// What was repaired in one go.
#[derive(Debug, Default)]
struct Tally {
    /// The first offset, and the one behind the last.
    offsets: Option<(Offset, Offset)>,
    ranges: u64,
    bytes: u64,
    from: BTreeSet<BrokerId>,
}

impl Tally {
    fn tell(&self, partition: PartitionId) {
        if let Some((first, end)) = self.offsets {
            let brokers: Vec<String> = self.from.iter().map(BrokerId::to_string).collect();
            tracing::error!(
                %partition, from = %first, to = %end, ranges = self.ranges, bytes = self.bytes,
                from_brokers = brokers.join(","),
                "the log was damaged on this disk, and was repaired from other brokers: see to the disk"
            );
        }
    }
}

struct Job<'a> {
    turn: &'a Turn,
    request: Request,
    /// What the last answer had more than was needed, and whose it was.
    spare: Option<(BrokerId, Vec<RecordBatch>)>,
    repaired: Tally,
    changes: usize,
}

/// What came of batches that were given.
enum Laid {
    /// Written up to that offset.
    Upto(Offset),
    /// Not the right ones.
    Refused,
    /// More of them are needed.
    Short,
    Ended(Outcome),
}

impl Job<'_> {
    async fn run(&mut self, from: Offset) -> Outcome {
        let partition = self.turn.partition;
        let Some(handle) = self.turn.repairs.inner.partitions.get(partition) else { return Outcome::Gone };
        let (mut at, started) = (from, Instant::now());
        loop {
            if !is_committed(&handle, at).await {
                let gone = handle.status.has_changed().is_err();
                return if gone { Outcome::Gone } else { Outcome::Unrepaired };
            }
            let below = handle.readable_end();
            let reader = handle.reader.clone();
            let verified = blocking(move || reader.verify(at, below, STRETCH)).await;
            let Some(verified) = verified else { return Outcome::Gone };
            let Verified { end, damage, .. } = match verified {
                Ok(verified) => verified,
                // The log begins or ends elsewhere by now: whoever reads is told.
                Err(LogError::OutOfRange { .. } | LogError::TruncatedWhileReading { .. }) => {
                    return Outcome::Whole;
                }
                Err(_) if handle.status.has_changed().is_err() => return Outcome::Gone,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(%partition, %at, error, "the log cannot be looked at for its repair");
                    return Outcome::Unrepaired;
                }
            };
            self.turn.reached(end);
            let Some(range) = damage else { return Outcome::Whole };
            if range.from > from && started.elapsed() > TURN {
                return Outcome::Whole;
            }
            match self.mend(&handle, range).await {
                Ok(behind) => {
                    self.turn.reached(behind);
                    at = behind;
                    if at >= handle.readable_end() {
                        return Outcome::Whole;
                    }
                }
                Err(outcome) => return outcome,
            }
        }
    }

    /// Asks for the range until it is written; returns the offset behind what was.
    async fn mend(&mut self, handle: &Arc<PartitionHandle>, range: DamagedRange) -> Result<Offset, Outcome> {
        let gone = handle.reader.compacted().tombstones_gone_below;
        if gone > self.request.gone {
            // Asked for before those went. Those that go from here on replace a segment, which the log notices.
            self.spare = None;
        }
        self.request.gone = gone;
        if let Some((broker, batches)) = self.spare.take().filter(|_| in_pieces(&range)) {
            let first = batches.partition_point(|batch| batch.header().next_offset() <= range.from);
            let fits = batches.get(first).is_some_and(|batch| batch.header().base_offset == range.from);
            if fits
                && let (Laid::Upto(behind), _) =
                    self.lay(handle, &range, broker, batches[first..].to_vec()).await?
            {
                return Ok(behind);
            }
        }
        let partition = self.turn.partition;
        let inner = Arc::clone(&self.turn.repairs.inner);
        let (mut answers, mut never) = (Vec::new(), true);
        for broker in inner.donors.of(partition) {
            let why = match inner.donors.ask(&broker, &mut self.request, &range).await {
                Answer::Batches(batches) => match self.lay_all(handle, &range, &broker, batches).await? {
                    Some(behind) => return Ok(behind),
                    None => "its batches do not belong there".to_owned(),
                },
                Answer::Never(why) => why.to_owned(),
                Answer::Later(why) => {
                    never = false;
                    why
                }
            };
            answers.push(told(&broker, &why));
        }
        inner.stats.unrepaired.add(1);
        lock(&inner.unrepaired).insert(partition);
        let error = &range as &dyn std::error::Error;
        tracing::error!(
            %partition, error, answers = answers.join("; "),
            "the log is damaged on this disk, and no other broker gave what is missing: it is tried again"
        );
        Err(if never { Outcome::Lost } else { Outcome::Unrepaired })
    }

    /// Writes what a broker gave, and asks it for more as long as that is needed. `None` where it is not taken.
    async fn lay_all(
        &mut self,
        handle: &Arc<PartitionHandle>,
        range: &DamagedRange,
        broker: &Broker,
        mut batches: Vec<RecordBatch>,
    ) -> Result<Option<Offset>, Outcome> {
        let inner = Arc::clone(&self.turn.repairs.inner);
        loop {
            let (laid, mut given) = self.lay(handle, range, broker.id, batches).await?;
            match laid {
                Laid::Upto(behind) => return Ok(Some(behind)),
                Laid::Short if inner.donors.ask_more(broker, &mut self.request, range, &mut given).await => {}
                _ => return Ok(None),
            }
            batches = given;
        }
    }

    async fn lay(
        &mut self,
        handle: &Arc<PartitionHandle>,
        range: &DamagedRange,
        broker: BrokerId,
        batches: Vec<RecordBatch>,
    ) -> Result<(Laid, Vec<RecordBatch>), Outcome> {
        let (reader, wanted) = (handle.reader.clone(), range.clone());
        let laid = blocking(move || (reader.mend(&wanted, &batches), batches)).await;
        let Some((mended, batches)) = laid else { return Err(Outcome::Gone) };
        match self.judge(handle, range, broker, mended).await {
            Laid::Upto(behind) => {
                self.note(range.from, behind, broker, &batches);
                self.spare = Some((broker, batches));
                Ok((Laid::Upto(behind), Vec::new()))
            }
            Laid::Ended(outcome) => Err(outcome),
            laid => Ok((laid, batches)),
        }
    }

    async fn judge(
        &mut self,
        handle: &PartitionHandle,
        range: &DamagedRange,
        broker: BrokerId,
        mended: Result<Offset, MendError>,
    ) -> Laid {
        let partition = self.turn.partition;
        let error = match mended {
            Ok(behind) => return Laid::Upto(behind),
            Err(error) => error,
        };
        let gone = handle.status.has_changed().is_err();
        match &error {
            _ if gone => Laid::Ended(Outcome::Gone),
            MendError::DoesNotFit { problem: Misfit::Short { .. }, .. } => Laid::Short,
            MendError::DoesNotFit { problem: Misfit::Unsealed, .. } if self.changes < CHANGES => {
                self.changes += 1;
                self.seal().await;
                Laid::Upto(range.from)
            }
            MendError::DoesNotFit { .. } => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%partition, %broker, error, "what a broker gave for a repair is not taken");
                Laid::Refused
            }
            // Cut, and maybe whole by now.
            MendError::Changed if self.changes < CHANGES => {
                self.changes += 1;
                Laid::Upto(range.from)
            }
            MendError::Changed => Laid::Ended(Outcome::Unrepaired),
            MendError::Log(error) if error.is_full() || matches!(error, LogError::Poisoned) => {
                Laid::Ended(Outcome::Unrepaired)
            }
            MendError::Log(_) => {
                tracing::error!(
                    %partition, range = %range, error = &error as &dyn std::error::Error,
                    "a damaged part of the log cannot be written anew: this replica goes out of service"
                );
                // An error says that the broker ends.
                let failed = Command::Event(partition, Event::StorageFailed);
                let _ = self.turn.repairs.inner.shards.of(partition).send(failed).await;
                Laid::Ended(Outcome::Failed)
            }
        }
    }

    /// Has the segment that is appended to sealed, where there is room for another.
    async fn seal(&self) {
        let (partition, (reply, sealed)) = (self.turn.partition, oneshot::channel());
        let _ = self.turn.repairs.inner.shards.of(partition).send(Command::Seal { partition, reply }).await;
        // An error says that the replica is gone, which shows by itself.
        let _ = sealed.await;
    }

    fn note(&mut self, from: Offset, behind: Offset, broker: BrokerId, batches: &[RecordBatch]) {
        let written = batches.iter().map(RecordBatch::header).filter(|header| header.next_offset() <= behind);
        let bytes = written.map(|header| u64::from(header.length)).sum();
        if behind == from {
            return; // The log has changed, and nothing was written.
        }
        let tally = &mut self.repaired;
        let (first, _) = tally.offsets.unwrap_or((from, behind));
        tally.offsets = Some((first.min(from), behind));
        tally.ranges += 1;
        tally.bytes += bytes;
        tally.from.insert(broker);
        let stats = &self.turn.repairs.inner.stats;
        stats.repaired.add(1);
        stats.repaired_bytes.add(bytes);
    }
}

/// Whether a part of the range may be written alone. Not of a sector that cannot be read: the system would read what is left
/// of it, so all batches in it have to come at once.
pub(super) fn in_pieces(range: &DamagedRange) -> bool {
    !matches!(range.source, Damage::Unreadable { .. })
}

/// Waits until the batch at that offset is known to be committed: what lies above may be cut. False where that takes too
/// long, or the replica is gone.
async fn is_committed(handle: &PartitionHandle, at: Offset) -> bool {
    if handle.readable_end() > at {
        return true;
    }
    let mut status = handle.status.clone();
    let passed = status.wait_for(|status| status.high_watermark > at);
    matches!(timeout(COMMIT_PATIENCE, passed).await, Ok(Ok(_))) && handle.readable_end() > at
}

fn told(broker: &Broker, why: &str) -> String {
    format!("broker {}: {why}", broker.id)
}

/// On a thread that may wait for the disk. `None` where the runtime ends.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
