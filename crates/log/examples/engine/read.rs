//! Reading a log from its beginning to its end, as a consumer or a follower does that catches up, and its file by pread(2).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_core::Offset;
use holdfast_core::record_batch::RecordBatch;
use holdfast_log::{CachedFs, LogConfig, LogReader, PartitionLog, RealFs};

use crate::batches::{batches, flush, fresh_log};
use crate::compare::{Way, print_throughput, take_turns};

/// Less than a segment, so that it is one file.
const BYTES: usize = 256 << 20;
/// What a consumer asks for at once, and a leader reads at once for a follower.
const AT_ONCE: usize = 1 << 20;

pub(crate) fn run(dir: &Path, rounds: usize) -> io::Result<()> {
    println!(
        "| read | by | MB/s, median (quartiles) | the log's share of it (quartiles over {rounds} rounds) |"
    );
    println!("|---|---|---|---|");
    for size in [4 << 10, 64 << 10] {
        let stored = Stored::write(dir, size)?;
        for cached in [true, false] {
            let state = if cached { "in the page cache" } else { "on disk" };
            let what = format!("batches of {} KiB, {state}", size >> 10);
            let mut ways = [
                Way::new("the log", || stored.timed(cached, || stored.by_the_log(false))),
                Way::new("the log, checksums verified", || stored.timed(cached, || stored.by_the_log(true))),
                Way::new("pread into one buffer", || stored.timed(cached, || stored.by_hand(false))),
                Way::new("pread into a fresh buffer each", || stored.timed(cached, || stored.by_hand(true))),
            ];
            take_turns(&mut ways, rounds)?;
            print_throughput(&what, BYTES, &ways);
        }
        std::fs::remove_dir_all(&stored.dir)?;
    }
    Ok(())
}

/// A log on disk.
struct Stored {
    dir: PathBuf,
    file: File,
    /// Bytes of a batch, which is one record.
    batch: usize,
    reader: LogReader,
    _log: PartitionLog,
}

impl Stored {
    fn write(dir: &Path, batch: usize) -> io::Result<Stored> {
        let dir = dir.join(format!("read-{batch}"));
        let fs = Arc::new(CachedFs::of_process(Arc::new(RealFs)));
        let mut log = fresh_log(fs, &dir, LogConfig::default())?;
        for some in batches(BYTES / batch, batch)?.chunks(1000) {
            log.append(some).map_err(io::Error::other)?;
        }
        flush(&mut log)?;
        let file = File::open(dir.join(format!("{:020}.log", 0)))?;
        if file.metadata()?.len() != BYTES as u64 {
            return Err(io::Error::other("the log is not one segment"));
        }
        Ok(Stored { dir, file, batch, reader: log.reader(), _log: log })
    }

    fn timed(&self, cached: bool, read: impl FnOnce() -> io::Result<()>) -> io::Result<Duration> {
        if !cached {
            rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
        let begin = Instant::now();
        read()?;
        Ok(begin.elapsed())
    }

    /// `verified`: as whoever is given the bytes does before they go anywhere.
    fn by_the_log(&self, verified: bool) -> io::Result<()> {
        let end = self.reader.log_end_offset();
        let mut from = Offset::ZERO;
        while from < end {
            let bytes = self.reader.read(from, end, AT_ONCE).map_err(io::Error::other)?;
            from = from + (bytes.len() / self.batch) as u64;
            if verified {
                std::hint::black_box(RecordBatch::split(bytes).map_err(io::Error::other)?);
            } else {
                std::hint::black_box(bytes);
            }
        }
        Ok(())
    }

    fn by_hand(&self, fresh: bool) -> io::Result<()> {
        let mut buffer = vec![0; AT_ONCE];
        for position in (0..BYTES).step_by(AT_ONCE) {
            if fresh {
                buffer = vec![0; AT_ONCE];
            }
            self.file.read_exact_at(&mut buffer, position as u64)?;
            std::hint::black_box(&buffer);
        }
        Ok(())
    }
}
