//! The cluster of a scenario test, and the verbs that act on it and its environment.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_core::kv::{Command, Key, Level, Value};
use coracle_core::raft::{Addition, Config, Message, Node, NodeId, PersistId, Restored, Role, Voters};
use coracle_core::{Answer, Incarnation, Input, Instant, Output, Replica, Request, RequestId};

use super::auditor::Auditor;
use super::disk::Disk;
use super::network::{Network, Weather};
use super::subject::Subject;

/// The most steps of one verb, far more than any scenario needs. A cluster that does not come to
/// rest within them is stuck in a loop.
const STEPS_MAX: usize = 1_000_000;

/// The nodes of one cluster, numbered from 1, with their environment. See the [module](super) for
/// the verbs.
#[derive(Debug)]
pub struct Cluster<S> {
    pub(super) seats: BTreeMap<NodeId, Seat<S>>,
    pub(super) answers: BTreeMap<RequestId, Answer>,
    pub(super) trace: Vec<String>,
    pub(super) now: Instant,
    network: Network,
    pub(super) auditor: Auditor,
    asked: u64,
    seed: u64,
}

/// The place of a node: its process, which may be down, its disk and its clock.
#[derive(Debug)]
pub(super) struct Seat<S> {
    pub(super) subject: Option<S>,
    pub(super) disk: Disk,
    config: Config,
    /// The time by which the node's clock is ahead of the scenario's.
    pub(super) ahead: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Disk(NodeId),
    Mail,
    Timer(NodeId),
}

/// Creates a cluster of `size` bare Raft nodes with empty disks.
#[must_use]
pub fn cluster(size: u64) -> Cluster<Node> {
    cluster_with(vec![Restored::default(); usize::try_from(size).expect("a small number")])
}

/// Creates a cluster of `size` replicas with empty disks.
#[must_use]
pub fn replicas(size: u64) -> Cluster<Replica> {
    let disks = vec![Restored::default(); usize::try_from(size).expect("a small number")];
    Cluster::start(disks, 0, |config| config)
}

/// Creates a cluster of bare Raft nodes that start with these disks.
#[must_use]
pub fn cluster_with(disks: Vec<Restored>) -> Cluster<Node> {
    Cluster::start(disks, 0, |config| config)
}

impl<S: Subject> Cluster<S> {
    /// Starts nodes with these disks. `seed` decides everything random, and `tune` changes their
    /// settings.
    #[must_use]
    pub fn start(disks: Vec<Restored>, seed: u64, tune: impl Fn(Config) -> Config) -> Self {
        let ids = (1..).map(NodeId).take(disks.len());
        let voters = Voters::new(ids.clone()).expect("one to nine nodes");
        let now = Instant::from_micros(1_000_000);
        let seat = |(id, restored)| {
            let config = tune(Config::new(id, voters.clone()));
            (id, Seat { subject: None, disk: Disk::new(restored), config, ahead: Duration::ZERO })
        };
        let mut cluster = Self {
            seats: ids.clone().zip(disks).map(seat).collect(),
            answers: BTreeMap::new(),
            trace: Vec::new(),
            now,
            network: Network::new(seed),
            auditor: Auditor::default(),
            asked: 0,
            seed,
        };
        for id in ids {
            cluster.restart(id.0);
        }
        cluster
    }

    /// Elects a node: its election timer expires before all others, and it wins, at once or in a
    /// second campaign when the first one only taught it a newer term.
    ///
    /// # Panics
    ///
    /// When the node does not win.
    pub fn elect(&mut self, node: u64) {
        self.campaign(node);
        self.settle();
        self.campaign(node);
        self.settle();
        assert_eq!(self.role(node), Role::Leader, "node {node} was not elected: {:#?}", self.trace);
    }

    /// Expires a node's election timer before all others. The others have not heard from a leader
    /// for so long that they are free to vote, but they do not campaign.
    pub fn campaign(&mut self, node: u64) {
        let id = NodeId(node);
        if self.role(node) == Role::Leader {
            return;
        }
        for seat in self.seats.values_mut() {
            let Some(subject) = &seat.subject else { continue };
            let until_due = subject.deadline().since(self.now + seat.ahead);
            if subject.node().id() == id {
                seat.ahead += until_due;
            } else if subject.node().role() != Role::Leader {
                let lease = seat.config.election_timeout_min;
                seat.ahead += lease.min(until_due.saturating_sub(Duration::from_micros(1)));
            }
        }
        self.step(id, Vec::new());
    }

    /// Sends a client's write to a node, with `text` as both key and value.
    pub fn propose(&mut self, node: u64, text: &str) -> RequestId {
        self.propose_all(node, &[text])
    }

    /// Sends several writes that arrive together. Returns the id of the last one.
    pub fn propose_all(&mut self, node: u64, texts: &[&str]) -> RequestId {
        let command = |text: &&str| Command::Put {
            key: Key::new(text).expect("a short text"),
            value: Value::from_text(text).expect("a short text"),
        };
        let requests: Vec<_> = texts.iter().map(command).map(Request::write).collect();
        self.ask_all(node, requests)
    }

    /// Sends a client's request to a node.
    pub fn ask(&mut self, node: u64, request: Request) -> RequestId {
        self.ask_all(node, vec![request])
    }

    /// Sends several requests that arrive together. Returns the id of the last one; the others' ids
    /// precede it.
    pub fn ask_all(&mut self, node: u64, requests: Vec<Request>) -> RequestId {
        let mut inputs = Vec::new();
        for request in requests {
            self.asked += 1;
            inputs.push(Input::Request(RequestId(self.asked), request));
        }
        self.step(NodeId(node), inputs);
        RequestId(self.asked)
    }

    /// Cuts all links of a node, in both directions.
    pub fn isolate(&mut self, node: u64) {
        let others: Vec<_> = self.seats.keys().copied().filter(|id| id.0 != node).collect();
        for other in others {
            self.cut(node, other.0);
            self.cut(other.0, node);
        }
    }

    /// Cuts the link between two nodes in one direction.
    pub fn cut(&mut self, from: u64, to: u64) {
        self.network.cut(NodeId(from), NodeId(to));
    }

    /// Cuts the links between two nodes in both directions.
    pub fn part(&mut self, one: u64, other: u64) {
        self.cut(one, other);
        self.cut(other, one);
    }

    /// Restores one direction of a link.
    pub fn mend(&mut self, from: u64, to: u64) {
        self.network.mend(NodeId(from), NodeId(to));
    }

    /// Restores all links, ends interceptions, and resets the weather to calm.
    pub fn heal(&mut self) {
        self.network.heal();
    }

    /// Sets the weather of network and disks from now on.
    pub fn weather(&mut self, weather: Weather) {
        self.network.weather = weather;
    }

    /// Intercepts the messages of this link from now on; see [`Cluster::intercepted`].
    pub fn intercept(&mut self, from: u64, to: u64) {
        self.network.intercept(NodeId(from), NodeId(to));
    }

    /// Removes and returns the messages that were intercepted so far, in the order in which they
    /// were sent.
    pub fn intercepted(&mut self) -> Vec<Message> {
        self.network.intercepted()
    }

    /// Delivers a message now, regardless of its origin and of the links.
    pub fn deliver(&mut self, message: Message) {
        let to = message.to;
        self.step(to, vec![Input::Message(message)]);
    }

    /// Notifies a node that a peer cannot be reached.
    pub fn tell_unreachable(&mut self, node: u64, peer: u64) {
        self.step(NodeId(node), vec![Input::PeerUnreachable(NodeId(peer))]);
    }

    /// Notifies a node that its transport has completed a handshake with a peer in this
    /// incarnation, which was admitted by this addition.
    pub fn complete_handshake(&mut self, node: u64, peer: u64, incarnation: u64, addition: u64) {
        self.complete_handshake_at(node, peer, incarnation, addition, Level::MAX);
    }

    /// Like [`Cluster::complete_handshake`], with a peer that supports only this level.
    pub fn complete_handshake_at(
        &mut self,
        node: u64,
        peer: u64,
        incarnation: u64,
        addition: u64,
        supports: Level,
    ) {
        let (peer, incarnation) = (NodeId(peer), Incarnation(incarnation));
        self.step(
            NodeId(node),
            vec![Input::HandshakeCompleted { peer, incarnation, addition: Addition(addition), supports }],
        );
    }

    /// Notifies a node that another node said that it was removed.
    pub fn dismiss(&mut self, node: u64) {
        self.step(NodeId(node), vec![Input::Dismissed]);
    }

    /// Loses a node's disk: a successor with the same id starts with an empty disk, in another
    /// incarnation.
    pub fn replace(&mut self, node: u64, incarnation: u64) {
        let seat = self.seats.get_mut(&NodeId(node)).expect("a node of this cluster");
        seat.subject = None;
        seat.disk = Disk::new(Restored::default());
        seat.config.incarnation = Some(Incarnation(incarnation));
        self.auditor.replaced(NodeId(node));
        self.restart(node);
    }

    /// Crashes a node. Writes that its disk has not completed are lost.
    pub fn crash(&mut self, node: u64) {
        self.tear(node, 0, None);
    }

    /// Crashes a node with a torn write. Of the writes that its disk has not completed, the first
    /// `whole` survive, and of the next one the term, the cut and the first `entries` entries. With
    /// `None`, no part of that one survives.
    pub fn tear(&mut self, node: u64, whole: usize, entries: Option<usize>) {
        let seat = self.seat_mut(node);
        seat.subject = None;
        seat.disk.tear(whole, entries);
        self.auditor.note(format!("{node} crashed"));
    }

    /// Starts a node from the content of its disk.
    pub fn restart(&mut self, node: u64) {
        self.seed += 1;
        let (now, seed) = (self.now, self.seed);
        let seat = self.seat_mut(node);
        assert!(seat.subject.is_none(), "node {node} runs already");
        let clock = now + seat.ahead;
        seat.subject = Some(S::start(seat.config.clone(), seat.disk.restored(), seed, clock));
        self.auditor.restarted(NodeId(node));
        self.auditor.note(format!("{node} started"));
    }

    /// Hangs a node's disk: it accepts writes and completes none.
    pub fn hold_disk(&mut self, node: u64) {
        self.seat_mut(node).disk.hold();
    }

    /// Completes the `count` oldest writes of a disk that hangs, and reports them in one input.
    pub fn release_writes(&mut self, node: u64, count: usize) {
        let disk = &mut self.seat_mut(node).disk;
        let done = (0..count).filter_map(|_| disk.carry_out()).last();
        if let Some(id) = done {
            self.report(node, id);
        }
    }

    /// Releases a disk that hung: it completes all writes and reports them in one input.
    pub fn release_disk(&mut self, node: u64) {
        let disk = &mut self.seat_mut(node).disk;
        disk.let_go();
        let waiting = disk.waiting();
        self.release_writes(node, waiting);
        self.write_snapshots(NodeId(node));
    }

    /// Reports to a node, perhaps repeatedly, that a write is durable.
    pub fn report(&mut self, node: u64, id: PersistId) {
        self.step(NodeId(node), vec![Input::Persisted(id)]);
    }

    /// Lets time pass: everything due happens in its order.
    pub fn elapse_ms(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        for _ in 0..STEPS_MAX {
            match self.next_due() {
                Some((at, due)) if at <= end => self.act(at, due),
                _ => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("no rest after {STEPS_MAX} steps: {:#?}", self.trace);
    }

    /// Lets time pass during which no node runs. Everything that was due happens late.
    pub fn oversleep_ms(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
    }

    /// Runs the cluster until nothing is in flight. In calm weather no time passes.
    pub fn settle(&mut self) {
        for _ in 0..STEPS_MAX {
            let disks = || self.seats.values().filter_map(|seat| seat.disk.next_due());
            let is_busy = self.network.next_due().is_some() || disks().next().is_some();
            match self.next_due() {
                Some((at, due)) if is_busy || at <= self.now => self.act(at, due),
                _ => return,
            }
        }
        panic!("no rest after {STEPS_MAX} steps: {:#?}", self.trace);
    }

    fn next_due(&self) -> Option<(Instant, Due)> {
        let disks = self.seats.iter().filter_map(|(&id, seat)| Some((seat.disk.next_due()?, Due::Disk(id))));
        let timers = self.seats.iter().filter_map(|(&id, seat)| {
            let deadline = seat.subject.as_ref()?.deadline();
            Some((deadline - seat.ahead, Due::Timer(id)))
        });
        let mail = self.network.next_due().map(|at| (at, Due::Mail));
        // Of several events that are due at once, the first in this order wins: a calm disk
        // completes before the next message.
        disks.chain(mail).chain(timers).min_by_key(|(at, _)| *at.max(&self.now))
    }

    fn act(&mut self, at: Instant, due: Due) {
        self.now = self.now.max(at);
        match due {
            Due::Mail => {
                let batch = self.network.arrive();
                if let Some(to) = batch.first().map(|message| message.to) {
                    self.step(to, batch.into_iter().map(Input::Message).collect());
                }
            }
            Due::Disk(id) => self.release_writes(id.0, 1),
            Due::Timer(id) => self.step(id, Vec::new()),
        }
    }

    /// Runs one turn of a node. A node that is down misses it.
    fn step(&mut self, id: NodeId, inputs: Vec<Input>) {
        let Some(seat) = self.seats.get_mut(&id) else { return };
        let Some(subject) = &mut seat.subject else { return };
        for input in &inputs {
            self.auditor.note(format!("{} {id} takes {input:?}", self.now.as_micros()));
        }
        let mut read = Vec::new();
        for output in subject.step(self.now + seat.ahead, inputs) {
            match output {
                Output::WriteSnapshot(part) => seat.disk.take_part(part),
                Output::ReadSnapshot { last, offset } => {
                    let part = seat.disk.read_part(last, offset);
                    read.push(Input::SnapshotRead { last, offset, part });
                }
                Output::Persist(persist) => {
                    self.auditor.persist(subject.node(), &persist);
                    seat.disk.ask(persist, self.now + self.network.disk_time());
                }
                Output::Send(message) => {
                    self.auditor.sent(subject.node(), &seat.disk, &message);
                    self.network.post(message, self.now);
                }
                Output::Event(event) => {
                    self.auditor.note(format!("{} {id} {event}", self.now.as_micros()));
                    self.auditor.event(id, &event);
                    self.trace.push(format!("{id} {event}"));
                }
                Output::Answer(request, answer) => {
                    let earlier = self.answers.insert(request, answer);
                    assert!(earlier.is_none(), "{request:?} was answered twice");
                }
                Output::LeaderChanged { .. } | Output::Removed(_) => {}
            }
        }
        self.audit(id);
        if !read.is_empty() {
            self.step(id, read);
        }
        self.write_snapshots(id);
    }

    /// Writes the waiting parts of snapshots at once, unless the disk hangs.
    fn write_snapshots(&mut self, id: NodeId) {
        while let Some((last, bytes)) = self.seats.get_mut(&id).and_then(|seat| seat.disk.write_part()) {
            self.step(id, vec![Input::SnapshotWritten { last, bytes }]);
        }
    }

    fn audit(&mut self, id: NodeId) {
        let node = self.node(id.0);
        let holds = |member, point| self.seats.get(&member).is_some_and(|seat| seat.disk.holds(point));
        for other in self.seats.values().filter_map(|seat| seat.subject.as_ref()) {
            self.auditor.compare(node, other.node());
        }
        // The auditor is moved out temporarily, because it reads the rest of the cluster.
        let mut auditor = std::mem::take(&mut self.auditor);
        auditor.observe(self.node(id.0), holds);
        self.auditor = auditor;
    }

    fn seat_mut(&mut self, node: u64) -> &mut Seat<S> {
        self.seats.get_mut(&NodeId(node)).expect("nodes are numbered from 1")
    }
}
