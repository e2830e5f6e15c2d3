//! What a small append and its fdatasync cost, by how the segment's space was made: docs/adr/0015.
//!
//! `cargo run --release -p holdfast-log --example flush_cost -- DIR [ROUNDS]` prints a table of microseconds. The kinds
//! take turns, so that whatever else the disk does hits them alike.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Appends measured per kind and round.
const APPENDS: usize = 200;
/// Space made at once by those that make it ahead.
const CHUNK: usize = 1 << 20;

/// How the space of a segment comes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Space {
    /// Each append makes the file longer: what the log does.
    Grown,
    /// fallocate(2) of the whole file before.
    Allocated,
    /// The whole file written with zeros and flushed before, as a recycled segment is too; not in the figures.
    Zeroed,
    /// Zeros written a chunk ahead while appending; in the figures.
    ZeroedAhead,
}

const KINDS: [Space; 4] = [Space::Grown, Space::Allocated, Space::Zeroed, Space::ZeroedAhead];

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or_else(|| io::Error::other("which folder? it is written to"))?);
    let rounds: usize = args.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(10);
    println!("| append | space | mean | p50 | p99 | max |");
    println!("|---|---|---|---|---|---|");
    for size in [4 << 10, 64 << 10] {
        let mut taken = KINDS.map(|kind| (kind, Vec::new()));
        for _ in 0..rounds {
            for (kind, taken) in &mut taken {
                measure(&dir.join("flush-cost"), *kind, size, taken)?;
            }
        }
        for (kind, taken) in &mut taken {
            print(*kind, size, taken);
        }
    }
    Ok(())
}

fn measure(path: &Path, kind: Space, size: usize, taken: &mut Vec<Duration>) -> io::Result<()> {
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
    let whole = size * APPENDS;
    match kind {
        Space::Grown | Space::ZeroedAhead => {}
        Space::Allocated => {
            let flags = rustix::fs::FallocateFlags::empty();
            rustix::fs::fallocate(&file, flags, 0, whole as u64)?;
        }
        Space::Zeroed => file.write_all_at(&vec![0; whole], 0)?,
    }
    file.sync_all()?;
    let bytes = vec![0x5a; size];
    for number in 0..APPENDS {
        taken.push(append(&file, kind, number * size, &bytes)?);
    }
    std::fs::remove_file(path)
}

fn append(file: &File, kind: Space, at: usize, bytes: &[u8]) -> io::Result<Duration> {
    let begin = Instant::now();
    if kind == Space::ZeroedAhead && at.is_multiple_of(CHUNK) {
        file.write_all_at(&vec![0; CHUNK], at as u64)?;
    }
    file.write_all_at(bytes, at as u64)?;
    file.sync_data()?;
    Ok(begin.elapsed())
}

fn print(kind: Space, size: usize, taken: &mut [Duration]) {
    taken.sort_unstable();
    let at = |per_mille: usize| taken[(taken.len() - 1) * per_mille / 1000].as_micros();
    let mean = taken.iter().sum::<Duration>().as_micros() / taken.len() as u128;
    println!("| {} KiB | {kind:?} | {mean} | {} | {} | {} |", size >> 10, at(500), at(990), at(1000));
}
