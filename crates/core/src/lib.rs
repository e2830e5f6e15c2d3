//! The rules of Holdfast, without I/O: no async, no clock, no disk, no socket.
//!
//! Everything here is a value that is fed with events and drained of actions. The broker, the controller, the
//! simulator and the model checker run this same code; what differs is who performs the actions.
//!
//! ```text
//! record_batch   the unit of append and checksum, as it stands on disk and on every wire
//! replication    one partition's replica: promise, recovery, append, commit
//! retention      what of a partition is kept no longer
//! compaction     how topics with keys are compacted, and whose turn it is
//! metadata       topics, brokers, partition registers: what the controller quorum agrees on
//! error_code     the stable codes that clients branch on
//! mutants        rules left out on purpose; only with the feature of that name
//! ```
//!
//! Invariant: nothing in this crate reads a clock, draws a random number or iterates in an order that differs
//! between two runs (see `clippy.toml` beside this crate).

pub mod compaction;
pub mod epoch;
pub mod error_code;
pub mod ids;
pub mod metadata;
pub mod mutants;
pub mod offset;
pub mod record_batch;
pub mod replication;
pub mod retention;
pub mod time;

pub use epoch::{LeaderEpoch, Term};
pub use error_code::ErrorCode;
pub use ids::{
    BrokerId, ControllerId, DirId, Incarnation, PartitionId, ProducerId, ReplicaId, TopicId, ZoneId,
};
pub use offset::Offset;
pub use time::Timestamp;
