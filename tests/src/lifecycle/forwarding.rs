//! Forwarded requests: a client sends a request to a node that does not lead, and that node
//! forwards it to the leader, which answers.
//!
//! A forwarded request may arrive a second time while both processes keep running, as after a
//! replaced connection. It is executed once. After the faults have ended, each member gets an
//! answer to the requests that it forwards, however often it and the leader were restarted.

use coracle_core::host::HostInput;
use coracle_core::peer::PeerFrame;
use coracle_core::proxy::ProxyInput;
use coracle_core::raft::NodeId;
use coracle_core::{Incarnation, Input, Request, RequestId};

use super::checks::violation;
use super::clients::Asked;
use super::wiring::Connection;
use super::world::{MACHINES, SimEvent, World};
use crate::simulator::invariants::Verdict;

/// The typical delay of a copy of a request, in microseconds.
const LATE: u64 = 500_000;
/// The time in which a calm cluster answers a forwarded request, in simulated microseconds.
const ANSWERED: u64 = 3_000_000;

impl World {
    /// Sends a request to the leader through a node, which forwards it if it knows of another node
    /// that leads. A copy of a folder forwards nothing: the receiver would get messages of the
    /// copy's run and of its original's in turn, and could not detect duplicates.
    pub(super) fn ask_through(&mut self, machine: usize, request: Request, asked: Asked) -> Verdict {
        match self.leader_known_at(machine).filter(|_| !self.is_copy(machine)) {
            Some(leader) => {
                self.forward(machine, leader, request, asked);
                Ok(())
            }
            None => self.ask(machine, request, asked),
        }
    }

    pub(super) fn leader_known_at(&self, machine: usize) -> Option<NodeId> {
        let node = self.machines[machine].running()?.host.replica().node();
        node.leader().filter(|leader| *leader != node.id())
    }

    /// Forwards a request. Returns its id, if it was sent.
    fn forward(
        &mut self,
        machine: usize,
        leader: NodeId,
        request: Request,
        asked: Asked,
    ) -> Option<RequestId> {
        let id = self.clients.expect(asked);
        let process = self.machines[machine].process.as_mut()?;
        let link = process.links.get_mut(&leader).map(|seat| &mut seat.link);
        let refused = process.forwarder.forward_all(leader, &[Input::Request(id, request)], link);
        if !refused.is_empty() {
            self.clients.forget(id);
            return None;
        }
        self.sight("a request was forwarded");
        self.tell(|| format!("m{machine} forwards request {} to node {leader}", id.0));
        self.flush(machine);
        Some(id)
    }

    /// Processes the answers of the machine `from` to forwarded requests.
    pub(super) fn hear_answers(&mut self, from: usize, answers: Vec<ProxyInput>) -> Verdict {
        let incarnation = self.machines[from].process.as_ref().map_or(Incarnation(0), |it| it.incarnation);
        for answer in answers {
            if let ProxyInput::Answer(node, id, answer) = answer {
                self.answered(from, (node, incarnation), id, &answer)?;
            }
        }
        Ok(())
    }

    /// May schedule a second arrival of the requests that a connection has delivered.
    pub(super) fn maybe_repeat(&mut self, connection: Connection, input: &HostInput) {
        let HostInput::FromPeer { node, incarnation, frames, .. } = input else { return };
        let is_request = |frame: &&PeerFrame| matches!(frame, PeerFrame::Ask { .. });
        let frames: Vec<_> = frames.iter().filter(is_request).cloned().collect();
        if frames.is_empty() || !self.has_faults || !self.dice.happens(300) {
            return;
        }
        let (node, incarnation) = (*node, *incarnation);
        let input = HostInput::FromPeer { node, incarnation, frames, peer_bytes: 0 };
        let later = 1 + self.dice.exponential(LATE);
        self.schedule(later, SimEvent::ArriveAgain { connection, input });
    }

    /// Delivers requests again, over an open connection between the same two runs. If another
    /// process with the sender's id has dialed since, the earlier connection is no longer read.
    pub(super) fn arrive_again(&mut self, connection: Connection, input: HostInput) {
        let ends = |it: &Connection| (it.from, it.from_boot, it.to, it.to_boot);
        let (from, to) = (connection.from, connection.to);
        let Some(listener) = self.machines[to].process.as_ref() else { return };
        let is_read = |(number, open): (&u64, &Connection)| {
            ends(open) == ends(&connection) && listener.inbound.contains_key(number)
        };
        if self.connections.iter().any(is_read) {
            self.sight("a forwarded request arrived again");
            self.tell(|| format!("m{to} gets again what m{from} has forwarded: {input:?}"));
            self.hand(to, input);
        }
    }

    /// Checks that each member gets an answer to a forwarded request, as long as its connections
    /// with the leader last.
    pub(super) fn members_forward(&mut self) -> Verdict {
        for machine in 0..MACHINES {
            let Some((leader, members, _)) = self.members() else { return Ok(()) };
            let is_member = |(id, incarnation)| members.names(id, Some(incarnation));
            let known = self.leader_known_at(machine).filter(|known| {
                self.machines[machine].holds.is_some_and(is_member)
                    && self.machines[leader].holds.is_some_and(|(id, _)| id == *known)
            });
            let (Some(known), Some(before)) = (known, self.connections_between(machine, leader)) else {
                continue;
            };
            let (request, asked) = self.next_write(0);
            let Some(id) = self.forward(machine, known, request, asked) else { continue };
            self.run_until(self.now + ANSWERED)?;
            let is_unchanged = self.connections_between(machine, leader) == Some(before);
            if is_unchanged && self.leader() == Some(leader) && self.clients.waits_for(id) {
                let what = format!("machine {leader} leads and does not answer what {machine} has forwarded");
                return violation("forwarded_is_answered", what);
            }
        }
        Ok(())
    }

    /// The connections that two machines have dialed to each other, if both are awake.
    fn connections_between(&self, one: usize, other: usize) -> Option<[u64; 2]> {
        let is_awake = |machine: usize| {
            self.machines[machine].process.as_ref().is_some_and(|process| process.busy_until <= self.now)
        };
        let dialled = |from: usize, to: usize| {
            let (_, process) = self.machines[to].holds.zip(self.machines[from].process.as_ref())?;
            let seat = process.links.get(&self.machines[to].holds?.0)?;
            seat.connection.filter(|_| seat.link.is_up())
        };
        (is_awake(one) && is_awake(other)).then_some([dialled(one, other)?, dialled(other, one)?])
    }
}
