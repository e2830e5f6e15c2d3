//! A decoder under attack, and the files that it reads.

use std::path::{Path, PathBuf};

use holdfast_log::{Fs, MemFs, OpenMode, create_dir_synced};

use crate::corpus::{Input, committed};
use crate::targets;

/// The folder that an input's files are put into.
pub(crate) const FOLDER: &str = "/input";

/// A decoder, and what it may do.
#[derive(Debug)]
pub struct Target {
    /// Its name; that of its folder in the corpus, too.
    pub name: &'static str,
    /// What reads such bytes, and where they come from.
    pub about: &'static str,
    /// What it may allocate at a time.
    pub memory: Memory,
    /// Valid inputs, made by the code that writes such bytes.
    pub written: fn() -> Vec<Input>,
    /// Gives the input to the decoder and uses what it yields. Whether it was accepted; panics where it breaks a promise.
    pub run: fn(&Input) -> bool,
}

/// What a decoder may hold at a time, beyond its input.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Bytes for any input: buffers, windows, limits of its own.
    pub fixed: usize,
    /// Bytes for every byte of the input.
    pub per_byte: usize,
}

impl Target {
    /// All of them.
    pub fn all() -> Vec<Target> {
        targets::all()
    }

    /// What mutation begins with, each with its name: what writers make, and what was committed.
    ///
    /// # Errors
    /// What the file system says of the corpus.
    pub fn corpus(&self) -> std::io::Result<Vec<(String, Input)>> {
        let written = (self.written)().into_iter().enumerate();
        let mut corpus: Vec<(String, Input)> =
            written.map(|(number, input)| (format!("written {number}"), input)).collect();
        corpus.extend(committed(self.name)?);
        Ok(corpus)
    }
}

/// The files of an input in a file system of their own.
pub(crate) fn in_memory(input: &Input) -> MemFs {
    let fs = MemFs::new();
    create_dir(&fs, Path::new(FOLDER));
    for (name, bytes) in &input.files {
        let path = Path::new(FOLDER).join(name);
        create_dir(&fs, path.parent().unwrap_or(Path::new(FOLDER)));
        write_file(&fs, &path, bytes);
    }
    fs
}

/// The files below a folder, as an input.
pub(crate) fn input_of(fs: &MemFs, folder: &Path) -> Input {
    let mut input = Input::default();
    let mut folders = vec![PathBuf::new()];
    while let Some(below) = folders.pop() {
        for name in fs.list(&folder.join(&below)).unwrap_or_default() {
            let name = below.join(name);
            if fs.list(&folder.join(&name)).is_ok() {
                folders.push(name);
            } else {
                let bytes = read_file(fs, &folder.join(&name));
                input.files.insert(name.to_string_lossy().into_owned(), bytes);
            }
        }
    }
    input
}

fn create_dir(fs: &MemFs, dir: &Path) {
    create_dir_synced(fs, dir).expect("memory has room for a folder, and no file is in its place");
}

pub(crate) fn write_file(fs: &MemFs, path: &Path, bytes: &[u8]) {
    let written = fs.open(path, OpenMode::Truncate).and_then(|file| file.write_all_at(&[bytes], 0));
    written.expect("memory has room for a file");
}

pub(crate) fn read_file(fs: &MemFs, path: &Path) -> Vec<u8> {
    let file = fs.open(path, OpenMode::ReadOnly).expect("a file that was written");
    let len = file.len().expect("memory does not fail");
    file.read_bytes(0, len as usize).expect("memory does not fail").to_vec()
}
