//! The broker: stores partition replicas and serves them.
//!
//! ```text
//!  clients ──► service/{produce,fetch,topic,cluster} ──┐                       ┌──► flusher (fdatasync)
//!                                                      ├─► partition/shard ────┼──► state_store (promises)
//!  brokers ──► service/replicate ──────────────────────┘    one thread, many   ├──► peers (streams to brokers)
//!  controllers ──► metadata (map), heartbeat (liveness) ──► partitions' rules   └──► readers (by handle)
//! ```
//! The rules are `holdfast_core::replication`; this crate performs their actions and decides nothing. Control work
//! (heartbeats, metadata) and data work (produce, fetch, replication) run on separate tokio runtimes; files are written
//! on threads of their own.
//!
//! Invariants: a broker keeps no state about consumers. Every queue is bounded, by capacity or by the number of
//! partitions. What a killed process leaves behind is what the runtime's end leaves behind: nothing is flushed in a
//! destructor.

mod clock;
mod compaction;
mod config;
mod controllers;
mod data_dir;
mod disk_space;
mod fatal;
mod flusher;
mod handover;
mod heartbeat;
pub mod inspect;
mod metadata;
mod pace;
mod partition;
mod peers;
mod producer_ids;
mod repair;
mod reports;
mod server;
mod service;
mod state_store;

pub use config::{BrokerConfig, ControllerEndpoint, ReplicationConfig};
pub use data_dir::DataDirError;
pub use disk_space::{DiskReserve, ParseDiskReserveError};
pub use server::{Broker, BrokerError, Listeners};
