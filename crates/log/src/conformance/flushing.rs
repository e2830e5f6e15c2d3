use super::*;
use crate::fs::mem::{Fault, OperationKind};

fn in_memory() -> (MemFs, Place) {
    let fs = MemFs::new();
    let place = Place { fs: Arc::new(fs.clone()), dir: "/data/t-0".into(), config: small() };
    (fs, place)
}

#[test]
fn ticket_makes_durable_what_was_appended_before_it_was_taken() {
    let (fs, place) = in_memory();
    let all = batches(0, 30, 1);
    let mut log = place.open();
    log.append(&all[..20]).unwrap();
    let ticket = log.take_flush().unwrap();
    log.append(&all[20..]).unwrap();
    assert_eq!(ticket.end(), Offset(60));
    std::thread::scope(|scope| scope.spawn(|| ticket.run().unwrap()).join().unwrap());
    fs.crash();
    let log = place.open();
    assert!(log.log_end_offset() >= Offset(60));
    assert_eq!(content(&log), all[..(log.log_end_offset().0 / 3) as usize]);
}

/// What is noted of a replica stands for its folder, too.
#[test]
fn the_folder_of_a_new_log_is_durable() {
    let (fs, place) = in_memory();
    drop(place.open());
    fs.crash();
    assert!(fs.exists(&place.dir).unwrap());
}

#[test]
fn clean_log_has_nothing_to_flush() {
    on_every_fs(|place| {
        let mut log = filled(place, &batches(0, 10, 1));
        assert!(log.take_flush().is_none());
        let recovery =
            Recovery { trusted_end: log.log_end_offset(), flushed_end: log.log_end_offset(), clean: true };
        let (mut log, ..) = place.try_open(recovery).unwrap();
        assert!(log.take_flush().is_none());
        let (mut log, ..) = place.try_open(Recovery { clean: false, ..recovery }).unwrap();
        assert_eq!(
            log.take_flush().map(|ticket| (ticket.run().unwrap(), ticket.end())),
            Some(((), Offset(30)))
        );
    });
}

/// A process was killed while batches that were acknowledged lay in the system's memory only: the next one must not take
/// them for flushed because they may not be missing.
#[test]
fn what_was_acknowledged_and_not_flushed_is_flushed_after_a_kill() {
    let (fs, place) = in_memory();
    let all = batches(0, 30, 1);
    let mut log = filled(&place, &all[..3]);
    log.append(&all[3..]).unwrap();
    let end = log.log_end_offset();
    drop(log);
    let recovery = Recovery { trusted_end: end, flushed_end: Offset(9), clean: false };
    let mut log = place.try_open(recovery).unwrap().0;
    let ticket = log.take_flush().expect("something is not flushed");
    ticket.run().unwrap();
    assert_eq!(ticket.end(), end);
    drop(log);
    fs.crash();
    assert_eq!(content(&place.try_open(Recovery { flushed_end: end, ..recovery }).unwrap().0), all);
}

#[test]
fn ticket_promises_nothing_above_a_truncation_since() {
    on_every_fs(|place| {
        let mut log = place.open();
        log.append(&batches(0, 10, 1)).unwrap();
        let ticket = log.take_flush().unwrap();
        log.truncate_to(Offset(7)).unwrap();
        log.append(&batches(6, 10, 9)).unwrap();
        ticket.run().unwrap();
        assert_eq!(ticket.end(), Offset(6));
        let next = log.take_flush().unwrap();
        assert_eq!(next.end(), Offset(36));
        next.run().unwrap();
    });
}

#[test]
fn whole_file_system_may_be_synced_instead() {
    let (fs, place) = in_memory();
    let all = batches(0, 30, 1);
    let mut log = place.open();
    log.append(&all).unwrap();
    let ticket = log.take_flush().unwrap();
    place.fs.volume(&place.dir).unwrap().sync().unwrap();
    ticket.settle(true);
    drop(ticket);
    assert!(!log.is_poisoned());
    fs.crash();
    assert_eq!(content(&place.open()), all);
}

#[test]
fn failed_or_forgotten_flush_poisons_the_log_but_not_its_readers() {
    for forget in [false, true] {
        let (fs, place) = in_memory();
        let all = batches(0, 4, 1);
        let mut log = place.open();
        log.append(&all).unwrap();
        let ticket = log.take_flush().unwrap();
        if !forget {
            fs.inject(Fault { kind: Some(OperationKind::SyncData), after: 0, lasting: false });
            assert!(ticket.run().is_err());
        }
        drop(ticket);
        assert!(log.is_poisoned());
        assert!(matches!(log.append(&batches(12, 1, 9)), Err(LogError::Poisoned)));
        assert!(matches!(log.truncate_to(Offset(0)), Err(LogError::Poisoned)));
        assert_eq!(content(&log), all);
    }
}

#[test]
fn failed_write_poisons_and_is_cut_at_the_next_opening() {
    for kind in [OperationKind::Write, OperationKind::Create] {
        let (fs, place) = in_memory();
        let all = batches(0, 30, 1);
        let mut log = filled(&place, &all[..3]);
        fs.inject(Fault { kind: Some(kind), after: 0, lasting: false });
        assert!(matches!(log.append(&all[3..]), Err(LogError::Io { .. })));
        assert!(matches!(log.append(&all[3..]), Err(LogError::Poisoned)));
        let reopened = place
            .try_open(Recovery { trusted_end: Offset(9), flushed_end: Offset(9), clean: false })
            .unwrap()
            .0;
        let found = content(&reopened);
        assert!(found.len() >= 3 && found == all[..found.len()]);
    }
}

/// Only what is not flushed is held open.
#[test]
fn many_logs_keep_few_files_open() {
    let fs = CachedFs::new(Arc::new(MemFs::new()), 16);
    let place = |number: usize| Place {
        fs: Arc::new(fs.clone()),
        dir: format!("/data/t-{number}").into(),
        config: small(),
    };
    fs.create_dir_all("/data".as_ref()).unwrap();
    let mut logs: Vec<PartitionLog> =
        (0..100).map(|number| filled(&place(number), &batches(0, 25, 1))).collect();
    assert!(logs[0].segment_count() == 3 && fs.open_files() <= 16, "{}", fs.open_files());
    for log in &mut logs {
        log.append(&batches(75, 1, 20)).unwrap();
    }
    assert_eq!(fs.open_files(), 100);
    logs.iter_mut().for_each(flush);
    assert_eq!(content(&logs[50]).len(), 26);
    assert!(fs.open_files() <= 16, "{}", fs.open_files());
}
