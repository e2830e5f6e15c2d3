//! The log under a replica: what it says is on disk has to be there after a power cut, and what was turned is found.

use holdfast_core::record_batch::{RecordBatch, RecordBatchBuilder};
use holdfast_core::{LeaderEpoch, Offset, Term};
use holdfast_log::fs::mem::{Fault, OperationKind};
use holdfast_log::{Fs, LogConfig, LogError, MemFs, OpenMode, PartitionLog, Recovery};

super::schedules! {
    a_cut_is_durable_when_it_is_said_to_be,
    a_flush_is_durable_when_it_has_ended,
    a_flush_that_failed_says_so,
    a_turned_bit_is_found,
}

const FOLDER: &str = "/log";

fn open(fs: &MemFs, trusted: u64) -> Result<PartitionLog, LogError> {
    let recovery = Recovery { trusted_end: Offset(trusted), ..Recovery::default() };
    let fs = std::sync::Arc::new(fs.clone());
    PartitionLog::open(fs, FOLDER.as_ref(), LogConfig::default(), recovery, &mut |_| {}).map(|(log, _)| log)
}

fn batch(offset: u64) -> RecordBatch {
    let mut builder = RecordBatchBuilder::new();
    builder.push(0, None, Some(b"a record"), &[]).unwrap();
    builder.build(None).unwrap().stamped(Offset(offset), LeaderEpoch::first(Term(1)))
}

/// A log of three batches, flushed.
fn three_flushed(fs: &MemFs) -> PartitionLog {
    let mut log = open(fs, 0).unwrap();
    log.append(&[batch(0), batch(1), batch(2)]).unwrap();
    log.take_flush().unwrap().run().unwrap();
    log
}

/// R23: what was cut must not come back.
#[cfg_attr(test, test)]
fn a_cut_is_durable_when_it_is_said_to_be() {
    let fs = MemFs::new();
    three_flushed(&fs).truncate_to(Offset(1)).unwrap();
    fs.crash();
    assert_eq!(open(&fs, 1).unwrap().log_end_offset(), Offset(1));
}

/// R34: what was flushed must not go.
#[cfg_attr(test, test)]
fn a_flush_is_durable_when_it_has_ended() {
    let fs = MemFs::new();
    three_flushed(&fs);
    fs.crash();
    assert_eq!(open(&fs, 3).unwrap().log_end_offset(), Offset(3));
}

/// R34: what the disk refused is not on it, and nothing is written any more.
#[cfg_attr(test, test)]
fn a_flush_that_failed_says_so() {
    let fs = MemFs::new();
    let mut log = three_flushed(&fs);
    log.append(&[batch(3)]).unwrap();
    fs.inject(Fault { kind: Some(OperationKind::SyncData), after: 0, lasting: false });
    assert!(log.take_flush().unwrap().run().is_err());
    assert!(log.is_poisoned() && log.append(&[batch(4)]).is_err());
}

/// R33: a record below what is trusted was changed behind the log's back.
#[cfg_attr(test, test)]
fn a_turned_bit_is_found() {
    let fs = MemFs::new();
    let log = three_flushed(&fs);
    let last = log.size_bytes() - 1;
    drop(log);
    let names = fs.list(FOLDER.as_ref()).unwrap();
    let segment = names.iter().find(|name| name.to_string_lossy().ends_with(".log")).unwrap();
    let file = fs.open(&std::path::Path::new(FOLDER).join(segment), OpenMode::Existing).unwrap();
    let turned = file.read_bytes(last, 1).unwrap()[0] ^ 1;
    file.write_all_at(&[&[turned]], last).unwrap();
    assert!(matches!(open(&fs, 3), Err(LogError::Corrupt { .. })));
}
