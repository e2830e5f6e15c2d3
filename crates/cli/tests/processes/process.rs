//! Running the binary: to its end, or in the background until dropped.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Deadline of everything that is waited for: generous, because a test never fails for a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two looks at a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The binary, without anything that the environment of the tests might say to it.
fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HOLDFAST")) {
        command.env_remove(name);
    }
    command
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) time: Duration,
}

/// Runs the binary to its end.
pub(crate) fn run(arguments: &[&str]) -> Outcome {
    run_with(arguments, &[], "")
}

/// The same with variables of the environment and something on standard input.
pub(crate) fn run_with(arguments: &[&str], environment: &[(&str, &str)], input: &str) -> Outcome {
    let started = Instant::now();
    let mut child = binary()
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // A command that does not read its input closes it: not our concern.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("the binary ends");
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
        time: started.elapsed(),
    }
}

impl Outcome {
    /// Asserts that it went well, and gives what was printed.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// Asserts an error with this exit code whose three lines hold all of `parts`.
    #[track_caller]
    pub(crate) fn refused(&self, code: u8, parts: &[&str]) {
        assert_eq!(self.code, Some(i32::from(code)), "{self:?}");
        assert_eq!(self.stdout, "", "nothing belongs on stdout: {self:?}");
        assert_three_lines(&self.stderr, parts);
    }
}

/// Asserts that `stderr` holds, log lines aside, one error of three lines with all of `parts` in it.
#[track_caller]
pub(crate) fn assert_three_lines(stderr: &str, parts: &[&str]) {
    let lines: Vec<&str> = stderr.lines().filter(|line| !is_log_line(line)).collect();
    let starts = ["error: ", "  why: ", " next: "];
    assert_eq!(lines.len(), starts.len(), "an error has three lines:\n{stderr}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(
            line.starts_with(start) && line.len() > start.len() + 2,
            "{line:?} is no {start:?}:\n{stderr}"
        );
    }
    for part in parts {
        assert!(lines.iter().any(|line| line.contains(part)), "{part:?} is not said:\n{stderr}");
    }
}

/// Log lines begin with a date.
fn is_log_line(line: &str) -> bool {
    line.get(..5).is_some_and(|start| start.starts_with("20") && start.ends_with('-'))
}

/// A process in the background. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    output: PathBuf,
}

impl Process {
    /// Starts the binary; its output goes to `<name>.log` and `<name>.out` in `folder`.
    pub(crate) fn start(arguments: &[&str], folder: &Path, name: &str) -> Process {
        Process::spawn(binary().args(arguments), folder, name)
    }

    /// The same for a process that may have so many files and connections.
    pub(crate) fn start_with_descriptors(
        count: u32,
        arguments: &[&str],
        folder: &Path,
        name: &str,
    ) -> Process {
        let script = format!("ulimit -n {count}; exec \"$0\" \"$@\"");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_holdfast")]).args(arguments);
        Process::spawn(&mut shell, folder, name)
    }

    fn spawn(command: &mut Command, folder: &Path, name: &str) -> Process {
        let (log, output) = (folder.join(format!("{name}.log")), folder.join(format!("{name}.out")));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&output).expect("a file"))
            .stderr(File::create(&log).expect("a file"))
            .spawn()
            .expect("the binary starts");
        Process { child, log, output }
    }

    /// What it wrote to stderr until now.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).expect("a log")).into_owned()
    }

    /// What it wrote to stdout until now.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.output).expect("an output")).into_owned()
    }

    /// Lines logged as errors.
    pub(crate) fn errors(&self) -> usize {
        self.log().lines().filter(|line| is_log_line(line) && line.contains(" ERROR ")).count()
    }

    /// Whether it has not ended.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// Bytes of memory in use.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
        let kibibytes: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
        kibibytes * 1024
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits until it ends by itself.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let log = self.log.clone();
        eventually(|| match self.child.try_wait().expect("our child") {
            Some(status) => Ok(status),
            None => Err(format!("it still runs: {}", std::fs::read_to_string(&log).unwrap_or_default())),
        })
    }

    /// Waits until it ends by itself with this code and three lines that hold all of `parts`.
    #[track_caller]
    pub(crate) fn refused(&mut self, code: u8, parts: &[&str]) {
        let status = self.ended();
        assert_eq!(status.code(), Some(i32::from(code)), "{}", self.log());
        assert_eq!(self.output(), "", "nothing belongs on stdout");
        assert_three_lines(&self.log(), parts);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error says that it ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tries until it succeeds; after `PATIENCE` fails with what was missing.
#[track_caller]
pub(crate) fn eventually<T, E: std::fmt::Display>(mut attempt: impl FnMut() -> Result<T, E>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) if Instant::now() > give_up => panic!("not within {PATIENCE:?}: {error}"),
            Err(_) => std::thread::sleep(POLL_INTERVAL),
        }
    }
}
