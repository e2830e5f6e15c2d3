//! Sends the batches of one partition to its leader, and again to the next leader, in order.
//!
//! A stream is dropped, and everything unacknowledged sent again from the first batch on, when it ends, when it stays
//! silent for the request timeout, when a batch is refused, and at once when the map names another leader. The next
//! stream is opened at once where it goes to another leader than the one that failed (by the map or by the refusal's
//! `leader_endpoint`), and else after a random delay that the broker's retry budget may lengthen but never turn into
//! giving up: only the delivery timeout does that.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use holdfast_core::metadata::ClusterMap;
use holdfast_core::record_batch::ProducerRef;
use holdfast_core::{ErrorCode, PartitionId};
use holdfast_proto::{ApiError, v1};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::lane::Lane;
use super::link::Link;
use super::session::Session;
use super::stats::count;
use super::window::{Flight, Window};
use crate::error::SendError;
use crate::retry::{Backoff, Failure, MAX_DELAY};
use crate::routing::{DOUBT_AFTER, Target, leader_of};

/// A stream without a batch on it is closed after this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) struct Sender {
    pub(super) session: Arc<Session>,
    pub(super) lane: Arc<Lane>,
    pub(super) id: PartitionId,
    topic_id: Bytes,
    pub(super) map: watch::Receiver<Arc<ClusterMap>>,
    pub(super) window: Window,
    pub(super) link: Option<Link>,
    /// A fresh producer id on its way.
    identity: Option<BoxFuture<'static, Result<ProducerRef, ApiError>>>,
    pub(super) retry: Retry,
    /// Since when the first batch is refused as out of order.
    pub(super) out_of_order_since: Option<Instant>,
    pub(super) last_error: Option<ApiError>,
    /// When silence last cast doubt on the map.
    doubted_at: Option<Instant>,
    ended: bool,
}

/// When and where to try again.
#[derive(Default)]
pub(super) struct Retry {
    backoff: Backoff,
    /// Not before then, as long as the leader is `failed`. Taken away once it has passed.
    at: Option<Instant>,
    failed: Option<Target>,
    /// A leader that a refusal named.
    pub(super) hint: Option<Target>,
    pub(super) hints: u32,
    /// The leader takes nothing until others are back, or its disk has room: it is asked with the first batch alone, since everything else
    /// would be sent in vain again and again.
    probes: bool,
}

enum Event {
    Answer(Result<v1::AppendStreamResponse, Failure>),
    Identity(Result<ProducerRef, ApiError>),
    /// Records, the map or time: look at everything again.
    Woken,
    Cancelled,
}

impl Sender {
    pub(super) fn new(session: Arc<Session>, lane: Arc<Lane>) -> Sender {
        let id = PartitionId { topic: session.topic_id, index: lane.partition };
        Sender {
            id,
            topic_id: Bytes::copy_from_slice(&session.topic_id.to_bytes()),
            map: session.client.watch_map(),
            window: Window::new(session.identity),
            link: None,
            identity: None,
            retry: Retry::default(),
            out_of_order_since: None,
            last_error: None,
            doubted_at: None,
            ended: false,
            session,
            lane,
        }
    }

    /// Runs until the producer is cancelled or the partition's session is over. Leaves no batch without an outcome.
    pub(super) async fn run(mut self) {
        while !self.ended {
            self.step(Instant::now());
            if self.ended {
                break;
            }
            match self.next_event().await {
                Event::Answer(Ok(answer)) => self.handle_answer(answer),
                Event::Answer(Err(failure)) => self.handle_cut(failure),
                Event::Identity(result) => self.handle_identity(result),
                Event::Woken => {}
                Event::Cancelled => {
                    let closed = ApiError::new(ErrorCode::Unavailable, "the producer was closed");
                    self.end(self.last_error.clone().unwrap_or(closed));
                }
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let deadline = self.next_deadline();
        let answer = async {
            match &mut self.link {
                Some(link) => link.next().await,
                None => std::future::pending().await,
            }
        };
        let identity = async {
            match &mut self.identity {
                Some(identity) => identity.await,
                None => std::future::pending().await,
            }
        };
        let timer = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            answer = answer => Event::Answer(answer),
            identity = identity => Event::Identity(identity),
            () = self.lane.wake.notified() => Event::Woken,
            changed = self.map.changed() => if changed.is_ok() { Event::Woken } else { Event::Cancelled },
            () = timer => Event::Woken,
            () = self.session.cancel.cancelled() => Event::Cancelled,
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let may_send = self.link.is_some() && self.may_number() && self.window.len() < self.limit();
        let idle = self.window.is_empty() && self.lane.is_empty();
        let deadlines = [
            self.lane.next_deadline(may_send),
            self.window.next_expiry(self.session.config.delivery_timeout),
            self.silence_deadline(),
            self.retry.at.filter(|_| self.link.is_none() && !idle),
            self.link.as_ref().filter(|_| idle).map(|link| link.last_answer + IDLE_TIMEOUT),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Since when an answer is due.
    fn silent_since(&self) -> Option<Instant> {
        let link = self.link.as_ref()?;
        let oldest = self.window.flights().find(|flight| flight.outstanding)?;
        Some(link.last_answer.max(oldest.sent_at))
    }

    /// When silence has consequences: first doubt, then the stream counts as cut.
    fn silence_deadline(&self) -> Option<Instant> {
        let since = self.silent_since()?;
        let doubted = self.doubted_at.is_some_and(|at| at >= since);
        Some(since + if doubted { self.session.config.request_timeout } else { self.doubt_after() })
    }

    fn doubt_after(&self) -> Duration {
        DOUBT_AFTER.min(self.session.config.request_timeout)
    }

    /// Acts on a leader that does not answer.
    fn judge_silence(&mut self, now: Instant) {
        let Some(silence) = self.silent_since().map(|since| now.saturating_duration_since(since)) else {
            return;
        };
        let limit = self.session.config.request_timeout;
        if silence >= limit {
            let error = ApiError::new(ErrorCode::DeadlineExceeded, format!("no answer for {limit:?}"));
            self.handle_cut(Failure::reached(error));
        } else if silence >= self.doubt_after() && self.silence_deadline().is_some_and(|at| at <= now) {
            self.doubted_at = Some(now);
            self.session.client.metadata().doubt();
        }
    }

    fn limit(&self) -> usize {
        if self.retry.probes { 1 } else { self.session.config.max_in_flight }
    }

    fn may_number(&self) -> bool {
        self.window.has_producer() && !self.window.has_refusal()
    }

    /// Does all that can be done now without waiting.
    fn step(&mut self, now: Instant) {
        let map = self.map.borrow_and_update().clone();
        if map.topic(self.id.topic).is_none_or(|topic| topic.deleted) {
            let message = format!("topic {:?} was deleted", self.session.topic);
            return self.end(ApiError::new(ErrorCode::UnknownTopic, message));
        }
        self.expire(now);
        self.judge_silence(now);
        if self.window.is_empty() && self.lane.is_empty() {
            self.lane.stalled.store(false, Ordering::Relaxed);
            if self.link.as_ref().is_some_and(|link| link.last_answer + IDLE_TIMEOUT <= now) {
                self.link = None;
            }
            return;
        }
        self.retry.at = self.retry.at.filter(|at| *at > now);
        self.settle_identity();
        if self.window.has_producer() {
            self.settle_link(&map);
        }
        self.transmit(now);
    }

    /// Reports what has run out of time.
    fn expire(&mut self, now: Instant) {
        let limit = self.session.config.delivery_timeout;
        let last_error = &self.last_error;
        for batch in self.lane.take_expired(now, false) {
            batch.ticket.lost(SendError::failed(out_of_time(limit, last_error.as_ref())));
        }
        let Some(horizon) = now.checked_sub(limit) else { return };
        if self.window.expire(horizon, || out_of_time(limit, last_error.as_ref())) {
            self.link = None;
        }
    }

    /// Asks for a producer id where the old one can no longer be used.
    fn settle_identity(&mut self) {
        if !self.window.has_producer() && self.identity.is_none() && self.retry.at.is_none() {
            let client = self.session.client.clone();
            self.identity = Some(Box::pin(async move { client.init_producer().await }));
        }
    }

    fn handle_identity(&mut self, result: Result<ProducerRef, ApiError>) {
        self.identity = None;
        let renumbered = result.and_then(|producer| {
            let failed = |error| ApiError::new(ErrorCode::Internal, format!("renumbering: {error}"));
            self.window.renumber(producer).map_err(failed)
        });
        if let Err(error) = renumbered {
            self.retry.at = Some(Instant::now() + self.retry.backoff.next_delay(error.retry_after));
            self.last_error = Some(error);
        }
    }

    /// Keeps the stream where the leader is.
    fn settle_link(&mut self, map: &ClusterMap) {
        let leader = leader_of(map, self.id);
        if let (Some(link), Some(leader)) = (&mut self.link, &leader)
            && link.target.is_over_with(leader)
        {
            if leader.endpoint == link.target.endpoint && leader.run == link.target.run {
                link.target.term = leader.term;
            } else {
                tracing::debug!(partition = %self.id, to = %leader.endpoint, "leader moved");
                self.link = None;
                self.window.cut(true);
            }
        }
        if self.link.is_some() {
            return;
        }
        if let Some(target) = self.next_target(leader) {
            self.open_link(target);
        } else {
            self.lane.stalled.store(true, Ordering::Relaxed);
        }
    }

    /// Where to open a stream now, if anywhere.
    fn next_target(&mut self, leader: Option<Target>) -> Option<Target> {
        if let Some(hint) = self.retry.hint.take() {
            return Some(hint);
        }
        let leader = leader?;
        if self.retry.failed.as_ref() == Some(&leader) {
            if self.retry.at.is_some() {
                return None;
            }
        } else if self.retry.failed.as_ref().is_some_and(|failed| failed.is_over_with(&leader)) {
            self.retry.hints = 0;
            self.retry.probes = false;
            self.retry.backoff.reset();
        }
        Some(leader)
    }

    fn open_link(&mut self, target: Target) {
        match self.session.client.router().node(&target.endpoint) {
            Ok(node) => {
                count(&self.session.ledger.streams);
                self.retry.at = None;
                // One more than the limit: a broker that answers before it has read must not make us drop the stream.
                self.link = Some(Link::open(node, target, self.session.config.max_in_flight + 1));
            }
            Err(error) => {
                let delay = self.retry.backoff.next_delay(error.retry_after).max(MAX_DELAY);
                self.retry_later(target, error, delay);
            }
        }
    }

    /// Sends again what the stream does not carry, then takes what is due.
    fn transmit(&mut self, now: Instant) {
        let Some(link) = &self.link else { return };
        if !self.window.has_producer() {
            return;
        }
        let mut sent = true;
        let room = self.limit().saturating_sub(self.window.outstanding_count());
        for flight in self.window.unsent().take(room) {
            if flight.attempts > 0 {
                count(&self.session.ledger.resends);
            }
            flight.outstanding = true;
            flight.attempts += 1;
            flight.sent_at = now;
            sent = sent && link.send(request(&self.session, &self.topic_id, self.id.index, flight));
        }
        while sent && self.window.len() < self.limit() && self.may_number() {
            let Some(open) = self.lane.take_due(now) else { return };
            if let Err(error) = self.window.push(open, self.session.config.compression) {
                tracing::error!(partition = %self.id, %error, "batch cannot be encoded");
                continue;
            }
            for flight in self.window.unsent() {
                flight.outstanding = true;
                flight.attempts += 1;
                flight.sent_at = now;
                sent = link.send(request(&self.session, &self.topic_id, self.id.index, flight));
            }
        }
        if !sent {
            let error = ApiError::new(ErrorCode::Unavailable, "the stream takes no more requests");
            self.handle_cut(Failure::reached(error));
        }
    }

    /// The stream is gone.
    pub(super) fn handle_cut(&mut self, failure: Failure) {
        let Some(link) = self.link.take() else { return };
        let error = &failure.error;
        tracing::debug!(partition = %self.id, endpoint = %link.target.endpoint, %error, "stream cut");
        self.window.cut(failure.reached);
        let delay = link.node.budget.delay(&mut self.retry.backoff, &failure);
        self.retry_later(link.target, failure.error, delay);
    }

    /// Notes a failure of `target`; nothing goes there before the delay has passed.
    fn retry_later(&mut self, target: Target, error: ApiError, delay: Duration) {
        self.retry.at = Some(Instant::now() + delay);
        self.retry.failed = Some(target);
        self.retry.probes = matches!(error.code, ErrorCode::NotEnoughReplicas | ErrorCode::DiskFull);
        self.last_error = Some(error);
        if !(self.window.is_empty() && self.lane.is_empty()) {
            self.lane.stalled.store(true, Ordering::Relaxed);
            self.session.client.metadata().doubt();
        }
    }

    /// Nothing more is taken or sent; everything gets its outcome.
    pub(super) fn end(&mut self, error: ApiError) {
        self.ended = true;
        self.link = None;
        self.lane.end(SendError::failed(error.clone()));
        self.window.abandon(&error);
        for batch in self.lane.take_expired(Instant::now(), true) {
            batch.ticket.lost(SendError::failed(error.clone()));
        }
    }
}

fn request(session: &Session, topic_id: &Bytes, partition: u32, flight: &Flight) -> v1::AppendStreamRequest {
    let timeout_ms = u32::try_from(session.config.request_timeout.as_millis()).unwrap_or(u32::MAX);
    v1::AppendStreamRequest {
        correlation: flight.serial,
        append: Some(v1::AppendRequest {
            topic: session.topic.clone(),
            topic_id: topic_id.clone(),
            partition,
            routing: v1::Routing::Redirect.into(),
            timeout_ms,
            records: Vec::new(),
            batch: flight.batch.bytes().clone(),
        }),
    }
}

fn out_of_time(limit: Duration, last_error: Option<&ApiError>) -> ApiError {
    let reason = last_error.map_or_else(|| "no leader took it".to_owned(), ToString::to_string);
    let message = format!("not acknowledged within the delivery timeout of {limit:?}; last: {reason}");
    ApiError::new(ErrorCode::DeadlineExceeded, message)
}
