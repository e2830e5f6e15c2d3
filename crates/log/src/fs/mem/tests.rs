use std::path::Path;

use super::*;
use crate::fs::{atomic_write, create_dir_synced, is_full};

fn open(fs: &MemFs, name: &str, mode: OpenMode) -> Arc<dyn File> {
    fs.open(Path::new(name), mode).unwrap()
}

fn content(fs: &MemFs, name: &str) -> Vec<u8> {
    let file = open(fs, name, OpenMode::Existing);
    file.read_bytes(0, file.len().unwrap() as usize).unwrap().to_vec()
}

#[test]
fn crash_loses_unsynced_bytes_sizes_and_names() {
    let fs = MemFs::new();
    create_dir_synced(&fs, Path::new("/d/e")).unwrap();
    let file = open(&fs, "/d/e/kept", OpenMode::CreateNew);
    file.write_all_at(&[b"abc", b"def"], 0).unwrap();
    file.sync_data().unwrap();
    fs.sync_dir(Path::new("/d/e")).unwrap();
    file.write_all_at(&[b"XYZ"], 2).unwrap();
    file.set_len(100).unwrap();
    open(&fs, "/d/e/lost", OpenMode::CreateNew).sync_data().unwrap();
    fs.crash();
    assert_eq!(content(&fs, "/d/e/kept"), b"abcdef");
    assert_eq!(fs.list(Path::new("/d/e")).unwrap(), ["kept"]);
    assert!(file.write_all_at(&[b"x"], 0).is_err(), "handles die with the process");
}

#[test]
fn crash_undoes_unsynced_removes_and_folders() {
    let fs = MemFs::new();
    fs.create_dir_all(Path::new("/unsynced")).unwrap();
    open(&fs, "/f", OpenMode::CreateNew);
    fs.sync_dir(Path::new("/unsynced")).unwrap();
    fs.crash();
    assert_eq!(fs.list(Path::new("/")).unwrap(), Vec::<OsString>::new());
    open(&fs, "/f", OpenMode::CreateNew);
    fs.sync_dir(Path::new("/")).unwrap();
    fs.remove_file(Path::new("/f")).unwrap();
    fs.crash();
    assert!(fs.exists(Path::new("/f")).unwrap());
}

#[test]
fn failed_sync_loses_its_data_even_if_the_next_succeeds() {
    let fs = MemFs::new();
    let file = open(&fs, "/f", OpenMode::CreateNew);
    fs.sync_dir(Path::new("/")).unwrap();
    file.write_all_at(&[b"gone"], 0).unwrap();
    fs.inject(Fault { kind: Some(OperationKind::SyncData), after: 0, lasting: false });
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(content(&fs, "/f"), b"gone");
    fs.crash();
    assert_eq!(content(&fs, "/f"), b"");
}

#[test]
fn torn_crash_is_the_same_for_the_same_seed() {
    let run = |seed| {
        let fs = MemFs::new();
        let file = open(&fs, "/f", OpenMode::CreateNew);
        fs.sync_dir(Path::new("/")).unwrap();
        file.write_all_at(&[&[7; 64 * 512]], 0).unwrap();
        fs.crash_keeping(seed);
        content(&fs, "/f")
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    assert!(run(1).contains(&7) && run(1).contains(&0));
}

#[test]
fn atomic_write_survives_a_crash_at_every_operation() {
    for after in 0.. {
        let fs = MemFs::new();
        atomic_write(&fs, Path::new("/f"), b"old").unwrap();
        let before = fs.operations();
        fs.inject(Fault { kind: None, after, lasting: true });
        let written = atomic_write(&fs, Path::new("/f"), b"new!");
        for seed in 0..8 {
            fs.crash_keeping(seed);
            let found = content(&fs, "/f");
            assert!(found == b"new!" || (written.is_err() && found == b"old"), "after {after}: {found:?}");
        }
        if written.is_ok() {
            assert!(before > 0 && after >= 5);
            return;
        }
    }
}

#[test]
fn a_file_system_is_full_from_some_byte_on() {
    let fs = MemFs::new();
    let file = open(&fs, "/f", OpenMode::CreateNew);
    file.write_all_at(&[b"abcdef"], 0).unwrap();
    fs.set_capacity(Some(10));
    let space = || fs.volume(Path::new("/")).unwrap().space().unwrap();
    assert_eq!(space(), Space { total: 10, free: 4 });
    let full = |done: io::Result<()>| is_full(&done.unwrap_err());
    assert!(full(file.write_all_at(&[b"ghi", b"jkl"], 6)));
    assert_eq!(content(&fs, "/f"), b"abcdefghij", "what fits arrives");
    assert!(full(fs.open(Path::new("/g"), OpenMode::CreateNew).map(drop)));
    assert!(full(fs.create_dir_all(Path::new("/d"))));
    file.write_all_at(&[b"X"], 3).unwrap();
    file.set_len(9).unwrap();
    open(&fs, "/g", OpenMode::CreateNew).write_all_at(&[b"k"], 0).unwrap();
    assert_eq!(space().free, 0);
    fs.remove_file(Path::new("/f")).unwrap();
    assert_eq!(space().free, 9);
}

#[test]
fn a_spoiled_sector_cannot_be_read_before_it_is_written_anew() {
    let fs = MemFs::new();
    let file = open(&fs, "/f", OpenMode::CreateNew);
    file.write_all_at(&[b"abcdefghij"], 0).unwrap();
    fs.spoil(Path::new("/f"), 2..6).unwrap();
    assert!(file.read_bytes(0, 3).is_err() && file.read_bytes(5, 2).is_err());
    assert_eq!(
        (&file.read_bytes(0, 2).unwrap()[..], &file.read_bytes(6, 4).unwrap()[..]),
        (&b"ab"[..], &b"ghij"[..])
    );
    file.write_all_at(&[b"XY"], 3).unwrap();
    assert_eq!(&file.read_bytes(3, 2).unwrap()[..], b"XY");
    assert!(
        file.read_bytes(2, 1).is_err() && file.read_bytes(5, 1).is_err(),
        "what was not written is as it was"
    );
    file.write_all_at(&[b"cdef"], 2).unwrap();
    assert_eq!(content(&fs, "/f"), b"abcdefghij");
}

#[test]
fn a_folder_is_renamed_with_all_that_is_in_it() {
    let fs = MemFs::new();
    create_dir_synced(&fs, Path::new("/d/e")).unwrap();
    let file = open(&fs, "/d/e/f", OpenMode::CreateNew);
    file.write_all_at(&[b"abc"], 0).unwrap();
    file.sync_data().unwrap();
    fs.sync_dir(Path::new("/d/e")).unwrap();
    open(&fs, "/d/e/unsynced", OpenMode::CreateNew);
    fs.create_dir_all(Path::new("/d/taken")).unwrap();
    assert!(fs.rename(Path::new("/d/e"), Path::new("/d/taken")).is_err());
    fs.rename(Path::new("/d/e"), Path::new("/d/g")).unwrap();
    assert_eq!(content(&fs, "/d/g/f"), b"abc");
    assert!(fs.exists(Path::new("/d/g/unsynced")).unwrap() && !fs.exists(Path::new("/d/e/f")).unwrap());
    fs.sync_dir(Path::new("/d")).unwrap();
    fs.crash();
    assert_eq!(fs.list(Path::new("/d/g")).unwrap(), ["f"]);
    assert_eq!(content(&fs, "/d/g/f"), b"abc");
}

#[test]
fn a_folder_of_the_same_name_gets_nothing_of_one_that_was_removed() {
    let fs = MemFs::new();
    create_dir_synced(&fs, Path::new("/d")).unwrap();
    open(&fs, "/d/old", OpenMode::CreateNew);
    fs.remove_dir_all(Path::new("/d")).unwrap();
    create_dir_synced(&fs, Path::new("/d")).unwrap();
    open(&fs, "/d/new", OpenMode::CreateNew);
    fs.sync_dir(Path::new("/d")).unwrap();
    fs.crash();
    assert_eq!(fs.list(Path::new("/d")).unwrap(), ["new"]);
}
