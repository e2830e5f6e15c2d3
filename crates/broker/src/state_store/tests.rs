//! The journal of promises on files in memory that fail and crash.

use std::sync::Arc;

use holdfast_core::{LeaderEpoch, Offset, Term, TopicId};
use holdfast_log::MemFs;
use holdfast_log::fs::mem::{Fault, OperationKind};

use super::*;
use crate::partition::shard_queue;

const PARTITION: PartitionId = PartitionId { topic: TopicId(1), index: 0 };

fn promise(term: u32) -> DurableState {
    DurableState {
        promise: LeaderEpoch::first(Term(term)),
        assignment: None,
        nonvoter: false,
        recovered: None,
    }
}

/// One run of the process.
struct Run {
    opened: Opened,
    fatal: Fatal,
}

impl Run {
    fn begin(fs: &MemFs, boot_id: &str) -> Result<Run, StateStoreError> {
        let fatal = Fatal::new();
        let dir = Arc::new(DataDir::in_memory(Arc::new(fs.clone()), boot_id)?);
        let opened = StateStore::open(&dir, &fatal)?;
        Ok(Run { opened, fatal })
    }

    /// Asks for a state, and waits until the partition hears that it is durable; `None` where the journal has ended.
    fn persist(&self, state: DurableState) -> Option<()> {
        let (sender, mut told) = shard_queue();
        self.opened.store.persist(PARTITION, 1, state, None, sender);
        let command = told.blocking_recv()?;
        assert!(matches!(command, Command::Event(PARTITION, Event::Persisted { number: 1 })));
        Some(())
    }

    /// Everything asked for is written, and nothing more.
    fn end(self) {
        self.opened.store.close();
        self.opened.thread.join().unwrap();
    }
}

/// The machine was booted since the last run, so that what was not flushed may be gone. Whatever fails while that is
/// noted, and wherever it is cut off: no later run takes the tails for whole.
#[test]
fn a_new_boot_is_noted_only_after_the_tails_that_it_may_have_taken() {
    for cut in [false, true] {
        for after in 0.. {
            let fs = MemFs::new();
            let first = Run::begin(&fs, "boot 1").unwrap();
            first.persist(promise(3)).unwrap();
            first.end();
            fs.crash();
            fs.inject(Fault { kind: None, after, lasting: cut });
            let second = Run::begin(&fs, "boot 2");
            if let Ok(second) = second {
                assert!(second.opened.stored[&PARTITION].tail_lost && after > 3, "nothing failed");
                second.end();
                break;
            }
            if cut {
                fs.crash_keeping(after);
            }
            let boot = if cut { "boot 3" } else { "boot 2" };
            let third = Run::begin(&fs, boot).unwrap();
            let stored = &third.opened.stored[&PARTITION];
            assert!(stored.tail_lost, "operation {after} failed, cut {cut}: the lost tail is forgotten");
            assert_eq!(stored.state, promise(3));
            third.end();
        }
    }
}

/// A power cut in the middle of what was never flushed: the journal opens, and what was told to be durable is there.
#[test]
fn a_torn_tail_takes_no_promise_that_was_told() {
    for seed in 0..200 {
        let fs = MemFs::new();
        let run = Run::begin(&fs, "boot 1").unwrap();
        run.persist(promise(1)).unwrap();
        run.persist(promise(2)).unwrap();
        for offset in 1..20 {
            let checkpoint = Checkpoint { high_watermark: Offset(offset), durable_end: Offset(offset) };
            run.opened.store.checkpoint(PARTITION, checkpoint);
        }
        run.end();
        fs.crash_keeping(seed);
        let again = Run::begin(&fs, "boot 2").unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let stored = &again.opened.stored[&PARTITION];
        assert_eq!(stored.state, promise(2), "seed {seed}");
        assert!(stored.checkpoint.high_watermark <= Offset(19), "seed {seed}");
        again.end();
    }
}

/// A log is cut below what was noted of it only when that is taken back: with the state that says so, in one flush.
#[test]
fn what_a_state_takes_back_is_durable_with_it() {
    let fs = MemFs::new();
    let run = Run::begin(&fs, "boot 1").unwrap();
    run.persist(promise(1)).unwrap();
    let noted = Checkpoint { high_watermark: Offset(9), durable_end: Offset(7) };
    run.opened.store.checkpoint(PARTITION, noted);
    run.persist(promise(2)).unwrap();
    let (sender, mut told) = shard_queue();
    run.opened.store.persist(PARTITION, 1, promise(3), noted.taken_back(Offset(4)), sender);
    told.blocking_recv().unwrap();
    fs.crash();
    let stored = &Run::begin(&fs, "boot 1").unwrap().opened.stored[&PARTITION];
    assert_eq!((stored.state.clone(), stored.checkpoint.high_watermark), (promise(3), Offset(4)));
    assert_eq!(stored.checkpoint.durable_end, Offset(4));
}

/// A promise that is not on disk is told to nobody, and the process ends: it can keep no other either.
#[tokio::test]
async fn a_promise_that_cannot_be_written_is_fatal_and_told_to_nobody() {
    for kind in [OperationKind::Write, OperationKind::SyncData] {
        let fs = MemFs::new();
        let run = Run::begin(&fs, "boot 1").unwrap();
        fs.inject(Fault { kind: Some(kind), after: 0, lasting: false });
        let fatal = run.fatal.clone();
        let told = tokio::task::spawn_blocking(move || {
            let told = run.persist(promise(7));
            assert!(!run.opened.thread.join().unwrap(), "the end of the run is no orderly one");
            // The next write would succeed: what failed is not tried again.
            let (sender, mut next) = shard_queue();
            run.opened.store.persist(PARTITION, 1, promise(8), None, sender);
            (told, next.try_recv().is_err())
        });
        assert!(fatal.wait().await.contains("promises cannot be kept"));
        assert_eq!(told.await.unwrap(), (None, true), "{kind:?}");
    }
}

/// Nobody hears of a promise that found no room, the process goes on, and what comes meanwhile joins what waits.
#[test]
fn what_finds_no_room_waits_and_is_told_when_it_is_durable() {
    let fs = MemFs::new();
    let run = Run::begin(&fs, "boot 1").unwrap();
    run.persist(promise(1)).unwrap();
    fs.set_capacity(Some(fs.used() + 10));
    let (sender, mut told) = shard_queue();
    let noted = Checkpoint { high_watermark: Offset(9), durable_end: Offset(7) };
    let before = fs.operations();
    run.opened.store.persist(PARTITION, 2, promise(2), None, sender);
    while fs.operations() == before {
        std::thread::yield_now();
    }
    run.opened.store.checkpoint(PARTITION, noted);
    assert!(told.try_recv().is_err(), "told before it was durable");
    fs.set_capacity(None);
    assert!(matches!(told.blocking_recv(), Some(Command::Event(PARTITION, Event::Persisted { number: 2 }))));
    run.persist(promise(3)).unwrap();
    run.end();
    fs.crash();
    let stored = &Run::begin(&fs, "boot 1").unwrap().opened.stored[&PARTITION];
    assert_eq!((stored.state.clone(), stored.checkpoint), (promise(3), noted));
}

#[test]
fn a_later_request_takes_the_place_of_what_waits() {
    let (sender, _told) = shard_queue();
    let checkpoint = |end| Checkpoint { high_watermark: Offset(end), durable_end: Offset(end) };
    let request = |number: Option<u64>, end: Option<u64>, removed| Request {
        state: number.map(|number| (number, promise(number as u32), sender.clone())),
        checkpoint: end.map(checkpoint),
        removed,
    };
    let joined = |earlier: Request, mut later: Request| {
        later.follow(earlier);
        (
            later.state.map(|(number, ..)| number),
            later.checkpoint.map(|noted| noted.durable_end.0),
            later.removed,
        )
    };
    let earlier = || request(Some(1), Some(5), false);
    assert_eq!(joined(earlier(), request(None, None, false)), (Some(1), Some(5), false));
    assert_eq!(joined(earlier(), request(Some(2), Some(6), false)), (Some(2), Some(6), false));
    assert_eq!(joined(earlier(), request(None, None, true)), (None, None, true), "deleted since");
    let deleted = || request(None, None, true);
    assert_eq!(
        joined(deleted(), request(Some(2), None, false)),
        (Some(2), None, true),
        "deleted, and made anew"
    );
}

/// Nobody waits for room when the run ends; it is no orderly end.
#[test]
fn a_run_that_ends_without_room_for_its_promises_is_not_in_order() {
    let fs = MemFs::new();
    let run = Run::begin(&fs, "boot 1").unwrap();
    fs.set_capacity(Some(fs.used()));
    let (sender, mut told) = shard_queue();
    run.opened.store.persist(PARTITION, 1, promise(1), None, sender);
    run.opened.store.close();
    assert!(!run.opened.thread.join().unwrap());
    assert!(told.try_recv().is_err());
}
