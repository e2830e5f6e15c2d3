//! What may be tried again, when, and how often. Reads nothing of an error but its code and the server's own advice.
//!
//! The budget keeps retries from multiplying an overload: it limits how *fast* the same request goes to the same
//! broker again, to one per [`MAX_DELAY`] once it is used up. It never takes a retry away from an idempotent batch,
//! and a batch that goes to a new leader is no retry in its sense: the failover that everybody waits for is free.

use std::sync::Mutex;
use std::time::Duration;

use holdfast_core::ErrorCode;
use holdfast_proto::ApiError;

use crate::sync::lock;

/// Upper end of every random delay, and the pace of retries beyond the budget.
pub const MAX_DELAY: Duration = Duration::from_secs(1);
/// Upper end of the first delay.
const BASE_DELAY: Duration = Duration::from_millis(50);
/// A server's advice is followed up to here.
const MAX_ADVICE: Duration = Duration::from_secs(10);

/// What the answer to a request means for its repetition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Another broker, or the same one later, may take it.
    Retry,
    /// Not before the client's map agrees: the broker may know less than the client, for example of a new topic.
    RetryIfMapped,
    /// An earlier batch is missing at the leader: send from the first unacknowledged on.
    Rewind,
    /// The producer's session in this partition is over.
    Fatal,
    /// The request as it is will never be taken.
    Refused,
}

/// Judges the answer to an idempotent append.
pub fn judge_append(code: ErrorCode) -> Verdict {
    match code {
        ErrorCode::OutOfOrderSequence => Verdict::Rewind,
        ErrorCode::UnknownProducer | ErrorCode::FencedProducer | ErrorCode::WrongCluster => Verdict::Fatal,
        other => judge(other),
    }
}

/// Judges the answer to a request that may be repeated without harm.
pub fn judge(code: ErrorCode) -> Verdict {
    match code {
        ErrorCode::UnknownTopic | ErrorCode::UnknownPartition => Verdict::RetryIfMapped,
        code if code.is_retriable() => Verdict::Retry,
        _ => Verdict::Refused,
    }
}

/// Delays with full jitter: random between 0 and a bound that doubles up to [`MAX_DELAY`].
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The next delay. Advice of the server, capped, is the least it will be.
    pub fn next_delay(&mut self, advice: Option<Duration>) -> Duration {
        let bound = BASE_DELAY.saturating_mul(1 << self.attempts.min(10)).min(MAX_DELAY);
        self.attempts = self.attempts.saturating_add(1);
        jitter(bound).max(advice.unwrap_or_default().min(MAX_ADVICE))
    }

    /// After a success the next delay is short again.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// Delays since the last success.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

/// A random duration from 0 to `bound`.
pub(crate) fn jitter(bound: Duration) -> Duration {
    bound.mul_f64(rand::random_range(0.0..=1.0))
}

/// A token bucket per broker: a retry takes a token, a success gives a tenth back.
#[derive(Debug)]
pub struct RetryBudget {
    /// In tenths of a token.
    tenths: Mutex<u32>,
}

impl RetryBudget {
    const MAX_TENTHS: u32 = 100;

    /// Notes a success.
    pub fn succeeded(&self) {
        let mut tenths = lock(&self.tenths);
        *tenths = (*tenths + 1).min(Self::MAX_TENTHS);
    }

    /// Takes a token; `false` where there is none and the retry has to wait for [`MAX_DELAY`] instead.
    pub fn take(&self) -> bool {
        let mut tenths = lock(&self.tenths);
        let left = tenths.checked_sub(10);
        *tenths = left.unwrap_or(*tenths);
        left.is_some()
    }

    /// The delay before a retry of what failed with `error`. A leadership on its way says nothing of load, and the
    /// partitions of a lost zone all come to the same few brokers: they cost no token.
    pub fn delay(&self, backoff: &mut Backoff, error: &ApiError) -> Duration {
        let delay = backoff.next_delay(error.retry_after);
        let moving = matches!(error.code, ErrorCode::NotLeader | ErrorCode::LeaderUnavailable);
        if moving || self.take() { delay } else { delay.max(MAX_DELAY) }
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        RetryBudget { tenths: Mutex::new(Self::MAX_TENTHS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_bounded_and_follow_advice() {
        let mut backoff = Backoff::default();
        assert!(backoff.next_delay(None) <= BASE_DELAY);
        for _ in 0..100 {
            assert!(backoff.next_delay(None) <= MAX_DELAY);
        }
        assert!(backoff.next_delay(Some(Duration::from_secs(3))) >= Duration::from_secs(3));
        assert!(backoff.next_delay(Some(Duration::from_secs(3000))) <= MAX_ADVICE);
    }

    #[test]
    fn a_spent_budget_slows_down_and_never_refuses() {
        let budget = RetryBudget::default();
        let mut backoff = Backoff::default();
        let error = ApiError::new(ErrorCode::Overloaded, "full");
        for _ in 0..10 {
            assert!(budget.delay(&mut backoff, &error) <= MAX_DELAY);
        }
        assert!(!budget.take());
        assert_eq!(budget.delay(&mut backoff, &error), MAX_DELAY);
        let moving = ApiError::new(ErrorCode::LeaderUnavailable, "being appointed");
        assert!(
            budget.delay(&mut Backoff::default(), &moving) <= BASE_DELAY,
            "a failover waits for no token"
        );
        for _ in 0..10 {
            budget.succeeded();
        }
        assert!(budget.take());
    }

    #[test]
    fn every_code_has_a_verdict_for_appends() {
        for code in ErrorCode::ALL {
            let verdict = judge_append(code);
            assert!(verdict != Verdict::Retry || code.is_retriable(), "{code}: {verdict:?}");
        }
        assert_eq!(judge_append(ErrorCode::UnknownProducer), Verdict::Fatal);
        assert_eq!(judge_append(ErrorCode::CorruptBatch), Verdict::Refused);
        assert_eq!(judge_append(ErrorCode::LeaderLost), Verdict::Retry);
    }
}
