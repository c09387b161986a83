//! Watch requests: a table apart from the pending requests, because they wait without a timeout,
//! and ten thousand of them must not take the places of writes.
//!
//! A watch request goes to a node of this process: the local one, or in front of a whole cluster
//! the one that the connection's number chooses among those that run. When that node stops,
//! requests for changes go to another one, because revisions are the same on all nodes. A view is
//! not, so a watch whose initial content was read from a node that stopped has to begin again.
//!
//! The beginning of a watch is sent again while the node catches up or has too many views, until
//! the request timeout.

use std::collections::{BTreeMap, VecDeque};

use super::{Answered, LEVEL_PATIENCE, Proxy, ProxyOutput, READ_RETRY_AFTER, Reply, RequestError, Ticket};
use crate::raft::NodeId;
use crate::replica::{Answer, Request, RequestId, RequestRefusal, WatchAnswer, WatchPart, WatchRequest};
use crate::time::Instant;

/// The most watches of a server: a new one above it is rejected. Arbitrary: some tens of megabytes.
pub const WATCHES_MAX: usize = 65_536;

/// The ids of watch requests begin here: at a million ids per second, those of other requests reach
/// it after a hundred thousand years.
const FIRST_ID: u64 = 1 << 62;

/// How many retry intervals a watch waits for a view: a view takes longer to become free than a
/// node takes to catch up.
const VIEW_RETRY_INTERVALS: u32 = 10;

/// The watch requests under way.
#[derive(Debug, Default)]
pub(super) struct Watches {
    given_out: u64,
    open: BTreeMap<RequestId, Open>,
    /// Requests to send again, and when.
    retries: VecDeque<(Instant, RequestId)>,
    /// The beginnings of watches, with their deadlines.
    deadlines: VecDeque<(Instant, RequestId)>,
}

#[derive(Debug)]
struct Open {
    ticket: Ticket,
    request: WatchRequest,
    /// The node that has it.
    at: Option<NodeId>,
    /// How often it was rejected because the node was catching up. The next node is tried then.
    moves: u64,
    /// Since when all members are known not to support watches.
    not_yet_since: Option<Instant>,
    /// The error if its deadline passes.
    at_deadline: RequestError,
}

impl Watches {
    /// Returns whether a request with this id is in this table.
    pub(super) fn has_id(id: RequestId) -> bool {
        id.0 >= FIRST_ID
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let retry = self.retries.front().map(|(due, _)| *due);
        let deadline = self.deadlines.front().map(|(due, _)| *due);
        retry.into_iter().chain(deadline).min()
    }

    fn close(&mut self, id: RequestId, reply: Reply, outputs: &mut Vec<ProxyOutput>) {
        if let Some(open) = self.open.remove(&id) {
            outputs.push(ProxyOutput::Reply(open.ticket, reply));
        }
        let open = &self.open;
        while self.deadlines.pop_front_if(|(_, id)| !open.contains_key(id)).is_some() {}
    }

    fn retry(&mut self, id: RequestId, due: Instant) {
        if let Some(open) = self.open.get_mut(&id) {
            open.at = None;
            let later = self.retries.iter().rev().take_while(|(other, _)| *other > due).count();
            self.retries.insert(self.retries.len() - later, (due, id));
        }
    }
}

impl Proxy {
    /// Returns whether one more request like this one may be accepted.
    pub(super) fn has_room_for(&self, request: &Request) -> bool {
        match request {
            Request::Watch(watch) => watch.begins().is_none() || self.watches.open.len() < WATCHES_MAX,
            _ => self.pending.has_room(&self.config),
        }
    }

    pub(super) fn ask_watch(
        &mut self,
        ticket: Ticket,
        request: WatchRequest,
        now: Instant,
        outputs: &mut Vec<ProxyOutput>,
    ) {
        let id = RequestId(FIRST_ID + self.watches.given_out);
        self.watches.given_out += 1;
        if request.begins().is_some() {
            self.watches.deadlines.push_back((now + self.config.request_timeout, id));
        }
        let at_deadline = RequestError::NoLeader;
        let open = Open { ticket, request, at: None, moves: 0, not_yet_since: None, at_deadline };
        self.watches.open.insert(id, open);
        self.route_watch(id, outputs);
    }

    /// Sends a watch request to its node, or lets it wait until there is one.
    fn route_watch(&mut self, id: RequestId, outputs: &mut Vec<ProxyOutput>) {
        let Some(open) = self.watches.open.get(&id) else { return };
        let node = match &open.request.part {
            WatchPart::Content { view, .. } if self.stopped.contains(&view.node) => {
                let lagged = WatchAnswer::Lagged { resume: view.as_of };
                let reply = Ok(Answered::ByNode(Answer::Watch(Box::new(lagged))));
                return self.watches.close(id, reply, outputs);
            }
            WatchPart::Content { view, .. } => Some(view.node),
            WatchPart::Start { .. } | WatchPart::Changes { .. } => {
                self.node_to_watch(open.ticket.connection + open.moves)
            }
        };
        let has_local = self.config.local.is_none_or(|local| !self.stopped.contains(&local));
        let Some(open) = self.watches.open.get_mut(&id) else { return };
        open.at = node;
        match node {
            Some(node) => outputs.push(ProxyOutput::Ask(node, id, Request::Watch(open.request.clone()))),
            // The local node is about to start.
            None if self.config.local.is_some() && has_local => {}
            None => self.watches.close(id, Err(RequestError::Storage), outputs),
        }
    }

    /// Returns the node that serves the watches of a connection.
    fn node_to_watch(&self, connection: u64) -> Option<NodeId> {
        if let Some(local) = self.config.local {
            return Some(local).filter(|local| self.is_reachable(*local) && !self.stopped.contains(local));
        }
        let nodes = &self.config.nodes;
        let first = usize::try_from(connection % nodes.len().max(1) as u64).ok()?;
        let in_turn = nodes.iter().cycle().skip(first).take(nodes.len());
        in_turn.copied().find(|node| !self.stopped.contains(node))
    }

    pub(super) fn answer_watch(
        &mut self,
        node: NodeId,
        id: RequestId,
        answer: Answer,
        now: Instant,
        outputs: &mut Vec<ProxyOutput>,
    ) {
        let is_known = self.leader.is_some();
        let Some(open) = self.watches.open.get_mut(&id) else { return };
        let fits = match &answer {
            Answer::Watch(given) => given.fits(&open.request.part),
            answer => matches!(answer, Answer::Refused(_)),
        };
        if open.at != Some(node) || !fits {
            return;
        }
        let Answer::Refused(refused) = answer else {
            return self.watches.close(id, Ok(Answered::ByNode(answer)), outputs);
        };
        let mut due = now + READ_RETRY_AFTER;
        match refused {
            RequestRefusal::Overloaded => {
                open.at_deadline = RequestError::Busy;
                due = now + READ_RETRY_AFTER * VIEW_RETRY_INTERVALS;
            }
            RequestRefusal::NotYet if is_known => {
                open.at_deadline = RequestError::NotYet;
                let since = *open.not_yet_since.get_or_insert(now);
                if now.since(since) >= LEVEL_PATIENCE {
                    return self.watches.close(id, Err(RequestError::NotYet), outputs);
                }
            }
            _ => open.moves += 1,
        }
        self.watches.retry(id, due);
    }

    /// Sends the requests that had no node.
    pub(super) fn place_watches(&mut self, outputs: &mut Vec<ProxyOutput>) {
        let without = self.watches.open.iter().filter(|(_, open)| open.at.is_none());
        for id in without.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.route_watch(id, outputs);
        }
    }

    /// Sends the requests that a node had which has stopped elsewhere.
    pub(super) fn move_watches(&mut self, from: NodeId, outputs: &mut Vec<ProxyOutput>) {
        let at_it = self.watches.open.iter().filter(|(_, open)| open.at == Some(from));
        for id in at_it.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.route_watch(id, outputs);
        }
    }

    pub(super) fn retry_watches(&mut self, now: Instant, outputs: &mut Vec<ProxyOutput>) {
        while let Some((_, id)) = self.watches.deadlines.pop_front_if(|(due, _)| *due <= now) {
            if let Some(open) = self.watches.open.get(&id) {
                let failure = open.at_deadline;
                self.watches.close(id, Err(failure), outputs);
            }
        }
        while let Some((_, id)) = self.watches.retries.pop_front_if(|(due, _)| *due <= now) {
            if self.watches.open.get(&id).is_some_and(|open| open.at.is_none()) {
                self.route_watch(id, outputs);
            }
        }
    }

    pub(super) fn refuse_watches(&mut self, outputs: &mut Vec<ProxyOutput>) {
        for (_, open) in std::mem::take(&mut self.watches.open) {
            outputs.push(ProxyOutput::Reply(open.ticket, Err(RequestError::ShuttingDown)));
        }
        self.watches.deadlines.clear();
        self.watches.retries.clear();
    }
}
