//! The proxy in front of one node of a cluster of processes: broken connections, changes of the
//! leader, and the search for a leader.
//!
//! In one process each node can be asked at any time, and a node that stops is reported. Between
//! processes a connection may break while a request is at the other node, and its outcome is then
//! unknown. There are two naive ways. To answer all these requests with an error makes every change
//! of the leader visible to every client. To send all of them to the next leader applies writes
//! twice. So only requests that are safe to repeat are sent again: reads and leadership transfers,
//! which change no data, writes with a session, which the state machine deduplicates, and
//! membership changes that name the members for which they were given. Any other write stays where
//! it is and waits for its answer, which may still come over the connection that the other node has
//! dialled. A write that was sent again is in doubt: even if the second node rejects it, the first
//! one may still apply it, so it never gets a definite error.
//!
//! Other nodes may run an older version, so a request of a [`Level`] that the cluster has not
//! reached is sent to none of them: they would not understand it.
//!
//! The new leader may also be unknown here, because a removed node receives no messages any more.
//! So a proxy without a leader sends one waiting request to a random connected node every
//! [`PROBE_EVERY`].

use super::pending::Place;
use super::{LEVEL_PATIENCE, PROBE_EVERY, Proxy, ProxyOutput, READ_RETRY_AFTER, RequestError};
use crate::kv::Level;
use crate::raft::NodeId;
use crate::replica::{Request, RequestId};
use crate::time::Instant;

impl Proxy {
    /// Sends writes that are safe to repeat, and wait at another node, to the current leader, which
    /// does not apply them again.
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

    /// Handles a broken connection to a node.
    pub(super) fn lose_connection(&mut self, node: NodeId, now: Instant, outputs: &mut Vec<ProxyOutput>) {
        if self.reachable.remove(&node).is_none() {
            return;
        }
        for id in self.pending.ids() {
            let Some(pending) = self.pending.request_mut(id) else { continue };
            // The answer to such a write may still come over the connection that the node has
            // dialled.
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

    /// Returns whether every node understands the request, as far as this process knows.
    pub(super) fn is_understood(&self, request: &Request) -> bool {
        self.config.local.is_none() || request.level() <= self.level.unwrap_or(Level::FIRST)
    }

    /// Handles a request that not all nodes understand, as far as the node knows that was asked.
    /// The request is sent again for a while, because the level may be about to be raised, and as
    /// long as the local node has not caught up.
    pub(super) fn wait_for_level(&mut self, id: RequestId, now: Instant, outputs: &mut Vec<ProxyOutput>) {
        let timeout = self.config.request_timeout;
        let patience = LEVEL_PATIENCE.min(timeout / 2);
        let is_behind = self.config.local.is_some() && self.level.is_none();
        let Some(pending) = self.pending.request_mut(id) else { return };
        if is_behind || now + timeout < pending.deadline + patience {
            pending.place = Place::Waiting;
            self.retries.push_back((now + READ_RETRY_AFTER, id));
        } else {
            self.close(id, Err(RequestError::NotYet), outputs);
        }
    }

    pub(super) fn wants_to_probe(&self) -> bool {
        let has_others = self.reachable.keys().any(|node| Some(*node) != self.config.local);
        self.config.local.is_some() && has_others && !self.parked.is_empty() && self.leader_to_ask().is_none()
    }

    /// Sends one of the requests that wait for a leader to a random other node: if it does not
    /// lead, it reports the node that does.
    pub(super) fn probe(&mut self, now: Instant, outputs: &mut Vec<ProxyOutput>) {
        if now < self.next_probe || !self.wants_to_probe() {
            return;
        }
        self.next_probe = now + PROBE_EVERY;
        let others = self.reachable.keys().copied().filter(|node| Some(*node) != self.config.local);
        let others: Vec<_> = others.collect();
        let Some(&node) = self.rng.choice(&others) else { return };
        while let Some(id) = self.parked.pop_front() {
            if self.pending.request(id).is_some() {
                return self.send(id, node, now, outputs);
            }
        }
    }
}
