//! Programs of the system, run to their end.

use std::process::{Command, Output, Stdio};

use crate::error::ChaosError;

/// Runs a program; its output, or an error with what it said.
pub(crate) fn run(program: &'static str, arguments: &[&str]) -> Result<String, ChaosError> {
    let command = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => ChaosError::MissingTool { program, install: install(program) },
        _ => ChaosError::Io { what: command(), source: error },
    })?;
    said(command, &output)
}

/// The same on the runtime, for what happens while load is measured.
pub(crate) async fn run_beside(program: &'static str, arguments: &[&str]) -> Result<String, ChaosError> {
    let command = || format!("{program} {}", arguments.join(" "));
    let output = tokio::process::Command::new(program).args(arguments).stdin(Stdio::null()).output().await;
    let output = output.map_err(|source| ChaosError::Io { what: command(), source })?;
    said(command, &output)
}

fn said(command: impl Fn() -> String, output: &Output) -> Result<String, ChaosError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(ChaosError::Command { command: command(), stderr })
}

/// How a program is installed on Debian.
pub(crate) fn install(program: &str) -> &'static str {
    match program {
        "nft" => "apt-get install nftables",
        "mkfs.ext4" | "e2fsck" => "apt-get install e2fsprogs",
        "mount" | "umount" => "apt-get install mount",
        "unshare" => "apt-get install util-linux",
        "strace" => "apt-get install strace",
        _ => "apt-get install iproute2",
    }
}
