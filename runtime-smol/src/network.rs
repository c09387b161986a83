//! The connections of a node to the other members of its cluster, and what it knows of them.
//!
//! Each member has a link, a task that dials it and sends what waits in its outbox. Links come and go with the
//! configuration that is in force.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use coracle_core::host::{Forwarder, HostInput, RouterInput};
use coracle_core::peer::{
    CallId, KnownMembers, LocalNode, Meeting, Outbox, PeerHappening, PeerRefusal, Standing,
};
use coracle_core::proxy::ProxyInput;
use coracle_core::raft::{Configuration, Message, NodeId};
use coracle_core::{Answer, Input};
use coracle_storage::Happening;
use smol::{LocalExecutor, Task};

use crate::events::Events;
use crate::link;
use crate::mailbox::Sender;
use crate::node::NodeInput;
use crate::proxy::ProxyEvent;

/// A node's view of the others.
pub(crate) struct Network {
    pub(crate) executor: Rc<LocalExecutor<'static>>,
    /// What this node says of itself when it meets others.
    pub(crate) local: RefCell<LocalNode>,
    /// Where this node's peers reach it.
    pub(crate) address: RefCell<Option<Box<str>>>,
    /// Which run of this node this is: an answer to another run is none.
    pub(crate) boot: u64,
    pub(crate) forwarder: RefCell<Forwarder>,
    /// Where to dial instead of where members say that they are.
    pub(crate) dial_overrides: BTreeMap<NodeId, Box<str>>,
    pub(crate) inbox: Sender<NodeInput>,
    pub(crate) proxy: Sender<ProxyEvent>,
    pub(crate) events: Events,
    links: RefCell<BTreeMap<NodeId, Link>>,
    /// Where those who dialled say that they are: for a node that does not know the members of today yet, and for a leader
    /// that was removed and needs answers until that is committed.
    heard: RefCell<BTreeMap<NodeId, Box<str>>>,
    /// Why those who dialled were refused last.
    strangers: RefCell<BTreeMap<NodeId, PeerRefusal>>,
}

/// The most nodes whose refusals are remembered; others are refused without a word.
const STRANGERS_MAX: usize = 64;

/// The near end of a link.
struct Link {
    address: Box<str>,
    line: Rc<Line>,
    _task: Task<()>,
}

/// What a link's task shares with those who send.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) outbox: RefCell<Outbox>,
    /// Whether there is a connection. Without one nothing but answers is kept for later: it would be too old.
    pub(crate) is_up: Cell<bool>,
    /// Whether what was taken last may still be on its way.
    pub(crate) is_sending: Cell<bool>,
    work: (async_channel::Sender<()>, async_channel::Receiver<()>),
}

impl Line {
    fn new() -> Self {
        Self {
            outbox: RefCell::default(),
            is_up: Cell::new(false),
            is_sending: Cell::new(false),
            work: async_channel::bounded(1),
        }
    }

    fn wake(&self) {
        // It is awake already when there is no room.
        let _ = self.work.0.try_send(());
    }

    /// Waits until something is in the outbox.
    pub(crate) async fn has_work(&self) {
        while self.outbox.borrow().is_empty() {
            // Both ends are here, so it never closes.
            let _ = self.work.1.recv().await;
        }
    }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Network {
    pub(crate) fn new(
        executor: Rc<LocalExecutor<'static>>,
        local: LocalNode,
        address: Option<Box<str>>,
        dial_overrides: BTreeMap<NodeId, Box<str>>,
        inbox: Sender<NodeInput>,
        proxy: Sender<ProxyEvent>,
        events: Events,
    ) -> Self {
        Self {
            executor,
            boot: local.boot,
            forwarder: RefCell::new(Forwarder::new(local.boot)),
            local: RefCell::new(local),
            address: RefCell::new(address),
            dial_overrides,
            inbox,
            proxy,
            events,
            links: RefCell::default(),
            heard: RefCell::default(),
            strangers: RefCell::default(),
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.local.borrow().id
    }

    /// Who dialled is refused: told once per reason, however often it dials.
    pub(crate) fn tell_stranger(&self, node: NodeId, refusal: &PeerRefusal) {
        let mut strangers = self.strangers.borrow_mut();
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
            let _ = self.inbox.send(NodeInput::Host(HostInput::Requests(requests)));
            return;
        }
        let mut refused = Vec::new();
        let mut forwarder = self.forwarder.borrow_mut();
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
        if let Some(link) = self.links.borrow().get(&node) {
            link.line.outbox.borrow_mut().push_answer(call, answer);
            link.line.wake();
        }
    }

    /// Does something with what waits for a node, if there is a connection to it.
    fn with_line<T>(&self, node: NodeId, push: impl FnOnce(&mut Outbox) -> T) -> Option<T> {
        let links = self.links.borrow();
        let line = &links.get(&node).filter(|link| link.line.is_up.get())?.line;
        let pushed = push(&mut line.outbox.borrow_mut());
        line.wake();
        Some(pushed)
    }

    /// Other members, or more is known of them.
    pub(crate) fn follow(self: &Rc<Self>, known: &KnownMembers) {
        self.local.borrow_mut().follow(known);
        self.reach(&known.configuration);
    }

    /// The configuration that this node found on its disk, or founds its cluster with, is in force.
    pub(crate) fn follow_known(self: &Rc<Self>) {
        let known = match &self.local.borrow().standing {
            Standing::Member(_, configuration) => Some(configuration.clone()),
            Standing::Founding(_) | Standing::Joining => None,
        };
        if let Some(configuration) = known {
            self.reach(&configuration);
        }
    }

    fn reach(self: &Rc<Self>, configuration: &Configuration) {
        let nodes = ProxyInput::Nodes(configuration.members());
        let _ = self.proxy.send(ProxyEvent::Router(RouterInput::FromNode(vec![nodes])));
        self.relink(configuration);
    }

    /// Who dialled says where it is.
    pub(crate) fn hear(self: &Rc<Self>, meeting: &Meeting) {
        let Some(address) = &meeting.address else { return };
        let is_news = self.heard.borrow_mut().insert(meeting.node, address.clone()).as_ref() != Some(address);
        let Standing::Member(_, configuration) = self.local.borrow().standing.clone() else { return };
        if is_news && !configuration.contains(meeting.node) {
            self.relink(&configuration);
        }
    }

    /// Somebody told where the members are.
    pub(crate) fn remember(&self, configuration: &Configuration) {
        for (node, member) in configuration.roster().iter() {
            self.heard.borrow_mut().insert(node, member.address.clone());
        }
    }

    /// Starts and ends links, so that there is one to each member, and to those who said that they are of the cluster.
    fn relink(self: &Rc<Self>, configuration: &Configuration) {
        let mut wanted = self.heard.borrow().clone();
        for (node, member) in configuration.roster().iter() {
            wanted.insert(node, member.address.clone());
        }
        wanted.remove(&self.id());
        let mut links = self.links.borrow_mut();
        links.retain(|node, link| wanted.get(node) == Some(&link.address));
        for (node, address) in wanted {
            links.entry(node).or_insert_with(|| {
                let line = Rc::new(Line::new());
                let work = link::run(Rc::clone(self), node, address.clone(), Rc::clone(&line));
                Link { address, line, _task: self.executor.spawn(work) }
            });
        }
    }

    /// Whether everything was sent that waited for a node to which there is a connection.
    pub(crate) fn is_idle(&self) -> bool {
        let has_sent = |line: &Line| !line.is_sending.get() && line.outbox.borrow().is_empty();
        self.links.borrow().values().all(|link| !link.line.is_up.get() || has_sent(&link.line))
    }

    /// Ends all connections.
    pub(crate) fn hang_up(&self) {
        self.links.borrow_mut().clear();
    }
}
