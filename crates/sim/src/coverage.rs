//! What a run came across: proof that the simulation reaches the states that the rules are for.

use std::collections::BTreeMap;
use std::fmt;

macro_rules! sights {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// Something worth having seen.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Sight {
            $($(#[$doc])* $name,)*
        }

        impl Sight {
            /// All of them.
            pub const ALL: &[Sight] = &[$(Sight::$name,)*];

            fn text(self) -> &'static str {
                match self {
                    $(Sight::$name => $text,)*
                }
            }
        }
    };
}

sights! {
    /// A leader to be asked another replica for its log (R15).
    ForeignCopy => "a foreign log copied",
    /// A log that had parted was cut (R23).
    DivergedCut => "a diverged log cut",
    /// Two replicas led at once, in different epochs.
    TwoActives => "two leaders at once",
    /// A leader led in a run after the first (R10).
    LaterRun => "a leader without a controller's help",
    /// A non-voter was fenced (R35).
    NonVoterAsked => "a non-voter asked for its vote",
    /// A non-voter votes again (R36).
    Rejoined => "a non-voter voting again",
    /// A batch that had been appended before was acknowledged (R40).
    DuplicateAcknowledged => "a duplicate acknowledged",
    /// Bytes behind the last good batch were cut at a start (R33).
    TornTail => "a torn tail cut",
    /// A log was opened from a checkpoint on, without reading what is below.
    NotedLog => "a start from a checkpoint",
    /// A log was shorter after a start.
    TailLost => "an unflushed tail lost",
    /// The front of a log was trimmed (R44).
    Trimmed => "a log trimmed",
    /// A log that lacked what was trimmed began anew (R44).
    BegunAnew => "a log begun anew",
    /// Records were removed from a log because their keys have later ones (R45).
    Compacted => "a log compacted",
    /// A log was copied from one that had been compacted (R45).
    CompactedCopied => "compacted batches copied",
    /// A tombstone was dropped (R45).
    TombstoneDropped => "a tombstone dropped",
    /// A process died, or its machine, in the middle of a pass of the compaction.
    DiedCompacting => "a death during a compaction",
    /// A log was put aside for damage (R33).
    Quarantined => "a damaged log put aside",
    /// A process started from a log that was closed in order.
    CleanStart => "a start after an orderly end",
    /// An operator ordered an unclean recovery (R37).
    UncleanOrder => "an unclean recovery ordered",
    /// New directories took the places of lost ones in an unclean recovery (R37).
    LostReplaced => "lost disks given up in an unclean recovery",
    /// An unclean recovery ended a change whose old or new set was lost (R37).
    ChangeGivenUp => "a change ended by an unclean recovery",
    /// What was committed and never durable was lost in an unclean term (R37).
    UncleanLoss => "an unclean loss",
    /// A bit turned on a disk.
    BitTurned => "a bit turned",
    /// A write to a log failed.
    WriteFailed => "a failed write",
    /// A flush of a log failed.
    FlushFailed => "a failed flush",
    /// A read from a log failed, or found damage.
    ReadFailed => "a failed read",
    /// A promise could not be written: the process ended.
    PromiseFailed => "a failed write of a promise",
    /// The machine lost power while a process started.
    DiedStarting => "a power cut during a start",
    /// A process that stood still went on, with what had piled up.
    Resumed => "a burst after a pause",
    /// One that led before it stood still found another leader in its place.
    Zombie => "a leader deposed while it stood still",
    /// Fewer than a majority of a set ran, and a majority did again.
    QuorumBack => "a majority lost and back",
    /// A record was committed while a zone was dead.
    CommitWithoutZone => "a commit with a zone dead",
    /// A record was committed while no controller could be reached.
    CommitWithoutController => "a commit without controllers",
    /// A leader restarted and committed while no controller could be reached.
    RestartWithoutController => "a leader restarted without controllers",
    /// A replica that will not come back got a substitute.
    Replacement => "a substitute chosen",
    /// Learners had caught up and became members (R2, R6).
    SetChanged => "learners made members",
    /// The set being left was forgotten (R3).
    ChangeCompleted => "a change completed",
    /// A set that was being left was gone back to (R2, R43).
    GoneBack => "a change gone back",
    /// A replica that was named no more was deleted (R46).
    Deleted => "a replica deleted",
    /// A leader was moved to where the partition is at home.
    HandedOver => "a leader gone home",
    /// A broker that was about to stop gave up what it led.
    Drained => "a broker drained",
    /// A data directory was lost, and the broker came back with another.
    Wiped => "a disk lost and replaced",
    /// A command from before was proposed again, and changed something.
    StaleCommandTaken => "a late command that was taken",
    /// A command from before was proposed again, and changed nothing.
    StaleCommandIgnored => "a late command that was ignored",
}

/// How often each was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    seen: BTreeMap<Sight, u64>,
}

impl Coverage {
    /// It was seen.
    pub(crate) fn see(&mut self, sight: Sight) {
        *self.seen.entry(sight).or_insert(0) += 1;
    }

    /// It was seen, if so.
    pub(crate) fn count(&mut self, sight: Sight, seen: bool) {
        if seen {
            self.see(sight);
        }
    }

    /// How often it was seen.
    pub fn of(&self, sight: Sight) -> u64 {
        self.seen.get(&sight).copied().unwrap_or(0)
    }

    /// Takes in what another run came across.
    pub fn add(&mut self, other: &Coverage) {
        for (&sight, &count) in &other.seen {
            *self.seen.entry(sight).or_insert(0) += count;
        }
    }

    /// What was never seen.
    pub fn missing(&self) -> Vec<Sight> {
        Sight::ALL.iter().copied().filter(|&sight| self.of(sight) == 0).collect()
    }
}

impl fmt::Display for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, &sight) in Sight::ALL.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}  {:>9}  {sight}", self.of(sight))?;
        }
        Ok(())
    }
}
