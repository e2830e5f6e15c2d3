//! A pass of compaction over a log, and copying the files of the same log by pread(2) and pwrite(2).

use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_core::record_batch::{Compression, RecordBatch, RecordBatchBuilder};
use holdfast_core::{LeaderEpoch, Offset, Term};
use holdfast_log::{
    ByteSize, CachedFs, Codec, CodecError, CompactionOutcome, CompactionPlan, LogConfig, PartitionLog, RealFs,
};

use crate::batches::{flush, fresh_log};
use crate::compare::{Way, print_throughput, take_turns};

/// Bytes of a log, in segments of a quarter.
const BYTES: usize = 256 << 20;
const SEGMENT: usize = BYTES / 4;
/// Records of a batch, about 16 KiB.
const RECORDS: usize = 64;
/// Bytes of a value.
const VALUE: usize = 240;
/// What is copied at once.
const AT_ONCE: usize = 1 << 20;

pub(crate) fn run(dir: &Path, rounds: usize) -> io::Result<()> {
    println!(
        "| a log of which | by | MB/s, median (quartiles) | share of the pass (quartiles over {rounds} rounds) |"
    );
    println!("|---|---|---|---|");
    for (what, keys) in
        [("1 % stays", BYTES / VALUE / 100), ("half stays", BYTES / VALUE / 3 * 2), ("all stays", usize::MAX)]
    {
        let kept = write(dir, "copied", keys)?;
        let mut left = 0;
        let mut ways = [
            Way::new("a pass", || {
                let log = write(dir, "compacted", keys)?;
                let begin = Instant::now();
                let outcome = compact(&log)?;
                let took = begin.elapsed();
                left = outcome.bytes_after * 100 / outcome.bytes_before.max(1);
                drop(log);
                fs::remove_dir_all(dir.join("compacted"))?;
                Ok(took)
            }),
            Way::new("pread and pwrite of all of it, flushed", || copy(&dir.join("copied"), dir)),
        ];
        take_turns(&mut ways, rounds)?;
        print_throughput(what, BYTES, &ways);
        drop(ways);
        println!("{left} % of the bytes were left");
        drop(kept);
        fs::remove_dir_all(dir.join("copied"))?;
    }
    Ok(())
}

/// A log of records with `keys` different keys in no order.
fn write(dir: &Path, name: &str, keys: usize) -> io::Result<PartitionLog> {
    let config = LogConfig { segment_size: ByteSize(SEGMENT as u64), ..LogConfig::default() };
    let fs = Arc::new(CachedFs::of_process(Arc::new(RealFs)));
    let mut log = fresh_log(fs, &dir.join(name), config)?;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let value: Vec<u8> = (0..VALUE as u8).collect();
    while log.size_bytes() < BYTES as u64 {
        let batch = batch(&mut random, keys, &value, log.log_end_offset())?;
        log.append(&[batch]).map_err(io::Error::other)?;
    }
    flush(&mut log)?;
    Ok(log)
}

fn batch(random: &mut u64, keys: usize, value: &[u8], base: Offset) -> io::Result<RecordBatch> {
    let mut builder = RecordBatchBuilder::with_capacity(RECORDS * (value.len() + 40));
    for _ in 0..RECORDS {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        let key = *random % keys as u64;
        builder.push(0, Some(&key.to_be_bytes()), Some(value), &[]).map_err(io::Error::other)?;
    }
    let batch = builder.build(None).map_err(io::Error::other)?;
    Ok(batch.stamped(base, LeaderEpoch::first(Term(1))))
}

fn compact(log: &PartitionLog) -> io::Result<CompactionOutcome> {
    let reader = log.reader();
    let plan = CompactionPlan {
        below: reader.log_end_offset(),
        now_ms: 0,
        tombstone_delay_ms: 0,
        map_bytes: 64 << 20,
        max_section_bytes: 1 << 20,
    };
    reader.compact(&plan, &Plain, &mut |_| ControlFlow::Continue(())).map_err(io::Error::other)
}

/// Nothing here is compressed.
struct Plain;

impl Codec for Plain {
    fn decompress(&self, _: Compression, section: Bytes, _: usize) -> Result<Bytes, CodecError> {
        Ok(section)
    }

    fn compress(&self, _: Compression, section: &[u8]) -> Result<Vec<u8>, CodecError> {
        Ok(section.to_vec())
    }
}

/// Copies every segment in `from` to a file in `to`, flushes that, and removes it.
fn copy(from: &Path, to: &Path) -> io::Result<Duration> {
    let begin = Instant::now();
    let mut buffer = vec![0; AT_ONCE];
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        let (source, copied) = (File::open(&path)?, to.join("copy"));
        let target = File::create(&copied)?;
        let mut position = 0;
        loop {
            let read = source.read_at(&mut buffer, position)?;
            if read == 0 {
                break;
            }
            target.write_all_at(&buffer[..read], position)?;
            position += read as u64;
        }
        target.sync_data()?;
        fs::remove_file(copied)?;
    }
    Ok(begin.elapsed())
}
