//! One binary for all areas: clusters of three zones over real sockets and files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_disk;
mod bad_input;
mod black_hole;
mod broken_connections;
mod compaction;
mod control_plane;
mod failover;
mod ledger;
mod quorum_loss;
mod records;
mod repair;
mod retention;
mod shutdown;
mod tls;
mod upkeep;
