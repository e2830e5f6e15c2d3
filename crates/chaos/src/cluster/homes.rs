//! Where processes keep their data, and on what machine they think that they run.

use std::path::{Path, PathBuf};

use crate::cluster::process::Role;
use crate::storage::machines;
use crate::zone::Zone;

/// The homes of a run's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Homes {
    /// Folders beside their logs, on this machine as it is.
    Folders,
    /// Each zone is a machine: with a disk and with boots of its own.
    Machines,
}

impl Homes {
    /// Where a process keeps what has to last.
    pub(crate) fn data_dir(self, folder: &Path, role: Role, zone: Zone) -> PathBuf {
        match self {
            Homes::Folders => folder.join(format!("{role}-{zone}")),
            Homes::Machines => machines::mount_point(folder, zone).join(role.to_string()),
        }
    }

    /// The file that tells processes of a zone in which boot they run, where it is not this machine's.
    pub(crate) fn boot_id(self, folder: &Path, zone: Zone) -> Option<PathBuf> {
        (self == Homes::Machines).then(|| machines::boot_id(folder, zone))
    }

    /// What stands at the end of a broker's configuration. Disks are broken where segments are sealed, too, so they are
    /// as small as can be.
    pub(crate) fn broker_settings(self) -> &'static str {
        match self {
            Homes::Folders => "",
            Homes::Machines => "[broker.log]\nsegment-size = \"1MiB\"\n",
        }
    }
}
