//! Three zones in one process, under load, losing one: what a newcomer runs first, and what CI runs too.
//!
//! ```text
//!  cluster   three controllers and three brokers on loopback, real listeners and files; kill and heal a zone
//!  load      a writer per partition at a fixed rate; every record numbered
//!  witness   the history of it all, judged by holdfast-checker     readers   who reads along, and who reads back
//!  gaps      when each partition acknowledged: the stall that a fault caused
//!  script    what happens when          report   what is printed at the end          screen   live figures and keys
//! ```

pub mod cluster;
pub(crate) mod gaps;
mod load;
mod readers;
pub(crate) mod report;
mod run;
mod screen;
mod script;
mod witness;

pub use report::Report;
pub use run::{DemoOptions, run};
pub use script::{Action, ParseScriptError, Script, Step};
