//! Many logs that nobody uses: how long it takes to create and to open them, and what they hold in memory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use holdfast_core::Offset;
use holdfast_log::{CachedFs, FlushTicket, Fs, LogConfig, PartitionLog, RealFs, Recovery};

use crate::batches::batches;

/// What the process is told that creates the logs.
pub(crate) const CREATE: &str = "create";
/// Batches in each log, of 1 KiB.
const BATCHES: usize = 3;

pub(crate) fn run(dir: &Path, count: usize) -> io::Result<()> {
    // By another process: what this one holds in memory is then what it opened.
    let creating =
        Command::new(std::env::current_exe()?).arg(CREATE).arg(dir).arg(count.to_string()).status()?;
    if !creating.success() {
        return Err(io::Error::other("the logs could not be created"));
    }
    let before = resident()?;
    let (cached, logs) = opened(dir, count, true)?;
    println!(
        "{} bytes each of resident memory, {} of them the log's own; {} files open",
        resident()?.saturating_sub(before) / count.max(1),
        logs.iter().map(|log| size_of::<PartitionLog>() + log.memory_bytes()).sum::<usize>() / count.max(1),
        cached.open_files(),
    );
    drop((logs, cached));
    let (cached, logs) = opened(dir, count, false)?;
    drop(logs);
    let begin = Instant::now();
    (0..count).try_for_each(|number| cached.remove_dir_all(&folder(dir, number)))?;
    println!("{count} logs deleted: {:.2} s", begin.elapsed().as_secs_f64());
    Ok(())
}

/// The other process.
pub(crate) fn create(dir: &Path, count: usize) -> io::Result<()> {
    let cached = Arc::new(CachedFs::of_process(Arc::new(RealFs)));
    let batches = batches(BATCHES, 1 << 10)?;
    let begin = Instant::now();
    let created = (0..count).map(|number| open(&cached, &folder(dir, number), Recovery::default()));
    let mut logs = created.collect::<io::Result<Vec<_>>>()?;
    let (created, begin) = (begin.elapsed(), Instant::now());
    for log in &mut logs {
        log.append(&batches).map_err(io::Error::other)?;
    }
    let tickets: Vec<FlushTicket> = logs.iter_mut().filter_map(PartitionLog::take_flush).collect();
    cached.volume(dir)?.sync()?;
    tickets.iter().for_each(|ticket| ticket.settle(true));
    println!(
        "{count} logs created: {:.2} s; {BATCHES} batches appended to each, and all flushed at once: {:.2} s",
        created.as_secs_f64(),
        begin.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Opens all of them.
fn opened(dir: &Path, count: usize, clean: bool) -> io::Result<(Arc<CachedFs>, Vec<PartitionLog>)> {
    let begin = Instant::now();
    let cached = Arc::new(CachedFs::of_process(Arc::new(RealFs)));
    let logs = (0..count).map(|number| reopen(&cached, &folder(dir, number), clean));
    let logs = logs.collect::<io::Result<Vec<_>>>()?;
    let (taken, how) = (begin.elapsed().as_secs_f64(), if clean { "in order" } else { "by a kill" });
    println!(
        "{count} logs opened after an end {how}: {taken:.2} s, {:.0} µs each",
        taken * 1e6 / count as f64
    );
    Ok((cached, logs))
}

fn reopen(fs: &Arc<CachedFs>, dir: &Path, clean: bool) -> io::Result<PartitionLog> {
    let end = Offset(BATCHES as u64);
    let log = open(fs, dir, Recovery { trusted_end: end, flushed_end: end, clean })?;
    if log.log_end_offset() == end { Ok(log) } else { Err(io::Error::other("a log is not what was written")) }
}

fn open(fs: &Arc<CachedFs>, dir: &Path, recovery: Recovery) -> io::Result<PartitionLog> {
    let opened = PartitionLog::open(fs.clone(), dir, LogConfig::default(), recovery, &mut |_| {});
    Ok(opened.map_err(io::Error::other)?.0)
}

fn folder(dir: &Path, number: usize) -> PathBuf {
    dir.join("logs").join(number.to_string())
}

/// Bytes of this process in memory.
fn resident() -> io::Result<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    kilobytes
        .map(|kilobytes| kilobytes << 10)
        .ok_or_else(|| io::Error::other("/proc/self/status has no VmRSS"))
}
