//! The task of the router: feeds the [`Router`] from its inbox and carries out its actions.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::Shutdown;
use std::rc::Rc;

use coracle_core::host::{Router, RouterAction, RouterInput, ToWriter};
use coracle_core::proxy::Reply;
use slab::Slab;

use crate::alarm::Alarm;
use crate::clock::Clock;
use crate::inputs::{ProxyEvent, Way};
use crate::mailbox::AnswerSlot;
use crate::peers::Peers;
use crate::wiring::RouterInbox;

/// The router, its inbox, and the connections and callers that wait for replies.
#[derive(Debug)]
pub(crate) struct ProxyDriver {
    router: Router,
    inbox: RouterInbox,
    peers: Peers,
    /// Set when the nodes that still run are no majority.
    pub(crate) majority_is_lost: Rc<Cell<bool>>,
    clock: Clock,
    connections: BTreeMap<u64, Way>,
    callers: Slab<AnswerSlot<Reply>>,
}

impl ProxyDriver {
    /// Creates a driver of `router`, without any connection yet.
    pub(crate) fn new(router: Router, inbox: RouterInbox, peers: Peers, clock: Clock) -> Self {
        let (connections, callers, majority_is_lost) = Default::default();
        Self { router, inbox, peers, majority_is_lost, clock, connections, callers }
    }

    /// Drives the router until all senders to it are gone, or until it was stopped and is done.
    pub(crate) async fn run(mut self) {
        let mut alarm = Alarm::new(self.clock);
        let mut actions = Vec::new();
        loop {
            let mut next = self.inbox.take();
            if next.is_none() && self.router.is_done() {
                return self.dismiss();
            }
            if next.is_none() {
                let Ok(first) = alarm.receive(&self.inbox, self.router.deadline()).await else { return };
                next = first;
            }
            while let Some(event) = next.take().or_else(|| self.inbox.take()) {
                self.accept(event);
            }
            self.router.step(self.clock.now(), &mut actions);
            self.majority_is_lost.set(self.router.majority_is_lost());
            actions.drain(..).for_each(|action| self.carry_out(action));
        }
    }

    fn accept(&mut self, event: ProxyEvent) {
        match event {
            ProxyEvent::Connected(connection, way) => drop(self.connections.insert(connection, way)),
            ProxyEvent::Disconnected(connection) => drop(self.connections.remove(&connection)),
            ProxyEvent::Called(request, reply) => {
                // Each call is answered once, so its key can be reused after that.
                let call = self.callers.insert(reply) as u64;
                self.router.accept(RouterInput::Called(call, request));
            }
            ProxyEvent::Router(input) => self.router.accept(input),
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
                    let _ = connection.socket.get_ref().shutdown(Shutdown::Both);
                }
            }
            RouterAction::EndInput(connection) => {
                if let Some(connection) = self.connections.get(&connection) {
                    let _ = connection.socket.get_ref().shutdown(Shutdown::Read);
                }
            }
            RouterAction::ReplyToCaller(call, reply) => {
                let place = usize::try_from(call).expect("it was a place");
                self.callers.remove(place).give(reply);
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
