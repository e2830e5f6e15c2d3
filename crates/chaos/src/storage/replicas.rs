//! What is in the data folders of brokers that were ended: whether each is sound by itself, and all hold the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;
use tokio::process::Command;

use crate::error::{ChaosError, chain};
use crate::faults::Check;

/// The last line of `holdfast log verify --format json`; only what is used of it.
#[derive(Debug, Deserialize)]
struct Summary {
    damages: u64,
    torn_tails: u64,
    put_aside: u64,
}

/// A line before it.
#[derive(Debug, Deserialize)]
struct Problem {
    why: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    position: u64,
}

/// Compares logs this many bytes at a time.
const PIECE: usize = 64 << 10;

/// Nothing is wrong with any folder, by the tool that operators have; how many logs were put aside is told, too.
pub(crate) async fn sound(binary: &Path, folders: &[PathBuf]) -> Result<(Check, u64), ChaosError> {
    let mut problems = Vec::new();
    let mut put_aside = 0;
    for folder in folders {
        let mut command = Command::new(binary);
        command.args(["log", "verify", "--format", "json"]).arg(folder).stdin(Stdio::null());
        let output = command.kill_on_drop(true).output().await;
        let output = output.map_err(ChaosError::io("running holdfast log verify"))?;
        let told = String::from_utf8_lossy(&output.stdout);
        let summary = told.lines().last().and_then(|line| serde_json::from_str::<Summary>(line).ok());
        let Some(summary) = summary else {
            let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let command = format!("holdfast log verify {}", folder.display());
            return Err(ChaosError::Command { command, stderr });
        };
        put_aside += summary.put_aside;
        if summary.damages + summary.torn_tails > 0 {
            let first = told.lines().find_map(|line| serde_json::from_str::<Problem>(line).ok());
            let first =
                first.map(|Problem { why, path, position }| format!(", {path} byte {position}: {why}"));
            problems.push(format!(
                "{}: {} damaged, {} torn{}",
                folder.display(),
                summary.damages,
                summary.torn_tails,
                first.unwrap_or_default()
            ));
        }
    }
    let check = Check::of("holdfast log verify finds nothing", problems.is_empty(), problems.join("; "));
    Ok((check, put_aside))
}

/// Every partition has the same bytes in all folders. Reads all of them.
pub(crate) async fn alike(folders: Vec<PathBuf>) -> Result<Check, ChaosError> {
    let compared = tokio::task::spawn_blocking(move || differences(&folders)).await;
    let compared = compared.map_err(|error| ChaosError::client("comparing replicas", &error))?;
    Ok(match compared {
        Ok(different) => Check::of("all replicas hold the same", different.is_empty(), different.join("; ")),
        Err(error) => Check::of("all replicas hold the same", false, chain(&error)),
    })
}

fn differences(folders: &[PathBuf]) -> io::Result<Vec<String>> {
    let logs = folders.iter().map(|folder| logs(folder)).collect::<io::Result<Vec<_>>>()?;
    let names: BTreeSet<_> = logs.iter().flat_map(BTreeMap::keys).collect();
    let mut different = Vec::new();
    for name in names {
        let copies = logs.iter().map(|logs| logs.get(name).cloned().unwrap_or_default());
        if let Some(at) = first_difference(copies.map(Log::open).collect::<io::Result<_>>()?)? {
            different.push(format!("{name} from byte {at} on"));
        }
    }
    Ok(different)
}

/// The segments of every log in use, in order.
fn logs(folder: &Path) -> io::Result<BTreeMap<String, Vec<PathBuf>>> {
    let mut logs = BTreeMap::<_, Vec<_>>::new();
    for (file, _) in super::flips::segments(folder)? {
        let name = file.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        logs.entry(name.unwrap_or_default()).or_default().push(file);
    }
    Ok(logs)
}

/// Segments, read as one. Where a log is cut into them is each replica's own affair.
struct Log {
    rest: std::vec::IntoIter<PathBuf>,
    now: Option<File>,
}

impl Log {
    fn open(segments: Vec<PathBuf>) -> io::Result<Log> {
        let mut rest = segments.into_iter();
        let now = rest.next().map(File::open).transpose()?;
        Ok(Log { rest, now })
    }

    /// As many bytes as there are, up to a piece.
    fn piece(&mut self) -> io::Result<Vec<u8>> {
        let mut piece = Vec::new();
        while let Some(file) = &mut self.now
            && piece.len() < PIECE
        {
            if file.take((PIECE - piece.len()) as u64).read_to_end(&mut piece)? == 0 {
                self.now = self.rest.next().map(File::open).transpose()?;
            }
        }
        Ok(piece)
    }
}

/// Where the first of the logs that is another ends to be the same.
fn first_difference(mut logs: Vec<Log>) -> io::Result<Option<u64>> {
    let mut at = 0;
    loop {
        let pieces = logs.iter_mut().map(Log::piece).collect::<io::Result<Vec<_>>>()?;
        let Some((first, others)) = pieces.split_first() else { return Ok(None) };
        let parts = others.iter().filter(|other| *other != first).map(|other| {
            let same = first.iter().zip(other).take_while(|(one, other)| one == other);
            same.count() as u64
        });
        if let Some(part) = parts.min() {
            return Ok(Some(at + part));
        }
        if first.is_empty() {
            return Ok(None);
        }
        at += first.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A broker's folder with one log of these segments.
    fn folder(segments: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("partitions/7-0");
        fs::create_dir_all(&log).unwrap();
        for (name, bytes) in segments {
            fs::write(log.join(format!("{name}.log")), bytes).unwrap();
        }
        fs::write(log.join("00.index"), b"its own affair").unwrap();
        folder
    }

    /// Bytes count, not how they are cut into segments; a log that is longer, other or missing is told.
    #[test]
    fn replicas_are_compared_byte_by_byte() {
        let long = vec![b'x'; 2 * PIECE + 5];
        let whole = folder(&[("00", &long), ("05", b"ab")]);
        let cut = folder(&[("00", &long[..PIECE + 1]), ("03", &long[PIECE + 1..]), ("05", b"ab")]);
        let short = folder(&[("00", &long)]);
        let other = folder(&[("00", &long), ("05", b"ac")]);
        let none = folder(&[]);
        let told = |folders: [&tempfile::TempDir; 2]| {
            differences(&folders.map(|folder| folder.path().to_owned())).unwrap()
        };
        assert_eq!(told([&whole, &cut]), Vec::<String>::new());
        let end = long.len();
        assert_eq!(told([&whole, &short]), [format!("7-0 from byte {end} on")]);
        assert_eq!(told([&cut, &other]), [format!("7-0 from byte {} on", end + 1)]);
        assert_eq!(told([&none, &whole]), ["7-0 from byte 0 on"]);
    }
}
