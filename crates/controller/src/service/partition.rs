//! An operator's orders about partitions: checked against what is committed, so that a refusal says why, and proposed as
//! compare-and-set.

use holdfast_core::metadata::{
    Appointment, ClusterMap, Command, MetadataError, Partition, Reassignment, Register, majority,
    unclean_leaders,
};
use holdfast_core::{BrokerId, ErrorCode, PartitionId, Term};
use holdfast_proto::ApiError;
use holdfast_proto::v1::{
    CancelMoveRequest, CancelMoveResponse, MoveLeaderRequest, MoveLeaderResponse, MoveReplicasRequest,
    MoveReplicasResponse, PartitionRef, RecoverUncleanRequest, RecoverUncleanResponse,
};

use super::admin::{check_name, propose};
use super::not_leader;
use crate::config::MAX_NAME;
use crate::shared::Shared;

/// Brokers of one set that are looked at; how many there may be is decided where it is applied.
const MAX_BROKERS: usize = 64;

pub(super) async fn move_replicas(
    shared: &Shared,
    request: MoveReplicasRequest,
) -> Result<MoveReplicasResponse, ApiError> {
    if request.brokers.len() > MAX_BROKERS {
        return Err(invalid(format!("{} brokers are no replica set", request.brokers.len())));
    }
    let Partition { id, register, .. } = find(shared, request.partition.as_ref()).await?;
    let brokers: Vec<BrokerId> = request.brokers.into_iter().map(BrokerId).collect();
    // An order that is repeated because its answer was lost is carried out already.
    let wanted = register.target.as_ref().unwrap_or(&register.set);
    if register.prev.is_none() && wanted.iter().map(|replica| replica.broker).eq(brokers.iter().copied()) {
        return Ok(MoveReplicasResponse {});
    }
    check_term(request.partition.as_ref(), id, &register)?;
    let reassignment = Reassignment { partition: id, expected_term: register.term, brokers };
    propose(shared, Command::Reassign(vec![reassignment])).await?;
    Ok(MoveReplicasResponse {})
}

pub(super) async fn cancel_move(
    shared: &Shared,
    request: CancelMoveRequest,
) -> Result<CancelMoveResponse, ApiError> {
    let Partition { id, register, .. } = find(shared, request.partition.as_ref()).await?;
    check_term(request.partition.as_ref(), id, &register)?;
    let command = Command::CancelReassign { partition: id, expected_term: register.term };
    propose(shared, command).await?;
    Ok(CancelMoveResponse {})
}

pub(super) async fn move_leader(
    shared: &Shared,
    request: MoveLeaderRequest,
) -> Result<MoveLeaderResponse, ApiError> {
    let Partition { id, register, .. } = find(shared, request.partition.as_ref()).await?;
    let broker = BrokerId(request.broker);
    shared.quorum.serving().with_map(|map| check_may_lead(map, id, &register, broker))?;
    if register.leader.broker != broker {
        check_term(request.partition.as_ref(), id, &register)?;
        let appointment = Appointment { partition: id, expected_term: register.term, leader: broker };
        propose(shared, Command::Appoint(vec![appointment])).await?;
    }
    // Many may be appointed in one entry, each for itself: what became of this one is in the register.
    let after = shared.quorum.serving().with_map(|map| register_of(map, id))?;
    if after.leader.broker == broker {
        return Ok(MoveLeaderResponse { term: after.term.0 });
    }
    Err(refused(&MetadataError::StaleTerm { id, expected: register.term, current: after.term }))
}

/// R37. On record at this controller: who asked for it, and what for.
pub(super) async fn recover_unclean(
    shared: &Shared,
    request: RecoverUncleanRequest,
) -> Result<RecoverUncleanResponse, ApiError> {
    if request.ordered_by.len() > MAX_NAME {
        return Err(invalid(format!("ordered_by is longer than {MAX_NAME} bytes")));
    }
    let Partition { id, register, .. } = find(shared, request.partition.as_ref()).await?;
    let ordered_before = request.partition.as_ref().is_some_and(|wanted| {
        wanted.expected_term != 0
            && Term(wanted.expected_term).next() == register.term
            && register.is_unclean()
    });
    if ordered_before {
        return Ok(RecoverUncleanResponse { term: register.term.0, broker: register.leader.broker.0 });
    }
    check_term(request.partition.as_ref(), id, &register)?;
    if takes_records(shared, id, &register) {
        let leader = register.leader.broker;
        return Err(invalid(format!(
            "broker {leader} leads partition {id} and takes records: nothing is to be recovered"
        )));
    }
    let leader =
        shared.quorum.serving().with_map(|map| unclean_leader(map, id, &register, request.broker))?;
    let appointment = Appointment { partition: id, expected_term: register.term, leader };
    let term = register.term.next();
    let ordered_by = request.ordered_by.as_str();
    // Before it is done: an order whose outcome is not known is on record, too.
    tracing::error!(
        partition = %id, %leader, %term, ordered_by,
        "unclean recovery ordered: acknowledged records that no majority has on disk may be lost"
    );
    propose(shared, Command::RecoverUnclean { appointment }).await?;
    Ok(RecoverUncleanResponse { term: term.0, broker: leader.0 })
}

/// Whether its leader acknowledges records, as it says itself. One that lost the majority of its set leads on, in vain.
fn takes_records(shared: &Shared, id: PartitionId, register: &Register) -> bool {
    let reports = &shared.brokers().reports;
    let in_sync = register.set.iter().filter(|&&replica| reports.in_sync(id, register.term, replica));
    reports.writable(id, register.term) && in_sync.count() >= majority(register.set.len())
}

/// Who is to lead an unclean recovery: the broker wanted, or the first that can.
fn unclean_leader(
    map: &ClusterMap,
    id: PartitionId,
    register: &Register,
    wanted: u32,
) -> Result<BrokerId, ApiError> {
    let mut candidates = unclean_leaders(map, register).map(|replica| replica.broker);
    let found = candidates.find(|broker| wanted == 0 || broker.0 == wanted);
    found.ok_or_else(|| match wanted {
        0 => invalid(format!("no broker of the replica set of partition {id} is alive with its data")),
        wanted => refused(&MetadataError::CannotLead { id, broker: BrokerId(wanted) }),
    })
}

/// The register has to be at the term that the order was decided on.
fn check_term(wanted: Option<&PartitionRef>, id: PartitionId, register: &Register) -> Result<(), ApiError> {
    let expected = wanted.map_or(Term(0), |wanted| Term(wanted.expected_term));
    if expected == Term(0) || expected == register.term {
        return Ok(());
    }
    Err(refused(&MetadataError::StaleTerm { id, expected, current: register.term }))
}

/// The partition as committed.
async fn find(shared: &Shared, wanted: Option<&PartitionRef>) -> Result<Partition, ApiError> {
    let wanted = wanted.ok_or_else(|| invalid("no partition is named"))?;
    check_name(&wanted.topic)?;
    if !shared.quorum.catch_up().await {
        return Err(not_leader(&shared.quorum, shared.id));
    }
    shared.quorum.serving().with_map(|map| look_up(map, wanted))
}

fn look_up(map: &ClusterMap, wanted: &PartitionRef) -> Result<Partition, ApiError> {
    let named = map.topic_named(&wanted.topic);
    let is_meant = |id: &[u8; 16]| wanted.topic_id.is_empty() || id[..] == wanted.topic_id[..];
    let topic = named.filter(|topic| is_meant(&topic.id.to_bytes())).ok_or_else(|| {
        let message = match named {
            None => format!("no topic named {:?}", wanted.topic),
            Some(topic) => format!("topic {:?} has id {}, not the one given", wanted.topic, topic.id),
        };
        ApiError::new(ErrorCode::UnknownTopic, message)
    })?;
    let id = PartitionId { topic: topic.id, index: wanted.partition };
    map.partition(id).cloned().ok_or_else(|| {
        let last = topic.spec.partitions - 1;
        let message =
            format!("topic {:?} has partitions 0 to {last}, not {}", wanted.topic, wanted.partition);
        ApiError::new(ErrorCode::UnknownPartition, message)
    })
}

fn register_of(map: &ClusterMap, id: PartitionId) -> Result<Register, ApiError> {
    let register = map.partition(id).map(|partition| partition.register.clone());
    register.ok_or_else(|| refused(&MetadataError::UnknownPartition { id }))
}

fn check_may_lead(
    map: &ClusterMap,
    id: PartitionId,
    register: &Register,
    broker: BrokerId,
) -> Result<(), ApiError> {
    let member = register.set.iter().find(|replica| replica.broker == broker);
    if member.is_some_and(|&member| map.may_lead(member)) {
        return Ok(());
    }
    Err(refused(&MetadataError::CannotLead { id, broker }))
}

fn refused(error: &MetadataError) -> ApiError {
    ApiError::new(error.code(), error.to_string())
}

fn invalid(problem: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, problem)
}
