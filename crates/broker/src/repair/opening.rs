//! Repairing a log that cannot be opened (R33): before it is opened again, or put aside because nobody has what is missing.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_core::record_batch::RecordBatch;
use holdfast_core::{BrokerId, LeaderEpoch, Offset, PartitionId};
use holdfast_log::inspect::compacted;
use holdfast_log::repair::{DamagedLog, DamagedRange, MendError, Misfit};
use holdfast_log::{LogError, Recovery, ReplicaLogError};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{sleep, timeout};

use super::donors::{Answer, Request};
use super::live::{blocking, in_pieces};
use super::{Repairs, lock};
use crate::partition::{Command, ShardSender};

/// Pauses between two rounds of asking everybody.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A log to be repaired before it is opened.
pub(crate) struct Damaged {
    pub(crate) partition: PartitionId,
    /// Tells this repair from others of the partition.
    pub(crate) number: u64,
    /// Why it could not be opened.
    pub(crate) error: ReplicaLogError,
    /// What has to be there.
    pub(crate) recovery: Recovery,
    /// What is known to be committed (exclusive): so much is given to others.
    pub(crate) high_watermark: Offset,
    /// No later epoch may be in it.
    pub(crate) promise: LeaderEpoch,
    /// Where the end is told.
    pub(crate) reply: ShardSender,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repaired {
    /// What was damaged is as it was. Whether more may be gone the log says itself.
    Done,
    /// Nobody has what is missing, or it cannot be told what that is.
    InVain,
}

/// A repair under way. Dropped, it is over: nothing is written into the folder any more.
pub(crate) struct OpeningRepair {
    may_write: Arc<Mutex<bool>>,
    give_up: watch::Sender<bool>,
    partition: PartitionId,
    repairs: Repairs,
}

impl OpeningRepair {
    /// What is not to be had now is not waited for: an operator wants the replica as it is (R37).
    pub(crate) fn hurry(&self) {
        self.give_up.send_replace(true);
    }
}

impl Drop for OpeningRepair {
    fn drop(&mut self) {
        // Waits for a write that is under way. The folder may be deleted, and made anew, right after.
        *lock(&self.may_write) = false;
        lock(&self.repairs.inner.closed).remove(&self.partition);
    }
}

impl Repairs {
    /// Begins to repair a log that is not open. Others are given what is whole of it meanwhile.
    pub(crate) fn begin(&self, damaged: Damaged) -> OpeningRepair {
        let (partition, may_write) = (damaged.partition, Arc::new(Mutex::new(true)));
        let (give_up, hurry) = watch::channel(false);
        lock(&self.inner.closed).insert(partition, damaged.high_watermark);
        tracing::error!(
            %partition, error = &damaged.error as &dyn std::error::Error,
            "the log is damaged on this disk: it is repaired from other brokers before it is opened"
        );
        let job =
            Job { repairs: self.clone(), damaged, may_write: Arc::clone(&may_write), hurry, room: None };
        self.inner.runtime.spawn(job.run());
        OpeningRepair { may_write, give_up, partition, repairs: self.clone() }
    }
}

struct Job {
    repairs: Repairs,
    damaged: Damaged,
    may_write: Arc<Mutex<bool>>,
    hurry: watch::Receiver<bool>,
    /// None while it waits.
    room: Option<OwnedSemaphorePermit>,
}

/// What came of batches that were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// They were taken.
    Done,
    /// More of them are needed.
    Short,
    /// They do not belong there.
    Refused,
}

/// Why it does not go on.
enum End {
    /// Nobody has it, or it cannot be written.
    InVain,
    /// The replica is deleted, or the runtime ends.
    Over,
}

impl Job {
    async fn run(mut self) {
        let (partition, number) = (self.damaged.partition, self.damaged.number);
        let repaired = match self.repair().await {
            Ok(repaired) => repaired,
            Err(End::InVain) => Repaired::InVain,
            Err(End::Over) => return,
        };
        self.room = None;
        // An error says that the shard is gone.
        let _ = self.damaged.reply.send(Command::Repaired { partition, number, repaired }).await;
    }

    /// Waits for its turn.
    async fn enter(&mut self) -> Result<(), End> {
        let room = Arc::clone(&self.repairs.inner.room_closed);
        // An error would say that it was closed, which nobody does.
        self.room = Some(room.acquire_owned().await.map_err(|_| End::Over)?);
        Ok(())
    }

    async fn repair(&mut self) -> Result<Repaired, End> {
        self.enter().await?;
        let partition = self.damaged.partition;
        let mut log = self.look().await?;
        let (mut request, mut spare) = (self.request().await?, Vec::new());
        let (mut ranges, mut from) = (0_u64, Vec::new());
        loop {
            let (looked, next) = blocking(move || {
                let next = log.next_damage();
                (log, next)
            })
            .await
            .ok_or(End::Over)?;
            log = looked;
            let range = match next {
                Ok(Some(range)) => range,
                // Nothing that could be repaired: it would be the same again.
                Ok(None) if ranges == 0 => return Err(End::InVain),
                Ok(None) => break,
                Err(error) => return Err(self.cannot(&error)),
            };
            let broker;
            (log, broker) = self.fill(log, &range, &mut request, &mut spare).await?;
            ranges += 1;
            if !from.contains(&broker) {
                from.push(broker);
            }
        }
        let short = log.was_short();
        let brokers: Vec<String> = from.iter().map(BrokerId::to_string).collect();
        tracing::error!(
            %partition, ranges, short, from_brokers = brokers.join(","),
            "the damaged log was repaired from other brokers: it is opened now; see to the disk"
        );
        Ok(Repaired::Done)
    }

    async fn request(&self) -> Result<Request, End> {
        let (partition, dir) = (self.damaged.partition, Arc::clone(&self.repairs.inner.dir));
        let looking = move || compacted(&*dir.fs(), &dir.partition(partition));
        match blocking(looking).await.ok_or(End::Over)? {
            Ok(compacted) => Ok(Request::new(partition, compacted.tombstones_gone_below)),
            Err(error) => Err(self.cannot(&error)),
        }
    }

    async fn look(&mut self) -> Result<DamagedLog, End> {
        let Damaged { partition, recovery, promise, .. } = self.damaged;
        let dir = Arc::clone(&self.repairs.inner.dir);
        let nothing = ReplicaLogError::Log(LogError::Poisoned);
        let error = std::mem::replace(&mut self.damaged.error, nothing);
        let looking = move || DamagedLog::new(dir.fs(), &dir.partition(partition), recovery, promise, &error);
        let mut log = match blocking(looking).await.ok_or(End::Over)? {
            Ok(Some(log)) => log,
            Ok(None) => return Err(End::InVain),
            Err(error) => return Err(self.cannot(&error)),
        };
        let may_write = Arc::clone(&self.may_write);
        let begun = blocking(move || lock(&may_write).then(|| log.begin().map(|()| log)));
        begun.await.flatten().ok_or(End::Over)?.map_err(|error| self.cannot(&error))
    }

    fn cannot(&self, error: &LogError) -> End {
        let error = error as &dyn std::error::Error;
        tracing::error!(partition = %self.damaged.partition, error, "the damaged log cannot be repaired");
        End::InVain
    }

    /// Asks everybody for a damaged range, again and again, until it is written. Says who gave it.
    async fn fill(
        &mut self,
        mut log: DamagedLog,
        range: &DamagedRange,
        request: &mut Request,
        spare: &mut Vec<(BrokerId, RecordBatch)>,
    ) -> Result<(DamagedLog, BrokerId), End> {
        let first = spare.partition_point(|(_, batch)| batch.header().next_offset() <= range.from);
        if let Some((broker, _)) =
            spare.get(first).filter(|(_, batch)| batch.header().base_offset == range.from && in_pieces(range))
        {
            let (broker, batches): (_, Vec<RecordBatch>) =
                (*broker, spare[first..].iter().map(|(_, batch)| batch.clone()).collect());
            let (filled, written) = self.write(log, &batches).await?;
            log = filled;
            if written == Written::Done {
                return Ok((log, broker));
            }
        }
        spare.clear();
        let mut pause = FIRST_PAUSE;
        let mut told = None;
        loop {
            // Those of an old map may have left long ago: their word is not the last.
            let (mut answers, mut never) = (Vec::new(), self.repairs.inner.donors.are_current());
            for broker in self.repairs.inner.donors.of(self.damaged.partition) {
                let why = match self.repairs.inner.donors.ask(&broker, request, range).await {
                    Answer::Batches(mut batches) => {
                        let donors = &self.repairs.inner.donors;
                        let (mut filled, mut written) = self.write(log, &batches).await?;
                        while written == Written::Short
                            && donors.ask_more(&broker, request, range, &mut batches).await
                        {
                            (filled, written) = self.write(filled, &batches).await?;
                        }
                        log = filled;
                        if written == Written::Done {
                            spare.extend(batches.into_iter().map(|batch| (broker.id, batch)));
                            return Ok((log, broker.id));
                        }
                        "its batches do not belong there".to_owned()
                    }
                    Answer::Never(why) => why.to_owned(),
                    Answer::Later(why) => {
                        never = false;
                        why
                    }
                };
                answers.push(format!("broker {}: {why}", broker.id));
            }
            let answers = answers.join("; ");
            if never || *self.hurry.borrow() {
                self.repairs.inner.stats.unrepaired.add(1);
                let error = range as &dyn std::error::Error;
                let partition = self.damaged.partition;
                tracing::error!(%partition, error, answers, "no other broker has what is damaged here");
                return Err(End::InVain);
            }
            if told.as_ref() != Some(&answers) {
                let partition = self.damaged.partition;
                tracing::warn!(%partition, %range, answers, "waiting for others to give what is damaged here");
                told = Some(answers);
            }
            // Nothing of what was given is held any more: others have their turn.
            self.room = None;
            // Whoever wants it over at once ends the pause.
            let hurried = timeout(pause, self.hurry.changed()).await;
            if matches!(hurried, Ok(Err(_))) {
                return Err(End::Over);
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            self.enter().await?;
        }
    }

    async fn write(
        &self,
        mut log: DamagedLog,
        batches: &[RecordBatch],
    ) -> Result<(DamagedLog, Written), End> {
        let partition = self.damaged.partition;
        loop {
            let (may_write, given) = (Arc::clone(&self.may_write), batches.to_vec());
            let (written, filled) = blocking(move || {
                let allowed = lock(&may_write);
                let filled = allowed.then(|| log.fill(&given));
                drop(allowed);
                (log, filled)
            })
            .await
            .ok_or(End::Over)?;
            log = written;
            match filled {
                None => return Err(End::Over),
                Some(Ok(end)) => {
                    let written = batches.iter().filter(|batch| batch.header().next_offset() <= end);
                    let bytes = written.map(|batch| batch.bytes().len() as u64).sum();
                    self.repairs.inner.stats.repaired.add(1);
                    self.repairs.inner.stats.repaired_bytes.add(bytes);
                    return Ok((log, Written::Done));
                }
                Some(Err(MendError::DoesNotFit { problem: Misfit::Short { .. }, .. })) => {
                    return Ok((log, Written::Short));
                }
                Some(Err(error @ (MendError::DoesNotFit { .. } | MendError::Changed))) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(%partition, error, "what a broker gave for a repair is not taken");
                    return Ok((log, Written::Refused));
                }
                Some(Err(MendError::Log(error))) if error.is_full() => sleep(LONGEST_PAUSE).await,
                Some(Err(MendError::Log(error))) => return Err(self.cannot(&error)),
            }
        }
    }
}
