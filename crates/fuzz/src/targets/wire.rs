//! gRPC messages: from protobuf to the types of the rules.

use bytes::Bytes;
use holdfast_core::metadata::{ClusterMap, LeaderReport, LeaderState};
use holdfast_core::record_batch::Compression;
use holdfast_core::replication::{
    Appended, Envelope, FetchKind, KnownProducer, Message, Position, ProducerTable,
};
use holdfast_core::{
    BrokerId, DirId, ErrorCode, Incarnation, LeaderEpoch, Offset, PartitionId, ProducerId, ReplicaId, Term,
    TopicId,
};
use holdfast_proto::convert::metadata::{
    report_from_wire, report_to_wire, topic_spec_from_wire, update_from_wire, update_to_wire,
};
use holdfast_proto::convert::replication::{envelope_from_wire, envelope_to_wire};
use holdfast_proto::{ApiError, internal, v1};
use prost::Message as _;
use tonic::{Code, Status};

use super::batches::build;
use super::controller::metadata;
use crate::corpus::Input;
use crate::target::{Memory, Target};

pub(super) fn targets() -> Vec<Target> {
    let memory = Memory { fixed: 256 << 10, per_byte: 256 };
    vec![
        Target {
            name: "metadata-update",
            about: "the map and its changes, as brokers and clients watch them",
            memory,
            written: || vec![message(&update_to_wire(&metadata().map().snapshot()))],
            run: metadata_update,
        },
        Target {
            name: "peer-message",
            about: "what replicas say to each other",
            memory,
            written: || {
                envelopes().into_iter().map(|(id, sent)| message(&envelope_to_wire(id, sent))).collect()
            },
            run: peer_message,
        },
        Target {
            name: "leader-report",
            about: "what leaders report to controllers",
            memory,
            written: || vec![message(&report_to_wire(&report(), true))],
            run: leader_report,
        },
        Target {
            name: "create-topic",
            about: "a request for a topic",
            memory,
            written: || {
                let request = v1::CreateTopicRequest {
                    name: "orders".to_owned(),
                    partitions: 3,
                    replication: 3,
                    ..Default::default()
                };
                vec![message(&request)]
            },
            run: |input| {
                let request = v1::CreateTopicRequest::decode(input.bytes());
                request.is_ok_and(|request| topic_spec_from_wire(&request).replication > 0)
            },
        },
        Target {
            name: "error",
            about: "errors: inside a stream, and as details of a gRPC status",
            memory,
            written: || {
                let error = ApiError::new(ErrorCode::NotLeader, "ask b").with("leader_endpoint", "b:7070");
                let error = error.retry_after(std::time::Duration::from_millis(50));
                let status = error.clone().into_status();
                vec![message(&error.into_message()), Input::of("details.pb", status.details().to_vec())]
            },
            run: error,
        },
    ]
}

fn message(message: &impl prost::Message) -> Input {
    Input::of("message.pb", message.encode_to_vec())
}

fn metadata_update(input: &Input) -> bool {
    let Ok(wire) = v1::MetadataUpdate::decode(input.bytes()) else { return false };
    let Ok(update) = update_from_wire(wire) else { return false };
    assert_eq!(update_from_wire(update_to_wire(&update)).as_ref(), Ok(&update), "it survives the wire");
    let mut map = ClusterMap::default();
    let adopted = map.adopt(&update);
    if adopted.is_err() {
        assert_eq!(map, ClusterMap::default(), "META-4: complete or refused");
    }
    adopted.is_ok()
}

fn peer_message(input: &Input) -> bool {
    let Ok(wire) = internal::v1::PeerMessage::decode(Bytes::copy_from_slice(input.bytes())) else {
        return false;
    };
    let Ok((partition, envelope)) = envelope_from_wire(wire) else { return false };
    let again = envelope_from_wire(envelope_to_wire(partition, envelope.clone()));
    assert_eq!(again, Ok((partition, envelope)), "it survives the wire");
    true
}

fn leader_report(input: &Input) -> bool {
    let Ok(wire) = internal::v1::LeaderReport::decode(input.bytes()) else { return false };
    let Ok((report, complete)) = report_from_wire(wire) else { return false };
    assert_eq!(report_from_wire(report_to_wire(&report, complete)), Ok((report, complete)));
    true
}

fn error(input: &Input) -> bool {
    let details = Bytes::copy_from_slice(input.bytes());
    let status = Status::with_details(Code::Unavailable, "as it came", details);
    let from_status = ApiError::from_status(&status);
    let has_details = !from_status.metadata.is_empty();
    let again = ApiError::from_status(&from_status.clone().into_status());
    assert!(!has_details || again.code == from_status.code, "a code survives the wire");
    let Ok(wire) = v1::Error::decode(input.bytes()) else { return has_details };
    let error = ApiError::from_message(wire);
    assert_eq!(ApiError::from_message(error.clone().into_message()), error, "it survives the wire");
    true
}

fn replica(id: u32) -> ReplicaId {
    ReplicaId { broker: BrokerId(id), dir: DirId(u64::MAX - 1) }
}

fn partition() -> PartitionId {
    PartitionId { topic: TopicId(5), index: 6 }
}

fn report() -> LeaderReport {
    LeaderReport {
        partition: partition(),
        term: Term(4),
        state: LeaderState::Active,
        log_end_offset: Offset(99),
        writable: true,
        in_sync: vec![replica(1), replica(2)],
    }
}

fn producers() -> ProducerTable {
    let batch =
        Appended { base_sequence: 5, last_sequence: 6, base_offset: Offset(7), last_offset: Offset(8) };
    let known = KnownProducer { id: ProducerId(3), epoch: 1, batches: vec![batch; 3], next: Some(7) };
    ProducerTable::of_known([known])
}

fn envelopes() -> Vec<(PartitionId, Envelope)> {
    let epoch = LeaderEpoch { term: Term(7), run: 3 };
    let at = |end| Position { epoch, end: Offset(end) };
    let set = vec![replica(1), replica(2), replica(3)];
    let messages = [
        Message::Fence { set: set.clone(), prev: Some(set) },
        Message::FenceOk { position: at(9), voter: true },
        Message::Lead { high_watermark: Offset(3), log_end_offset: Offset(4), cleaned_by_all: Offset(1) },
        Message::Fetch {
            position: at(4),
            durable_end: Offset(2),
            incarnation: Incarnation(77),
            kind: FetchKind::Rejoin,
            restart: true,
            cleaned_end: Offset(1),
        },
        Message::Diverge { echo: at(4), common: at(2) },
        Message::Reset { echo: at(4), start: at(9), producers: producers() },
        Message::Stale { promise: epoch },
        Message::Data {
            echo: at(4),
            batches: vec![build(4, 7, Compression::None), build(7, 7, Compression::Snappy)],
            high_watermark: Offset(4),
            durable_high_watermark: Offset(3),
            log_end_offset: Offset(10),
            log_start_offset: Offset(2),
            tombstones_gone_below: Offset(1),
            incarnation: Some(Incarnation(77)),
        },
    ];
    let sent = |message| (partition(), Envelope { from: replica(1), to: replica(2), epoch, message });
    messages.into_iter().map(sent).collect()
}
