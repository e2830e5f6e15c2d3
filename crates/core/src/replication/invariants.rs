//! What must hold for one replica after every event. What must hold between replicas is checked by the simulator.

use super::{Replica, Role};

/// The first invariant that does not hold, with its id.
pub(super) fn violation(replica: &Replica) -> Option<String> {
    let end = replica.epochs.end();
    let found = if replica.high_watermark > end {
        "REP-7: high watermark above the log end offset"
    } else if replica.durable_high_watermark > end {
        "REP-7: durable high watermark above the log end offset"
    } else if replica.durable_end > end {
        "REP-7: flushed end above the log end offset"
    } else if replica.high_watermark < replica.epochs.base().end {
        "REP-9: the log starts above the high watermark"
    } else if replica.epochs.last_epoch() > replica.promise {
        "REP-6: the log holds an epoch above the promise"
    } else if !increasing(replica) {
        "REP-3: epochs in the log do not increase"
    } else if leads_foreign_epoch(replica) {
        "REP-4: active without being the leader of its term"
    } else {
        return None;
    };
    Some(format!("{found}: {replica:?}"))
}

fn increasing(replica: &Replica) -> bool {
    let (starts, base) = (replica.epochs.starts(), replica.epochs.base());
    let first = starts.first().is_none_or(|&(epoch, start)| start == base.end && epoch >= base.epoch);
    first && starts.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1)
}

fn leads_foreign_epoch(replica: &Replica) -> bool {
    let Role::Active(leader) = &replica.role else { return false };
    let led = replica
        .assignment
        .as_ref()
        .is_some_and(|assignment| assignment.leader == replica.me && assignment.term >= replica.promise.term);
    !led || replica.epochs.position_at(leader.start + 1).epoch != replica.promise
}
