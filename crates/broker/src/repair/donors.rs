//! The other replicas of a partition, asked for batches that are damaged here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_core::metadata::{Broker, ClusterMap};
use holdfast_core::record_batch::RecordBatch;
use holdfast_core::replication::Assignment;
use holdfast_core::{Offset, PartitionId, ReplicaId};
use holdfast_log::repair::DamagedRange;
use holdfast_proto::internal::v1::repair_service_client::RepairServiceClient;
use holdfast_proto::internal::v1::{BatchesMissing, FetchBatchesRequest, FetchBatchesResponse};
use holdfast_proto::transport::{MAX_PEER_MESSAGE, Tls};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::service::Channels;

/// How long after the start a map from before it may be the newest that there is, and is not believed to be.
const MAP_PATIENCE: Duration = Duration::from_secs(10);
/// How long another broker may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Asked for at first: most damage is small.
const FIRST_BYTES: u32 = 64 << 10;
/// Asked for where damage is found next to damage.
const MOST_BYTES: u32 = 1 << 20;

/// Bytes of batches that are held, of one partition, where they are needed all at once.
const MOST_HELD: usize = 16 << 20;

/// Who may hold what is damaged here.
pub(super) struct Donors {
    cluster: String,
    me: ReplicaId,
    tls: Option<Tls>,
    /// Never marked as seen: a change is one of this run.
    map: watch::Receiver<Arc<ClusterMap>>,
    started: Instant,
    channels: Channels,
}

/// What one of them says.
#[derive(Debug)]
pub(super) enum Answer {
    /// Batches from the offset asked for on. Whether they belong there, the log judges.
    Batches(Vec<RecordBatch>),
    /// It does not hold them, and will not.
    Never(&'static str),
    /// It may hold them, or come to.
    Later(String),
}

/// What one repair asks for, more as it goes on. What was more than needed is used for the damage behind.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) partition: PartitionId,
    /// Tombstones below may be gone here: what is older must not come back.
    pub(super) gone: Offset,
    bytes: u32,
}

impl Request {
    pub(super) fn new(partition: PartitionId, gone: Offset) -> Request {
        Request { partition, gone, bytes: FIRST_BYTES }
    }

    fn next(&mut self, range: &DamagedRange) -> u32 {
        let needed = u32::try_from(range.bytes).unwrap_or(u32::MAX);
        let bytes = self.bytes.max(needed).min(MOST_BYTES);
        self.bytes = self.bytes.saturating_mul(2).min(MOST_BYTES);
        bytes
    }
}

impl Donors {
    pub(super) fn new(
        cluster: String,
        me: ReplicaId,
        tls: Option<Tls>,
        map: watch::Receiver<Arc<ClusterMap>>,
    ) -> Donors {
        Donors { cluster, me, tls, map, started: Instant::now(), channels: Channels::default() }
    }

    /// Brokers that hold a replica of the partition as the map has it, its leader first. Not those that have lost the
    /// directory it was in.
    pub(super) fn of(&self, partition: PartitionId) -> Vec<Broker> {
        let map = Arc::clone(&self.map.borrow());
        let Some(known) = map.partition(partition) else { return Vec::new() };
        let assignment = Assignment::from(&known.register);
        let mut members = assignment.members();
        members.retain(|member| member.broker != self.me.broker && map.is_kept(*member));
        members.sort_by_key(|member| *member != assignment.leader);
        members.iter().filter_map(|member| map.broker(member.broker).cloned()).collect()
    }

    /// Whether those are the brokers that hold one now, as far as that is to be learned. A map that was saved long ago names those of
    /// that time. Where the controllers know no other, or cannot be reached, it has to do after a while.
    pub(super) fn are_current(&self) -> bool {
        // An error says that no other map will come.
        self.map.has_changed().unwrap_or(true) || self.started.elapsed() > MAP_PATIENCE
    }

    /// Asks one of them for what is damaged in `range`.
    pub(super) async fn ask(&self, broker: &Broker, request: &mut Request, range: &DamagedRange) -> Answer {
        self.ask_from(broker, request, range, range.from).await
    }

    /// The same from a later offset on.
    async fn ask_from(
        &self,
        broker: &Broker,
        request: &mut Request,
        range: &DamagedRange,
        from: Offset,
    ) -> Answer {
        let channel = match self.channels.get(&broker.peer_endpoint, self.tls.as_ref()) {
            Ok(channel) => channel,
            Err(error) => return Answer::Later(error.to_string()),
        };
        let mut client = RepairServiceClient::new(channel).max_decoding_message_size(MAX_PEER_MESSAGE);
        let asked = FetchBatchesRequest {
            cluster: self.cluster.clone(),
            broker_id: self.me.broker.0,
            topic_id: Bytes::copy_from_slice(&request.partition.topic.to_bytes()),
            partition: request.partition.index,
            from_offset: from.0,
            to_offset: 0,
            max_bytes: request.next(range),
            tombstones_gone_below: request.gone.0,
        };
        match timeout(PATIENCE, client.fetch_batches(asked)).await {
            Ok(Ok(response)) => answer(response.into_inner(), from),
            Ok(Err(status)) => Answer::Later(status.message().to_owned()),
            Err(_) => Answer::Later(format!("no answer within {PATIENCE:?}")),
        }
    }

    /// Asks it for what follows the batches that it gave, which are needed all at once. False where it does not give it, or they
    /// are too many to be held.
    pub(super) async fn ask_more(
        &self,
        broker: &Broker,
        request: &mut Request,
        range: &DamagedRange,
        given: &mut Vec<RecordBatch>,
    ) -> bool {
        let held: usize = given.iter().map(|batch| batch.bytes().len()).sum();
        let Some(upto) = given.last().map(|last| last.header().next_offset()).filter(|_| held < MOST_HELD)
        else {
            return false;
        };
        match self.ask_from(broker, request, range, upto).await {
            Answer::Batches(more) => given.extend(more),
            Answer::Never(_) | Answer::Later(_) => return false,
        }
        true
    }
}

fn answer(response: FetchBatchesResponse, from: Offset) -> Answer {
    let missing = response.missing();
    match RecordBatch::split(response.batches) {
        Ok(batches) if batches.first().is_some_and(|first| first.header().base_offset == from) => {
            Answer::Batches(batches)
        }
        Ok(batches) if !batches.is_empty() => Answer::Never("its batches have other offsets"),
        Ok(_) => match missing {
            BatchesMissing::NoReplica => Answer::Never("it has no replica"),
            BatchesMissing::Trimmed => Answer::Never("it has trimmed them"),
            BatchesMissing::Damaged => Answer::Never("they are damaged there, too"),
            BatchesMissing::NotCommitted => Answer::Later("not known to be committed there".to_owned()),
            BatchesMissing::NotCleaned => Answer::Later("not compacted there as far as here".to_owned()),
            BatchesMissing::NotOpen | BatchesMissing::Unspecified => {
                Answer::Later("the log is not open there".to_owned())
            }
        },
        Err(error) => Answer::Later(format!("its answer was damaged on the way: {error}")),
    }
}
