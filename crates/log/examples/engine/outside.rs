//! The same flush pattern by programs that everybody has: dd, and fio where it is installed. Both say themselves how long
//! they wrote.

use std::io;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use crate::append::Pattern;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// A write of all that is flushed at once, which returns when it is on disk. Zeros.
    DdSynced,
    /// Writes of the size of a batch, and one flush in the end. Zeros.
    DdFlushed,
    /// Writes of the size of a batch, and a flush after so many. Random bytes.
    Fio,
}

/// Those that can be run.
pub(crate) fn installed() -> Vec<Program> {
    let runs = |name: &str| Command::new(name).arg("--version").output().is_ok_and(|it| it.status.success());
    let mut programs = Vec::new();
    if runs("dd") {
        programs.extend([Program::DdSynced, Program::DdFlushed]);
    }
    if runs("fio") {
        programs.push(Program::Fio);
    }
    programs
}

impl Program {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Program::DdSynced => "dd oflag=dsync",
            Program::DdFlushed => "dd conv=fdatasync",
            Program::Fio => "fio fdatasync",
        }
    }

    /// Whether it can write in that pattern.
    pub(crate) fn can(self, pattern: Pattern) -> bool {
        self != Program::DdFlushed || pattern.flushes == 1
    }

    /// Writes a new file, and says how long that took: without starting the program.
    pub(crate) fn write(self, path: &Path, pattern: Pattern) -> io::Result<Duration> {
        let file = path.display();
        match self {
            Program::DdSynced => {
                let (size, count) = (pattern.per_flush(), pattern.flushes);
                dd(&[
                    format!("of={file}"),
                    format!("bs={size}"),
                    format!("count={count}"),
                    "oflag=dsync".into(),
                ])
            }
            Program::DdFlushed => {
                let (size, count) = (pattern.batch, pattern.batches_per_flush);
                dd(&[
                    format!("of={file}"),
                    format!("bs={size}"),
                    format!("count={count}"),
                    "conv=fdatasync".into(),
                ])
            }
            Program::Fio => fio(&file.to_string(), pattern),
        }
    }
}

fn dd(operands: &[String]) -> io::Result<Duration> {
    let mut command = Command::new("dd");
    command.env("LC_ALL", "C").arg("if=/dev/zero").args(operands);
    let output = run(&mut command)?;
    // "134217728 bytes (134 MB, 128 MiB) copied, 0.0912 s, 1.5 GB/s"
    let told = String::from_utf8_lossy(&output.stderr);
    let seconds = told.split("copied, ").nth(1).and_then(|rest| rest.split(' ').next());
    let seconds = seconds.and_then(|seconds| seconds.parse().ok());
    seconds.map(Duration::from_secs_f64).ok_or_else(|| io::Error::other(format!("dd said: {told}")))
}

/// The file grows as it is written, like a segment: not made before, not extended before. fio flushes before the write that
/// follows, so it is given one more to do.
fn fio(file: &str, pattern: Pattern) -> io::Result<Duration> {
    let mut command = Command::new("fio");
    command.args([
        "--name=engine",
        "--rw=write",
        "--ioengine=psync",
        "--fallocate=none",
        "--create_on_open=1",
    ]);
    command.args(["--thread", "--output-format=json"]);
    command.arg(format!("--filename={file}"));
    command.arg(format!("--bs={}", pattern.batch));
    command.arg(format!("--fdatasync={}", pattern.batches_per_flush));
    command.arg(format!("--size={}", pattern.bytes() + pattern.batch));
    let output = run(&mut command)?;
    let told: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let job = &told["jobs"][0];
    let millis = job["job_runtime"].as_u64().filter(|millis| *millis > 0);
    millis.map(Duration::from_millis).ok_or_else(|| io::Error::other("fio did not say how long it ran"))
}

fn run(command: &mut Command) -> io::Result<Output> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(output);
    }
    let problem = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("{command:?} failed: {problem}")))
}
