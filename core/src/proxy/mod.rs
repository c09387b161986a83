//! The proxy: sends each client's request to a node that can answer it, and to another node if the
//! first one could not.
//!
//! A write goes to the leader, and so does a linearizable read. Another read goes to a random
//! follower, or to the leader when there is no other node. A request is at one node at a time, and
//! is sent to another only after the first one reported that it had no effect there; so the proxy
//! never causes a write to be applied twice. A request without an outcome at its deadline gets an
//! error that says whether it may still take effect.
//!
//! In front of a cluster in one process, every node can be asked at any time. In front of one node
//! of a cluster of processes ([`ProxyConfig::local`]), the others can be asked while there is a
//! connection to them. When it breaks, requests that are safe to repeat go elsewhere
//! (`process.rs`). Reads stay at the local node, which asks the leader only up to which index it
//! must have applied.
//!
//! Like Raft, the proxy is a function: (state, now, inputs) → outputs. It knows no connections,
//! only [`Ticket`]s.

mod interface;
mod pending;
mod process;
mod status;
mod watches;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::kv::Level;
use crate::mutant::{self, Mutant};
use crate::raft::{NodeId, Term};
use crate::replica::{Answer, Request, RequestId, RequestRefusal};
use crate::time::Instant;
pub use interface::{
    Answered, ClusterReport, NodeReport, ProxyConfig, ProxyInput, ProxyOutput, Reply, RequestError, Ticket,
};
use pending::{Pending, PendingRequests, Place};
pub use watches::WATCHES_MAX;
use watches::Watches;

/// How long a read waits before it is sent again, when the node that was asked was catching up.
pub const READ_RETRY_AFTER: Duration = Duration::from_millis(10);

/// How long a status request waits for nodes that can be asked but do not answer.
pub const STATUS_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a request waits until the nodes know that all of them understand it: much longer than a
/// new leader needs to find that out.
pub const LEVEL_PATIENCE: Duration = Duration::from_millis(500);

/// How often a process that knows no leader asks another node for one: a removed node is not
/// notified of a new leader.
pub const PROBE_EVERY: Duration = Duration::from_millis(100);

/// Routes requests. See the module.
#[derive(Debug)]
pub struct Proxy {
    config: ProxyConfig,
    rng: fastrand::Rng,
    term: Term,
    leader: Option<NodeId>,
    stopped: BTreeSet<NodeId>,
    pending: PendingRequests,
    /// Requests that wait for a leader.
    parked: VecDeque<RequestId>,
    /// Reads and backups to send again, and when.
    retries: VecDeque<(Instant, RequestId)>,
    /// Scans at a node, and scans that wait until one of these is answered.
    scans: BTreeSet<RequestId>,
    scans_waiting: VecDeque<RequestId>,
    /// The deadlines of status requests, which all nodes are asked.
    questions: VecDeque<(Instant, RequestId)>,
    watches: Watches,
    /// When to ask another node for a leader.
    next_probe: Instant,
    /// The nodes that can be asked: the local node once it has started, and nodes of other
    /// processes while there is a connection; with the addresses at which their clients connect.
    reachable: BTreeMap<NodeId, Option<Box<str>>>,
    /// The level of the cluster, once the local node of a process has caught up.
    level: Option<Level>,
    is_stopping: bool,
}

impl Proxy {
    /// Creates a proxy that knows no leader yet. `seed` randomizes the choice of followers to read
    /// from.
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
            scans: BTreeSet::new(),
            scans_waiting: VecDeque::new(),
            questions: VecDeque::new(),
            watches: Watches::default(),
            next_probe: Instant::default(),
            reachable: BTreeMap::new(),
            level: None,
            is_stopping: false,
        }
    }

    /// Processes all `inputs` and appends the resulting actions to `outputs`. `inputs` is left
    /// empty.
    pub fn step(&mut self, now: Instant, inputs: &mut Vec<ProxyInput>, outputs: &mut Vec<ProxyOutput>) {
        if !self.wants_to_probe() {
            // Allow time for an election first. Only after that may there be a leader that was not
            // reported to this process.
            self.next_probe = now + PROBE_EVERY;
        }
        for input in inputs.drain(..) {
            match input {
                ProxyInput::Ask(ticket, request) => self.ask(ticket, request, now, outputs),
                ProxyInput::Answer(node, id, answer) => self.answer(node, id, answer, now, outputs),
                ProxyInput::LeaderChanged { node, term, leader } => {
                    self.learn(node, term, leader);
                    self.follow_leader(now, outputs);
                }
                ProxyInput::Reachable(node, client_address) => {
                    drop(self.reachable.insert(node, client_address));
                    self.place_watches(outputs);
                }
                ProxyInput::Level(level) => self.level = Some(level),
                ProxyInput::Unreachable(node) => self.lose_connection(node, now, outputs),
                ProxyInput::Nodes(mut nodes) => {
                    nodes.sort_unstable();
                    self.config.nodes = nodes;
                }
                ProxyInput::NodeStopped(node) => self.lose(node, now, outputs),
                ProxyInput::Stop => self.is_stopping = true,
            }
        }
        if self.is_stopping {
            self.refuse_waiting(outputs);
        }
        self.unpark(now, outputs);
        self.probe(now, outputs);
        self.start_scans(now, outputs);
        self.retry_reads(now, outputs);
        self.expire(now, outputs);
        self.retry_watches(now, outputs);
    }

    /// Returns when the next step is due if nothing arrives before; `None`: never.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let retry = self.retries.front().map(|(due, _)| *due);
        let expiry = self.pending.first().map(|pending| pending.deadline);
        let question = self.questions.front().map(|(due, _)| *due);
        let probe = self.wants_to_probe().then_some(self.next_probe);
        let watch = self.watches.deadline();
        retry.into_iter().chain(expiry).chain(question).chain(probe).chain(watch).min()
    }

    /// Returns whether no request is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.watches.is_empty()
    }

    /// The leader that writes go to, if one is known.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    fn ask(&mut self, ticket: Ticket, request: Request, now: Instant, outputs: &mut Vec<ProxyOutput>) {
        let refusal = if self.is_stopping {
            Some(RequestError::ShuttingDown)
        } else if !self.has_room_for(&request) {
            Some(RequestError::Busy)
        } else if self.config.local.is_none() && matches!(request, Request::ChangeMembers(_)) {
            Some(RequestError::MembersAreFixed)
        } else {
            None
        };
        if let Some(failure) = refusal {
            return outputs.push(ProxyOutput::Reply(ticket, Err(failure)));
        }
        if let Request::Watch(request) = request {
            return self.ask_watch(ticket, request, now, outputs);
        }
        let deadline = now + self.config.request_timeout;
        let id = self.pending.push(Pending::new(ticket, request, deadline));
        self.route(id, now, outputs);
    }

    /// Sends a request to the node where it belongs now, or lets it wait.
    fn route(&mut self, id: RequestId, now: Instant, outputs: &mut Vec<ProxyOutput>) {
        let Some(pending) = self.pending.request(id) else { return };
        if pending.request.is_scan() && !self.scans.contains(&id) {
            if self.scans.len() >= self.config.scans_max {
                return self.scans_waiting.push_back(id);
            }
            self.scans.insert(id);
        }
        let (target, waits_for_leader) = match pending.request {
            Request::LinearizableRead(_) if self.local_is_member() => (self.node_to_read_from(), false),
            Request::Write { .. }
            | Request::LinearizableRead(_)
            | Request::Transfer(_)
            | Request::Resign
            | Request::Members
            | Request::ChangeMembers(_) => (self.leader_to_ask(), true),
            Request::Read { .. } => (self.node_to_read_from(), false),
            Request::Backup(_) => (self.node_to_back_up(), false),
            Request::Status => return self.ask_all(id, now, outputs),
            Request::Watch(_) => panic!("watches are not among the pending requests"),
        };
        if let Some(node) = target {
            return self.send(id, node, now, outputs);
        }
        let Some(pending) = self.pending.request_mut(id) else { return };
        pending.place = Place::Waiting;
        if waits_for_leader {
            self.parked.push_back(id);
        } else {
            self.retries.push_back((now + READ_RETRY_AFTER, id));
        }
    }

    /// Starts waiting scans in place of those that were answered.
    fn start_scans(&mut self, now: Instant, outputs: &mut Vec<ProxyOutput>) {
        while self.scans.len() < self.config.scans_max
            && let Some(id) = self.scans_waiting.pop_front()
        {
            self.route(id, now, outputs);
        }
    }

    /// Returns whether the local node is a member. A node that was removed cannot find out how
    /// fresh its state is.
    fn local_is_member(&self) -> bool {
        self.config.local.is_some_and(|local| self.config.nodes.contains(&local))
    }

    /// Returns whether the node can be asked.
    fn is_reachable(&self, node: NodeId) -> bool {
        self.config.local.is_none() || self.reachable.contains_key(&node)
    }

    /// Returns the leader, if it is known and can be asked.
    fn leader_to_ask(&self) -> Option<NodeId> {
        self.leader.filter(|leader| self.is_reachable(*leader))
    }

    /// Returns the node to read from: the local node of a process. In front of a whole cluster, a
    /// random follower, or the leader when there is no other node.
    fn node_to_read_from(&mut self) -> Option<NodeId> {
        if let Some(local) = self.config.local {
            return Some(local).filter(|local| self.is_reachable(*local));
        }
        let is_up = |node: &&NodeId| !self.stopped.contains(node);
        let followers = self.config.nodes.iter().filter(is_up).filter(|node| Some(**node) != self.leader);
        let count = followers.clone().count();
        if count == 0 {
            return self.leader;
        }
        followers.copied().nth(self.rng.usize(..count))
    }

    /// Returns the node to back up: the local node of a process. In front of a whole cluster it is
    /// always the same node, because all parts of a backup must come from one node.
    fn node_to_back_up(&self) -> Option<NodeId> {
        match self.config.local {
            Some(local) => Some(local).filter(|local| self.is_reachable(*local)),
            None => self.config.nodes.iter().copied().find(|node| !self.stopped.contains(node)),
        }
    }

    fn answer(
        &mut self,
        node: NodeId,
        id: RequestId,
        answer: Answer,
        now: Instant,
        outputs: &mut Vec<ProxyOutput>,
    ) {
        if Watches::has_id(id) {
            return self.answer_watch(node, id, answer, now, outputs);
        }
        let Some(pending) = self.pending.request_mut(id) else { return };
        if !answer.fits(&pending.request) {
            // Only a node that violates the protocol sends this: the request keeps waiting for its
            // answer.
            return;
        }
        match answer {
            Answer::Status(status) => {
                if let Place::AtAll { missing, found } = &mut pending.place
                    && missing.remove(&node)
                {
                    found.push(*status);
                    self.finish_status(id, outputs);
                }
            }
            Answer::Refused(refused) => {
                if pending.place == Place::At(node) {
                    self.refused(node, id, refused, now, outputs);
                }
            }
            Answer::OutcomeUnknown => match pending.request {
                // The current leader knows whether the write took effect, and does not apply it
                // again.
                _ if self.config.local.is_some() && pending.is_repeatable_write() => {
                    pending.leave_in_doubt();
                    self.route(id, now, outputs);
                }
                _ => self.close(id, Err(RequestError::Timeout), outputs),
            },
            answer => {
                let is_leaders = matches!(
                    answer,
                    Answer::Applied { .. } | Answer::Members(..) | Answer::MembershipChanged(..)
                );
                if is_leaders && self.leader.is_none() && pending.place == Place::At(node) {
                    self.leader = Some(node);
                }
                self.close(id, Ok(Answered::ByNode(answer)), outputs);
            }
        }
    }

    /// Handles a rejection: the request had no effect at this node and never will, so it may go
    /// elsewhere.
    fn refused(
        &mut self,
        node: NodeId,
        id: RequestId,
        refused: RequestRefusal,
        now: Instant,
        outputs: &mut Vec<ProxyOutput>,
    ) {
        match refused {
            RequestRefusal::Overloaded => self.close(id, Err(RequestError::Busy), outputs),
            RequestRefusal::NotVoter => self.close(id, Err(RequestError::NotVoter), outputs),
            RequestRefusal::TransferFailed => self.close(id, Err(RequestError::TransferFailed), outputs),
            RequestRefusal::NotYet => self.wait_for_level(id, now, outputs),
            RequestRefusal::BackupGone => self.close(id, Err(RequestError::BackupGone), outputs),
            RequestRefusal::Change(error) => self.close(id, Err(RequestError::Change(error)), outputs),
            RequestRefusal::CatchingUp => {
                if let Some(pending) = self.pending.request_mut(id) {
                    pending.place = Place::Waiting;
                    self.retries.push_back((now + READ_RETRY_AFTER, id));
                }
            }
            RequestRefusal::NotLeader { term, leader } => {
                self.learn(node, term, leader);
                if self.leader == Some(node) {
                    self.leader = None;
                }
                let pending = self.pending.request_mut(id);
                let stays = |pending: &&mut Pending| match pending.request {
                    Request::LinearizableRead(_) => self.config.local.is_some(),
                    Request::Backup(_) => true,
                    _ => false,
                };
                match pending.filter(stays) {
                    // The node will soon learn of a leader, or of what happened to the last one.
                    Some(pending) => {
                        pending.place = Place::Waiting;
                        self.retries.push_back((now + READ_RETRY_AFTER, id));
                    }
                    _ => self.route(id, now, outputs),
                }
            }
            RequestRefusal::Superseded | RequestRefusal::NotConnected => self.route(id, now, outputs),
        }
    }

    /// Learns of a leader. A node's statement counts if it is of a later term, or if no leader of
    /// this term is known. A statement that there is no leader counts only if the leader itself
    /// makes it, because another node's campaign may fail.
    fn learn(&mut self, node: NodeId, term: Term, leader: Option<NodeId>) {
        let resigns = self.leader == Some(node) && leader != Some(node);
        if resigns {
            self.leader = None;
        }
        let Some(leader) = leader.filter(|leader| !self.stopped.contains(leader)) else { return };
        if term > self.term || (term == self.term && self.leader.is_none()) {
            self.term = term;
            self.leader = Some(leader);
            self.send_again_by_mutant();
        }
    }

    /// Deliberate bug: sends the requests that are in flight to the next leader as well.
    fn send_again_by_mutant(&mut self) {
        if mutant::is_active(Mutant::RequestSentTwice) {
            self.parked.extend(self.pending.ids());
        }
    }

    fn lose(&mut self, node: NodeId, now: Instant, outputs: &mut Vec<ProxyOutput>) {
        self.stopped.insert(node);
        self.move_watches(node, outputs);
        if self.leader == Some(node) {
            self.leader = None;
        }
        for id in self.pending.ids() {
            let Some(pending) = self.pending.request_mut(id) else { continue };
            match &mut pending.place {
                Place::At(at) if *at == node => match pending.request {
                    Request::Write { .. } | Request::ChangeMembers(_) => {
                        self.close(id, Err(RequestError::Storage), outputs);
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
        self.refuse_watches(outputs);
        for id in self.pending.ids() {
            if self.pending.request_mut(id).is_some_and(|pending| pending.place == Place::Waiting) {
                self.close(id, Err(RequestError::ShuttingDown), outputs);
            }
        }
    }

    fn unpark(&mut self, now: Instant, outputs: &mut Vec<ProxyOutput>) {
        let Some(leader) = self.leader_to_ask() else { return };
        while let Some(id) = self.parked.pop_front() {
            self.send(id, leader, now, outputs);
        }
    }

    /// Sends a waiting request to a node, unless another node might not understand it.
    fn send(&mut self, id: RequestId, node: NodeId, now: Instant, outputs: &mut Vec<ProxyOutput>) {
        let Some(pending) = self.pending.request(id) else { return };
        if Some(node) != self.config.local && !self.is_understood(&pending.request) {
            return self.wait_for_level(id, now, outputs);
        }
        let Some(pending) = self.pending.request_mut(id) else { return };
        pending.place = Place::At(node);
        outputs.push(ProxyOutput::Ask(node, id, pending.request.clone()));
    }

    fn retry_reads(&mut self, now: Instant, outputs: &mut Vec<ProxyOutput>) {
        while let Some((_, id)) = self.retries.pop_front_if(|(due, _)| *due <= now) {
            self.route(id, now, outputs);
        }
    }

    fn expire(&mut self, now: Instant, outputs: &mut Vec<ProxyOutput>) {
        while let Some((_, id)) = self.questions.pop_front_if(|(due, _)| *due <= now) {
            self.reply_status(id, outputs);
        }
        while let Some((id, pending)) = self.pending.first_with_id()
            && pending.deadline <= now
        {
            if let Place::AtAll { .. } = pending.place {
                self.reply_status(id, outputs);
            } else {
                let had_no_effect =
                    pending.place == Place::Waiting || mutant::is_active(Mutant::TimeoutIsDefinite);
                let failure = match had_no_effect {
                    true if pending.request.is_scan() && !self.scans.contains(&id) => RequestError::Busy,
                    true => RequestError::NoLeader,
                    false => RequestError::Timeout,
                };
                self.close(id, Err(failure), outputs);
            }
        }
        // Without a leader nothing else removes expired requests from this queue.
        while self.parked.front().is_some_and(|id| self.pending.request_mut(*id).is_none()) {
            self.parked.pop_front();
        }
    }

    fn close(&mut self, id: RequestId, reply: Reply, outputs: &mut Vec<ProxyOutput>) {
        self.scans.remove(&id);
        if let Some(pending) = self.pending.remove(id) {
            let reply = match reply {
                // The node that had the request before may still carry it out, whatever another
                // node has answered.
                Err(failure) if failure.is_definite() && pending.may_have_effect => {
                    Err(RequestError::Timeout)
                }
                reply => reply,
            };
            outputs.push(ProxyOutput::Reply(pending.ticket, reply));
        }
    }
}

#[cfg(test)]
mod tests;
