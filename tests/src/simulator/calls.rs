//! Repeated leadership transfers, and faults of the TimeoutNow call with which a leader asks
//! another node to take over: it may arrive late, and its sender may not receive any message of the
//! election.
//!
//! Such a leader believes that it leads although another node may have been elected. It then
//! answers reads by its lease.

use coracle_core::raft::{Body, Message};

use super::network::Arrivals;
use super::queue::SimEvent;
use super::world::World;

impl World {
    /// Orders the leader to transfer leadership, and schedules the next order.
    pub(super) fn hand_over(&mut self) {
        let Some(every) = self.settings.transfer_every.filter(|_| self.has_faults) else { return };
        let next = 1 + self.dice.exponential(every);
        self.schedule(next, SimEvent::HandOver);
        if let Some(leader) = self.leader() {
            self.order_transfer(leader);
        }
    }

    /// Delays a TimeoutNow call, so that it may arrive after its sender has given up on the
    /// transfer.
    pub(super) fn delay_call(&mut self, message: &Message, arrivals: Arrivals) -> Arrivals {
        let is_call = matches!(message.body, Body::TimeoutNow) && self.has_faults;
        if !is_call || !self.dice.happens(self.settings.late_calls) {
            return arrivals;
        }
        self.trace.sight("a call to take over arrived late");
        let patience = self.election_max();
        let later = patience + self.dice.exponential(patience / 4);
        arrivals.map(|arrival| arrival.map(|at| at + later))
    }

    /// Cuts the sender of an arriving TimeoutNow call off from all messages to it, for as long as
    /// an election takes.
    pub(super) fn deafen_caller(&mut self, message: &Message) {
        let is_call = matches!(message.body, Body::TimeoutNow) && self.has_faults;
        if !is_call || !self.dice.happens(self.settings.deaf_callers) {
            return;
        }
        self.trace.sight("a leader that had called for an election heard nothing of it");
        self.trace.note(self.now, [17, message.from.0, 0], || format!("node {} hears nothing", message.from));
        let nodes: Vec<_> = self.processes.iter().map(|process| process.id).collect();
        self.network.shape(&nodes, |_, to| to == message.from);
        let back = self.election_max();
        self.schedule(back, SimEvent::Heal);
    }

    fn election_max(&self) -> u64 {
        u64::try_from(self.settings.election_max.as_micros()).expect("a short time")
    }
}
