//! The directory of peers: which nodes are wanted at which address, which of those that dial are
//! listened to, and what is reported of them.
//!
//! There is a link to each member of the configuration in force. A node needs more than that. Its
//! log may be behind, so that it does not know the leader yet, which must be answered. A member
//! that was removed must be answered, too, until it has heard of the removal. So a node that dials
//! says where it is, and is linked as well, even if this node's log gives its id to another member:
//! a node with a later configuration may have moved, or taken the id of a removed member, and its
//! calls for votes must be answered. A link to a node that is no member ends once nothing was sent
//! over it for [`LINK_GRACE`].
//!
//! Deliberately not here: sockets, and the state of one link ([`Link`](super::Link)). A runtime
//! starts and ends links as the [`PeerActions`] say, in their order.

mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{DialFailure, HostInput, Inbound, LinkChange, PeerActions, PeerNews, PeerPlaces};
use crate::identity::Incarnation;
use crate::memory::MemoryBudget;
use crate::mutant::{self, Mutant};
use crate::peer::{Hello, KnownMembers, LocalNode, Meeting, PeerEvent, PeerRefusal, Standing, Welcome};
use crate::protocol::{is_greeting, refusal_at_peer_port};
use crate::proxy::ProxyInput;
use crate::raft::{Configuration, LogIndex, Member, NodeId};
use crate::time::Instant;

pub use upkeep::LINK_GRACE;

/// The most nodes whose refusals are remembered. Others are refused without a report.
const REFUSED_MAX: usize = 64;
/// For how long it is believed that the process which has answered at a node's address runs.
/// Arbitrary: while a second process dials in its name, the first one is dialled anew at this pace.
pub const REACHED_VALID: Duration = Duration::from_secs(3);
/// For how long the process that is dialled anew may fail to answer before the other one takes its
/// place.
const DOUBT_MAX: Duration = Duration::from_secs(1);

/// What a node that dials is answered.
#[derive(Clone, Debug)]
pub struct Greeting {
    /// The line to send.
    pub reply: Vec<u8>,
    /// Who it is, if frames may follow: then [`Directory::admit`] comes next.
    pub meeting: Option<Meeting>,
}

/// The process that answered when a node was dialled last.
#[derive(Debug)]
struct Reached {
    incarnation: Incarnation,
    boot: u64,
    client_address: Option<Box<str>>,
    at: Instant,
    /// Since when it is dialled anew, because another process dials in its name.
    doubted_at: Option<Instant>,
}

/// A link as it was ordered.
#[derive(Debug)]
struct Linked {
    address: Box<str>,
    /// Since when nothing was sent over it, as far as that was looked at; only for a node that is
    /// no member.
    idle_since: Option<Instant>,
    /// Whether the node that was dialled last had this node's cluster and took this node for what
    /// it is. Otherwise it is being dialled.
    is_met: bool,
    start: Start,
}

/// Whether the operating system lets a link start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// As far as is known.
    Ordered,
    /// No: it is ordered again with the next [`Directory::tidy`].
    Failed,
    /// It did not before, which was told.
    OrderedAgain,
}

/// What a node knows of the others. See the module.
#[derive(Debug)]
pub struct Directory {
    local: LocalNode,
    /// Where this node's peers reach it.
    address: Option<Box<str>>,
    dial_overrides: BTreeMap<NodeId, Box<str>>,
    /// How many others than members are listened to, and dialled.
    places: PeerPlaces,
    /// What connections hold counts in this budget.
    memory: MemoryBudget,
    /// Where founders are that have moved since the founding, by the flags of this start.
    moved: BTreeMap<NodeId, Box<str>>,
    links: BTreeMap<NodeId, Linked>,
    reached: BTreeMap<NodeId, Reached>,
    /// Where nodes say that they are, and up to which entry they know the members. What an earlier
    /// configuration than this node's says of a member is of no interest.
    heard: BTreeMap<NodeId, (Box<str>, LogIndex)>,
    /// Those of them that nothing was sent to for a while, and that have not dialled since.
    retired: BTreeSet<NodeId>,
    /// Why those who dialled were refused last.
    strangers: BTreeMap<NodeId, PeerRefusal>,
    /// The newest connection of each node that is listened to.
    inbound: BTreeMap<NodeId, u64>,
    tidy_at: Instant,
    /// Whether there is a leader, as far as the node knows.
    has_leader: bool,
    /// Since when there is none, or since when another member was last dialled because of that.
    lonely_since: Option<Instant>,
    /// That member.
    dialled_anew: NodeId,
}

impl Directory {
    /// The directory of a node whose peers reach it at `address`. `dial_overrides` are dialled
    /// instead of the addresses that nodes say.
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
            inbound: BTreeMap::new(),
            tidy_at: Instant::default(),
            has_leader: false,
            lonely_since: None,
            dialled_anew: NodeId(0),
        }
    }

    /// The same with these places for nodes that are no members, or fewer where the budget has no
    /// memory for them.
    #[must_use]
    pub fn with_places(self, places: PeerPlaces, memory: MemoryBudget) -> Self {
        Self { places: memory.shares().limit_places(places), memory, ..self }
    }

    /// How many connections may be shaking hands at once.
    #[must_use]
    pub fn handshakes_max(&self) -> usize {
        self.places.handshakes
    }

    /// The same, where these founders are no longer where they were at the founding. Returns what
    /// the operator should know.
    #[must_use]
    pub fn with_moved(mut self, moved: BTreeMap<NodeId, Box<str>>) -> (Self, Option<PeerEvent>) {
        self.moved = moved;
        let moved = self.moved.iter().map(|(node, address)| (*node, address.clone()));
        let report = PeerEvent::Moved(moved.collect());
        let is_news = !self.moved.is_empty();
        (self, is_news.then_some(report))
    }

    /// What this node says of itself.
    #[must_use]
    pub fn local(&self) -> &LocalNode {
        &self.local
    }

    /// Where this node's peers reach it, as far as it knows.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    /// The node has found its cluster. A joiner learns from the configuration where it and the
    /// others are.
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

    /// The address to dial for a node that is said to be at `address`.
    #[must_use]
    pub fn address_to_dial(&self, node: Option<NodeId>, address: &str) -> Box<str> {
        let Some(node) = node else { return address.into() };
        let dial_override = self.dial_overrides.get(&node);
        // An order that moved the node since the founding counts for more.
        let moved = self.moved.get(&node).filter(|_| self.founded_at(node) == Some(address));
        dial_override.or(moved).cloned().unwrap_or_else(|| address.into())
    }

    /// Where a node was when the cluster was founded.
    fn founded_at(&self, node: NodeId) -> Option<&str> {
        let Standing::Member(founders, _) = &self.local.standing else { return None };
        founders.roster.member(node).map(|member| &*member.address)
    }

    /// The first line of a handshake with `to`; `None` accepts any node at the address.
    #[must_use]
    pub fn hello(&self, to: Option<NodeId>) -> Vec<u8> {
        self.local.hello(to, self.address()).encode()
    }

    /// Decides whether the node that was dialled, and has answered with this line, is the one that
    /// was wanted.
    ///
    /// # Errors
    ///
    /// [`DialFailure::Refused`]: hang up.
    pub fn accept(
        &mut self,
        to: Option<NodeId>,
        line: &[u8],
        now: Instant,
    ) -> Result<(Meeting, Welcome), DialFailure> {
        let answered = Welcome::decode(line)
            .and_then(|welcome| self.local.accept(to, &welcome).map(|meeting| (meeting, welcome)));
        if let Some(linked) = to.and_then(|node| self.links.get_mut(&node)) {
            linked.is_met = answered.as_ref().is_ok_and(|(meeting, _)| meeting.is_of_cluster);
        }
        let (meeting, welcome) = answered?;
        if meeting.is_of_cluster && self.links.contains_key(&meeting.node) {
            let &Meeting { incarnation, boot, ref client_address, .. } = &meeting;
            let client_address = client_address.clone();
            let reached = Reached { incarnation, boot, client_address, at: now, doubted_at: None };
            self.reached.insert(meeting.node, reached);
        }
        Ok((meeting, welcome))
    }

    /// Answers the line of a node that dials. A refusal is reported once per reason, however often
    /// it dials.
    pub fn greet(&mut self, line: &[u8], now: Instant, actions: &mut PeerActions) -> Greeting {
        if !is_greeting(line) {
            let reply = refusal_at_peer_port(line, self.local.client_address.as_deref());
            return Greeting { reply, meeting: None };
        }
        let hello = Hello::decode(line);
        let answered = hello.as_ref().map_err(Clone::clone).and_then(|hello| self.local.answer(hello));
        let answered = answered.and_then(|(welcome, meeting)| {
            self.refuse_a_second_process(&meeting, now, actions)?;
            Ok((welcome, meeting))
        });
        match answered {
            Ok((welcome, meeting)) => {
                let meeting = Some(meeting).filter(|meeting| meeting.is_of_cluster);
                Greeting { reply: welcome.encode(), meeting }
            }
            Err(refusal) => {
                let report = hello.ok().and_then(|hello| self.report_stranger(hello.node(), &refusal));
                actions.news.extend(report.map(PeerNews::Report));
                Greeting { reply: refusal.encode(), meeting: None }
            }
        }
    }

    /// A folder that was copied makes a second process that passes for the node, and each forgets
    /// what the other promises. The one that answers at the node's address is the node; another one
    /// that dials in its name is refused. When it is a while ago that the first one answered, it is
    /// dialled anew: if it does not answer, the other one is the node after a restart.
    fn refuse_a_second_process(
        &mut self,
        meeting: &Meeting,
        now: Instant,
        actions: &mut PeerActions,
    ) -> Result<(), PeerRefusal> {
        let Some(first) = self.reached.get_mut(&meeting.node) else { return Ok(()) };
        let is_other = first.incarnation == meeting.incarnation && first.boot != meeting.boot;
        let is_admitted = mutant::is_active(Mutant::CopyAdmitted);
        if !is_other || first.boot == 0 || meeting.boot == 0 || is_admitted {
            return Ok(());
        }
        let place =
            |address: &Option<Box<str>>| address.as_deref().unwrap_or("an unknown address").to_owned();
        let (node, first_place) = (meeting.node.0, place(&first.client_address));
        let refusal =
            PeerRefusal::RunsTwice { node, first: first_place, second: place(&meeting.client_address) };
        let Some(linked) = self.links.get(&meeting.node) else {
            self.reached.remove(&meeting.node);
            return Ok(());
        };
        match first.doubted_at {
            Some(doubted_at)
                if now.since(doubted_at) >= DOUBT_MAX && !mutant::is_active(Mutant::RestartRefused) =>
            {
                self.reached.remove(&meeting.node);
                return Ok(());
            }
            None if now.since(first.at) > REACHED_VALID => {
                actions.links.push(LinkChange::End(meeting.node));
                actions.links.push(LinkChange::Start(meeting.node, linked.address.clone()));
                first.doubted_at = Some(now);
            }
            Some(_) | None => {}
        }
        Err(refusal)
    }

    fn report_stranger(&mut self, node: NodeId, refusal: &PeerRefusal) -> Option<PeerEvent> {
        let is_known = self.strangers.get(&node) == Some(refusal);
        let has_room = self.strangers.len() < REFUSED_MAX || self.strangers.contains_key(&node);
        if is_known || !has_room {
            return None;
        }
        self.strangers.insert(node, refusal.clone());
        Some(PeerEvent::Stranger(node, refusal.clone()))
    }

    /// A node of the cluster has dialled, over the connection with this number, in the order in
    /// which they came. Returns the connection if it is the one to listen to: it takes the place of
    /// the node's older one, which ends.
    #[must_use]
    pub fn admit(
        &mut self,
        meeting: Meeting,
        number: u64,
        now: Instant,
        actions: &mut PeerActions,
    ) -> Option<Inbound> {
        self.heard(&meeting, now, actions);
        actions.news.push(PeerNews::Node(HostInput::Core(meeting.met())));
        let is_newest = self.is_newest(meeting.node, number);
        is_newest.then(|| Inbound::new(self.local.id, self.local.boot, meeting, &self.memory))
    }

    /// Whether the connection with this number is the newest of its node, which is remembered. Two
    /// handshakes may end in another order than they began.
    fn is_newest(&mut self, node: NodeId, number: u64) -> bool {
        // A member finds a place whatever others do.
        let others = self.inbound.keys().filter(|node| !self.is_member(**node)).count();
        let has_room = others < self.places.inbound || self.is_member(node);
        let is_newest = self.inbound.get(&node).map_or(has_room, |newest| *newest < number);
        if is_newest {
            self.inbound.insert(node, number);
        }
        is_newest
    }

    /// The connection with this number is over. Returns whether no newer one has taken its place.
    pub fn leave(&mut self, node: NodeId, number: u64) -> bool {
        let is_newest = self.inbound.get(&node) == Some(&number);
        if is_newest {
            self.inbound.remove(&node);
        }
        is_newest
    }

    /// A node of the cluster says where it is.
    fn heard(&mut self, meeting: &Meeting, now: Instant, actions: &mut PeerActions) {
        let Some(address) = &meeting.address else { return };
        let strangers = || self.heard.keys().copied().filter(|node| !self.is_member(*node));
        let is_known = self.heard.contains_key(&meeting.node) || self.is_member(meeting.node);
        if !is_known && strangers().count() >= self.places.strangers {
            // One that nothing is sent to gives way: a cluster that lives for long exchanges more
            // nodes than that.
            let Some(unused) = strangers().find(|node| !self.links.contains_key(node)) else { return };
            self.heard.remove(&unused);
            self.retired.remove(&unused);
        }
        self.heard.insert(meeting.node, (address.clone(), meeting.configuration_index));
        self.link_stranger(meeting.node, now, actions);
    }

    fn is_member(&self, node: NodeId) -> bool {
        matches!(&self.local.standing, Standing::Member(_, configuration) if configuration.contains(node))
    }

    /// There is something to send to this node, and no link. If it has said where it is, it is
    /// linked again.
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

    /// Where a node says that it is, if it knows a later configuration than this one.
    fn later_address(&self, node: NodeId) -> Option<Box<str>> {
        let (address, known) = self.heard.get(&node)?;
        let is_later = *known > self.local.configuration_index;
        (is_later && !mutant::is_active(Mutant::LaterAddressIgnored)).then(|| address.clone())
    }

    /// Where a member of this configuration is: where it says that it is, if it knows a later one.
    fn address_of(&self, node: NodeId, member: &Member) -> Box<str> {
        self.later_address(node).unwrap_or_else(|| member.address.clone())
    }

    /// Other members take part, or more is known of them.
    pub fn follow(&mut self, known: &KnownMembers, now: Instant, actions: &mut PeerActions) {
        let place = self.own_place();
        self.local.follow(known);
        self.has_leader = known.has_leader;
        self.follow_own_move();
        // A node that is removed keeps its connections: over them it acknowledges the entry that
        // removes it, so that the leader tells it once that entry is committed.
        let has_moved = matches!((place, self.own_place()), (Some(old), Some(new)) if old != new);
        if has_moved {
            self.dial_all_anew(actions);
        }
        self.reach(now, actions);
    }

    /// An order may have moved this node itself. It must not say any more that it is where it was:
    /// those that know less of the members would look for it there.
    fn follow_own_move(&mut self) {
        let Standing::Member(_, configuration) = &self.local.standing else { return };
        let LocalNode { id, incarnation, .. } = self.local;
        let own = configuration.roster().member(id).filter(|own| own.incarnation == Some(incarnation));
        let Some(own) = own.filter(|_| !mutant::is_active(Mutant::OwnMoveIgnored)) else { return };
        let moved = self.moved.get(&id).filter(|_| self.founded_at(id) == Some(&own.address));
        self.address = Some(moved.unwrap_or(&own.address).clone());
    }

    /// Links to the members that are known: at a start, those that this node found on its disk, or
    /// founds its cluster with. The router is to know them, too.
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

/// Links a node, unless it is linked at this address.
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
    links.insert(node, Linked { address, idle_since, is_met: false, start: Start::Ordered });
}

#[cfg(test)]
mod tests;
