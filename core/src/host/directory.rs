//! The directory of peers: which nodes are linked at which address, which dialling nodes are
//! accepted, and what is reported about them.
//!
//! There is a link to each member of the configuration in force, but that is not enough. A node
//! whose log is behind may not know the current leader, and must answer it. A removed member must
//! be answered, too, until it has learned of its removal. So a dialling node states its address and
//! is linked as well, even if this node's log assigns its id to another member: under a later
//! configuration the node may have moved, or taken the id of a removed member, and its vote
//! requests must be answered. A link to a node that is not a member ends after [`LINK_GRACE`]
//! without anything sent over it.
//!
//! Deliberately not here: sockets, and the state of one link ([`Link`](super::Link)). A runtime
//! starts and ends links as the [`PeerActions`] say, in their order.

mod proof;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{DialError, HostInput, Inbound, LinkChange, PeerActions, PeerNews, PeerPlaces};
use crate::identity::Incarnation;
use crate::memory::MemoryBudget;
use crate::mutant::{self, Mutant};
use crate::peer::{
    HandshakeRefusal, HandshakeResult, Hello, KnownMembers, LocalNode, PeerEvent, Standing, Welcome,
};
use crate::protocol::{is_greeting, refusal_at_peer_port};
use crate::proxy::ProxyInput;
use crate::raft::{Configuration, LogIndex, Member, NodeId};
use crate::time::Instant;

pub use upkeep::LINK_GRACE;

/// How long a process that answered at a node's address is presumed to run. Arbitrary: while a
/// second process dials under the same id, the first one is dialled again at this interval.
pub const REACHED_VALID: Duration = Duration::from_secs(3);
/// How long the first process may fail to answer when it is dialled again before the second one
/// takes its place.
const DOUBT_MAX: Duration = Duration::from_secs(1);

/// The answer to a dialling node.
#[derive(Clone, Debug)]
pub struct Greeting {
    /// The line to send.
    pub reply: Vec<u8>,
    /// The result of the handshake, if frames may follow: then call [`Directory::admit`].
    pub handshake: Option<HandshakeResult>,
}

/// The process that answered when a node was last dialled.
#[derive(Debug)]
struct Reached {
    incarnation: Incarnation,
    boot: u64,
    client_address: Option<Box<str>>,
    at: Instant,
    /// When it was dialled again because another process dials under the same id.
    doubted_at: Option<Instant>,
}

/// A link that was ordered.
#[derive(Debug)]
struct Linked {
    address: Box<str>,
    /// The time since which nothing was sent over it, as of the last check; only for a node that is
    /// not a member.
    idle_since: Option<Instant>,
    /// Whether the last handshake that this node dialled showed that both belong to the same
    /// cluster. Otherwise the node is being dialled.
    is_connected: bool,
    start: Start,
}

/// Whether the operating system could start a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// Started, as far as is known.
    Ordered,
    /// Failed: it is ordered again by the next [`Directory::tidy`].
    Failed,
    /// Ordered again after a failure that was reported.
    OrderedAgain,
}

/// The links and addresses of the other nodes, and which of them may connect. See the module.
#[derive(Debug)]
pub struct Directory {
    local: LocalNode,
    /// The address at which peers reach this node.
    address: Option<Box<str>>,
    dial_overrides: BTreeMap<NodeId, Box<str>>,
    /// Limits on connections with nodes that are not members.
    places: PeerPlaces,
    /// The budget that counts the memory of connections.
    memory: MemoryBudget,
    /// The current addresses of founders that have moved since bootstrap, from the flags of this
    /// start.
    moved: BTreeMap<NodeId, Box<str>>,
    links: BTreeMap<NodeId, Linked>,
    reached: BTreeMap<NodeId, Reached>,
    /// The address that each node states, and the log index up to which it knows the members. An
    /// address stated under an earlier configuration than this node's is ignored for a member.
    heard: BTreeMap<NodeId, (Box<str>, LogIndex)>,
    /// Nodes in `heard` whose link ended because nothing was sent over it, and that have not
    /// dialled since.
    retired: BTreeSet<NodeId>,
    /// The last refusal of each dialling node.
    strangers: BTreeMap<NodeId, HandshakeRefusal>,
    unproven: proof::Reported,
    /// The number of the newest accepted connection of each node.
    inbound: BTreeMap<NodeId, u64>,
    tidy_at: Instant,
    /// Whether there is a leader, as far as this node knows.
    has_leader: bool,
    /// The time since which there is no leader, or when another member was last dialled for that
    /// reason.
    leaderless_since: Option<Instant>,
    /// The member that was last dialled for that reason.
    last_redialed: NodeId,
}

impl Directory {
    /// Creates the directory of a node that peers reach at `address`. `dial_overrides` take
    /// precedence over the addresses that nodes state.
    #[must_use]
    pub fn new(
        local: LocalNode,
        address: Option<Box<str>>,
        dial_overrides: BTreeMap<NodeId, Box<str>>,
    ) -> Self {
        Self {
            local,
            address,
            dial_overrides,
            places: PeerPlaces::default(),
            memory: MemoryBudget::unlimited(),
            moved: BTreeMap::new(),
            links: BTreeMap::new(),
            reached: BTreeMap::new(),
            heard: BTreeMap::new(),
            retired: BTreeSet::new(),
            strangers: BTreeMap::new(),
            unproven: proof::Reported::default(),
            inbound: BTreeMap::new(),
            tidy_at: Instant::default(),
            has_leader: false,
            leaderless_since: None,
            last_redialed: NodeId(0),
        }
    }

    /// Returns the directory with these limits for nodes that are not members, or lower limits
    /// where the budget has no memory for them.
    #[must_use]
    pub fn with_places(self, places: PeerPlaces, memory: MemoryBudget) -> Self {
        Self { places: memory.shares().limit_places(places), memory, ..self }
    }

    /// The most handshakes under way at once.
    #[must_use]
    pub fn handshakes_max(&self) -> usize {
        self.places.handshakes
    }

    /// Returns the directory with new addresses of founders that have moved since bootstrap, and an
    /// event for the operator if there are any.
    #[must_use]
    pub fn with_moved(mut self, moved: BTreeMap<NodeId, Box<str>>) -> (Self, Option<PeerEvent>) {
        self.moved = moved;
        let moved = self.moved.iter().map(|(node, address)| (*node, address.clone()));
        let report = PeerEvent::Moved(moved.collect());
        let is_news = !self.moved.is_empty();
        (self, is_news.then_some(report))
    }

    /// This node's identity and standing, as it states them in handshakes.
    #[must_use]
    pub fn local(&self) -> &LocalNode {
        &self.local
    }

    /// The address at which peers reach this node, if it is known.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    /// Notes that the node has found its cluster. A joiner learns its own address and those of the
    /// others from the configuration.
    pub fn found(&mut self, standing: Standing, configuration: Option<&Configuration>) {
        self.local.enter(standing, configuration);
        let Some(configuration) = configuration else { return };
        for (node, member) in configuration.roster().iter() {
            if node == self.local.id {
                self.address = Some(member.address.clone());
            } else {
                self.heard.insert(node, (member.address.clone(), LogIndex::ORIGIN));
            }
        }
    }

    /// Returns the address to dial for a node whose stated address is `address`.
    #[must_use]
    pub fn address_to_dial(&self, node: Option<NodeId>, address: &str) -> Box<str> {
        let Some(node) = node else { return address.into() };
        let dial_override = self.dial_overrides.get(&node);
        // A later membership change that moved the node takes precedence.
        let moved = self.moved.get(&node).filter(|_| self.founded_at(node) == Some(address));
        dial_override.or(moved).cloned().unwrap_or_else(|| address.into())
    }

    /// Returns the address of a node at bootstrap.
    fn founded_at(&self, node: NodeId) -> Option<&str> {
        let Standing::Member(founders, _) = &self.local.standing else { return None };
        founders.roster.member(node).map(|member| &*member.address)
    }

    /// Returns the first line of a handshake with `to`; `None` accepts any node at the address.
    #[must_use]
    pub fn hello(&self, to: Option<NodeId>) -> Vec<u8> {
        self.local.hello(to, self.address()).encode()
    }

    /// Checks whether the node that was dialled, and answered with this line, is the intended one.
    ///
    /// # Errors
    ///
    /// [`DialError::Refused`]: close the connection.
    pub fn accept(
        &mut self,
        to: Option<NodeId>,
        line: &[u8],
        now: Instant,
    ) -> Result<(HandshakeResult, Welcome), DialError> {
        let answered = Welcome::decode(line)
            .and_then(|welcome| self.local.accept(to, &welcome).map(|handshake| (handshake, welcome)));
        if let Some(linked) = to.and_then(|node| self.links.get_mut(&node)) {
            linked.is_connected = answered.as_ref().is_ok_and(|(handshake, _)| handshake.is_of_cluster);
        }
        let (handshake, welcome) = answered?;
        if handshake.is_of_cluster && self.links.contains_key(&handshake.node) {
            let &HandshakeResult { incarnation, boot, ref client_address, .. } = &handshake;
            let client_address = client_address.clone();
            let reached = Reached { incarnation, boot, client_address, at: now, doubted_at: None };
            self.reached.insert(handshake.node, reached);
        }
        Ok((handshake, welcome))
    }

    /// Answers the first line of a dialling node. A refusal is reported once per reason, however
    /// often the node dials.
    pub fn greet(&mut self, line: &[u8], now: Instant, actions: &mut PeerActions) -> Greeting {
        if !is_greeting(line) {
            let reply = refusal_at_peer_port(line, self.local.client_address.as_deref());
            return Greeting { reply, handshake: None };
        }
        let hello = Hello::decode(line);
        let answered = hello.as_ref().map_err(Clone::clone).and_then(|hello| self.local.answer(hello));
        let answered = answered.and_then(|(welcome, handshake)| {
            self.refuse_a_second_process(&handshake, now, actions)?;
            Ok((welcome, handshake))
        });
        match answered {
            Ok((welcome, handshake)) => {
                let handshake = Some(handshake).filter(|handshake| handshake.is_of_cluster);
                Greeting { reply: welcome.encode(), handshake }
            }
            Err(refusal) => {
                let report = hello.ok().and_then(|hello| self.report_stranger(hello.node(), &refusal));
                actions.news.extend(report.map(PeerNews::Report));
                Greeting { reply: refusal.encode(), handshake: None }
            }
        }
    }

    /// Refuses a second process that runs under the same id and incarnation.
    ///
    /// A copied data folder makes a second process that passes for the node, and neither process
    /// knows what the other has promised. The process that answers at the node's address is the
    /// node, and another one that dials under its id is refused. If the first process has not
    /// answered recently, it is dialled again; if it does not answer, the second process is
    /// accepted as the node after a restart.
    fn refuse_a_second_process(
        &mut self,
        handshake: &HandshakeResult,
        now: Instant,
        actions: &mut PeerActions,
    ) -> Result<(), HandshakeRefusal> {
        let Some(first) = self.reached.get_mut(&handshake.node) else { return Ok(()) };
        let is_other = first.incarnation == handshake.incarnation && first.boot != handshake.boot;
        let is_unknown = first.boot == 0 || handshake.boot == 0;
        if !is_other || is_unknown || mutant::is_active(Mutant::CopyAdmitted) {
            return Ok(());
        }
        let place =
            |address: &Option<Box<str>>| address.as_deref().unwrap_or("an unknown address").to_owned();
        let (node, first_place) = (handshake.node.0, place(&first.client_address));
        let refusal = HandshakeRefusal::RunsTwice {
            node,
            first: first_place,
            second: place(&handshake.client_address),
        };
        let Some(linked) = self.links.get(&handshake.node) else {
            self.reached.remove(&handshake.node);
            return Ok(());
        };
        match first.doubted_at {
            Some(doubted_at)
                if now.since(doubted_at) >= DOUBT_MAX && !mutant::is_active(Mutant::RestartRefused) =>
            {
                self.reached.remove(&handshake.node);
                return Ok(());
            }
            None if now.since(first.at) > REACHED_VALID => {
                actions.links.push(LinkChange::End(handshake.node));
                actions.links.push(LinkChange::Start(handshake.node, linked.address.clone()));
                first.doubted_at = Some(now);
            }
            Some(_) | None => {}
        }
        Err(refusal)
    }

    /// Admits a node of the cluster that has dialled. Connections are numbered in the order in
    /// which they arrived. Returns the connection if it is the newest of its node; it replaces an
    /// older one, which ends.
    #[must_use]
    pub fn admit(
        &mut self,
        handshake: HandshakeResult,
        number: u64,
        now: Instant,
        actions: &mut PeerActions,
    ) -> Option<Inbound> {
        self.heard(&handshake, now, actions);
        actions.news.push(PeerNews::Node(HostInput::Core(handshake.to_input())));
        let is_newest = self.is_newest(handshake.node, number);
        is_newest.then(|| Inbound::new(self.local.id, self.local.boot, handshake, &self.memory))
    }

    /// Returns whether the connection with this number is the newest of its node, and if so
    /// remembers it. Handshakes may finish in another order than they began.
    fn is_newest(&mut self, node: NodeId, number: u64) -> bool {
        // A member always has room, whatever other nodes do.
        let others = self.inbound.keys().filter(|node| !self.is_member(**node)).count();
        let has_room = others < self.places.inbound || self.is_member(node);
        let is_newest = self.inbound.get(&node).map_or(has_room, |newest| *newest < number);
        if is_newest {
            self.inbound.insert(node, number);
        }
        is_newest
    }

    /// Notes that the connection with this number is closed. Returns whether no newer one has
    /// replaced it.
    pub fn leave(&mut self, node: NodeId, number: u64) -> bool {
        let is_newest = self.inbound.get(&node) == Some(&number);
        if is_newest {
            self.inbound.remove(&node);
        }
        is_newest
    }

    /// Notes the address that a node of the cluster states.
    fn heard(&mut self, handshake: &HandshakeResult, now: Instant, actions: &mut PeerActions) {
        let Some(address) = &handshake.address else { return };
        let strangers = || self.heard.keys().copied().filter(|node| !self.is_member(*node));
        let is_known = self.heard.contains_key(&handshake.node) || self.is_member(handshake.node);
        if !is_known && strangers().count() >= self.places.strangers {
            // A node without a link makes room: over its lifetime a cluster may replace more nodes
            // than the limit.
            let Some(unused) = strangers().find(|node| !self.links.contains_key(node)) else { return };
            self.heard.remove(&unused);
            self.retired.remove(&unused);
        }
        self.heard.insert(handshake.node, (address.clone(), handshake.configuration_index));
        self.link_stranger(handshake.node, now, actions);
    }

    fn is_member(&self, node: NodeId) -> bool {
        matches!(&self.local.standing, Standing::Member(_, configuration) if configuration.contains(node))
    }

    /// Notes that there is something to send to this node. If it has no link and has stated its
    /// address, it is linked again.
    pub fn wanted(&mut self, node: NodeId, now: Instant, actions: &mut PeerActions) {
        if !self.links.contains_key(&node) {
            self.link_stranger(node, now, actions);
        }
    }

    fn link_stranger(&mut self, node: NodeId, now: Instant, actions: &mut PeerActions) {
        let Standing::Member(_, configuration) = &self.local.standing else { return };
        let is_stranger = !configuration.contains(node);
        let Some((address, _)) = self.heard.get(&node).filter(|_| node != self.local.id) else { return };
        if is_stranger {
            self.retired.remove(&node);
            link(&mut self.links, node, address.clone(), Some(now), actions);
        } else if let Some(later) = self.later_address(node) {
            link(&mut self.links, node, later, None, actions);
        }
    }

    /// Returns the address that a node states, if it knows a later configuration than this node.
    fn later_address(&self, node: NodeId) -> Option<Box<str>> {
        let (address, known) = self.heard.get(&node)?;
        let is_later = *known > self.local.configuration_index;
        (is_later && !mutant::is_active(Mutant::LaterAddressIgnored)).then(|| address.clone())
    }

    /// Returns the address of a member: the one it states, if it knows a later configuration.
    fn address_of(&self, node: NodeId, member: &Member) -> Box<str> {
        self.later_address(node).unwrap_or_else(|| member.address.clone())
    }

    /// Notes a new configuration, or more knowledge of the current one.
    pub fn follow(&mut self, known: &KnownMembers, now: Instant, actions: &mut PeerActions) {
        let before = self.own_place();
        self.local.follow(known);
        self.has_leader = known.has_leader;
        self.follow_own_move();
        // A node that is removed keeps its connections: over them it acknowledges the entry that
        // removes it, so that the leader tells it once that entry is committed.
        let after = self.own_place();
        let keeps_links = after.is_none() && !mutant::is_active(Mutant::RemovedNodeRedials);
        if before.is_some() && before != after && !keeps_links {
            self.redial_all(actions);
        }
        self.reach(now, actions);
    }

    /// Updates this node's own address after a membership change has moved it. The node must stop
    /// stating the old address: nodes with an earlier configuration would dial it there.
    fn follow_own_move(&mut self) {
        let Standing::Member(_, configuration) = &self.local.standing else { return };
        let LocalNode { id, incarnation, .. } = self.local;
        let is_own = |own: &&Member| {
            own.incarnation == Some(incarnation) && !mutant::is_active(Mutant::OwnMoveIgnored)
        };
        let Some(own) = configuration.roster().member(id).filter(is_own) else { return };
        let moved = self.moved.get(&id).filter(|_| self.founded_at(id) == Some(&own.address));
        self.address = Some(moved.unwrap_or(&own.address).clone());
    }

    /// Links to all known members, and sends the router their ids. At a start these are the members
    /// from this node's files, or the founders of its cluster.
    pub fn reach(&mut self, now: Instant, actions: &mut PeerActions) {
        let Standing::Member(_, configuration) = &self.local.standing else { return };
        let roster = configuration.roster().iter().filter(|(node, _)| *node != self.local.id);
        let places: Vec<_> = roster.map(|(node, member)| (node, self.address_of(node, member))).collect();
        for (node, address) in places {
            link(&mut self.links, node, address, None, actions);
        }
        let Standing::Member(_, configuration) = &self.local.standing else { return };
        for (node, linked) in &mut self.links {
            if configuration.contains(*node) {
                linked.idle_since = None;
            } else {
                linked.idle_since.get_or_insert(now);
            }
        }
        for (node, (address, _)) in &self.heard {
            let is_needed = !self.links.contains_key(node) && !self.retired.contains(node);
            if is_needed && !configuration.contains(*node) && *node != self.local.id {
                link(&mut self.links, *node, address.clone(), Some(now), actions);
            }
        }
        actions.news.push(PeerNews::Router(vec![ProxyInput::Nodes(configuration.members())]));
    }
}

/// Starts a link to a node, unless there is one to this address.
fn link(
    links: &mut BTreeMap<NodeId, Linked>,
    node: NodeId,
    address: Box<str>,
    idle_since: Option<Instant>,
    actions: &mut PeerActions,
) {
    match links.get(&node) {
        Some(linked) if linked.address == address || mutant::is_active(Mutant::MoveIgnored) => return,
        Some(_) => actions.links.push(LinkChange::End(node)),
        None => {}
    }
    actions.links.push(LinkChange::Start(node, address.clone()));
    links.insert(node, Linked { address, idle_since, is_connected: false, start: Start::Ordered });
}

#[cfg(test)]
mod tests;
