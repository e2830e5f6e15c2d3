use proptest::prelude::*;

use super::*;
use crate::fs::mem::{Fault, OperationKind};
use crate::{MemFs, RealFs};

const PATH: &str = "/state";

fn open_at(fs: Arc<dyn Fs>, path: &Path) -> Result<(Journal, Vec<Vec<u8>>), JournalError> {
    let mut frames = Vec::new();
    let journal = Journal::open(fs, path, &mut |frame| {
        frames.push(frame.to_vec());
        Ok(())
    })?;
    Ok((journal, frames))
}

fn open(fs: &MemFs) -> Result<(Journal, Vec<Vec<u8>>), JournalError> {
    open_at(Arc::new(fs.clone()), Path::new(PATH))
}

fn raw(fs: &MemFs) -> Arc<dyn File> {
    fs.open(Path::new(PATH), OpenMode::Existing).unwrap()
}

fn frames_are_read_back(fs: Arc<dyn Fs>, path: &Path) {
    let (mut journal, found) = open_at(fs.clone(), path).unwrap();
    assert!(found.is_empty());
    let large = vec![9; 3 << 20];
    journal.append(&[b"a", b"bc"]).unwrap();
    journal.append(&[&large]).unwrap();
    journal.flush().unwrap();
    let size = journal.size();
    let (mut journal, found) = open_at(fs.clone(), path).unwrap();
    assert_eq!(journal.size(), size);
    assert!(found == [b"a".to_vec(), b"bc".to_vec(), large.clone()]);
    journal.rewrite([b"only"]).unwrap();
    assert!(journal.size() < 100);
    journal.append(&[b"next"]).unwrap();
    journal.flush().unwrap();
    assert_eq!(open_at(fs, path).unwrap().1, [b"only", b"next"]);
}

#[test]
fn frames_are_read_back_from_memory() {
    frames_are_read_back(Arc::new(MemFs::new()), Path::new(PATH));
}

#[test]
fn frames_are_read_back_from_real_files() {
    let dir = tempfile::tempdir().unwrap();
    frames_are_read_back(Arc::new(RealFs), &dir.path().join("state"));
}

#[test]
fn torn_frame_at_the_end_is_cut() {
    let fs = MemFs::new();
    let (mut journal, _) = open(&fs).unwrap();
    journal.append(&[b"kept"]).unwrap();
    let kept = journal.size();
    journal.append(&[b"torn away"]).unwrap();
    for len in kept..journal.size() {
        raw(&fs).set_len(len).unwrap();
        let (mut journal, found) = open(&fs).unwrap();
        assert_eq!((found, journal.size()), (vec![b"kept".to_vec()], kept));
        journal.append(&[b"torn away"]).unwrap();
    }
}

#[test]
fn damage_to_flushed_frames_is_reported_and_nothing_changed() {
    let fs = MemFs::new();
    let (mut journal, _) = open(&fs).unwrap();
    let position = journal.size();
    for frame in [b"one", b"two", b"six"] {
        journal.append(&[frame]).unwrap();
        journal.flush().unwrap();
    }
    let size = journal.size();
    let flip = |at: u64| {
        let byte = raw(&fs).read_bytes(at, 1).unwrap()[0];
        raw(&fs).write_all_at(&[&[byte ^ 0x10]], at).unwrap();
    };
    for at in 0..position + 2 * 19 {
        flip(at);
        let error = open(&fs).unwrap_err();
        let start = if at < position { 0 } else { position + (at - position) / 19 * 19 };
        match error {
            JournalError::Corrupt { position, .. } => assert_eq!(position, start, "flipped {at}"),
            other => panic!("flipped {at}: {other}"),
        }
        flip(at);
        assert_eq!(raw(&fs).len().unwrap(), size);
    }
    assert_eq!(open(&fs).unwrap().1, [b"one", b"two", b"six"]);
}

#[test]
fn damage_to_any_frame_of_a_rewritten_journal_is_reported() {
    let fs = MemFs::new();
    let (mut journal, _) = open(&fs).unwrap();
    journal.rewrite([b"one", b"two"]).unwrap();
    let seal = journal.size() - FRAME_OVERHEAD as u64;
    for at in 0..seal {
        let byte = raw(&fs).read_bytes(at, 1).unwrap();
        raw(&fs).write_all_at(&[&[byte[0] ^ 1]], at).unwrap();
        assert!(matches!(open(&fs), Err(JournalError::Corrupt { .. })), "flipped {at}");
        raw(&fs).write_all_at(&[&byte], at).unwrap();
    }
}

#[test]
fn other_files_and_versions_are_refused() {
    let with = |content: &[u8]| {
        let fs = MemFs::new();
        atomic_write(&fs, Path::new(PATH), content).unwrap();
        open(&fs).map(|_| ())
    };
    assert!(matches!(with(b""), Err(JournalError::NotAJournal { .. })));
    assert!(matches!(with(&[0; 4096]), Err(JournalError::Corrupt { position: 0, .. })));
    assert!(matches!(with(&encode_frame(0, 0, b"something")), Err(JournalError::NotAJournal { .. })));
    let later = encode_frame(0, 0, &[&MAGIC[..], &9_u32.to_be_bytes()].concat());
    assert!(matches!(with(&later), Err(JournalError::UnsupportedVersion { found: 9, supported: 1, .. })));
}

#[test]
fn refused_frame_and_bad_lengths_change_nothing() {
    let fs = MemFs::new();
    let (mut journal, _) = open(&fs).unwrap();
    assert!(matches!(journal.append(&[b"x", b""]), Err(JournalError::FrameLength { len: 0, .. })));
    journal.append(&[b"x"]).unwrap();
    let error = Journal::open(Arc::new(fs), Path::new(PATH), &mut |_| Err("no".into())).unwrap_err();
    assert!(matches!(error, JournalError::Visit { .. }));
}

#[test]
fn failed_flush_poisons_for_good() {
    let fs = MemFs::new();
    let (mut journal, _) = open(&fs).unwrap();
    journal.append(&[b"x"]).unwrap();
    fs.inject(Fault { kind: Some(OperationKind::SyncData), after: 0, lasting: false });
    assert!(matches!(journal.flusher().flush(), Err(JournalError::Io { .. })));
    assert!(matches!(journal.flush(), Err(JournalError::Poisoned)));
    assert!(matches!(journal.append(&[b"y"]), Err(JournalError::Poisoned)));
    assert!(matches!(journal.rewrite([b"y"]), Err(JournalError::Poisoned)));
}

#[test]
fn frames_of_a_failed_flush_that_are_read_back_are_durable_from_then_on() {
    let fs = MemFs::new();
    let (mut journal, _) = open(&fs).unwrap();
    journal.append(&[b"x"]).unwrap();
    fs.inject(Fault { kind: Some(OperationKind::SyncData), after: 0, lasting: false });
    assert!(journal.flush().is_err());
    let (_, found) = open(&fs).unwrap();
    fs.crash();
    assert_eq!(open(&fs).unwrap().1, found);
}

#[test]
fn failed_preparation_of_a_rewrite_leaves_the_journal_usable() {
    let fs = MemFs::new();
    let (mut journal, _) = open(&fs).unwrap();
    journal.append(&[b"x"]).unwrap();
    fs.inject(Fault { kind: Some(OperationKind::SyncData), after: 0, lasting: false });
    assert!(matches!(journal.rewrite([b"y"]), Err(JournalError::Io { .. })));
    journal.append(&[b"z"]).unwrap();
    journal.flush().unwrap();
    fs.crash();
    assert_eq!(open(&fs).unwrap().1, [b"x", b"z"]);
}

/// Full from every byte on: what does not fit changes nothing, and is written once there is room.
#[test]
fn a_journal_on_a_full_disk_goes_on_once_there_is_room() {
    let frames = [vec![1; 300], vec![2; 40]];
    for room in 0.. {
        let fs = MemFs::new();
        let (mut journal, _) = open(&fs).unwrap();
        journal.append(&[b"x"]).unwrap();
        let before = fs.used();
        fs.set_capacity(Some(before + room));
        let append = |journal: &mut Journal| journal.append(&[&frames[0], &frames[1]]);
        if append(&mut journal).is_ok() {
            assert!(room > 340, "the disk was never full");
            return;
        }
        assert!(append(&mut journal).unwrap_err().is_full(), "it may be tried again");
        assert_eq!(fs.used(), before, "what arrived of it is taken back");
        journal.flush().unwrap();
        fs.set_capacity(None);
        append(&mut journal).unwrap();
        journal.flush().unwrap();
        fs.crash();
        assert_eq!(open(&fs).unwrap().1, [b"x".to_vec(), frames[0].clone(), frames[1].clone()]);
    }
}

#[test]
fn a_rewrite_without_room_leaves_the_journal_as_it_was() {
    let fs = MemFs::new();
    let (mut journal, _) = open(&fs).unwrap();
    journal.append(&[b"x"]).unwrap();
    let before = fs.used();
    fs.set_capacity(Some(before + 300));
    assert!(journal.rewrite([vec![7; 500]]).unwrap_err().is_full());
    assert_eq!(fs.used(), before, "what was written of it goes");
    journal.append(&[b"y"]).unwrap();
    journal.flush().unwrap();
    fs.crash();
    assert_eq!(open(&fs).unwrap().1, [b"x", b"y"]);
}

#[test]
fn a_journal_that_cannot_be_taken_back_is_poisoned() {
    let fs = MemFs::new();
    let (mut journal, _) = open(&fs).unwrap();
    fs.set_capacity(Some(fs.used() + 10));
    fs.inject(Fault { kind: Some(OperationKind::SetLen), after: 0, lasting: false });
    assert!(journal.append(&[&[7_u8; 100][..]]).is_err());
    fs.set_capacity(None);
    assert!(matches!(journal.append(&[b"y"]), Err(JournalError::Poisoned)));
}

/// Appends, flushes and rewrites until something fails. Returns what must be there after a crash, and all that may
/// follow it.
fn work(fs: &MemFs) -> (Vec<Vec<u8>>, Vec<Vec<Vec<u8>>>) {
    let mut durable: Vec<Vec<u8>> = Vec::new();
    let mut written = durable.clone();
    let mut allowed = vec![durable.clone()];
    let Ok((mut journal, _)) = open(fs) else { return (durable, allowed) };
    for round in 0..12_u8 {
        if round % 5 == 4 {
            let kept = vec![vec![round; 700]];
            allowed.push(kept.clone());
            if journal.rewrite(&kept).is_err() {
                break;
            }
            (durable, written) = (kept.clone(), kept.clone());
            allowed = vec![kept];
            continue;
        }
        let frames = [vec![round; 300], vec![round, 1]];
        for frame in &frames {
            written.push(frame.clone());
            allowed.push(written.clone());
        }
        if journal.append(&[&frames[0], &frames[1]]).is_err() {
            break;
        }
        if round % 2 == 0 {
            if journal.flush().is_err() {
                break;
            }
            durable = written.clone();
            allowed = vec![durable.clone()];
        }
    }
    (durable, allowed)
}

#[test]
fn crash_at_every_operation_keeps_what_was_flushed() {
    for seed in 0..24 {
        for after in 0..400 {
            let fs = MemFs::new();
            fs.inject(Fault { kind: None, after, lasting: true });
            let (durable, allowed) = work(&fs);
            let finished = fs.operations() <= after;
            if seed == 0 {
                fs.crash();
            } else {
                fs.crash_keeping(seed);
            }
            let (_, found) = open(&fs).unwrap_or_else(|error| panic!("seed {seed} after {after}: {error:?}"));
            assert!(allowed.contains(&found), "seed {seed} after {after}: {durable:?} became {found:?}");
            if finished {
                break;
            }
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_changes_never_panic(
        changes in proptest::collection::vec((0..200_u64, any::<u8>()), 1..8),
        cut in 0..200_u64,
    ) {
        let fs = MemFs::new();
        let (mut journal, _) = open(&fs).unwrap();
        for frame in [b"one", b"two", b"six"] {
            journal.append(&[frame, &[7; 40]]).unwrap();
            journal.flush().unwrap();
        }
        for (at, value) in changes {
            raw(&fs).write_all_at(&[&[value]], at).unwrap();
        }
        raw(&fs).set_len(cut).unwrap();
        let _ = open(&fs);
    }
}
