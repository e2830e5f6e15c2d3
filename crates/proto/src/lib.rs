//! The wire of Holdfast.
//!
//! ```text
//! v1, internal::v1   generated from proto/ (every field is commented there)
//! config             how durations are written in configuration files
//! compression        the codecs of record batches, bounded against bombs
//! convert            between generated messages and `holdfast_core`; refuses what does not make sense
//! status             `ApiError`: one error, as gRPC status and inside streams
//! transport          how a channel is opened and a listener serves: windows, keepalive, TLS
//! ```
//!
//! Invariant: nothing outside `status` maps error codes to gRPC codes or back.

pub mod compression;
pub mod config;
pub mod convert;
pub mod status;
pub mod transport;

/// The public interface, package `holdfast.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated; the comments are in proto/")]
pub mod v1 {
    tonic::include_proto!("holdfast.v1");
}

/// What Holdfast's own processes say to each other.
pub mod internal {
    /// Package `holdfast.internal.v1`.
    #[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated; the comments are in proto/")]
    pub mod v1 {
        tonic::include_proto!("holdfast.internal.v1");
    }
}

/// The encoded `FileDescriptorSet` of everything in `proto/`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub use status::{ApiError, never_sent};
