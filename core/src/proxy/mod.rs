//! The proxy: takes what clients ask to the node that can answer it, and asks again when that was the wrong one.
//!
//! A write goes to the leader, and so does a linearizable read. Another read goes to a random follower, or to the leader
//! when there is no other. A request
//! is at one node at a time, and is sent to another only after the first one said that it had no effect there: so
//! nothing is ever done twice because of the proxy. What has no outcome when its time is over gets an error that
//! says whether it may still take effect.
//!
//! Like Raft it is a function: (state, now, inputs) → outputs. It knows no connections, only [`Ticket`]s.

mod pending;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use crate::mutant::{self, Mutant};
use crate::raft::{ChangeError, NodeId, Term};
use crate::replica::{Answer, Refused, Request, RequestId, Status};
use crate::time::Instant;
use pending::{Pending, PendingRequests, Place};

/// How long a read waits before it tries another node, when the one it asked was catching up.
pub const READ_RETRY_AFTER: Duration = Duration::from_millis(10);

/// Names a request on the side of whoever asks. The proxy only repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    /// Which connection, or caller.
    pub connection: u64,
    /// Which of its requests.
    pub slot: u64,
}

/// The proxy's settings.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// The nodes of the cluster.
    pub nodes: Vec<NodeId>,
    /// How long a request may take.
    pub request_timeout: Duration,
    /// The most requests under way; more are refused as [`Failure::Busy`].
    pub pending_max: usize,
    /// The most bytes of keys and values in requests under way; one request may pass it.
    pub pending_bytes_max: usize,
}

/// What may happen to a proxy.
#[derive(Clone, Debug)]
pub enum ProxyInput {
    /// A client asks.
    Ask(Ticket, Request),
    /// A node answers.
    Answer(NodeId, RequestId, Answer),
    /// A node's term or its idea of the leader has changed.
    LeaderChanged {
        /// The node that says so.
        node: NodeId,
        /// Its term.
        term: Term,
        /// The leader, if it knows one.
        leader: Option<NodeId>,
    },
    /// A node has stopped and will answer nothing more.
    NodeStopped(NodeId),
    /// Take nothing new, and refuse what is not at a node yet.
    Stop,
}

/// What a proxy wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyOutput {
    /// Ask this node; its answer carries the same id.
    Ask(NodeId, RequestId, Request),
    /// Give this to the client.
    Reply(Ticket, Reply),
}

/// What a client is told.
pub type Reply = Result<Answered, Failure>;

/// A request that had an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// A node's answer; never [`Answer::Refused`] or [`Answer::Status`].
    ByNode(Answer),
    /// How every node is doing, ascending by id; `None` for one that has stopped.
    Status(Vec<(NodeId, Option<Status>)>),
}

/// A request that had none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No leader became known in time. Nothing happened.
    NoLeader,
    /// The outcome is not known; a write may still take effect.
    Timeout,
    /// Over a limit. Nothing happened.
    Busy,
    /// The server is stopping. Nothing happened.
    ShuttingDown,
    /// The node that had the request lost its disk. A write may still take effect.
    Storage,
    /// Leadership was not handed over, because the node meant for it does not vote.
    NotVoter,
    /// The members were not changed. Nothing happened.
    Change(ChangeError),
    /// Leadership was not handed over in time; it may still go to the node meant for it.
    TransferFailed,
}

impl Failure {
    /// Whether nothing happened and nothing will.
    #[must_use]
    pub fn is_definite(self) -> bool {
        !matches!(self, Self::Timeout | Self::Storage | Self::TransferFailed)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Change(error) => return write!(f, "the members are not changed: {error}"),
            Self::NoLeader => "no leader became known in time; nothing happened",
            Self::Timeout => "no outcome became known in time; a write may still take effect",
            Self::Busy => "too many requests are under way; nothing happened",
            Self::ShuttingDown => "the server is stopping; nothing happened",
            Self::NotVoter => "no voter has that id; nothing happened",
            Self::TransferFailed => "the node did not take leadership over in time; it may still do so",
            Self::Storage => "the node that had the request lost its disk; a write may still take effect",
        };
        f.write_str(text)
    }
}

impl std::error::Error for Failure {}

/// Routes requests. See the module.
#[derive(Debug)]
pub struct Proxy {
    config: ProxyConfig,
    rng: fastrand::Rng,
    term: Term,
    leader: Option<NodeId>,
    stopped: BTreeSet<NodeId>,
    pending: PendingRequests,
    /// What waits for a leader.
    parked: VecDeque<RequestId>,
    /// Reads that try again later.
    retries: VecDeque<(Instant, RequestId)>,
    is_stopping: bool,
}

impl Proxy {
    /// A proxy that knows no leader yet. `seed` decides which followers it reads from.
    #[must_use]
    pub fn new(mut config: ProxyConfig, seed: u64) -> Self {
        config.nodes.sort_unstable();
        Self {
            config,
            rng: fastrand::Rng::with_seed(seed),
            term: Term::INITIAL,
            leader: None,
            stopped: BTreeSet::new(),
            pending: PendingRequests::default(),
            parked: VecDeque::new(),
            retries: VecDeque::new(),
            is_stopping: false,
        }
    }

    /// Takes all `inputs` and appends what has to be done to `outputs`. `inputs` is left empty.
    pub fn step(&mut self, now: Instant, inputs: &mut Vec<ProxyInput>, outputs: &mut Vec<ProxyOutput>) {
        for input in inputs.drain(..) {
            match input {
                ProxyInput::Ask(ticket, request) => self.ask(ticket, request, now, outputs),
                ProxyInput::Answer(node, id, answer) => self.answer(node, id, answer, now, outputs),
                ProxyInput::LeaderChanged { node, term, leader } => self.learn(node, term, leader),
                ProxyInput::NodeStopped(node) => self.lose(node, now, outputs),
                ProxyInput::Stop => self.is_stopping = true,
            }
        }
        if self.is_stopping {
            self.refuse_waiting(outputs);
        }
        self.unpark(outputs);
        self.retry_reads(now, outputs);
        self.expire(now, outputs);
    }

    /// When the next step is due if nothing arrives before, if any is.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let retry = self.retries.front().map(|(due, _)| *due);
        let expiry = self.pending.first().map(|pending| pending.deadline);
        retry.into_iter().chain(expiry).min()
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// The leader that writes go to, if one is known.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    fn ask(&mut self, ticket: Ticket, request: Request, now: Instant, outputs: &mut Vec<ProxyOutput>) {
        let refusal = if self.is_stopping {
            Some(Failure::ShuttingDown)
        } else if !self.pending.has_room(&self.config) {
            Some(Failure::Busy)
        } else {
            None
        };
        if let Some(failure) = refusal {
            return outputs.push(ProxyOutput::Reply(ticket, Err(failure)));
        }
        let deadline = now + self.config.request_timeout;
        let id = self.pending.push(Pending::new(ticket, request, deadline));
        self.route(id, now, outputs);
    }

    /// Sends a request to where it belongs now, or lets it wait.
    fn route(&mut self, id: RequestId, now: Instant, outputs: &mut Vec<ProxyOutput>) {
        let reader = self.node_to_read_from();
        let Some(pending) = self.pending.request_mut(id) else { return };
        let target = match pending.request {
            Request::Write { .. }
            | Request::LinearizableRead(_)
            | Request::Transfer(_)
            | Request::Resign
            | Request::Members
            | Request::ChangeMembers(_) => self.leader,
            Request::Read { .. } => reader,
            Request::Status => return self.ask_all(id, outputs),
        };
        if let Some(node) = target {
            pending.place = Place::At(node);
            outputs.push(ProxyOutput::Ask(node, id, pending.request.clone()));
        } else if !matches!(pending.request, Request::Read { .. }) {
            pending.place = Place::Waiting;
            self.parked.push_back(id);
        } else {
            pending.place = Place::Waiting;
            self.retries.push_back((now + READ_RETRY_AFTER, id));
        }
    }

    /// A random follower; the leader when there is no other node.
    fn node_to_read_from(&mut self) -> Option<NodeId> {
        let is_up = |node: &&NodeId| !self.stopped.contains(node);
        let followers = self.config.nodes.iter().filter(is_up).filter(|node| Some(**node) != self.leader);
        let count = followers.clone().count();
        if count == 0 {
            return self.leader;
        }
        followers.copied().nth(self.rng.usize(..count))
    }

    fn ask_all(&mut self, id: RequestId, outputs: &mut Vec<ProxyOutput>) {
        let Some(pending) = self.pending.request_mut(id) else { return };
        let running: Vec<_> =
            self.config.nodes.iter().copied().filter(|node| !self.stopped.contains(node)).collect();
        outputs.extend(running.iter().map(|node| ProxyOutput::Ask(*node, id, Request::Status)));
        pending.place = Place::AtAll { missing: running.into_iter().collect(), found: Vec::new() };
        self.finish_status(id, outputs);
    }

    fn answer(
        &mut self,
        node: NodeId,
        id: RequestId,
        answer: Answer,
        now: Instant,
        outputs: &mut Vec<ProxyOutput>,
    ) {
        let Some(pending) = self.pending.request_mut(id) else { return };
        match answer {
            Answer::Status(status) => {
                if let Place::AtAll { missing, found } = &mut pending.place
                    && missing.remove(&node)
                {
                    found.push(status);
                    self.finish_status(id, outputs);
                }
            }
            Answer::Refused(refused) => {
                if pending.place == Place::At(node) {
                    self.refused(node, id, refused, now, outputs);
                }
            }
            Answer::OutcomeUnknown => self.close(id, Err(Failure::Timeout), outputs),
            answer => self.close(id, Ok(Answered::ByNode(answer)), outputs),
        }
    }

    /// The node says that the request had no effect there and never will: it may go elsewhere.
    fn refused(
        &mut self,
        node: NodeId,
        id: RequestId,
        refused: Refused,
        now: Instant,
        outputs: &mut Vec<ProxyOutput>,
    ) {
        match refused {
            Refused::Overloaded => self.close(id, Err(Failure::Busy), outputs),
            Refused::NotVoter => self.close(id, Err(Failure::NotVoter), outputs),
            Refused::TransferFailed => self.close(id, Err(Failure::TransferFailed), outputs),
            Refused::Change(error) => self.close(id, Err(Failure::Change(error)), outputs),
            Refused::CatchingUp => {
                if let Some(pending) = self.pending.request_mut(id) {
                    pending.place = Place::Waiting;
                    self.retries.push_back((now + READ_RETRY_AFTER, id));
                }
            }
            Refused::NotLeader { term, leader } => {
                self.learn(node, term, leader);
                if self.leader == Some(node) {
                    self.leader = None;
                }
                self.route(id, now, outputs);
            }
            Refused::Superseded => self.route(id, now, outputs),
        }
    }

    /// A node's word about the leader counts when it is of a later term, or fills in one that is not known. That it knows
    /// none counts only as the leader's own resignation: another node's campaign may come to nothing.
    fn learn(&mut self, node: NodeId, term: Term, leader: Option<NodeId>) {
        let resigns = self.leader == Some(node) && leader != Some(node);
        if resigns {
            self.leader = None;
        }
        let Some(leader) = leader.filter(|leader| !self.stopped.contains(leader)) else { return };
        if term > self.term || (term == self.term && self.leader.is_none()) {
            self.term = term;
            self.leader = Some(leader);
            if mutant::is_active(Mutant::RequestSentTwice) {
                self.parked.extend(self.pending.ids());
            }
        }
    }

    fn lose(&mut self, node: NodeId, now: Instant, outputs: &mut Vec<ProxyOutput>) {
        self.stopped.insert(node);
        if self.leader == Some(node) {
            self.leader = None;
        }
        for id in self.pending.ids() {
            let Some(pending) = self.pending.request_mut(id) else { continue };
            match &mut pending.place {
                Place::At(at) if *at == node => match pending.request {
                    Request::Write { .. } | Request::ChangeMembers(_) => {
                        self.close(id, Err(Failure::Storage), outputs);
                    }
                    _ => self.route(id, now, outputs),
                },
                Place::AtAll { missing, .. } => {
                    missing.remove(&node);
                    self.finish_status(id, outputs);
                }
                _ => {}
            }
        }
    }

    fn refuse_waiting(&mut self, outputs: &mut Vec<ProxyOutput>) {
        for id in self.pending.ids() {
            if self.pending.request_mut(id).is_some_and(|pending| pending.place == Place::Waiting) {
                self.close(id, Err(Failure::ShuttingDown), outputs);
            }
        }
    }

    fn unpark(&mut self, outputs: &mut Vec<ProxyOutput>) {
        let Some(leader) = self.leader else { return };
        while let Some(id) = self.parked.pop_front() {
            if let Some(pending) = self.pending.request_mut(id) {
                pending.place = Place::At(leader);
                outputs.push(ProxyOutput::Ask(leader, id, pending.request.clone()));
            }
        }
    }

    fn retry_reads(&mut self, now: Instant, outputs: &mut Vec<ProxyOutput>) {
        while let Some((_, id)) = self.retries.pop_front_if(|(due, _)| *due <= now) {
            self.route(id, now, outputs);
        }
    }

    fn expire(&mut self, now: Instant, outputs: &mut Vec<ProxyOutput>) {
        while let Some((id, pending)) = self.pending.first_with_id()
            && pending.deadline <= now
        {
            if let Place::AtAll { .. } = pending.place {
                self.reply_status(id, outputs);
            } else {
                let had_no_effect =
                    pending.place == Place::Waiting || mutant::is_active(Mutant::TimeoutIsDefinite);
                let failure = if had_no_effect { Failure::NoLeader } else { Failure::Timeout };
                self.close(id, Err(failure), outputs);
            }
        }
        // Without a leader nobody else takes the expired ones out.
        while self.parked.front().is_some_and(|id| self.pending.request_mut(*id).is_none()) {
            self.parked.pop_front();
        }
    }

    fn finish_status(&mut self, id: RequestId, outputs: &mut Vec<ProxyOutput>) {
        let Some(pending) = self.pending.request_mut(id) else { return };
        if matches!(&pending.place, Place::AtAll { missing, .. } if missing.is_empty()) {
            self.reply_status(id, outputs);
        }
    }

    fn reply_status(&mut self, id: RequestId, outputs: &mut Vec<ProxyOutput>) {
        let Some(pending) = self.pending.request_mut(id) else { return };
        let Place::AtAll { found, .. } = std::mem::replace(&mut pending.place, Place::Waiting) else {
            return;
        };
        let status_of = |node: &NodeId| (*node, found.iter().find(|status| status.id == *node).copied());
        let rows = self.config.nodes.iter().map(status_of).collect();
        self.close(id, Ok(Answered::Status(rows)), outputs);
    }

    fn close(&mut self, id: RequestId, reply: Reply, outputs: &mut Vec<ProxyOutput>) {
        if let Some(pending) = self.pending.remove(id) {
            outputs.push(ProxyOutput::Reply(pending.ticket, reply));
        }
    }
}

#[cfg(test)]
mod tests;
