//! A node's driver: the loop that feeds a replica and carries out what it wants done.
//!
//! One turn takes everything that is in the inbox. What arrived while the last turn ran is written, sent and
//! answered together: that is all there is to batching.

use std::sync::Arc;

use coracle_core::peer::{KnownMembers, PassedOn, PeerFrame};
use coracle_core::proxy::ProxyInput;
use coracle_core::raft::{NodeId, Persist};
use coracle_core::{Answer, Incarnation, Input, Output, Refused, Replica, Request, RequestId};
use coracle_storage::{DiskError, Happening};
use futures_lite::future;

use crate::alarm::Alarm;
use crate::clock::Clock;
use crate::events::Events;
use crate::mailbox::{Receiver, Sender};
use crate::peers::Peers;
use crate::proxy::ProxyEvent;
use crate::snapshots::{Order, Snapshots};

/// The most items of the inbox that one turn takes, so that a flood cannot keep a node from its timers.
const TURN_INPUTS_MAX: usize = 4096;

/// What arrives in a node's inbox.
#[derive(Debug)]
pub(crate) enum NodeInput {
    Core(Input),
    Requests(Vec<Input>),
    /// What another node has sent: messages, and requests of its clients.
    FromPeer(NodeId, Incarnation, Vec<PeerFrame>),
    /// Hand leadership over, if it is this node's; the channel is closed when that is done, or cannot be.
    Resign(async_channel::Sender<()>),
    DiskFailed(Arc<DiskError>),
    Stop,
}

/// Where a node's persists go.
#[derive(Debug)]
pub(crate) enum Disk {
    /// Nowhere: they count as done at once.
    Memory,
    /// To this node's disk task.
    Files(Sender<Persist>),
}

/// A node and what it is connected to.
#[derive(Debug)]
pub(crate) struct NodeDriver {
    pub(crate) id: NodeId,
    pub(crate) replica: Replica,
    pub(crate) inbox: Receiver<NodeInput>,
    pub(crate) disk: Disk,
    pub(crate) snapshots: Snapshots,
    pub(crate) peers: Peers,
    pub(crate) proxy: Sender<ProxyEvent>,
    pub(crate) events: Events,
    pub(crate) clock: Clock,
    /// Whose requests are answered here although they came to other nodes.
    pub(crate) passed_on: PassedOn,
    /// The configuration that the connections follow.
    pub(crate) followed: Option<KnownMembers>,
    /// Who waits for leadership to be handed over.
    pub(crate) resigning: Option<async_channel::Sender<()>>,
}

/// The name of the order to resign.
const RESIGN: RequestId = RequestId(u64::MAX);

/// Why a node's loop ends.
enum End {
    Stopped,
    DiskFailed(Arc<DiskError>),
}

impl NodeDriver {
    /// Drives the node until it is told to stop or its disk fails.
    pub(crate) async fn run(mut self) {
        if let End::DiskFailed(error) = self.drive().await {
            self.events.tell(self.id, Happening::Failed(error));
            let _ = self.proxy.send(ProxyEvent::NodeStopped(self.id));
        }
    }

    async fn drive(&mut self) -> End {
        let mut alarm = Alarm::new(self.clock);
        let mut inputs = Vec::new();
        let mut outputs = Vec::new();
        loop {
            // Without a disk, persists and snapshots are done already, so there is something to do at once.
            let first = if inputs.is_empty() {
                match alarm.receive(&self.inbox, Some(self.replica.deadline())).await {
                    Ok(first) => first,
                    Err(_) => return End::Stopped,
                }
            } else {
                None
            };
            if let Some(end) = self.gather(first, &mut inputs) {
                return end;
            }
            self.replica.step(self.clock.now(), &mut inputs, &mut outputs);
            self.follow_configuration();
            self.carry_out(&mut outputs, &mut inputs);
            // A node that has more to do at once, such as a long log to apply, must not keep the others waiting.
            future::yield_now().await;
        }
    }

    /// Empties the inbox into `inputs`.
    fn gather(&mut self, first: Option<NodeInput>, inputs: &mut Vec<Input>) -> Option<End> {
        let mut next = first;
        for _ in 0..TURN_INPUTS_MAX {
            let Some(input) = next.take().or_else(|| self.inbox.take()) else { break };
            match input {
                NodeInput::FromPeer(peer, life, frames) => {
                    self.take_frames(peer, life, frames, inputs);
                }
                NodeInput::Resign(done) => {
                    self.resigning = Some(done);
                    inputs.push(Input::Request(RESIGN, Request::Resign));
                }
                NodeInput::Core(input) => inputs.push(input),
                NodeInput::Requests(requests) => inputs.extend(requests),
                NodeInput::DiskFailed(error) => return Some(End::DiskFailed(error)),
                NodeInput::Stop => return Some(End::Stopped),
            }
        }
        None
    }

    fn take_frames(
        &mut self,
        peer: NodeId,
        life: Incarnation,
        frames: Vec<PeerFrame>,
        inputs: &mut Vec<Input>,
    ) {
        for call in self.passed_on.receive((peer, life), frames, inputs) {
            self.peers.answer(peer, call, &Answer::Refused(Refused::Overloaded));
        }
    }

    /// Connects to whoever takes part now.
    fn follow_configuration(&mut self) {
        let Peers::Network(network) = &self.peers else { return };
        let known = self.replica.known_members();
        if self.followed.as_ref() != Some(&known) {
            network.follow(&known);
            self.followed = Some(known);
        }
    }

    fn carry_out(&mut self, outputs: &mut Vec<Output>, inputs: &mut Vec<Input>) {
        let mut answers = Vec::new();
        for output in outputs.drain(..) {
            match output {
                Output::Persist(persist) => match &self.disk {
                    Disk::Memory => inputs.push(Input::Persisted(persist.id)),
                    // A disk that is gone has reported its failure, which is the next thing in the inbox.
                    Disk::Files(disk) => drop(disk.send(persist)),
                },
                Output::WriteSnapshot(part) => inputs.extend(self.snapshots.order(Order::Write(part))),
                Output::ReadSnapshot { last, offset } => {
                    inputs.extend(self.snapshots.order(Order::Read { last, offset }));
                }
                Output::Send(message) => self.peers.send(message),
                Output::Answer(RESIGN, _) => self.resigning = None,
                Output::Answer(id, answer) => match self.passed_on.answered(id) {
                    Some((peer, call)) => self.peers.answer(peer, call, &answer),
                    None => answers.push(ProxyInput::Answer(self.id, id, answer)),
                },
                Output::LeaderChanged { term, leader } => {
                    answers.push(ProxyInput::LeaderChanged { node: self.id, term, leader });
                }
                // Its end is decided where its standing is.
                Output::Removed(_) => {}
                Output::Event(event) => self.events.tell(self.id, Happening::Raft(event)),
            }
        }
        if !answers.is_empty() {
            // Without a proxy nobody waits for an answer.
            let _ = self.proxy.send(ProxyEvent::FromNode(answers));
        }
    }
}
