//! What an answer of the leader means for the batches on their way.

use std::sync::atomic::Ordering;

use holdfast_core::{ErrorCode, LeaderEpoch, Offset};
use holdfast_proto::{ApiError, v1};
use tokio::time::Instant;

use super::completion::Ack;
use super::sender::{Retry, Sender};
use super::stats::count;
use crate::error::SendError;
use crate::retry::{Failure, Verdict, judge_append};
use crate::routing::hinted;

/// Leaders named by refusals that are tried before the map has to name one: two brokers that point at each other must
/// not keep us busy.
const MAX_HINTS: u32 = 3;

impl Sender {
    pub(super) fn handle_answer(&mut self, answer: v1::AppendStreamResponse) {
        match answer.outcome {
            Some(v1::append_stream_response::Outcome::Acknowledged(ack)) => {
                self.handle_ack(answer.correlation, &ack);
            }
            Some(v1::append_stream_response::Outcome::Error(error)) => {
                self.handle_refusal(answer.correlation, ApiError::from_message(error));
            }
            None => {
                let error = ApiError::new(ErrorCode::Internal, "an answer without an outcome");
                self.handle_cut(Failure::reached(error));
            }
        }
        if self.window.give_up_refused() {
            self.link = None;
        }
    }

    fn handle_ack(&mut self, serial: u64, response: &v1::AppendResponse) {
        let Some(flight) = self.window.take(serial) else { return };
        let records = u64::from(flight.ticket.records());
        let fits = response.last_offset.checked_sub(response.base_offset) == Some(records - 1);
        let Some(epoch) = LeaderEpoch::from_wire(response.leader_epoch).filter(|_| fits) else {
            let error = ApiError::new(ErrorCode::Internal, "the acknowledgement does not fit the batch");
            return flight.ticket.lost(SendError::unknown(error));
        };
        if response.duplicate {
            count(&self.session.ledger.duplicates);
        }
        let ack = Ack { partition: self.id.index, offset: Offset(response.base_offset), epoch };
        flight.ticket.acked(ack, flight.batch.bytes().len());
        if let Some(link) = &self.link {
            link.node.budget.succeeded();
        }
        self.retry = Retry::default();
        self.out_of_order_since = None;
        self.last_error = None;
        self.lane.stalled.store(false, Ordering::Relaxed);
    }

    fn handle_refusal(&mut self, serial: u64, error: ApiError) {
        let Some((flight, is_first)) = self.window.outstanding(serial) else { return };
        flight.outstanding = false;
        flight.unresolved |= error.code.is_indefinite();
        let verdict = judge_append(error.code);
        if verdict == Verdict::Refused {
            flight.refusal = Some(error);
            return;
        }
        // Answers come in any order: the first batch, by which a leader gets to know the producer, may have been refused.
        let unknown_yet = error.code == ErrorCode::UnknownProducer && !is_first;
        match verdict {
            Verdict::Fatal if unknown_yet => self.handle_cut(Failure::reached(error)),
            Verdict::Rewind if is_first && self.out_of_order_too_long() => self.end(error),
            Verdict::Rewind => self.handle_cut(Failure::reached(error)),
            Verdict::Fatal => self.end(error),
            Verdict::Retry | Verdict::RetryIfMapped | Verdict::Refused => self.redirect(error),
        }
    }

    /// Sends everything again, to the leader that the refusal names if it is another broker of the cluster.
    fn redirect(&mut self, error: ApiError) {
        let map = self.map.borrow().clone();
        let hint = self.link.as_ref().and_then(|link| hinted(&map, self.id, &link.target, &error));
        self.handle_cut(Failure::reached(error));
        if hint.is_some() && self.retry.hints < MAX_HINTS {
            self.retry.hints += 1;
            self.retry.hint = hint;
        }
    }

    /// A leader that does not know yet of its successor lacks what that one took: only a refusal that lasts is true.
    fn out_of_order_too_long(&mut self) -> bool {
        let since = self.out_of_order_since.get_or_insert_with(Instant::now);
        since.elapsed() >= self.session.config.request_timeout
    }
}
