//! What a fetch loop does after a failed request.

use holdfast_core::{ErrorCode, Offset};
use holdfast_proto::ApiError;
use tokio::time::{Instant, sleep_until};

use super::ConsumeError;
use super::fetch::{Fetcher, Route};
use crate::WhenTrimmed;
use crate::retry::{Failure, MAX_DELAY, Verdict, judge};
use crate::routing::{hinted, leader_of};

impl Fetcher {
    /// Decides what follows a failed request, and waits where that helps.
    pub(super) async fn recover(&mut self, route: Route, failure: Failure) -> Result<(), ConsumeError> {
        let error = &failure.error;
        if route.follower {
            tracing::debug!(partition = %self.id, endpoint = %route.target.endpoint, %error, "follower left");
            self.bar_follower();
            return Ok(());
        }
        if error.code == ErrorCode::OffsetOutOfRange {
            if self.skips_trimmed(error) {
                return Ok(());
            }
            self.judge_range(error)?;
        } else if judge(error.code) == Verdict::Refused {
            return Err(self.refused(failure.error));
        }
        let hint = hinted(&self.map.borrow().clone(), self.id, &route.target, error);
        let delay = match self.client.router().node(&route.target.endpoint) {
            Ok(node) => node.budget.delay(&mut self.backoff, &failure),
            Err(_) => MAX_DELAY,
        };
        self.client.metadata().doubt();
        // Two brokers that point at each other are followed a few times only.
        if hint.is_some() && self.backoff.attempts() <= 3 {
            self.hint = hint;
            return Ok(());
        }
        self.failed = Some(route.target);
        self.wait_for_other_leader(Instant::now() + delay).await;
        Ok(())
    }

    /// Waits until `deadline`, or until the map names another leader than the one that failed.
    async fn wait_for_other_leader(&mut self, deadline: Instant) {
        loop {
            let map = self.map.borrow_and_update().clone();
            if leader_of(&map, self.id).is_some_and(|leader| Some(&leader) != self.failed.as_ref()) {
                return;
            }
            tokio::select! {
                () = sleep_until(deadline) => return,
                changed = self.map.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Goes on where the log starts, if it lies above the position and that is what is wanted.
    fn skips_trimmed(&mut self, error: &ApiError) -> bool {
        let start = error.detail("log_start_offset").and_then(|text| text.parse().ok()).map(Offset);
        let Some(start) = start.filter(|start| *start > self.position) else { return false };
        // The start rose between the look at it and the first request: nothing is left out.
        let begins = self.beginning == Some(self.position);
        if begins {
            self.beginning = Some(start);
        } else if self.config.when_trimmed == WhenTrimmed::Skip {
            let (partition, position) = (self.id, self.position);
            tracing::warn!(%partition, %position, %start, "records are gone before they were read: going on where the log starts");
        } else {
            return false;
        }
        self.position = start;
        true
    }

    /// Records below the log's start are gone. A position above the high watermark is a leader's that does not know
    /// yet how far its predecessor had committed, unless it stays so.
    fn judge_range(&mut self, error: &ApiError) -> Result<(), ConsumeError> {
        let offset = |name| error.detail(name).and_then(|text| text.parse().ok()).map(Offset);
        let (log_start_offset, high_watermark) = (offset("log_start_offset"), offset("high_watermark"));
        let ahead = high_watermark.is_some_and(|high_watermark| self.position > high_watermark);
        let since = self.ahead_since.get_or_insert_with(Instant::now);
        if ahead && since.elapsed() < self.config.request_timeout {
            return Ok(());
        }
        let (partition, position) = (self.id.index, self.position);
        Err(ConsumeError::OutOfRange { partition, position, log_start_offset, high_watermark })
    }
}
