use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::Damage;

#[test]
fn reopened_log_is_the_same_and_every_batch_is_visited_once() {
    on_every_fs(|place| {
        let all = batches(0, 40, 1);
        let epochs = filled(place, &all).epochs();
        for recovery in [recovery(0, false), recovery(120, false), recovery(57, false), recovery(120, true)] {
            let (log, opened, visited) = place.try_open(recovery).unwrap();
            let headers: Vec<BatchHeader> = all.iter().map(|batch| *batch.header()).collect();
            assert_eq!(visited, headers);
            assert_eq!((opened.cut_bytes, opened.batches, opened.created), (0, 40, false));
            assert_eq!(opened.kept_bytes, log.size_bytes());
            assert_eq!(content(&log), all);
            assert_eq!(log.epochs(), epochs);
        }
    });
}

#[test]
fn torn_tail_is_cut_at_every_length_and_stays_cut() {
    on_every_fs(|place| {
        let all = batches(0, 3, 1);
        drop(filled(place, &all));
        let (path, whole) = place.files().remove(0);
        let kept = whole.len() - all[2].bytes().len();
        for len in kept + 1..whole.len() {
            // Both as a short file and as one that was extended without its data.
            for tail in [vec![], vec![0; 300]] {
                place.overwrite(&path, &[&whole[..len], &tail].concat());
                if tail.is_empty() || whole[len..].iter().any(|byte| *byte != 0) {
                    let (log, opened, visited) = place.try_open(recovery(6, false)).unwrap();
                    assert_eq!(opened.cut_bytes as usize, len - kept + tail.len());
                    assert_eq!((visited.len(), log.log_end_offset()), (2, Offset(6)));
                    assert_eq!(place.files()[0].1, whole[..kept]);
                }
            }
        }
    });
}

#[test]
fn damage_below_the_trusted_end_is_an_error_and_nothing_is_changed() {
    on_every_fs(|place| {
        let all = batches(0, 6, 1);
        drop(filled(place, &all));
        let (path, whole) = place.files().remove(0);
        let mut start = 0;
        for batch in &all {
            let (base, len) = (batch.header().base_offset, batch.bytes().len());
            for at in [start, start + 8, start + 16, start + 17, start + 30, start + len - 1] {
                let mut damaged = whole.clone();
                damaged[at] ^= 0x40;
                place.overwrite(&path, &damaged);
                let error = place.try_open(recovery(18, false)).unwrap_err();
                match error {
                    LogError::Corrupt { offset, position, .. } => {
                        assert_eq!((offset, position), (base, start as u64));
                    }
                    other => panic!("{other:?}"),
                }
                assert_eq!(place.files()[0].1, damaged);
                // The same bytes above the trusted end are a torn tail.
                let (log, ..) = place.try_open(recovery(base.0, false)).unwrap();
                assert_eq!(log.log_end_offset(), base);
            }
            start += len;
        }
    });
}

/// Below the trusted end of sealed segments only headers are read. One that claims another length leads astray what
/// follows, which is above the trusted end, and was acknowledged.
#[test]
fn a_batch_with_a_wrong_length_makes_no_torn_tail_of_what_follows() {
    on_every_fs(|place| {
        let all = batches(0, 20, 1);
        drop(filled(place, &all));
        let files = place.files();
        for (path, whole) in &files[..files.len() - 1] {
            let mut at = 0;
            while at < whole.len() {
                let header = BatchHeader::decode(&whole[at..]).unwrap();
                for bit in 0..32 {
                    let mut damaged = whole.clone();
                    damaged[at + 8 + bit / 8] ^= 1 << (bit % 8);
                    place.overwrite(path, &damaged);
                    let trusted = recovery(header.next_offset().0, false);
                    let error = place.try_open(trusted).unwrap_err();
                    assert!(
                        matches!(error, LogError::Corrupt { offset, .. } if offset == header.base_offset),
                        "bit {bit}: {error:?}"
                    );
                    place.overwrite(path, whole);
                }
                at += header.length as usize;
            }
        }
        assert_eq!(place.files(), files, "nothing was changed");
    });
}

#[test]
fn after_an_orderly_stop_nothing_is_a_torn_tail() {
    on_every_fs(|place| {
        drop(filled(place, &batches(0, 3, 1)));
        let (path, whole) = place.files().remove(0);
        place.overwrite(&path, &whole[..whole.len() - 1]);
        let error = place.try_open(recovery(3, true)).unwrap_err();
        assert!(matches!(error, LogError::Corrupt { offset: Offset(6), .. }), "{error:?}");
    });
}

#[test]
fn decreasing_epoch_and_gap_end_the_log() {
    on_every_fs(|place| {
        let good = batches(0, 2, 5);
        drop(filled(place, &good));
        let (path, whole) = place.files().remove(0);
        for next in [batch(6, 1, 4, 0, 1), batch(7, 1, 9, 0, 1), batch(5, 1, 9, 0, 1)] {
            place.overwrite(&path, &[&whole[..], next.bytes()].concat());
            let (log, opened, _) = place.try_open(recovery(6, false)).unwrap();
            assert_eq!((log.log_end_offset(), opened.cut_bytes), (Offset(6), next.bytes().len() as u64));
        }
    });
}

#[test]
fn missing_segment_ends_the_log_or_is_damage() {
    on_every_fs(|place| {
        let all = batches(0, 40, 1);
        drop(filled(place, &all));
        let files = place.files();
        let base: u64 = files[2].0.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        place.fs.remove_file(&files[2].0).unwrap();
        let error = place.try_open(recovery(120, false)).unwrap_err();
        assert!(
            matches!(error, LogError::Corrupt { offset, source: Damage::Gap { .. }, .. } if offset == Offset(base))
        );
        assert_eq!(place.files().len(), files.len() - 1);
        let (log, opened, _) = place.try_open(recovery(base, false)).unwrap();
        assert_eq!(log.log_end_offset(), Offset(base));
        assert_eq!(
            opened.cut_bytes as usize,
            files[3..].iter().map(|(_, content)| content.len()).sum::<usize>()
        );
        assert_eq!(place.files(), files[..2]);
        assert_eq!(content(&log), all[..(base / 3) as usize]);
    });
}

#[test]
fn log_that_ends_below_the_trusted_end_is_damage() {
    on_every_fs(|place| {
        drop(filled(place, &batches(0, 2, 1)));
        let error = place.try_open(recovery(7, true)).unwrap_err();
        assert!(matches!(error, LogError::Corrupt { offset: Offset(6), source: Damage::Missing { .. }, .. }));
        let elsewhere = Place { dir: place.dir.with_file_name("never-was-0"), ..place.clone() };
        assert!(matches!(elsewhere.try_open(recovery(1, true)), Err(LogError::Corrupt { .. })));
    });
}

#[test]
fn other_files_in_the_folder_are_left_alone() {
    on_every_fs(|place| {
        drop(filled(place, &batches(0, 2, 1)));
        let other = place.dir.join("00000000000000000006.log.tmp");
        place.overwrite(&other, b"mine");
        let log = place.open();
        assert_eq!(log.log_end_offset(), Offset(6));
        assert!(place.fs.exists(&other).unwrap());
    });
}

/// What is derived of a log rests on headers: on whose a batch is, and how far it reaches. None is believed that is not
/// verified, also where all was flushed long ago.
#[test]
fn no_flipped_bit_of_a_header_is_believed() {
    let place = Place { fs: Arc::new(MemFs::new()), dir: "/data/topic-0".into(), config: small() };
    drop(filled(&place, &batches(0, 16, 1)));
    for (path, content) in place.files() {
        let mut at = 0;
        while let Ok(header) = BatchHeader::decode(&content[at..]) {
            // Epochs lie outside of the checksum.
            for (byte, bit) in (0..12).chain(16..61).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
                let mut damaged = content.clone();
                damaged[at + byte] ^= 1 << bit;
                place.overwrite(&path, &damaged);
                for clean in [false, true] {
                    let opened =
                        place.try_open(recovery(48, clean)).map(|(_, opened, visited)| (opened, visited));
                    let found = matches!(&opened, Err(LogError::Corrupt { segment, .. }) if *segment == path);
                    assert!(found, "byte {byte}, bit {bit} at {at} of {path:?}, clean {clean}: {opened:?}");
                }
                assert!(place.files().contains(&(path.clone(), damaged)), "something was changed");
            }
            at += header.length as usize;
        }
        place.overwrite(&path, &content);
    }
}

proptest! {
    /// Whatever the disk holds, opening ends in a log or in an error, and what is kept was there.
    #[test]
    fn arbitrary_damage_never_panics(
        changes in vec((any::<Index>(), any::<Index>(), any::<[u8; 4]>()), 1..8),
        cut: Option<(Index, Index)>,
        trusted_end in 0..130_u64,
        clean: bool,
    ) {
        let place = Place { fs: Arc::new(MemFs::new()), dir: "/d/t-0".into(), config: small() };
        let all = batches(0, 40, 1);
        drop(filled(&place, &all));
        let files = place.files();
        for (file, at, bytes) in &changes {
            let (path, content) = file.get(&files);
            let file = place.fs.open(path, crate::OpenMode::Existing).unwrap();
            file.write_all_at(&[bytes], at.index(content.len()) as u64).unwrap();
        }
        if let Some((file, at)) = cut {
            let (path, content) = file.get(&files);
            let file = place.fs.open(path, crate::OpenMode::Existing).unwrap();
            file.set_len(at.index(content.len()) as u64).unwrap();
        }
        let before = place.files();
        match place.try_open(recovery(trusted_end, clean)) {
            Err(LogError::Corrupt { .. }) => prop_assert_eq!(place.files(), before),
            Err(other) => prop_assert!(false, "{:?}", other),
            Ok((log, opened, visited)) => {
                prop_assert!(log.log_end_offset() >= Offset(trusted_end));
                prop_assert_eq!(visited.len() as u64, opened.batches);
                // A clean stop vouches for the checksums, so reading is only checked not to panic.
                let _ = log.reader().read(Offset(0), log.log_end_offset(), usize::MAX);
                for timestamp in [0, 1000, 1200] {
                    let _ = log.reader().offset_for_timestamp(timestamp, log.log_end_offset());
                }
            }
        }
    }
}
