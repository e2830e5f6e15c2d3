//! Damage in a log that was whole: finding it, and writing what another replica still holds in its place.
//!
//! ```text
//! run      batches of one file, verified one behind the other, past what cannot be read
//! verify   of an open log: what is damaged, as offsets and as bytes; batches that are whole, for others
//! mend     of an open log: batches of a peer, proved to belong there, and written there
//! splice   where they are of another length: the segment written anew around them
//! closed   the same of a log that cannot be opened because of it
//! mark     what that found out, in the folder, for as long as nobody else knows it
//! ```
//! In place, because the same epoch and offset mean the same bytes (REP-3): what is written is what was there. So a crash in
//! the middle leaves damage that is repaired again, and an index or a checkpoint that was right stays right. Replicas that were
//! compacted hold the same batches with other records gone (R45): then the segment is replaced as compaction replaces them.
//! What a peer gives may hold what was cleaned here, so that nothing from there on counts as cleaned any more.
//!
//! Invariants:
//! - A batch is written only behind what is whole up to it, with the offset that comes next and an epoch that can be there,
//!   and never over the begin of a batch that is whole.
//! - What is rewritten is not cut meanwhile, and belongs to a log that has its owner.

mod closed;
pub(crate) mod mark;
mod mend;
mod run;
mod splice;
mod verify;

pub use closed::{DamagedLog, read_closed};
pub use mend::{MendError, Misfit};
pub use verify::{DamagedRange, Verified, WholeBatches};
