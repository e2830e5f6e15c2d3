//! The loop around the ledger: observations from the queue in, records into history and files.

use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_core::metadata::ClusterMap;
use tokio_util::sync::CancellationToken;

use super::Ledger;
use super::history::History;
use super::observation::{Moment, Observation, Observations, Observer};
use super::record::Record;
use super::ring::Ring;
use crate::config::ControllerConfig;
use crate::raft::Stores;
use crate::store::serving::Serving;

/// Observations that are taken in at a time before others may look.
const BATCH: usize = 256;

/// What the task changes and the service reads.
#[derive(Debug)]
pub(crate) struct Book {
    inner: Mutex<(Ledger, History)>,
}

impl Book {
    /// The newest records first, those under way as they stand now.
    pub(crate) fn newest(&self, limit: usize) -> Vec<Record> {
        let inner = self.lock();
        let (ledger, history) = &*inner;
        let mut under_way: Vec<Record> = ledger.under_way().collect();
        let mut current = |known: &Record| {
            let position = under_way.iter().position(|record| record.key() == known.key());
            position.map_or_else(|| known.clone(), |position| under_way.swap_remove(position))
        };
        history.newest().take(limit).map(&mut current).collect()
    }

    fn lock(&self) -> MutexGuard<'_, (Ledger, History)> {
        // Records are only ever looked at: a panic in between cannot make them worse than incomplete.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A ledger that observes and does not run yet: observations wait.
#[derive(Debug)]
pub(crate) struct LedgerTask {
    observer: Observer,
    observations: Observations,
    book: Arc<Book>,
    serving: Arc<Serving>,
    files: Option<SyncSender<Record>>,
}

impl LedgerTask {
    /// Loads what is on disk, and has the ledger told of what `stores` apply from now on. Blocks. `hold` is let go with
    /// the last record written.
    pub(crate) fn open(config: &ControllerConfig, stores: &mut Stores, hold: Arc<dyn Send + Sync>) -> Self {
        let (observer, observations) = Observer::new();
        stores.observe(observer.clone());
        let serving = stores.serving();
        let ring = Ring::new(&config.data_dir);
        let mut history = History::default();
        ring.load().into_iter().for_each(|record| history.keep(record));
        let silence = config.session_timeout / 2;
        let ledger =
            Ledger::new(config.id, config.voters.len(), silence, serving.with_map(ClusterMap::clone));
        let book = Arc::new(Book { inner: Mutex::new((ledger, history)) });
        LedgerTask { observer, observations, book, serving, files: ring.start(hold) }
    }

    /// Where to tell it what is seen.
    pub(crate) fn observer(&self) -> Observer {
        self.observer.clone()
    }

    /// What it records.
    pub(crate) fn book(&self) -> Arc<Book> {
        Arc::clone(&self.book)
    }

    /// Runs until cancelled.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = self.observations.queue.recv_many(&mut batch, BATCH) => self.take(&mut batch),
            }
        }
    }

    fn take(&self, batch: &mut Vec<(Moment, Observation)>) {
        let dropped = self.observations.take_dropped();
        let mut inner = self.book.lock();
        let (ledger, history) = &mut *inner;
        let mut follows = dropped == 0;
        for (moment, observation) in batch.drain(..) {
            follows &= ledger.handle(moment, observation);
        }
        if !follows {
            ledger.resume(self.serving.with_map(ClusterMap::clone));
        }
        let mut unwritten = 0_u64;
        while let Some(record) = ledger.next_record() {
            let refused = |files: &SyncSender<Record>| files.try_send(record.clone()).is_err();
            unwritten += u64::from(self.files.as_ref().is_some_and(refused));
            history.keep(record);
        }
        drop(inner);
        if dropped + unwritten > 0 {
            tracing::warn!(dropped, unwritten, "the ledger does not keep up: its records may be incomplete");
        }
    }
}
