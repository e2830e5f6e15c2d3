//! What an injection cost, and a row of them.

pub(crate) mod gaps;
pub(crate) mod row;
