//! Batches of one file, verified one behind the other.

use holdfast_core::Offset;
use holdfast_core::record_batch::{BatchHeader, HEADER_LEN};

use crate::error::Damage;
use crate::window::Window;
use crate::{File, inspect, recovery};

/// Bytes read at once. Where much is damaged, a run ends soon.
const READ_AHEAD: usize = 256 << 10;

/// Where a batch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// First byte in the file.
    pub(super) position: u64,
    /// The batch's offset.
    pub(super) offset: Offset,
}

impl Place {
    /// Where the batch behind this one begins.
    pub(super) fn behind(self, header: &BatchHeader) -> Place {
        Place {
            position: self.position + u64::from(header.length),
            offset: self.offset + u64::from(header.offsets()),
        }
    }
}

/// A batch that is not as it should be.
#[derive(Debug)]
pub(super) struct Bad {
    pub(super) damage: Damage,
    /// What its header says, where it says something.
    header: Option<BatchHeader>,
}

/// What is wrong with the epoch of a batch, if anything is: it is not under the checksum.
pub(super) type EpochCheck<'a> = &'a dyn Fn(&BatchHeader) -> Option<Damage>;

/// The batches of a file from some place on.
pub(super) struct Run<'a> {
    file: &'a dyn File,
    /// Bytes of the file that are batches.
    len: u64,
    window: Window<'a>,
}

impl<'a> Run<'a> {
    pub(super) fn new(file: &'a dyn File, len: u64) -> Run<'a> {
        Run { file, len, window: Window::new(file, len, READ_AHEAD) }
    }

    /// Verifies the batch at `place`: its header, offset, epoch and checksum.
    pub(super) fn check(&mut self, place: Place, epoch: EpochCheck<'_>) -> Result<BatchHeader, Bad> {
        let mut header = None;
        let mut note = |seen: &BatchHeader| {
            header = Some(*seen);
            true
        };
        let mut checked = recovery::check_batch(&mut self.window, place.position, &mut note);
        if checked.is_err() {
            // What cannot be read may be what was read ahead.
            let mut alone = Window::new(self.file, self.len, HEADER_LEN);
            checked = recovery::check_batch(&mut alone, place.position, &mut note);
        }
        let damage = match checked {
            Err(error) => Damage::Unreadable { problem: error.to_string() },
            Ok(Err(problem)) => problem.into(),
            Ok(Ok(found)) if found.base_offset != place.offset => {
                Damage::Gap { expected: place.offset, found: found.base_offset }
            }
            Ok(Ok(found)) => match epoch(&found) {
                Some(damage) => damage,
                None => return Ok(found),
            },
        };
        Err(Bad { damage, header })
    }

    /// Where the log goes on behind a bad batch, as far as its length can be believed: a whole batch stands there, or the
    /// file ends. `end` is the offset where it does, if that is known.
    pub(super) fn behind(
        &mut self,
        place: Place,
        bad: &Bad,
        end: Option<Offset>,
        epoch: EpochCheck<'_>,
    ) -> Option<Place> {
        let told = bad.header.map(|header| place.behind(&header));
        let position = match told {
            Some(next) => next.position,
            None => {
                let head = self.window.get(place.position, HEADER_LEN).ok()?;
                place.position + u64::from(inspect::claimed_length(head)?)
            }
        };
        if position == self.len {
            // How far the last batch reaches nobody tells but its own header.
            return end.map(|offset| Place { position, offset });
        }
        let head = BatchHeader::decode(self.window.get(position, HEADER_LEN).ok()?).ok()?;
        // How far it reaches may be what is wrong in it: then the next one says where it begins.
        let offsets = [told.map(|next| next.offset), Some(head.base_offset)];
        let behind = |offset: &Offset| *offset > place.offset && end.is_none_or(|end| *offset < end);
        let mut places =
            offsets.into_iter().flatten().filter(behind).map(|offset| Place { position, offset });
        places.find(|next| self.check(*next, epoch).is_ok())
    }
}
