//! Deliberate bugs, one at a time, to prove that the tests would notice them: a check that cannot
//! fail is a defect.
//!
//! Only with the feature `mutants`, which no shipped program has, can one be switched on. Without
//! it [`is_active`] is the constant `false`, and no trace of a mutant is left in the program. With
//! it, the mutant is a thread's own: so seeds run side by side with different bugs. That is the one
//! piece of global state in this crate, and it is gone with the feature.
//!
//! Deliberately missing are changes that break nothing but speed, so that no property could tell
//! them: a late rejection that is acted on, and a match index that falls. `next_index` is moved
//! back, entries are sent twice, and the follower's own check makes up for it. A snapshot of
//! entries that are not on the node's own disk yet does no harm either: a start that finds a
//! shorter log makes it anew.

/// A deliberate bug. `cargo run --release -p coracle-tests --bin mutants` shows what notices each
/// of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// An acknowledgement leaves before the entries are on the follower's disk.
    AckBeforeSync,
    /// The acknowledgement of a call without entries leaves before those that it vouches for are on
    /// disk.
    ProbeAckBeforeSync,
    /// A vote leaves before it is on the voter's disk.
    VoteBeforeSync,
    /// A leader counts entries towards a majority that are not on its own disk yet.
    LeaderCountsUnsynced,
    /// The late report of a write counts for the entries that took the place of what was written.
    ReportOfCutEntriesCounts,
    /// A leader commits entries of older terms because a majority holds them (§5.4.2).
    OldTermsCommitted,
    /// A new leader does not append an entry of its own term (§8).
    NoopSkipped,
    /// What a majority has reached is picked from numbers that were not sorted.
    MajorityUnsorted,
    /// Half of the voters are taken for a majority.
    HalfIsMajority,
    /// Answers are counted as votes, however often the same voter sends its own.
    VotesCountedTwice,
    /// A voter gives its vote to everyone who asks in a term.
    VoteGivenTwice,
    /// A node forgets whom it voted for when it is restarted.
    VoteForgotten,
    /// A node that votes in one term has no vote in the next.
    VoteKeptInNewTerm,
    /// A voter does not compare the candidate's log with its own (§5.4.1).
    CandidateLogUnchecked,
    /// A voter compares the lengths of logs before the terms of their ends (§5.4.1).
    LongerLogPreferred,
    /// A node grants a pre-vote although it hears from a leader.
    PreVoteDespiteLeader,
    /// The answer to any earlier pre-vote counts for the one under way.
    PreVoteRoundIgnored,
    /// Answers of older terms are taken for answers of this one.
    OldAnswersAccepted,
    /// A leader answers linearizable reads without asking whether it still leads.
    ReadWithoutQuorum,
    /// A leader begins its rounds of reads with one and the same number.
    ReadRoundUsedAgain,
    /// A leader answers linearizable reads before it has committed anything itself.
    ReadBeforeOwnCommit,
    /// A linearizable read is answered before what it has to see is applied.
    ReadIndexNotAwaited,
    /// A leader's lease lasts as long as its followers may stay quiet, not as long as they must.
    LeaseTooLong,
    /// A leader that hands leadership over goes on answering reads on its lease.
    LeaseUsedInTransfer,
    /// A leader renews its lease although it has called for an election.
    LeaseRenewedAfterCall,
    /// A heartbeat does not put off the follower's campaign.
    HeartbeatKeepsTimer,
    /// A leader that hears from no majority goes on.
    QuorumUnchecked,
    /// A follower takes entries although the one before them is of another term in its log.
    PreviousTermUnchecked,
    /// A follower cuts its log where entries arrive, also when it holds the very same.
    MatchingSuffixCut,
    /// A follower commits as much as the leader has, whatever it holds itself of the leader's log.
    CommitBeyondNewEntries,
    /// A heartbeat tells of commits that the follower is not known to hold.
    HeartbeatCommitUnclamped,
    /// A heartbeat that names more than a log holds commits all of that log.
    CommitBeyondOwnLog,
    /// A leader probes where the follower's hint points, without looking at its own terms there.
    HintTermIgnored,
    /// Learners count towards majorities.
    LearnersCounted,
    /// In a change of members the voters on their way out are not asked.
    OutgoingNotAsked,
    /// A change of voters ends before its first entry is committed.
    JointLeftEarly,
    /// A leader changes members before it has committed anything itself.
    ChangeBeforeOwnCommit,
    /// A node takes a configuration for its own that names another incarnation under its id.
    IncarnationIgnoredBySelf,
    /// Votes and acknowledgements of any incarnation count for the member of the id.
    IncarnationIgnoredByOthers,
    /// A node that is behind refuses a later incarnation than the one that it knows.
    LaterIncarnationRefused,
    /// What a leader knows of a follower is kept when another incarnation takes its id.
    ProgressKeptByIncarnations,
    /// A cut of the log leaves the configurations that it removed in force.
    ConfigurationKeptInCut,
    /// A node that has joined answers reads before it has applied what was committed by then.
    JoinerReadsAtOnce,
    /// A learner is promoted that does not answer.
    SilentLearnerPromoted,
    /// A learner is promoted however much of the log it lacks.
    LaggardPromoted,
    /// Voters are removed although a majority of those that are left does not answer.
    SilentMajorityLeft,
    /// An order to change members is carried out for whatever configuration is in force.
    OutdatedOrderObeyed,
    /// A node is added at the address of another member.
    SharedAddressAccepted,
    /// A leader that has removed itself leads on.
    RemovedLeaderLeadsOn,
    /// An incarnation that was let in as an earlier addition of its id is bound when the id is
    /// added again.
    RemovedIncarnationBound,
    /// A leader sends nothing more to a member that it has removed.
    RemovedMemberNotTold,
    /// A follower takes for committed what its leader names, although its own entry there has
    /// another checksum.
    CommitChecksumIgnored,
    /// Any term that a message names is believed.
    AnyTermBelieved,
    /// A node that waits for its cluster founds another one with a founder that it meets.
    JoinerFoundsAlong,
    /// A node without a cluster believes the first that says that it lost its files.
    FirstRefusalBelieved,
    /// A node that is stopped while it joins does not know where it was added.
    JoinedAtIgnored,
    /// A folder that holds another node's files is taken for an empty one.
    ForeignFilesAccepted,
    /// A node names its incarnation to others before that is on its disk.
    IncarnationNotSynced,
    /// A node that waits for its cluster draws another incarnation at each start.
    IncarnationDrawnAgain,
    /// A node is told that it was removed by a configuration that may be rolled back.
    RemovalByOpenConfiguration,
    /// A node is told that it was removed by a member that knows less than it does.
    RemovalByOldConfiguration,
    /// A member that knows a later configuration is looked for where an earlier one says.
    LaterAddressIgnored,
    /// A member that moved is looked for where it was.
    MoveIgnored,
    /// A node that an order has moved goes on saying that it is where it was when it started.
    OwnMoveIgnored,
    /// A node that was removed goes on answering reads.
    RemovedNodeServes,
    /// A node that hears from another one that it was removed goes on answering reads.
    DismissedNodeServes,
    /// A node votes although no configuration of its log names its incarnation.
    UnnamedNodeVotes,
    /// A learner is promoted before its log holds the entry that names it.
    PromotedBeforeItKnowsItself,
    /// Voters are changed without asking the members whether they are there.
    MembersNotAsked,
    /// A follower that installs a snapshot drops what its log holds beyond.
    SuffixDropped,
    /// What a snapshot says of sessions is left out.
    SessionsLeftOut,
    /// A log is trimmed when the last part of the snapshot is handed out, not when it is durable.
    LogTrimmedEarly,
    /// A snapshot under way has what is written meanwhile.
    FrozenStateChanges,
    /// A snapshot is taken over whose content is not what was sent.
    DamagedSnapshotTaken,
    /// A leader does not ask again when it hears nothing of a snapshot.
    SnapshotNotAskedForAgain,
    /// A leader holds its log for a follower that is being sent a snapshot and says nothing any
    /// more.
    LogHeldForSilentFollower,
    /// A follower says that it has a snapshot before that is on its disk.
    SnapshotAckBeforeSync,
    /// A follower that installs a snapshot keeps a log that does not agree with it.
    ConflictingLogKept,
    /// A replica that installs a snapshot does not note how much of the log is applied by that.
    AppliedNotMoved,
    /// A cut of the log is not written to the disk.
    CutNotPersisted,
    /// The floor that is noted on disk is what is committed, durable on this node or not.
    FloorAboveDurable,
    /// The floor is noted only when the term or the vote changes.
    FloorNotNoted,
    /// The first node without files that claims an id becomes the member, wherever that was added.
    AnyAddressBound,
    /// A node that hears of no leader keeps the connections that it has.
    LonelyNodeWaits,
    /// A node that dials while its address does not answer is taken for a copy for ever.
    RestartRefused,
    /// A copy of a running node's folder passes for the node.
    CopyAdmitted,
    /// A removed node ends before the removal is on its disk.
    RemovalForgotten,
    /// A node that was removed takes snapshots that say nothing of it any more.
    RemovedNodeCompacts,
    /// A node whose addition was followed by its removal is not told so as long as it does not know
    /// that it was a member.
    TakenBackNotTold,
    /// A node that joined does not keep by which addition it was let in.
    AdditionForgotten,
    /// A node is let in by an addition that may be rolled back.
    OpenAdditionLetsIn,
    /// An entry's checksum does not cover the entry before it.
    ChainBroken,
    /// Entries are applied and answered before they are committed.
    AppliedBeforeCommit,
    /// An applied entry answers the request that waits for its index, whichever term put it there.
    AnsweredByIndex,
    /// A node that no longer leads tells its requests at once that they had no effect.
    SupersededBeforeCommit,
    /// A restarted node answers reads before it has applied what its disk held.
    ReadBeforeCatchUp,
    /// A read is answered by a node that has not applied what the asker has seen.
    ReadIgnoresSeen,
    /// A swap does not look at the value that is there.
    SwapIgnoresExpected,
    /// A page of a scan begins with the key that it is to begin after.
    ScanRepeatsKey,
    /// A page of a scan leaves out the first key after the page before.
    ScanSkipsKey,
    /// A write does not wait for an earlier write of its connection to the same key.
    WriteOvertakesWrite,
    /// A read does not wait for an earlier write of its connection to the same key.
    ReadOvertakesWrite,
    /// Replies of a connection are written as soon as they are known, not in the order of the
    /// requests.
    RepliesOutOfOrder,
    /// A forwarded request that arrives a second time is carried out again.
    ForwardedAgain,
    /// The numbers of forwarded requests are compared across restarts of their sender.
    ForwardedNumbersKept,
    /// A write that its client sends again is done again.
    RetryExecutedAgain,
    /// A write that its client sends again is answered as done, whatever its first outcome was.
    RetryOutcomeForgotten,
    /// A write of a client that was forgotten is done, although it may have been done before.
    ExpiredSessionTakenForNew,
    /// A write whose number was forgotten is done, although it may have been done before.
    ForgottenNumberTakenForNew,
    /// The proxy sends requests that are at one node to the next leader as well.
    RequestSentTwice,
    /// The proxy says that nothing happened when a write's time is over.
    TimeoutIsDefinite,
    /// A log entry whose checksum is wrong is taken for right.
    ChecksumIgnored,
    /// A damaged line in the middle of a log is taken for a torn write, and cut off with all after
    /// it.
    DamageCutOff,
    /// The torn end of a log is left in the file.
    TornTailKept,
    /// Zeros before valid lines in the last write are taken for damage.
    HoleIsDamage,
    /// Entries are on disk before the term that they belong to.
    TermAfterLog,
    /// Entries are reported as durable without a sync of the log.
    LogNotSynced,
    /// A snapshot takes its place before its bytes are on disk.
    SnapshotNotSynced,
    /// New metadata takes its place before its bytes are on disk.
    MetaNotSynced,
    /// Names in the folder are not synced, so a rename may be undone.
    FolderNotSynced,
    /// The metadata is written in place.
    MetaInPlace,
    /// A start does not wait for its repairs to be on disk.
    RepairsNotSynced,
    /// A link holds as much as where memory has no limit.
    OutboxShareIgnored,
    /// A leader keeps the log for a follower that catches up, however long that gets.
    HeldLogUnlimited,
    /// A frame that has not ended does not count in the memory budget.
    UnfinishedFrameNotCounted,
}

/// Whether `mutant` is switched on, which it never is without the feature `mutants`.
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

    /// Every mutant with its name, in the order of the enum.
    const NAMED: [(Mutant, &str); 125] = [
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

    /// Whether `mutant` is the one that this thread has switched on.
    ///
    /// While none is, which is how the core is measured, that is a look at one byte.
    #[must_use]
    #[inline(always)]
    pub fn is_active(mutant: Mutant) -> bool {
        match black_box(ACTIVE.get()) {
            None => false,
            Some(active) => is_called(active, mutant.name()),
        }
    }

    /// Compares names, and the byte is read behind the optimiser's back, so that every program with
    /// the feature has the names in it, even if it never switches one on: a test looks for them in
    /// the program that ships.
    #[cold]
    #[inline(never)]
    fn is_called(active: Mutant, name: &str) -> bool {
        active.name() == name
    }

    impl Mutant {
        /// All of them.
        pub fn all() -> impl Iterator<Item = Self> {
            NAMED.iter().map(|(mutant, _)| *mutant)
        }

        /// What it is called on a command line.
        #[must_use]
        pub fn name(self) -> &'static str {
            NAMED[self as usize].1
        }

        /// The one with this name.
        #[must_use]
        pub fn from_name(name: &str) -> Option<Self> {
            Self::all().find(|mutant| mutant.name() == name)
        }

        /// Switches a mutant on in this thread, or none, in the place of the one before.
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
