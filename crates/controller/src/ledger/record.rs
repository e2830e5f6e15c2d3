//! What the ledger keeps of one thing that happened. Times are microseconds from the moment that `since` names; one that
//! this controller did not see is absent.

use serde::{Deserialize, Serialize};

/// Rows of single partitions that a record keeps; quantiles are over all partitions.
pub(crate) const MAX_ROWS: usize = 64;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Partitions got other leaders because theirs were gone or stuck.
    Failover,
    /// Leaders moved by plan.
    Move,
    /// The controllers got another leader.
    Election,
    /// A broker came, or came back.
    Registered,
    /// A partition's replicas are where they were to go.
    ReplicasMoved,
    /// Silent brokers were not fenced (LIV-3).
    HeldBack,
    /// An operator had a partition recovered with replicas that may have forgotten (R37).
    Unclean,
}

/// By what, or what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reason {
    /// Streams ended in two zones, and the broker's port refused.
    Refused,
    /// Streams ended in two zones, and no fresh one came in time.
    Reset,
    /// Nothing was heard for the session timeout.
    Silence,
    /// The leading controller judged before this one did.
    Verdict,
    /// The broker's process was started again.
    Restart,
    /// A broker came back, and partitions without leader have one again.
    Return,
    /// The leader did not get on.
    Stalled,
    /// To the preferred leader.
    Home,
    /// Away from a broker that is about to stop.
    Drain,
    /// Replicas move.
    Reassign,
    /// Appointed by name.
    Appointed,
    /// A broker that was not known.
    New,
    /// A broker that was fenced.
    Returned,
    /// Another run of a broker that counted as alive.
    Restarted,
    /// A broker with another address.
    Changed,
    /// The leader before was lost.
    Lost,
    /// As was ordered.
    Ordered,
}

/// Where the times of a record begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Since {
    /// The broker's last stream to this controller ended.
    Cut,
    /// The broker was last heard.
    Heard,
    /// The leader said that it is stuck.
    Stalled,
    /// The entry was applied: nothing earlier is known here.
    Appointed,
    /// The leader of the controllers was lost.
    Lost,
    /// The move began.
    Begun,
}

/// One thing that happened, as one controller saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    pub(crate) reason: Reason,
    pub(crate) since: Since,
    /// Wall clock of `since`, milliseconds since 1970; for display only.
    pub(crate) at_ms: i64,
    /// Whose record it is.
    pub(crate) controller: u64,
    /// Whether that controller led.
    pub(crate) led: bool,
    /// Index of the log entry, the same at all controllers; 0 where there is none.
    #[serde(default)]
    pub(crate) index: u64,
    /// Raft's term.
    pub(crate) term: u64,
    #[serde(default)]
    pub(crate) zone: Option<String>,
    #[serde(default)]
    pub(crate) brokers: Vec<u32>,
    /// Nothing more will be added, and nothing is missing.
    pub(crate) complete: bool,
    #[serde(default)]
    pub(crate) detected_us: Option<u64>,
    #[serde(default)]
    pub(crate) appointed_us: Option<u64>,
    /// How many got another leader.
    #[serde(default)]
    pub(crate) partitions: u32,
    #[serde(default)]
    pub(crate) recovered: Option<Quantiles>,
    #[serde(default)]
    pub(crate) writable: Option<Quantiles>,
    #[serde(default)]
    pub(crate) in_sync: Option<Quantiles>,
    #[serde(default)]
    pub(crate) shares: Option<Shares>,
    /// The slowest partitions, in order of topic and number.
    #[serde(default)]
    pub(crate) rows: Vec<Row>,
    #[serde(default)]
    pub(crate) election: Option<Election>,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) from: u32,
    pub(crate) to: u32,
    /// The partition's term.
    pub(crate) term: u32,
    #[serde(default)]
    pub(crate) recovered_us: Option<u64>,
    #[serde(default)]
    pub(crate) writable_us: Option<u64>,
    #[serde(default)]
    pub(crate) in_sync_us: Option<u64>,
    /// Another leader was appointed before this one was in sync.
    #[serde(default)]
    pub(crate) superseded: bool,
}

/// Times of partitions, by nearest rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    pub(crate) count: u32,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) max_us: u64,
}

/// Where the time until partitions were writable went, over all of them; the sum is 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Shares {
    pub(crate) detect: f64,
    pub(crate) appoint: f64,
    pub(crate) recover: f64,
    pub(crate) commit: f64,
}

/// A change of the controllers' leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Election {
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// When the new leader was known here.
    pub(crate) elected_us: u64,
    /// When its first entry was applied here.
    #[serde(default)]
    pub(crate) applied_us: Option<u64>,
}

impl Quantiles {
    /// Of no times there are none.
    pub(crate) fn of(mut times: Vec<u64>) -> Option<Quantiles> {
        times.sort_unstable();
        let rank =
            |percent: usize| times.get((times.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        let count = u32::try_from(times.len()).unwrap_or(u32::MAX);
        Some(Quantiles { count, p50_us: rank(50)?, p99_us: rank(99)?, max_us: rank(100)? })
    }
}

impl Shares {
    /// Of partitions that were detected and appointed at those times, and recovered and writable at theirs.
    pub(crate) fn of(detected: u64, appointed: u64, rows: &[(u64, u64)]) -> Option<Shares> {
        let sum = |step: fn(&(u64, u64)) -> u64| rows.iter().map(step).sum::<u64>() as f64;
        let count = rows.len() as f64;
        let total = sum(|&(_, writable)| writable);
        if total <= 0.0 {
            return None;
        }
        let (detected, appointed) = (detected as f64 * count, appointed as f64 * count);
        let recovered = sum(|&(recovered, _)| recovered);
        Some(Shares {
            detect: detected / total,
            appoint: (appointed - detected) / total,
            recover: (recovered - appointed) / total,
            commit: (total - recovered) / total,
        })
    }
}

impl Record {
    /// What tells records of different things apart. Later words on the same thing have the same.
    pub(crate) fn key(&self) -> (Kind, u64, u64, i64) {
        let at = if self.kind == Kind::HeldBack { self.at_ms } else { 0 };
        (self.kind, self.index, self.term, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_nearest_rank() {
        assert_eq!(Quantiles::of(vec![]), None);
        let hundred = Quantiles::of((1..=100).rev().collect()).unwrap();
        assert_eq!((hundred.count, hundred.p50_us, hundred.p99_us, hundred.max_us), (100, 50, 99, 100));
        let two = Quantiles::of(vec![9, 7]).unwrap();
        assert_eq!((two.p50_us, two.p99_us, two.max_us), (7, 9, 9));
    }

    #[test]
    fn shares_add_up() {
        let shares = Shares::of(10, 20, &[(40, 100), (60, 100)]).unwrap();
        assert_eq!(shares, Shares { detect: 0.1, appoint: 0.1, recover: 0.3, commit: 0.5 });
        assert_eq!(Shares::of(0, 0, &[]), None);
    }
}
