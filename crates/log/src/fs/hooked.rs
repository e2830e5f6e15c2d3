//! Files in memory for tests of what comes between two steps: something runs before the next read, or while the next file
//! is opened, once.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::{File, Fs, OpenMode, Volume};
use crate::MemFs;

type Hook = Mutex<Option<Box<dyn FnOnce() + Send>>>;

/// Clones share the files and what is to run.
#[derive(Clone, Default)]
pub(crate) struct HookedFs {
    fs: MemFs,
    hooks: Arc<Hooks>,
}

#[derive(Default)]
struct Hooks {
    before_read: Hook,
    during_open: Hook,
    largest_read: AtomicUsize,
}

struct HookedFile {
    file: Arc<dyn File>,
    hooks: Arc<Hooks>,
}

impl HookedFs {
    /// That runs before the next read of any file.
    pub(crate) fn before_read(&self, hook: impl FnOnce() + Send + 'static) {
        *self.hooks.before_read.lock().unwrap() = Some(Box::new(hook));
    }

    /// That runs when the next file was opened, and whoever opens it has not got it yet.
    pub(crate) fn during_open(&self, hook: impl FnOnce() + Send + 'static) {
        *self.hooks.during_open.lock().unwrap() = Some(Box::new(hook));
    }

    /// Whether everything that was to run did.
    pub(crate) fn have_run(&self) -> bool {
        let Hooks { before_read, during_open, .. } = &*self.hooks;
        [before_read, during_open].iter().all(|hook| hook.lock().unwrap().is_none())
    }

    /// Most bytes that were asked for at once.
    pub(crate) fn largest_read(&self) -> usize {
        self.hooks.largest_read.load(Ordering::SeqCst)
    }
}

/// What runs may itself read and open files.
fn run(hook: &Hook) {
    let hook = hook.lock().unwrap().take();
    if let Some(hook) = hook {
        hook();
    }
}

impl fmt::Debug for HookedFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookedFs")
    }
}

impl fmt::Debug for HookedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookedFile")
    }
}

impl Fs for HookedFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.fs.create_dir_all(dir)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = self.fs.open(path, mode)?;
        run(&self.hooks.during_open);
        Ok(Arc::new(HookedFile { file, hooks: Arc::clone(&self.hooks) }))
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
        self.hooks.largest_read.fetch_max(buffer.len(), Ordering::SeqCst);
        run(&self.hooks.before_read);
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
