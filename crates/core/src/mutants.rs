//! Rules left out on purpose, to see that the proofs notice: docs/testing.md, "Mutants".
//!
//! A build with the feature `mutants` runs the same code as any other until mutants are planted; then each site
//! `mutant!(Name)` of a planted one is true, and its rule is not kept. Without the feature a site is the constant `false`
//! and nothing of this module exists but [`CAN_BREAK`].

/// Whether this build can be broken on purpose. The product refuses to be built then.
pub const CAN_BREAK: bool = cfg!(feature = "mutants");

/// Whether that rule is left out just now.
#[cfg(feature = "mutants")]
#[doc(hidden)]
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        $crate::mutants::is_planted($crate::mutants::Mutant::$name)
    };
}

/// Whether that rule is left out just now: never.
#[cfg(not(feature = "mutants"))]
#[doc(hidden)]
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        false
    };
}

#[cfg(feature = "mutants")]
pub use planting::{Mutant, is_planted, plant};

#[cfg(feature = "mutants")]
mod planting {
    use std::collections::BTreeSet;
    use std::sync::OnceLock;

    macro_rules! mutants {
        ($($rule:literal: $($(#[doc = $doc:literal])+ $name:ident,)+)+) => {
            /// A rule that can be left out.
            #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub enum Mutant {
                $($($(#[doc = $doc])+ $name,)+)+
            }

            impl Mutant {
                /// All of them, by the order of their rules.
                pub const ALL: &[Mutant] = &[$($(Mutant::$name,)+)+];

                /// The rule of docs/protocol.md, or the invariant, that is not kept.
                pub fn rule(self) -> &'static str {
                    match self {
                        $($(Mutant::$name)|+ => $rule,)+
                    }
                }

                /// What happens instead, in a line.
                pub fn description(self) -> &'static str {
                    match self {
                        $($(Mutant::$name => concat!($($doc),+).trim_ascii(),)+)+
                    }
                }
            }
        };
    }

    mutants! {
        "R1":
            /// An appointment leaves the term as it is.
            AppointInSameTerm,
        "R2":
            /// A set of replicas is changed in the term that is running.
            ChangeSetInSameTerm,
        "R3":
            /// A change is called complete before the marker is committed.
            CompleteBeforeMarker,
            /// The controllers take a completion of any term.
            CompleteAnyTerm,
        "R4":
            /// A zone may hold a majority of a set.
            ZoneHoldsMajority,
        "R7":
            /// Messages of epochs below the promise are obeyed.
            ObeyOldEpochs,
        "R8":
            /// Messages leave before the promise is on disk.
            SpeakBeforePromise,
            /// A promise is not written at all.
            ForgetPromise,
        "R9":
            /// A leader that promised a higher epoch leads on.
            LeadOnAfterPromise,
            /// What waits when leadership ends is acknowledged.
            AcknowledgeOnStepDown,
        "R10":
            /// A restarted leader enters the epoch that it led.
            ReenterEpoch,
            /// A restarted leader waits for the controllers.
            NoRunAfterRestart,
        "R12":
            /// A fence is answered before the log is flushed.
            FenceBeforeFlush,
        "R13":
            /// One answer is enough to recover.
            RecoverFromMinority,
            /// During a change the new set alone decides.
            RecoverFromNewSet,
        "R14":
            /// The longest log wins, whatever its epoch.
            ElectByLength,
        "R15":
            /// The leader to be is active before it has the winner's log.
            LeadBeforeCopy,
            /// A log is served to be copied although it is another than was reported.
            ServeAnotherLog,
        "R18":
            /// Followers acknowledge what they have not flushed.
            FollowerAcksBeforeFlush,
        "R19":
            /// Any position is accepted as a prefix.
            AcceptAnyPosition,
        "R22":
            /// Data is applied wherever the log stands and whatever it continues.
            ApplyAnywhere,
            /// A late Diverge is obeyed.
            ObeyLateDiverge,
        "R23":
            /// A log is cut to the own high watermark when a leader is met.
            CutToWatermark,
            /// A log that parted is cut in the middle of what is shared.
            CutTooDeep,
        "R24":
            /// Learners are counted.
            CountLearners,
        "R25":
            /// The leader counts itself before its flush.
            LeaderAcksBeforeFlush,
            /// A flush from before a truncation counts after it.
            CountStaleFlush,
        "R26":
            /// One copy is enough to commit.
            CommitAlone,
            /// Batches of earlier epochs are counted before the marker.
            CountOldEpochs,
        "R27":
            /// What is written counts as durable.
            DurableBeforeFlush,
        "R28":
            /// A batch is acknowledged when it is appended.
            AcknowledgeAtOnce,
        "R29":
            /// A follower takes a high watermark that its log does not reach.
            WatermarkAhead,
            /// A follower takes the high watermark of a Lead, for a log that was not compared.
            WatermarkFromLead,
        "R30":
            /// Consumers are served up to the log end.
            ServeAboveWatermark,
        "R33":
            /// A log is opened without a look at its checksums.
            TrustChecksums,
            /// Damage below what was acknowledged is cut like a torn tail.
            CutDamage,
        "R34":
            /// What waits when the log fails is sent all the same.
            SpeakAfterFailure,
            /// That a tail was lost is noted in memory only when the files are opened.
            NoteTailLossInMemory,
            /// A flush that failed counts as done.
            IgnoreFailedFlush,
            /// A flush does not reach the disk.
            FlushNothing,
            /// A truncation does not reach the disk.
            TruncateWithoutSync,
        "R35":
            /// A replica goes on after its log failed.
            GoOnAfterFailure,
            /// A replica whose log failed votes.
            VoteAfterFailure,
            /// A replica that lost its tail votes.
            VoteAfterTailLoss,
            /// A replica whose log was found damaged votes.
            VoteAfterDamage,
            /// That a replica lost its tail is forgotten with its process.
            ForgetTailLoss,
            /// Non-voters are counted.
            CountNonVoters,
        "R36":
            /// A non-voter votes with the first data that it takes.
            RejoinAtOnce,
            /// An answer to an earlier run of the process sets the target.
            TargetOfEarlierRun,
            /// A non-voter votes before it has flushed what it may have lost.
            RejoinBeforeFlush,
        "R37":
            /// A term after an unclean one is unclean too.
            UncleanSticks,
            /// Non-voters count in later runs of an unclean term, too.
            UncleanInLaterRuns,
            /// A later term does not know that there was an unclean one.
            ForgetUncleanTerm,
            /// An unclean recovery waits for replicas that are lost.
            KeepLostReplicas,
            /// New directories take the places of lost ones although a majority is left.
            GiveUpMajority,
            /// What is left of a lost set is not asked by later terms.
            ForgetWhatIsLeft,
            /// A replica that was just put in leads an unclean recovery.
            LeadUncleanWithNothing,
            /// What is left of a lost set is gone back to as if it were one.
            GoBackToWhatIsLeft,
        "R38":
            /// The table of producers does not go back with the log.
            KeepCutSequences,
            /// The table of producers is empty after a start.
            ForgetSequences,
            /// Whose a batch was goes with its last record.
            ForgetCompactedProducers,
        "R39":
            /// A known sequence number is appended again.
            AppendDuplicates,
            /// A gap in the sequence numbers is taken.
            AppendAfterGap,
        "R40":
            /// A duplicate is acknowledged before it is committed.
            AcknowledgeDuplicate,
        "R42":
            /// A verdict hits a broker that was started since.
            FenceLaterRun,
        "R43":
            /// A change begins while another is under way.
            ChangeDuringChange,
        "R44":
            /// A leader trims what is not committed.
            TrimAboveWatermark,
            /// What was known of a producer goes with its batches.
            ForgetTrimmedProducers,
            /// That a log began anew does not reach the disk.
            ResetWithoutSync,
        "R45":
            /// Tombstones go that not all have cleaned behind.
            DropTombstonesAlone,
            /// Tombstones go before the older records of their keys.
            DropUncleaned,
            /// Others are not told that tombstones are gone.
            ForgetGone,
            /// A copy is gone on with from a log that lacks tombstones of older records in it.
            TakeAnyCopy,
            /// What was said to be gone in one log holds for a copy of another one, too.
            KeepBound,
            /// A pass takes what is not committed for later records.
            CompactAboveWatermark,
            /// A log is cut below what was cleaned, and what is left of it stays.
            CutCleaned,
        "R46":
            /// A new replica promises nothing.
            CreateWithoutPromise,
            /// A new replica speaks before what it promised is on disk.
            CreateWithoutPersist,
            /// What is told of a deleted replica counts for the one that is made in its place.
            HearForEarlierLife,
        "META-4":
            /// A map is taken in part.
            AdoptPart,
    }

    static PLANTED: OnceLock<BTreeSet<Mutant>> = OnceLock::new();

    /// Breaks this process: from now on the rules of these mutants are not kept. Only the first call counts.
    pub fn plant(mutants: impl IntoIterator<Item = Mutant>) {
        PLANTED.get_or_init(|| mutants.into_iter().collect());
    }

    /// Whether that mutant was planted.
    pub fn is_planted(mutant: Mutant) -> bool {
        PLANTED.get().is_some_and(|planted| planted.contains(&mutant))
    }
}
