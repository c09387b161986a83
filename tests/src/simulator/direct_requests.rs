//! Direct requests, which bypass the proxy and go to one node: linearizable reads, which any node
//! must answer correctly, and orders to transfer leadership or change members.

use std::collections::BTreeMap;

use coracle_core::kv::{Found, Key, Query};
use coracle_core::raft::{LogIndex, NodeId, Role};
use coracle_core::{Answer, Input, MemberChange, Request, RequestId};

use super::invariants::{Verdict, Violation};
use super::watchers::is_of_watch;
use super::world::World;

/// The first request id of a direct request. The ids of a proxy never reach it.
const FIRST: u64 = 1 << 62;

/// The direct requests that have no answer yet.
#[derive(Debug, Default)]
pub(super) struct DirectRequests {
    next: u64,
    /// For each read, its key, and the highest index that any client had seen when the read was
    /// sent.
    reads: BTreeMap<RequestId, (String, LogIndex)>,
}

/// Returns whether a request bypassed the proxy.
pub(super) fn is_direct(request: RequestId) -> bool {
    request.0 >= FIRST
}

impl World {
    /// Sends a linearizable read to a random node.
    pub(super) fn read_directly(&mut self) {
        let node = self.dice.position(self.processes.len());
        let key = format!("k{}", self.dice.below(self.settings.keys));
        let query = Query::Value(Key::new(&key).expect("a short key"));
        let id = self.next_direct_id();
        self.direct_requests.reads.insert(id, (key, self.clients.known()));
        self.trace.note(self.now, [14, node as u64, id.0], || format!("node {node} is asked for {query:?}"));
        self.hand(node, Input::Request(id, Request::LinearizableRead(query)));
    }

    /// Orders a leader to transfer leadership to a random node.
    pub(super) fn order_transfer(&mut self, leader: usize) {
        let target = NodeId(self.dice.below(u32::try_from(self.processes.len()).expect("few nodes")).into());
        let id = self.next_direct_id();
        self.hand(leader, Input::Request(id, Request::Transfer(target)));
    }

    /// Orders a leader to change members: to a random set of voters and learners, or by one node.
    pub(super) fn order_member_change(&mut self, leader: usize) {
        let nodes: Vec<_> = self.processes.iter().map(|process| process.id).collect();
        let chosen = nodes[self.dice.position(nodes.len())];
        let order = match self.dice.below(5) {
            0 => MemberChange::AddLearner(chosen),
            1 => MemberChange::Promote(chosen),
            2 => MemberChange::Remove(chosen),
            _ => {
                let (mut voters, mut learners) = (vec![chosen], Vec::new());
                for node in nodes.into_iter().filter(|node| *node != chosen) {
                    match self.dice.below(4) {
                        0 => learners.push(node),
                        1 => {}
                        _ => voters.push(node),
                    }
                }
                MemberChange::Set { voters, learners }
            }
        };
        self.order(leader, order);
    }

    /// Orders a leader to make all nodes voters.
    pub(super) fn order_all_to_vote(&mut self, leader: usize) {
        let voters = self.processes.iter().map(|process| process.id).collect();
        self.order(leader, MemberChange::Set { voters, learners: Vec::new() });
    }

    /// Orders a leader to make all nodes members, so that a node that lags can catch up as a
    /// learner before it votes.
    pub(super) fn order_all_to_take_part(&mut self, leader: usize) {
        let Some(running) = &self.processes[leader].running else { return };
        let current = running.replica.node().configuration();
        let voters = current.voters().nodes().to_vec();
        let learners = self.processes.iter().map(|process| process.id).filter(|id| !voters.contains(id));
        let order = MemberChange::Set { learners: learners.collect(), voters: voters.clone() };
        self.order(leader, order);
    }

    fn order(&mut self, leader: usize, order: MemberChange) {
        let id = self.next_direct_id();
        self.trace
            .note(self.now, [16, leader as u64, id.0], || format!("node {leader} is ordered: {order:?}"));
        self.hand(leader, Input::Request(id, Request::ChangeMembers(order.into())));
    }

    fn next_direct_id(&mut self) -> RequestId {
        self.direct_requests.next += 1;
        RequestId(FIRST + self.direct_requests.next)
    }

    /// Checks the answer to a direct request. S13: a linearizable read reflects everything that any
    /// client had seen when it was sent.
    pub(super) fn direct_request_answered(&mut self, node: usize, id: RequestId, answer: &Answer) -> Verdict {
        if is_of_watch(id) {
            return self.watch_answered(id, answer);
        }
        self.trace.note(self.now, [15, node as u64, id.0], || format!("node {node} answers {answer:?}"));
        if matches!(answer, Answer::Transferred { .. }) {
            self.trace.sight("leadership was handed over");
        }
        if matches!(answer, Answer::MembershipChanged(..)) {
            self.trace.sight("members were changed");
        }
        let Some((key, known)) = self.direct_requests.reads.remove(&id) else { return Ok(()) };
        let Answer::Read { index, found: Found::Value(value), .. } = answer else { return Ok(()) };
        let running = self.processes[node].running.as_ref();
        let is_leader = running.is_some_and(|running| running.replica.node().role() == Role::Leader);
        self.trace.sight(if is_leader {
            "a leader answered a linearizable read"
        } else {
            "a follower answered a linearizable read"
        });
        let violation = |what| Err(Violation { property: "read_index", what });
        if *index < known {
            return violation(format!(
                "node {node} answers at {index}, and {known} was known when it was asked"
            ));
        }
        self.invariants.check_value(&key, *index, value.as_ref())
    }
}
