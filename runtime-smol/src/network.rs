//! The network of a node: its connections to the other nodes of the cluster, and the routing of
//! what arrives on them.
//!
//! The obvious way is one connection per pair of nodes, opened by whichever node needs it first.
//! But two nodes that dial at the same time then have two connections and must agree which one to
//! drop, and a connection that is broken in one direction still looks healthy from the other end.
//! So each node dials every other node and sends only on the connections that it dialled (`link`);
//! it only receives on those that it accepted (`peer_listener`). A direction that is broken shows
//! at its sender.
//!
//! This file decides nothing: the [`Directory`] decides which links exist, each [`Link`] what waits
//! and what is reported, and the [`Forwarder`] numbers the clients' requests that are forwarded.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use coracle_core::host::{
    Directory, Forwarder, HostInput, Link, LinkChange, PeerActions, PeerNews, Removal, RouterInput,
};
use coracle_core::memory::InboxMemory;
use coracle_core::peer::{CallId, HandshakeRefusal, HandshakeResult};
use coracle_core::raft::{Message, NodeId};
use coracle_core::{Answer, Input, Instant};
use coracle_storage::NodeEvent;
use coracle_storage::host::NodeInput;
use smol::Task;

use crate::link;
use crate::mailbox::Sender;
use crate::wiring::{Wiring, route};

/// A node's connections, and the channels from them to the node, its router and its events.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) id: NodeId,
    pub(crate) wiring: Wiring,
    pub(crate) directory: RefCell<Directory>,
    election_timeout_min: Duration,
    removal: RefCell<Removal>,
    forwarder: RefCell<Forwarder>,
    inbox: Sender<NodeInput>,
    inbox_bytes: InboxMemory,
    links: RefCell<BTreeMap<NodeId, DialTask>>,
}

/// A link and the task that dials for it. The task ends when this is dropped.
type DialTask = (Rc<Line>, Task<()>);

/// A link, shared between its task and the senders of messages.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) link: RefCell<Link>,
    work: (async_channel::Sender<()>, async_channel::Receiver<()>),
}

impl Line {
    fn new(network: &Network, node: NodeId) -> Self {
        let link = Link::new(network.id, node, fastrand::u64(..), network.election_timeout_min)
            .with_memory(&network.wiring.memory);
        Self { link: RefCell::new(link), work: async_channel::bounded(1) }
    }

    /// Changes the link and wakes its task, which may have more to send then.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Link) -> T) -> T {
        let changed = change(&mut self.link.borrow_mut());
        // A full channel means that the task is awake already.
        let _ = self.work.0.try_send(());
        changed
    }

    /// Waits until there is something to send.
    pub(crate) async fn has_work(&self) {
        while !self.link.borrow().has_work() {
            // This struct holds both ends, so the channel never closes.
            let _ = self.work.1.recv().await;
        }
    }
}

impl Network {
    pub(crate) fn new(
        wiring: Wiring,
        directory: Directory,
        inbox: Sender<NodeInput>,
        election_timeout_min: Duration,
    ) -> Self {
        let (id, forwarder) = (directory.local().id, Forwarder::new(directory.local().boot));
        Self {
            id,
            inbox_bytes: InboxMemory::new(&wiring.memory),
            wiring,
            directory: RefCell::new(directory),
            election_timeout_min,
            removal: RefCell::default(),
            forwarder: RefCell::new(forwarder),
            inbox,
            links: RefCell::default(),
        }
    }

    pub(crate) fn removal(&self) -> Option<HandshakeRefusal> {
        self.removal.borrow().is_due(self.wiring.clock.now())
    }

    /// The node has taken an input with `peer_bytes` bytes of peers' frames out of its inbox.
    pub(crate) fn taken(&self, peer_bytes: usize) {
        self.inbox_bytes.remove(peer_bytes);
    }

    pub(crate) fn inbox_is_full(&self) -> bool {
        self.inbox_bytes.is_full(self.inbox.len())
    }

    /// Delivers news of a connection to its receiver: events, node or router.
    pub(crate) fn deliver(&self, news: PeerNews) {
        match news {
            PeerNews::Report(event) => self.wiring.report(self.id, NodeEvent::Peer(event)),
            PeerNews::Node(input) => {
                self.inbox_bytes.add(input.peer_bytes());
                let _ = self.inbox.send(input.into());
            }
            PeerNews::Router(news) if news.is_empty() => {}
            PeerNews::Router(news) => _ = route(&self.wiring.proxy, [RouterInput::FromNode(news)]),
            PeerNews::Removed(refusal) => self.removal.borrow_mut().hear(refusal, self.wiring.clock.now()),
        }
    }

    /// Changes the directory, then starts and ends links as it decides.
    pub(crate) fn change<T>(
        self: &Rc<Self>,
        change: impl FnOnce(&mut Directory, Instant, &mut PeerActions) -> T,
    ) -> T {
        let mut actions = PeerActions::default();
        let changed = change(&mut self.directory.borrow_mut(), self.wiring.clock.now(), &mut actions);
        for change in actions.links {
            match change {
                LinkChange::Start(node, address) => {
                    let line = Rc::new(Line::new(self, node));
                    let work = link::run(Rc::clone(self), node, address, Rc::clone(&line));
                    self.links.borrow_mut().insert(node, (line, self.wiring.executor.spawn(work)));
                }
                LinkChange::End(node) => {
                    let ended = self.links.borrow_mut().remove(&node);
                    if let Some((line, _task)) = ended {
                        let mut news = Vec::new();
                        line.with(|link| link.end(&mut news));
                        news.into_iter().for_each(|news| self.deliver(news));
                    }
                }
            }
        }
        actions.news.into_iter().for_each(|news| self.deliver(news));
        changed
    }

    /// Marks a link as up, connected to the node that `handshake` describes; `false`: the link has
    /// to end.
    pub(crate) fn go_up(&self, line: &Line, handshake: &HandshakeResult) -> bool {
        self.forwarder.borrow_mut().connected(handshake.node, handshake.incarnation);
        let mut news = Vec::new();
        let is_wanted = line.with(|link| link.go_up(handshake, self.wiring.clock.now(), &mut news));
        news.into_iter().for_each(|news| self.deliver(news));
        is_wanted
    }

    pub(crate) fn send(self: &Rc<Self>, message: &Message) {
        if let Some((line, _)) = self.links.borrow().get(&message.to) {
            return line.with(|link| link.push_message(message));
        }
        self.change(|directory, now, actions| directory.wanted(message.to, now, actions));
    }

    pub(crate) fn ask(&self, node: NodeId, requests: Vec<Input>) {
        if node == self.id {
            return self.deliver(PeerNews::Node(HostInput::Requests(requests)));
        }
        let mut forwarder = self.forwarder.borrow_mut();
        let refused = match self.links.borrow().get(&node) {
            Some((line, _)) => line.with(|link| forwarder.forward_all(node, &requests, Some(link))),
            None => forwarder.forward_all(node, &requests, None),
        };
        self.deliver(PeerNews::Router(refused));
    }

    pub(crate) fn answer(&self, node: NodeId, call: CallId, answer: &Answer) {
        if let Some((line, _)) = self.links.borrow().get(&node) {
            line.with(|link| link.push_answer(call, answer));
        }
    }

    /// Ends links that are not needed any more.
    pub(crate) fn tidy(self: &Rc<Self>) {
        let was_used = |line: &Line| line.link.borrow_mut().was_used();
        let was_used = |node| self.links.borrow().get(&node).is_some_and(|(line, _)| was_used(line));
        self.change(|directory, now, actions| directory.tidy(now, was_used, actions));
    }

    /// Whether all links that are up have sent everything that waited.
    pub(crate) fn is_idle(&self) -> bool {
        self.links.borrow().values().all(|(line, _)| line.link.borrow().is_idle())
    }

    /// Ends all connections.
    pub(crate) fn hang_up(&self) {
        self.links.take();
    }
}
