//! What is different before one node of a cluster of processes: connections break, and nobody may
//! tell of a new leader.

use super::pending::Place;
use super::{PROBE_EVERY, Proxy, ProxyOutput};
use crate::raft::NodeId;
use crate::time::Instant;

impl Proxy {
    /// Writes of a session, and changes of members, that wait for an answer of a node that leads no
    /// longer go to the one that does: it does not do again what was done.
    pub(super) fn follow_leader(&mut self, now: Instant, outputs: &mut Vec<ProxyOutput>) {
        let Some(leader) = self.leader_to_ask().filter(|_| self.config.local.is_some()) else { return };
        for id in self.pending.ids() {
            let Some(pending) = self.pending.request_mut(id) else { continue };
            let is_elsewhere = matches!(&pending.place, Place::At(node) if *node != leader);
            if is_elsewhere && pending.is_repeatable_write() {
                pending.leave_in_doubt();
                self.route(id, now, outputs);
            }
        }
    }

    /// The connection to a node broke.
    pub(super) fn lose_connection(&mut self, node: NodeId, now: Instant, outputs: &mut Vec<ProxyOutput>) {
        if self.reachable.remove(&node).is_none() {
            return;
        }
        for id in self.pending.ids() {
            let Some(pending) = self.pending.request_mut(id) else { continue };
            // The answer to such a write may still come over the node's own connection.
            let waits_on = pending.is_unrepeatable_write();
            match &mut pending.place {
                Place::At(at) if *at == node && !waits_on => {
                    pending.leave_in_doubt();
                    self.route(id, now, outputs);
                }
                Place::AtAll { missing, .. } => {
                    missing.remove(&node);
                    self.finish_status(id, outputs);
                }
                _ => {}
            }
        }
    }

    pub(super) fn wants_to_probe(&self) -> bool {
        let has_others = self.reachable.keys().any(|node| Some(*node) != self.config.local);
        self.config.local.is_some() && has_others && !self.parked.is_empty() && self.leader_to_ask().is_none()
    }

    /// Sends one of the requests that wait for a leader to any other node: if that does not lead,
    /// it says who does.
    pub(super) fn probe(&mut self, now: Instant, outputs: &mut Vec<ProxyOutput>) {
        if now < self.next_probe || !self.wants_to_probe() {
            return;
        }
        self.next_probe = now + PROBE_EVERY;
        let others = self.reachable.keys().copied().filter(|node| Some(*node) != self.config.local);
        let others: Vec<_> = others.collect();
        let Some(&node) = self.rng.choice(&others) else { return };
        while let Some(id) = self.parked.pop_front() {
            if let Some(pending) = self.pending.request_mut(id) {
                pending.place = Place::At(node);
                return outputs.push(ProxyOutput::Ask(node, id, pending.request.clone()));
            }
        }
    }
}
