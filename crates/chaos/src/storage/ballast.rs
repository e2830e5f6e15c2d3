//! A file that takes all the space that is left on a file system.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, fstatvfs};

/// What is written at the end, where no more can be set aside at once.
const BLOCK: [u8; 4096] = [0; 4096];
/// More blocks than that are not left once nothing can be set aside: a file system that takes them has room again.
const LAST_BLOCKS: usize = 4096;

/// A file that only takes space. Removing it gives the space back.
#[derive(Debug)]
pub(crate) struct Ballast {
    file: File,
    path: PathBuf,
}

impl Ballast {
    /// An empty one.
    pub(crate) fn create(path: PathBuf) -> io::Result<Ballast> {
        let file = OpenOptions::new().create_new(true).append(true).open(&path)?;
        Ok(Ballast { file, path })
    }

    /// Takes what space there is now.
    pub(crate) fn fill(&mut self) -> io::Result<()> {
        let system = fstatvfs(&self.file)?;
        let mut piece = system.f_bavail.saturating_mul(system.f_frsize);
        // Set aside first, which writes nothing; what does not come in one piece comes in smaller ones.
        while piece >= BLOCK.len() as u64 {
            let len = self.file.metadata()?.len();
            match fallocate(&self.file, FallocateFlags::empty(), len, piece) {
                Ok(()) => {}
                Err(rustix::io::Errno::NOSPC) => piece /= 2,
                Err(error) => return Err(error.into()),
            }
        }
        for _ in 0..LAST_BLOCKS {
            match self.file.write_all(&BLOCK) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives all of it back.
    pub(crate) fn free(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

/// Bytes that can still be written to the file system of a folder.
pub(crate) fn free_bytes(folder: &Path) -> io::Result<u64> {
    let system = rustix::fs::statvfs(folder)?;
    Ok(system.f_bavail.saturating_mul(system.f_frsize))
}
