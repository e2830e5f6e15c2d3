//! Messages between replicas.

use bytes::{Bytes, BytesMut};
use holdfast_core::record_batch::RecordBatch;
use holdfast_core::replication::{
    Appended, Envelope, FetchKind, KnownProducer, Message, Position, ProducerTable,
};
use holdfast_core::{Incarnation, Offset, PartitionId, ProducerId, ReplicaId};

use super::{ConvertError, bad, epoch, replica, replica_from_wire, replica_to_wire, topic_id};
use crate::internal::v1::{self as wire, peer_message::Body};
use crate::v1;

const MESSAGE: &str = "PeerMessage";

/// A message for the wire.
pub fn envelope_to_wire(partition: PartitionId, envelope: Envelope) -> wire::PeerMessage {
    wire::PeerMessage {
        topic_id: Bytes::copy_from_slice(&partition.topic.to_bytes()),
        partition: partition.index,
        from: Some(replica_to_wire(envelope.from)),
        to: Some(replica_to_wire(envelope.to)),
        epoch: envelope.epoch.to_wire(),
        body: Some(body_to_wire(envelope.message)),
    }
}

/// A message from the wire, and the partition that it is about.
///
/// # Errors
/// Where a field is missing or a record batch is damaged: the connection has a defect, and nothing of the message
/// may be used.
pub fn envelope_from_wire(message: wire::PeerMessage) -> Result<(PartitionId, Envelope), ConvertError> {
    let partition = PartitionId { topic: topic_id(MESSAGE, &message.topic_id)?, index: message.partition };
    let envelope = Envelope {
        from: replica(MESSAGE, "from", message.from)?,
        to: replica(MESSAGE, "to", message.to)?,
        epoch: epoch(MESSAGE, message.epoch)?,
        message: body_from_wire(message.body.ok_or(bad(MESSAGE, "body", "missing"))?)?,
    };
    Ok((partition, envelope))
}

fn body_to_wire(message: Message) -> Body {
    match message {
        Message::Fence { set, prev } => Body::Fence(wire::Fence {
            set: replicas_to_wire(&set),
            prev: replicas_to_wire(prev.as_deref().unwrap_or_default()),
        }),
        Message::FenceOk { position, voter } => {
            Body::FenceOk(wire::FenceOk { position: position_to_wire(position), voter })
        }
        Message::Lead { high_watermark, log_end_offset, cleaned_by_all } => Body::Lead(wire::Lead {
            high_watermark: high_watermark.0,
            log_end_offset: log_end_offset.0,
            cleaned_by_all: cleaned_by_all.0,
        }),
        Message::Fetch { position, durable_end, incarnation, kind, restart, cleaned_end } => {
            Body::Fetch(wire::FollowerFetch {
                position: position_to_wire(position),
                durable_end: durable_end.0,
                incarnation: incarnation.0,
                kind: kind_to_wire(kind).into(),
                restart,
                cleaned_end: cleaned_end.0,
            })
        }
        Message::Diverge { echo, common } => {
            Body::Diverge(wire::Diverge { echo: position_to_wire(echo), common: position_to_wire(common) })
        }
        Message::Reset { echo, start, producers } => Body::Reset(wire::Reset {
            echo: position_to_wire(echo),
            start: position_to_wire(start),
            producers: producers.known().map(producer_to_wire).collect(),
        }),
        Message::Stale { promise } => Body::Stale(wire::Stale { promise: promise.to_wire() }),
        Message::Data {
            echo,
            batches,
            high_watermark,
            durable_high_watermark,
            log_end_offset,
            log_start_offset,
            tombstones_gone_below,
            incarnation,
        } => Body::Data(wire::Data {
            echo: position_to_wire(echo),
            high_watermark: high_watermark.0,
            durable_high_watermark: durable_high_watermark.0,
            log_end_offset: log_end_offset.0,
            log_start_offset: log_start_offset.0,
            tombstones_gone_below: tombstones_gone_below.0,
            incarnation: incarnation.map_or(0, |incarnation| incarnation.0),
            batches: joined(&batches),
        }),
    }
}

fn body_from_wire(body: Body) -> Result<Message, ConvertError> {
    Ok(match body {
        Body::Fence(fence) => {
            let prev = replicas_from_wire(fence.prev);
            Message::Fence { set: replicas_from_wire(fence.set), prev: (!prev.is_empty()).then_some(prev) }
        }
        Body::FenceOk(ok) => {
            Message::FenceOk { position: position("FenceOk", ok.position)?, voter: ok.voter }
        }
        Body::Lead(lead) => Message::Lead {
            high_watermark: Offset(lead.high_watermark),
            log_end_offset: Offset(lead.log_end_offset),
            cleaned_by_all: Offset(lead.cleaned_by_all),
        },
        Body::Fetch(fetch) => Message::Fetch {
            position: position("FollowerFetch", fetch.position)?,
            durable_end: Offset(fetch.durable_end),
            incarnation: Incarnation(fetch.incarnation),
            kind: kind_from_wire(fetch.kind()),
            restart: fetch.restart,
            cleaned_end: Offset(fetch.cleaned_end),
        },
        Body::Diverge(diverge) => Message::Diverge {
            echo: position("Diverge", diverge.echo)?,
            common: position("Diverge", diverge.common)?,
        },
        Body::Reset(reset) => {
            let producers: Result<Vec<_>, _> = reset.producers.into_iter().map(producer_from_wire).collect();
            Message::Reset {
                echo: position("Reset", reset.echo)?,
                start: position("Reset", reset.start)?,
                producers: ProducerTable::of_known(producers?),
            }
        }
        Body::Stale(stale) => Message::Stale { promise: epoch("Stale", stale.promise)? },
        Body::Data(data) => Message::Data {
            echo: position("Data", data.echo)?,
            batches: RecordBatch::split(data.batches)
                .map_err(|_| bad("Data", "batches", "not whole record batches with the right checksum"))?,
            high_watermark: Offset(data.high_watermark),
            durable_high_watermark: Offset(data.durable_high_watermark),
            log_end_offset: Offset(data.log_end_offset),
            log_start_offset: Offset(data.log_start_offset),
            tombstones_gone_below: Offset(data.tombstones_gone_below),
            incarnation: (data.incarnation != 0).then_some(Incarnation(data.incarnation)),
        },
    })
}

fn producer_to_wire(producer: KnownProducer) -> wire::KnownProducer {
    let batch = |batch: Appended| wire::KnownBatch {
        base_sequence: batch.base_sequence,
        last_sequence: batch.last_sequence,
        base_offset: batch.base_offset.0,
        last_offset: batch.last_offset.0,
    };
    wire::KnownProducer {
        id: producer.id.0,
        epoch: producer.epoch.into(),
        next_sequence: producer.next,
        batches: producer.batches.into_iter().map(batch).collect(),
    }
}

fn producer_from_wire(producer: wire::KnownProducer) -> Result<KnownProducer, ConvertError> {
    let batch = |batch: wire::KnownBatch| Appended {
        base_sequence: batch.base_sequence,
        last_sequence: batch.last_sequence,
        base_offset: Offset(batch.base_offset),
        last_offset: Offset(batch.last_offset),
    };
    Ok(KnownProducer {
        id: ProducerId(producer.id),
        epoch: producer.epoch.try_into().map_err(|_| bad("KnownProducer", "epoch", "not 16 bits"))?,
        next: producer.next_sequence,
        batches: producer.batches.into_iter().map(batch).collect(),
    })
}

/// One batch shares its bytes; several are copied together.
fn joined(batches: &[RecordBatch]) -> Bytes {
    if let [batch] = batches {
        return batch.bytes().clone();
    }
    let mut joined = BytesMut::with_capacity(batches.iter().map(|batch| batch.bytes().len()).sum());
    for batch in batches {
        joined.extend_from_slice(batch.bytes());
    }
    joined.freeze()
}

fn kind_to_wire(kind: FetchKind) -> wire::FetchKind {
    match kind {
        FetchKind::Follow => wire::FetchKind::Follow,
        FetchKind::Recover => wire::FetchKind::Recover,
        FetchKind::Rejoin => wire::FetchKind::Rejoin,
    }
}

fn kind_from_wire(kind: wire::FetchKind) -> FetchKind {
    match kind {
        wire::FetchKind::Unspecified | wire::FetchKind::Follow => FetchKind::Follow,
        wire::FetchKind::Recover => FetchKind::Recover,
        wire::FetchKind::Rejoin => FetchKind::Rejoin,
    }
}

fn position_to_wire(position: Position) -> Option<wire::Position> {
    Some(wire::Position { epoch: position.epoch.to_wire(), offset: position.end.0 })
}

fn position(message: &'static str, position: Option<wire::Position>) -> Result<Position, ConvertError> {
    let position = position.ok_or(bad(message, "position", "missing"))?;
    Ok(Position { epoch: epoch(message, position.epoch)?, end: Offset(position.offset) })
}

fn replicas_to_wire(replicas: &[ReplicaId]) -> Vec<v1::Replica> {
    replicas.iter().copied().map(replica_to_wire).collect()
}

fn replicas_from_wire(replicas: Vec<v1::Replica>) -> Vec<ReplicaId> {
    replicas.into_iter().map(replica_from_wire).collect()
}

#[cfg(test)]
mod tests {
    use holdfast_core::{BrokerId, DirId, LeaderEpoch, Term, TopicId};

    use super::*;

    #[test]
    fn every_message_survives_the_wire() {
        let replica = |id| ReplicaId { broker: BrokerId(id), dir: DirId(u64::MAX - 1) };
        let epoch = LeaderEpoch { term: Term(7), run: 3 };
        let at = |end| Position { epoch, end: Offset(end) };
        let batch = RecordBatch::marker(Offset(4), epoch, BrokerId(2));
        let next = RecordBatch::marker(Offset(5), epoch, BrokerId(2));
        let set = vec![replica(1), replica(2), replica(3)];
        let sent = |sequence: i32, offset| Appended {
            base_sequence: sequence,
            last_sequence: sequence + 1,
            base_offset: Offset(offset),
            last_offset: Offset(offset + 1),
        };
        let producer = |id, epoch, next, batches| KnownProducer { id: ProducerId(id), epoch, batches, next };
        let producers = [
            producer(7, 2, Some(4), vec![sent(0, 3), sent(2, 7)]),
            producer(i64::MAX, i16::MAX, None, vec![]),
        ];
        let messages = [
            Message::Fence { set: set.clone(), prev: None },
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
            Message::Reset { echo: at(4), start: at(9), producers: ProducerTable::of_known(producers) },
            Message::Stale { promise: epoch },
            Message::Data {
                echo: at(4),
                batches: vec![batch, next],
                high_watermark: Offset(4),
                durable_high_watermark: Offset(3),
                log_end_offset: Offset(6),
                log_start_offset: Offset(2),
                tombstones_gone_below: Offset(1),
                incarnation: Some(Incarnation(77)),
            },
        ];
        let partition = PartitionId { topic: TopicId(5), index: 6 };
        for message in messages {
            let envelope = Envelope { from: replica(1), to: replica(2), epoch, message };
            let wire = envelope_to_wire(partition, envelope.clone());
            assert_eq!(envelope_from_wire(wire).unwrap(), (partition, envelope));
        }
    }

    #[test]
    fn a_message_with_a_damaged_batch_is_refused() {
        let replica = ReplicaId { broker: BrokerId(1), dir: DirId(1) };
        let epoch = LeaderEpoch::first(Term(1));
        let batch = RecordBatch::marker(Offset(0), epoch, BrokerId(1));
        let mut data = wire::Data {
            echo: position_to_wire(Position::default()),
            batches: batch.bytes().clone(),
            ..Default::default()
        };
        let mut bytes = BytesMut::from(&data.batches[..]);
        bytes[30] ^= 1;
        data.batches = bytes.freeze();
        let message = wire::PeerMessage {
            topic_id: Bytes::copy_from_slice(&[0; 16]),
            from: Some(replica_to_wire(replica)),
            to: Some(replica_to_wire(replica)),
            body: Some(Body::Data(data)),
            ..Default::default()
        };
        assert!(envelope_from_wire(message).is_err());
    }
}
