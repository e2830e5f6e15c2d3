//! Why a run cannot go on. A broken promise is no error: it is a finding, and the run goes on.

use std::path::PathBuf;
use std::time::Duration;

use crate::zone::Zone;

/// What failed, why, and what to do next.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChaosError {
    /// Namespaces belong to root.
    #[error("network namespaces need root: run as root, or with --loopback, which has no network faults")]
    NotRoot,
    /// A program of the system is not there.
    #[error("{program} is not installed: install it with `{install}`, or run with --loopback")]
    MissingTool {
        /// Its name.
        program: &'static str,
        /// How it is installed on Debian.
        install: &'static str,
    },
    /// Mounting belongs to root.
    #[error("storage faults mount file systems of their own, which needs root: run as root")]
    MountingNeedsRoot,
    /// A program that storage faults are made with is not there.
    #[error("{program} is not installed, and storage faults need it: install it with `{install}`")]
    MissingStorageTool {
        /// Its name.
        program: &'static str,
        /// How it is installed on Debian.
        install: &'static str,
    },
    /// What stands in for the disk of a machine without power is no disk.
    #[error(
        "the copied disk of zone {zone} is not what a disk holds at one instant ({said}): the run proves nothing; \
         repeat it, and report it where it happens again"
    )]
    TornCopy {
        /// Whose disk.
        zone: Zone,
        /// What the check of the file system said.
        said: String,
    },
    /// Another runner uses the same namespaces and ports.
    #[error("another run is under way (it holds {}): wait until it has ended", lock.display())]
    Busy {
        /// The locked file.
        lock: PathBuf,
    },
    /// The fault needs what this setting does not have.
    #[error("fault {fault} needs {needs}: leave out --loopback, or choose another fault")]
    Unsupported {
        /// The fault.
        fault: &'static str,
        /// What is missing.
        needs: &'static str,
    },
    /// No injector of packet loss passed its own test.
    #[error("no injector cuts packets on this kernel: {tried}")]
    NoInjector {
        /// What was tried, and how each failed.
        tried: String,
    },
    /// A command of the system failed.
    #[error("{command} failed: {stderr}")]
    Command {
        /// As it was run.
        command: String,
        /// What it said.
        stderr: String,
    },
    /// A process of the cluster does not do what it was asked to.
    #[error("{process} {problem}; its log: {}", log.display())]
    Process {
        /// Role and zone.
        process: String,
        /// What is wrong.
        problem: String,
        /// Where to read on.
        log: PathBuf,
    },
    /// A condition did not come about.
    #[error("{what} did not come about within {limit:?}; last seen: {seen}")]
    Late {
        /// The condition.
        what: String,
        /// How long was waited.
        limit: Duration,
        /// What there was instead.
        seen: String,
    },
    /// The cluster refused the runner itself.
    #[error("{what}: {why}")]
    Client {
        /// What was asked for.
        what: String,
        /// The answer, whole chain.
        why: String,
    },
    /// A file or folder.
    #[error("{what}: {source}")]
    Io {
        /// What was done with it.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// SIGINT or SIGTERM.
    #[error("interrupted: everything was undone")]
    Interrupted,
}

impl ChaosError {
    /// An error of a file or process, with what was done.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> ChaosError {
        let what = what.into();
        move |source| ChaosError::Io { what, source }
    }

    /// An error of the client library, with its causes.
    pub(crate) fn client(what: impl Into<String>, error: &dyn std::error::Error) -> ChaosError {
        ChaosError::Client { what: what.into(), why: chain(error) }
    }
}

/// An error and all that caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        line = format!("{line}: {next}");
        cause = next.source();
    }
    line
}
