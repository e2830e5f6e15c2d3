//! A process that tries seeds one after the other, and the one that starts it and finds out why it died.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use holdfast_fuzz::judge;
use holdfast_fuzz::target::Target;

/// Seeds of one process. It is asked for news after every so many of them.
const SEEDS: u64 = 1 << 14;
const NEWS_EVERY: u64 = 64;
/// A process that says nothing for so long hangs.
const SILENCE: Duration = Duration::from_secs(120);

/// Tries `count` seeds and says how far it is.
pub(crate) fn work(target: &Target, from: u64, count: u64, trace: bool) -> io::Result<ExitCode> {
    let corpus = target.corpus()?;
    let mut output = io::stdout().lock();
    let mut accepted = 0;
    for seed in from..from.saturating_add(count) {
        if trace || (seed - from).is_multiple_of(NEWS_EVERY) {
            writeln!(output, "at {seed} {accepted}")?;
        }
        match judge::try_seed(target, &corpus, seed) {
            Ok(is) => accepted += u64::from(is),
            Err(failure) => {
                writeln!(output, "{failure}")?;
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    writeln!(output, "done {} {accepted}", from.saturating_add(count))?;
    Ok(ExitCode::SUCCESS)
}

/// What a search came to.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) inputs: u64,
    pub(crate) accepted: u64,
    /// The line that replays it.
    pub(crate) failure: Option<String>,
}

/// A process at work.
pub(crate) struct Worker {
    child: Child,
    lines: Receiver<String>,
}

/// How a worker ended.
enum Ended {
    /// All seeds were tried, or there was no more time.
    Well,
    /// It has said what failed.
    Told(String),
    /// It died or hung at this seed or one of those that follow.
    Died { at: u64, how: String },
}

impl Worker {
    /// Tries seeds until the time is over or something fails.
    pub(crate) fn search(target: &str, from: u64, until: Instant) -> io::Result<Found> {
        let mut found = Found::default();
        let mut next = from;
        while Instant::now() < until && found.failure.is_none() {
            let (mut inputs, mut accepted) = (0, 0);
            let mut worker = Worker::start(target, next, SEEDS, false)?;
            let ended = worker.follow(next, Some(until), |at, good| (inputs, accepted) = (at - next, good));
            found.inputs += inputs;
            found.accepted += accepted;
            next += inputs;
            found.failure = match ended {
                Ended::Well => None,
                Ended::Told(line) => Some(line),
                Ended::Died { at, how } => Some(track_down(target, at, &how)?),
            };
        }
        Ok(found)
    }

    fn start(target: &str, from: u64, count: u64, trace: bool) -> io::Result<Worker> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--target", target, "--from", &from.to_string(), "--work", &count.to_string()]);
        command.args(trace.then_some("--trace"));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let lines = read_lines(output);
        Ok(Worker { child, lines })
    }

    /// Reads what it says until it ends, or the time is over.
    fn follow(&mut self, from: u64, until: Option<Instant>, mut news: impl FnMut(u64, u64)) -> Ended {
        let mut at = from;
        loop {
            if until.is_some_and(|until| Instant::now() > until) {
                return Ended::Well;
            }
            match self.lines.recv_timeout(SILENCE) {
                Ok(line) => match line.split(' ').collect::<Vec<_>>()[..] {
                    [word @ ("at" | "done"), seed, accepted] => {
                        at = seed.parse().unwrap_or(at);
                        news(at, accepted.parse().unwrap_or(0));
                        if word == "done" {
                            return Ended::Well;
                        }
                    }
                    _ => return Ended::Told(line),
                },
                Err(RecvTimeoutError::Timeout) => {
                    return Ended::Died { at, how: format!("no end within {SILENCE:?}") };
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let how =
                        self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                    return Ended::Died { at, how };
                }
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // An error says that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tries the seeds from `at` on again, each announced: the last one announced is the one that kills.
fn track_down(target: &str, at: u64, how: &str) -> io::Result<String> {
    let mut worker = Worker::start(target, at, NEWS_EVERY, true)?;
    let line = match worker.follow(at, None, |_, _| {}) {
        Ended::Told(line) => line,
        Ended::Died { at, how } => format!("FAILED {target}: {how}; replay: {}", judge::replay(target, at)),
        Ended::Well => {
            let replay = judge::replay(target, at);
            format!("FAILED {target}: {how}, and not again; it was one of {NEWS_EVERY} seeds from: {replay}")
        }
    };
    Ok(line)
}

/// Reads on a thread of its own, so that silence can be noticed. It ends with the process that it reads from.
fn read_lines(output: ChildStdout) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        // An error says that nobody listens any more.
        lines.map(|line| sender.send(line)).take_while(Result::is_ok).for_each(drop);
    });
    lines
}
