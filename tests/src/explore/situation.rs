//! One situation of an exploration, and the steps that are possible in it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use coracle_core::Instant;
use coracle_core::raft::{
    Body, Config, Entries, HardState, LogPoint, Message, Node, NodeId, Output, Persist, PersistId, Restored,
    Role, Voters,
};

use super::Scope;
use super::rules::Rules;

/// The number of nodes.
const NODES: u64 = 3;
/// A heartbeat interval that never expires within an exploration, so leaders send messages only
/// when they have news.
const BEAT: Duration = Duration::from_secs(1000);

/// A step from one situation to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A node's election timer expires.
    Timeout(NodeId),
    /// The first message of a link arrives.
    Deliver(NodeId, NodeId),
    /// The first message of a link arrives, and stays in the link to arrive again.
    Double(NodeId, NodeId),
    /// The first message of a link is lost.
    Lose(NodeId, NodeId),
    /// The oldest write of a node's disk completes.
    Persisted(NodeId),
    /// A command is proposed to a leader.
    Propose(NodeId),
    /// A node crashes and starts again.
    Crash(NodeId),
}

/// The facts about a step that the exploration counts.
pub(super) struct Facts {
    pub(super) has_elected: bool,
    pub(super) commit: u64,
}

/// A node with its disk.
#[derive(Clone, Debug)]
struct Seat {
    node: Node,
    now: Instant,
    writing: VecDeque<Persist>,
    hard_state: HardState,
    log: Vec<Entries>,
}

/// The nodes, the messages between them, and the number of events that may still happen.
#[derive(Clone)]
pub(super) struct Situation {
    left: Scope,
    seats: BTreeMap<NodeId, Seat>,
    links: BTreeMap<(NodeId, NodeId), VecDeque<Message>>,
    rules: Rules,
    story: Option<Arc<Told>>,
}

/// A step and those before it, shared between the situations to which they led.
struct Told {
    step: Step,
    before: Option<Arc<Told>>,
}

impl Situation {
    pub(super) fn new(scope: Scope) -> Self {
        let ids: Vec<_> = (1..=NODES).map(NodeId).collect();
        let seats = ids
            .iter()
            .map(|id| (*id, Seat::start(*id, HardState::default(), Vec::new(), Instant::default())));
        Self {
            left: scope,
            seats: seats.collect(),
            links: BTreeMap::new(),
            rules: Rules::default(),
            story: None,
        }
    }

    /// All steps that are possible now.
    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (&(from, to), link) in &self.links {
            if link.is_empty() {
                continue;
            }
            steps.push(Step::Deliver(from, to));
            if self.left.losses > 0 {
                steps.push(Step::Lose(from, to));
            }
            if self.left.doubles > 0 {
                steps.push(Step::Double(from, to));
            }
        }
        for (&id, seat) in &self.seats {
            if !seat.writing.is_empty() {
                steps.push(Step::Persisted(id));
            }
            let leads = seat.node.role() == Role::Leader;
            if self.left.timeouts > 0 && !leads {
                steps.push(Step::Timeout(id));
            }
            if self.left.commands > 0 && leads {
                steps.push(Step::Propose(id));
            }
            if self.left.crashes > 0 {
                steps.push(Step::Crash(id));
            }
        }
        steps
    }

    /// Performs a step.
    pub(super) fn take(&mut self, step: Step) -> Result<Facts, String> {
        self.story = Some(Arc::new(Told { step, before: self.story.take() }));
        let node = match step {
            Step::Timeout(id) => {
                self.left.timeouts -= 1;
                let seat = self.seat(id);
                seat.now = seat.node.deadline().max(seat.now);
                id
            }
            Step::Deliver(from, to) => {
                let message = self.link(from, to).pop_front().ok_or("nothing to deliver")?;
                let seat = self.seat(to);
                seat.node.receive(message, seat.now);
                to
            }
            Step::Double(from, to) => {
                self.left.doubles -= 1;
                let message = self.link(from, to).front().cloned().ok_or("nothing to deliver")?;
                let seat = self.seat(to);
                seat.node.receive(message, seat.now);
                to
            }
            Step::Lose(from, to) => {
                self.left.losses -= 1;
                self.link(from, to).pop_front();
                return Ok(Facts { has_elected: false, commit: 0 });
            }
            Step::Persisted(id) => {
                self.seat(id).finish_write();
                id
            }
            Step::Propose(id) => {
                let number = self.left.commands;
                self.left.commands -= 1;
                let write = |line: &mut String| {
                    line.push_str(&format!("\"op\":\"PUT\",\"key\":\"k\",\"value\":{number}"));
                };
                self.seat(id).node.propose(write).map_err(|error| format!("{error:?}"))?;
                id
            }
            Step::Crash(id) => {
                self.left.crashes -= 1;
                let seat = self.seat(id);
                *seat = Seat::start(id, seat.hard_state, seat.log.clone(), seat.now);
                self.rules.restarted(id);
                return Ok(Facts { has_elected: false, commit: 0 });
            }
        };
        self.end_turn(node)
    }

    /// A hash that is equal for situations that differ only in the time of their clocks and in the
    /// random numbers of their timers.
    pub(super) fn fingerprint(&self) -> u128 {
        let mut text = format!("{:?}{:?}{:?}", self.left, self.links, self.rules);
        for seat in self.seats.values() {
            text.push_str(&format!("{:?}{:?}{:?}{:?}", seat.node, seat.writing, seat.hard_state, seat.log));
        }
        hash_without_clocks(&text)
    }

    /// The steps that led here.
    pub(super) fn story(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut told = self.story.as_ref();
        while let Some(step) = told {
            lines.push(format!("{:?}", step.step));
            told = step.before.as_ref();
        }
        lines.reverse();
        lines
    }

    fn seat(&mut self, id: NodeId) -> &mut Seat {
        self.seats.get_mut(&id).expect("a node of the cluster")
    }

    fn link(&mut self, from: NodeId, to: NodeId) -> &mut VecDeque<Message> {
        self.links.entry((from, to)).or_default()
    }

    fn end_turn(&mut self, id: NodeId) -> Result<Facts, String> {
        let mut outputs = Vec::new();
        let seat = self.seat(id);
        seat.node.end_turn(seat.now, &mut outputs);
        for output in &outputs {
            match output {
                Output::Persist(persist) => self.seat(id).writing.push_back(persist.clone()),
                Output::Send(message) if is_heartbeat(message) => {}
                Output::Send(message) => {
                    let seat = &self.seats[&id];
                    self.rules.check_message(message, seat.hard_state, &seat.log)?;
                    self.link(message.from, message.to).push_back(message.clone());
                }
                Output::Event(_) | Output::ReadIndex { .. } => {}
                Output::WriteSnapshot(_) | Output::ReadSnapshot { .. } | Output::SnapshotInstalled(_) => {
                    unreachable!("a bare node takes no snapshots, so nobody needs one")
                }
            }
        }
        let logs: Vec<_> = self.seats.values().map(|seat| seat.log.clone()).collect();
        let has_elected = self.rules.check_node(&self.seats[&id].node, &outputs, &logs)?;
        Ok(Facts { has_elected, commit: self.seats[&id].node.commit_index().0 })
    }
}

impl Seat {
    fn start(id: NodeId, hard_state: HardState, log: Vec<Entries>, now: Instant) -> Self {
        let voters = Voters::new((1..=NODES).map(NodeId)).expect("three voters");
        let config = Config {
            heartbeat_interval: BEAT,
            election_timeout_min: BEAT * 2,
            election_timeout_max: BEAT * 3,
            ..Config::new(id, voters)
        };
        let restored = Restored { hard_state, snapshot: None, log_start: LogPoint::ORIGIN, log: log.clone() };
        let node = Node::new(config, restored, id.0, now).expect("the settings fit");
        Self { node, now, writing: VecDeque::new(), hard_state, log }
    }

    fn finish_write(&mut self) {
        let Some(persist) = self.writing.pop_front() else { return };
        self.hard_state = persist.hard_state.unwrap_or(self.hard_state);
        if let Some(from) = persist.cut_from() {
            let kept =
                |run: &Entries| (run.first_index() < from).then(|| run.ending_at(from.previous())).flatten();
            self.log = self.log.iter().filter_map(kept).collect();
        }
        self.log.extend(persist.entries().iter().cloned());
        let PersistId(_) = persist.id;
        self.node.persisted(persist.id, self.now);
    }
}

/// Heartbeats are always dropped. They have no effect here beyond keeping timers from expiring,
/// which the exploration decides by itself, and they would multiply the situations by the ways in
/// which they interleave with the rest.
fn is_heartbeat(message: &Message) -> bool {
    matches!(message.body, Body::Heartbeat(_) | Body::HeartbeatResponse(_))
}

/// Hashes a situation's text without the contents of `Instant(…)` and `Rng(…)`.
fn hash_without_clocks(text: &str) -> u128 {
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    let mut rest = text;
    while let Some(at) = rest.find("Instant(").into_iter().chain(rest.find("Rng(")).min() {
        let end = at + rest[at..].find(')').unwrap_or(rest.len() - at);
        hash = mix(hash, &rest[..at]);
        rest = &rest[end..];
    }
    mix(hash, rest)
}

fn mix(mut hash: u128, text: &str) -> u128 {
    for byte in text.bytes() {
        hash = (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }
    hash
}
