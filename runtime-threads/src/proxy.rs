//! The thread of the router: feeds the [`Router`] from its inbox and carries out its actions.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;

use coracle_core::host::{Router, RouterAction, RouterInput, ToWriter};
use coracle_core::proxy::Reply;

use crate::alarm;
use crate::clock::Clock;
use crate::inputs::{ProxyEvent, Way};
use crate::peers::Peers;
use crate::wiring::RouterInbox;

/// The router, its inbox, and the connections and callers that wait for replies.
#[derive(Debug)]
pub(crate) struct ProxyDriver {
    router: Router,
    inbox: RouterInbox,
    peers: Peers,
    /// Set when the nodes that still run are no majority.
    pub(crate) majority_is_lost: Arc<AtomicBool>,
    clock: Clock,
    connections: BTreeMap<u64, Way>,
    callers: BTreeMap<u64, SyncSender<Reply>>,
    next_call: u64,
}

impl ProxyDriver {
    /// Creates a driver of `router`, without any connection yet.
    pub(crate) fn new(router: Router, inbox: RouterInbox, peers: Peers, clock: Clock) -> Self {
        let (connections, callers, majority_is_lost) = Default::default();
        Self { router, inbox, peers, majority_is_lost, clock, connections, callers, next_call: 0 }
    }

    /// Drives the router until all senders to it are gone, or until it was stopped and is done.
    pub(crate) fn run(mut self) {
        let mut actions = Vec::new();
        loop {
            let mut next = self.inbox.try_recv().ok();
            if next.is_none() && self.router.is_done() {
                return self.dismiss();
            }
            if next.is_none() {
                let deadline = self.router.deadline();
                let Ok(first) = alarm::receive(&self.inbox, deadline, self.clock) else { return };
                next = first;
            }
            while let Some(event) = next.take().or_else(|| self.inbox.try_recv().ok()) {
                if matches!(event, ProxyEvent::End) {
                    return self.dismiss();
                }
                self.accept(event);
            }
            self.router.step(self.clock.now(), &mut actions);
            self.majority_is_lost.store(self.router.majority_is_lost(), Ordering::Release);
            actions.drain(..).for_each(|action| self.carry_out(action));
        }
    }

    fn accept(&mut self, event: ProxyEvent) {
        match event {
            ProxyEvent::Connected(connection, way) => drop(self.connections.insert(connection, way)),
            ProxyEvent::Disconnected(connection) => drop(self.connections.remove(&connection)),
            ProxyEvent::Called(request, reply) => {
                self.callers.insert(self.next_call, reply);
                self.router.accept(RouterInput::Called(self.next_call, request));
                self.next_call += 1;
            }
            ProxyEvent::Router(input) => self.router.accept(input),
            ProxyEvent::End => {}
        }
    }

    fn carry_out(&mut self, action: RouterAction) {
        match action {
            RouterAction::Ask(node, requests) => self.peers.ask(node, requests),
            // Replies to a client that has disconnected are dropped.
            RouterAction::Tell(connection, told) => {
                if let Some(connection) = self.connections.get(&connection) {
                    let _ = connection.replies.send(told);
                }
            }
            RouterAction::Cut(connection) => {
                if let Some(connection) = self.connections.get(&connection) {
                    let _ = connection.socket.shutdown(Shutdown::Both);
                }
            }
            RouterAction::EndInput(connection) => {
                if let Some(connection) = self.connections.get(&connection) {
                    let _ = connection.socket.shutdown(Shutdown::Read);
                }
            }
            RouterAction::ReplyToCaller(call, reply) => {
                if let Some(caller) = self.callers.remove(&call) {
                    let _ = caller.try_send(reply);
                }
            }
        }
    }

    /// Notifies all connections that no more replies will come.
    fn dismiss(&self) {
        for connection in self.connections.values() {
            let _ = connection.replies.send(ToWriter::Stop);
        }
    }
}
