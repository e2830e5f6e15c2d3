//! The bytes of Holdfast: partition logs and journals, synchronous, behind the [`Fs`] trait.
//!
//! ```text
//! partition_log   segments in order: append, roll, truncate_to, flush tickets, checkpoints
//! reader          reads while the log is appended to, on other threads
//! recovery        what is kept when a log is opened (rule R33), and what need not be looked at for that
//! replica         opening the log of a replica by what is stored of it
//! repair          finding damage in a log that was whole, and writing what a peer has in its place
//! inspect         looking at a log that nobody has open, past damage, without changing it
//! segment         one file of batches
//! index           which offset and which time is where in it: the newest entries in memory, the rest in a file
//! checkpoint      what is to be known of the log below an offset
//! compaction      of each key the last record: passes over the sealed segments, and what is noted of them
//! log_start       where the log starts once something was trimmed from its front
//! sealed_file     small files with a checksum in front, of which the three above are kinds
//! trim            removing what was trimmed, on another thread
//! journal         checksummed frames for small durable state
//! fs              real files, some of them kept open; files in memory that lose what was not synced at a crash
//! ```
//!
//! Not here: threads, clocks, async, retries, when to flush. Whoever drives a log decides that.
//!
//! Invariants:
//! - Nothing on disk is trusted: a bad byte is an error with its place, or a torn tail that is cut; never a panic.
//! - A failed write or flush is never retried: the log is poisoned, and what it holds is judged anew when opened.

mod byte_size;
mod checkpoint;
mod compaction;
mod config;
mod derived;
mod error;
mod flush;
pub mod fs;
mod index;
mod index_file;
pub mod inspect;
pub mod journal;
mod log_start;
mod noted;
mod partition_log;
mod reader;
mod recovery;
pub mod repair;
mod replica;
mod sealed_file;
mod segment;
mod shared;
mod trim;
mod window;

#[cfg(test)]
mod conformance;

pub use byte_size::{ByteSize, ParseByteSizeError};
pub use compaction::{Codec, CodecError, CompactionOutcome, CompactionPlan, PassEnd};
pub use config::LogConfig;
pub use derived::Derived;
pub use error::{Damage, LogError};
pub use flush::FlushTicket;
pub use fs::cached::CachedFs;
pub use fs::mem::MemFs;
pub use fs::real::RealFs;
pub use fs::{File, Fs, OpenMode, Space, Volume, atomic_write, create_dir_synced, is_full};
pub use journal::{Journal, JournalError, JournalFlusher};
pub use partition_log::PartitionLog;
pub use reader::LogReader;
pub use recovery::{Opened, Recovery};
pub use replica::{ReplicaLogError, checkpoint_replica, open_replica, reset_replica, trim_replica};
pub use trim::TrimTicket;
