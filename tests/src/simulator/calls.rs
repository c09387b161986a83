//! Leadership that is handed over again and again, and what happens to the call with which a leader
//! asks another node to take over: it may arrive late, and its sender may hear nothing of the
//! election.
//!
//! Such a leader believes that it leads when another one may have been elected. What it answers
//! then, it answers by its lease.

use coracle_core::raft::{Body, Message};

use super::network::Arrivals;
use super::queue::Happening;
use super::world::World;

impl World {
    /// The leader is ordered to hand leadership over, and so is the next one after a while.
    pub(super) fn hand_over(&mut self) {
        let Some(every) = self.settings.transfer_every.filter(|_| self.has_trouble) else { return };
        let next = 1 + self.dice.exponential(every);
        self.schedule(next, Happening::HandOver);
        if let Some(leader) = self.leader() {
            self.walk_in_to_transfer(leader);
        }
    }

    /// When a message arrives: a call may take longer than its sender waits for what comes of it.
    pub(super) fn delay_call(&mut self, message: &Message, arrivals: Arrivals) -> Arrivals {
        let is_call = matches!(message.body, Body::TimeoutNow) && self.has_trouble;
        if !is_call || !self.dice.happens(self.settings.late_calls) {
            return arrivals;
        }
        self.trace.sight("a call to take over arrived late");
        let patience = self.election_max();
        let later = patience + self.dice.exponential(patience / 4);
        arrivals.map(|arrival| arrival.map(|at| at + later))
    }

    /// A message arrives: if it is a call, its sender may hear nothing for as long as an election
    /// takes.
    pub(super) fn deafen_caller(&mut self, message: &Message) {
        let is_call = matches!(message.body, Body::TimeoutNow) && self.has_trouble;
        if !is_call || !self.dice.happens(self.settings.deaf_callers) {
            return;
        }
        self.trace.sight("a leader that had called for an election heard nothing of it");
        self.trace.note(self.now, [17, message.from.0, 0], || format!("node {} hears nothing", message.from));
        let nodes: Vec<_> = self.processes.iter().map(|process| process.id).collect();
        self.network.shape(&nodes, |_, to| to == message.from);
        let back = self.election_max();
        self.schedule(back, Happening::Heal);
    }

    fn election_max(&self) -> u64 {
        u64::try_from(self.settings.election_max.as_micros()).expect("a short time")
    }
}
