//! The operating system's files.

use std::ffi::OsString;
use std::fs;
use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::Advice;

use super::{File, Fs, OpenMode, Space, Volume};

/// Most buffers that one pwritev(2) takes.
const MAX_BUFFERS: usize = 1024;

/// Files of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFs;

impl Fs for RealFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(mode != OpenMode::ReadOnly);
        match mode {
            OpenMode::Existing | OpenMode::ReadOnly | OpenMode::Apart => {}
            OpenMode::CreateNew => _ = options.create_new(true),
            OpenMode::Truncate => _ = options.create(true).truncate(true),
        }
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let mut names = fs::read_dir(dir)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<Vec<OsString>>>()?;
        names.sort();
        Ok(names)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn volume(&self, dir: &Path) -> io::Result<Arc<dyn Volume>> {
        Ok(Arc::new(RealVolume(fs::File::open(dir)?)))
    }
}

#[derive(Debug)]
struct RealFile(fs::File);

impl File for RealFile {
    fn read_exact_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, position)
    }

    fn read_bytes(&self, position: u64, len: usize) -> io::Result<Bytes> {
        let mut buffer = Vec::with_capacity(len);
        // Into memory that was never zeroed. The kernel may return less than asked for, so go on where it stopped.
        while buffer.len() < len {
            let at = position + buffer.len() as u64;
            match rustix::io::pread(&self.0, spare_capacity(&mut buffer), at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // The allocator may have given more room than was asked for, and the kernel filled it.
        buffer.truncate(len);
        Ok(Bytes::from(buffer))
    }

    fn write_all_at(&self, buffers: &[&[u8]], mut position: u64) -> io::Result<()> {
        for chunk in buffers.chunks(MAX_BUFFERS) {
            let mut slices: Vec<IoSlice<'_>> = chunk.iter().map(|buffer| IoSlice::new(buffer)).collect();
            let mut rest = &mut slices[..];
            // Drops empty slices in front, so that a write of 0 always means trouble.
            IoSlice::advance_slices(&mut rest, 0);
            while !rest.is_empty() {
                match rustix::io::pwritev(&self.0, rest, position) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => {
                        position += written as u64;
                        IoSlice::advance_slices(&mut rest, written);
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn forget(&self, position: u64, len: u64) {
        // A file system that cannot do it keeps the bytes.
        let _ = rustix::fs::fadvise(&self.0, position, NonZeroU64::new(len), Advice::DontNeed);
    }
}

#[derive(Debug)]
struct RealVolume(fs::File);

impl Volume for RealVolume {
    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.0)?)
    }

    fn space(&self) -> io::Result<Space> {
        let found = rustix::fs::fstatvfs(&self.0)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        // What is kept for the administrator is not free for us.
        Ok(Space { total: bytes(found.f_blocks), free: bytes(found.f_bavail) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectored_write_of_more_buffers_than_one_call_takes_arrives_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealFs.open(&dir.path().join("f"), OpenMode::CreateNew).unwrap();
        let parts: Vec<Vec<u8>> = (0..3000_usize).map(|index| vec![index as u8; index % 5]).collect();
        let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        file.write_all_at(&slices, 3).unwrap();
        let expected = [&[0; 3][..], &parts.concat()].concat();
        assert_eq!(file.len().unwrap(), expected.len() as u64);
        assert_eq!(file.read_bytes(0, expected.len()).unwrap(), expected);
        assert_eq!(file.read_bytes(1, 7).unwrap(), expected[1..8]);
        let beyond = file.read_bytes(1, expected.len()).unwrap_err();
        assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
        assert!(file.read_bytes(0, 0).unwrap().is_empty());
        let volume = RealFs.volume(dir.path()).unwrap();
        volume.sync().unwrap();
        let space = volume.space().unwrap();
        assert!(space.free > 0 && space.free <= space.total, "{space:?}");
    }
}
