//! All targets, by where their bytes come from.

mod batches;
mod controller;
mod files;
mod history;
mod wire;

use crate::target::Target;

pub(crate) fn all() -> Vec<Target> {
    [batches::targets(), files::targets(), controller::targets(), wire::targets(), history::targets()]
        .into_iter()
        .flatten()
        .collect()
}
