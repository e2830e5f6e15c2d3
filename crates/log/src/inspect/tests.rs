use std::sync::Arc;

use holdfast_core::record_batch::{RecordBatch, RecordBatchBuilder};
use holdfast_core::{Offset, Term};

use super::*;
use crate::{ByteSize, LogConfig, MemFs, PartitionLog, Recovery};

const DIR: &str = "/log";

/// What a walk told, in short.
#[derive(Debug, PartialEq)]
enum Told {
    Segment(u64),
    Batch(u64),
    Damage { offset: u64, position: u64, unreadable: u64, why: &'static str },
}

fn batch(base: u64, term: u32) -> RecordBatch {
    let mut builder = RecordBatchBuilder::new();
    for _ in 0..2 {
        builder.push(1000, Some(b"key"), Some(&[7; 100]), &[]).unwrap();
    }
    builder.build(None).unwrap().stamped(Offset(base), LeaderEpoch::first(Term(term)))
}

/// Nine batches of two records, in segments of three, with another epoch from the fifth on.
fn log() -> (MemFs, u64) {
    let fs = MemFs::new();
    let length = batch(0, 1).bytes().len() as u64;
    let config = LogConfig { segment_size: ByteSize(3 * length), ..LogConfig::default() };
    let opened =
        PartitionLog::open(Arc::new(fs.clone()), Path::new(DIR), config, Recovery::default(), &mut |_| {});
    let mut log = opened.unwrap().0;
    for number in 0..9 {
        log.append(&[batch(2 * number, if number < 4 { 1 } else { 2 })]).unwrap();
    }
    (fs, length)
}

fn path(base: u64) -> PathBuf {
    Path::new(DIR).join(segment::file_name(Offset(base)))
}

fn flip(fs: &MemFs, base: u64, at: u64, bits: u8) {
    let file = fs.open(&path(base), OpenMode::Existing).unwrap();
    let byte = file.read_bytes(at, 1).unwrap()[0];
    file.write_all_at(&[&[byte ^ bits]], at).unwrap();
}

fn walked(fs: &MemFs, from: u64, checks: Checks) -> Vec<Told> {
    let before = fs.operations();
    let mut told = Vec::new();
    let walk = walk::<LogError>(fs, Path::new(DIR), Offset(from), checks, &mut |step| {
        told.push(match step {
            Step::Segment { len, .. } => Told::Segment(len),
            Step::Batch(batch) => {
                assert_eq!(batch.bytes()?.len(), batch.header.length as usize);
                Told::Batch(batch.header.base_offset.0)
            }
            Step::Damage(FoundDamage { offset, position, unreadable, source, .. }) => {
                let why = match source {
                    Damage::Batch(BatchError::Checksum { .. }) => "checksum",
                    Damage::Batch(BatchError::Truncated { .. }) => "truncated",
                    Damage::Batch(_) => "header",
                    Damage::Gap { .. } => "gap",
                    Damage::Epoch { .. } => "epoch",
                    Damage::Missing { .. } => "missing",
                    Damage::Unreadable { .. } => "unreadable",
                    Damage::LogStart => "log start",
                    Damage::Compaction => "compaction",
                };
                Told::Damage { offset: offset.0, position, unreadable, why }
            }
        });
        Ok(ControlFlow::Continue(()))
    });
    walk.unwrap();
    assert_eq!(fs.operations(), before, "a walk changes nothing");
    told
}

fn damages(fs: &MemFs) -> Vec<Told> {
    let told = walked(fs, 0, Checks::Checksums);
    told.into_iter().filter(|told| matches!(told, Told::Damage { .. })).collect()
}

#[test]
fn a_whole_log_is_walked_from_any_segment() {
    let (fs, length) = log();
    let segment = |first: u64| {
        [Told::Segment(3 * length)].into_iter().chain((0..3).map(move |n| Told::Batch(first + 2 * n)))
    };
    for checks in [Checks::Headers, Checks::Checksums] {
        assert_eq!(walked(&fs, 0, checks), [0, 6, 12].into_iter().flat_map(segment).collect::<Vec<_>>());
        assert_eq!(walked(&fs, 11, checks), [6, 12].into_iter().flat_map(segment).collect::<Vec<_>>());
        assert_eq!(walked(&fs, 99, checks), segment(12).collect::<Vec<_>>());
    }
}

#[test]
fn every_flipped_bit_is_named_and_the_walk_goes_on() {
    let (fs, length) = log();
    for at in length..2 * length {
        flip(&fs, 6, at, 0x04);
        let found = damages(&fs);
        // A length that is a little off is a bad checksum, and then the next batch is not where it should be.
        let most = if (8..12).contains(&(at - length)) { 2 } else { 1 };
        assert!((1..=most).contains(&found.len()), "byte {at}: {found:?}");
        let Told::Damage { offset, position, .. } = found[0] else { unreachable!() };
        // An epoch that rises by mistake shows when the next one falls.
        let (lowest, highest) = if (12..16).contains(&(at - length)) { (8, 10) } else { (8, 8) };
        assert!((lowest..=highest).contains(&offset), "byte {at}: {found:?}");
        assert_eq!(position, (offset - 6) / 2 * length, "byte {at}");
        let batches = walked(&fs, 0, Checks::Checksums)
            .into_iter()
            .filter(|told| matches!(told, Told::Batch(_)))
            .count();
        // Where the length cannot be believed, the rest of that file is lost.
        assert!(batches >= 7, "byte {at}: {batches}");
        flip(&fs, 6, at, 0x04);
    }
    assert_eq!(damages(&fs), []);
}

#[test]
fn what_is_missing_is_a_gap_and_what_is_cut_short_is_said_with_its_size() {
    let (fs, length) = log();
    fs.open(&path(12), OpenMode::Existing).unwrap().set_len(2 * length + 70).unwrap();
    let torn = Told::Damage { offset: 16, position: 2 * length, unreadable: 70, why: "truncated" };
    assert_eq!(damages(&fs), [torn]);
    fs.open(&path(12), OpenMode::Existing).unwrap().set_len(2 * length).unwrap();
    fs.remove_file(&path(6)).unwrap();
    assert_eq!(damages(&fs), [Told::Damage { offset: 6, position: 0, unreadable: 0, why: "gap" }]);
    fs.remove_file(&path(0)).unwrap();
    assert_eq!(damages(&fs), [Told::Damage { offset: 0, position: 0, unreadable: 0, why: "gap" }]);
    fs.remove_dir_all(Path::new(DIR)).unwrap();
    assert_eq!(walked(&fs, 0, Checks::Checksums), []);
}

#[test]
fn a_walk_ends_where_its_visitor_says_so_and_passes_its_error_on() {
    let (fs, _) = log();
    let mut steps = 0;
    let walk_until = |stop: &mut dyn FnMut() -> Result<ControlFlow<()>, LogError>| {
        walk::<LogError>(&fs, Path::new(DIR), Offset::ZERO, Checks::Headers, &mut |_| stop())
    };
    walk_until(&mut || {
        steps += 1;
        Ok(if steps == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })
    .unwrap();
    assert_eq!(steps, 5);
    assert!(matches!(walk_until(&mut || Err(LogError::Poisoned)), Err(LogError::Poisoned)));
}
