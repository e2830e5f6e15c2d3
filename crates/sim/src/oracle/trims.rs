//! What may go from the front of a log, and where one may begin anew (REP-9, REP-5).
//!
//! The oracle forgets nothing: what was trimmed stays in its view of a log, and a log that begins anew at the start of another
//! counts as one that had replicated all below, as it does for the rules.

use holdfast_core::Offset;
use holdfast_core::replication::Position;

use super::view::Written;
use super::{Oracle, Site, Violation, ensure};
use crate::coverage::Sight;

impl Oracle {
    /// The log is about to start at `start`.
    pub(crate) fn trimming(&mut self, node: usize, start: Position) -> Result<(), Violation> {
        let (name, view) = (self.name(node), &self.views[node]);
        let (end, before) = (start.end, view.start);
        ensure(end >= before, "REP-9", || format!("{name} trims at {end}, and its log started at {before}"))?;
        let committed = self.committed_at(start);
        let committed = committed.is_some_and(|last| view.holds(last, self.committed[last].chain));
        // Who has not heard yet that it was given up may go on.
        ensure(committed || view.doubtful, "REP-9", || {
            format!("{name} trims at {end} in {}, which is not committed", start.epoch)
        })?;
        self.views[node].start = end;
        self.coverage.see(Sight::Trimmed);
        Ok(())
    }

    /// An empty log that starts at `start` is about to take the place of this one. Below the watermark only where that was
    /// given up (R37), or where it counts for nothing any more (R45): no member has to, as long as nothing was given up.
    pub(crate) fn resetting(
        &mut self,
        node: usize,
        start: Position,
        site: Site<'_>,
    ) -> Result<(), Violation> {
        let (name, view) = (self.name(node), &self.views[node]);
        let (end, watermark) = (start.end, view.watermark);
        let state = site.disk.state();
        let assignment = state.and_then(|state| state.assignment.as_ref());
        let unclean_term = assignment.and_then(|assignment| assignment.unclean_term);
        let given_up = unclean_term.is_some_and(|term| view.last_epoch().term <= term);
        let votes = state.is_none_or(|state| !state.nonvoter);
        ensure(given_up || end >= watermark || !votes, "REP-5", || {
            format!("{name} begins anew at {end}, below its high watermark {watermark}")
        })?;
        let forgets = end < watermark && unclean_term.is_none();
        let member = assignment.is_some_and(|assignment| assignment.names(site.id));
        ensure(!(forgets && member && view.voter == Some(true)), "REP-10", || {
            format!(
                "{name} is a member and gives up a log with high watermark {watermark}, for a tombstone that is gone"
            )
        })?;
        let below = self.log_below(start).ok_or_else(|| Violation {
            id: "REP-9",
            detail: format!("{name} begins anew at {end} in {}, which is not committed", start.epoch),
        })?;
        let view = &mut self.views[node];
        (view.log, view.start, view.watermark) = (below, end, end);
        view.missing.clear();
        self.coverage.see(Sight::BegunAnew);
        Ok(())
    }

    /// What is in a log that ends there, if that is committed.
    fn log_below(&self, end: Position) -> Option<Vec<Written>> {
        if end.end == Offset::ZERO {
            return Some(Vec::new());
        }
        if let Some(last) = self.committed_at(end) {
            return Some(self.written_up_to(last));
        }
        // It was, before an unclean term; a leader of later has it all the same.
        let lost = self.coverage.of(Sight::UncleanLoss) > 0;
        let views = self.views.iter().filter(|view| lost && view.active.is_some());
        let mut logs = views.map(|view| &view.log[..view.count(end.end)]);
        let same = |log: &&[Written]| log.last().is_some_and(|last| last.next == end.end);
        logs.find(same).map(<[Written]>::to_vec)
    }
}
