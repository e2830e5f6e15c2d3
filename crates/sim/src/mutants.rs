//! The proofs put to the proof: rules are left out one at a time, and one of the proofs has to notice.
//!
//! ```text
//!  roll call (this process) ──► a process per case, with its mutants planted ──► hunt: directed schedules,
//!        │                                                                       then seeds and models in turn
//!        └── a table: who was caught by what; a mutant that lives is a failure
//! ```
//! A process per case, because a broken rule may also take the process along, or keep it busy for ever. The sound build
//! goes through the same hunt, and nothing may be caught there. Only with the feature `mutants`.

mod case;
mod hunt;
mod roll_call;

pub use case::{Case, Expected, cases, quick_cases};
pub use hunt::{Catch, Hunt, Notice, hunt};
pub use roll_call::{RollCall, roll_call};
