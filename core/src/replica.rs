//! A replica: Raft with the key-value store on top. It is what a runtime drives, one [`Replica::step`] at a time.
//!
//! A step takes everything that has arrived since the last one, so that what arrives together is written, sent
//! and answered together.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use crate::kv::{
    Command, Found, LoggedWrite, Outcome, Query, Session, SessionLimits, Sessions, State, Store,
};
use crate::mutant::{self, Mutant};
use crate::raft::{
    Config, ConfigError, Entries, Entry, EntryKind, Event, LogIndex, Message, Node, NodeId,
    Output as NodeOutput, Persist, PersistId, ProposeError, ReadBatch, Restored, Role, Term, TransferError,
};
use crate::time::Instant;

/// The most bytes of log lines that one step applies, chosen so that a step stays well below a heartbeat
/// interval also when a restarted node applies a long log.
pub const APPLY_BYTES_MAX: usize = 2 << 20;

/// The most keys that one step looks up, for the same reason. What is above it waits for the next step.
pub const LOOK_UPS_MAX: usize = 10_000;

/// How long a read waits at a replica that is behind, before it is sent elsewhere: two heartbeats, in which a replica
/// that is well has caught up.
pub const READ_PATIENCE: Duration = Duration::from_millis(100);

/// A request's name: chosen by the asker, repeated in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What a replica can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Replicate and apply a command. Only a leader can.
    Write {
        /// What to do.
        command: Command,
        /// Which of the client's writes it is, if the client may send it again.
        session: Option<Session>,
    },
    /// Look something up, as this replica sees it: it may be behind.
    Read {
        /// What to look up.
        query: Query,
        /// Not before the replica has applied this much: what the asker has seen already.
        at_least: LogIndex,
    },
    /// Look something up that is at least as new as everything that anybody had an answer to when this was asked.
    LinearizableRead(Query),
    /// Hand leadership over to this node. Only a leader can.
    Transfer(NodeId),
    /// How it is doing.
    Status,
}

impl Request {
    /// A write without a session.
    #[must_use]
    pub fn write(command: Command) -> Self {
        Self::Write { command, session: None }
    }

    /// Bytes of keys, values and names in it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Write { command, session } => {
                command.bytes() + session.as_ref().map_or(0, |session| session.client().as_str().len())
            }
            Self::Read { query, .. } | Self::LinearizableRead(query) => query.bytes(),
            Self::Transfer(_) | Self::Status => 0,
        }
    }
}

/// What a replica answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The command is committed and applied, now or, as the same write of its session, before.
    Applied {
        /// Its place in the log: of several that are the same write, the one that was asked for.
        index: LogIndex,
        /// What it did, when it was first applied.
        outcome: Outcome,
    },
    /// What was found.
    Read {
        /// How far the replica had applied the log.
        index: LogIndex,
        /// It.
        found: Found,
    },
    /// Leadership was handed over.
    Transferred {
        /// The new leader.
        to: NodeId,
    },
    /// How the replica is doing.
    Status(Status),
    /// The request had no effect and never will.
    Refused(Refused),
}

/// Why a request had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The replica does not lead.
    NotLeader {
        /// Its term.
        term: Term,
        /// The leader of that term, if it knows one.
        leader: Option<NodeId>,
    },
    /// Another leader's entry was committed in the command's place.
    Superseded,
    /// Too much waits to be committed, or to be read.
    Overloaded,
    /// The node to hand leadership over to does not vote.
    NotVoter,
    /// Nobody took leadership over in time: the replica leads on.
    TransferFailed,
    /// The replica is behind what the asker has seen, or behind what it had on its disk when it was restarted, and
    /// knows no leader to learn more from.
    CatchingUp,
}

/// How a replica is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Which node it is.
    pub id: NodeId,
    /// The part that it plays.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The highest index that it knows to be committed.
    pub commit_index: LogIndex,
    /// The highest index that it applied.
    pub last_applied: LogIndex,
    /// The end of its log.
    pub last_log_index: LogIndex,
    /// The leader of its term, if it knows one.
    pub leader: Option<NodeId>,
}

/// What may happen to a replica. Time passing is no input: every step is told the time.
#[derive(Clone, Debug)]
pub enum Input {
    /// A peer's message.
    Message(Message),
    /// A request.
    Request(RequestId, Request),
    /// All persists up to this one are durable.
    Persisted(PersistId),
    /// Messages to this peer may have been lost.
    PeerUnreachable(NodeId),
}

/// What a replica wants done. All of it may be done at once, in the order in which it stands; persists wait only
/// for one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Write this and report it with [`Input::Persisted`].
    Persist(Persist),
    /// Send this to a peer. It may be lost.
    Send(Message),
    /// Give this answer.
    Answer(RequestId, Answer),
    /// The replica's term or its idea of the leader has changed.
    LeaderChanged {
        /// Its term.
        term: Term,
        /// The leader, if it knows one.
        leader: Option<NodeId>,
    },
    /// Tell whoever wants to know.
    Event(Event),
}

/// Why a replica cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaError {
    /// The settings do not fit one another.
    Config(ConfigError),
    /// The entry at this index is whole, but no command that this version knows.
    UnknownCommand(LogIndex),
}

impl fmt::Display for ReplicaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::UnknownCommand(index) => write!(
                f,
                "the log's entry {index} is a command that this version does not know: start a version that does"
            ),
        }
    }
}

impl std::error::Error for ReplicaError {}

/// A Raft node and the state that its committed entries build.
#[derive(Debug)]
pub struct Replica {
    node: Node,
    state: State,
    /// Fig. 2, volatile state: the highest index applied to the state.
    last_applied: LogIndex,
    /// Reads wait until this much is applied: the end of the log that the disk held. Otherwise an answer could be
    /// older than one given before the restart.
    reads_from: LogIndex,
    /// Reads that wait until so much is applied, and `reads_from`, which may fall meanwhile.
    waiting_reads: BTreeMap<LogIndex, Vec<WaitingRead>>,
    /// Linearizable reads that wait until their read index is known, by batch.
    unconfirmed_reads: BTreeMap<ReadBatch, Vec<(RequestId, Query)>>,
    /// Who waits for leadership to be handed over, and to whom.
    transfer: Option<(RequestId, NodeId)>,
    /// How many keys this step has looked up.
    looked_up: usize,
    /// Requests whose commands were put in the log and are not decided yet, by index. Two may wait for one index,
    /// in different terms.
    waiting: VecDeque<Waiting>,
    told_leader: (Term, Option<NodeId>),
    node_outputs: Vec<NodeOutput>,
}

#[derive(Debug)]
struct WaitingRead {
    request: RequestId,
    query: Query,
    since: Instant,
}

#[derive(Debug)]
struct Waiting {
    index: LogIndex,
    term: Term,
    request: RequestId,
}

impl Replica {
    /// A replica that finds `restored` on its disk. See [`Node::new`] for panics.
    ///
    /// # Errors
    ///
    /// [`ReplicaError`] when the settings do not fit one another, or the log has a command of another version.
    pub fn new(config: Config, restored: Restored, seed: u64, now: Instant) -> Result<Self, ReplicaError> {
        Self::with_session_limits(config, restored, seed, now, SessionLimits::default())
    }

    /// The same with other limits for sessions than the default ones: the same on all nodes of the cluster, and for as long
    /// as it lives.
    ///
    /// # Errors
    ///
    /// As for [`Replica::new`].
    pub fn with_session_limits(
        config: Config,
        restored: Restored,
        seed: u64,
        now: Instant,
        session_limits: SessionLimits,
    ) -> Result<Self, ReplicaError> {
        let last_applied = restored.log_start.index;
        let entries = restored.log.iter().flat_map(Entries::iter);
        let is_unknown = |entry: &Entry<'_>| {
            entry.kind() == EntryKind::Command && LoggedWrite::read(entry.payload).is_none()
        };
        if let Some(entry) = entries.into_iter().find(is_unknown) {
            return Err(ReplicaError::UnknownCommand(entry.point.index));
        }
        let node = Node::new(config, restored, seed, now).map_err(ReplicaError::Config)?;
        Ok(Self {
            reads_from: node.log().last().index,
            told_leader: (node.current_term(), None),
            node,
            state: State::new(session_limits),
            last_applied,
            waiting_reads: BTreeMap::new(),
            unconfirmed_reads: BTreeMap::new(),
            transfer: None,
            looked_up: 0,
            waiting: VecDeque::new(),
            node_outputs: Vec::new(),
        })
    }

    /// Takes all `inputs` and appends what has to be done to `outputs`. Both buffers are the caller's to use again:
    /// `inputs` is left empty.
    pub fn step(&mut self, now: Instant, inputs: &mut Vec<Input>, outputs: &mut Vec<Output>) {
        // Reads that the last step left over come before those that arrive now.
        self.looked_up = 0;
        self.answer_reads(now, outputs);
        for input in inputs.drain(..) {
            match input {
                Input::Message(message) => self.node.receive(message, now),
                Input::Persisted(id) => self.node.persisted(id, now),
                Input::PeerUnreachable(peer) => self.node.peer_unreachable(peer),
                Input::Request(id, request) => self.take(id, request, now, outputs),
            }
        }
        self.node.end_turn(now, &mut self.node_outputs);
        for output in std::mem::take(&mut self.node_outputs) {
            match output {
                NodeOutput::Persist(persist) => outputs.push(Output::Persist(persist)),
                NodeOutput::Send(message) => outputs.push(Output::Send(message)),
                NodeOutput::Event(event) => outputs.push(Output::Event(event)),
                NodeOutput::ReadIndex { batch, index } => self.learn_read_index(batch, index, now, outputs),
            }
        }
        if mutant::is_active(Mutant::SupersededBeforeCommit) && self.node.role() != Role::Leader {
            resolve(&mut self.waiting, LogIndex(u64::MAX), Term::INITIAL, None, outputs);
        }
        self.tell_leader(outputs);
        self.follow_transfer(outputs);
        self.reads_from = self.reads_from.min(self.node.log().last().index);
        self.apply(outputs);
        self.answer_reads(now, outputs);
    }

    /// When the next step is due if nothing arrives before.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let has_more_to_apply = self.last_applied < self.node.commit_index();
        let has_more_to_read = self.waiting_reads.keys().next().is_some_and(|first| self.may_answer(*first));
        if has_more_to_apply || has_more_to_read { Instant::default() } else { self.node.deadline() }
    }

    /// How it is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            id: self.node.id(),
            role: self.node.role(),
            term: self.node.current_term(),
            commit_index: self.node.commit_index(),
            last_applied: self.last_applied,
            last_log_index: self.node.log().last().index,
            leader: self.node.leader(),
        }
    }

    /// The Raft node below, to look at.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The store above, to look at.
    #[must_use]
    pub fn store(&self) -> &Store {
        self.state.store()
    }

    /// What it remembers of clients' writes, to look at.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        self.state.sessions()
    }

    fn take(&mut self, id: RequestId, request: Request, now: Instant, outputs: &mut Vec<Output>) {
        let answer = match request {
            Request::Write { command, session } => match self.propose(id, &command, session.as_ref()) {
                Ok(()) => return,
                Err(refused) => Answer::Refused(refused),
            },
            Request::Status => Answer::Status(self.status()),
            Request::LinearizableRead(query) => {
                let batch = self.node.read_index();
                return self.unconfirmed_reads.entry(batch).or_default().push((id, query));
            }
            Request::Transfer(target) => match self.start_transfer(id, target, now, outputs) {
                Ok(()) => return,
                Err(refused) => Answer::Refused(refused),
            },
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

    /// Whether enough is applied for a read by someone who has seen `at_least`.
    fn may_answer(&self, at_least: LogIndex) -> bool {
        let has_caught_up =
            self.last_applied >= self.reads_from || mutant::is_active(Mutant::ReadBeforeCatchUp);
        let has_seen_as_much = self.last_applied >= at_least || mutant::is_active(Mutant::ReadIgnoresSeen);
        has_caught_up && has_seen_as_much
    }

    fn look_up(&mut self, query: &Query) -> Answer {
        let found = self.state.store().answer(query);
        self.looked_up += match &found {
            Found::Value(_) => 1,
            Found::Page(page) => page.items.len() + 1,
        };
        Answer::Read { index: self.last_applied, found }
    }

    /// Answers the reads whose time has come, and refuses those that have waited too long, or that would wait in vain
    /// because there is no leader to catch up with.
    fn answer_reads(&mut self, now: Instant, outputs: &mut Vec<Output>) {
        while let Some(&at_least) = self.waiting_reads.keys().next()
            && self.may_answer(at_least)
        {
            let mut reads = self.waiting_reads.remove(&at_least).unwrap_or_default().into_iter();
            while self.looked_up < LOOK_UPS_MAX
                && let Some(WaitingRead { request, query, .. }) = reads.next()
            {
                outputs.push(Output::Answer(request, self.look_up(&query)));
            }
            if reads.len() > 0 {
                self.waiting_reads.insert(at_least, reads.collect());
                break;
            }
        }
        let has_leader = self.node.leader().is_some();
        let is_in_vain = |read: &mut WaitingRead| !has_leader || now.since(read.since) > READ_PATIENCE;
        let has_caught_up = self.last_applied >= self.reads_from;
        let first_blocked = if has_caught_up { self.last_applied.next() } else { LogIndex::ORIGIN };
        for (_, reads) in self.waiting_reads.range_mut(first_blocked..) {
            for read in reads.extract_if(.., is_in_vain) {
                outputs.push(Output::Answer(read.request, Answer::Refused(Refused::CatchingUp)));
            }
        }
        self.waiting_reads.retain(|_, reads| !reads.is_empty());
    }

    fn propose(
        &mut self,
        request: RequestId,
        command: &Command,
        session: Option<&Session>,
    ) -> Result<(), Refused> {
        match self.node.propose(|line| command.write_payload(session, line)) {
            Ok((index, term)) => {
                // Places grow from proposal to proposal, but for those of a reign that is over: their entries may
                // have been cut since. They wait on, because another node may still hold and commit them.
                let later = self.waiting.iter().rev().take_while(|request| request.index > index).count();
                self.waiting.insert(self.waiting.len() - later, Waiting { index, term, request });
                Ok(())
            }
            Err(ProposeError::NotLeader(_)) => Err(self.not_leader()),
            Err(ProposeError::TooManyUncommitted) => Err(Refused::Overloaded),
            Err(ProposeError::TransferPending) => Err(self.not_leader()),
        }
    }

    /// While leadership is being handed over nobody takes requests. Who asks waits to hear of the next leader, or of this
    /// one again.
    fn not_leader(&self) -> Refused {
        Refused::NotLeader { term: self.node.current_term(), leader: self.active_leader() }
    }

    /// The leader that takes requests.
    fn active_leader(&self) -> Option<NodeId> {
        self.node.leader().filter(|_| self.node.transfer_target().is_none())
    }

    /// Linearizable reads may be answered once this replica has applied up to `index`, or cannot be answered here.
    fn learn_read_index(
        &mut self,
        batch: ReadBatch,
        index: Option<LogIndex>,
        now: Instant,
        outputs: &mut Vec<Output>,
    ) {
        let reads = self.unconfirmed_reads.remove(&batch).unwrap_or_default();
        let Some(index) = index else {
            let is_full = self.active_leader() == Some(self.node.id());
            let refused = if is_full { Refused::Overloaded } else { self.not_leader() };
            let refusals = reads.into_iter().map(|(id, _)| Output::Answer(id, Answer::Refused(refused)));
            return outputs.extend(refusals);
        };
        let waiting = reads.into_iter().map(|(request, query)| WaitingRead { request, query, since: now });
        self.waiting_reads.entry(index).or_default().extend(waiting);
    }

    fn start_transfer(
        &mut self,
        id: RequestId,
        target: NodeId,
        now: Instant,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Refused> {
        self.node.transfer_leadership(target, now).map_err(|error| match error {
            TransferError::NotLeader(_) => self.not_leader(),
            TransferError::NotVoter => Refused::NotVoter,
        })?;
        // The latest order counts, also for who waits for an earlier one.
        if let Some((earlier, _)) = self.transfer.replace((id, target)) {
            outputs.push(Output::Answer(earlier, Answer::Refused(Refused::TransferFailed)));
        }
        Ok(())
    }

    /// Answers who waits for leadership to be handed over, once it is known what came of it.
    fn follow_transfer(&mut self, outputs: &mut Vec<Output>) {
        let Some((_, target)) = self.transfer else { return };
        let leader = self.active_leader();
        let Some(leader) = leader else { return };
        let answer = if leader == target {
            Answer::Transferred { to: target }
        } else {
            Answer::Refused(Refused::TransferFailed)
        };
        if let Some((request, _)) = self.transfer.take() {
            outputs.push(Output::Answer(request, answer));
        }
    }

    fn tell_leader(&mut self, outputs: &mut Vec<Output>) {
        let (term, leader) = (self.node.current_term(), self.active_leader());
        if (term, leader) != self.told_leader {
            self.told_leader = (term, leader);
            outputs.push(Output::LeaderChanged { term, leader });
        }
    }

    /// Fig. 2, all servers 1: while `commit_index > last_applied`, apply the next entry.
    fn apply(&mut self, outputs: &mut Vec<Output>) {
        let takes_all = mutant::is_active(Mutant::AppliedBeforeCommit);
        let commit_index = if takes_all { self.node.log().last().index } else { self.node.commit_index() };
        if self.last_applied >= commit_index {
            return;
        }
        for run in self.node.log().entries_from(self.last_applied.next(), APPLY_BYTES_MAX) {
            let Some(committed) = run.ending_at(commit_index) else { break };
            for entry in committed.iter() {
                let outcome = match entry.kind() {
                    EntryKind::Noop => None,
                    EntryKind::Command => {
                        let write = LoggedWrite::read(entry.payload);
                        let write = write.expect("the log holds only commands of this version");
                        Some(self.state.apply(&write))
                    }
                };
                self.last_applied = entry.point.index;
                resolve(&mut self.waiting, entry.point.index, entry.point.term, outcome, outputs);
            }
        }
    }
}

/// An entry was applied at `index`: answers the requests that waited for that place.
///
/// A request whose command was proposed there in another term is answered as well: with another entry committed in
/// its place, it can never take effect.
fn resolve(
    waiting: &mut VecDeque<Waiting>,
    index: LogIndex,
    term: Term,
    outcome: Option<Outcome>,
    outputs: &mut Vec<Output>,
) {
    while let Some(done) = waiting.pop_front_if(|request| request.index <= index) {
        let is_its_own =
            (done.index, done.term) == (index, term) || mutant::is_active(Mutant::AnsweredByIndex);
        let answer = match &outcome {
            Some(outcome) if is_its_own => Answer::Applied { index, outcome: outcome.clone() },
            _ => Answer::Refused(Refused::Superseded),
        };
        outputs.push(Output::Answer(done.request, answer));
    }
}
