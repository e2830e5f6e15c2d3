//! Judges a history: what the clients of a cluster did and saw, whatever the cluster was.
//!
//! ```text
//!  Recorder ──► history (one JSON object a line) ──► Checker ──► Report: anomalies, recovery times, lag, verdict
//! ```
//! The rules are those of the Jepsen workload for logs, made stricter where our clients promise more. They know nothing
//! of how the cluster works: only what was sent, what was said of it, and what was read.

pub mod anomaly;
pub mod check;
mod faults;
mod figures;
mod file;
pub mod history;
mod lag;
mod render;
pub mod report;
pub mod rto;

pub use anomaly::{Example, Finding, Findings, Kind, Place};
pub use check::{Checker, Malformed, judge};
pub use faults::{Fault, Window};
pub use figures::Quantiles;
pub use file::{FileError, judge_file, locate_in_file};
pub use history::{Event, Key, Reader, Recorder, Writer};
pub use lag::{FaultLag, Lag};
pub use report::{Counts, Report, Verdict};
pub use rto::Rto;
