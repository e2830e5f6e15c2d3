//! Processes that a run left behind when it was killed itself: found by the folder that their configuration lies in.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// Work folders of runs begin like this, so that their processes are known by their command line.
pub(crate) const FOLDER_PREFIX: &str = "holdfast-chaos.";

/// Ends every process that was started with a configuration file of some run's folder. Only to be called while the
/// lock is held: the processes of a run that is under way look the same.
pub(crate) fn end_processes() {
    let Ok(entries) = fs::read_dir("/proc") else { return };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    kill_all(pids.filter(|pid| is_ours(*pid)));
}

fn is_ours(pid: i32) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let arguments: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let mut pairs = arguments.windows(2);
    pairs.any(|pair| pair[0] == "--config" && in_work_folder(Path::new(pair[1].as_ref())))
}

fn in_work_folder(config: &Path) -> bool {
    config.components().any(|part| part.as_os_str().to_string_lossy().starts_with(FOLDER_PREFIX))
}

/// SIGCONT, then SIGKILL: a stopped process would keep its sockets.
pub(crate) fn kill_all(pids: impl Iterator<Item = i32>) {
    for pid in pids.filter_map(Pid::from_raw) {
        // One that has ended meanwhile is as dead as it should be.
        let _ = kill_process(pid, Signal::CONT);
        let _ = kill_process(pid, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process is ours by the folder of its configuration file, and by nothing else in its command line.
    #[test]
    fn only_files_in_a_work_folder_are_ours() {
        assert!(in_work_folder(Path::new("run/holdfast-chaos.71/kill.processes/config/broker-a.toml")));
        assert!(!in_work_folder(Path::new("run/local/broker-a.toml")));
        assert!(!in_work_folder(Path::new("deploy/holdfast-chaos/broker-a.toml")));
        assert!(!is_ours(std::process::id() as i32));
    }
}
