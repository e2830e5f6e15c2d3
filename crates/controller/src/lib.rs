//! Holdfast's control plane: what topics, brokers and leaders there are. Never on the path of a record.
//!
//! ```text
//!  brokers ── Heartbeat ──► liveness, reports ── verdicts ──► supervisor ── Command ──► raft ──► store
//!          ── CreateTopic ... ─────────────────────────────────────────────────────────►  │
//!          ◄───────────────────────── WatchMetadata ◄── Update ◄── serving ◄──────────────┘
//!
//!  server      wiring, start, shutdown          service/    one file per rpc
//!  raft/       the quorum; alone names openraft  store/      the applied state; `table` alone names sled
//!  knock       tells killed brokers from broken connections by their ports
//!  upkeep      substitutes for lost replicas, leaders home    handover    leaders of brokers that stop
//!  ledger/     what befell the cluster, and when: observes and decides nothing
//!  losses      brokers that this controller has lost, for the other controllers
//!  folder      whose the data folder is          config      the section of the configuration
//! ```
//!
//! Invariants:  vote and log are on disk before anybody hears of them (`raft::log_store`);
//!              the applied state in sled may be lost at any time, log and snapshot rebuild it;
//!              what is volatile (heartbeats, reports) only leads to proposals, never to decisions.

mod config;
#[doc(hidden)]
pub mod decoders;
mod folder;
mod handover;
mod knock;
mod ledger;
mod liveness;
mod losses;
mod raft;
mod reports;
mod server;
mod service;
mod shared;
mod store;
mod supervisor;
mod upkeep;

pub use config::{ConfigError, ControllerConfig, VoterConfig};
pub use folder::FolderError;
pub use raft::{LogStoreError, QuorumError};
pub use server::{Controller, ControllerError};
