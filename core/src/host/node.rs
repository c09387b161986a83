//! A node's host: gathers inputs into one turn of the replica, and turns its outputs into actions.
//!
//! One turn takes everything in the inbox, up to a limit. Everything that arrived during the turn
//! before is written, sent and answered together; batching and group commit need no other
//! mechanism.
//!
//! The host also keeps the state that belongs neither to the replica nor to a runtime: which
//! requests other nodes have forwarded here, which configuration the connections follow, whether
//! the node is resigning, and, for a node without files, its snapshots.
//!
//! Deliberately not here: waiting, and carrying actions out. A runtime fills the host with
//! [`NodeHost::accept`] until it [is full](NodeHost::is_full) or the inbox is empty, calls
//! [`NodeHost::step`], carries the actions out in order, and waits until [`NodeHost::deadline`],
//! unless the host [has work](NodeHost::has_work) already.

use super::forward::Forwarded;
use super::snapshots::{MemorySnapshots, SnapshotOrder};
use crate::identity::Incarnation;
use crate::kv::Level;
use crate::memory::{MemoryBudget, NodeMemory};
use crate::peer::{CallId, HandshakeRefusal, KnownMembers, PeerFrame};
use crate::proxy::ProxyInput;
use crate::raft::{Config, Event, Message, NodeId, Persist, Restored};
use crate::replica::{
    Answer, Input, Output, Replica, ReplicaError, ReplicaLimits, Request, RequestId, RequestRefusal,
    RestoredState,
};
use crate::time::Instant;

/// The most items of the inbox that one turn takes, so that a flood of inputs cannot keep a node
/// from its timers.
pub const TURN_INPUTS_MAX: usize = 4096;

/// An item of a node's inbox.
#[derive(Debug)]
pub enum HostInput {
    /// An input for the replica.
    Core(Input),
    /// Clients' requests, from the router.
    Requests(Vec<Input>),
    /// Frames of another node: messages, and its clients' requests.
    FromPeer {
        /// The sender.
        node: NodeId,
        /// The sender's incarnation, by the handshake of the connection.
        incarnation: Incarnation,
        /// The frames.
        frames: Vec<PeerFrame>,
        /// The size of the frames in bytes, which counts against the inbox while they wait.
        peer_bytes: usize,
    },
    /// Hand leadership over if this node leads. [`NodeAction::Resigned`] follows when that is done
    /// or has failed.
    Resign,
}

impl HostInput {
    /// Returns the bytes of a peer's frames that the item takes up in an inbox.
    #[must_use]
    pub fn peer_bytes(&self) -> usize {
        match self {
            Self::FromPeer { peer_bytes, .. } => *peer_bytes,
            Self::Core(_) | Self::Requests(_) | Self::Resign => 0,
        }
    }
}

/// An action for the runtime.
#[derive(Clone, Debug)]
pub enum NodeAction {
    /// Write this to the log, in order, and report it with [`Input::Persisted`]. Not used for a
    /// node without files.
    Persist(Persist),
    /// Write or read a part of a snapshot, and report it. Not used for a node without files.
    Snapshot(SnapshotOrder),
    /// Send this message to the node that it names. It may be lost.
    Send(Message),
    /// Answer a request that this node has forwarded here.
    AnswerPeer(NodeId, CallId, Answer),
    /// Hand these inputs to the router. At most once per turn.
    Route(Vec<ProxyInput>),
    /// Follow this configuration with the connections: the members, or the knowledge of them, have
    /// changed.
    Follow(KnownMembers),
    /// The node was removed by a committed configuration and must end.
    Removed(HandshakeRefusal),
    /// Report this event to the operator.
    Report(Event),
    /// Leadership was handed over, or could not be.
    Resigned,
}

/// The medium on which a node keeps its log and its snapshots.
#[derive(Debug)]
enum Medium {
    /// Memory: persists and snapshots are complete as soon as they are ordered.
    Memory(MemorySnapshots),
    /// Files, which the runtime writes.
    Files,
}

/// A replica with the state between it and a runtime. See the module.
#[derive(Debug)]
pub struct NodeHost {
    id: NodeId,
    replica: Replica,
    medium: Medium,
    forwarded: Forwarded,
    followed: Option<KnownMembers>,
    /// Whether it was reported that requests can be answered.
    ready_is_told: bool,
    /// The level that was last reported to the router, once the node had caught up.
    told_level: Option<Level>,
    resignation: Option<RequestId>,
    inputs: Vec<Input>,
    outputs: Vec<Output>,
    /// Requests to reject that never reached the replica.
    refused: Vec<(NodeId, CallId)>,
    /// The number of inbox items that this turn has taken.
    taken: usize,
    /// The budget that counts this node's memory, and the bytes that were last reported to it.
    memory: Option<MemoryBudget>,
    noted: usize,
}

impl NodeHost {
    /// Starts a node from the state restored from its files, which the runtime keeps, and from its
    /// snapshot's state if that was read already; `None`: the node has no files and keeps its state
    /// in memory.
    ///
    /// # Errors
    ///
    /// The errors of [`Replica::with_limits`].
    pub fn start(
        config: Config,
        restored: Option<(Restored, Option<RestoredState>)>,
        seed: u64,
        now: Instant,
        limits: ReplicaLimits,
    ) -> Result<Self, ReplicaError> {
        let id = config.id;
        match restored {
            Some((restored, state)) => {
                let replica = match state {
                    Some(state) => Replica::with_state(config, restored, Some(state), seed, now, limits)?,
                    None => Replica::with_limits(config, restored, seed, now, limits)?,
                };
                Ok(Self::with_files(id, replica))
            }
            None => {
                let empty = Restored::default();
                Ok(Self::in_memory(id, Replica::with_limits(config, empty, seed, now, limits)?))
            }
        }
    }

    /// Creates a host for the node `id`, whose log and snapshots the runtime keeps in files.
    #[must_use]
    pub fn with_files(id: NodeId, replica: Replica) -> Self {
        Self::new(id, replica, Medium::Files)
    }

    /// Creates a host for the node `id`, which keeps its state in memory.
    #[must_use]
    pub fn in_memory(id: NodeId, replica: Replica) -> Self {
        Self::new(id, replica, Medium::Memory(MemorySnapshots::default()))
    }

    fn new(id: NodeId, replica: Replica, medium: Medium) -> Self {
        Self {
            id,
            replica,
            medium,
            forwarded: Forwarded::default(),
            followed: None,
            ready_is_told: false,
            told_level: None,
            resignation: None,
            inputs: Vec::new(),
            outputs: Vec::new(),
            refused: Vec::new(),
            taken: 0,
            memory: None,
            noted: 0,
        }
    }

    /// Returns the host with its memory counted in this budget.
    #[must_use]
    pub fn with_memory(mut self, budget: MemoryBudget) -> Self {
        self.memory = Some(budget);
        self.note_memory();
        self
    }

    fn note_memory(&mut self) {
        /// A smaller change does not justify taking the budget's lock.
        const NOTED_BYTES: usize = 64 << 10;
        let Some(budget) = &self.memory else { return };
        let in_medium = match &self.medium {
            Medium::Memory(snapshots) => snapshots.text_bytes(),
            Medium::Files => 0,
        };
        let bytes = self.replica.memory_bytes().saturating_add(in_medium);
        if bytes.abs_diff(self.noted) >= NOTED_BYTES {
            self.noted = bytes;
            let memory = self.replica.memory();
            budget.note_node(self.id, NodeMemory { copies: memory.copies + in_medium, ..memory });
        }
    }

    /// The node's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The replica.
    #[must_use]
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Adds an item of the inbox to this turn.
    pub fn accept(&mut self, input: HostInput) {
        self.taken += 1;
        match input {
            HostInput::Core(input) => self.inputs.push(input),
            HostInput::Requests(requests) => self.inputs.extend(requests),
            HostInput::FromPeer { node, incarnation, frames, .. } => {
                let memory = self.memory.as_ref();
                let is_refused = |request: &Request| memory.is_some_and(|it| it.has_no_room_for(request));
                let refused =
                    self.forwarded.receive((node, incarnation), frames, is_refused, &mut self.inputs);
                self.refused.extend(refused.into_iter().map(|call| (node, call)));
            }
            HostInput::Resign => {
                let id = self.forwarded.next_id();
                self.resignation = Some(id);
                self.inputs.push(Input::Request(id, Request::Resign));
            }
        }
    }

    /// Returns whether this turn has taken enough of the inbox.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.taken >= TURN_INPUTS_MAX
    }

    /// Returns whether the next turn is due at once: without files, persists and snapshots are
    /// complete already.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.inputs.is_empty()
    }

    /// Returns when the next turn is due if nothing arrives.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.replica.deadline()
    }

    /// Runs one turn: processes the accepted items, and appends the resulting actions to `actions`.
    pub fn step(&mut self, now: Instant, actions: &mut Vec<NodeAction>) {
        self.taken = 0;
        let is_short = self.memory.as_ref().is_some_and(MemoryBudget::state_is_short);
        self.replica.set_memory_is_short(is_short);
        self.replica.step(now, &mut self.inputs, &mut self.outputs);
        self.note_memory();
        let overloaded =
            |(peer, call)| NodeAction::AnswerPeer(peer, call, Answer::Refused(RequestRefusal::Overloaded));
        actions.extend(self.refused.drain(..).map(overloaded));
        if !self.followed.as_ref().is_some_and(|followed| self.replica.knows_no_more_than(followed)) {
            let known = self.replica.known_members();
            actions.push(NodeAction::Follow(known.clone()));
            self.followed = Some(known);
        }
        if !self.ready_is_told && self.replica.is_ready() {
            self.ready_is_told = true;
            actions.push(NodeAction::Report(Event::Ready));
        }
        let mut for_router = Vec::new();
        let level = self.replica.level();
        if self.told_level != Some(level) && self.ready_is_told {
            self.told_level = Some(level);
            for_router.push(ProxyInput::Level(level));
        }
        for output in self.outputs.drain(..) {
            match output {
                Output::Persist(persist) => match &self.medium {
                    Medium::Memory(_) => self.inputs.push(Input::Persisted(persist.id)),
                    Medium::Files => actions.push(NodeAction::Persist(persist)),
                },
                Output::WriteSnapshot(part) => {
                    order_snapshot(&mut self.medium, SnapshotOrder::Write(part), &mut self.inputs, actions);
                }
                Output::ReadSnapshot { last, offset } => {
                    let order = SnapshotOrder::Read { last, offset };
                    order_snapshot(&mut self.medium, order, &mut self.inputs, actions);
                }
                Output::Send(message) => actions.push(NodeAction::Send(message)),
                Output::Answer(id, _) if self.resignation == Some(id) => {
                    self.resignation = None;
                    actions.push(NodeAction::Resigned);
                }
                Output::Answer(id, answer) => match self.forwarded.answered(id) {
                    Some((peer, call)) => actions.push(NodeAction::AnswerPeer(peer, call, answer)),
                    None => for_router.push(ProxyInput::Answer(self.id, id, answer)),
                },
                Output::LeaderChanged { term, leader } => {
                    for_router.push(ProxyInput::LeaderChanged { node: self.id, term, leader });
                }
                Output::Removed(index) => {
                    let refusal = HandshakeRefusal::Removed { node: self.id.0, index: index.0 };
                    actions.push(NodeAction::Removed(refusal));
                }
                Output::Event(event) => actions.push(NodeAction::Report(event)),
            }
        }
        if !for_router.is_empty() {
            actions.push(NodeAction::Route(for_router));
        }
    }
}

fn order_snapshot(
    medium: &mut Medium,
    order: SnapshotOrder,
    inputs: &mut Vec<Input>,
    actions: &mut Vec<NodeAction>,
) {
    match medium {
        Medium::Memory(snapshots) => inputs.push(snapshots.carry_out(order)),
        Medium::Files => actions.push(NodeAction::Snapshot(order)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Command, Key, Value};
    use crate::raft::Voters;

    const NODE: NodeId = NodeId(0);

    fn replica(voters: u64) -> Replica {
        let config = Config::new(NODE, Voters::new((0..voters).map(NodeId)).unwrap());
        Replica::new(config, Restored::default(), 7, Instant::default()).unwrap()
    }

    fn put() -> Request {
        Request::write(Command::Put { key: Key::new("k").unwrap(), value: Value::from_json("1").unwrap() })
    }

    /// Runs turns at the host's next deadline until it has no more work.
    fn turns(host: &mut NodeHost) -> Vec<NodeAction> {
        let now = host.deadline() + std::time::Duration::from_micros(1);
        let mut actions = Vec::new();
        host.step(now, &mut actions);
        while host.has_work() {
            host.step(now, &mut actions);
        }
        actions
    }

    fn leader_in_memory() -> NodeHost {
        let mut host = NodeHost::in_memory(NODE, replica(1));
        while host.replica().level() < Level::MAX {
            turns(&mut host);
        }
        host
    }

    #[test]
    fn without_files_a_write_completes_without_waiting() {
        let mut host = leader_in_memory();
        host.accept(HostInput::Requests(vec![Input::Request(RequestId(3), put())]));
        let actions = turns(&mut host);
        let answers = actions.iter().filter_map(|action| match action {
            NodeAction::Route(news) => Some(news),
            NodeAction::Persist(_) | NodeAction::Snapshot(_) => panic!("{action:?}"),
            _ => None,
        });
        let is_done = |news: &ProxyInput| {
            matches!(news, ProxyInput::Answer(NODE, RequestId(3), Answer::Applied { .. }))
        };
        assert!(answers.flatten().any(is_done), "{actions:?}");
    }

    #[test]
    fn with_files_a_node_waits_for_its_persists() {
        let mut host = NodeHost::with_files(NODE, replica(1));
        let actions = turns(&mut host);
        let persists = actions.iter().filter(|action| matches!(action, NodeAction::Persist(_))).count();
        assert!(persists > 0 && !host.has_work());
        assert_eq!(host.replica().status().leader, None, "its own vote is not durable yet");
    }

    #[test]
    fn a_forwarded_request_is_answered_to_the_node_that_sent_it() {
        let mut host = leader_in_memory();
        let call = CallId { boot: 4, request: RequestId(3) };
        let ask = |sequence| PeerFrame::Ask { call, sequence, request: put() };
        let (node, incarnation, frames) = (NodeId(2), Incarnation(5), vec![ask(1), ask(1)]);
        host.accept(HostInput::FromPeer { node, incarnation, frames, peer_bytes: 2 });
        let answered = turns(&mut host).into_iter().filter_map(|action| match action {
            NodeAction::AnswerPeer(peer, call, Answer::Applied { .. }) => Some((peer, call)),
            _ => None,
        });
        assert_eq!(answered.collect::<Vec<_>>(), [(NodeId(2), call)], "once: the second is a duplicate");
    }

    #[test]
    fn a_configuration_is_followed_once() {
        let mut host = leader_in_memory();
        let follows = |actions: Vec<NodeAction>| {
            actions.into_iter().filter(|action| matches!(action, NodeAction::Follow(..))).count()
        };
        host.followed = None;
        assert_eq!(follows(turns(&mut host)), 1);
        assert_eq!(follows(turns(&mut host)), 0);
    }

    #[test]
    fn a_resignation_is_answered_whether_it_leads_or_not() {
        for mut host in [leader_in_memory(), NodeHost::in_memory(NODE, replica(3))] {
            host.accept(HostInput::Resign);
            let mut actions = Vec::new();
            for _ in 0..100 {
                actions.extend(turns(&mut host));
            }
            let resigned = actions.iter().filter(|action| matches!(action, NodeAction::Resigned));
            assert_eq!(resigned.count(), 1);
        }
    }

    #[test]
    fn a_turn_has_a_limit() {
        let mut host = leader_in_memory();
        for _ in 0..TURN_INPUTS_MAX {
            assert!(!host.is_full());
            host.accept(HostInput::Requests(Vec::new()));
        }
        assert!(host.is_full());
        turns(&mut host);
        assert!(!host.is_full());
    }
}
