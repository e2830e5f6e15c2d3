//! Streams to other brokers: one each, all partitions on it, opened again whenever it breaks.
//!
//! What does not fit the queue, or is sent while there is no stream, is dropped: the rules repeat what matters, and
//! `PeerConnected` tells them when. So a slow or dead broker costs a bounded amount of memory and holds up nobody.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::Stream;
use holdfast_core::metadata::ClusterMap;
use holdfast_core::replication::{Envelope, Message};
use holdfast_core::{BrokerId, Incarnation, PartitionId};
use holdfast_proto::convert::replication::envelope_to_wire;
use holdfast_proto::internal::v1::replication_service_client::ReplicationServiceClient;
use holdfast_proto::internal::v1::{PeerFrame, PeerHello};
use holdfast_proto::transport::{Link, MAX_PEER_MESSAGE, Tls, connect_lazy};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use crate::partition::{Command, ShardSenders};

/// A frame is closed at this size; a single larger message has one to itself.
const FRAME_SIZE: usize = 1 << 20;
/// Pauses between attempts to reach a broker, with jitter: short, because failover waits for them.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// What a message holds of a producer, about.
const PRODUCER_SIZE: usize = 256;
/// Memory of a message besides its batches: heartbeats of thousands of partitions are nothing else.
const MESSAGE_OVERHEAD: usize = std::mem::size_of::<(usize, PartitionId, Envelope)>();

/// What every stream needs.
pub(crate) struct PeerContext {
    pub(crate) cluster: String,
    pub(crate) me: BrokerId,
    pub(crate) incarnation: Incarnation,
    pub(crate) tls: Option<Tls>,
    pub(crate) map: watch::Receiver<Arc<ClusterMap>>,
    pub(crate) shards: ShardSenders,
    pub(crate) queue_bytes: usize,
    /// Where the streams run.
    pub(crate) runtime: Handle,
}

/// Sends messages to other brokers.
#[derive(Clone)]
pub(crate) struct Peers {
    context: Arc<PeerContext>,
    queues: Arc<Mutex<BTreeMap<BrokerId, Arc<PeerQueue>>>>,
}

impl Peers {
    pub(crate) fn new(context: PeerContext) -> Peers {
        Peers { context: Arc::new(context), queues: Arc::default() }
    }

    /// Queues a message; the stream to its broker is opened when the first one comes.
    pub(crate) fn send(&self, partition: PartitionId, envelope: Envelope) {
        if let Some(queue) = self.queue(envelope.to.broker) {
            queue.push(partition, envelope, self.context.queue_bytes);
        }
    }

    /// None for a broker that is not in the map: whoever calls may go by any number, and an answer to each would leave a
    /// task behind for ever.
    fn queue(&self, broker: BrokerId) -> Option<Arc<PeerQueue>> {
        let mut queues = lock(&self.queues);
        if let Some(queue) = queues.get(&broker) {
            return Some(Arc::clone(queue));
        }
        self.context.map.borrow().broker(broker)?;
        let queue = Arc::new(PeerQueue::default());
        self.context.runtime.spawn(run(Arc::clone(&self.context), broker, Arc::clone(&queue)));
        queues.insert(broker, Arc::clone(&queue));
        Some(queue)
    }
}

/// Messages for one broker.
#[derive(Default)]
struct PeerQueue {
    state: Mutex<QueueState>,
    ready: Notify,
}

#[derive(Default)]
struct QueueState {
    messages: VecDeque<(usize, PartitionId, Envelope)>,
    bytes: usize,
    /// Only an open stream collects messages.
    open: bool,
    /// Counts streams: one that is at its end but not gone yet takes nothing from its successor.
    stream: u64,
    dropped: u64,
}

impl PeerQueue {
    fn push(&self, partition: PartitionId, envelope: Envelope, limit: usize) {
        let size = size_of(&envelope);
        let mut state = lock(&self.state);
        if !state.open {
            return;
        }
        if state.bytes + size > limit {
            state.dropped += 1;
            return;
        }
        state.bytes += size;
        state.messages.push_back((size, partition, envelope));
        drop(state);
        self.ready.notify_one();
    }

    /// Drops what an earlier stream left, and collects for a new one, whose number it returns.
    fn begin(&self) -> u64 {
        let mut state = lock(&self.state);
        let stream = state.stream + 1;
        *state = QueueState { open: true, stream, ..QueueState::default() };
        drop(state);
        // An earlier stream learns that it is over, instead of being woken in the place of this one.
        self.ready.notify_waiters();
        stream
    }

    /// Drops what the stream left; nothing is collected any more. Returns how many messages did not fit.
    fn end(&self) -> u64 {
        let mut state = lock(&self.state);
        let (stream, dropped) = (state.stream + 1, state.dropped);
        *state = QueueState { stream, ..QueueState::default() };
        drop(state);
        self.ready.notify_waiters();
        dropped
    }

    /// Waits for messages and takes one frame full; `None` once stream number `stream` is over.
    async fn next_frame(&self, stream: u64) -> Option<PeerFrame> {
        loop {
            let ready = self.ready.notified();
            let taken = self.take(stream)?;
            if !taken.is_empty() {
                let messages = taken.into_iter();
                let messages = messages.map(|(partition, envelope)| envelope_to_wire(partition, envelope));
                return Some(PeerFrame { hello: None, messages: messages.collect() });
            }
            ready.await;
        }
    }

    fn take(&self, stream: u64) -> Option<Vec<(PartitionId, Envelope)>> {
        let mut state = lock(&self.state);
        if state.stream != stream {
            return None;
        }
        let (mut taken, mut size) = (Vec::new(), 0);
        while let Some(&(next, ..)) = state.messages.front() {
            if size > 0 && size + next > FRAME_SIZE {
                break;
            }
            size += next;
            if let Some((_, partition, envelope)) = state.messages.pop_front() {
                taken.push((partition, envelope));
            }
        }
        state.bytes -= size;
        Some(taken)
    }
}

/// What a message takes in memory, about.
pub(crate) fn size_of(envelope: &Envelope) -> usize {
    let carried = match &envelope.message {
        Message::Data { batches, .. } => batches.iter().map(|batch| batch.bytes().len()).sum(),
        Message::Reset { producers, .. } => producers.known().count() * PRODUCER_SIZE,
        _ => 0,
    };
    carried + MESSAGE_OVERHEAD
}

/// Keeps a stream to `broker` open for ever; ends with the runtime.
async fn run(context: Arc<PeerContext>, broker: BrokerId, queue: Arc<PeerQueue>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let reached = exchange(&context, broker, &queue).await;
        let dropped = queue.end();
        match reached {
            Ok(()) => {
                tracing::info!(%broker, dropped, "stream to broker ended");
                pause = FIRST_PAUSE;
            }
            Err(problem) => tracing::debug!(%broker, problem, "broker cannot be reached"),
        }
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One stream, from opening to its end. An error says that it was never open.
async fn exchange(context: &PeerContext, broker: BrokerId, queue: &Arc<PeerQueue>) -> Result<(), String> {
    let endpoint = context.map.borrow().broker(broker).map(|broker| broker.peer_endpoint.clone());
    let endpoint = endpoint.ok_or("it is not in the metadata map")?;
    let channel =
        connect_lazy(&endpoint, Link::Peer, context.tls.as_ref()).map_err(|error| error.to_string())?;
    let mut client = ReplicationServiceClient::new(channel)
        .max_decoding_message_size(MAX_PEER_MESSAGE)
        .max_encoding_message_size(MAX_PEER_MESSAGE);
    let stream = queue.begin();
    let hello = PeerHello {
        cluster: context.cluster.clone(),
        broker_id: context.me.0,
        incarnation: context.incarnation.0,
    };
    let response = client.exchange(frames(hello, Arc::clone(queue), stream)).await;
    let mut answers = response.map_err(|status| status.message().to_owned())?.into_inner();
    tracing::info!(%broker, endpoint, "stream to broker is open");
    for shard in context.shards.all() {
        // An error says that the broker is ending.
        let _ = shard.send(Command::PeerConnected(broker)).await;
    }
    // Nothing is ever answered: this waits for the end.
    while let Ok(Some(_)) = answers.message().await {}
    Ok(())
}

fn frames(
    hello: PeerHello,
    queue: Arc<PeerQueue>,
    stream: u64,
) -> impl Stream<Item = PeerFrame> + Send + 'static {
    futures::stream::unfold((Some(hello), queue), move |(hello, queue)| async move {
        let frame = match hello {
            Some(hello) => PeerFrame { hello: Some(hello), messages: Vec::new() },
            None => queue.next_frame(stream).await?,
        };
        Some((frame, (None, queue)))
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use holdfast_core::metadata::{BrokerRegistration, Command as MetadataCommand, Metadata};
    use holdfast_core::{DirId, LeaderEpoch, ReplicaId, TopicId, ZoneId};

    use super::*;

    fn map_of(id: u32) -> Arc<ClusterMap> {
        let mut metadata = Metadata::default();
        let registration = BrokerRegistration {
            id: BrokerId(id),
            zone: ZoneId::new("a"),
            dir: DirId(1),
            incarnation: Incarnation(1),
            client_endpoint: "localhost:1".to_owned(),
            peer_endpoint: "localhost:1".to_owned(),
        };
        metadata.apply(1, &MetadataCommand::RegisterBroker(registration)).0.unwrap();
        Arc::new(metadata.map().clone())
    }

    /// Answers to callers that go by numbers of their own invention cost nothing that stays.
    #[tokio::test]
    async fn only_brokers_of_the_map_get_a_stream() {
        let peers = Peers::new(PeerContext {
            cluster: "test".to_owned(),
            me: BrokerId(1),
            incarnation: Incarnation(1),
            tls: None,
            map: watch::channel(map_of(2)).1,
            shards: ShardSenders::new(Vec::new()),
            queue_bytes: 1 << 20,
            runtime: Handle::current(),
        });
        let replica = |broker| ReplicaId { broker: BrokerId(broker), dir: DirId(1) };
        for to in [2, 3, 4, u32::MAX] {
            let message = Message::Stale { promise: LeaderEpoch::ZERO };
            let envelope = Envelope { from: replica(1), to: replica(to), epoch: LeaderEpoch::ZERO, message };
            peers.send(PartitionId { topic: TopicId(1), index: 0 }, envelope);
        }
        let known: Vec<BrokerId> = lock(&peers.queues).keys().copied().collect();
        assert_eq!(known, [BrokerId(2)]);
    }
}
