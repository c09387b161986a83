//! A replica: a Raft node with the key-value state machine on top. A runtime drives it by one
//! [`Replica::step`] at a time.
//!
//! A step handles everything that has arrived since the last one, so that inputs that arrive
//! together are persisted, sent and answered as one batch.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::identity::Incarnation;
use crate::kv::{Command, Level, LoggedWrite, Query, Session, SessionLimits, SessionTable, State, Store};
use crate::mutant::{self, Mutant};
use crate::peer::KnownMembers;
use crate::raft::{
    Addition, Config, Configuration, Entries, Entry, EntryKind, Event, LogIndex, Node, NodeId,
    Output as NodeOutput, ProposeError, ReadBatch, Restored, Role, Term,
};
use crate::time::Instant;

mod applying;
mod backup;
mod expiry;
mod interface;
mod level;
mod membership;
mod memory;
mod parsed_batches;
mod reads;
mod restored_state;
mod schedule;
mod snapshots;
mod transfer;
mod waiting_watches;
mod watch;
mod watch_index;

pub use backup::{BACKUP_HOLD_MAX, BACKUP_TIMEOUT, BackupPiece};
pub use interface::{
    Answer, Input, MemberChange, MemberOrder, Output, ReplicaError, Request, RequestId, RequestRefusal,
    Status,
};
pub use membership::ORDER_TIMEOUT;
pub use parsed_batches::PARSED_BYTES_MAX;
pub use schedule::{HELD_BACK_BYTES_MAX, SNAPSHOT_PART_BYTES, SnapshotPolicy};
pub use watch::{
    NodeView, PROGRESS_INTERVAL, VIEW_BYTES_MAX, VIEW_TIMEOUT, VIEWS_MAX, WatchAnswer, WatchLimits,
    WatchPart, WatchRequest,
};

use applying::resolve;
use backup::Backups;
use expiry::Ticks;
use level::Levels;
use membership::Change;
use parsed_batches::ParsedBatches;
use reads::WaitingRead;
pub use restored_state::RestoredState;
use schedule::Schedule;
use snapshots::Snapshots;
use waiting_watches::WaitingWatches;

/// The most bytes of log lines that one step applies, chosen so that a step takes much less than a
/// heartbeat interval even when a restarted node applies a long log.
pub const APPLY_BYTES_MAX: usize = 2 << 20;

/// The most keys that the entries of one step change or read, beyond one key per entry, for the
/// same reason: a delete by prefix is a short line and may remove a thousand keys. One entry may
/// exceed it.
const APPLY_KEYS_MAX: usize = 10_000;

/// With at least this many entries to apply and no request waiting for them, a replica applies them
/// in a separate step. So disk writes, messages to peers and the leader's replies come first. Below
/// this number, a second step costs more than it gains; otherwise arbitrary.
const APPLY_LATER_MIN: u64 = 32;

/// The most keys that one step looks up, for the same reason. Further reads wait for the next step.
pub const LOOK_UPS_MAX: usize = 2_000;

/// How long a read waits at a replica that lags, before it is rejected and retried at another node:
/// two heartbeats, in which a healthy replica has caught up.
pub const READ_TIMEOUT: Duration = Duration::from_millis(100);

/// The settings of a replica, in addition to its Raft settings.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaLimits {
    /// The limits of the session table: the same on all nodes of a cluster, and never changed.
    pub sessions: SessionLimits,
    /// The policy that decides when snapshots are taken.
    pub snapshots: SnapshotPolicy,
    /// See [`PARSED_BYTES_MAX`].
    pub parsed_bytes: usize,
    /// The limits of what is kept for watches.
    pub watches: WatchLimits,
    /// The highest level that the program supports; lower only in tests of upgrades.
    pub supports: Level,
}

impl Default for ReplicaLimits {
    fn default() -> Self {
        let (sessions, snapshots) = (SessionLimits::default(), SnapshotPolicy::default());
        let watches = WatchLimits::default();
        Self { sessions, snapshots, parsed_bytes: PARSED_BYTES_MAX, watches, supports: Level::MAX }
    }
}

/// A Raft node and the state that its committed entries build.
#[derive(Debug)]
pub struct Replica {
    node: Node,
    state: State,
    /// Fig. 2, volatile state: the highest log index applied to the state.
    last_applied: LogIndex,
    /// Whether the last step postponed applying entries to this one.
    left_to_apply: bool,
    /// No read is answered before this index is applied: the end of the log on disk at the start.
    /// Otherwise an answer could be older than one given before the restart.
    reads_from: LogIndex,
    /// Reads by the index that must be applied first. They also wait for `reads_from`, which may
    /// decrease meanwhile.
    waiting_reads: BTreeMap<LogIndex, Vec<WaitingRead>>,
    /// Linearizable reads that wait for their read index, by batch.
    unconfirmed_reads: BTreeMap<ReadBatch, Vec<(RequestId, Query)>>,
    /// The pending leadership transfer: the request, and its target.
    transfer: Option<(RequestId, NodeId)>,
    change: Option<Change>,
    /// The incarnation and the addition of nodes that completed a handshake and are not bound to a
    /// member yet.
    handshakes: BTreeMap<NodeId, (Incarnation, Addition)>,
    /// Whether another node has reported that this node must stop.
    is_dismissed: bool,
    snapshots: Snapshots,
    backups: Backups,
    readings: ParsedBatches,
    levels: Levels,
    ticks: Ticks,
    watches: WaitingWatches,
    /// Whether the log must shrink because the state needs its memory.
    memory_is_short: bool,
    /// The number of keys that this step has looked up.
    looked_up: usize,
    /// Requests with a proposed command whose outcome is not known yet, by log index. Two may wait
    /// for the same index, in different terms.
    waiting: VecDeque<Waiting>,
    told_leader: (Term, Option<NodeId>),
    node_outputs: Vec<NodeOutput>,
}

#[derive(Debug)]
struct Waiting {
    index: LogIndex,
    term: Term,
    request: RequestId,
}

impl Replica {
    /// Starts a replica from `restored`, the content of its disk. See [`Node::new`] for panics.
    ///
    /// # Errors
    ///
    /// [`ReplicaError`] when the settings contradict one another, or the log has a command of
    /// another version.
    pub fn new(config: Config, restored: Restored, seed: u64, now: Instant) -> Result<Self, ReplicaError> {
        Self::with_limits(config, restored, seed, now, ReplicaLimits::default())
    }

    /// Like [`Replica::new`], with other limits.
    ///
    /// # Errors
    ///
    /// As for [`Replica::new`].
    pub fn with_limits(
        config: Config,
        restored: Restored,
        seed: u64,
        now: Instant,
        limits: ReplicaLimits,
    ) -> Result<Self, ReplicaError> {
        let mut restored = restored;
        let snapshot = restored.snapshot.as_mut();
        let state = snapshot.map(|snapshot| RestoredState::build(snapshot, limits.sessions, seed, None));
        let state = state.transpose()?;
        Self::with_state(config, restored, state, seed, now, limits)
    }

    /// Like [`Replica::with_limits`], with a state that was already built from the snapshot, if
    /// there is one.
    ///
    /// # Errors
    ///
    /// As for [`Replica::new`].
    ///
    /// # Panics
    ///
    /// When `state` is not that of the snapshot in `restored`.
    pub fn with_state(
        config: Config,
        restored: Restored,
        state: Option<RestoredState>,
        seed: u64,
        now: Instant,
        limits: ReplicaLimits,
    ) -> Result<Self, ReplicaError> {
        let covered = restored.snapshot.as_ref().map(|snapshot| snapshot.meta.last.index);
        assert_eq!(covered, state.as_ref().map(RestoredState::last), "each snapshot is read, and no other");
        let snapshot_bytes = state.as_ref().map(|state| state.bytes);
        let last_applied = covered.unwrap_or(restored.log_start.index);
        let state = state.map_or_else(|| State::seeded(limits.sessions, seed), |restored| restored.state);
        let entries = restored.log.iter().flat_map(Entries::iter);
        let is_unknown = |entry: &Entry<'_>| match entry.kind() {
            EntryKind::Noop => false,
            EntryKind::Config => Configuration::read(entry.payload).is_none(),
            EntryKind::Command => LoggedWrite::read(entry.payload).is_none(),
        };
        if let Some(entry) = entries.into_iter().find(is_unknown) {
            return Err(ReplicaError::UnknownCommand(entry.point.index));
        }
        let node = Node::new(config, restored, seed, now).map_err(ReplicaError::Config)?;
        let schedule = Schedule::new(limits.snapshots, snapshot_bytes, node.id(), node.configuration());
        Ok(Self {
            reads_from: node.log().last().index,
            told_leader: (node.current_term(), None),
            node,
            state,
            last_applied,
            left_to_apply: false,
            waiting_reads: BTreeMap::new(),
            unconfirmed_reads: BTreeMap::new(),
            transfer: None,
            change: None,
            handshakes: BTreeMap::new(),
            is_dismissed: false,
            snapshots: Snapshots::new(schedule, limits.sessions, seed),
            backups: Backups::default(),
            readings: ParsedBatches::new(limits.parsed_bytes),
            levels: Levels::new(limits.supports),
            ticks: Ticks::default(),
            watches: WaitingWatches::new(limits.watches, last_applied),
            memory_is_short: false,
            looked_up: 0,
            waiting: VecDeque::new(),
            node_outputs: Vec::new(),
        })
    }

    /// Handles all `inputs` and appends the resulting actions to `outputs`. The caller can reuse
    /// both buffers: `inputs` is left empty.
    pub fn step(&mut self, now: Instant, inputs: &mut Vec<Input>, outputs: &mut Vec<Output>) {
        // Reads that are left over from the last step come before new ones.
        self.looked_up = 0;
        self.answer_reads(now, outputs);
        // Before the inputs, which may commit more: under load this node would never have applied
        // all that is committed.
        self.raise_level();
        self.expire(now);
        for input in inputs.drain(..) {
            match input {
                Input::Message(message) => self.node.receive(message, now),
                Input::Persisted(id) => self.node.persisted(id, now),
                Input::PeerUnreachable(peer) => self.node.peer_unreachable(peer),
                Input::HandshakeCompleted { peer, incarnation, addition, supports } => {
                    self.note_handshake(peer, incarnation, addition);
                    self.note_level(peer, incarnation, supports);
                }
                Input::SnapshotPutOff { last, why } => self.snapshot_put_off(last, why, now, outputs),
                Input::Dismissed => self.is_dismissed = true,
                Input::SnapshotWritten { last, bytes } => self.snapshot_written(last, bytes, now),
                Input::SnapshotRead { last, offset, part } => {
                    self.give_backup_part(last, offset, part.as_ref(), outputs);
                    self.node.snapshot_read(last, offset, part, now);
                }
                Input::Request(id, request) => self.take(id, request, now, outputs),
            }
        }
        self.look_for_level();
        self.bind_met();
        self.exchange_elapsed();
        self.node.end_turn(now, &mut self.node_outputs);
        // A turn may end an election.
        self.look_for_level();
        // Moved out for the loop, which needs the rest of the replica, and put back to reuse its
        // allocation.
        let mut node_outputs = std::mem::take(&mut self.node_outputs);
        for output in node_outputs.drain(..) {
            match output {
                NodeOutput::Persist(persist) => outputs.push(Output::Persist(persist)),
                NodeOutput::Send(message) => outputs.push(Output::Send(message)),
                NodeOutput::Event(event) => {
                    let removed = if let Event::Removed { index } = event { Some(index) } else { None };
                    // A leader's snapshot that shows the removal is not installed, so the log still
                    // names this node.
                    let is_by_snapshot = removed.is_some() && self.node.removed_at().is_none();
                    self.is_dismissed |= is_by_snapshot;
                    outputs.push(Output::Event(event));
                    outputs.extend(removed.map(Output::Removed));
                }
                NodeOutput::WriteSnapshot(part) => self.receive_part(part, outputs),
                NodeOutput::ReadSnapshot { last, offset } => {
                    outputs.push(Output::ReadSnapshot { last, offset });
                }
                NodeOutput::SnapshotInstalled(meta) => self.install_snapshot(&meta, outputs),
                NodeOutput::ReadIndex { batch, index } => self.learn_read_index(batch, index, now, outputs),
            }
        }
        self.node_outputs = node_outputs;
        self.drop_unused_state();
        self.supersede_by_mutant(outputs);
        self.give_up_when_removed(outputs);
        self.tell_leader(outputs);
        self.follow_transfer(outputs);
        self.follow_change(now, outputs);
        self.reads_from = self.reads_from.min(self.node.log().last().index);
        self.apply(now, outputs);
        self.take_snapshot(now, outputs);
        self.answer_reads(now, outputs);
        self.answer_watches(now, outputs);
    }

    /// The time of the next step if no input arrives before.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let has_more_to_apply = self.last_applied < self.node.commit_index();
        let has_more_to_read = self.waiting_reads.keys().next().is_some_and(|first| self.may_answer(*first));
        let is_due = has_more_to_apply || has_more_to_read || self.wants_to_raise_level();
        if is_due {
            return Instant::default();
        }
        let others = [self.next_tick_at(), self.watch_deadline()];
        others.into_iter().flatten().fold(self.node.deadline(), Instant::min)
    }

    /// The replica's status.
    #[must_use]
    pub fn status(&self) -> Status {
        let (id, role) = (self.node.id(), self.node.role());
        Status {
            id,
            role,
            is_learner: role == Role::Follower && !self.node.configuration().is_voter(id),
            term: self.node.current_term(),
            commit_index: self.node.commit_index(),
            last_applied: self.last_applied,
            last_log_index: self.node.log().last().index,
            snapshot_index: self.snapshot_index(),
            leader: self.node.leader(),
            durable_index: self.node.durable_index(),
            disk_waiting_ms: u64::try_from(self.node.disk_waits_for().as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Returns whether this node can serve requests: it knows a leader, and has applied enough to
    /// answer reads.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.node.leader().is_some() && self.may_answer(LogIndex::ORIGIN)
    }

    /// The membership as this replica knows it, for its transport.
    #[must_use]
    pub fn known_members(&self) -> KnownMembers {
        KnownMembers {
            configuration: self.node.configuration().clone(),
            index: self.node.configuration_index(),
            named_index: self.node.named_index(),
            is_settled: self.node.membership_is_settled(),
            was_named: self.node.was_named(),
            has_leader: self.node.leader().is_some(),
            level: self.admitted_level(),
        }
    }

    /// Returns whether `known` is still up to date. Copies nothing, because it is called every
    /// turn.
    #[must_use]
    pub fn knows_no_more_than(&self, known: &KnownMembers) -> bool {
        let node = &self.node;
        let facts = (node.configuration_index(), node.membership_is_settled(), node.was_named());
        facts == (known.index, known.is_settled, known.was_named)
            && self.admitted_level() == known.level
            && node.named_index() == known.named_index
            && node.leader().is_some() == known.has_leader
            && *node.configuration() == known.configuration
    }

    /// The Raft node, read-only.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The key-value store, read-only.
    #[must_use]
    pub fn store(&self) -> &Store {
        self.state.store()
    }

    /// The session table, read-only.
    #[must_use]
    pub fn sessions(&self) -> &SessionTable {
        self.state.sessions()
    }

    fn take(&mut self, id: RequestId, request: Request, now: Instant, outputs: &mut Vec<Output>) {
        let level = request.level();
        let answer = match request {
            Request::Write { command, session, .. } => {
                match self.propose(id, level, &command, session.as_ref()) {
                    Ok(()) => return,
                    Err(refused) => Answer::Refused(refused),
                }
            }
            Request::Status => Answer::Status(Box::new(self.status())),
            Request::Members if self.node.role() == Role::Leader => {
                Answer::Members(self.node.configuration_index(), self.node.configuration().clone())
            }
            Request::Members => Answer::Refused(self.not_leader()),
            Request::Resign => match self.node.successor() {
                None => Answer::Refused(self.not_leader()),
                Some(target) => match self.start_transfer(id, target, now, outputs) {
                    Ok(()) => return,
                    Err(refused) => Answer::Refused(refused),
                },
            },
            Request::LinearizableRead(query) => {
                let batch = self.node.read_index();
                return self.unconfirmed_reads.entry(batch).or_default().push((id, query));
            }
            Request::Backup(piece) => match self.back_up(id, piece, now, outputs) {
                None => return,
                Some(answer) => answer,
            },
            Request::ChangeMembers(order) => match self.start_change(id, order, now, outputs) {
                None => return,
                Some(answer) => answer,
            },
            Request::Transfer(target) => match self.start_transfer(id, target, now, outputs) {
                Ok(()) => return,
                Err(refused) => Answer::Refused(refused),
            },
            Request::Watch(request) => return self.take_watch_request(id, request, now),
            Request::Read { query, at_least } => {
                if !self.may_answer(at_least) || self.looked_up >= LOOK_UPS_MAX {
                    let waiting = WaitingRead { request: id, query, since: now };
                    return self.waiting_reads.entry(at_least).or_default().push(waiting);
                }
                self.look_up(&query)
            }
        };
        outputs.push(Output::Answer(id, answer));
    }

    fn propose(
        &mut self,
        request: RequestId,
        level: Level,
        command: &Command,
        session: Option<&Session>,
    ) -> Result<(), RequestRefusal> {
        self.check_level(level)?;
        match self.node.propose(|line| command.write_payload(session, line)) {
            Ok((index, term)) => {
                // Indexes ascend, except those of an earlier term of this leader: their entries may
                // have been truncated since. Such requests stay, because another node may still
                // hold and commit their entries.
                let later = self.waiting.iter().rev().take_while(|request| request.index > index).count();
                self.waiting.insert(self.waiting.len() - later, Waiting { index, term, request });
                Ok(())
            }
            Err(ProposeError::NotLeader(_)) => Err(self.not_leader()),
            Err(ProposeError::TooManyUncommitted) => Err(RequestRefusal::Overloaded),
            Err(ProposeError::TransferPending) => Err(self.not_leader()),
        }
    }

    /// Rejects a request because this node does not lead, or is transferring its leadership. The
    /// client waits to learn the next leader, which may be this one again.
    fn not_leader(&self) -> RequestRefusal {
        RequestRefusal::NotLeader { term: self.node.current_term(), leader: self.active_leader() }
    }

    /// The leader, unless it is transferring its leadership and so accepts no requests.
    fn active_leader(&self) -> Option<NodeId> {
        self.node.leader().filter(|_| self.node.transfer_target().is_none())
    }

    fn tell_leader(&mut self, outputs: &mut Vec<Output>) {
        let (term, leader) = (self.node.current_term(), self.active_leader());
        if (term, leader) != self.told_leader {
            self.told_leader = (term, leader);
            outputs.push(Output::LeaderChanged { term, leader });
        }
    }

    /// Deliberate bug: a node that does not lead answers that its waiting requests had no effect.
    fn supersede_by_mutant(&mut self, outputs: &mut Vec<Output>) {
        if self.node.role() != Role::Leader && mutant::is_active(Mutant::SupersededBeforeCommit) {
            resolve(&mut self.waiting, LogIndex::MAX, Term::INITIAL, None, outputs);
        }
    }
}
