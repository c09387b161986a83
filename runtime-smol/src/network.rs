//! The connections of a node to the others: carries out what its [`Directory`] and its [`Link`]s decide.
//!
//! Each link is a task that dials one node and sends what waits for it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use coracle_core::host::{
    Directory, Forwarder, Greeting, HostInput, Link, LinkChange, LinkNews, Removal, RouterInput,
    inbox_is_full,
};
use coracle_core::peer::{CallId, KnownMembers, Meeting, PeerEvent, PeerRefusal};
use coracle_core::proxy::ProxyInput;
use coracle_core::raft::{Message, NodeId};
use coracle_core::{Answer, Input};
use coracle_storage::NodeEvent;
use coracle_storage::host::NodeInput;
use smol::{LocalExecutor, Task};

use crate::clock::Clock;
use crate::events::Events;
use crate::inputs::ProxyEvent;
use crate::link;
use crate::mailbox::Sender;

/// A node's connections, and the ways from them to the node, its router and its events.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) executor: Rc<LocalExecutor<'static>>,
    pub(crate) id: NodeId,
    /// Which run of this node this is.
    pub(crate) boot: u64,
    pub(crate) directory: RefCell<Directory>,
    pub(crate) clock: Clock,
    election_timeout_min: Duration,
    removal: RefCell<Removal>,
    forwarder: RefCell<Forwarder>,
    inbox: Sender<NodeInput>,
    /// Bytes of peers' frames in the inbox.
    inbox_bytes: Cell<usize>,
    proxy: Sender<ProxyEvent>,
    events: Events,
    links: RefCell<BTreeMap<NodeId, DialTask>>,
}

/// A link's near end, and the task that dials. The task ends when this is dropped.
type DialTask = (Rc<Line>, Task<()>);

/// What a link's task shares with those who send.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) link: RefCell<Link>,
    work: (async_channel::Sender<()>, async_channel::Receiver<()>),
}

impl Line {
    fn new(own: NodeId, node: NodeId, election_timeout_min: Duration) -> Self {
        let link = Link::new(own, node, fastrand::u64(..), election_timeout_min);
        Self { link: RefCell::new(link), work: async_channel::bounded(1) }
    }

    /// Does something with the link, which may have more to send then.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Link) -> T) -> T {
        let changed = change(&mut self.link.borrow_mut());
        // It is awake already when there is no room.
        let _ = self.work.0.try_send(());
        changed
    }

    /// Waits until there is something to send.
    pub(crate) async fn has_work(&self) {
        while !self.link.borrow().has_work() {
            // Both ends are here, so it never closes.
            let _ = self.work.1.recv().await;
        }
    }
}

impl Network {
    pub(crate) fn new(
        executor: Rc<LocalExecutor<'static>>,
        directory: Directory,
        inbox: Sender<NodeInput>,
        proxy: Sender<ProxyEvent>,
        events: Events,
        clock: Clock,
        election_timeout_min: Duration,
    ) -> Self {
        let (id, boot) = (directory.local().id, directory.local().boot);
        Self {
            executor,
            id,
            boot,
            directory: RefCell::new(directory),
            clock,
            election_timeout_min,
            removal: RefCell::default(),
            forwarder: RefCell::new(Forwarder::new(boot)),
            inbox,
            inbox_bytes: Cell::new(0),
            proxy,
            events,
            links: RefCell::default(),
        }
    }

    pub(crate) fn report(&self, event: PeerEvent) {
        self.events.report(self.id, NodeEvent::Peer(event));
    }

    /// This node was removed from its cluster: by its own log, or because another node says so.
    pub(crate) fn removed(&self, refusal: PeerRefusal) {
        self.removal.borrow_mut().hear(refusal, self.clock.now());
    }

    pub(crate) fn removal(&self) -> Option<PeerRefusal> {
        self.removal.borrow().is_due(self.clock.now())
    }

    /// Hands something to the router.
    pub(crate) fn route(&self, news: Vec<ProxyInput>) {
        if !news.is_empty() {
            let _ = self.proxy.send(ProxyEvent::Router(RouterInput::FromNode(news)));
        }
    }

    /// Hands something to the node.
    pub(crate) fn give(&self, input: HostInput) {
        self.inbox_bytes.set(self.inbox_bytes.get() + input.peer_bytes());
        let _ = self.inbox.send(input.into());
    }

    /// The node has taken an input with so many bytes of peers' frames out of its inbox.
    pub(crate) fn taken(&self, peer_bytes: usize) {
        self.inbox_bytes.set(self.inbox_bytes.get() - peer_bytes);
    }

    pub(crate) fn inbox_is_full(&self) -> bool {
        inbox_is_full(self.inbox.len(), self.inbox_bytes.get())
    }

    /// Answers the line of a node that dials.
    pub(crate) fn greet(self: &Rc<Self>, line: &[u8]) -> Greeting {
        let mut greeting = self.directory.borrow_mut().greet(line, self.clock.now());
        self.carry_out(std::mem::take(&mut greeting.changes));
        greeting
    }

    /// Carries the news of a link to their places.
    pub(crate) fn deliver(&self, news: Vec<LinkNews>) {
        for news in news {
            match news {
                LinkNews::Report(event) => self.report(event),
                LinkNews::Node(input) => self.give(HostInput::Core(input)),
                LinkNews::Router(input) => self.route(vec![input]),
                LinkNews::Removed(refusal) => self.removed(refusal),
            }
        }
    }

    /// There is a connection to the node that `meeting` describes; `false`: its link has to end.
    pub(crate) fn go_up(&self, line: &Line, meeting: &Meeting) -> bool {
        self.forwarder.borrow_mut().connected(meeting.node, meeting.incarnation);
        let mut news = Vec::new();
        let is_wanted = line.with(|link| link.go_up(meeting, self.clock.now(), &mut news));
        self.deliver(news);
        is_wanted
    }

    pub(crate) fn send(self: &Rc<Self>, message: &Message) {
        if let Some((line, _)) = self.links.borrow().get(&message.to) {
            return line.with(|link| link.push_message(message));
        }
        let mut changes = Vec::new();
        self.directory.borrow_mut().wanted(message.to, self.clock.now(), &mut changes);
        self.carry_out(changes);
    }

    pub(crate) fn ask(&self, node: NodeId, requests: Vec<Input>) {
        if node == self.id {
            return self.give(HostInput::Requests(requests));
        }
        let links = self.links.borrow();
        let mut forwarder = self.forwarder.borrow_mut();
        let mut forward = |link: Option<&mut Link>| {
            let mut outbox = link.and_then(Link::requests);
            requests
                .iter()
                .filter_map(|input| forwarder.forward(node, input, outbox.as_deref_mut()))
                .collect()
        };
        let refused = match links.get(&node) {
            Some((line, _)) => line.with(|link| forward(Some(link))),
            None => forward(None),
        };
        self.route(refused);
    }

    pub(crate) fn answer(&self, node: NodeId, call: CallId, answer: &Answer) {
        if let Some((line, _)) = self.links.borrow().get(&node) {
            line.with(|link| link.push_answer(call, answer));
        }
    }

    /// Other members, or more is known of them.
    pub(crate) fn follow(self: &Rc<Self>, known: &KnownMembers) {
        let mut changes = Vec::new();
        let nodes = self.directory.borrow_mut().follow(known, self.clock.now(), &mut changes);
        self.route(nodes.into_iter().collect());
        self.carry_out(changes);
    }

    /// Connects to the members that are known at the start.
    pub(crate) fn reach(self: &Rc<Self>) {
        let mut changes = Vec::new();
        let nodes = self.directory.borrow_mut().reach(self.clock.now(), &mut changes);
        self.route(nodes.into_iter().collect());
        self.carry_out(changes);
    }

    /// A node of the cluster has dialled.
    pub(crate) fn heard(self: &Rc<Self>, meeting: &Meeting) {
        let mut changes = Vec::new();
        self.directory.borrow_mut().heard(meeting, self.clock.now(), &mut changes);
        self.carry_out(changes);
        self.give(HostInput::Core(meeting.met()));
    }

    /// Ends links that nobody needs. Cheap when it is not time for that.
    pub(crate) fn tidy(self: &Rc<Self>) {
        let now = self.clock.now();
        if self.directory.borrow().is_tidy(now) {
            return;
        }
        let mut changes = Vec::new();
        let links = self.links.borrow();
        let was_used = |node| links.get(&node).is_some_and(|(line, _)| line.link.borrow_mut().was_used());
        self.directory.borrow_mut().tidy(now, was_used, &mut changes);
        drop(links);
        self.carry_out(changes);
    }

    fn carry_out(self: &Rc<Self>, changes: Vec<LinkChange>) {
        for change in changes {
            match change {
                LinkChange::Start(node, address) => {
                    let line = Rc::new(Line::new(self.id, node, self.election_timeout_min));
                    let work = link::run(Rc::clone(self), node, address, Rc::clone(&line));
                    self.links.borrow_mut().insert(node, (line, self.executor.spawn(work)));
                }
                LinkChange::End(node) => {
                    let ended = self.links.borrow_mut().remove(&node);
                    if let Some((line, _task)) = ended {
                        let mut news = Vec::new();
                        line.with(|link| link.end(&mut news));
                        self.deliver(news);
                    }
                }
            }
        }
    }

    /// Whether everything was sent that waited for a node to which there is a connection.
    pub(crate) fn is_idle(&self) -> bool {
        self.links.borrow().values().all(|(line, _)| line.link.borrow().is_idle())
    }

    /// Ends all connections.
    pub(crate) fn hang_up(&self) {
        self.links.take();
    }
}
