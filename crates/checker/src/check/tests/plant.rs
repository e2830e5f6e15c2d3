//! Plants a defect of a certain kind in a sound history.

use proptest::sample::Index;

use crate::anomaly::Kind;
use crate::history::{Event, PollStage, SendStage, What};

/// Kinds that can be planted in most histories. The others need a batch of unknown outcome in a certain place.
pub(super) const PLANTED: [Kind; 16] = [
    Kind::InconsistentOffsets,
    Kind::LostWrite,
    Kind::Unseen,
    Kind::Duplicate,
    Kind::AbortedRead,
    Kind::PrecommittedRead,
    Kind::IntPollSkip,
    Kind::IntNonmonotonicPoll,
    Kind::PollSkip,
    Kind::NonmonotonicPoll,
    Kind::NonmonotonicSend,
    Kind::Phantom,
    Kind::ReadAboveWatermark,
    Kind::WatermarkRegression,
    Kind::EpochRegression,
    Kind::LateAck,
];

/// Plants a defect; `None` where the history has no place for it.
pub(super) fn plant(kind: Kind, history: &mut Vec<Event>, pick: Index) -> Option<()> {
    match kind {
        Kind::LostWrite | Kind::Unseen => {
            let value = value_of(&history[pick_ack(history, pick)?]);
            let &(offset, _) = all(history).iter().find(|record| record.1 == value)?;
            let tail = kind == Kind::Unseen;
            if !tail && all(history).last()?.0 == offset {
                return None; // nothing was read past it
            }
            drop_everywhere(history, |record| record.0 == offset || tail && record.0 > offset);
        }
        Kind::AbortedRead => {
            let ack = pick_ack(history, pick)?;
            *stage_mut(&mut history[ack]) = SendStage::Fail { error: "NOT_LEADER: no".into() };
        }
        Kind::Duplicate => {
            let all = all(history);
            let again = (all.last()?.0 + 1, all[pick.index(all.len())].1);
            records_mut(history.last_mut()?).push(again);
        }
        Kind::NonmonotonicSend | Kind::EpochRegression | Kind::LateAck => plant_in_ack(kind, history)?,
        _ => plant_in_poll(kind, history, pick)?,
    }
    Some(())
}

fn plant_in_poll(kind: Kind, history: &mut Vec<Event>, pick: Index) -> Option<()> {
    let at_least = match kind {
        Kind::IntPollSkip => 3,
        Kind::IntNonmonotonicPoll | Kind::PollSkip => 2,
        _ => 1,
    };
    let poll = pick_poll(history, at_least, pick)?;
    let all = all(history);
    let records = records_mut(&mut history[poll]);
    let first = records[0];
    match kind {
        Kind::InconsistentOffsets => records[0].1 = all.iter().find(|other| **other != first)?.1,
        Kind::Phantom => records[0].1 = u64::MAX,
        Kind::IntPollSkip => _ = records.remove(1),
        Kind::PollSkip => _ = records.remove(0),
        Kind::IntNonmonotonicPoll => records.swap(0, 1),
        Kind::PrecommittedRead => records_mut(history.last_mut()?).retain(|&other| other != first),
        Kind::NonmonotonicPoll => repeat(history, poll, None),
        Kind::WatermarkRegression => repeat(history, poll, Some(0)),
        Kind::ReadAboveWatermark => {
            let last = records.last()?.0;
            *watermark_mut(&mut history[poll]) = Some(last);
        }
        _ => return None,
    }
    Some(())
}

/// The same process polls and gets the same once more, perhaps with another high watermark.
fn repeat(history: &mut Vec<Event>, poll: usize, watermark: Option<u64>) {
    let (mut invoke, mut again) = (history[poll - 1].clone(), history[poll].clone());
    (invoke.op, again.op) = (u64::MAX, u64::MAX);
    if watermark.is_some() {
        *watermark_mut(&mut again) = watermark;
    }
    history.splice(poll + 1..poll + 1, [invoke, again]);
}

/// Spoils an acknowledgement of a send that began behind another acknowledgement.
fn plant_in_ack(kind: Kind, history: &mut [Event]) -> Option<()> {
    let acks = acks(history);
    let later = |first: usize, second: usize| {
        let began = began(history, second);
        let same = history[first].process == history[second].process;
        began > first && (same || kind != Kind::NonmonotonicSend)
    };
    let pairs = acks.iter().flat_map(|&first| acks.iter().map(move |&second| (first, second)));
    let (_, ack) =
        pairs.filter(|&(first, second)| first < second).find(|&(first, second)| later(first, second))?;
    if kind == Kind::LateAck {
        let began = began(history, ack);
        let deadline_us = Some(history[began].at_us);
        *stage_mut(&mut history[began]) = SendStage::Invoke { deadline_us };
    }
    if let SendStage::Ok { base_offset, epoch } = stage_mut(&mut history[ack]) {
        match kind {
            Kind::EpochRegression => *epoch = Some(0),
            Kind::NonmonotonicSend => *base_offset = 0,
            _ => {}
        }
    }
    Some(())
}

/// Where the operation of an event began.
fn began(history: &[Event], end: usize) -> usize {
    let same = |event: &Event| (event.process, event.op) == (history[end].process, history[end].op);
    history.iter().position(same).unwrap()
}

fn acks(history: &[Event]) -> Vec<usize> {
    let is_ack =
        |event: &Event| matches!(&event.what, What::Send(send) if matches!(send.stage, SendStage::Ok { .. }));
    (0..history.len()).filter(|&index| is_ack(&history[index])).collect()
}

fn pick_ack(history: &[Event], pick: Index) -> Option<usize> {
    let acks = acks(history);
    (!acks.is_empty()).then(|| acks[pick.index(acks.len())])
}

/// A poll with at least so many records that succeeded, the final one excepted.
fn pick_poll(history: &[Event], at_least: usize, pick: Index) -> Option<usize> {
    let long = |event: &Event| records_of(event).is_some_and(|records| records.len() >= at_least);
    let polls: Vec<usize> = (0..history.len() - 1).filter(|&index| long(&history[index])).collect();
    (!polls.is_empty()).then(|| polls[pick.index(polls.len())])
}

/// All records, as the final poll read them.
fn all(history: &[Event]) -> Vec<(u64, u64)> {
    history.last().and_then(records_of).unwrap().clone()
}

fn drop_everywhere(history: &mut [Event], wanted: impl Fn((u64, u64)) -> bool) {
    for event in history {
        if let What::Poll(poll) = &mut event.what
            && let PollStage::Ok { records, .. } | PollStage::Info { records, .. } = &mut poll.stage
        {
            records.retain(|&record| !wanted(record));
        }
    }
}

fn value_of(event: &Event) -> u64 {
    let What::Send(send) = &event.what else { panic!("a send was picked") };
    send.values[0]
}

fn stage_mut(event: &mut Event) -> &mut SendStage {
    let What::Send(send) = &mut event.what else { panic!("a send was picked") };
    &mut send.stage
}

fn records_of(event: &Event) -> Option<&Vec<(u64, u64)>> {
    let What::Poll(poll) = &event.what else { return None };
    let PollStage::Ok { records, .. } = &poll.stage else { return None };
    Some(records)
}

fn records_mut(event: &mut Event) -> &mut Vec<(u64, u64)> {
    let What::Poll(poll) = &mut event.what else { panic!("a poll was picked") };
    let PollStage::Ok { records, .. } = &mut poll.stage else { panic!("one that succeeded was picked") };
    records
}

fn watermark_mut(event: &mut Event) -> &mut Option<u64> {
    let What::Poll(poll) = &mut event.what else { panic!("a poll was picked") };
    let PollStage::Ok { high_watermark, .. } = &mut poll.stage else {
        panic!("one that succeeded was picked")
    };
    high_watermark
}
