//! What happens between a reader's look at the index and its look at the file.

use std::ffi::OsString;
use std::io;
use std::sync::Mutex;

use super::*;
use crate::{File, OpenMode, Volume};

type Hook = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// Files in memory; before the next read of any of them a hook runs, once.
struct HookedFs {
    fs: MemFs,
    before_read: Hook,
}

struct HookedFile {
    file: Arc<dyn File>,
    before_read: Hook,
}

impl std::fmt::Debug for HookedFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HookedFs")
    }
}

impl std::fmt::Debug for HookedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HookedFile")
    }
}

impl Fs for HookedFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.fs.create_dir_all(dir)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = self.fs.open(path, mode)?;
        Ok(Arc::new(HookedFile { file, before_read: self.before_read.clone() }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.fs.remove_file(path)
    }
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.fs.remove_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.fs.list(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.fs.sync_dir(dir)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.fs.exists(path)
    }
    fn volume(&self, dir: &Path) -> io::Result<Arc<dyn Volume>> {
        self.fs.volume(dir)
    }
}

impl File for HookedFile {
    fn read_exact_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        let hook = self.before_read.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
        }
        self.file.read_exact_at(buffer, position)
    }
    fn write_all_at(&self, buffers: &[&[u8]], position: u64) -> io::Result<()> {
        self.file.write_all_at(buffers, position)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}

/// A log of four batches, and a hook that replaces the last three by others of other sizes.
fn log_that_changes_before_the_next_read() -> (Arc<Mutex<PartitionLog>>, Hook, Vec<RecordBatch>) {
    let before_read = Hook::default();
    let fs = HookedFs { fs: MemFs::new(), before_read: before_read.clone() };
    let place = Place { fs: Arc::new(fs), dir: "/d/t-0".into(), config: small() };
    let old: Vec<RecordBatch> = (0..4).map(|base| batch(base, 1, 1, 7, 50)).collect();
    let log = Arc::new(Mutex::new(filled(&place, &old)));
    let new: Vec<RecordBatch> = (1..4).map(|base| batch(base, 1, 2, 9, 71)).collect();
    let (changed, batches) = (log.clone(), new.clone());
    *before_read.lock().unwrap() = Some(Box::new(move || {
        let mut log = changed.lock().unwrap();
        log.truncate_to(Offset(1)).unwrap();
        log.append(&batches).unwrap();
    }));
    (log, before_read, [&old[..1], &new].concat())
}

/// A log of three segments, and a hook that trims it to its last batch.
fn log_that_is_trimmed_before_the_next_read() -> (Arc<Mutex<PartitionLog>>, Hook) {
    let before_read = Hook::default();
    let fs = HookedFs { fs: MemFs::new(), before_read: before_read.clone() };
    let place = Place { fs: Arc::new(fs), dir: "/d/t-0".into(), config: small() };
    let all: Vec<RecordBatch> = (0..30).map(|base| batch(base, 1, 1, base as i64, 100)).collect();
    let log = Arc::new(Mutex::new(filled(&place, &all)));
    let trimmed = log.clone();
    *before_read.lock().unwrap() = Some(Box::new(move || {
        let base = holdfast_core::replication::Position { epoch: epoch(1), end: Offset(29) };
        trimmed.lock().unwrap().trim_to(base, vec![]).unwrap().unwrap().run().unwrap();
    }));
    (log, before_read)
}

#[test]
fn read_that_a_trim_overtakes_is_out_of_range() {
    let (log, hook) = log_that_is_trimmed_before_the_next_read();
    let reader = log.lock().unwrap().reader();
    let error = reader.read(Offset(2), Offset(30), 10_000).unwrap_err();
    assert!(hook.lock().unwrap().is_none(), "the hook did not run");
    assert!(matches!(error, LogError::OutOfRange { start: Offset(29), .. }), "{error:?}");
}

/// Its segment goes between the look at the index and the opening of the file.
#[test]
fn search_by_time_that_a_trim_overtakes_finds_what_is_left() {
    let (log, hook) = log_that_is_trimmed_before_the_next_read();
    let reader = log.lock().unwrap().reader();
    assert_eq!(reader.offset_for_timestamp(3, Offset(30)).unwrap(), Some((Offset(29), 29)));
    assert!(hook.lock().unwrap().is_none(), "the hook did not run");
}

#[test]
fn read_that_a_truncation_overtakes_sees_the_log_as_it_is_afterwards() {
    let (log, hook, expected) = log_that_changes_before_the_next_read();
    let reader = log.lock().unwrap().reader();
    let read = reader.read(Offset(2), Offset(4), 10_000).unwrap();
    assert!(hook.lock().unwrap().is_none(), "the hook did not run");
    assert_eq!(RecordBatch::split(read).unwrap(), expected[2..]);
}

#[test]
fn search_by_time_that_a_truncation_overtakes_sees_the_log_as_it_is_afterwards() {
    let (log, hook, _) = log_that_changes_before_the_next_read();
    let reader = log.lock().unwrap().reader();
    assert_eq!(reader.offset_for_timestamp(7, Offset(4)).unwrap(), Some((Offset(0), 7)));
    assert!(hook.lock().unwrap().is_none(), "the hook did not run");
}
