//! What the bare engine does beside what plain system calls do on the same file system, in the same run: docs/performance.md.
//!
//! ```text
//! cargo run --release -p holdfast-log --example engine -- append DIR [ROUNDS]   appending and flushing
//! cargo run --release -p holdfast-log --example engine -- read DIR [ROUNDS]     reading a log from its beginning
//! cargo run --release -p holdfast-log --example engine -- flush DIR [ROUNDS] [LOGS]   many logs with something to flush
//! cargo run --release -p holdfast-log --example engine -- open DIR [LOGS]       many logs: opened, and kept open
//! cargo run --release -p holdfast-log --example engine -- compact DIR [ROUNDS]  a pass of compaction
//! ```
//!
//! Each prints tables. Whatever is compared takes turns round by round, so that whatever else the machine does meets all of
//! it alike; the figures to trust are the shares, not the megabytes. What is written into DIR is removed again.

mod append;
mod batches;
mod compact;
mod compare;
mod group;
mod open;
mod outside;
mod read;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// As the binary has it: what a read into fresh memory costs is up to the allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str =
    "say what to measure and in which folder: append|read|flush|open|compact DIR [ROUNDS] [LOGS]";

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [what, dir, numbers @ ..] = &args[..] else { return Err(io::Error::other(USAGE)) };
    let number = |index: usize, default: usize| match numbers.get(index) {
        Some(given) => {
            given.parse().map_err(|_| io::Error::other(format!("{given:?} is no number; {USAGE}")))
        }
        None => Ok(default),
    };
    if what == open::CREATE {
        return open::create(Path::new(dir), number(0, 10_000)?);
    }
    let folder = Folder::create(Path::new(dir))?;
    match what.as_str() {
        "append" => append::run(&folder.0, number(0, 20)?),
        "read" => read::run(&folder.0, number(0, 20)?),
        "flush" => group::run(&folder.0, number(0, 20)?, number(1, 10_000)?),
        "compact" => compact::run(&folder.0, number(0, 5)?),
        "open" => open::run(&folder.0, number(0, 10_000)?),
        _ => Err(io::Error::other(USAGE)),
    }
}

/// A folder of our own, removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn create(dir: &Path) -> io::Result<Folder> {
        let own = dir.join(format!("holdfast-engine.{}", std::process::id()));
        fs::create_dir_all(&own)?;
        Ok(Folder(own))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} is left behind: {error}", self.0.display());
        }
    }
}
