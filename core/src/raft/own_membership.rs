//! This node's own membership: whether the configurations of its log name this node, by id and
//! incarnation.
//!
//! A node is an id *and* an incarnation. A log can name the id before the node existed: a node that
//! lost its disk restarts under its old id with an empty log, and receives the history in which its
//! predecessor was a voter or even the only founder. If a node compared ids alone, it would count
//! itself by that history: it would vote or elect itself against a cluster that has continued
//! without it. So every action that only a member may take is checked here, by incarnation. Without
//! a roster, as in a cluster that runs in one process, the id decides.

use super::configuration::Configuration;
use super::event::Event;
use super::snapshot::SnapshotMeta;
use super::state::Node;
use super::types::LogIndex;
use crate::mutant::{self, Mutant};

impl Node {
    /// Returns whether `configuration` names this node.
    fn is_named_by(&self, configuration: &Configuration) -> bool {
        configuration.names(self.config.id, self.config.incarnation)
    }

    fn is_voter_of(&self, configuration: &Configuration) -> bool {
        configuration.names_voter(self.config.id, self.config.incarnation)
    }

    /// Returns whether a rule holds for the configuration in force, or for an earlier one whose
    /// successors may not be committed. A removed node may be needed until its removal is
    /// committed, because other nodes that ask for its vote hold less of the log (thesis, §4.2.2).
    /// After a restart the commit index may be far behind, so all configurations since then count.
    fn by_configuration(&self, rule: impl Fn(&Self, &Configuration) -> bool) -> bool {
        self.membership.since(self.commit_index).any(|configuration| rule(self, configuration))
    }

    /// Returns whether this node may campaign: it is a voter.
    pub(super) fn may_campaign(&self) -> bool {
        self.by_configuration(Self::is_voter_of)
    }

    /// Returns whether this node may vote. Being a learner is enough, because the node may have
    /// been promoted by an entry that it does not hold yet. A promotion waits until the node holds
    /// the entry that names its incarnation, so a voter that is asked for its vote recognises
    /// itself.
    pub(super) fn may_vote(&self) -> bool {
        let is_named = self.configuration().roster().is_empty() || self.by_configuration(Self::is_named_by);
        is_named || mutant::is_active(Mutant::UnnamedNodeVotes)
    }

    /// Returns whether this node's vote alone is a majority.
    pub(super) fn is_only_voter(&self) -> bool {
        let configuration = self.configuration();
        let is_alone = configuration.voters().nodes() == [self.config.id] && !configuration.is_joint();
        is_alone && self.is_voter_of(configuration)
    }

    /// Returns whether this node, as leader, is one of the voters.
    pub(super) fn votes_itself(&self) -> bool {
        self.is_voter_of(self.configuration())
    }

    /// The applied index from which on the state may answer reads; `None` if this node is not a
    /// member, or not yet. When a joining node has applied the entry that names it, it has applied
    /// everything that was committed before it joined.
    #[must_use]
    pub fn serves_from(&self) -> Option<LogIndex> {
        if self.configuration().roster().is_empty() || mutant::is_active(Mutant::JoinerReadsAtOnce) {
            return Some(LogIndex::ORIGIN);
        }
        let serves_on = self.removed_at().is_none() || mutant::is_active(Mutant::RemovedNodeServes);
        self.membership.named_since().filter(|_| serves_on)
    }

    /// The index of the committed configuration by which this node is no longer a member, if it was
    /// one, whether or not it knew that: it never becomes one again in this incarnation. `None`
    /// where configurations name no incarnations: such a node may be added again as it is.
    #[must_use]
    pub fn removed_at(&self) -> Option<LogIndex> {
        if self.membership.names_own() || self.configuration().roster().is_empty() {
            return None;
        }
        // The committed configuration decides: a later entry may have added the id again, for
        // another incarnation.
        let (index, committed) = self.membership.entry_at(self.commit_index);
        let was_named = self.membership.named_since().is_some_and(|since| since < index);
        let is_taken_back = committed.has_taken_back(self.config.id, self.config.addition, true);
        (is_taken_back || was_named && !self.is_named_by(committed)).then_some(index)
    }

    /// Returns whether any configuration of the log has named this node, as far as the log is on
    /// its disk: the answer must still be true after a restart.
    #[must_use]
    pub fn was_named(&self) -> bool {
        let durable_index = self.durability.durable_index();
        self.membership.named_since().is_some_and(|since| since <= durable_index)
    }

    /// Reports once that this node was removed. The node ends after the report, so its removal must
    /// be durable first: otherwise its next start would find a log that has never named it, and
    /// would wait for an addition that never comes.
    pub(super) fn note_removal(&mut self) {
        if self.turn.removal_is_reported || self.membership.names_own() {
            return;
        }
        let is_known = |index: &LogIndex| {
            *index <= self.durability.durable_index() || mutant::is_active(Mutant::RemovalForgotten)
        };
        if let Some(index) = self.removed_at().filter(is_known) {
            self.report_removal(index);
        }
    }

    /// Returns whether a leader's snapshot shows that this node was removed: a committed entry has
    /// named it, and the snapshot, which covers a later one, does not. The configuration on its
    /// disk that names it must not be replaced by such a snapshot.
    pub(super) fn is_removed_by(&self, snapshot: &SnapshotMeta) -> bool {
        let is_without_roster = snapshot.configuration.roster().is_empty();
        if is_without_roster || mutant::is_active(Mutant::RemovedNodeCompacts) {
            return false;
        }
        let was_named = self.membership.named_since().is_some_and(|since| since <= self.commit_index);
        was_named && self.was_named() && !self.is_named_by(&snapshot.configuration)
    }

    pub(super) fn report_removal(&mut self, index: LogIndex) {
        if !std::mem::replace(&mut self.turn.removal_is_reported, true) {
            self.report(Event::Removed { index });
        }
    }
}
