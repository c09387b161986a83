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

macro_rules! mutants {
    ($($(#[doc = $doc:literal])+ $mutant:ident = $name:literal,)+) => {
        /// A deliberate bug. `cargo run --release -p coracle-tests --bin mutants` shows which test
        /// finds each of them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[doc = $doc])+ $mutant,)+
        }

        /// The mutants with their names on a command line, in the order of the enum.
        #[cfg(feature = "mutants")]
        const NAMED: &[(Mutant, &str)] = &[$((Mutant::$mutant, $name),)+];
    };
}

mutants! {
    /// An acknowledgement is sent before the entries are durable on the follower.
    AckBeforeSync = "ack-before-sync",
    /// The acknowledgement of a call without entries is sent before the entries that it covers are
    /// durable.
    ProbeAckBeforeSync = "probe-ack-before-sync",
    /// A vote is sent before it is durable on the voter.
    VoteBeforeSync = "vote-before-sync",
    /// A leader counts itself for entries that are not durable on its own disk yet.
    LeaderCountsUnsynced = "leader-counts-unsynced",
    /// The late report of a write counts for the entries that replaced the written ones.
    ReportOfCutEntriesCounts = "report-of-cut-entries-counts",
    /// A leader commits entries of older terms because a majority holds them (§5.4.2).
    OldTermsCommitted = "old-terms-committed",
    /// A new leader does not append an entry of the new term (§8).
    NoopSkipped = "noop-skipped",
    /// The index that a majority has reached is taken from an unsorted list.
    MajorityUnsorted = "majority-unsorted",
    /// Half of the voters count as a majority.
    HalfIsMajority = "half-is-majority",
    /// Repeated answers of the same voter count as several votes.
    VotesCountedTwice = "votes-counted-twice",
    /// A voter votes for every candidate that asks in a term.
    VoteGivenTwice = "vote-given-twice",
    /// A node forgets its vote when it restarts.
    VoteForgotten = "vote-forgotten",
    /// A node keeps its vote when a new term begins, so that it has none to give in it.
    VoteKeptInNewTerm = "vote-kept-in-new-term",
    /// A voter does not compare the candidate's log with its own (§5.4.1).
    CandidateLogUnchecked = "candidate-log-unchecked",
    /// A voter compares the lengths of logs before their last terms (§5.4.1).
    LongerLogPreferred = "longer-log-preferred",
    /// A node grants a pre-vote although it hears from a leader.
    PreVoteDespiteLeader = "pre-vote-despite-leader",
    /// The answer to any earlier pre-vote counts for the one under way.
    PreVoteRoundIgnored = "pre-vote-round-ignored",
    /// Answers of older terms are accepted as answers of the current term.
    OldAnswersAccepted = "old-answers-accepted",
    /// A leader answers linearizable reads without confirming that it still leads.
    ReadWithoutQuorum = "read-without-quorum",
    /// A leader uses the same number for all its rounds of reads.
    ReadRoundUsedAgain = "read-round-used-again",
    /// A leader answers linearizable reads before it has committed an entry of its term.
    ReadBeforeOwnCommit = "read-before-own-commit",
    /// A linearizable read is answered before its read index is applied.
    ReadIndexNotAwaited = "read-index-not-awaited",
    /// A leader's lease lasts for the longest election timeout instead of the shortest.
    LeaseTooLong = "lease-too-long",
    /// A leader that transfers leadership continues to answer reads on its lease.
    LeaseUsedInTransfer = "lease-used-in-transfer",
    /// A leader renews its lease although it has sent TimeoutNow.
    LeaseRenewedAfterCall = "lease-renewed-after-call",
    /// A heartbeat does not reset the follower's election timer.
    HeartbeatKeepsTimer = "heartbeat-keeps-timer",
    /// A leader without answers from a majority does not step down.
    QuorumUnchecked = "quorum-unchecked",
    /// A follower accepts entries although the entry before them has another term in its log.
    PreviousTermUnchecked = "previous-term-unchecked",
    /// A follower cuts its log where received entries begin, even if it holds the same entries.
    MatchingSuffixCut = "matching-suffix-cut",
    /// A follower commits its whole log, beyond the entries that the call covers.
    CommitBeyondNewEntries = "commit-beyond-new-entries",
    /// A heartbeat carries a commit index beyond the follower's match index.
    HeartbeatCommitUnclamped = "heartbeat-commit-unclamped",
    /// A heartbeat with a commit index beyond the end of a log commits all of that log.
    CommitBeyondOwnLog = "commit-beyond-own-log",
    /// A leader probes where the follower's hint points, without comparing its own terms there.
    HintTermIgnored = "hint-term-ignored",
    /// Learners count towards majorities.
    LearnersCounted = "learners-counted",
    /// During a change of members the outgoing voters are not counted.
    OutgoingNotAsked = "outgoing-not-asked",
    /// A change of voters ends before its joint configuration is committed.
    JointLeftEarly = "joint-left-early",
    /// A leader changes members before it has committed an entry of its term.
    ChangeBeforeOwnCommit = "change-before-own-commit",
    /// A node finds itself in a configuration that names another incarnation under its id.
    IncarnationIgnoredBySelf = "incarnation-ignored-by-self",
    /// Votes and acknowledgements of any incarnation count for the member with the id.
    IncarnationIgnoredByOthers = "incarnation-ignored-by-others",
    /// A node that lags rejects a later incarnation than the one that it knows.
    LaterIncarnationRefused = "later-incarnation-refused",
    /// A leader keeps the progress of a follower when another incarnation takes the id.
    ProgressKeptByIncarnations = "progress-kept-by-incarnations",
    /// Configurations that a cut of the log removes stay in force.
    ConfigurationKeptInCut = "configuration-kept-in-cut",
    /// A joined node answers reads before it has applied everything that was committed before it
    /// joined.
    JoinerReadsAtOnce = "joiner-reads-at-once",
    /// A learner that does not answer is promoted.
    SilentLearnerPromoted = "silent-learner-promoted",
    /// A learner is promoted although it lags far behind.
    LaggardPromoted = "laggard-promoted",
    /// Voters are removed although a majority of the remaining voters does not answer.
    SilentMajorityLeft = "silent-majority-left",
    /// An order to change members is carried out although the members have changed since.
    OutdatedOrderObeyed = "outdated-order-obeyed",
    /// A node is added at the address of another member.
    SharedAddressAccepted = "shared-address-accepted",
    /// A leader that has removed itself does not step down.
    RemovedLeaderLeadsOn = "removed-leader-leads-on",
    /// An incarnation from an earlier addition of an id is bound to the id when it is added again.
    RemovedIncarnationBound = "removed-incarnation-bound",
    /// A leader stops sending to a member as soon as it has removed it.
    RemovedMemberNotTold = "removed-member-not-told",
    /// A follower commits what its leader names, although its own entry there has another checksum.
    CommitChecksumIgnored = "commit-checksum-ignored",
    /// A message is accepted whatever its term.
    AnyTermBelieved = "any-term-believed",
    /// A node that waits to join its cluster bootstraps another one with a founder that it meets.
    JoinerFoundsAlong = "joiner-founds-along",
    /// A node gives up at the first final refusal, without another one that confirms it.
    FirstRefusalBelieved = "first-refusal-believed",
    /// A node that restarts before its log holds its own addition does not know its address.
    JoinedAtIgnored = "joined-at-ignored",
    /// A folder with another node's files is treated as empty.
    ForeignFilesAccepted = "foreign-files-accepted",
    /// A node announces its incarnation before it is durable.
    IncarnationNotSynced = "incarnation-not-synced",
    /// A node that waits for its cluster draws a new incarnation at each start.
    IncarnationDrawnAgain = "incarnation-drawn-again",
    /// A node accepts its removal from an uncommitted configuration, which may be rolled back.
    RemovalByOpenConfiguration = "removal-by-open-configuration",
    /// A node accepts its removal from a member with an older configuration than its own.
    RemovalByOldConfiguration = "removal-by-old-configuration",
    /// An earlier configuration overrides the later address of a member.
    LaterAddressIgnored = "later-address-ignored",
    /// A member that has moved is still dialled at its old address.
    MoveIgnored = "move-ignored",
    /// A node that was moved to another address continues to announce the old one.
    OwnMoveIgnored = "own-move-ignored",
    /// A removed node continues to answer reads.
    RemovedNodeServes = "removed-node-serves",
    /// A node that learns of its removal from another node continues to answer reads.
    DismissedNodeServes = "dismissed-node-serves",
    /// A node votes although no configuration of its log names its incarnation.
    UnnamedNodeVotes = "unnamed-node-votes",
    /// A learner is promoted before its log holds the configuration that names it.
    PromotedBeforeItKnowsItself = "promoted-before-it-knows-itself",
    /// Voters are changed without asking the members whether they are reachable.
    MembersNotAsked = "members-not-asked",
    /// A follower that installs a snapshot drops the entries after it.
    SuffixDropped = "suffix-dropped",
    /// A snapshot leaves out the sessions.
    SessionsLeftOut = "sessions-left-out",
    /// The log is compacted when a snapshot's last part is handed out, before it is durable.
    LogTrimmedEarly = "log-trimmed-early",
    /// A snapshot being taken contains later writes.
    FrozenStateChanges = "frozen-state-changes",
    /// A snapshot is installed although its content does not match its checksum.
    DamagedSnapshotTaken = "damaged-snapshot-taken",
    /// A leader does not repeat its question when it hears nothing about a snapshot.
    SnapshotNotAskedForAgain = "snapshot-not-asked-for-again",
    /// A leader keeps its log for a follower that is being sent a snapshot but no longer answers.
    LogHeldForSilentFollower = "log-held-for-silent-follower",
    /// A follower acknowledges a snapshot before it is durable.
    SnapshotAckBeforeSync = "snapshot-ack-before-sync",
    /// A follower that installs a snapshot keeps a log that does not agree with it.
    ConflictingLogKept = "conflicting-log-kept",
    /// A replica that installs a snapshot does not move its applied index.
    AppliedNotMoved = "applied-not-moved",
    /// A cut of the log is not written to the disk.
    CutNotPersisted = "cut-not-persisted",
    /// The noted floor is the commit index, even where entries are not durable on this node.
    FloorAboveDurable = "floor-above-durable",
    /// The floor is noted only when the term or the vote changes.
    FloorNotNoted = "floor-not-noted",
    /// The first node without files that claims an id becomes the member, at any address.
    AnyAddressBound = "any-address-bound",
    /// A node that hears of no leader keeps its connections and dials no other member.
    LonelyNodeWaits = "lonely-node-waits",
    /// A node that is removed replaces all its connections.
    RemovedNodeRedials = "removed-node-redials",
    /// A node that dials while its address does not answer is treated as a copy permanently.
    RestartRefused = "restart-refused",
    /// A copy of a running node's folder is accepted as the node.
    CopyAdmitted = "copy-admitted",
    /// A removed node ends before its removal is durable.
    RemovalForgotten = "removal-forgotten",
    /// A removed node installs snapshots that no longer name it.
    RemovedNodeCompacts = "removed-node-compacts",
    /// A node whose addition was followed by its removal does not learn of the removal if it did
    /// not know of the addition.
    TakenBackNotTold = "taken-back-not-told",
    /// A joined node does not store the number of its addition.
    AdditionForgotten = "addition-forgotten",
    /// A node joins by an addition that is not committed and may be rolled back.
    OpenAdditionLetsIn = "open-addition-lets-in",
    /// An entry's checksum does not cover the entry before it.
    ChainBroken = "chain-broken",
    /// Entries are applied and answered before they are committed.
    AppliedBeforeCommit = "applied-before-commit",
    /// An applied entry answers the request that waits for its index, even if its term is another.
    AnsweredByIndex = "answered-by-index",
    /// A node that has stepped down reports at once that its pending requests had no effect.
    SupersededBeforeCommit = "superseded-before-commit",
    /// A restarted node answers reads before it has applied the entries on its disk.
    ReadBeforeCatchUp = "read-before-catch-up",
    /// A read is answered by a node that has not applied the entries that the client has seen.
    ReadIgnoresSeen = "read-ignores-seen",
    /// A compare-and-swap does not compare the current value.
    SwapIgnoresExpected = "swap-ignores-expected",
    /// A page of a scan begins with the key after which it should begin.
    ScanRepeatsKey = "scan-repeats-key",
    /// A page of a scan leaves out the first key after the page before.
    ScanSkipsKey = "scan-skips-key",
    /// A write does not wait for an earlier write of its connection to the same key.
    WriteOvertakesWrite = "write-overtakes-write",
    /// A read does not wait for an earlier write of its connection to the same key.
    ReadOvertakesWrite = "read-overtakes-write",
    /// Replies are written as soon as they are known, not in the order of the requests.
    RepliesOutOfOrder = "replies-out-of-order",
    /// A forwarded request that arrives twice is executed twice.
    ForwardedAgain = "forwarded-again",
    /// The numbers of forwarded requests are compared across restarts of their sender.
    ForwardedNumbersKept = "forwarded-numbers-kept",
    /// A retried write is applied again.
    RetryExecutedAgain = "retry-executed-again",
    /// A retried write is answered as successful, whatever its first outcome was.
    RetryOutcomeForgotten = "retry-outcome-forgotten",
    /// A write of a forgotten client is applied, although it may have been applied before.
    ExpiredSessionTakenForNew = "expired-session-taken-for-new",
    /// The fingerprints of forgotten clients are removed before their time.
    FingerprintsRemovedEarly = "fingerprints-removed-early",
    /// A tick marks fingerprints that its leader had not applied.
    UnsettledMarked = "unsettled-marked",
    /// A snapshot does not say since when clients are forgotten.
    MarksNotSaved = "marks-not-saved",
    /// A write with a forgotten number is applied, although it may have been applied before.
    ForgottenNumberTakenForNew = "forgotten-number-taken-for-new",
    /// The proxy sends requests in flight at one node to the next leader as well.
    RequestSentTwice = "request-sent-twice",
    /// The proxy reports that a write that timed out had no effect.
    TimeoutIsDefinite = "timeout-is-definite",
    /// A log entry with a wrong checksum is accepted.
    ChecksumIgnored = "checksum-ignored",
    /// A damaged line in the middle of the log is treated as a torn write, and cut off with all
    /// lines after it.
    DamageCutOff = "damage-cut-off",
    /// The torn end of the log is left in the file.
    TornTailKept = "torn-tail-kept",
    /// Zeros before valid lines in the last write are treated as damage.
    HoleIsDamage = "hole-is-damage",
    /// Entries are durable before their term is.
    TermAfterLog = "term-after-log",
    /// Entries are reported as durable without a sync of the log.
    LogNotSynced = "log-not-synced",
    /// A snapshot is renamed into place before its bytes are synced.
    SnapshotNotSynced = "snapshot-not-synced",
    /// New metadata is renamed into place before its bytes are synced.
    MetaNotSynced = "meta-not-synced",
    /// The folder is not synced, so a rename may be undone.
    FolderNotSynced = "folder-not-synced",
    /// The metadata file is overwritten in place.
    MetaInPlace = "meta-in-place",
    /// A start does not wait until its repairs are durable.
    RepairsNotSynced = "repairs-not-synced",
    /// A link buffers as much as if memory had no limit.
    OutboxShareIgnored = "outbox-share-ignored",
    /// A leader keeps the log for a follower that catches up, however long the log gets.
    HeldLogUnlimited = "held-log-unlimited",
    /// An incomplete frame does not count towards the memory budget.
    UnfinishedFrameNotCounted = "unfinished-frame-not-counted",
    /// A compare-and-swap or a delete ignores the expected revision.
    RevisionIgnored = "revision-ignored",
    /// Keys that are older than the level keep revisions that not all nodes know.
    OldRevisionsCounted = "old-revisions-counted",
    /// A change of a key counts as its creation.
    CreationForgotten = "creation-forgotten",
    /// A snapshot says of each key that its last change created it.
    CreationNotSaved = "creation-not-saved",
    /// A sum that is out of range wraps around.
    SumWraps = "sum-wraps",
    /// A delete by prefix removes one key more than its limit.
    PrefixLimitExceeded = "prefix-limit-exceeded",
    /// A scan returns the key before which it should end.
    ScanEndIncluded = "scan-end-included",
    /// A transaction executes the other branch.
    ElseForThen = "else-for-then",
    /// A key expires although a write of the log has set it again before the tick.
    TickBeatsPut = "tick-beats-put",
    /// A put leaves the time to live that the key had.
    PutKeepsExpiry = "put-keeps-expiry",
    /// A touch starts the time to live again that the key had, whatever it states.
    TouchChangesNothing = "touch-changes-nothing",
    /// A snapshot does not say which keys expire.
    ExpiryNotSaved = "expiry-not-saved",
    /// A snapshot does not say the log time.
    LogTimeNotSaved = "log-time-not-saved",
    /// Each node decides by its own clock which keys a tick removes.
    ExpiryJudgedWhenApplied = "expiry-judged-when-applied",
    /// A key that was not dated before a restart expires at once.
    RestoredKeyIsDue = "restored-key-is-due",
    /// A tick dates keys whose writes its leader has not applied.
    DatedBeforeCommit = "dated-before-commit",
    /// A leader proposes no further tick after its first one was lost.
    TickNotRetried = "tick-not-retried",
    /// A transaction is executed although one of its increments fails.
    TxnUnchecked = "txn-unchecked",
    /// A leader raises the level although a member does not support it.
    LevelOfMembersIgnored = "level-of-members-ignored",
    /// A leader proposes entries of a level before that level is reached.
    LevelNotAwaited = "level-not-awaited",
    /// A watcher gets the changes after a revision without the first of them.
    HistorySkipsEntry = "history-skips-entry",
    /// The history goes on although a snapshot has replaced the map.
    HistoryKept = "history-kept",
    /// The history has no limit.
    HistoryUnlimited = "history-unlimited",
    /// A watch goes on although the history no longer has what it needs.
    LagNotNoticed = "lag-not-noticed",
    /// A prefix selects keys that agree with it except for its last character.
    WatchPrefixShortened = "watch-prefix-shortened",
    /// Watchers are not told of deletes.
    DeleteNotReported = "delete-not-reported",
    /// The initial content of a watch contains later changes.
    ViewChanges = "view-changes",
    /// A watch continues after its initial content without the changes made meanwhile.
    ChangesAfterViewLost = "changes-after-view-lost",
    /// The events of one entry are split over two lines.
    EntrySplit = "entry-split",
    /// A watch that begins at a revision begins one earlier.
    ResumptionRepeats = "resumption-repeats",
    /// A watch that waits for a key is not answered when the key changes.
    WatchNotWoken = "watch-not-woken",
    /// A watch ends because its history is gone, and its client is told to continue one entry too
    /// late.
    LaggedTooFar = "lagged-too-far",
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

    use super::{Mutant, NAMED};

    thread_local! {
        static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

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
        use super::Mutant::{AckBeforeSync, VoteBeforeSync};
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
