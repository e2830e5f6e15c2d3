//! Appending and flushing: the log, pwrite(2) and fdatasync(2), dd, and fio.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_core::record_batch::RecordBatch;
use holdfast_log::{CachedFs, LogConfig, RealFs};

use crate::batches::{batches, flush, fresh_log};
use crate::compare::{Way, print_throughput, take_turns};
use crate::outside::{self, Program};

/// What is written between two flushes, and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pattern {
    pub(crate) name: &'static str,
    /// Bytes of a batch: one append.
    pub(crate) batch: usize,
    pub(crate) batches_per_flush: usize,
    pub(crate) flushes: usize,
}

const PATTERNS: [Pattern; 4] = [
    Pattern { name: "4 KiB a flush", batch: 4 << 10, batches_per_flush: 1, flushes: 1000 },
    Pattern { name: "1 MiB a flush, appends of 64 KiB", batch: 64 << 10, batches_per_flush: 16, flushes: 64 },
    Pattern {
        name: "16 MiB a flush, appends of 64 KiB",
        batch: 64 << 10,
        batches_per_flush: 256,
        flushes: 8,
    },
    Pattern {
        name: "128 MiB, one flush, appends of 64 KiB",
        batch: 64 << 10,
        batches_per_flush: 2048,
        flushes: 1,
    },
];

impl Pattern {
    pub(crate) fn per_flush(self) -> usize {
        self.batch * self.batches_per_flush
    }

    pub(crate) fn bytes(self) -> usize {
        self.per_flush() * self.flushes
    }
}

pub(crate) fn run(dir: &Path, rounds: usize) -> io::Result<()> {
    let programs = outside::installed();
    println!(
        "| written | by | MB/s, median (quartiles) | the log's share of it (quartiles over {rounds} rounds) |"
    );
    println!("|---|---|---|---|");
    for pattern in PATTERNS {
        let batches = batches(pattern.batches_per_flush * pattern.flushes, pattern.batch)?;
        let mut ways = vec![
            Way::new("the log", || by_the_log(dir, &batches, pattern)),
            Way::new("pwrite, fdatasync", || by_hand(&dir.join("plain"), &batches, pattern)),
        ];
        for program in programs.iter().filter(|program| program.can(pattern)) {
            ways.push(Way::new(program.name(), || by_program(*program, &dir.join("outside"), pattern)));
        }
        take_turns(&mut ways, rounds)?;
        print_throughput(pattern.name, pattern.bytes(), &ways);
    }
    Ok(())
}

/// On files that are kept open, as in a broker.
fn by_the_log(dir: &Path, batches: &[RecordBatch], pattern: Pattern) -> io::Result<Duration> {
    let folder = dir.join("log");
    let fs = Arc::new(CachedFs::of_process(Arc::new(RealFs)));
    let mut log = fresh_log(fs, &folder, LogConfig::default())?;
    let begin = Instant::now();
    for flushed_at_once in batches.chunks(pattern.batches_per_flush) {
        for batch in flushed_at_once {
            log.append(slice::from_ref(batch)).map_err(io::Error::other)?;
        }
        flush(&mut log)?;
    }
    let taken = begin.elapsed();
    drop(log);
    fs::remove_dir_all(folder)?;
    Ok(taken)
}

/// The same bytes from the same memory.
fn by_hand(path: &Path, batches: &[RecordBatch], pattern: Pattern) -> io::Result<Duration> {
    let file = OpenOptions::new().create_new(true).write(true).open(path)?;
    file.sync_all()?;
    let begin = Instant::now();
    let mut position = 0;
    for flushed_at_once in batches.chunks(pattern.batches_per_flush) {
        for batch in flushed_at_once {
            file.write_all_at(batch.bytes(), position)?;
            position += batch.bytes().len() as u64;
        }
        file.sync_data()?;
    }
    let taken = begin.elapsed();
    fs::remove_file(path)?;
    Ok(taken)
}

fn by_program(program: Program, path: &Path, pattern: Pattern) -> io::Result<Duration> {
    let taken = program.write(path, pattern)?;
    fs::remove_file(path)?;
    Ok(taken)
}
