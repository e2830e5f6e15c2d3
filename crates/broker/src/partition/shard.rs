//! A shard: one thread that runs the rules of many partitions and writes their logs.
//!
//! It ends without ceremony when its token is cancelled, as the end of a process would; `Command::Close` ends it in
//! order.

mod damaged;
mod deleting;
mod rebuild;
mod retention;
mod unopened;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use holdfast_core::metadata::Durability;
use holdfast_core::replication::{
    Assignment, Event, Loaded, ProduceError, Replica, ReplicaConfig, StoredReplica,
};
use holdfast_core::{Incarnation, PartitionId, ReplicaId, Term, Timestamp, TopicId};
use holdfast_log::LogConfig;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::driver::Driver;
use super::{Command, Newest, Partitions, ShardSender, open};
use crate::clock::Clock;
use crate::data_dir::DataDir;
use crate::disk_space::DiskSpace;
use crate::fatal::Fatal;
use crate::flusher::Flusher;
use crate::peers::Peers;
use crate::repair::Repairs;
use crate::reports::Reports;
use crate::state_store::StateStore;
use damaged::DamagedReplicas;
use deleting::Deleting;
use rebuild::Failures;
use retention::Retained;

/// Commands taken at once.
const BATCH: usize = 256;
/// How often watermarks are noted.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// What a shard works with.
pub(crate) struct ShardContext {
    pub(crate) clock: Clock,
    pub(crate) dir: Arc<DataDir>,
    pub(crate) me: ReplicaId,
    pub(crate) incarnation: Incarnation,
    pub(crate) log: LogConfig,
    pub(crate) replica: ReplicaConfig,
    pub(crate) states: StateStore,
    pub(crate) flusher: Flusher,
    pub(crate) space: DiskSpace,
    pub(crate) peers: Peers,
    /// Of the partitions led here.
    pub(crate) newest: Newest,
    pub(crate) reports: Reports,
    pub(crate) partitions: Partitions,
    pub(crate) repairs: Repairs,
    /// Runs reads that may wait for the disk.
    pub(crate) blocking: Handle,
    /// For what is being read for other replicas, in bytes.
    pub(crate) read_room: Arc<Semaphore>,
    /// Turns at removing what was trimmed.
    pub(crate) removals: Arc<Semaphore>,
    /// Where answers to this shard go.
    pub(crate) own: ShardSender,
    pub(crate) killed: CancellationToken,
    pub(crate) fatal: Fatal,
}

/// The partitions of one thread.
pub(crate) struct Shard {
    context: ShardContext,
    drivers: BTreeMap<PartitionId, Driver>,
    /// Deadlines of the drivers, earliest first.
    deadlines: BTreeSet<(Timestamp, PartitionId)>,
    deadline_of: BTreeMap<PartitionId, Timestamp>,
    stored: BTreeMap<PartitionId, StoredReplica>,
    /// Registers of replicas that wait for room on the disk to be opened.
    unopened: BTreeMap<PartitionId, (Durability, Assignment)>,
    /// Of replicas whose log failed in this run.
    failures: BTreeMap<PartitionId, Failures>,
    /// Replicas that wait for the repair of their logs to be opened.
    damaged: DamagedReplicas,
    /// Replicas whose folders are being removed.
    deleting: Deleting,
    /// Replicas deleted in this run.
    deleted: u32,
    checkpoint_at: Instant,
    retained: Retained,
}

impl Shard {
    /// Starts the thread. `stored` is what the state store holds of this shard's partitions.
    pub(crate) fn start(
        number: usize,
        context: ShardContext,
        stored: BTreeMap<PartitionId, StoredReplica>,
        commands: mpsc::Receiver<Command>,
    ) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let watched = context.fatal.watch_thread();
        thread::Builder::new().name(format!("shard-{number}")).spawn(move || {
            let _watched = watched;
            runtime.block_on(async move {
                let shard = Shard {
                    context,
                    drivers: BTreeMap::new(),
                    deadlines: BTreeSet::new(),
                    deadline_of: BTreeMap::new(),
                    stored,
                    unopened: BTreeMap::new(),
                    damaged: DamagedReplicas::default(),
                    failures: BTreeMap::new(),
                    deleting: Deleting::default(),
                    deleted: 0,
                    checkpoint_at: Instant::now() + CHECKPOINT_INTERVAL,
                    retained: Retained::new(),
                };
                shard.run(commands).await;
            });
        })?;
        Ok(())
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let killed = self.context.killed.clone();
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let wake = self.next_wake();
            tokio::select! {
                biased;
                () = killed.cancelled() => {
                    self.context.flusher.close();
                    self.context.states.close();
                    return;
                }
                count = commands.recv_many(&mut batch, BATCH) => if count == 0 { return },
                () = tokio::time::sleep_until(wake) => {}
            }
            let mut touched = BTreeSet::new();
            let mut closing = None;
            for command in batch.drain(..) {
                match command {
                    Command::Close(done) => closing = Some(done),
                    command => self.take(command, &mut touched),
                }
            }
            self.fire_timers(&mut touched);
            for partition in touched {
                self.perform(partition);
            }
            self.checkpoint_if_due();
            if let Some(done) = closing {
                tokio::select! {
                    () = killed.cancelled() => {}
                    () = self.close(done, &mut commands) => {}
                }
                return;
            }
        }
    }

    fn take(&mut self, command: Command, touched: &mut BTreeSet<PartitionId>) {
        let now = self.context.clock.now();
        match command {
            Command::Event(partition, event) | Command::Charged { partition, event, .. } => {
                let room = self.context.space.room();
                if let Some(driver) = self.drivers.get_mut(&partition).filter(|_| room.takes(&event)) {
                    driver.handle(now, event);
                    touched.insert(partition);
                }
            }
            Command::Produce { partition, batch, reply, .. } => match self.drivers.get_mut(&partition) {
                Some(driver) => {
                    driver.produce(&self.context, batch, reply);
                    touched.insert(partition);
                }
                // An error says that the caller went away.
                None => _ = reply.send(Err(ProduceError::NotLeader { leader: None })),
            },
            Command::Flushed(partition, flushed) => {
                if let Some(driver) = self.drivers.get_mut(&partition) {
                    driver.flushed(now, &flushed);
                    touched.insert(partition);
                }
            }
            Command::Assign { partition, durability, assignment } => {
                self.assign(now, partition, durability, assignment);
                touched.insert(partition);
            }
            Command::Retain(topic, retention) => self.retained.set(topic, retention),
            Command::BeginPass { partition, compaction, reply } => {
                let now_ms = self.retained.now_ms();
                let driver = self.drivers.get_mut(&partition);
                let bounds = driver.and_then(|driver| driver.begin_pass(&self.context, compaction, now_ms));
                // An error says that the broker is ending.
                let _ = reply.send(bounds);
                touched.insert(partition);
            }
            Command::PassEnded(partition) => {
                if let Some(driver) = self.drivers.get_mut(&partition) {
                    driver.end_pass(&self.context);
                    touched.insert(partition);
                }
            }
            Command::Seal { partition, reply } => {
                if let Some(driver) = self.drivers.get_mut(&partition)
                    && driver.seal(&self.context, self.retained.now_ms(), Duration::ZERO)
                {
                    touched.insert(partition);
                }
                // An error says that the repair has ended.
                let _ = reply.send(());
            }
            Command::DeleteReplica(partition, term) => self.delete_moved(partition, term),
            Command::DeleteTopic { topic, folders } => self.delete_topic(topic, folders),
            Command::FoldersRemoved { removed, left } => self.folders_removed(&removed, &left),
            Command::Rebuild { partition, failure } => {
                self.rebuild(partition, failure);
                touched.insert(partition);
            }
            Command::Repaired { partition, number, repaired } => {
                self.take_repaired(partition, number, repaired);
                touched.insert(partition);
            }
            Command::PeerConnected(broker) => {
                for (&partition, driver) in &mut self.drivers {
                    driver.handle(now, Event::PeerConnected { broker });
                    touched.insert(partition);
                }
            }
            Command::Close(_) => {} // taken by `run`
        }
    }

    /// R46: a replica is created only when the register names it.
    fn assign(
        &mut self,
        now: Timestamp,
        partition: PartitionId,
        durability: Durability,
        assignment: Assignment,
    ) {
        if !self.drivers.contains_key(&partition) {
            if self.waits_for_deletion(partition, durability, &assignment) {
                return;
            }
            if self.waits_for_repair(partition, durability, &assignment) {
                return;
            }
            match self.open(now, partition, durability, &assignment) {
                Ok(driver) => {
                    // Only now: a second attempt, after one that failed, must know what was promised.
                    self.stored.remove(&partition);
                    if self.unopened.remove(&partition).is_some() {
                        self.context.space.granted();
                    }
                    self.damaged.remove(partition);
                    self.context.partitions.insert(partition, driver.handle_for_readers(&self.context));
                    self.drivers.insert(partition, driver);
                }
                Err(error) if self.waits_for_room(partition, durability, assignment.clone(), &error) => {
                    return;
                }
                Err(error) => {
                    let error = self.begin_repair(partition, durability, &assignment, error);
                    let Some(error) = error else { return };
                    tracing::error!(
                        %partition, error = &error as &dyn std::error::Error,
                        "replica cannot be opened and stays out of service: mend its folder and restart the broker"
                    );
                    return;
                }
            }
        }
        self.context.reports.assigned(partition, &assignment);
        if let Some(driver) = self.drivers.get_mut(&partition) {
            driver.handle(now, Event::Assign(assignment));
        }
    }

    fn open(
        &self,
        now: Timestamp,
        partition: PartitionId,
        durability: Durability,
        assignment: &Assignment,
    ) -> Result<Driver, open::OpenError> {
        let ShardContext { dir, log, me, replica, .. } = &self.context;
        let incarnation = self.incarnation_of(partition);
        let stored = self.stored.get(&partition);
        let known = open::Known { stored, assignment, repaired: self.damaged.repaired(partition) };
        let (log, loaded) = open::open(dir, log, partition, *me, incarnation, known)?;
        let loaded = Loaded { life: self.deleted, ..loaded };
        let config = ReplicaConfig { durability, ..replica.clone() };
        let noted = stored.map(|stored| stored.checkpoint_of(&loaded)).unwrap_or_default();
        if stored.is_some_and(|stored| stored.checkpoint != noted) {
            self.context.states.checkpoint(partition, noted);
        }
        Ok(Driver::new(partition, Replica::new(now, config, loaded), log, noted))
    }

    /// `folders` are what was found of it on the disk.
    fn delete_topic(&mut self, topic: TopicId, folders: Vec<PartitionId>) {
        self.deleting.forget_registers(topic);
        let first = PartitionId { topic, index: 0 };
        let last = PartitionId { topic, index: u32::MAX };
        let open = self.drivers.range(first..=last).map(|(&id, _)| id);
        let open = open.chain(self.unopened.range(first..=last).map(|(&id, _)| id));
        // And those that could not be opened, or have no folder any more.
        let known: BTreeSet<PartitionId> =
            open.chain(self.stored.range(first..=last).map(|(&id, _)| id)).chain(folders).collect();
        for partition in known {
            self.delete(partition);
        }
    }

    /// R46. A replica that has promised a later term belongs to the partition again: the register seen is an old one,
    /// as a start from a saved map may find.
    fn delete_moved(&mut self, partition: PartitionId, term: Term) {
        let promised = match self.drivers.get(&partition) {
            Some(driver) => Some(driver.promised_term()),
            None => self.stored.get(&partition).map(|stored| stored.state.promise.term),
        };
        self.unopened.retain(|&id, (_, known)| id != partition || known.term > term);
        self.deleting.forget_register(partition, term);
        if promised.is_some_and(|promised| promised <= term) {
            tracing::info!(%partition, %term, "the partition has moved to other brokers: deleting the replica here");
            self.delete(partition);
        }
    }

    fn delete(&mut self, partition: PartitionId) {
        self.deleted += 1;
        self.drivers.remove(&partition);
        self.stored.remove(&partition);
        self.unopened.remove(&partition);
        self.failures.remove(&partition);
        self.retained.forget(partition);
        self.damaged.remove(partition);
        self.forget_deadline(partition);
        self.context.partitions.remove(partition);
        self.context.newest.forget(partition);
        self.context.reports.forget(partition);
        self.remove_folder_later(partition);
    }

    fn perform(&mut self, partition: PartitionId) {
        let Some(driver) = self.drivers.get_mut(&partition) else { return };
        driver.perform(&self.context);
        self.reschedule(partition);
        self.rebuild_if_failed(partition);
    }

    fn reschedule(&mut self, partition: PartitionId) {
        let Some(driver) = self.drivers.get(&partition) else { return };
        let deadline = driver.next_deadline();
        if self.deadline_of.get(&partition).copied() == deadline {
            return;
        }
        self.forget_deadline(partition);
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, partition));
            self.deadline_of.insert(partition, deadline);
        }
    }

    fn forget_deadline(&mut self, partition: PartitionId) {
        if let Some(deadline) = self.deadline_of.remove(&partition) {
            self.deadlines.remove(&(deadline, partition));
        }
    }

    fn next_wake(&self) -> Instant {
        let deadline =
            self.deadlines.first().map(|&(at, _)| Instant::from_std(self.context.clock.instant(at)));
        deadline.map_or(self.checkpoint_at, |deadline| deadline.min(self.checkpoint_at))
    }

    fn fire_timers(&mut self, touched: &mut BTreeSet<PartitionId>) {
        let now = self.context.clock.now();
        while let Some(&(at, partition)) = self.deadlines.first() {
            if at > now {
                return;
            }
            self.forget_deadline(partition);
            if let Some(driver) = self.drivers.get_mut(&partition) {
                driver.handle(now, Event::Timer);
                touched.insert(partition);
            }
        }
    }

    fn checkpoint_if_due(&mut self) {
        if Instant::now() >= self.checkpoint_at {
            self.checkpoint_at = Instant::now() + CHECKPOINT_INTERVAL;
            self.checkpoint();
            let wall_clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let wall_clock_ms = i64::try_from(wall_clock.as_millis()).unwrap_or(i64::MAX);
            for driver in self.drivers.values_mut() {
                driver.maintain_log(&self.context, wall_clock_ms);
            }
            self.open_waiting();
            self.retain_if_due();
        }
    }

    fn checkpoint(&mut self) {
        for (&partition, driver) in &mut self.drivers {
            if let Some(checkpoint) = driver.checkpoint() {
                self.context.states.checkpoint(partition, checkpoint);
            }
        }
    }

    /// Whether an earlier run that was killed left a log here that this one never opened: nobody flushed what is in it.
    fn left_unflushed(&self) -> bool {
        let dir = &self.context.dir;
        !dir.was_clean() && self.stored.keys().any(|&partition| dir.may_hold(partition))
    }

    /// Everything that was written is flushed; the answer says that it was. Without it the next start takes the end
    /// for a crash, which is always right.
    async fn close(&mut self, done: oneshot::Sender<()>, commands: &mut mpsc::Receiver<Command>) {
        // What a flush that still runs has taken over is not to be found in the log any more: its end is awaited.
        // Whatever else comes is dropped, and whoever waits for its answer hears so.
        while self.drivers.values().any(Driver::is_flushing) {
            match commands.recv().await {
                Some(Command::Flushed(partition, flushed)) => {
                    if let Some(driver) = self.drivers.get_mut(&partition) {
                        driver.flushed(self.context.clock.now(), &flushed);
                    }
                }
                Some(_) => {}
                None => return,
            }
        }
        // Every one, also after one that failed.
        let failed =
            self.drivers.values_mut().filter_map(|driver| (!driver.flush_for_close()).then_some(())).count();
        self.checkpoint();
        if failed == 0 && !self.left_unflushed() {
            // An error says that nobody waits any more.
            let _ = done.send(());
        }
    }
}
