//! What no script shows: properties of the outbox, of epochs and of the producer table. Whole replicas are tested by
//! `tests/scripts` and by the simulator.

use super::outbox::Outbox;
use super::*;
use crate::record_batch::{ProducerRef, RecordBatchBuilder};
use crate::{BrokerId, DirId, ProducerId, Term};

const REQUEST: RequestId = RequestId(1);

fn state(nonvoter: bool) -> DurableState {
    DurableState { promise: LeaderEpoch::first(Term(1)), assignment: None, nonvoter, recovered: None }
}

fn drained(outbox: &mut Outbox) -> Vec<Action> {
    std::iter::from_fn(|| outbox.next()).collect()
}

fn batch(sequence: i32, records: usize) -> RecordBatch {
    let mut builder = RecordBatchBuilder::new();
    for _ in 0..records {
        builder.push(0, None, Some(b"value"), &[]).unwrap();
    }
    let producer = ProducerRef { id: ProducerId(9), epoch: 0, base_sequence: sequence };
    builder.build(Some(producer)).unwrap()
}

#[test]
fn nothing_passes_a_state_that_is_not_durable() {
    let mut outbox = Outbox::default();
    outbox.push(Action::Flush { generation: 1 });
    outbox.persist_first(state(false));
    outbox.push(Action::Flush { generation: 2 });
    outbox.persist_first(state(true));
    outbox.push(Action::Flush { generation: 3 });
    let first = drained(&mut outbox);
    assert!(matches!(first[..], [Action::Flush { generation: 1 }, Action::Persist { number: 1, .. }]));
    outbox.persisted(1);
    let second = drained(&mut outbox);
    assert!(matches!(second[..], [Action::Flush { generation: 2 }, Action::Persist { number: 2, .. }]));
    outbox.persisted(1); // told twice
    assert_eq!(drained(&mut outbox), []);
    outbox.persisted(2);
    assert_eq!(drained(&mut outbox), [Action::Flush { generation: 3 }]);
}

#[test]
fn after_a_failure_only_states_answers_and_reports_are_left() {
    let mut outbox = Outbox::default();
    let acknowledged = Acknowledged {
        base_offset: Offset(0),
        last_offset: Offset(0),
        epoch: LeaderEpoch::first(Term(1)),
        duplicate: false,
    };
    outbox.push(Action::Append { batches: vec![batch(0, 1)] });
    outbox.push(Action::Reply { request: REQUEST, result: Ok(acknowledged) });
    outbox.persist_first(state(false));
    outbox.push(Action::Truncate { end: Offset(0) });
    outbox.push(Action::Flush { generation: 0 });
    outbox.abandon();
    outbox.persisted(1);
    let left = drained(&mut outbox);
    assert!(
        matches!(
            left[..],
            [Action::Reply { result: Err(ProduceError::StorageFailed), .. }, Action::Persist { .. }]
        ),
        "{left:?}"
    );
}

#[test]
fn producers_go_back_with_a_log_that_is_cut() {
    let mut table = ProducerTable::default();
    for (sequence, offset) in [(0, 0), (2, 2), (4, 4)] {
        let stamped = batch(sequence, 2).stamped(Offset(offset), LeaderEpoch::first(Term(1)));
        table.append(stamped.header());
    }
    table.settle(Offset(2));
    table.truncate(Offset(4));
    assert_eq!(table.check(batch(4, 2).header()), SequenceCheck::Accept);
    assert_eq!(
        table.check(batch(2, 2).header()),
        SequenceCheck::Duplicate { base_offset: Offset(2), last_offset: Offset(3) }
    );
    assert_eq!(table.check(batch(6, 2).header()), SequenceCheck::OutOfOrder { expected: 4 });
}

/// In an unclean term a log may lose what was committed (R37). A retry of what is gone must be appended, not be called
/// a duplicate of a batch that nobody holds; and nothing that is left may be appended twice.
#[test]
fn producers_go_back_below_what_was_committed() {
    let epoch = LeaderEpoch::first(Term(1));
    let log = |until: i32| {
        let mut table = ProducerTable::default();
        for sequence in 0..until {
            table.append(batch(sequence, 1).stamped(Offset(sequence as u64), epoch).header());
        }
        table.settle(Offset(until as u64));
        table
    };
    for end in 0..=8 {
        let mut table = log(8);
        table.truncate(Offset(end as u64));
        for sequence in 0..10 {
            let found = table.check(batch(sequence, 1).header());
            match log(end).check(batch(sequence, 1).header()) {
                // The last five of eight are remembered. What lies before them is in the log, and not in the table.
                _ if end <= 3 => assert_eq!(found, SequenceCheck::Unknown, "{sequence} of {end}"),
                SequenceCheck::Duplicate { .. } => {
                    assert_ne!(found, SequenceCheck::Accept, "{sequence} of {end}");
                }
                expected => assert_eq!(found, expected, "{sequence} of {end}"),
            }
        }
    }
    // Of a producer of which nothing was forgotten, all is known.
    let mut table = log(3);
    table.truncate(Offset(1));
    assert!(matches!(table.check(batch(0, 1).header()), SequenceCheck::Duplicate { .. }));
    assert_eq!(table.check(batch(1, 1).header()), SequenceCheck::Accept);
    table.truncate(Offset(0));
    assert_eq!(table, ProducerTable::default());
}

#[test]
fn a_producer_starts_at_zero_and_remembers_five() {
    let mut table = ProducerTable::default();
    assert_eq!(table.check(batch(3, 1).header()), SequenceCheck::Unknown);
    for sequence in 0..6 {
        let stamped = batch(sequence, 1).stamped(Offset(sequence as u64), LeaderEpoch::first(Term(1)));
        table.append(stamped.header());
    }
    assert_eq!(table.check(batch(0, 1).header()), SequenceCheck::OutOfOrder { expected: 6 });
    assert!(matches!(table.check(batch(1, 1).header()), SequenceCheck::Duplicate { .. }));
    assert_eq!(table.check(batch(1, 2).header()), SequenceCheck::OutOfOrder { expected: 6 });
}

#[test]
fn a_term_whose_runs_are_used_up_is_not_led_again() {
    let me = ReplicaId { broker: BrokerId(1), dir: DirId(1) };
    let assignment = Assignment {
        term: Term(3),
        leader: me,
        set: vec![me],
        prev: None,
        learners: vec![],
        unclean_term: None,
    };
    let promise = LeaderEpoch { term: Term(3), run: 255 };
    let loaded = Loaded {
        state: DurableState {
            promise,
            assignment: Some(assignment.clone()),
            nonvoter: false,
            recovered: None,
        },
        ..Loaded::empty(me, Incarnation(1), &assignment)
    };
    let mut replica = Replica::new(Timestamp(1), ReplicaConfig::default(), loaded);
    assert!(!replica.status().active && replica.next_action().is_none());
    replica.handle(Timestamp(2), Event::Assign(Assignment { term: Term(4), ..assignment }));
    assert_eq!(replica.status().epoch, LeaderEpoch::first(Term(4)));
}

#[test]
fn messages_to_another_directory_are_not_answered() {
    let me = ReplicaId { broker: BrokerId(1), dir: DirId(1) };
    let other = ReplicaId { broker: BrokerId(2), dir: DirId(2) };
    let assignment = Assignment {
        term: Term(1),
        leader: other,
        set: vec![me, other],
        prev: None,
        learners: vec![],
        unclean_term: None,
    };
    let loaded = Loaded::empty(me, Incarnation(1), &assignment);
    let mut replica = Replica::new(Timestamp(1), ReplicaConfig::default(), loaded);
    while replica.next_action().is_some() {}
    let to = ReplicaId { dir: DirId(7), ..me };
    let message = Message::Fence { set: assignment.set, prev: None };
    let envelope = Envelope { from: other, to, epoch: LeaderEpoch::first(Term(9)), message };
    replica.handle(Timestamp(2), Event::Receive(envelope));
    assert_eq!(replica.status().epoch, LeaderEpoch::first(Term(1)));
    assert_eq!(replica.next_action(), None);
}

/// What it acknowledged stays counted (R25) and says nothing of what it holds now.
#[test]
fn a_follower_lags_from_a_new_stream_on_and_when_it_is_silent() {
    let [me, other] = [1, 2].map(|number| ReplicaId { broker: BrokerId(number), dir: DirId(number.into()) });
    let (set, epoch) = (vec![me, other], LeaderEpoch::first(Term(1)));
    let assignment =
        Assignment { term: Term(1), leader: me, set, prev: None, learners: vec![], unclean_term: None };
    let config = ReplicaConfig { durability: Durability::Memory, ..ReplicaConfig::default() };
    let silent = Timestamp(1) + config.quorum_timeout + config.lead_interval;
    let mut replica = Replica::new(Timestamp(1), config, Loaded::empty(me, Incarnation(1), &assignment));
    let happens = |replica: &mut Replica, now, event| {
        replica.handle(now, event);
        while replica.next_action().is_some() {}
    };
    let says = |message| Event::Receive(Envelope { from: other, to: me, epoch, message });
    let fetch = says(Message::Fetch {
        position: Position { epoch, end: Offset(1) },
        durable_end: Offset(1),
        incarnation: Incarnation(1),
        kind: FetchKind::Follow,
        restart: false,
        cleaned_end: Offset::ZERO,
    });
    let members = |lags| {
        let member = |replica, lags| MemberStatus { replica, reached: Offset(1), lags };
        vec![member(me, false), member(other, lags)]
    };
    let now = Timestamp(1);
    happens(&mut replica, now, Event::Assign(assignment));
    happens(&mut replica, now, Event::Persisted { number: 1 });
    happens(&mut replica, now, says(Message::FenceOk { position: Position::default(), voter: true }));
    happens(&mut replica, now, fetch.clone());
    assert_eq!(replica.status().members, members(false));
    happens(&mut replica, now, Event::PeerConnected { broker: other.broker });
    assert_eq!(replica.status().members, members(true), "it may have forgotten what it had");
    happens(&mut replica, now, fetch);
    assert_eq!(replica.status().members, members(false));
    happens(&mut replica, silent, Event::Timer);
    assert_eq!(replica.status().members, members(true), "it is silent");
}
