//! What is damaged is not written anew, and is told to whoever repairs.

use super::*;

/// A bit of every batch header and of some records, in each segment; also those that no checksum covers.
#[test]
fn a_pass_ends_before_damage_and_names_it() {
    let place = Place { fs: Arc::new(MemFs::new()), dir: "/data/topic-0".into(), config: small() };
    let written = Written::usual(40, 3);
    let mut places = Vec::new();
    for (path, bytes) in {
        drop(log_of(&place, &written));
        place.files()
    } {
        places.extend((0..bytes.len()).step_by(29).map(|at| (path.clone(), at)));
    }
    let whole = place.files();
    for (path, at) in places {
        for (path, content) in &whole {
            place.overwrite(path, content);
        }
        let _ = place.fs.remove_file(&place.dir.join("compaction"));
        let end = written.end();
        let mut log = place.try_open(Recovery { trusted_end: end, flushed_end: end, clean: true }).unwrap().0;
        flush(&mut log);
        let file = place.fs.open(&path, crate::OpenMode::Existing).unwrap();
        let byte = file.read_bytes(at as u64, 1).unwrap()[0];
        file.write_all_at(&[&[byte ^ 1 << (at % 8)]], at as u64).unwrap();
        let base = crate::segment::parse_file_name(path.file_name().unwrap()).unwrap();
        let sealed = log.sealed_segments().iter().any(|segment| segment.end > base);
        let outcome = compact(&log);
        let context = format!("byte {at} of {path:?}");
        if !sealed {
            assert!(matches!(outcome.ended, PassEnd::Complete), "{context}");
            continue;
        }
        let PassEnd::Damaged(range) = &outcome.ended else { panic!("{context}: {outcome:?}") };
        assert!(range.from >= base && range.position <= at as u64, "{context}: {range:?}");
        assert!(outcome.cleaned_end <= base, "{context}");
        let now = place.files();
        let old = whole.iter().position(|(old, _)| *old == path).unwrap();
        for (old, content) in &whole[old + 1..] {
            let (_, now) = now.iter().find(|(path, _)| path == old).unwrap();
            assert!(now == content, "{context}: {old:?} was touched");
        }
        let peer: Vec<RecordBatch> = written
            .batches
            .iter()
            .filter(|batch| batch.header().base_offset >= range.from)
            .cloned()
            .collect();
        log.reader().mend(range, &peer).unwrap();
        let below = log.sealed_segments().last().unwrap().end;
        compact(&log);
        check(&log, &written, below, &context);
    }
}

#[test]
fn a_sector_that_cannot_be_read_ends_a_pass() {
    let fs = MemFs::new();
    let place = Place { fs: Arc::new(fs.clone()), dir: "/data/topic-0".into(), config: small() };
    let written = Written::usual(60, 3);
    let log = log_of(&place, &written);
    let (path, _) = place.files().remove(1);
    fs.spoil(&path, 500..600).unwrap();
    let outcome = compact(&log);
    assert!(matches!(&outcome.ended, PassEnd::Damaged(range) if range.segment == path), "{outcome:?}");
    assert_eq!(outcome.cleaned_end, log.segment_bases()[1]);
}

#[test]
fn a_damaged_note_of_what_was_compacted_is_damage() {
    on_every_fs(|place| {
        let written = Written::usual(60, 3);
        compact(&log_of(place, &written));
        let path = place.dir.join("compaction");
        let whole = place.files_of("compaction").remove(0).1;
        for at in [0, 9, 13, 17, 25, 40, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 4;
            place.overwrite(&path, &damaged);
            let error = place.try_open(Recovery::default()).unwrap_err();
            assert!(
                matches!(error, LogError::Corrupt { source: crate::Damage::Compaction, .. }),
                "{error:?}"
            );
        }
    });
}
