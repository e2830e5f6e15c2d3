//! One run at a time: namespaces, addresses and ports are the same for all.

use std::fs::{File, TryLockError};

use crate::error::ChaosError;

/// The name of the locked file in the folder for temporary files.
const NAME: &str = "holdfast-chaos.lock";

/// Held as long as the run goes on; the system lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct RunLock {
    _file: File,
}

impl RunLock {
    /// Takes it, or says that another run has it.
    pub(crate) fn take() -> Result<RunLock, ChaosError> {
        let path = std::env::temp_dir().join(NAME);
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(ChaosError::io(format!("opening {}", path.display())))?;
        match file.try_lock() {
            Ok(()) => Ok(RunLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(ChaosError::Busy { lock: path }),
            Err(TryLockError::Error(source)) => {
                Err(ChaosError::Io { what: format!("locking {}", path.display()), source })
            }
        }
    }
}
