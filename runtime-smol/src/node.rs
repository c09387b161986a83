//! A node's task: feeds its [`NodeHost`] from the inbox, and carries out what it wants done.

use coracle_core::host::{NodeAction, NodeHost, PeerNews, RouterInput, SnapshotOrder};
use coracle_core::raft::Persist;
use coracle_storage::NodeEvent;
use coracle_storage::host::{NodeEnd, NodeInput};
use futures_lite::future;

use crate::alarm::Alarm;
use crate::inputs::ProxyEvent;
use crate::mailbox::{Receiver, Sender};
use crate::wiring::Wiring;

/// The ways to the tasks that write a node's files.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) persists: Sender<Persist>,
    pub(crate) snapshots: Sender<SnapshotOrder>,
}

/// A node and what it is connected to.
#[derive(Debug)]
pub(crate) struct NodeDriver {
    pub(crate) host: NodeHost,
    pub(crate) inbox: Receiver<NodeInput>,
    pub(crate) files: Option<Files>,
    pub(crate) wiring: Wiring,
    /// Closed when leadership is handed over, or cannot be.
    pub(crate) resigning: Option<async_channel::Sender<()>>,
}

impl NodeDriver {
    /// Drives the node until it is told to stop or its disk fails.
    pub(crate) async fn run(mut self) {
        if let NodeEnd::DiskFailed(error) = self.drive().await {
            self.wiring.events.report(self.host.id(), NodeEvent::Failed(error));
            let _ = self.wiring.proxy.send(ProxyEvent::Router(RouterInput::NodeStopped(self.host.id())));
        }
    }

    async fn drive(&mut self) -> NodeEnd {
        let mut alarm = Alarm::new(self.wiring.clock);
        let mut actions = Vec::new();
        loop {
            let mut next = None;
            if !self.host.has_work() {
                match alarm.receive(&self.inbox, Some(self.host.deadline())).await {
                    Ok(first) => next = first,
                    Err(_) => return NodeEnd::Stopped,
                }
            }
            while !self.host.is_full()
                && let Some(input) = next.take().or_else(|| self.inbox.take())
            {
                match input {
                    NodeInput::Host(input) => {
                        if let Some(network) = self.wiring.peers.network() {
                            network.taken(input.peer_bytes());
                        }
                        self.host.accept(input);
                    }
                    NodeInput::End(end) => return end,
                }
            }
            self.host.step(self.wiring.clock.now(), &mut actions);
            actions.drain(..).for_each(|action| self.carry_out(action));
            if let Some(network) = self.wiring.peers.network() {
                network.tidy();
            }
            // A node that has more to do at once, such as a long log to apply, must not keep the others waiting.
            future::yield_now().await;
        }
    }

    fn carry_out(&mut self, action: NodeAction) {
        match action {
            NodeAction::Persist(persist) => {
                if let Some(files) = &self.files {
                    // A disk that is gone has reported its failure, which is the next thing in the inbox.
                    let _ = files.persists.send(persist);
                }
            }
            NodeAction::Snapshot(order) => {
                if let Some(files) = &self.files {
                    let _ = files.snapshots.send(order);
                }
            }
            NodeAction::Send(message) => self.wiring.peers.send(message),
            NodeAction::AnswerPeer(peer, call, answer) => {
                if let Some(network) = self.wiring.peers.network() {
                    network.answer(peer, call, &answer);
                }
            }
            NodeAction::Route(news) => {
                // Without a proxy nobody waits for an answer.
                let _ = self.wiring.proxy.send(ProxyEvent::Router(RouterInput::FromNode(news)));
            }
            NodeAction::Follow(known) => {
                if let Some(network) = self.wiring.peers.network() {
                    network.change(|directory, now, actions| directory.follow(&known, now, actions));
                }
            }
            NodeAction::Report(event) => self.wiring.events.report(self.host.id(), NodeEvent::Raft(event)),
            NodeAction::Removed(refusal) => {
                if let Some(network) = self.wiring.peers.network() {
                    network.deliver(PeerNews::Removed(refusal));
                }
            }
            NodeAction::Resigned => self.resigning = None,
        }
    }
}
