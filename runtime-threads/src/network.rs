//! The connections of a node to the other members of its cluster, and what it knows of them.
//!
//! Each member has a link, a thread that dials it and sends what waits in its outbox. Links come and go with the
//! configuration that is in force.

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use coracle_core::host::{Forwarder, HostInput, RouterInput};
use coracle_core::peer::{
    CallId, KnownMembers, LocalNode, Meeting, Outbox, PeerHappening, PeerRefusal, Standing,
};
use coracle_core::proxy::ProxyInput;
use coracle_core::raft::{Configuration, Message, NodeId};
use coracle_core::{Answer, Input};
use coracle_storage::Happening;

use crate::clock::Clock;
use crate::events::Events;
use crate::inbox::Inbox;
use crate::link::{self, Downed};
use crate::node::NodeInput;
use crate::proxy::ProxyEvent;
use crate::threads::{lock, spawn};

/// The most nodes whose refusals are remembered; others are refused without a word.
const STRANGERS_MAX: usize = 64;

/// A node's view of the others.
pub(crate) struct Network {
    /// What this node says of itself when it meets others.
    pub(crate) local: Mutex<LocalNode>,
    /// Where this node's peers reach it.
    pub(crate) address: Mutex<Option<Box<str>>>,
    /// Which run of this node this is: an answer to another run is none.
    pub(crate) boot: u64,
    pub(crate) forwarder: Mutex<Forwarder>,
    /// Where to dial instead of where members say that they are.
    pub(crate) dial_overrides: BTreeMap<NodeId, Box<str>>,
    pub(crate) inbox: Inbox,
    pub(crate) proxy: Sender<ProxyEvent>,
    pub(crate) events: Events,
    pub(crate) clock: Clock,
    links: Mutex<BTreeMap<NodeId, Link>>,
    /// Where those who dialled say that they are: for a node that does not know the members of today yet, and for a leader
    /// that was removed and needs answers until that is committed.
    heard: Mutex<BTreeMap<NodeId, Box<str>>>,
    /// Why those who dialled were refused last.
    strangers: Mutex<BTreeMap<NodeId, PeerRefusal>>,
    open: Mutex<Open>,
    hung_up: Condvar,
}

/// The near end of a link. Its thread ends soon after this was dropped.
struct Link {
    address: Box<str>,
    line: Arc<Line>,
    _downed: Downed,
}

/// What ends when a node hangs up.
struct Open {
    /// Every thread holds a clone until it is done. `None`: the node has hung up.
    threads_end: Option<Sender<()>>,
    streams: Vec<Weak<TcpStream>>,
}

/// What a link's thread shares with those who send.
#[derive(Debug, Default)]
pub(crate) struct Line {
    state: Mutex<LineState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LineState {
    outbox: Outbox,
    /// The connection. Without one nothing but answers is kept for later: it would be too old.
    stream: Option<Arc<TcpStream>>,
    /// How the other end ended the connection.
    broken: Option<io::Error>,
    /// Whether what was taken last may still be on its way.
    is_sending: bool,
    /// Whether the link has to end.
    is_over: bool,
}

impl Line {
    /// Does something with what waits, if there is a connection.
    pub(crate) fn push<T>(&self, push: impl FnOnce(&mut Outbox) -> T) -> Option<T> {
        let mut state = lock(&self.state);
        state.stream.as_ref()?;
        let pushed = push(&mut state.outbox);
        drop(state);
        self.changed.notify_all();
        Some(pushed)
    }

    /// Keeps an answer until there is a connection.
    pub(crate) fn push_answer(&self, call: CallId, answer: &Answer) {
        lock(&self.state).outbox.push_answer(call, answer);
        self.changed.notify_all();
    }

    /// Whether everything was sent that waited, if there is a connection.
    pub(crate) fn is_idle(&self) -> bool {
        let state = lock(&self.state);
        state.stream.is_none() || (state.outbox.is_empty() && !state.is_sending)
    }

    /// There is a connection; `false`: it is not wanted any more. `tell` tells of it, before anybody can tell of its end.
    pub(crate) fn go_up(&self, stream: &Arc<TcpStream>, tell: impl FnOnce()) -> bool {
        let mut state = lock(&self.state);
        if state.is_over {
            return false;
        }
        state.stream = Some(Arc::clone(stream));
        state.broken = None;
        tell();
        true
    }

    /// There is none any more; `tell` tells of it, if there was one.
    pub(crate) fn go_down(&self, tell: impl FnOnce()) {
        let mut state = lock(&self.state);
        let Some(stream) = state.stream.take() else { return };
        let _ = stream.shutdown(Shutdown::Both);
        state.outbox.disconnect();
        state.is_sending = false;
        tell();
    }

    /// The link has to end.
    pub(crate) fn end(&self) {
        lock(&self.state).is_over = true;
        self.changed.notify_all();
    }

    /// The other end has ended the connection.
    pub(crate) fn breaks(&self, stream: &TcpStream, error: io::Error) {
        lock(&self.state).broken = Some(error);
        self.changed.notify_all();
        // Somebody may be writing.
        let _ = stream.shutdown(Shutdown::Both);
    }

    /// Waits until something is in the outbox, and takes it.
    pub(crate) fn take(&self, bytes: &mut Vec<u8>, bytes_max: usize) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.is_sending = false;
        let has_nothing_to_do =
            |state: &mut LineState| state.outbox.is_empty() && state.broken.is_none() && !state.is_over;
        let mut state =
            self.changed.wait_while(state, has_nothing_to_do).unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = state.broken.take() {
            return Err(error);
        }
        if state.is_over {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "the link is not needed any more"));
        }
        bytes.clear();
        state.outbox.take(bytes, bytes_max);
        state.is_sending = true;
        Ok(())
    }

    /// How the other end has ended the connection, if it has.
    pub(crate) fn broken(&self) -> Option<io::Error> {
        lock(&self.state).broken.take()
    }

    pub(crate) fn is_over(&self) -> bool {
        lock(&self.state).is_over
    }

    /// Rests for `pause`; `false`: the link has to end.
    pub(crate) fn rest(&self, pause: Duration) -> bool {
        let goes_on = |state: &mut LineState| !state.is_over;
        let rested = self.changed.wait_timeout_while(lock(&self.state), pause, goes_on);
        !rested.unwrap_or_else(PoisonError::into_inner).0.is_over
    }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Network {
    #[expect(clippy::too_many_arguments, reason = "each of them is one thing that a connection needs")]
    pub(crate) fn new(
        local: LocalNode,
        address: Option<Box<str>>,
        dial_overrides: BTreeMap<NodeId, Box<str>>,
        inbox: Inbox,
        proxy: Sender<ProxyEvent>,
        events: Events,
        clock: Clock,
        threads_end: Sender<()>,
    ) -> Self {
        Self {
            boot: local.boot,
            forwarder: Mutex::new(Forwarder::new(local.boot)),
            local: Mutex::new(local),
            address: Mutex::new(address),
            dial_overrides,
            inbox,
            proxy,
            events,
            clock,
            links: Mutex::default(),
            heard: Mutex::default(),
            strangers: Mutex::default(),
            open: Mutex::new(Open { threads_end: Some(threads_end), streams: Vec::new() }),
            hung_up: Condvar::new(),
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        lock(&self.local).id
    }

    /// Who dialled is refused: told once per reason, however often it dials.
    pub(crate) fn tell_stranger(&self, node: NodeId, refusal: &PeerRefusal) {
        let mut strangers = lock(&self.strangers);
        let is_known = strangers.get(&node) == Some(refusal);
        if !is_known && (strangers.len() < STRANGERS_MAX || strangers.contains_key(&node)) {
            strangers.insert(node, refusal.clone());
            self.tell(PeerHappening::Stranger(node, refusal.clone()));
        }
    }

    pub(crate) fn tell(&self, happening: PeerHappening) {
        self.events.tell(self.id(), Happening::Peer(happening));
    }

    pub(crate) fn send(&self, message: &Message) {
        self.with_line(message.to, |outbox| outbox.push_message(message));
    }

    pub(crate) fn ask(&self, node: NodeId, requests: Vec<Input>) {
        if node == self.id() {
            return self.inbox.send(NodeInput::Host(HostInput::Requests(requests)));
        }
        let mut refused = Vec::new();
        let mut forwarder = lock(&self.forwarder);
        for input in &requests {
            let forward = |outbox: &mut Outbox| forwarder.forward(node, input, Some(outbox));
            let answer = self.with_line(node, forward);
            refused.extend(answer.unwrap_or_else(|| forwarder.forward(node, input, None)));
        }
        drop(forwarder);
        if !refused.is_empty() {
            let _ = self.proxy.send(ProxyEvent::Router(RouterInput::FromNode(refused)));
        }
    }

    pub(crate) fn answer(&self, node: NodeId, call: CallId, answer: &Answer) {
        // An answer waits for the next connection: who asked was there a moment ago.
        if let Some(link) = lock(&self.links).get(&node) {
            link.line.push_answer(call, answer);
        }
    }

    /// Does something with what waits for a node, if there is a connection to it.
    fn with_line<T>(&self, node: NodeId, push: impl FnOnce(&mut Outbox) -> T) -> Option<T> {
        let line = Arc::clone(&lock(&self.links).get(&node)?.line);
        line.push(push)
    }

    /// Other members, or more is known of them.
    pub(crate) fn follow(self: &Arc<Self>, known: &KnownMembers) {
        lock(&self.local).follow(known);
        self.reach(&known.configuration);
    }

    /// The configuration that this node found on its disk, or founds its cluster with, is in force.
    pub(crate) fn follow_known(self: &Arc<Self>) {
        if let Some(configuration) = self.known() {
            self.reach(&configuration);
        }
    }

    fn reach(self: &Arc<Self>, configuration: &Configuration) {
        let nodes = ProxyInput::Nodes(configuration.members());
        let _ = self.proxy.send(ProxyEvent::Router(RouterInput::FromNode(vec![nodes])));
        self.relink(configuration);
    }

    /// The latest configuration that this node knows.
    fn known(&self) -> Option<Configuration> {
        match &lock(&self.local).standing {
            Standing::Member(_, configuration) => Some(configuration.clone()),
            Standing::Founding(_) | Standing::Joining => None,
        }
    }

    /// Who dialled says where it is.
    pub(crate) fn hear(self: &Arc<Self>, meeting: &Meeting) {
        let Some(address) = &meeting.address else { return };
        let is_news = lock(&self.heard).insert(meeting.node, address.clone()).as_ref() != Some(address);
        let Some(configuration) = self.known() else { return };
        if is_news && !configuration.contains(meeting.node) {
            self.relink(&configuration);
        }
    }

    /// Somebody told where the members are.
    pub(crate) fn remember(&self, configuration: &Configuration) {
        for (node, member) in configuration.roster().iter() {
            lock(&self.heard).insert(node, member.address.clone());
        }
    }

    /// Starts and ends links, so that there is one to each member, and to those who said that they are of the cluster.
    fn relink(self: &Arc<Self>, configuration: &Configuration) {
        let own = self.id();
        let mut links = lock(&self.links);
        let mut wanted = lock(&self.heard).clone();
        for (node, member) in configuration.roster().iter() {
            wanted.insert(node, member.address.clone());
        }
        wanted.remove(&own);
        links.retain(|node, link| wanted.get(node) == Some(&link.address));
        for (node, address) in wanted {
            if !links.contains_key(&node)
                && let Some(end) = self.threads_end()
            {
                let line = Arc::new(Line::default());
                let (network, dialled, its_line) = (Arc::clone(self), address.clone(), Arc::clone(&line));
                spawn(format!("link {own} to {node}"), move || {
                    link::run(&network, node, &dialled, &its_line);
                    drop(end);
                });
                let downed = Downed { network: Arc::downgrade(self), node, line: Arc::clone(&line) };
                links.insert(node, Link { address, line, _downed: downed });
            }
        }
    }

    /// Whether everything was sent that waited for a node to which there is a connection.
    pub(crate) fn is_idle(&self) -> bool {
        lock(&self.links).values().all(|link| link.line.is_idle())
    }

    /// What each thread of this node's connections holds until it is done; `None`: it is not to begin.
    pub(crate) fn threads_end(&self) -> Option<Sender<()>> {
        lock(&self.open).threads_end.clone()
    }

    /// Whether this node has hung up.
    pub(crate) fn is_over(&self) -> bool {
        lock(&self.open).threads_end.is_none()
    }

    /// Rests for `pause`, unless this node hangs up.
    pub(crate) fn rest(&self, pause: Duration) {
        let is_open = |open: &mut Open| open.threads_end.is_some();
        let rested = self.hung_up.wait_timeout_while(lock(&self.open), pause, is_open);
        drop(rested.unwrap_or_else(PoisonError::into_inner));
    }

    /// Sees to it that `stream` ends when this node hangs up.
    ///
    /// # Errors
    ///
    /// When it has.
    pub(crate) fn hold(&self, stream: &Arc<TcpStream>) -> io::Result<()> {
        let mut open = lock(&self.open);
        if open.threads_end.is_none() {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "this node stops"));
        }
        open.streams.retain(|stream| stream.strong_count() > 0);
        open.streams.push(Arc::downgrade(stream));
        Ok(())
    }

    /// Ends all connections, and by and by their threads: those that wait for a name or a connection take a moment.
    pub(crate) fn hang_up(&self) {
        let mut open = lock(&self.open);
        open.threads_end = None;
        for stream in open.streams.drain(..).filter_map(|stream| stream.upgrade()) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(open);
        self.hung_up.notify_all();
        lock(&self.links).clear();
    }
}
