//! Three machines that are none: each zone has a disk of its own, and its processes read a boot id of their own.
//!
//! ```text
//!   <row>/disks/            mounted on itself, so that all namespaces see disks come and go (mount propagation)
//!        /disks/a, b, c     the disks; below each the data folders of that zone's broker and controller
//!        /disks/a.store     their images
//!        /boot-a, b, c      what the zone's processes read at /proc/sys/kernel/random/boot_id: bound over it in a mount
//!                           namespace of theirs, so that the binary under test needs to know nothing of it
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::error::{ChaosError, chain};
use crate::network::Network;
use crate::network::system::run_beside;
use crate::storage::disk::{Disk, Kind};
use crate::storage::mounts::unmount_below;
use crate::zone::Zone;

/// Becomes the program in `$@`, which reads the file `$0` as the boot id of its machine.
const IN_BOOT: &str = r#"mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@""#;

/// Where the disk of a zone is mounted.
pub(crate) fn mount_point(folder: &Path, zone: Zone) -> PathBuf {
    folder.join("disks").join(zone.name())
}

/// The file with the boot id of a zone.
pub(crate) fn boot_id(folder: &Path, zone: Zone) -> PathBuf {
    folder.join(format!("boot-{zone}"))
}

/// A command in a zone that takes the file's content for the boot id. All of what it goes through becomes the program
/// itself: the process id is the program's.
pub(crate) fn command(network: &Network, zone: Zone, boot_id: &Path, program: &Path) -> Command {
    let mut command = network.command(zone, Path::new("unshare"));
    command.args(["--mount", "--propagation", "slave", "sh", "-c", IN_BOOT]).arg(boot_id).arg(program);
    command
}

/// The machines of a run. Dropped after the processes on them.
#[derive(Debug)]
pub(crate) struct Machines {
    folder: PathBuf,
    disks: BTreeMap<Zone, Disk>,
}

impl Machines {
    /// Makes and mounts three empty disks below `folder`, and boots.
    pub(crate) async fn make(folder: &Path, kind: Kind) -> Result<Machines, ChaosError> {
        let disks = folder.join("disks");
        fs::create_dir_all(&disks).map_err(ChaosError::io(format!("creating {}", disks.display())))?;
        // From here on whatever is mounted is undone when this is dropped.
        let mut machines = Machines { folder: folder.to_owned(), disks: BTreeMap::new() };
        let shared = disks.to_string_lossy();
        run_beside("mount", &["--bind", &shared, &shared]).await?;
        run_beside("mount", &["--make-shared", &shared]).await?;
        for zone in Zone::ALL {
            let store = disks.join(format!("{zone}.store"));
            let disk = Disk::make(zone, kind, store, mount_point(folder, zone)).await?;
            machines.disks.insert(zone, disk);
            machines.boot(zone)?;
        }
        Ok(machines)
    }

    /// The disk of a zone.
    pub(crate) fn disk(&mut self, zone: Zone) -> Result<&mut Disk, ChaosError> {
        let missing = || ChaosError::Late {
            what: format!("the disk of zone {zone}"),
            limit: std::time::Duration::ZERO,
            seen: "none".to_owned(),
        };
        self.disks.get_mut(&zone).ok_or_else(missing)
    }

    /// What the disks of the zones hold now, all of it before this returns.
    pub(crate) async fn copies(&mut self, zones: &[Zone]) -> Result<BTreeMap<Zone, PathBuf>, ChaosError> {
        let wanted = self.disks.iter_mut().filter(|(zone, _)| zones.contains(zone));
        let copies = wanted.map(|(zone, disk)| async move { Ok((*zone, disk.copy().await?)) });
        futures::future::try_join_all(copies).await.map(|copies| copies.into_iter().collect())
    }

    /// The machines come back with what was on their disks when they were copied, in a new boot.
    pub(crate) async fn power_on(&mut self, copies: BTreeMap<Zone, PathBuf>) -> Result<(), ChaosError> {
        for (zone, copy) in copies {
            self.disk(zone)?.become_copy(copy).await?;
            self.boot(zone)?;
        }
        Ok(())
    }

    /// Whatever starts in the zone from now on runs in a new boot of its machine.
    pub(crate) fn boot(&self, zone: Zone) -> Result<(), ChaosError> {
        let id: u128 = rand::random();
        let file = boot_id(&self.folder, zone);
        fs::write(&file, format!("{id:032x}\n"))
            .map_err(ChaosError::io(format!("writing {}", file.display())))
    }

    /// The boot that the zone is in.
    pub(crate) fn booted(&self, zone: Zone) -> Result<String, ChaosError> {
        let file = boot_id(&self.folder, zone);
        let id = fs::read_to_string(&file).map_err(ChaosError::io(format!("reading {}", file.display())))?;
        Ok(id.trim().to_owned())
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        if let Err(error) = unmount_below(&self.folder) {
            eprintln!("holdfast-chaos: what is left of the disks: {}", chain(&error));
        }
    }
}
