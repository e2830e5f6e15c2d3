//! Mounts of a run: known by the folder that they are below, and undone in reverse order.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::ChaosError;
use crate::network::leftovers::FOLDER_PREFIX;
use crate::network::system::run;

/// How long what holds a file system may take to be gone: processes that were killed need a moment.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two attempts.
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// Undoes what runs left behind that were killed themselves. Only to be called while the lock is held.
pub(crate) fn remove_leftovers() -> Result<(), ChaosError> {
    unmount_all(|point| {
        point.components().any(|part| part.as_os_str().to_string_lossy().starts_with(FOLDER_PREFIX))
    })
}

/// Undoes every mount below a folder.
pub(crate) fn unmount_below(folder: &Path) -> Result<(), ChaosError> {
    unmount_all(|point| point.starts_with(folder))
}

fn unmount_all(ours: impl Fn(&Path) -> bool) -> Result<(), ChaosError> {
    let table = fs::read("/proc/self/mountinfo").map_err(ChaosError::io("reading what is mounted"))?;
    // What was mounted last may lie on what was mounted before.
    mount_points(&table).into_iter().rev().filter(|point| ours(point)).try_for_each(|point| unmount(&point))
}

fn unmount(point: &Path) -> Result<(), ChaosError> {
    let point = point.to_string_lossy();
    let deadline = Instant::now() + PATIENCE;
    while run("umount", &[&point]).is_err() {
        if Instant::now() >= deadline {
            // Gone from the tree now, and from the kernel once whoever holds it is gone.
            return run("umount", &["--lazy", &point]).map(drop);
        }
        sleep(TRY_AGAIN);
    }
    Ok(())
}

/// The fifth column of a line, for each line in order.
fn mount_points(table: &[u8]) -> Vec<PathBuf> {
    let lines = table.split(|byte| *byte == b'\n');
    let points = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    points.map(|point| PathBuf::from(OsString::from_vec(unescaped(point)))).collect()
}

/// Spaces, tabs, line ends and backslashes stand there as a backslash and three octal digits.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, behind)) = rest.split_first() {
        let digits = behind.get(..3).filter(|_| first == b'\\');
        let byte = digits.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { behind.get(3..).unwrap_or_default() } else { behind };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names with spaces come back as they are, whatever else is in the line.
    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        let table = b"22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            36 22 7:0 / /a/run\\040one/disks/b rw shared:7 - ext4 /dev/loop0 rw\n\
            37 22 0:5 / /back\\134slash rw - tmpfs x rw\n";
        let points = mount_points(table);
        assert_eq!(points, ["/", "/a/run one/disks/b", "/back\\slash"].map(PathBuf::from));
        assert_eq!(unescaped(b"ends\\04"), b"ends\\04");
        assert_eq!(unescaped(b"\\9999"), b"\\9999");
    }
}
