//! Batches to append, and logs to append them to.

use std::io;
use std::path::Path;
use std::sync::Arc;

use holdfast_core::record_batch::{HEADER_LEN, RecordBatch, RecordBatchBuilder};
use holdfast_core::{LeaderEpoch, Offset, Term};
use holdfast_log::{Fs, LogConfig, PartitionLog, Recovery};

/// `count` batches of one record and exactly `size` bytes each, from offset 0 on, as a leader hands them to its log.
pub(crate) fn batches(count: usize, size: usize) -> io::Result<Vec<RecordBatch>> {
    let first = batch(size)?;
    let epoch = LeaderEpoch::first(Term(1));
    Ok((0..count as u64).map(|offset| first.stamped(Offset(offset), epoch)).collect())
}

/// The lengths in front of a value take more room the longer it is, so the second attempt fits.
fn batch(size: usize) -> io::Result<RecordBatch> {
    let guess = size.saturating_sub(HEADER_LEN + 10);
    let found = build(guess)?.bytes().len();
    let batch = build((guess + size).saturating_sub(found))?;
    if batch.bytes().len() == size {
        return Ok(batch);
    }
    Err(io::Error::other(format!("no batch of one record has exactly {size} bytes")))
}

fn build(value: usize) -> io::Result<RecordBatch> {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let bytes: Vec<u8> = (0..value)
        .map(|_| {
            // xorshift: nothing below can make less of it.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as u8
        })
        .collect();
    let mut builder = RecordBatchBuilder::with_capacity(value + 100);
    builder.push(0, None, Some(&bytes), &[]).map_err(io::Error::other)?;
    builder.build(None).map_err(io::Error::other)
}

/// An empty log in `dir`, its names flushed.
pub(crate) fn fresh_log(fs: Arc<dyn Fs>, dir: &Path, config: LogConfig) -> io::Result<PartitionLog> {
    let opened = PartitionLog::open(fs, dir, config, Recovery::default(), &mut |_| {});
    let (mut log, _) = opened.map_err(io::Error::other)?;
    flush(&mut log)?;
    Ok(log)
}

/// Flushes what was appended.
pub(crate) fn flush(log: &mut PartitionLog) -> io::Result<()> {
    log.take_flush().map_or(Ok(()), |ticket| ticket.run())
}
