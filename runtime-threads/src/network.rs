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
//! Lock order: the peer listener's connections, forwarder or directory, links, line. No thread
//! blocks on anything else while it holds one of these locks, except the condition variable of a
//! line.

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use coracle_core::host::{
    DialError, Directory, Forwarder, HostInput, Link, LinkChange, PeerActions, PeerNews, Removal, RouterInput,
};
use coracle_core::peer::{CallId, HandshakeRefusal, HandshakeResult};
use coracle_core::raft::{Message, NodeId};
use coracle_core::{Answer, Input, Instant};
use coracle_storage::NodeEvent;

use crate::clock::Clock;
use crate::inbox::Inbox;
use crate::link;
use crate::threads::{lock, try_spawn};
use crate::wiring::{Wiring, route};

/// A node's connections, and the channels from them to the node, its router and its events.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) id: NodeId,
    pub(crate) wiring: Wiring,
    pub(crate) directory: Mutex<Directory>,
    election_timeout_min: Duration,
    removal: Mutex<Removal>,
    forwarder: Mutex<Forwarder>,
    inbox: Inbox,
    links: Mutex<BTreeMap<NodeId, Arc<Line>>>,
    open: Mutex<Open>,
    hung_up: Condvar,
}

/// The threads and streams that end when the node shuts its network down.
#[derive(Debug)]
struct Open {
    /// Every thread holds a clone until it ends. `None`: the network is shut down.
    threads_end: Option<Sender<()>>,
    streams: Vec<Weak<TcpStream>>,
}

/// A link, shared between its thread and the senders of messages.
#[derive(Debug)]
pub(crate) struct Line {
    state: Mutex<LineState>,
    changed: Condvar,
}

#[derive(Debug)]
struct LineState {
    link: Link,
    /// The connection, while the link is up.
    stream: Option<Arc<TcpStream>>,
    /// The error with which the peer ended the connection.
    broken: Option<io::Error>,
}

impl Line {
    fn new(network: &Network, node: NodeId) -> Self {
        let link = Link::new(network.id, node, fastrand::u64(..), network.election_timeout_min)
            .with_memory(&network.wiring.memory);
        Self { state: Mutex::new(LineState { link, stream: None, broken: None }), changed: Condvar::new() }
    }

    /// Changes the link and wakes its thread, which may have more to send then.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Link) -> T) -> T {
        let changed = change(&mut lock(&self.state).link);
        self.changed.notify_all();
        changed
    }

    /// Marks the link as up; `false`: it has to end. The state stays locked until that is reported,
    /// so that no thread can report its end first.
    fn go_up(&self, network: &Network, handshake: &HandshakeResult, stream: &Arc<TcpStream>) -> bool {
        let mut state = lock(&self.state);
        let mut news = Vec::new();
        let is_wanted = state.link.go_up(handshake, network.wiring.clock.now(), &mut news);
        if is_wanted {
            state.stream = Some(Arc::clone(stream));
            state.broken = None;
        }
        news.into_iter().for_each(|news| network.deliver(news));
        is_wanted
    }

    /// Marks the link as down, or a dial as failed. Returns the time to back off, or `None` when
    /// the link has to end.
    pub(crate) fn failed(&self, network: &Network, failure: DialError) -> Option<Duration> {
        let mut state = lock(&self.state);
        if let Some(stream) = state.stream.take() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        if state.link.is_over() {
            return None;
        }
        let mut news = Vec::new();
        let pause = state.link.failed(failure, &mut news);
        news.into_iter().for_each(|news| network.deliver(news));
        Some(pause)
    }

    /// Ends a link that is not needed any more. That is reported at once and not when its thread
    /// ends, because by then another link to the same node may be up.
    fn end(&self, network: &Network) {
        let mut state = lock(&self.state);
        let mut news = Vec::new();
        state.link.end(&mut news);
        if let Some(stream) = state.stream.take() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        news.into_iter().for_each(|news| network.deliver(news));
        drop(state);
        self.changed.notify_all();
    }

    /// Records that the peer has ended the connection.
    pub(crate) fn breaks(&self, stream: &TcpStream, error: io::Error) {
        lock(&self.state).broken = Some(error);
        self.changed.notify_all();
        // Another thread may be writing.
        let _ = stream.shutdown(Shutdown::Both);
    }

    /// Marks the bytes taken before as sent, then waits until there is something to send and takes
    /// it.
    pub(crate) fn take(&self, clock: Clock, bytes: &mut Vec<u8>) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.link.sent();
        loop {
            let asked = state.link.ask(clock.now());
            if let Some(error) = state.broken.take() {
                return Err(error);
            }
            if state.link.is_over() {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "the link is not needed any more"));
            }
            asked?;
            if state.link.has_work() {
                break;
            }
            let pause = clock.until(state.link.ping_at());
            state = self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
        bytes.clear();
        state.link.drain(clock.now(), bytes);
        Ok(())
    }

    /// The error with which the peer has ended the connection, if it has.
    pub(crate) fn broken(&self) -> Option<io::Error> {
        lock(&self.state).broken.take()
    }

    /// Backs off for `pause`; `false`: the link has to end.
    pub(crate) fn rest(&self, pause: Duration) -> bool {
        let goes_on = |state: &mut LineState| !state.link.is_over();
        let rested = self.changed.wait_timeout_while(lock(&self.state), pause, goes_on);
        !rested.unwrap_or_else(PoisonError::into_inner).0.link.is_over()
    }
}

impl Network {
    pub(crate) fn new(
        wiring: Wiring,
        directory: Directory,
        inbox: Inbox,
        election_timeout_min: Duration,
        threads_end: Sender<()>,
    ) -> Self {
        let (id, forwarder) = (directory.local().id, Forwarder::new(directory.local().boot));
        Self {
            id,
            wiring,
            directory: Mutex::new(directory),
            election_timeout_min,
            removal: Mutex::default(),
            forwarder: Mutex::new(forwarder),
            inbox,
            links: Mutex::default(),
            open: Mutex::new(Open { threads_end: Some(threads_end), streams: Vec::new() }),
            hung_up: Condvar::new(),
        }
    }

    pub(crate) fn removal(&self) -> Option<HandshakeRefusal> {
        lock(&self.removal).is_due(self.wiring.clock.now())
    }

    pub(crate) fn inbox_is_full(&self) -> bool {
        self.inbox.is_full()
    }

    /// Delivers news of a connection to its receiver: events, node or router.
    pub(crate) fn deliver(&self, news: PeerNews) {
        match news {
            PeerNews::Report(event) => self.wiring.report(self.id, NodeEvent::Peer(event)),
            PeerNews::Node(input) => self.inbox.send(input.into()),
            PeerNews::Router(news) if news.is_empty() => {}
            PeerNews::Router(news) => _ = route(&self.wiring.proxy, [RouterInput::FromNode(news)]),
            PeerNews::Removed(refusal) => lock(&self.removal).hear(refusal, self.wiring.clock.now()),
        }
    }

    /// Marks a link as up, connected to the node that `handshake` describes; `false`: the link has
    /// to end.
    pub(crate) fn go_up(&self, line: &Line, handshake: &HandshakeResult, stream: &Arc<TcpStream>) -> bool {
        lock(&self.forwarder).connected(handshake.node, handshake.incarnation);
        line.go_up(self, handshake, stream)
    }

    fn line(&self, node: NodeId) -> Option<Arc<Line>> {
        lock(&self.links).get(&node).map(Arc::clone)
    }

    pub(crate) fn send(self: &Arc<Self>, message: &Message) {
        if let Some(line) = self.line(message.to) {
            return line.with(|link| link.push_message(message));
        }
        self.change(|directory, now, actions| directory.wanted(message.to, now, actions));
    }

    pub(crate) fn ask(&self, node: NodeId, requests: Vec<Input>) {
        if node == self.id {
            return self.deliver(PeerNews::Node(HostInput::Requests(requests)));
        }
        let mut forwarder = lock(&self.forwarder);
        let refused = match self.line(node) {
            Some(line) => line.with(|link| forwarder.forward_all(node, &requests, Some(link))),
            None => forwarder.forward_all(node, &requests, None),
        };
        self.deliver(PeerNews::Router(refused));
    }

    pub(crate) fn answer(&self, node: NodeId, call: CallId, answer: &Answer) {
        if let Some(line) = self.line(node) {
            line.with(|link| link.push_answer(call, answer));
        }
    }

    /// Ends links that are not needed any more.
    pub(crate) fn tidy(self: &Arc<Self>) {
        let was_used = |node| self.line(node).is_some_and(|line| line.with(Link::was_used));
        self.change(|directory, now, actions| directory.tidy(now, was_used, actions));
    }

    /// Changes the directory, then starts and ends links as it decides. The directory stays locked
    /// meanwhile, so that changes are carried out in order.
    pub(crate) fn change<T>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Directory, Instant, &mut PeerActions) -> T,
    ) -> T {
        let mut directory = lock(&self.directory);
        let mut actions = PeerActions::default();
        let changed = change(&mut directory, self.wiring.clock.now(), &mut actions);
        for change in std::mem::take(&mut actions.links) {
            match change {
                LinkChange::Start(node, address) => {
                    if let Err(error) = self.start_link(node, address) {
                        directory.not_started(node, &error, &mut actions);
                    }
                }
                LinkChange::End(node) => {
                    let ended = lock(&self.links).remove(&node);
                    ended.inspect(|line| line.end(self));
                }
            }
        }
        actions.news.into_iter().for_each(|news| self.deliver(news));
        changed
    }

    fn start_link(self: &Arc<Self>, node: NodeId, address: Box<str>) -> io::Result<()> {
        let Some(end) = self.threads_end() else { return Ok(()) };
        let line = Arc::new(Line::new(self, node));
        let (network, its_line) = (Arc::clone(self), Arc::clone(&line));
        lock(&self.links).insert(node, line);
        let started = try_spawn(format!("link {} to {node}", self.id), move || {
            link::run(&network, node, &address, &its_line);
            drop(end);
        });
        if started.is_err() {
            lock(&self.links).remove(&node);
        }
        started.map(drop)
    }

    /// Whether all links that are up have sent everything that waited.
    pub(crate) fn is_idle(&self) -> bool {
        lock(&self.links).values().all(|line| lock(&line.state).link.is_idle())
    }

    /// The token that each connection thread of this node holds until it ends; `None`: the network
    /// is shut down, and no thread may start.
    pub(crate) fn threads_end(&self) -> Option<Sender<()>> {
        lock(&self.open).threads_end.clone()
    }

    pub(crate) fn is_over(&self) -> bool {
        lock(&self.open).threads_end.is_none()
    }

    /// Waits for `pause`, or until the network is shut down.
    pub(crate) fn rest(&self, pause: Duration) {
        let is_open = |open: &mut Open| open.threads_end.is_some();
        let rested = self.hung_up.wait_timeout_while(lock(&self.open), pause, is_open);
        drop(rested.unwrap_or_else(PoisonError::into_inner));
    }

    /// Registers `stream`, so that it ends when the network is shut down; an error if it is
    /// already.
    pub(crate) fn hold(&self, stream: &Arc<TcpStream>) -> io::Result<()> {
        let mut open = lock(&self.open);
        if open.threads_end.is_none() {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "this node is shutting down"));
        }
        open.streams.retain(|stream| stream.strong_count() > 0);
        open.streams.push(Arc::downgrade(stream));
        Ok(())
    }

    /// Shuts all connections down, and so ends their threads. Threads that wait for a name look-up
    /// or a connection take a moment longer.
    pub(crate) fn hang_up(&self) {
        let mut open = lock(&self.open);
        open.threads_end = None;
        for stream in open.streams.drain(..).filter_map(|stream| stream.upgrade()) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(open);
        self.hung_up.notify_all();
        let links = std::mem::take(&mut *lock(&self.links));
        links.values().for_each(|line| line.end(self));
    }
}
