//! Giving up the front of the log, and beginning anew behind its end (R44).

use std::sync::Arc;

use holdfast_core::replication::Position;
use holdfast_core::retention::SealedSegment;
use holdfast_core::{Offset, mutant};

use super::{PartitionLog, create_segment};
use crate::flush::Part;
use crate::log_start::LogStart;
use crate::recovery::segment_bases;
use crate::segment::Segment;
use crate::{LogError, TrimTicket, trim};

impl PartitionLog {
    /// The log starts at `base` from now on, a batch boundary of it or inside of a filler: what lies below is read no more.
    /// `snapshot` is what the owner [derives](crate::Derived) from exactly that. The ticket makes it durable and removes the segments that lie
    /// below as a whole; until it has, the next opening may find the start as it was. `None` if the log starts there already.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`] above the log end; nothing is changed then.
    pub fn trim_to(&mut self, base: Position, snapshot: Vec<u8>) -> Result<Option<TrimTicket>, LogError> {
        self.shared.check_alive()?;
        let (start, end) = (self.log_start_offset(), self.log_end_offset());
        if base.end > end {
            return Err(LogError::OutOfRange { requested: base.end, start, end });
        }
        if base.end <= start {
            return Ok(None);
        }
        self.shared.write().trim(base);
        self.shared.trimming.ask(Some(LogStart { base, snapshot }));
        Ok(Some(TrimTicket::new(Arc::clone(&self.shared))))
    }

    /// Gives up what was appended to when the log was trimmed beyond it, and is sealed since: as a ticket. `None` if there is
    /// nothing of that kind.
    pub fn trim_sealed(&mut self) -> Option<TrimTicket> {
        let base = {
            let view = self.shared.read();
            let next = view.segments.get(1);
            next.is_some_and(|next| next.base <= view.start()).then_some(view.base)
        };
        base.map(|base| {
            self.shared.write().trim(base);
            TrimTicket::new(Arc::clone(&self.shared))
        })
    }

    /// The segments but for the active one, oldest first.
    pub fn sealed_segments(&self) -> Vec<SealedSegment> {
        let view = self.shared.read();
        let sealed = view.segments.split_last().map_or(&[][..], |(_, sealed)| sealed);
        let said = |&Segment { end, len, max_timestamp, .. }: &Segment| SealedSegment {
            end,
            bytes: len,
            max_timestamp,
        };
        sealed.iter().map(said).collect()
    }

    /// Puts an empty log in the place of this one, that starts and ends at `base`. `snapshot` is what its owner knows of what
    /// lies below. Durable on return.
    ///
    /// Whoever keeps a [`Recovery::trusted_end`](crate::Recovery::trusted_end) above `base` lowers it durably **before**, as for
    /// [`truncate_to`](Self::truncate_to).
    ///
    /// # Errors
    /// A failure poisons the log, except for [`LogError::Full`]: then nothing else may be done with it before this was done
    /// again.
    pub fn reset_to(&mut self, base: Position, snapshot: Vec<u8>) -> Result<(), LogError> {
        self.shared.check_alive()?;
        let reset = self.try_reset(base, snapshot);
        self.poison_unless_full(reset)
    }

    /// The new start is durable first: from then on nothing that is left of the log counts. Its segments go last first, before
    /// one is created whose name may be among theirs.
    fn try_reset(&mut self, base: Position, snapshot: Vec<u8>) -> Result<(), LogError> {
        let shared = Arc::clone(&self.shared);
        let (fs, dir) = (&*shared.fs, &shared.dir);
        let _still = shared.stand_still();
        shared.finish_merge()?;
        shared.trimming.ask(None);
        shared.noted().forget_above(fs, dir, Offset::ZERO)?;
        LogStart { base, snapshot }.write_for_reset(fs, dir)?;
        shared.trimming.note(base.end);
        shared.compaction.forget(fs, dir)?;
        shared.write().reset(base);
        self.active_since = None;
        self.dirty.reset(base.end);
        for found in segment_bases(fs, dir)?.into_iter().rev() {
            trim::remove(fs, dir, found)?;
        }
        if !mutant!(ResetWithoutSync) {
            fs.sync_dir(dir).map_err(LogError::io("syncing folder", dir))?;
        }
        let (segment, file) = create_segment(fs, dir, base.end)?;
        self.dirty.mark_file(segment.base, Part::Segment, &file);
        self.dirty.mark_dir(dir.clone());
        Ok(())
    }
}
