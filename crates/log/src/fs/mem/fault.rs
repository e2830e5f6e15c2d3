//! Which operations fail.

use std::io;

/// What an operation does, for choosing those that fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationKind {
    /// Reading content or size.
    Read,
    /// Creating a file or folder.
    Create,
    /// Writing to a file. A failed one writes half.
    Write,
    /// Cutting or extending a file.
    SetLen,
    /// Syncing a file. A failed one loses for good what it was to sync.
    SyncData,
    /// Syncing a folder.
    SyncDir,
    /// Renaming.
    Rename,
    /// Removing a file or folder.
    Remove,
}

/// An operation that is to fail.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Only operations of this kind; `None`: any except [`OperationKind::Read`].
    pub kind: Option<OperationKind>,
    /// How many of those succeed first.
    pub after: u64,
    /// Whether all later ones fail as well.
    pub lasting: bool,
}

impl Fault {
    fn concerns(&self, kind: OperationKind) -> bool {
        match self.kind {
            Some(wanted) => wanted == kind,
            None => kind != OperationKind::Read,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    planned: Vec<Fault>,
    operations: u64,
}

impl Faults {
    pub(super) fn inject(&mut self, fault: Fault) {
        self.planned.push(fault);
    }

    pub(super) fn operations(&self) -> u64 {
        self.operations
    }

    /// Counts an operation; an error if it is to fail.
    pub(super) fn check(&mut self, kind: OperationKind) -> io::Result<()> {
        if kind != OperationKind::Read {
            self.operations += 1;
        }
        let mut fails = false;
        self.planned.retain_mut(|fault| {
            if !fault.concerns(kind) {
                return true;
            }
            let due = fault.after == 0;
            fails |= due;
            fault.after = fault.after.saturating_sub(1);
            !due || fault.lasting
        });
        if fails { Err(io::Error::other(format!("injected fault in {kind:?}"))) } else { Ok(()) }
    }
}
