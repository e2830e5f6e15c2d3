//! Follows the cluster's metadata on two streams, to brokers of two zones where there are two: a zone that goes dark
//! takes one of them along without a word, and the other says at once who leads now. A stream is replaced when it
//! ends, falls silent, lies or is doubted.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_core::ErrorCode;
use holdfast_core::metadata::ClusterMap;
use holdfast_proto::convert::metadata::update_from_wire;
use holdfast_proto::{ApiError, v1};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::Streaming;

use crate::retry::{Backoff, jitter};
use crate::routing::Router;
use crate::sync::lock;

/// A broker that does not send a map within this time is left for another.
const FIRST_UPDATE: Duration = Duration::from_secs(2);
/// The second stream opens this long after the first map: a client that does one thing and ends costs one stream.
pub(super) const STANDBY_AFTER: Duration = Duration::from_secs(1);
/// A doubted stream is replaced no more often than this, and half as often after each time that brought no newer map:
/// an incident, or a slow cluster, must not become a storm of snapshots.
const DOUBT_INTERVAL: Duration = Duration::from_secs(2);
/// Doublings of the interval, up to half a minute.
const DOUBT_DOUBLINGS: u32 = 4;
/// A doubt waits for up to this long whether an update settles it.
const DOUBT_JITTER: Duration = Duration::from_millis(300);

/// Why a stream was left.
enum Left {
    /// It failed or was refused.
    Failed(ApiError),
    /// It may be out of date.
    Doubted,
}

/// The two streams and what they bring.
pub(super) struct Follower {
    router: Arc<Router>,
    max_age: Duration,
    map: watch::Sender<Arc<ClusterMap>>,
    doubt: Arc<Notify>,
    last_error: Arc<Mutex<Option<(String, ApiError)>>>,
    /// The address that each stream goes to.
    seats: Mutex<[Option<String>; 2]>,
}

impl Follower {
    /// `max_age`: a stream that says nothing for this long is replaced.
    pub(super) fn new(
        router: Arc<Router>,
        max_age: Duration,
        map: watch::Sender<Arc<ClusterMap>>,
        doubt: Arc<Notify>,
        last_error: Arc<Mutex<Option<(String, ApiError)>>>,
    ) -> Follower {
        Follower { router, max_age, map, doubt, last_error, seats: Mutex::default() }
    }

    /// Runs for ever.
    pub(super) async fn run(self) {
        let standby = async {
            // An error would say that the map's sender is gone, which this value holds.
            let _ = self.map.subscribe().wait_for(|map| map.index() > 0).await;
            sleep(STANDBY_AFTER).await;
            self.keep(1).await;
        };
        tokio::join!(self.keep(0), standby);
    }

    /// Keeps one of the streams open.
    async fn keep(&self, seat: usize) {
        let mut backoff = Backoff::default();
        let mut failures = 0;
        let mut fruitless = 0;
        let mut doubt_from = Instant::now();
        loop {
            let mut maps = self.map.subscribe();
            let Some((endpoint, choices)) = self.choose(seat) else {
                // The other stream has the only address there is: a map may bring more.
                let _ = maps.changed().await;
                continue;
            };
            let before = self.map.borrow().index();
            let left = self.follow(&endpoint, doubt_from).await;
            // The next address is another one, as long as there is another one.
            self.router.demote(&endpoint);
            lock(&self.seats)[seat] = None;
            if self.map.borrow().index() > before {
                backoff.reset();
                (failures, fruitless) = (0, 0);
            } else if matches!(left, Left::Doubted) {
                fruitless = (fruitless + 1).min(DOUBT_DOUBLINGS);
            }
            if matches!(left, Left::Doubted) {
                doubt_from = Instant::now() + DOUBT_INTERVAL * (1 << fruitless);
            }
            let Left::Failed(error) = left else { continue };
            tracing::debug!(%endpoint, %error, "metadata stream ended");
            *lock(&self.last_error) = Some((endpoint, error));
            failures += 1;
            // One round over all addresses without a pause: a zone that died takes some of them along.
            if failures >= choices {
                sleep(backoff.next_delay(None)).await;
            }
        }
    }

    /// Takes the most promising address that the other stream does not have, and says how many there are.
    fn choose(&self, seat: usize) -> Option<(String, usize)> {
        let mut seats = lock(&self.seats);
        let order = self.router.order_apart_from(seats[1 - seat].as_deref());
        seats[seat] = order.first().cloned();
        Some((seats[seat].clone()?, order.len()))
    }

    /// Stays with one broker; doubts do not count before `doubt_from`.
    async fn follow(&self, endpoint: &str, doubt_from: Instant) -> Left {
        let mut stream = match timeout(FIRST_UPDATE, self.open(endpoint)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Left::Failed(error),
            Err(_) => return Left::Failed(silent(endpoint)),
        };
        let opened = Instant::now();
        let mut last_update = None;
        let mut doubt: Option<Doubt> = None;
        loop {
            let limit = last_update.map_or(opened + FIRST_UPDATE, |at: Instant| at + self.max_age);
            // News of the other stream settles a doubt as well.
            doubt = doubt.filter(|doubt| self.map.borrow().index() == doubt.index);
            let doubt_ends = doubt.as_ref().map_or(limit, |doubt| doubt.ends);
            tokio::select! {
                message = stream.message() => match message {
                    Ok(Some(update)) => match self.adopt(update) {
                        Ok(()) => last_update = Some(Instant::now()),
                        Err(error) => return Left::Failed(error),
                    },
                    Ok(None) => return Left::Failed(ended(endpoint)),
                    Err(status) => return Left::Failed(ApiError::from_status(&status)),
                },
                () = self.doubt.notified(), if doubt.is_none() => {
                    let ends = doubt_from.max(Instant::now()) + jitter(DOUBT_JITTER);
                    doubt = Some(Doubt { index: self.map.borrow().index(), ends });
                }
                () = sleep_until(limit.min(doubt_ends)) => {
                    if last_update.is_none() {
                        return Left::Failed(silent(endpoint));
                    }
                    let settled = doubt.as_ref().is_some_and(|doubt| self.map.borrow().index() > doubt.index);
                    if !settled {
                        return Left::Doubted;
                    }
                }
            }
        }
    }

    async fn open(&self, endpoint: &str) -> Result<Streaming<v1::MetadataUpdate>, ApiError> {
        let mut cluster = self.router.node(endpoint)?.cluster();
        let response = cluster.watch_metadata(v1::WatchMetadataRequest {}).await;
        response.map(tonic::Response::into_inner).map_err(|status| ApiError::from_status(&status))
    }

    /// Publishes the map after `update`, if it is newer: usually the other stream has brought it already.
    fn adopt(&self, update: v1::MetadataUpdate) -> Result<(), ApiError> {
        let refused = |error: &dyn std::fmt::Display| {
            tracing::warn!(%error, "metadata update refused");
            ApiError::new(ErrorCode::MetadataIncomplete, error.to_string())
        };
        let update = update_from_wire(update).map_err(|error| refused(&error))?;
        let current = self.map.borrow().clone();
        if update.index <= current.index() && current.index() > 0 {
            return Ok(());
        }
        let mut next = ClusterMap::clone(&current);
        if next.adopt(&update).map_err(|error| refused(&error))? {
            let next = Arc::new(next);
            // The other stream may have published since: never go back behind that.
            self.map.send_if_modified(|map| {
                let newer = next.index() > map.index();
                if newer {
                    self.router.learn(&next);
                    *map = next;
                }
                newer
            });
        }
        Ok(())
    }
}

/// Requests fail where the map sends them.
struct Doubt {
    /// Of the map that is doubted.
    index: u64,
    /// When the stream is given up for it.
    ends: Instant,
}

fn silent(endpoint: &str) -> ApiError {
    ApiError::new(ErrorCode::Unavailable, format!("{endpoint} sent no metadata map in time"))
}

fn ended(endpoint: &str) -> ApiError {
    ApiError::new(ErrorCode::Unavailable, format!("{endpoint} ended the metadata stream"))
}
