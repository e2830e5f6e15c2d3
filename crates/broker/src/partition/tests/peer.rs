//! Another broker that says what a test has it say, and remembers what it is told.

use holdfast_core::metadata::{
    Appointment, BrokerRegistration, Command as MetadataCommand, Metadata, TopicSpec,
};
use holdfast_core::record_batch::RecordBatch;
use holdfast_core::replication::{Envelope, Event, FetchKind, Message, Position};
use holdfast_core::{DirId, LeaderEpoch, ZoneId};
use holdfast_proto::convert::replication::envelope_from_wire;
use holdfast_proto::internal::v1::replication_service_server::{
    ReplicationService, ReplicationServiceServer,
};
use holdfast_proto::internal::v1::{PeerFrame, PeerFrameAck};
use holdfast_proto::transport::{Link, Listener, server};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::{Request, Response, Status, Streaming};

use super::*;

/// Broker 2.
pub(super) const PEER: ReplicaId = ReplicaId { broker: BrokerId(2), dir: DirId(2) };
/// Broker 3, which is never there.
pub(super) const ABSENT: ReplicaId = ReplicaId { broker: BrokerId(3), dir: DirId(3) };

pub(super) struct Peer {
    pub(super) endpoint: String,
    told: UnboundedReceiver<Envelope>,
}

struct Recorder {
    told: UnboundedSender<Envelope>,
}

#[tonic::async_trait]
impl ReplicationService for Recorder {
    type ExchangeStream = futures::stream::Pending<Result<PeerFrameAck, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<PeerFrame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let (mut frames, told) = (request.into_inner(), self.told.clone());
        tokio::spawn(async move {
            while let Ok(Some(frame)) = frames.message().await {
                for message in frame.messages {
                    // An error says that the test is over.
                    let _ = told.send(envelope_from_wire(message).unwrap().1);
                }
            }
        });
        Ok(Response::new(futures::stream::pending()))
    }
}

impl Peer {
    pub(super) async fn start() -> Peer {
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let (sender, told) = unbounded_channel();
        let service = ReplicationServiceServer::new(Recorder { told: sender });
        let incoming = listener.incoming(None).unwrap();
        tokio::spawn(server(Link::Peer).add_service(service).serve_with_incoming(incoming));
        Peer { endpoint, told }
    }

    /// Waits for a message that is wanted; what comes before it is dropped.
    pub(super) async fn hears<T>(&mut self, what: &str, wanted: impl Fn(&Message) -> Option<T>) -> T {
        let heard = async {
            loop {
                let envelope = self.told.recv().await.expect("the peer listens");
                if let Some(found) = wanted(&envelope.message) {
                    return found;
                }
            }
        };
        timeout(LONG, heard).await.unwrap_or_else(|_| panic!("not told: {what}"))
    }

    /// Waits for an acknowledgement of everything below `end`.
    pub(super) async fn hears_of_flushed(&mut self, end: u64) {
        let flushed = |message: &Message| match message {
            Message::Fetch { durable_end, .. } if *durable_end >= Offset(end) => Some(()),
            _ => None,
        };
        self.hears("it is flushed", flushed).await;
    }

    /// What was told and not looked at yet: end, and end of what is on disk, of every acknowledgement.
    pub(super) fn acknowledged(&mut self) -> Vec<(Offset, Offset)> {
        let told = std::iter::from_fn(|| self.told.try_recv().ok());
        let acknowledgement = |envelope: Envelope| match envelope.message {
            Message::Fetch { position, durable_end, .. } => Some((position.end, durable_end)),
            _ => None,
        };
        told.filter_map(acknowledgement).collect()
    }
}

/// Brokers 1 to 3 in a zone each, of which the second listens at `endpoint`; the first leads [`PARTITION`] of topic "t".
pub(super) fn map(first: ReplicaId, endpoint: &str) -> ClusterMap {
    map_of([(first, "127.0.0.1:1"), (PEER, endpoint), (ABSENT, "127.0.0.1:1")])
}

/// The same where the first one listens at `endpoint`.
pub(super) fn map_led_at(first: ReplicaId, endpoint: &str) -> ClusterMap {
    map_of([(first, endpoint), (PEER, "127.0.0.1:1"), (ABSENT, "127.0.0.1:1")])
}

/// Those brokers where they listen.
pub(super) fn map_of(brokers: [(ReplicaId, &str); 3]) -> ClusterMap {
    map_with(brokers, TopicSpec::default())
}

/// The same with such a topic.
pub(super) fn map_with(brokers: [(ReplicaId, &str); 3], spec: TopicSpec) -> ClusterMap {
    let mut metadata = Metadata::default();
    let mut index = 0;
    let mut apply = |command| {
        index += 1;
        metadata.apply(index, &command).0.unwrap()
    };
    for (replica, endpoint) in brokers {
        apply(MetadataCommand::RegisterBroker(BrokerRegistration {
            id: replica.broker,
            zone: ZoneId::new(&format!("z{}", replica.broker.0)),
            dir: replica.dir,
            incarnation: Incarnation(1),
            client_endpoint: endpoint.to_owned(),
            peer_endpoint: endpoint.to_owned(),
        }));
    }
    apply(MetadataCommand::CreateTopic { id: PARTITION.topic, name: "t".to_owned(), spec });
    let appointment =
        Appointment { partition: PARTITION, expected_term: Term(1), leader: brokers[0].0.broker };
    apply(MetadataCommand::Appoint(vec![appointment]));
    metadata.map().clone()
}

impl Node {
    /// The register of a term in which all three are members.
    pub(super) fn together(&self, term: u32, leader: ReplicaId) -> Assignment {
        Assignment { leader, set: vec![self.me, PEER, ABSENT], ..self.alone(term) }
    }

    /// A message of a peer in the first epoch of a term.
    pub(super) async fn receive(&self, from: ReplicaId, term: u32, message: Message) {
        let epoch = LeaderEpoch::first(Term(term));
        let event = Event::Receive(Envelope { from, to: self.me, epoch, message });
        self.shard.send(Command::Event(PARTITION, event)).await.unwrap();
    }

    /// The peer leads.
    pub(super) async fn is_led(&self, term: u32) {
        let (high_watermark, log_end_offset, cleaned_by_all) = (Offset::ZERO, Offset::ZERO, Offset::ZERO);
        self.receive(PEER, term, Message::Lead { high_watermark, log_end_offset, cleaned_by_all }).await;
    }

    /// Data of the leading peer: one batch, or the marker of the term.
    pub(super) async fn is_sent(&self, term: u32, echo: Position, value: Option<&str>) {
        let epoch = LeaderEpoch::first(Term(term));
        let batch = match value {
            Some(value) => batch(value).stamped(echo.end, epoch),
            None => RecordBatch::marker(echo.end, epoch, PEER.broker),
        };
        let data = Message::Data {
            echo,
            batches: vec![batch],
            high_watermark: Offset::ZERO,
            durable_high_watermark: Offset::ZERO,
            log_end_offset: echo.end + 1,
            log_start_offset: Offset::ZERO,
            tombstones_gone_below: Offset::ZERO,
            incarnation: None,
        };
        self.receive(PEER, term, data).await;
    }
}

pub(super) fn position(term: u32, end: u64) -> Position {
    let epoch = if end == 0 { LeaderEpoch::ZERO } else { LeaderEpoch::first(Term(term)) };
    Position { epoch, end: Offset(end) }
}

pub(super) fn fetch(position: Position) -> Message {
    Message::Fetch {
        position,
        durable_end: position.end,
        incarnation: Incarnation(1),
        kind: FetchKind::Follow,
        restart: true,
        cleaned_end: Offset::ZERO,
    }
}
