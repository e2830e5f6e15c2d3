//! Many logs that have something to flush at the same moment: docs/adr/0019.

use std::io;
use std::path::Path;
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use holdfast_core::record_batch::RecordBatch;
use holdfast_log::{CachedFs, File, FlushTicket, Fs, LogConfig, OpenMode, PartitionLog, RealFs, Volume};

use crate::batches::{batches, fresh_log};
use crate::compare::{Quartiles, Way, take_turns};

/// How many logs have something to flush.
const COUNTS: [usize; 10] = [1, 3, 10, 30, 60, 100, 300, 1000, 3000, 10_000];
/// The same beside somebody else who writes to the file system, and flushes nothing.
const COUNTS_AMONG_OTHERS: [usize; 4] = [10, 30, 100, 1000];
/// Bytes that somebody else has written.
const OTHERS: usize = 64 << 20;
/// Bytes appended to each of them.
const BATCH: usize = 1 << 10;
/// A way to flush is tried so often at least, however many logs there are.
const LEAST_ROUNDS: usize = 5;

/// How they are flushed.
#[derive(Debug, Clone, Copy)]
enum Method {
    /// An fdatasync of each, on so many threads.
    Threads(usize),
    /// One syncfs for all of them.
    AtOnce,
}

/// One after the other; as many threads as a broker has by default; many; all at once.
const METHODS: [Method; 4] = [Method::Threads(1), Method::Threads(4), Method::Threads(16), Method::AtOnce];

pub(crate) fn run(dir: &Path, rounds: usize, largest: usize) -> io::Result<()> {
    println!(
        "| logs | flushed by | ms, median (quartiles) | µs a log | mean ms until a log is flushed | times syncfs |"
    );
    println!("|---|---|---|---|---|---|");
    let alone = COUNTS.map(|count| (count, 0));
    let among_others = COUNTS_AMONG_OTHERS.map(|count| (count, OTHERS));
    for (count, others) in alone.into_iter().chain(among_others).filter(|(count, _)| *count <= largest) {
        let folder = dir.join(format!("logs-{count}"));
        measure(&folder, count, others, (rounds * 100 / count).clamp(LEAST_ROUNDS, rounds))?;
        std::fs::remove_dir_all(folder)?;
    }
    Ok(())
}

fn measure(dir: &Path, count: usize, others: usize, rounds: usize) -> io::Result<()> {
    let logs = &Mutex::new(Logs::create(dir, count, others)?);
    let waits: [Mutex<Vec<f64>>; METHODS.len()] = Default::default();
    let mut ways = Vec::new();
    for (method, waits) in METHODS.into_iter().zip(&waits) {
        ways.push(Way::new(method.name(), move || {
            let (taken, wait) = lock(logs).append_and_flush(method)?;
            lock(waits).push(wait.as_secs_f64());
            Ok(taken)
        }));
    }
    take_turns(&mut ways, rounds)?;
    let what = if others == 0 { format!("{count}") } else { format!("{count}, among {} MiB", others >> 20) };
    print(&what, count, &ways, &waits);
    Ok(())
}

fn print(what: &str, count: usize, ways: &[Way<'_>], waits: &[Mutex<Vec<f64>>]) {
    let Some(at_once) = ways.last() else { return };
    for (way, waits) in ways.iter().zip(waits) {
        let Quartiles { low, median, high } = way.taken();
        let wait = Quartiles::of(lock(waits).clone()).median;
        let (times, _) = at_once.speed_over(way);
        println!(
            "| {what} | {} | {:.2} ({:.2} to {:.2}) | {:.1} | {:.2} | {times:.2} |",
            way.name(),
            median * 1e3,
            low * 1e3,
            high * 1e3,
            median * 1e6 / count as f64,
            wait * 1e3,
        );
    }
}

impl Method {
    fn name(self) -> String {
        match self {
            Method::Threads(1) => "fdatasync one by one".to_owned(),
            Method::Threads(count) => format!("fdatasync on {count} threads"),
            Method::AtOnce => "one syncfs".to_owned(),
        }
    }

    /// How long it takes until all are flushed, and until one is, on average.
    fn flush(self, tickets: &[FlushTicket], volume: &dyn Volume) -> io::Result<(Duration, Duration)> {
        match self {
            Method::AtOnce => {
                let begin = Instant::now();
                volume.sync()?;
                tickets.iter().for_each(|ticket| ticket.settle(true));
                Ok((begin.elapsed(), begin.elapsed()))
            }
            Method::Threads(threads) => in_parallel(tickets, threads.min(tickets.len())),
        }
    }
}

fn in_parallel(tickets: &[FlushTicket], threads: usize) -> io::Result<(Duration, Duration)> {
    let (next, ready) = (AtomicUsize::new(0), Barrier::new(threads + 1));
    let begin = Mutex::new(Instant::now());
    let work = || -> io::Result<Duration> {
        ready.wait();
        let begin = *lock(&begin);
        let mut waited = Duration::ZERO;
        while let Some(ticket) = tickets.get(next.fetch_add(1, Ordering::Relaxed)) {
            ticket.run()?;
            waited += begin.elapsed();
        }
        Ok(waited)
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        // Nobody has begun yet, and waking the threads counts: that is what a broker's flusher does, too.
        *lock(&begin) = Instant::now();
        ready.wait();
        let mut waited = Duration::ZERO;
        for worker in workers {
            waited += worker.join().map_err(|_| io::Error::other("a thread that flushes panicked"))??;
        }
        Ok((lock(&begin).elapsed(), waited / tickets.len() as u32))
    })
}

/// Logs, and what to append to all of them next.
struct Logs {
    logs: Vec<PartitionLog>,
    volume: Arc<dyn Volume>,
    first: RecordBatch,
    /// Somebody else's file, and what is written to it.
    other: Arc<dyn File>,
    others: Vec<u8>,
}

impl Logs {
    fn create(dir: &Path, count: usize, others: usize) -> io::Result<Logs> {
        let fs = Arc::new(CachedFs::of_process(Arc::new(RealFs)));
        let logs = (0..count)
            .map(|number| fresh_log(fs.clone(), &dir.join(number.to_string()), LogConfig::default()));
        let logs = logs.collect::<io::Result<Vec<_>>>()?;
        let first = batches(1, BATCH)?.pop().ok_or_else(|| io::Error::other("no batch was made"))?;
        let other = fs.open(&dir.join("other"), OpenMode::CreateNew)?;
        Ok(Logs { logs, volume: fs.volume(dir)?, first, other, others: vec![0x5a; others] })
    }

    fn append_and_flush(&mut self, method: Method) -> io::Result<(Duration, Duration)> {
        self.other.write_all_at(&[&self.others], 0)?;
        let mut tickets = Vec::with_capacity(self.logs.len());
        for log in &mut self.logs {
            let epoch = self.first.header().epoch.unwrap_or_default();
            let batch = self.first.stamped(log.log_end_offset(), epoch);
            log.append(slice::from_ref(&batch)).map_err(io::Error::other)?;
            tickets.extend(log.take_flush());
        }
        method.flush(&tickets, &*self.volume)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
