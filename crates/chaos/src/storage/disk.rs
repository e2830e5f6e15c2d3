//! The disk of one zone: an image file, mounted through a loop device. What is in the file is what reached the disk; what
//! the kernel keeps of the mounted file system beyond that is gone when the power is.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::ChaosError;
use crate::network::system::run_beside;
use crate::storage::mounts::unmount_below;
use crate::zone::Zone;

/// What a disk says it holds. The image is sparse: only what was written takes space.
const SIZE: u64 = 4 << 30;
/// What is really there for a disk that is overcommitted.
const REAL_SIZE: &str = "256m";
const MOUNT_OPTIONS: &str = "loop,noatime,noinit_itable";
/// The kernel writes its journal by itself this seldom, in seconds: while nothing runs, an image stays as it is, and what
/// was never flushed stays off it.
const JOURNAL_OPTIONS: &str = "commit=300";

/// What is wrong with a disk from the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing: ext4 with its journal.
    Sound,
    /// It says that it has more space than it has, as thin volumes do. A write is taken, and when it is written back
    /// there is no room. Ext4 without a journal, which would make the whole file system read-only at the first such
    /// error.
    Overcommitted,
}

/// A disk, mounted or not.
#[derive(Debug)]
pub(crate) struct Disk {
    zone: Zone,
    options: String,
    /// The folder of its images.
    store: PathBuf,
    image: PathBuf,
    /// Images so far.
    images: u32,
    point: PathBuf,
}

impl Disk {
    /// Makes an empty one with its images in `store`, and mounts it at `point`.
    pub(crate) async fn make(
        zone: Zone,
        kind: Kind,
        store: PathBuf,
        point: PathBuf,
    ) -> Result<Disk, ChaosError> {
        for folder in [&store, &point] {
            fs::create_dir_all(folder).map_err(ChaosError::io(format!("creating {}", folder.display())))?;
        }
        if kind == Kind::Overcommitted {
            let size = format!("size={REAL_SIZE}");
            run_beside("mount", &["-t", "tmpfs", "-o", &size, "holdfast-chaos", &text(&store)]).await?;
        }
        let options = match kind {
            Kind::Sound => format!("{MOUNT_OPTIONS},{JOURNAL_OPTIONS}"),
            Kind::Overcommitted => MOUNT_OPTIONS.to_owned(),
        };
        let disk =
            Disk { zone, options, image: store.join(format!("{zone}.0.img")), store, images: 1, point };
        let image = fs::File::create(&disk.image).and_then(|file| file.set_len(SIZE));
        image.map_err(ChaosError::io(format!("making {}", disk.image.display())))?;
        let journal: &[&str] = match kind {
            Kind::Sound => &["-J", "size=32"],
            Kind::Overcommitted => &["-O", "^has_journal"],
        };
        let image = text(&disk.image);
        let all = [&["-q", "-F", "-m", "0", "-N", "16384"], journal, &[image.as_str()]].concat();
        run_beside("mkfs.ext4", &all).await?;
        disk.mount().await?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub(crate) fn point(&self) -> &Path {
        &self.point
    }

    /// The file system that its image takes its space from.
    pub(crate) fn store(&self) -> &Path {
        &self.store
    }

    /// What it holds now. Where that has to be one instant, nothing may be written meanwhile.
    pub(crate) async fn copy(&mut self) -> Result<PathBuf, ChaosError> {
        let copy = self.store.join(format!("{}.{}.img", self.zone, self.images));
        self.images += 1;
        let (from, to) = (text(&self.image), text(&copy));
        run_beside("cp", &["--reflink=auto", "--sparse=always", &from, &to]).await?;
        Ok(copy)
    }

    /// Puts a copy in its place. Nobody may use it; what the kernel had not written is gone.
    pub(crate) async fn become_copy(&mut self, copy: PathBuf) -> Result<(), ChaosError> {
        self.unmount().await?;
        let old = std::mem::replace(&mut self.image, copy);
        fs::remove_file(&old).map_err(ChaosError::io(format!("removing {}", old.display())))?;
        self.check().await?;
        self.mount().await
    }

    /// Unmounts it, lets the file system mend itself, and mounts it: what an operator does whose disk had errors.
    pub(crate) async fn mend(&mut self) -> Result<(), ChaosError> {
        self.unmount().await?;
        // It says by its exit code that it mended something.
        let _ = run_beside("e2fsck", &["-f", "-y", &text(&self.image)]).await;
        self.mount().await
    }

    /// A disk that lost power needs its journal replayed, and nothing else: or it is no copy of one instant.
    async fn check(&self) -> Result<(), ChaosError> {
        let torn = |said: String| ChaosError::TornCopy { zone: self.zone, said };
        let image = text(&self.image);
        // The first replays, and says so by its exit code; the second must find nothing.
        let _ = run_beside("e2fsck", &["-p", &image]).await;
        let checked = run_beside("e2fsck", &["-f", "-n", &image]).await;
        checked.map(drop).map_err(|error| torn(error.to_string()))
    }

    async fn mount(&self) -> Result<(), ChaosError> {
        let (image, point) = (text(&self.image), text(&self.point));
        run_beside("mount", &["-t", "ext4", "-o", &self.options, &image, &point]).await.map(drop)
    }

    async fn unmount(&self) -> Result<(), ChaosError> {
        let point = self.point.clone();
        let unmounted = tokio::task::spawn_blocking(move || unmount_below(&point)).await;
        unmounted.map_err(|error| ChaosError::client("unmounting a disk", &error))?
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
