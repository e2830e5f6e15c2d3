//! What may be tried again, when, and how often. Reads nothing of an error but its code and the server's own advice.
//!
//! The budget keeps retries from multiplying an overload: it limits how *fast* the same request goes to the same
//! broker again, to one per [`MAX_DELAY`] once it is used up. It never takes a retry away from an idempotent batch,
//! and a batch that goes to a new leader is no retry in its sense: the failover that everybody waits for is free.
//!
//! What fails for want of a leader, of a majority, of room on a disk or of a process that listens says nothing of load. It costs no token
//! and is tried again every [`OUTAGE_DELAY`] at the latest, so that the end of an outage is noticed soon, however long it
//! took.

use std::sync::Mutex;
use std::time::Duration;

use holdfast_core::ErrorCode;
use holdfast_proto::{ApiError, never_sent};
use tokio::time::Instant;
use tonic::Status;

use crate::sync::lock;

/// Upper end of every random delay, and the pace of retries beyond the budget.
pub const MAX_DELAY: Duration = Duration::from_secs(1);
/// The same in an outage, where the broker is not the one to be spared.
pub const OUTAGE_DELAY: Duration = Duration::from_millis(300);
/// Between two attempts to connect to one broker where many partitions wait for it: they are made one by one.
const DIAL_PACE: Duration = Duration::from_millis(2);
/// Upper end of the first delay.
const BASE_DELAY: Duration = Duration::from_millis(50);
/// A server's advice is followed up to here.
const MAX_ADVICE: Duration = Duration::from_secs(10);

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was said of it.
    pub error: ApiError,
    /// Whether anything of it may have left this process.
    pub reached: bool,
}

impl Failure {
    /// A failure of something that may have left this process.
    pub fn reached(error: ApiError) -> Failure {
        Failure { error, reached: true }
    }

    /// Whether the broker may have too much to do.
    fn tells_of_load(&self) -> bool {
        let outage = matches!(
            self.error.code,
            ErrorCode::NotLeader
                | ErrorCode::LeaderUnavailable
                | ErrorCode::LeaderLost
                | ErrorCode::NotEnoughReplicas
                | ErrorCode::NotEnoughReplicasAfterAppend
                | ErrorCode::DiskFull
                | ErrorCode::ControllerUnavailable
        );
        self.reached && !outage
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        Failure { error: ApiError::from_status(&status), reached: !never_sent(&status) }
    }
}

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
        self.next_within(MAX_DELAY, advice)
    }

    fn next_within(&mut self, longest: Duration, advice: Option<Duration>) -> Duration {
        let bound = BASE_DELAY.saturating_mul(1 << self.attempts.min(10)).min(longest);
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
    /// The next attempt to connect after those that are planned.
    dial: Mutex<Option<Instant>>,
}

impl RetryBudget {
    const MAX_TENTHS: u32 = 100;

    /// Notes a success.
    pub fn succeeded(&self) {
        let mut tenths = lock(&self.tenths);
        *tenths = (*tenths + 1).min(Self::MAX_TENTHS);
    }

    /// Takes a token; `false` where there is none and the retry has to wait for [`MAX_DELAY`] instead.
    fn take(&self) -> bool {
        let mut tenths = lock(&self.tenths);
        let left = tenths.checked_sub(10);
        *tenths = left.unwrap_or(*tenths);
        left.is_some()
    }

    /// Whether something else may go to the broker at once; takes a token where it failed under load.
    pub fn charge(&self, failure: &Failure) -> bool {
        !failure.tells_of_load() || self.take()
    }

    /// The delay before the same is sent to the broker again.
    pub fn delay(&self, backoff: &mut Backoff, failure: &Failure) -> Duration {
        let advice = failure.error.retry_after;
        if failure.tells_of_load() {
            let delay = backoff.next_delay(advice);
            return if self.take() { delay } else { delay.max(MAX_DELAY) };
        }
        let delay = backoff.next_within(OUTAGE_DELAY, advice);
        if failure.reached { delay } else { delay.max(self.dial_delay()) }
    }

    /// A port that refuses costs little, but not with a thousand partitions waiting behind it.
    fn dial_delay(&self) -> Duration {
        let now = Instant::now();
        let mut dial = lock(&self.dial);
        let at = dial.map_or(now, |at| at.max(now)).min(now + MAX_DELAY);
        *dial = Some(at + DIAL_PACE);
        at - now
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        RetryBudget { tenths: Mutex::new(Self::MAX_TENTHS), dial: Mutex::default() }
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

    fn failed(code: ErrorCode) -> Failure {
        Failure::reached(ApiError::new(code, "as scripted"))
    }

    #[test]
    fn a_spent_budget_slows_down_and_never_refuses() {
        let budget = RetryBudget::default();
        let mut backoff = Backoff::default();
        let overloaded = failed(ErrorCode::Overloaded);
        for _ in 0..10 {
            assert!(budget.delay(&mut backoff, &overloaded) <= MAX_DELAY);
        }
        assert!(!budget.charge(&overloaded));
        assert_eq!(budget.delay(&mut backoff, &overloaded), MAX_DELAY);
        for _ in 0..10 {
            budget.succeeded();
        }
        assert!(budget.charge(&overloaded));
        assert!(!budget.charge(&overloaded));
    }

    /// However long an outage takes: it uses nothing up, and its end is noticed within the same short time.
    #[tokio::test(start_paused = true)]
    async fn an_outage_costs_no_token_and_no_growing_delay() {
        let refused =
            Failure { error: ApiError::new(ErrorCode::Unavailable, "connection refused"), reached: false };
        let outages = [
            refused,
            failed(ErrorCode::NotLeader),
            failed(ErrorCode::LeaderUnavailable),
            failed(ErrorCode::LeaderLost),
            failed(ErrorCode::NotEnoughReplicas),
            failed(ErrorCode::NotEnoughReplicasAfterAppend),
            failed(ErrorCode::DiskFull),
        ];
        for failure in outages {
            let (budget, mut backoff) = (RetryBudget::default(), Backoff::default());
            for _ in 0..100 {
                let delay = budget.delay(&mut backoff, &failure);
                assert!(delay <= OUTAGE_DELAY, "{failure:?}: {delay:?}");
                assert!(budget.charge(&failure), "{failure:?}: another broker is asked at once");
                tokio::time::advance(delay).await;
            }
            for _ in 0..10 {
                assert!(budget.take(), "{failure:?} took a token");
            }
        }
        // One that took the request and went away may have had too much of it.
        assert!(failed(ErrorCode::Unavailable).tells_of_load());
    }

    #[tokio::test(start_paused = true)]
    async fn many_that_wait_for_one_port_knock_one_by_one() {
        let refused = Failure { error: ApiError::new(ErrorCode::Unavailable, "refused"), reached: false };
        let budget = RetryBudget::default();
        let delays = (0..10_000).map(|_| budget.delay(&mut Backoff::default(), &refused));
        let mut delays: Vec<Duration> = delays.collect();
        delays.sort();
        assert!(delays[99] <= OUTAGE_DELAY, "a hundred are as quick as one: {:?}", delays[99]);
        assert!(delays[400] >= 300 * DIAL_PACE, "{:?}", delays[400]);
        assert_eq!(delays[9_999], MAX_DELAY);
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
