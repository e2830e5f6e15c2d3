//! Records on disk: two files of JSON lines. The one that is written is moved over the other when it is full, so that
//! there is always between one and two files' worth of history. For looking back only: nothing is flushed on purpose,
//! lines that cannot be read are skipped, and a disk that fails costs nothing but lines.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::record::Record;

/// Size at which a file is full.
const MAX_FILE: u64 = 4 << 20;
/// Size of a line beyond which it is no record.
const MAX_LINE: u64 = 1 << 20;
/// Records that may wait for the disk; further ones are not written.
const QUEUE: usize = 256;

/// The files of one controller.
#[derive(Debug)]
pub(crate) struct Ring {
    dir: PathBuf,
    max_file: u64,
}

impl Ring {
    /// In a controller's data folder.
    pub(crate) fn new(dir: &Path) -> Ring {
        Ring { dir: dir.to_owned(), max_file: MAX_FILE }
    }

    fn current(&self) -> PathBuf {
        self.dir.join("events.jsonl")
    }

    fn previous(&self) -> PathBuf {
        self.dir.join("events.previous.jsonl")
    }

    /// Everything that can be read, oldest first. Blocks.
    pub(crate) fn load(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for path in [self.previous(), self.current()] {
            let Ok(file) = File::open(&path) else { continue };
            let skipped = read(file.take(2 * self.max_file), &mut records);
            if skipped > 0 {
                tracing::warn!(file = %path.display(), skipped, "lines of the ledger cannot be read; going without them");
            }
        }
        records
    }

    /// Starts a thread that writes. It ends with the sender; `hold` is let go last.
    pub(crate) fn start(self, hold: Arc<dyn Send + Sync>) -> Option<SyncSender<Record>> {
        let (sender, records) = sync_channel(QUEUE);
        let started = std::thread::Builder::new().name("ledger".to_owned()).spawn(move || {
            self.write(&records);
            drop(hold);
        });
        match started {
            Ok(_) => Some(sender),
            Err(error) => {
                tracing::warn!(%error, "the ledger is kept in memory only");
                None
            }
        }
    }

    fn write(&self, records: &Receiver<Record>) {
        let mut warned = false;
        while let Ok(record) = records.recv() {
            if let Err(error) = self.append(&record)
                && !std::mem::replace(&mut warned, true)
            {
                tracing::warn!(%error, dir = %self.dir.display(), "records of the ledger are not written");
            }
        }
    }

    /// Opened each time: records are rare, and a file that failed once may work again.
    fn append(&self, record: &Record) -> std::io::Result<()> {
        let line = serde_json::to_vec(record).map_err(std::io::Error::other)?;
        let mut file = OpenOptions::new().create(true).append(true).open(self.current())?;
        let length = file.metadata()?.len();
        if length > 0 && length + line.len() as u64 > self.max_file {
            std::fs::rename(self.current(), self.previous())?;
            file = OpenOptions::new().create(true).append(true).open(self.current())?;
        }
        // The end of a line torn by a crash stands before ours on a line of its own.
        let mut text = Vec::with_capacity(line.len() + 2);
        text.push(b'\n');
        text.extend_from_slice(&line);
        text.push(b'\n');
        file.write_all(&text)
    }
}

/// How many lines of a file are no records.
pub(crate) fn unreadable_lines(file: impl std::io::Read) -> usize {
    read(file, &mut Vec::new())
}

/// Adds what is a record. Returns how many lines are none.
fn read(file: impl std::io::Read, records: &mut Vec<Record>) -> usize {
    let mut reader = BufReader::new(file);
    let mut skipped = 0;
    loop {
        let mut line = Vec::new();
        match (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) => return skipped,
            Ok(_) if line.iter().all(u8::is_ascii_whitespace) => {}
            Ok(_) => match serde_json::from_slice(&line) {
                Ok(record) => records.push(record),
                Err(_) => skipped += 1,
            },
            Err(_) => return skipped + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;

    fn ring(dir: &Path, max_file: u64) -> Ring {
        Ring { max_file, ..Ring::new(dir) }
    }

    /// What was written is there again, but for a line that a crash tore and one that is nonsense.
    #[test]
    fn damaged_lines_are_skipped_and_all_others_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let ring = ring(dir.path(), MAX_FILE);
        ring.append(&record(1)).unwrap();
        let mut file = OpenOptions::new().append(true).open(ring.current()).unwrap();
        file.write_all(b"\xff\xfe nonsense\n{\"kind\":\"failover\",\"rea").unwrap();
        ring.append(&record(2)).unwrap();
        assert_eq!(ring.load(), [record(1), record(2)]);
    }

    /// However much is written, the two files stay within their bound, and the newest records are there.
    #[test]
    fn the_files_stay_bounded_and_keep_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let max_file = 4096;
        let ring = ring(dir.path(), max_file);
        (0..500).for_each(|index| ring.append(&record(index)).unwrap());
        for path in [ring.current(), ring.previous()] {
            assert!(std::fs::metadata(path).unwrap().len() <= max_file + 2);
        }
        let loaded = ring.load();
        assert!(loaded.len() > 5, "{}", loaded.len());
        assert_eq!(loaded.last(), Some(&record(499)));
        assert!(loaded.windows(2).all(|pair| pair[0].index + 1 == pair[1].index));
    }

    /// A folder that cannot be written costs records, and nothing else.
    #[test]
    fn a_failing_disk_stops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let ring = ring(&dir.path().join("nowhere"), MAX_FILE);
        assert!(ring.append(&record(1)).is_err());
        let sender = ring.start(Arc::new(())).unwrap();
        (0..10).for_each(|index| sender.send(record(index)).unwrap());
    }
}
