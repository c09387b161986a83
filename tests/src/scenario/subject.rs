//! Interface of the node under test: a bare Raft node, or a replica with the store on top.

use std::marker::PhantomData;

use coracle_core::kv::Level;
use coracle_core::raft::{Config, Node, Output as NodeOutput, ProposeError, Restored, TransferError};
use coracle_core::{Answer, Input, Instant, Output, Replica, ReplicaLimits, Request, RequestRefusal};

/// A node under test, driven as a runtime would drive it.
pub trait Subject {
    /// Starts a node from the content of its disk.
    fn start(config: Config, restored: Restored, seed: u64, now: Instant) -> Self;

    /// The Raft node, for inspection.
    fn node(&self) -> &Node;

    /// Runs one turn.
    fn step(&mut self, now: Instant, inputs: Vec<Input>) -> Vec<Output>;

    /// The time when the next turn is due if no input arrives.
    fn deadline(&self) -> Instant;
}

/// The limits of replicas that never raise the level: scenarios count the entries of the log.
#[must_use]
pub fn first_level() -> ReplicaLimits {
    ReplicaLimits { supports: Level::FIRST, ..ReplicaLimits::default() }
}

/// A replica that never raises the level.
impl Subject for Replica {
    fn start(config: Config, restored: Restored, seed: u64, now: Instant) -> Self {
        Self::with_limits(config, restored, seed, now, first_level())
            .expect("scenarios use settings that fit")
    }

    fn node(&self) -> &Node {
        self.node()
    }

    fn step(&mut self, now: Instant, mut inputs: Vec<Input>) -> Vec<Output> {
        let mut outputs = Vec::new();
        self.step(now, &mut inputs, &mut outputs);
        outputs
    }

    fn deadline(&self) -> Instant {
        self.deadline()
    }
}

/// Limits of the replicas in some scenarios.
pub trait Limits {
    /// Returns the limits.
    fn limits() -> ReplicaLimits;
}

/// A replica with other limits than the default.
pub struct Limited<L>(pub Replica, PhantomData<L>);

impl<L: Limits> Subject for Limited<L> {
    fn start(config: Config, restored: Restored, seed: u64, now: Instant) -> Self {
        let replica = Replica::with_limits(config, restored, seed, now, L::limits());
        Self(replica.expect("scenarios use settings that fit"), PhantomData)
    }

    fn node(&self) -> &Node {
        self.0.node()
    }

    fn step(&mut self, now: Instant, inputs: Vec<Input>) -> Vec<Output> {
        Subject::step(&mut self.0, now, inputs)
    }

    fn deadline(&self) -> Instant {
        self.0.deadline()
    }
}

/// A bare node has no store to answer from. It accepts writes, and answers only those that it
/// rejects.
impl Subject for Node {
    fn start(config: Config, restored: Restored, seed: u64, now: Instant) -> Self {
        Self::new(config, restored, seed, now).expect("scenarios use settings that fit")
    }

    fn node(&self) -> &Node {
        self
    }

    fn step(&mut self, now: Instant, inputs: Vec<Input>) -> Vec<Output> {
        let mut outputs = Vec::new();
        for input in inputs {
            match input {
                Input::Message(message) => self.receive(message, now),
                Input::Persisted(id) => self.persisted(id, now),
                Input::PeerUnreachable(peer) => self.peer_unreachable(peer),
                // Only a replica binds members to incarnations.
                Input::HandshakeCompleted { .. } => {}
                Input::SnapshotPutOff { .. } => self.refuse_snapshot(),
                // Only a replica answers reads, which this input would stop.
                Input::Dismissed => {}
                Input::SnapshotWritten { last, bytes } => self.snapshot_written(last, bytes),
                Input::SnapshotRead { last, offset, part } => self.snapshot_read(last, offset, part, now),
                Input::Request(id, Request::Write { command, session, .. }) => {
                    let refused = match self.propose(|line| command.write_payload(session.as_ref(), line)) {
                        Ok(_) => continue,
                        Err(ProposeError::NotLeader(leader)) => {
                            RequestRefusal::NotLeader { term: self.current_term(), leader }
                        }
                        Err(ProposeError::TooManyUncommitted) => RequestRefusal::Overloaded,
                        Err(ProposeError::TransferPending) => {
                            RequestRefusal::NotLeader { term: self.current_term(), leader: None }
                        }
                    };
                    outputs.push(Output::Answer(id, Answer::Refused(refused)));
                }
                Input::Request(id, Request::Transfer(target)) => {
                    let Err(error) = self.transfer_leadership(target, now) else { continue };
                    let refused = match error {
                        TransferError::NotVoter => RequestRefusal::NotVoter,
                        TransferError::NotLeader(leader) => {
                            RequestRefusal::NotLeader { term: self.current_term(), leader }
                        }
                    };
                    outputs.push(Output::Answer(id, Answer::Refused(refused)));
                }
                Input::Request(_, request) => panic!("a bare node cannot answer {request:?}"),
            }
        }
        let mut turn = Vec::new();
        self.end_turn(now, &mut turn);
        outputs.extend(turn.into_iter().filter_map(|output| match output {
            NodeOutput::Persist(persist) => Some(Output::Persist(persist)),
            NodeOutput::Send(message) => Some(Output::Send(message)),
            NodeOutput::Event(event) => Some(Output::Event(event)),
            NodeOutput::WriteSnapshot(part) => Some(Output::WriteSnapshot(part)),
            NodeOutput::ReadSnapshot { last, offset } => Some(Output::ReadSnapshot { last, offset }),
            // A bare node has no state to install.
            NodeOutput::SnapshotInstalled(_) => None,
            NodeOutput::ReadIndex { .. } => panic!("a bare node is not asked for read indexes"),
        }));
        outputs
    }

    fn deadline(&self) -> Instant {
        self.deadline()
    }
}
