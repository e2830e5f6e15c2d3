//! Files in memory whose flushes, or removals, hang as long as a gate is shut: those of partitions, not those of promises.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use holdfast_log::{File, Fs, MemFs, OpenMode, Volume};

/// Clones share the gates.
#[derive(Debug, Clone)]
pub(super) struct GatedFs {
    inner: MemFs,
    gate: Arc<Gate>,
    removals: Arc<Gate>,
}

#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    shut: bool,
    hanging: usize,
}

impl GatedFs {
    pub(super) fn new(inner: MemFs) -> GatedFs {
        GatedFs { inner, gate: Arc::default(), removals: Arc::default() }
    }

    pub(super) fn shut(&self) {
        self.gate.shut();
    }

    pub(super) fn open(&self) {
        self.gate.open();
    }

    pub(super) fn wait_until_one_hangs(&self, limit: Duration) {
        self.gate.wait_until_one_hangs(limit);
    }

    /// Of folders.
    pub(super) fn removals(&self) -> Arc<Gate> {
        Arc::clone(&self.removals)
    }
}

impl Gate {
    pub(super) fn shut(&self) {
        self.state.lock().unwrap().shut = true;
    }

    pub(super) fn open(&self) {
        self.state.lock().unwrap().shut = false;
        self.changed.notify_all();
    }

    pub(super) fn wait_until_one_hangs(&self, limit: Duration) {
        let state = self.state.lock().unwrap();
        let (state, _) = self.changed.wait_timeout_while(state, limit, |state| state.hanging == 0).unwrap();
        assert!(state.hanging > 0, "nothing came to the gate");
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.hanging += 1;
        self.changed.notify_all();
        state = self.changed.wait_while(state, |state| state.shut).unwrap();
        state.hanging -= 1;
    }
}

#[derive(Debug)]
struct GatedFile {
    inner: Arc<dyn File>,
    gate: Option<Arc<Gate>>,
}

impl File for GatedFile {
    fn read_exact_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        self.inner.read_exact_at(buffer, position)
    }

    fn write_all_at(&self, buffers: &[&[u8]], position: u64) -> io::Result<()> {
        self.inner.write_all_at(buffers, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        if let Some(gate) = &self.gate {
            gate.pass();
        }
        self.inner.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
}

impl Fs for GatedFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir_all(dir)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let is_partition = path.iter().any(|part| part == "partitions");
        let gate = is_partition.then(|| Arc::clone(&self.gate));
        Ok(Arc::new(GatedFile { inner: self.inner.open(path, mode)?, gate }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_file(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.removals.pass();
        self.inner.remove_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.inner.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }

    fn volume(&self, dir: &Path) -> io::Result<Arc<dyn Volume>> {
        self.inner.volume(dir)
    }
}
