//! The level of the cluster on the replica: a leader raises it once all members support a higher
//! one, and rejects requests of a level that is not reached. [`Level`] says why.
//!
//! A leader knows the level only after it has applied the entries of earlier leaders, which may
//! have raised it. Until then it rejects such a request as one that catches up does, and the proxy
//! sends it again.
//!
//! A node that supports less than the level must receive no entry of it. An entry that raises the
//! level may still be uncommitted when such a node is added. So a leader admits nodes by the level
//! that its log will have when all of it is applied, and binds no other node to a member.

use std::collections::BTreeMap;

use super::Replica;
use super::interface::RequestRefusal;
use super::membership::HANDSHAKES_MAX;
use crate::identity::Incarnation;
use crate::kv::{Command, Level, LoggedWrite, Operation};
use crate::mutant::{self, Mutant};
use crate::raft::{Entries, LogIndex, NodeId, Role, Term};

/// The beginning of the payload of an entry that raises the level.
const LEVEL: &str = "\"op\":\"LEVEL\",";

/// The levels that this node and the other members support.
#[derive(Debug)]
pub(super) struct Levels {
    own: Level,
    /// By the latest handshake with each node.
    others: BTreeMap<NodeId, (Incarnation, Level)>,
    /// The state of the log when this node began to lead.
    at_election: Option<AtElection>,
    /// The term in which this leader has proposed to raise the level, and the new level.
    raised: Option<(Term, Level)>,
    /// The term in which this leader has tried to, even if the log was full.
    tried_in: Option<Term>,
}

/// The state of a leader's log when it began to lead.
#[derive(Clone, Copy, Debug)]
struct AtElection {
    term: Term,
    /// The last index. A leader that has applied it knows the level.
    end: LogIndex,
    /// The highest level that an entry raised which was not applied; the first one if there is
    /// none.
    level: Level,
}

impl Levels {
    pub(super) fn new(own: Level) -> Self {
        Self { own, others: BTreeMap::new(), at_election: None, raised: None, tried_in: None }
    }
}

impl Replica {
    /// The level of the cluster, as far as this replica has applied the log.
    #[must_use]
    pub fn level(&self) -> Level {
        self.state.store().level()
    }

    /// The lowest level that a node must support to be admitted by this node.
    pub(super) fn admitted_level(&self) -> Level {
        let in_log = self.at_election().map_or(Level::FIRST, |at| at.level);
        self.level().max(in_log).max(self.raised_level().unwrap_or_default())
    }

    /// The state of the log at the election of this leader, if this node leads.
    fn at_election(&self) -> Option<AtElection> {
        let is_current = |at: &AtElection| at.term == self.node.current_term();
        self.levels.at_election.filter(is_current).filter(|_| self.node.role() == Role::Leader)
    }

    /// The level that this leader has proposed, if that entry is not applied yet.
    fn raised_level(&self) -> Option<Level> {
        let (term, level) = self.levels.raised?;
        let is_of_leader = self.node.role() == Role::Leader && term == self.node.current_term();
        (is_of_leader && level > self.level()).then_some(level)
    }

    /// Finds out, once per term of this leader, whether an entry that is not applied yet raises the
    /// level.
    pub(super) fn look_for_level(&mut self) {
        if self.node.role() != Role::Leader || self.at_election().is_some() {
            return;
        }
        let raised_by = |payload: &str| match LoggedWrite::read(payload)?.operation {
            Operation::Other(Command::RaiseLevel(level)) => Some(level),
            _ => None,
        };
        let unapplied = self.node.log().entries_from(self.last_applied.next(), usize::MAX);
        let levels =
            unapplied.iter().flat_map(Entries::iter).filter(|entry| entry.payload.starts_with(LEVEL));
        let level = levels.filter_map(|entry| raised_by(entry.payload)).max().unwrap_or_default();
        let (term, end) = (self.node.current_term(), self.node.log().last().index);
        self.levels.at_election = Some(AtElection { term, end, level });
    }

    /// Returns whether the node in this incarnation may be bound to a member: it understands all
    /// entries.
    pub(super) fn may_bind(&self, node: NodeId, incarnation: Incarnation) -> bool {
        let stated = self.levels.others.get(&node).filter(|(stated, _)| *stated == incarnation);
        stated.is_some_and(|(_, level)| *level >= self.admitted_level())
    }

    /// Notes the level that a node has stated in a handshake.
    pub(super) fn note_level(&mut self, peer: NodeId, incarnation: Incarnation, level: Level) {
        let others = &mut self.levels.others;
        if others.len() >= HANDSHAKES_MAX {
            // A node that is no member yet may be one by entries that this node has not received.
            let members = self.node.configuration();
            others.retain(|node, _| members.contains(*node));
        }
        others.insert(peer, (incarnation, level));
    }

    /// Returns whether this leader can raise the level and has not tried to in this term.
    pub(super) fn wants_to_raise_level(&self) -> bool {
        self.can_raise_level() && self.levels.tried_in != Some(self.node.current_term())
    }

    fn can_raise_level(&self) -> bool {
        self.level() < self.levels.own
            && self.leader_knows_level()
            && self.raised_level().is_none()
            && self.all_support(Level(self.level().0 + 1))
    }

    /// Returns whether this node leads, and has applied all entries of earlier leaders, which may
    /// have raised the level.
    pub(super) fn leader_knows_level(&self) -> bool {
        self.at_election().is_some_and(|at| self.last_applied >= at.end)
    }

    /// Returns whether all nodes that receive the log support the level: the members, and removed
    /// members until they have received the entry that removed them. The nodes of one process run
    /// one program, and complete no handshakes.
    fn all_support(&self, level: Level) -> bool {
        let configuration = self.node.configuration();
        let supports = |node: NodeId| {
            let member = configuration.roster().member(node).and_then(|member| member.incarnation);
            let stated = self.levels.others.get(&node);
            stated.is_some_and(|(incarnation, stated)| Some(*incarnation) == member && *stated >= level)
        };
        let own = self.node.id();
        let is_received_by_members = !self.node.sends_to_removed_member();
        configuration.roster().is_empty()
            || is_received_by_members
                && configuration.members().into_iter().all(|node| node == own || supports(node))
            || mutant::is_active(Mutant::LevelOfMembersIgnored)
    }

    /// Proposes to raise the level, if this leader can.
    pub(super) fn raise_level(&mut self) {
        if !self.can_raise_level() {
            return;
        }
        let term = self.node.current_term();
        self.levels.tried_in = Some(term);
        let level = Level(self.level().0 + 1);
        let raise = Command::RaiseLevel(level);
        // If the log is full or leadership is being transferred, a later step tries again.
        if self.node.propose(|line| raise.write_payload(None, line)).is_ok() {
            self.levels.raised = Some((term, level));
        }
    }

    /// Checks that a leader may propose an entry of this level.
    pub(super) fn check_level(&self, level: Level) -> Result<(), RequestRefusal> {
        if level <= self.level() || mutant::is_active(Mutant::LevelNotAwaited) {
            return Ok(());
        }
        if self.node.role() != Role::Leader {
            return Err(self.not_leader());
        }
        // The level may have been raised by an entry that is not applied yet.
        let may_be_raised =
            self.raised_level().is_some() || self.can_raise_level() || !self.leader_knows_level();
        Err(if may_be_raised { RequestRefusal::CatchingUp } else { RequestRefusal::NotYet })
    }
}
