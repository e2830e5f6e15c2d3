//! Reads one partition: from the replica in the own zone where that keeps up, from the leader otherwise, and from the
//! next leader as soon as the map or a refusal names it.
//!
//! The position moves only when a batch was handed over, so that a failover neither skips nor repeats a record.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_core::metadata::ClusterMap;
use holdfast_core::{ErrorCode, Offset, PartitionId};
use holdfast_proto::{ApiError, v1};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::decode::{DecodeError, decode, split};
use super::{ConsumeError, FetchedBatch};
use crate::admin::timed;
use crate::retry::{Backoff, Failure};
use crate::routing::{DOUBT_AFTER, Target, leader_of, replica_in};
use crate::{Client, ConsumerConfig};

/// How long a replica that lags or fails is passed over.
const FOLLOWER_PENALTY: Duration = Duration::from_secs(30);
/// After so many empty answers of a follower the leader is asked whether there is really nothing.
const EMPTY_ANSWERS: u32 = 4;

/// A batch on its way to the application, with the room that it takes.
pub(super) struct Item {
    pub(super) batch: FetchedBatch,
    pub(super) _room: OwnedSemaphorePermit,
}

pub(super) type Output = mpsc::Sender<Result<Item, ConsumeError>>;

pub(super) struct Fetcher {
    pub(super) client: Client,
    pub(super) config: ConsumerConfig,
    topic: String,
    pub(super) id: PartitionId,
    topic_id: Bytes,
    pub(super) map: watch::Receiver<Arc<ClusterMap>>,
    /// The next offset to hand over.
    pub(super) position: Offset,
    /// Where it begins, if that is the first record kept, wherever that is by then.
    pub(super) beginning: Option<Offset>,
    /// Stop before this one.
    end: Option<Offset>,
    output: Output,
    room: Arc<Semaphore>,
    pub(super) backoff: Backoff,
    /// Where the last attempt failed.
    pub(super) failed: Option<Target>,
    /// A leader that a refusal named.
    pub(super) hint: Option<Target>,
    follower_barred: Option<Instant>,
    empty_answers: u32,
    /// Since when the position is above every high watermark answered.
    pub(super) ahead_since: Option<Instant>,
    /// The highest high watermark answered: another replica may know less of what stays committed all the same.
    high_watermark: Offset,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) target: Target,
    pub(super) follower: bool,
}

/// What one request came to.
enum Fetched {
    Answer(v1::FetchResponse),
    /// The route changed while waiting.
    Moved,
}

impl Fetcher {
    #[expect(clippy::too_many_arguments, reason = "called in one place, each of another type")]
    pub(super) fn new(
        client: Client,
        config: ConsumerConfig,
        topic: String,
        id: PartitionId,
        position: Offset,
        end: Option<Offset>,
        output: Output,
        room: Arc<Semaphore>,
    ) -> Fetcher {
        Fetcher {
            map: client.watch_map(),
            topic_id: Bytes::copy_from_slice(&id.topic.to_bytes()),
            client,
            config,
            topic,
            id,
            position,
            beginning: None,
            end,
            output,
            room,
            backoff: Backoff::default(),
            failed: None,
            hint: None,
            follower_barred: None,
            empty_answers: 0,
            ahead_since: None,
            high_watermark: Offset::ZERO,
        }
    }

    /// Runs until the end is reached, the consumer is gone, or an error that no retry helps against was handed over.
    pub(super) async fn run(mut self) {
        if let Err(error) = self.follow().await {
            // The consumer may be gone.
            let _ = self.output.send(Err(error)).await;
        }
    }

    async fn follow(&mut self) -> Result<(), ConsumeError> {
        while self.end.is_none_or(|end| self.position < end) {
            let Some(route) = self.next_route()? else {
                // Nobody leads at the moment: the map will say who does.
                if self.map.changed().await.is_err() {
                    return Ok(());
                }
                continue;
            };
            match self.fetch(&route).await {
                Ok(Fetched::Moved) => {}
                Ok(Fetched::Answer(answer)) => {
                    if !self.accept(&route, answer).await? {
                        return Ok(());
                    }
                }
                Err(failure) => self.recover(route, failure).await?,
            }
        }
        Ok(())
    }

    /// The route of the next request; none while nobody leads.
    fn next_route(&mut self) -> Result<Option<Route>, ConsumeError> {
        let map = self.map.borrow_and_update().clone();
        if map.topic(self.id.topic).is_none_or(|topic| topic.deleted) {
            let message = format!("topic {:?} was deleted", self.topic);
            return Err(self.refused(ApiError::new(ErrorCode::UnknownTopic, message)));
        }
        if let Some(target) = self.hint.take() {
            return Ok(Some(Route { target, follower: false }));
        }
        Ok(self.route(&map))
    }

    fn route(&self, map: &ClusterMap) -> Option<Route> {
        let leader = leader_of(map, self.id);
        let barred = self.follower_barred.is_some_and(|until| until > Instant::now());
        let near = self.client.router().zone().filter(|_| self.config.allow_follower && !barred);
        let near = near.and_then(|zone| replica_in(map, self.id, zone));
        let near = near.filter(|near| Some(near) != leader.as_ref() && self.empty_answers < EMPTY_ANSWERS);
        match near {
            Some(target) => Some(Route { target, follower: true }),
            None => leader.map(|target| Route { target, follower: false }),
        }
    }

    /// One long poll. Given up when the map moves the partition.
    async fn fetch(&mut self, route: &Route) -> Result<Fetched, Failure> {
        let node = self.client.router().node(&route.target.endpoint).map_err(Failure::reached)?;
        // The leader is only asked in passing whether a follower has missed something.
        let max_wait =
            if self.empty_answers >= EMPTY_ANSWERS { Duration::ZERO } else { self.config.max_wait };
        let limit = max_wait + self.config.request_timeout;
        let request = v1::FetchRequest {
            topic: self.topic.clone(),
            topic_id: self.topic_id.clone(),
            partition: self.id.index,
            routing: v1::Routing::Redirect.into(),
            allow_follower: route.follower,
            offset: self.position.0,
            max_bytes: self.config.max_bytes,
            max_wait_ms: u32::try_from(max_wait.as_millis()).unwrap_or(u32::MAX),
            format: v1::RecordFormat::Batches.into(),
        };
        let mut service = node.fetch();
        let fetch = timeout(limit, service.fetch(timed(request, limit)));
        tokio::pin!(fetch);
        let doubt_at = Instant::now() + max_wait + DOUBT_AFTER;
        let mut doubted = false;
        loop {
            tokio::select! {
                answer = &mut fetch => return match answer {
                    Ok(Ok(answer)) => {
                        node.budget.succeeded();
                        Ok(Fetched::Answer(answer.into_inner()))
                    }
                    Ok(Err(status)) => Err(status.into()),
                    Err(_) => {
                        let message = format!("{} did not answer within {limit:?}", node.endpoint);
                        Err(Failure::reached(ApiError::new(ErrorCode::DeadlineExceeded, message)))
                    }
                },
                () = sleep_until(doubt_at), if !doubted => {
                    doubted = true;
                    self.client.metadata().doubt();
                }
                changed = self.map.changed(), if self.map.has_changed().is_ok() => {
                    let map = self.map.borrow_and_update().clone();
                    let now = self.route(&map).map(|now| now.target);
                    let elsewhere = now.filter(|now| now.endpoint != route.target.endpoint);
                    let moved = |now: Target| route.follower || now.term > route.target.term;
                    if changed.is_ok() && elsewhere.is_some_and(moved) {
                        return Ok(Fetched::Moved);
                    }
                }
            }
        }
    }

    /// Hands over what an answer holds; `false` where the consumer is gone.
    async fn accept(&mut self, route: &Route, answer: v1::FetchResponse) -> Result<bool, ConsumeError> {
        self.failed = None;
        self.backoff.reset();
        self.ahead_since = None;
        self.high_watermark = self.high_watermark.max(Offset(answer.high_watermark));
        self.note_progress(route, answer.batches.is_empty());
        match self.hand_over(answer.batches).await {
            Ok(open) => Ok(open),
            Err(error) if route.follower => {
                tracing::warn!(partition = %self.id, endpoint = %route.target.endpoint, %error, "bad answer");
                self.bar_follower();
                Ok(true)
            }
            Err(source) => Err(ConsumeError::Decode { partition: self.id.index, source }),
        }
    }

    fn note_progress(&mut self, route: &Route, empty: bool) {
        match (route.follower, empty) {
            (true, true) => self.empty_answers += 1,
            // The leader has what the follower did not give.
            (false, false) if self.empty_answers >= EMPTY_ANSWERS => self.bar_follower(),
            _ => self.empty_answers = 0,
        }
    }

    pub(super) fn bar_follower(&mut self) {
        self.follower_barred = Some(Instant::now() + FOLLOWER_PENALTY);
        self.empty_answers = 0;
    }

    async fn hand_over(&mut self, batches: Bytes) -> Result<bool, DecodeError> {
        for (index, batch) in split(batches, self.position)?.iter().enumerate() {
            if self.end.is_some_and(|end| self.position >= end) {
                return Ok(true);
            }
            let decoded = decode(batch, self.position, self.end, index == 0, self.config.max_batch_size)?;
            let header = batch.header();
            let next_offset = self.end.map_or(header.next_offset(), |end| end.min(header.next_offset()));
            if !decoded.records.is_empty() {
                // Never more than there is in total: a batch larger than the prefetch passes alone.
                let charge = decoded.size.min(self.config.prefetch) as u32;
                let Ok(room) = self.room.clone().acquire_many_owned(charge).await else { return Ok(false) };
                let batch = FetchedBatch {
                    partition: self.id.index,
                    high_watermark: self.high_watermark,
                    epoch: header.epoch,
                    next_offset,
                    records: decoded.records,
                };
                if self.output.send(Ok(Item { batch, _room: room })).await.is_err() {
                    return Ok(false);
                }
            }
            self.position = next_offset;
        }
        Ok(true)
    }

    pub(super) fn refused(&self, source: ApiError) -> ConsumeError {
        ConsumeError::Refused { partition: self.id.index, source }
    }
}
