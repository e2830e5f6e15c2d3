//! Others at work while a pass runs: readers at every step of it, and the owner, who cuts, trims, checkpoints or closes the log.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use holdfast_core::replication::Position;

use super::*;
use crate::fs::hooked::HookedFs;
use crate::fs::mem::{Fault, OperationKind};
use crate::{File, OpenMode, Volume};

type Watch = Arc<Mutex<Option<Box<dyn FnMut() + Send>>>>;

/// Files in memory. Before and after each change of a name something runs.
#[derive(Clone, Default)]
struct WatchedFs {
    fs: MemFs,
    watch: Watch,
}

impl std::fmt::Debug for WatchedFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WatchedFs")
    }
}

impl WatchedFs {
    fn around<T>(&self, change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.look();
        let changed = change();
        self.look();
        changed
    }

    fn look(&self) {
        let watch = self.watch.lock().unwrap().take();
        if let Some(mut watch) = watch {
            watch();
            *self.watch.lock().unwrap() = Some(watch);
        }
    }
}

impl Fs for WatchedFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.fs.create_dir_all(dir)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.fs.open(path, mode)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.around(|| self.fs.rename(from, to))
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.around(|| self.fs.remove_file(path))
    }
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.fs.remove_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.fs.list(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.around(|| self.fs.sync_dir(dir))
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.fs.exists(path)
    }
    fn volume(&self, dir: &Path) -> io::Result<Arc<dyn Volume>> {
        self.fs.volume(dir)
    }
}

/// What a reader gets from the start to the end, wherever that is by then.
fn read_all(reader: &LogReader, at_once: usize) -> Vec<RecordBatch> {
    let mut from = reader.log_start_offset();
    let mut found: Vec<RecordBatch> = Vec::new();
    while from < reader.log_end_offset() {
        let end = reader.log_end_offset();
        let read = RecordBatch::split(reader.read(from, end, at_once).unwrap()).unwrap();
        let first = read.first().expect("there is something").header();
        assert!(first.base_offset <= from && from < first.next_offset());
        from = read.last().unwrap().header().next_offset();
        found.extend(read);
    }
    found
}

/// The last value of each key.
fn latest(batches: &[RecordBatch]) -> BTreeMap<Bytes, (u64, Option<Bytes>)> {
    let records = records_of(batches).into_iter();
    records.filter_map(|(offset, record)| Some((record.key?, (offset, record.value)))).collect()
}

#[test]
fn readers_find_everything_at_every_step_of_a_pass() {
    for cached in [false, true] {
        let fs = WatchedFs::default();
        let files: Arc<dyn Fs> = match cached {
            true => Arc::new(CachedFs::new(Arc::new(fs.clone()), 3)),
            false => Arc::new(fs.clone()),
        };
        let place = Place { fs: files, dir: "/d/t-0".into(), config: small() };
        let written = Written::usual(90, 5);
        let log = log_of(&place, &written);
        let (reader, all) = (log.reader(), written.clone());
        let sizes = Arc::new(Mutex::new(BTreeSet::new()));
        let seen = sizes.clone();
        *fs.watch.lock().unwrap() = Some(Box::new(move || {
            let found = read_all(&reader, 600);
            assert_eq!(latest(&found), latest(&all.batches));
            let whole: usize = found.iter().map(|batch| batch.bytes().len()).sum();
            seen.lock().unwrap().insert(whole);
            for offset in (0..all.end().0).step_by(13) {
                let batch = RecordBatch::split(reader.read(Offset(offset), all.end(), 1).unwrap()).unwrap();
                assert!(batch[0].header().base_offset <= Offset(offset));
            }
            for time in [0, 1050, 1100, 9000] {
                let first =
                    found.iter().find(|batch| batch.header().max_timestamp >= time).map(RecordBatch::header);
                let expected = first.map(|header| (header.base_offset, header.max_timestamp));
                assert_eq!(reader.offset_for_timestamp(time, all.end()).unwrap(), expected);
            }
            let verified = reader.verify(Offset(0), all.end(), 1).unwrap();
            assert_eq!(verified.damage, None);
        }));
        compact(&log);
        let sizes = sizes.lock().unwrap();
        assert!(sizes.len() > 3, "it was looked at between swaps: {sizes:?}");
        assert_eq!(sizes.first(), Some(&(log.size_bytes() as usize)));
    }
}

/// A whole pass between a reader's look at the index and its look at the file, or while it opens that.
#[test]
fn a_read_that_a_pass_overtakes_finds_what_is_there() {
    let written = Written::usual(90, 5);
    for (number, offset) in (0..written.end().0).step_by(5).enumerate() {
        let fs = HookedFs::default();
        let place = Place { fs: Arc::new(fs.clone()), dir: "/d/t-0".into(), config: small() };
        let log = log_of(&place, &written);
        let (reader, other) = (log.reader(), log.reader());
        let pass = move || {
            compact_with(&other, &plan(&other));
        };
        if number % 2 == 0 {
            fs.before_read(pass);
        } else {
            fs.during_open(pass);
        }
        let read = match number % 3 {
            0 => {
                let found = reader.offset_for_timestamp(1000 + offset as i64, written.end()).unwrap();
                let batches = content(&log);
                let first = batches.iter().find(|batch| batch.header().max_timestamp >= 1000 + offset as i64);
                assert_eq!(
                    found,
                    first.map(|batch| (batch.header().base_offset, batch.header().max_timestamp))
                );
                Vec::new()
            }
            1 => reader.read_verified(Offset(offset), written.end(), 500).unwrap().batches,
            _ => RecordBatch::split(reader.read(Offset(offset), written.end(), 500).unwrap()).unwrap(),
        };
        assert!(fs.have_run(), "offset {offset}: no pass ran");
        let now = content(&log);
        assert!(read.iter().all(|batch| now.contains(batch)), "offset {offset}");
    }
}

#[test]
fn readers_appends_checkpoints_and_passes_go_on_side_by_side() {
    on_every_fs(|place| {
        let mut written = Written::usual(60, 5);
        let mut log = log_of(place, &written);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (passes, reader) = (log.reader(), log.reader());
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    compact_with(&passes, &plan(&passes));
                }
            });
            scope.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let found = read_all(&reader, 900);
                    assert_eq!(latest(&found).len(), 5);
                }
            });
            for round in 0..40 {
                let from = written.batches.len();
                written.go_on(4, 5);
                // All in one flush, before anything of it is sealed: what is not flushed is not to be compacted.
                log.append(&written.batches[from..]).unwrap();
                flush(&mut log);
                if round % 4 == 0 {
                    log.checkpoint(b"").unwrap();
                    flush(&mut log);
                }
            }
            stop.store(true, Ordering::SeqCst);
        });
        assert!(!log.is_poisoned());
        let below = log.sealed_segments().last().unwrap().end;
        check(&log, &written, below, "side by side");
        compact(&log);
        check_opens(place, &written, below, "side by side");
    });
}

/// The owner does something at some moment of a pass; then the pass ends, and the log is checked.
fn interrupted(context: &str, act: impl Fn(&mut PartitionLog, &mut Written)) {
    let mut changed = 0;
    for moment in 0..400 {
        let place = Place { fs: Arc::new(MemFs::new()), dir: "/d/t-0".into(), config: small() };
        let mut written = Written::usual(60, 5);
        let mut log = log_of(&place, &written);
        let reader = log.reader();
        let mut left = moment;
        let below = log.sealed_segments().last().unwrap().end;
        let mut throttle = |_| {
            if left == 0 {
                act(&mut log, &mut written);
            }
            left -= 1;
            ControlFlow::Continue(())
        };
        let outcome = reader.compact(&plan(&reader), &Turned, &mut throttle).unwrap();
        if left >= 0 {
            assert!(changed > 5, "{context}: nothing was in its way in {moment} moments");
            return;
        }
        let context = format!("{context} at moment {moment}: {outcome:?}");
        changed += i32::from(!matches!(outcome.ended, PassEnd::Complete));
        check(&log, &written, below, &context);
        let below = log.sealed_segments().last().map_or(log.log_start_offset(), |segment| segment.end);
        let outcome = compact(&log);
        assert!(matches!(outcome.ended, PassEnd::Complete), "{context}: {outcome:?}");
        check(&log, &written, below, &context);
        check_opens(&place, &written, below, &context);
    }
    panic!("{context}: a pass has fewer moments");
}

#[test]
fn a_pass_that_a_cut_overtakes_changes_nothing_any_more() {
    interrupted("cut", |log, written| {
        let end = written.batches[40].header().base_offset;
        log.truncate_to(end).unwrap();
        written.batches.truncate(40);
        written.cut = true;
        let from = written.batches.len();
        for number in 0..20 {
            written.add(30, &[(&format!("another {}", number % 3), Some("value"))], None, Compression::None);
        }
        log.append(&written.batches[from..]).unwrap();
        flush(log);
    });
}

/// Also where nothing is swapped, what is clean is not known any more.
#[test]
fn a_pass_that_a_cut_overtakes_notes_nothing() {
    for moment in 0..400 {
        let place = Place { fs: Arc::new(MemFs::new()), dir: "/d/t-0".into(), config: small() };
        let mut written = Written::usual(60, 100_000);
        let mut log = log_of(&place, &written);
        let reader = log.reader();
        let mut left = moment;
        let end = written.batches[8].header().base_offset;
        let mut throttle = |_| {
            if left == 0 {
                log.truncate_to(end).unwrap();
                written.batches.truncate(8);
                for _ in 0..40 {
                    written.add(30, &[("one", Some("value")), ("two", None)], None, Compression::None);
                }
                log.append(&written.batches[8..]).unwrap();
                flush(&mut log);
            }
            left -= 1;
            ControlFlow::Continue(())
        };
        let outcome = reader.compact(&plan(&reader), &Turned, &mut throttle).unwrap();
        if left >= 0 {
            assert!(moment > 50, "a pass has too few moments: {moment}");
            return;
        }
        assert!(matches!(outcome.ended, PassEnd::Changed), "moment {moment}: {outcome:?}");
        assert!(log.compacted().cleaned_end <= end, "moment {moment}");
        check(&log, &written, written.end(), &format!("moment {moment}"));
    }
    panic!("a pass has fewer moments");
}

/// The batch that a checkpoint is bound to may lie in a sealed segment.
#[test]
fn a_checkpoint_that_a_pass_overtakes_is_one_of_the_log_as_it_is_then() {
    let fs = HookedFs::default();
    let place = Place { fs: Arc::new(fs.clone()), dir: "/d/t-0".into(), config: small() };
    let written = Written::usual(90, 5);
    let mut log = log_of(&place, &written);
    assert!(log.roll_if_older(0, std::time::Duration::ZERO).unwrap());
    flush(&mut log);
    let other = log.reader();
    fs.before_read(move || {
        compact_with(&other, &plan(&other));
    });
    log.checkpoint(b"").unwrap();
    assert!(fs.have_run(), "no pass ran");
    flush(&mut log);
    assert!(!log.is_poisoned());
    let end = written.end();
    let (log, opened, _) =
        place.try_resume(Recovery { trusted_end: end, flushed_end: end, clean: true }).unwrap();
    assert_eq!(opened.batches, 0, "the checkpoint is believed");
    check(&log, &written, end, "from the checkpoint");
}

#[test]
fn a_pass_that_a_trim_overtakes_leaves_what_is_left() {
    interrupted("trim", |log, written| {
        let last = written.batches[30].header();
        let base = Position { epoch: last.epoch.unwrap(), end: last.next_offset() };
        log.trim_to(base, vec![]).unwrap().unwrap().run().unwrap();
    });
}

#[test]
fn a_pass_in_a_log_that_was_closed_writes_nothing() {
    for moment in 0..400 {
        let place = Place { fs: Arc::new(MemFs::new()), dir: "/d/t-0".into(), config: small() };
        let written = Written::usual(60, 5);
        let mut log = Some(log_of(&place, &written));
        let reader = log.as_ref().unwrap().reader();
        let (mut left, mut files) = (moment, None);
        let everything = || {
            let mut all = place.files();
            all.extend(place.files_of("compaction"));
            all
        };
        let mut throttle = |_| {
            if left == 0 {
                log = None;
                files = Some(everything());
            }
            left -= 1;
            ControlFlow::Continue(())
        };
        let outcome = reader.compact(&plan(&reader), &Turned, &mut throttle).unwrap();
        let Some(files) = files else { return };
        assert!(matches!(outcome.ended, PassEnd::Changed), "{outcome:?}");
        assert!(everything() == files, "moment {moment}");
        let outcome = reader.compact(&plan(&reader), &Turned, &mut |_| ControlFlow::Continue(())).unwrap();
        assert!(matches!(outcome.ended, PassEnd::Changed), "{outcome:?}");
        assert!(everything() == files, "moment {moment}");
    }
    panic!("a pass has fewer moments");
}

/// Whoever looks at the log, and at its checkpoints while at it, waits for no swap that waits for them.
#[test]
fn a_swap_that_fails_and_those_who_look_at_the_log_do_not_wait_for_each_other() {
    for after in 0..6 {
        let fs = WatchedFs::default();
        let place = Place { fs: Arc::new(fs.clone()), dir: "/d/t-0".into(), config: small() };
        let written = Written::usual(90, 5);
        let log = log_of(&place, &written);
        let (reader, shared) = (log.reader(), Arc::clone(&log.reader().shared));
        // It would wait for a pass that hangs.
        std::mem::forget(log);
        *fs.watch.lock().unwrap() = Some(Box::new(move || {
            let ((looks, looking), shared) = (mpsc::channel(), shared.clone());
            thread::spawn(move || {
                let view = shared.read();
                looks.send(()).unwrap();
                drop((shared.noted(), view));
            });
            looking.recv().unwrap();
        }));
        fs.fs.inject(Fault { kind: Some(OperationKind::Rename), after, lasting: false });
        let (ended, end) = mpsc::channel();
        thread::spawn(move || {
            let passed = reader.compact(&plan(&reader), &Turned, &mut |_| ControlFlow::Continue(()));
            ended.send(passed.is_err()).unwrap();
        });
        assert_eq!(
            end.recv_timeout(Duration::from_secs(20)),
            Ok(true),
            "{after} renames before the one that fails"
        );
    }
}
