//! Mutants: deliberate bugs, switched on one at a time, which show that the tests would find such a
//! bug. A check that cannot fail is a defect.
//!
//! A mutant can be switched on only with the feature `mutants`, which no released program has.
//! Without it [`is_active`] is the constant `false`, and the program contains no trace of a mutant.
//! With it, the active mutant is thread-local, so that seeds with different bugs run in parallel.
//! That is the only global state in this crate, and it exists only with the feature.
//!
//! A mutant stands behind the rule that it breaks: `… || mutant::is_active(…)`, or a small function
//! whose name ends with `_mutant`. `tests/tests/house_style.rs` checks this.
//!
//! Bugs that affect only speed are deliberately missing, because no property could detect them: a
//! late rejection that is acted on, and a match index that decreases. They move `next_index` back
//! and send entries twice, and the check on the follower makes up for that. A snapshot of entries
//! that are not durable on their node yet does no harm either: a start that finds a log shorter
//! than the snapshot rewrites the log.

/// A deliberate bug. `cargo run --release -p coracle-tests --bin mutants` shows which test finds
/// each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// An acknowledgement is sent before the entries are durable on the follower.
    AckBeforeSync,
    /// The acknowledgement of a call without entries is sent before the entries that it covers are
    /// durable.
    ProbeAckBeforeSync,
    /// A vote is sent before it is durable on the voter.
    VoteBeforeSync,
    /// A leader counts itself for entries that are not durable on its own disk yet.
    LeaderCountsUnsynced,
    /// The late report of a write counts for the entries that replaced the written ones.
    ReportOfCutEntriesCounts,
    /// A leader commits entries of older terms because a majority holds them (§5.4.2).
    OldTermsCommitted,
    /// A new leader does not append an entry of the new term (§8).
    NoopSkipped,
    /// The index that a majority has reached is taken from an unsorted list.
    MajorityUnsorted,
    /// Half of the voters count as a majority.
    HalfIsMajority,
    /// Repeated answers of the same voter count as several votes.
    VotesCountedTwice,
    /// A voter votes for every candidate that asks in a term.
    VoteGivenTwice,
    /// A node forgets its vote when it restarts.
    VoteForgotten,
    /// A node keeps its vote when a new term begins, so that it has none to give in it.
    VoteKeptInNewTerm,
    /// A voter does not compare the candidate's log with its own (§5.4.1).
    CandidateLogUnchecked,
    /// A voter compares the lengths of logs before their last terms (§5.4.1).
    LongerLogPreferred,
    /// A node grants a pre-vote although it hears from a leader.
    PreVoteDespiteLeader,
    /// The answer to any earlier pre-vote counts for the one under way.
    PreVoteRoundIgnored,
    /// Answers of older terms are accepted as answers of the current term.
    OldAnswersAccepted,
    /// A leader answers linearizable reads without confirming that it still leads.
    ReadWithoutQuorum,
    /// A leader uses the same number for all its rounds of reads.
    ReadRoundUsedAgain,
    /// A leader answers linearizable reads before it has committed an entry of its term.
    ReadBeforeOwnCommit,
    /// A linearizable read is answered before its read index is applied.
    ReadIndexNotAwaited,
    /// A leader's lease lasts for the longest election timeout instead of the shortest.
    LeaseTooLong,
    /// A leader that transfers leadership continues to answer reads on its lease.
    LeaseUsedInTransfer,
    /// A leader renews its lease although it has sent TimeoutNow.
    LeaseRenewedAfterCall,
    /// A heartbeat does not reset the follower's election timer.
    HeartbeatKeepsTimer,
    /// A leader without answers from a majority does not step down.
    QuorumUnchecked,
    /// A follower accepts entries although the entry before them has another term in its log.
    PreviousTermUnchecked,
    /// A follower cuts its log where received entries begin, even if it holds the same entries.
    MatchingSuffixCut,
    /// A follower commits its whole log, beyond the entries that the call covers.
    CommitBeyondNewEntries,
    /// A heartbeat carries a commit index beyond the follower's match index.
    HeartbeatCommitUnclamped,
    /// A heartbeat with a commit index beyond the end of a log commits all of that log.
    CommitBeyondOwnLog,
    /// A leader probes where the follower's hint points, without comparing its own terms there.
    HintTermIgnored,
    /// Learners count towards majorities.
    LearnersCounted,
    /// During a change of members the outgoing voters are not counted.
    OutgoingNotAsked,
    /// A change of voters ends before its joint configuration is committed.
    JointLeftEarly,
    /// A leader changes members before it has committed an entry of its term.
    ChangeBeforeOwnCommit,
    /// A node finds itself in a configuration that names another incarnation under its id.
    IncarnationIgnoredBySelf,
    /// Votes and acknowledgements of any incarnation count for the member with the id.
    IncarnationIgnoredByOthers,
    /// A node that lags rejects a later incarnation than the one that it knows.
    LaterIncarnationRefused,
    /// A leader keeps the progress of a follower when another incarnation takes the id.
    ProgressKeptByIncarnations,
    /// Configurations that a cut of the log removes stay in force.
    ConfigurationKeptInCut,
    /// A joined node answers reads before it has applied everything that was committed before it
    /// joined.
    JoinerReadsAtOnce,
    /// A learner that does not answer is promoted.
    SilentLearnerPromoted,
    /// A learner is promoted although it lags far behind.
    LaggardPromoted,
    /// Voters are removed although a majority of the remaining voters does not answer.
    SilentMajorityLeft,
    /// An order to change members is carried out although the members have changed since.
    OutdatedOrderObeyed,
    /// A node is added at the address of another member.
    SharedAddressAccepted,
    /// A leader that has removed itself does not step down.
    RemovedLeaderLeadsOn,
    /// An incarnation from an earlier addition of an id is bound to the id when it is added again.
    RemovedIncarnationBound,
    /// A leader stops sending to a member as soon as it has removed it.
    RemovedMemberNotTold,
    /// A follower commits what its leader names, although its own entry there has another checksum.
    CommitChecksumIgnored,
    /// A message is accepted whatever its term.
    AnyTermBelieved,
    /// A node that waits to join its cluster bootstraps another one with a founder that it meets.
    JoinerFoundsAlong,
    /// A node gives up at the first final refusal, without another one that confirms it.
    FirstRefusalBelieved,
    /// A node that restarts before its log holds its own addition does not know its address.
    JoinedAtIgnored,
    /// A folder with another node's files is treated as empty.
    ForeignFilesAccepted,
    /// A node announces its incarnation before it is durable.
    IncarnationNotSynced,
    /// A node that waits for its cluster draws a new incarnation at each start.
    IncarnationDrawnAgain,
    /// A node accepts its removal from an uncommitted configuration, which may be rolled back.
    RemovalByOpenConfiguration,
    /// A node accepts its removal from a member with an older configuration than its own.
    RemovalByOldConfiguration,
    /// An earlier configuration overrides the later address of a member.
    LaterAddressIgnored,
    /// A member that has moved is still dialled at its old address.
    MoveIgnored,
    /// A node that was moved to another address continues to announce the old one.
    OwnMoveIgnored,
    /// A removed node continues to answer reads.
    RemovedNodeServes,
    /// A node that learns of its removal from another node continues to answer reads.
    DismissedNodeServes,
    /// A node votes although no configuration of its log names its incarnation.
    UnnamedNodeVotes,
    /// A learner is promoted before its log holds the configuration that names it.
    PromotedBeforeItKnowsItself,
    /// Voters are changed without asking the members whether they are reachable.
    MembersNotAsked,
    /// A follower that installs a snapshot drops the entries after it.
    SuffixDropped,
    /// A snapshot leaves out the sessions.
    SessionsLeftOut,
    /// The log is compacted when a snapshot's last part is handed out, before it is durable.
    LogTrimmedEarly,
    /// A snapshot being taken contains later writes.
    FrozenStateChanges,
    /// A snapshot is installed although its content does not match its checksum.
    DamagedSnapshotTaken,
    /// A leader does not repeat its question when it hears nothing about a snapshot.
    SnapshotNotAskedForAgain,
    /// A leader keeps its log for a follower that is being sent a snapshot but no longer answers.
    LogHeldForSilentFollower,
    /// A follower acknowledges a snapshot before it is durable.
    SnapshotAckBeforeSync,
    /// A follower that installs a snapshot keeps a log that does not agree with it.
    ConflictingLogKept,
    /// A replica that installs a snapshot does not move its applied index.
    AppliedNotMoved,
    /// A cut of the log is not written to the disk.
    CutNotPersisted,
    /// The noted floor is the commit index, even where entries are not durable on this node.
    FloorAboveDurable,
    /// The floor is noted only when the term or the vote changes.
    FloorNotNoted,
    /// The first node without files that claims an id becomes the member, at any address.
    AnyAddressBound,
    /// A node that hears of no leader keeps its connections and dials no other member.
    LonelyNodeWaits,
    /// A node that is removed replaces all its connections.
    RemovedNodeRedials,
    /// A node that dials while its address does not answer is treated as a copy permanently.
    RestartRefused,
    /// A copy of a running node's folder is accepted as the node.
    CopyAdmitted,
    /// A removed node ends before its removal is durable.
    RemovalForgotten,
    /// A removed node installs snapshots that no longer name it.
    RemovedNodeCompacts,
    /// A node whose addition was followed by its removal does not learn of the removal if it did
    /// not know of the addition.
    TakenBackNotTold,
    /// A joined node does not store the number of its addition.
    AdditionForgotten,
    /// A node joins by an addition that is not committed and may be rolled back.
    OpenAdditionLetsIn,
    /// An entry's checksum does not cover the entry before it.
    ChainBroken,
    /// Entries are applied and answered before they are committed.
    AppliedBeforeCommit,
    /// An applied entry answers the request that waits for its index, even if its term is another.
    AnsweredByIndex,
    /// A node that has stepped down reports at once that its pending requests had no effect.
    SupersededBeforeCommit,
    /// A restarted node answers reads before it has applied the entries on its disk.
    ReadBeforeCatchUp,
    /// A read is answered by a node that has not applied the entries that the client has seen.
    ReadIgnoresSeen,
    /// A compare-and-swap does not compare the current value.
    SwapIgnoresExpected,
    /// A page of a scan begins with the key after which it should begin.
    ScanRepeatsKey,
    /// A page of a scan leaves out the first key after the page before.
    ScanSkipsKey,
    /// A write does not wait for an earlier write of its connection to the same key.
    WriteOvertakesWrite,
    /// A read does not wait for an earlier write of its connection to the same key.
    ReadOvertakesWrite,
    /// Replies are written as soon as they are known, not in the order of the requests.
    RepliesOutOfOrder,
    /// A forwarded request that arrives twice is executed twice.
    ForwardedAgain,
    /// The numbers of forwarded requests are compared across restarts of their sender.
    ForwardedNumbersKept,
    /// A retried write is applied again.
    RetryExecutedAgain,
    /// A retried write is answered as successful, whatever its first outcome was.
    RetryOutcomeForgotten,
    /// A write of a forgotten client is applied, although it may have been applied before.
    ExpiredSessionTakenForNew,
    /// A write with a forgotten number is applied, although it may have been applied before.
    ForgottenNumberTakenForNew,
    /// The proxy sends requests in flight at one node to the next leader as well.
    RequestSentTwice,
    /// The proxy reports that a write that timed out had no effect.
    TimeoutIsDefinite,
    /// A log entry with a wrong checksum is accepted.
    ChecksumIgnored,
    /// A damaged line in the middle of the log is treated as a torn write, and cut off with all
    /// lines after it.
    DamageCutOff,
    /// The torn end of the log is left in the file.
    TornTailKept,
    /// Zeros before valid lines in the last write are treated as damage.
    HoleIsDamage,
    /// Entries are durable before their term is.
    TermAfterLog,
    /// Entries are reported as durable without a sync of the log.
    LogNotSynced,
    /// A snapshot is renamed into place before its bytes are synced.
    SnapshotNotSynced,
    /// New metadata is renamed into place before its bytes are synced.
    MetaNotSynced,
    /// The folder is not synced, so a rename may be undone.
    FolderNotSynced,
    /// The metadata file is overwritten in place.
    MetaInPlace,
    /// A start does not wait until its repairs are durable.
    RepairsNotSynced,
    /// A link buffers as much as if memory had no limit.
    OutboxShareIgnored,
    /// A leader keeps the log for a follower that catches up, however long the log gets.
    HeldLogUnlimited,
    /// An incomplete frame does not count towards the memory budget.
    UnfinishedFrameNotCounted,
}

/// Returns whether `mutant` is active; always false without the feature `mutants`.
#[cfg(not(feature = "mutants"))]
#[must_use]
#[inline(always)]
pub const fn is_active(_mutant: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
pub use switch::is_active;

#[cfg(feature = "mutants")]
mod switch {
    use std::cell::Cell;
    use std::hint::black_box;

    use super::Mutant;
    use super::Mutant::*;

    thread_local! {
        static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// All mutants with their names, in the order of the enum.
    const NAMED: [(Mutant, &str); 126] = [
        (AckBeforeSync, "ack-before-sync"),
        (ProbeAckBeforeSync, "probe-ack-before-sync"),
        (VoteBeforeSync, "vote-before-sync"),
        (LeaderCountsUnsynced, "leader-counts-unsynced"),
        (ReportOfCutEntriesCounts, "report-of-cut-entries-counts"),
        (OldTermsCommitted, "old-terms-committed"),
        (NoopSkipped, "noop-skipped"),
        (MajorityUnsorted, "majority-unsorted"),
        (HalfIsMajority, "half-is-majority"),
        (VotesCountedTwice, "votes-counted-twice"),
        (VoteGivenTwice, "vote-given-twice"),
        (VoteForgotten, "vote-forgotten"),
        (VoteKeptInNewTerm, "vote-kept-in-new-term"),
        (CandidateLogUnchecked, "candidate-log-unchecked"),
        (LongerLogPreferred, "longer-log-preferred"),
        (PreVoteDespiteLeader, "pre-vote-despite-leader"),
        (PreVoteRoundIgnored, "pre-vote-round-ignored"),
        (OldAnswersAccepted, "old-answers-accepted"),
        (ReadWithoutQuorum, "read-without-quorum"),
        (ReadRoundUsedAgain, "read-round-used-again"),
        (ReadBeforeOwnCommit, "read-before-own-commit"),
        (ReadIndexNotAwaited, "read-index-not-awaited"),
        (LeaseTooLong, "lease-too-long"),
        (LeaseUsedInTransfer, "lease-used-in-transfer"),
        (LeaseRenewedAfterCall, "lease-renewed-after-call"),
        (HeartbeatKeepsTimer, "heartbeat-keeps-timer"),
        (QuorumUnchecked, "quorum-unchecked"),
        (PreviousTermUnchecked, "previous-term-unchecked"),
        (MatchingSuffixCut, "matching-suffix-cut"),
        (CommitBeyondNewEntries, "commit-beyond-new-entries"),
        (HeartbeatCommitUnclamped, "heartbeat-commit-unclamped"),
        (CommitBeyondOwnLog, "commit-beyond-own-log"),
        (HintTermIgnored, "hint-term-ignored"),
        (LearnersCounted, "learners-counted"),
        (OutgoingNotAsked, "outgoing-not-asked"),
        (JointLeftEarly, "joint-left-early"),
        (ChangeBeforeOwnCommit, "change-before-own-commit"),
        (IncarnationIgnoredBySelf, "incarnation-ignored-by-self"),
        (IncarnationIgnoredByOthers, "incarnation-ignored-by-others"),
        (LaterIncarnationRefused, "later-incarnation-refused"),
        (ProgressKeptByIncarnations, "progress-kept-by-incarnations"),
        (ConfigurationKeptInCut, "configuration-kept-in-cut"),
        (JoinerReadsAtOnce, "joiner-reads-at-once"),
        (SilentLearnerPromoted, "silent-learner-promoted"),
        (LaggardPromoted, "laggard-promoted"),
        (SilentMajorityLeft, "silent-majority-left"),
        (OutdatedOrderObeyed, "outdated-order-obeyed"),
        (SharedAddressAccepted, "shared-address-accepted"),
        (RemovedLeaderLeadsOn, "removed-leader-leads-on"),
        (RemovedIncarnationBound, "removed-incarnation-bound"),
        (RemovedMemberNotTold, "removed-member-not-told"),
        (CommitChecksumIgnored, "commit-checksum-ignored"),
        (AnyTermBelieved, "any-term-believed"),
        (JoinerFoundsAlong, "joiner-founds-along"),
        (FirstRefusalBelieved, "first-refusal-believed"),
        (JoinedAtIgnored, "joined-at-ignored"),
        (ForeignFilesAccepted, "foreign-files-accepted"),
        (IncarnationNotSynced, "incarnation-not-synced"),
        (IncarnationDrawnAgain, "incarnation-drawn-again"),
        (RemovalByOpenConfiguration, "removal-by-open-configuration"),
        (RemovalByOldConfiguration, "removal-by-old-configuration"),
        (LaterAddressIgnored, "later-address-ignored"),
        (MoveIgnored, "move-ignored"),
        (OwnMoveIgnored, "own-move-ignored"),
        (RemovedNodeServes, "removed-node-serves"),
        (DismissedNodeServes, "dismissed-node-serves"),
        (UnnamedNodeVotes, "unnamed-node-votes"),
        (PromotedBeforeItKnowsItself, "promoted-before-it-knows-itself"),
        (MembersNotAsked, "members-not-asked"),
        (SuffixDropped, "suffix-dropped"),
        (SessionsLeftOut, "sessions-left-out"),
        (LogTrimmedEarly, "log-trimmed-early"),
        (FrozenStateChanges, "frozen-state-changes"),
        (DamagedSnapshotTaken, "damaged-snapshot-taken"),
        (SnapshotNotAskedForAgain, "snapshot-not-asked-for-again"),
        (LogHeldForSilentFollower, "log-held-for-silent-follower"),
        (SnapshotAckBeforeSync, "snapshot-ack-before-sync"),
        (ConflictingLogKept, "conflicting-log-kept"),
        (AppliedNotMoved, "applied-not-moved"),
        (CutNotPersisted, "cut-not-persisted"),
        (FloorAboveDurable, "floor-above-durable"),
        (FloorNotNoted, "floor-not-noted"),
        (AnyAddressBound, "any-address-bound"),
        (LonelyNodeWaits, "lonely-node-waits"),
        (RemovedNodeRedials, "removed-node-redials"),
        (RestartRefused, "restart-refused"),
        (CopyAdmitted, "copy-admitted"),
        (RemovalForgotten, "removal-forgotten"),
        (RemovedNodeCompacts, "removed-node-compacts"),
        (TakenBackNotTold, "taken-back-not-told"),
        (AdditionForgotten, "addition-forgotten"),
        (OpenAdditionLetsIn, "open-addition-lets-in"),
        (ChainBroken, "chain-broken"),
        (AppliedBeforeCommit, "applied-before-commit"),
        (AnsweredByIndex, "answered-by-index"),
        (SupersededBeforeCommit, "superseded-before-commit"),
        (ReadBeforeCatchUp, "read-before-catch-up"),
        (ReadIgnoresSeen, "read-ignores-seen"),
        (SwapIgnoresExpected, "swap-ignores-expected"),
        (ScanRepeatsKey, "scan-repeats-key"),
        (ScanSkipsKey, "scan-skips-key"),
        (WriteOvertakesWrite, "write-overtakes-write"),
        (ReadOvertakesWrite, "read-overtakes-write"),
        (RepliesOutOfOrder, "replies-out-of-order"),
        (ForwardedAgain, "forwarded-again"),
        (ForwardedNumbersKept, "forwarded-numbers-kept"),
        (RetryExecutedAgain, "retry-executed-again"),
        (RetryOutcomeForgotten, "retry-outcome-forgotten"),
        (ExpiredSessionTakenForNew, "expired-session-taken-for-new"),
        (ForgottenNumberTakenForNew, "forgotten-number-taken-for-new"),
        (RequestSentTwice, "request-sent-twice"),
        (TimeoutIsDefinite, "timeout-is-definite"),
        (ChecksumIgnored, "checksum-ignored"),
        (DamageCutOff, "damage-cut-off"),
        (TornTailKept, "torn-tail-kept"),
        (HoleIsDamage, "hole-is-damage"),
        (TermAfterLog, "term-after-log"),
        (LogNotSynced, "log-not-synced"),
        (SnapshotNotSynced, "snapshot-not-synced"),
        (MetaNotSynced, "meta-not-synced"),
        (FolderNotSynced, "folder-not-synced"),
        (MetaInPlace, "meta-in-place"),
        (RepairsNotSynced, "repairs-not-synced"),
        (OutboxShareIgnored, "outbox-share-ignored"),
        (HeldLogUnlimited, "held-log-unlimited"),
        (UnfinishedFrameNotCounted, "unfinished-frame-not-counted"),
    ];

    /// Returns whether `mutant` is active in this thread.
    ///
    /// While no mutant is active, as in benchmarks, the check costs one read of a byte.
    #[must_use]
    #[inline(always)]
    pub fn is_active(mutant: Mutant) -> bool {
        match black_box(ACTIVE.get()) {
            None => false,
            Some(active) => is_called(active, mutant.name()),
        }
    }

    /// Compares by name, and [`is_active`] reads its byte through `black_box`, so that every
    /// program with the feature contains the names, even if it never activates a mutant: a test
    /// searches the released program for them.
    #[cold]
    #[inline(never)]
    fn is_called(active: Mutant, name: &str) -> bool {
        active.name() == name
    }

    impl Mutant {
        /// All mutants.
        pub fn all() -> impl Iterator<Item = Self> {
            NAMED.iter().map(|(mutant, _)| *mutant)
        }

        /// The name of the mutant on a command line.
        #[must_use]
        pub fn name(self) -> &'static str {
            NAMED[self as usize].1
        }

        /// The mutant with this name.
        #[must_use]
        pub fn from_name(name: &str) -> Option<Self> {
            Self::all().find(|mutant| mutant.name() == name)
        }

        /// Activates a mutant in this thread, or none, instead of the previous one.
        pub fn activate(mutant: Option<Self>) {
            ACTIVE.set(mutant);
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn every_mutant_has_its_own_name() {
            for (position, (mutant, name)) in NAMED.iter().enumerate() {
                assert_eq!(*mutant as usize, position, "{name}");
                assert_eq!(Mutant::from_name(name), Some(*mutant));
            }
        }

        #[test]
        fn the_one_that_was_switched_on_last_is_active() {
            Mutant::activate(Some(AckBeforeSync));
            Mutant::activate(Some(VoteBeforeSync));
            assert!(is_active(VoteBeforeSync) && !is_active(AckBeforeSync));
            Mutant::activate(None);
            assert!(!is_active(VoteBeforeSync));
        }
    }
}
