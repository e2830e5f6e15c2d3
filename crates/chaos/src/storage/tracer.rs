//! Calls of a running process that fail, by strace(1): what the kernel is asked for does not happen, and the process is
//! told the error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::clock::Micros;
use crate::error::ChaosError;

/// How long strace may take to hold all threads, or to let go of them.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two looks at what it wrote.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// How strace marks a call that it made fail.
const INJECTED: &str = "(INJECTED)";

/// Which calls are bent, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bend {
    /// Names, separated by commas.
    pub(crate) calls: &'static str,
    /// `error=NAME`, or `retval=NUMBER`.
    pub(crate) how: &'static str,
}

/// A process whose calls fail, until this is detached or dropped.
#[derive(Debug)]
pub(crate) struct Tracer {
    child: Child,
    listener: JoinHandle<()>,
    output: PathBuf,
}

impl Tracer {
    /// From when this returns, every such call of every thread is bent. What strace sees goes to `output`.
    pub(crate) async fn attach(pid: u32, bend: Bend, output: &Path) -> Result<Tracer, ChaosError> {
        let Bend { calls, how } = bend;
        let mut command = Command::new("strace");
        // With the time of each call, and the file that it is about.
        command.args(["-f", "-ttt", "-y", "-p", &pid.to_string()]).arg("-o").arg(output);
        command.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{how}:when=1+")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(ChaosError::io("starting strace"))?;
        let told = child.stderr.take().map(|stderr| BufReader::new(stderr).lines());
        let mut told = told.ok_or_else(|| failed("it has no output".to_owned()))?;
        let mut said = String::new();
        match timeout(PATIENCE, attached(&mut told, &mut said)).await {
            Ok(true) => {}
            Ok(false) => return Err(failed(said)),
            Err(_) => return Err(failed(format!("it holds nobody after {PATIENCE:?}: {said}"))),
        }
        // It tells of every thread that begins, into a pipe that somebody has to empty.
        let listener = tokio::spawn(async move { while let Ok(Some(_)) = told.next_line().await {} });
        Ok(Tracer { child, listener, output: output.to_owned() })
    }

    /// Waits for the first call that failed; when that was.
    pub(crate) async fn first(&self, limit: Duration) -> Result<Micros, ChaosError> {
        let deadline = Instant::now() + limit;
        while self.count().await == 0 {
            if Instant::now() >= deadline {
                let (what, seen) = ("a call that is made to fail".to_owned(), "none".to_owned());
                return Err(ChaosError::Late { what, limit, seen });
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(Micros::now())
    }

    /// Lets go of the process; the calls that were bent.
    pub(crate) async fn detach(mut self) -> Result<Vec<Failure>, ChaosError> {
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            // One that has ended, because the process did, has let go.
            let _ = kill_process(pid, Signal::TERM);
        }
        if timeout(PATIENCE, self.child.wait()).await.is_err() {
            return Err(failed(format!("it does not let go within {PATIENCE:?}")));
        }
        // Ended by the end of what it listens to.
        let _ = (&mut self.listener).await;
        let (now, clock) = (SystemTime::now(), Micros::now());
        let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let written = self.written().await;
        let failures = calls(&written).map(|(at, file)| {
            let ago = since_epoch.saturating_sub(at).as_micros();
            Failure { at: Micros(clock.0.saturating_sub(u64::try_from(ago).unwrap_or_default())), file }
        });
        Ok(failures.collect())
    }

    async fn count(&self) -> usize {
        self.written().await.matches(INJECTED).count()
    }

    async fn written(&self) -> String {
        tokio::fs::read_to_string(&self.output).await.unwrap_or_default()
    }
}

/// A call that was bent.
#[derive(Debug)]
pub(crate) struct Failure {
    /// When it was made, or came back.
    pub(crate) at: Micros,
    /// The file that it was about, as far as that was told.
    pub(crate) file: String,
}

/// Calls that strace says it has bent: since 1970, and about which file. A call that others came between stands on two lines,
/// and the second does not name the file again.
fn calls(written: &str) -> impl Iterator<Item = (Duration, String)> {
    let mut open = BTreeMap::new();
    written.lines().filter_map(move |line| {
        let mut words = line.split_whitespace();
        let (thread, at) = (words.next()?, words.next()?);
        if let Some((_, file)) = line.split_once('<').filter(|_| !line.contains(" resumed>")) {
            let file = file.split_once('>').map_or(file, |(file, _)| file);
            open.insert(thread.to_owned(), file.to_owned());
        }
        let bent = line.contains(INJECTED);
        let at = Duration::try_from_secs_f64(at.parse().ok()?).ok()?;
        bent.then(|| (at, open.get(thread).cloned().unwrap_or_default()))
    })
}

/// Whether it came to hold the process; what it said goes to `said`.
async fn attached(told: &mut Lines<BufReader<ChildStderr>>, said: &mut String) -> bool {
    while let Ok(Some(line)) = told.next_line().await {
        if line.contains(" attached") {
            return true;
        }
        said.push_str(&line);
    }
    false
}

fn failed(stderr: String) -> ChaosError {
    ChaosError::Command { command: "strace".to_owned(), stderr }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each call is told with its own file and time, also where calls of other threads came between.
    #[test]
    fn bent_calls_are_read_from_what_strace_writes() {
        let written = "\
7 1700000000.250000 fdatasync(23</d/partitions/ab-3/00.log>) = -1 EIO (Input/output error) (INJECTED)
8 1700000000.500000 fsync(4</d/partitions/ab-4> <unfinished ...>
7 1700000000.600000 fdatasync(23</d/replica-state>) = 0
8 1700000001.000000 <... fsync resumed>) = -1 EIO (Input/output error) (INJECTED)
7 1700000002.000000 +++ exited with 0 +++
";
        let told: Vec<_> = calls(written).collect();
        let at = |millis| Duration::from_secs(1_700_000_000) + Duration::from_millis(millis);
        let expected = [(at(250), "/d/partitions/ab-3/00.log"), (at(1000), "/d/partitions/ab-4")];
        assert_eq!(told, expected.map(|(at, file)| (at, file.to_owned())));
    }
}
