//! Keeps files open between uses, as many as are allowed: a broker has more segments than a process may have open files.
//!
//! Invariants:
//! - A file that somebody holds is never closed: who has unflushed bytes holds their files.
//! - A handle is never given out under a name that was removed, renamed or created anew since it was opened.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{File, Fs, OpenMode, Volume};

/// Files kept open where the limit of the process is not known, or there is none.
const USUAL_LIMIT: usize = 4096;
/// Files kept open however low the limit of the process.
const LEAST_LIMIT: usize = 16;
/// Files kept open however high it is: the kernel keeps about a kilobyte for each.
const MOST_LIMIT: usize = 65_536;
/// Files found held, when another one is opened, after which no more are looked at: all may be.
const LOOKS: usize = 16;

/// A file system whose files stay open between uses. Clones share them.
#[derive(Debug, Clone)]
pub struct CachedFs {
    fs: Arc<dyn Fs>,
    open: Arc<Mutex<OpenFiles>>,
}

/// The files that are open, and in which order they were used.
#[derive(Debug)]
struct OpenFiles {
    limit: usize,
    /// Counts uses.
    clock: u64,
    /// Counts changes of names.
    changes: u64,
    /// By path: what is in a folder stands together, so that a folder is forgotten without a look at all the others.
    files: BTreeMap<Arc<Path>, (Arc<dyn File>, u64)>,
    by_use: BTreeMap<u64, Arc<Path>>,
}

impl CachedFs {
    /// Keeps `limit` files of `fs` open. There are more only while more are held, and until another one is opened
    /// after that.
    pub fn new(fs: Arc<dyn Fs>, limit: usize) -> CachedFs {
        let (files, by_use) = (BTreeMap::new(), BTreeMap::new());
        let open = OpenFiles { limit, clock: 0, changes: 0, files, by_use };
        CachedFs { fs, open: Arc::new(Mutex::new(open)) }
    }

    /// Keeps half as many open as the process may (RLIMIT_NOFILE), and lets it have as many as it can get: a log with
    /// something to flush holds a file, and all of them may have. The other half is for connections.
    pub fn of_process(fs: Arc<dyn Fs>) -> CachedFs {
        let half = allowed_files().and_then(|allowed| usize::try_from(allowed / 2).ok());
        CachedFs::new(fs, half.unwrap_or(USUAL_LIMIT).clamp(LEAST_LIMIT, MOST_LIMIT))
    }

    /// How many files are open between uses.
    pub fn open_files(&self) -> usize {
        self.lock().files.len()
    }

    fn lock(&self) -> MutexGuard<'_, OpenFiles> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_existing(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let changes = {
            let mut open = self.lock();
            if let Some(file) = open.get(path) {
                return Ok(file);
            }
            open.changes
        };
        let file = self.fs.open(path, OpenMode::Existing)?;
        let mut open = self.lock();
        if let Some(known) = open.get(path) {
            return Ok(known); // Somebody else was faster.
        }
        // Names changed meanwhile: this may be the handle of a file that is gone.
        let idle = if open.changes == changes { open.insert(path, &file) } else { Vec::new() };
        drop(open);
        // Closed only now, outside the lock.
        drop(idle);
        Ok(file)
    }

    /// Names changed: what is open under `path`, or in it, is not what is there any more.
    fn forget(&self, path: &Path) {
        let mut open = self.lock();
        open.changes += 1;
        let behind = open.files.range::<Path, _>((Bound::Included(path), Bound::Unbounded));
        let inside = behind.map(|(open, _)| open).take_while(|open| open.starts_with(path));
        let gone: Vec<Arc<Path>> = inside.cloned().collect();
        let closed: Vec<_> = gone.iter().filter_map(|path| open.remove(path)).collect();
        drop(open);
        drop(closed);
    }
}

/// How many files this process may have open, raised as far as it may raise it: what is usual to begin with is meant for
/// programs that cannot deal with more. `None` where there is no limit.
fn allowed_files() -> Option<u64> {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // An error leaves it as it was.
    let _ = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current
}

impl OpenFiles {
    fn get(&mut self, path: &Path) -> Option<Arc<dyn File>> {
        let now = self.tick();
        let (file, used) = self.files.get_mut(path)?;
        if let Some(path) = self.by_use.remove(used) {
            self.by_use.insert(now, path);
        }
        *used = now;
        Some(Arc::clone(file))
    }

    /// Returns the files that are not to stay open.
    fn insert(&mut self, path: &Path, file: &Arc<dyn File>) -> Vec<Arc<dyn File>> {
        let now = self.tick();
        let mut idle: Vec<_> = self.remove(path).into_iter().collect();
        let path: Arc<Path> = path.into();
        self.files.insert(Arc::clone(&path), (Arc::clone(file), now));
        self.by_use.insert(now, path);
        let mut held = 0;
        while self.files.len() > self.limit && held < LOOKS {
            match self.remove_oldest() {
                Some(file) => idle.push(file),
                None => held += 1, // it is the newest now
            }
        }
        idle
    }

    /// Takes out the file that was not used for longest, unless somebody holds it.
    fn remove_oldest(&mut self) -> Option<Arc<dyn File>> {
        let (_, path) = self.by_use.first_key_value()?;
        let path = Arc::clone(path);
        let held = self.files.get(&path).is_some_and(|(file, _)| Arc::strong_count(file) > 1);
        if held {
            self.get(&path);
            return None;
        }
        self.remove(&path)
    }

    fn remove(&mut self, path: &Path) -> Option<Arc<dyn File>> {
        let (file, used) = self.files.remove(path)?;
        self.by_use.remove(&used);
        Some(file)
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

impl Fs for CachedFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.fs.create_dir_all(dir)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        match mode {
            OpenMode::Existing => self.open_existing(path),
            OpenMode::ReadOnly | OpenMode::Apart => self.fs.open(path, mode),
            OpenMode::CreateNew | OpenMode::Truncate => {
                let file = self.fs.open(path, mode)?;
                let mut open = self.lock();
                open.changes += 1;
                let idle = open.insert(path, &file);
                drop(open);
                drop(idle);
                Ok(file)
            }
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let renamed = self.fs.rename(from, to);
        self.forget(from);
        self.forget(to);
        renamed
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let removed = self.fs.remove_file(path);
        let mut open = self.lock();
        open.changes += 1;
        let closed = open.remove(path);
        drop(open);
        drop(closed);
        removed
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        let removed = self.fs.remove_dir_all(dir);
        self.forget(dir);
        removed
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemFs;
    use crate::fs::hooked::HookedFs;

    fn create(fs: &CachedFs, path: &str, content: &[u8]) -> Arc<dyn File> {
        let file = fs.open(path.as_ref(), OpenMode::CreateNew).unwrap();
        file.write_all_at(&[content], 0).unwrap();
        file
    }

    fn content(fs: &CachedFs, path: &str) -> Vec<u8> {
        let file = fs.open(path.as_ref(), OpenMode::Existing).unwrap();
        file.read_bytes(0, file.len().unwrap() as usize).unwrap().to_vec()
    }

    #[test]
    fn those_not_used_for_longest_are_closed_unless_they_are_held() {
        let fs = CachedFs::new(Arc::new(MemFs::new()), 2);
        let held = create(&fs, "/a", b"a");
        for path in ["/b", "/c", "/d"] {
            create(&fs, path, path.as_bytes());
        }
        assert_eq!(fs.open_files(), 2);
        let again = fs.open("/a".as_ref(), OpenMode::Existing).unwrap();
        assert!(Arc::ptr_eq(&held, &again), "what is held is still the one handle of its file");
        let all = ["/a", "/b", "/c", "/d"].map(|path| fs.open(path.as_ref(), OpenMode::Existing).unwrap());
        assert_eq!(fs.open_files(), 4, "more than the limit while more are held");
        drop((all, again, held));
        assert_eq!(content(&fs, "/b"), b"/b");
        create(&fs, "/e", b"");
        assert_eq!(fs.open_files(), 2);
    }

    /// All logs of a broker may have something to flush, and more of them than files are to be kept open.
    #[test]
    fn many_files_that_are_held_are_not_looked_at_again_and_again() {
        let fs = CachedFs::new(Arc::new(MemFs::new()), 2);
        let held: Vec<_> = (0..1000).map(|number| create(&fs, &format!("/{number}"), b"")).collect();
        let uses = fs.lock().clock;
        create(&fs, "/another", b"");
        assert!(fs.lock().clock - uses <= 2 + LOOKS as u64, "{} looks", fs.lock().clock - uses);
        drop(held);
        create(&fs, "/later", b"");
        assert_eq!(fs.open_files(), 2);
    }

    #[test]
    fn a_process_gets_as_many_files_as_it_may_have() {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

        let Some(most) = getrlimit(Resource::Nofile).maximum else { return };
        setrlimit(Resource::Nofile, Rlimit { current: Some(most - 1), maximum: Some(most) }).unwrap();
        CachedFs::of_process(Arc::new(MemFs::new()));
        assert_eq!(getrlimit(Resource::Nofile).current, Some(most));
    }

    #[test]
    fn a_name_that_changed_is_opened_anew() {
        let fs = CachedFs::new(Arc::new(MemFs::new()), 8);
        fs.create_dir_all("/dir".as_ref()).unwrap();
        let old = create(&fs, "/dir/a", b"old");
        fs.remove_file("/dir/a".as_ref()).unwrap();
        create(&fs, "/dir/a", b"new");
        assert_eq!(content(&fs, "/dir/a"), b"new");
        create(&fs, "/dir/b", b"other");
        fs.rename("/dir/b".as_ref(), "/dir/a".as_ref()).unwrap();
        assert_eq!(content(&fs, "/dir/a"), b"other");
        assert!(fs.open("/dir/b".as_ref(), OpenMode::Existing).is_err());
        fs.remove_dir_all("/dir".as_ref()).unwrap();
        assert!(fs.open("/dir/a".as_ref(), OpenMode::Existing).is_err());
        assert_eq!((fs.open_files(), old.len().unwrap()), (0, 3));
    }

    /// What would be written to it would go to a file without a name.
    #[test]
    fn a_handle_opened_while_its_file_was_removed_is_not_kept() {
        let hooked = HookedFs::default();
        hooked.open("/a".as_ref(), OpenMode::CreateNew).unwrap();
        let fs = CachedFs::new(Arc::new(hooked.clone()), 8);
        let cached = fs.clone();
        hooked.during_open(move || cached.remove_file("/a".as_ref()).unwrap());
        fs.open("/a".as_ref(), OpenMode::Existing).unwrap();
        assert!(fs.open("/a".as_ref(), OpenMode::Existing).is_err());
    }
}
