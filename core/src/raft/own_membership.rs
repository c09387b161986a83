//! This node's own place in the configurations of its log.
//!
//! A node is an id *and* an incarnation. A log can name the id before the node existed: a node that
//! lost its disk comes back under its old id with an empty log, and is sent the history in which
//! its predecessor was a voter, or even the only founder. A node that looked for its id alone would
//! count itself by that history: it would vote, or elect itself, against a cluster that has gone on
//! without it. So everything that a node does as a member asks here, and the answer compares
//! incarnations. Without a roster, as in a cluster that lives in one process, the id decides.

use super::configuration::Configuration;
use super::event::Event;
use super::snapshot::SnapshotMeta;
use super::state::Node;
use super::types::LogIndex;
use crate::mutant::{self, Mutant};

impl Node {
    /// Whether `configuration` means this node.
    fn is_named_by(&self, configuration: &Configuration) -> bool {
        configuration.names(self.config.id, self.config.incarnation)
    }

    fn is_voter_of(&self, configuration: &Configuration) -> bool {
        configuration.names_voter(self.config.id, self.config.incarnation)
    }

    /// Whether a rule holds for the configuration in force, or for one before it as far as those
    /// after that one may not be committed. A node that was removed may be needed until then,
    /// because others that ask for its vote have less of the log (thesis, §4.2.2). After a restart
    /// the commit index may be that of long ago, so all configurations since then count.
    fn by_configuration(&self, rule: impl Fn(&Self, &Configuration) -> bool) -> bool {
        self.membership.since(self.commit_index).any(|configuration| rule(self, configuration))
    }

    /// Whether this node may stand for election: it votes.
    pub(super) fn may_campaign(&self) -> bool {
        self.by_configuration(Self::is_voter_of)
    }

    /// Whether this node may vote: it is a member, if only a learner, because it may have been
    /// promoted by an entry that it does not hold yet. A promotion waits until the node holds the
    /// entry that names its incarnation, so a voter that is asked for its vote knows itself.
    pub(super) fn may_vote(&self) -> bool {
        let is_named = self.configuration().roster().is_empty() || self.by_configuration(Self::is_named_by);
        is_named || mutant::is_active(Mutant::UnnamedNodeVotes)
    }

    /// Whether this node's vote alone decides.
    pub(super) fn is_only_voter(&self) -> bool {
        let configuration = self.configuration();
        let is_alone = configuration.voters().nodes() == [self.config.id] && !configuration.is_joint();
        is_alone && self.is_voter_of(configuration)
    }

    /// Whether this node, as leader, is one of the voters that it leads.
    pub(super) fn votes_itself(&self) -> bool {
        self.is_voter_of(self.configuration())
    }

    /// From which applied index on the state is fit to answer reads; `None`: this node is no
    /// member, or none yet. A node that joins has applied everything that was committed when it
    /// joined once it has applied the entry that names it.
    #[must_use]
    pub fn serves_from(&self) -> Option<LogIndex> {
        if self.configuration().roster().is_empty() || mutant::is_active(Mutant::JoinerReadsAtOnce) {
            return Some(LogIndex::ORIGIN);
        }
        let serves_on = self.removed_at().is_none() || mutant::is_active(Mutant::RemovedNodeServes);
        self.membership.named_since().filter(|_| serves_on)
    }

    /// The index of the committed configuration by which this node is no longer a member, if it was
    /// one, whether or not it knew: it will not be one again in this incarnation. `None` where
    /// configurations name no incarnations: there a node may come back as it was.
    #[must_use]
    pub fn removed_at(&self) -> Option<LogIndex> {
        if self.membership.names_own() || self.configuration().roster().is_empty() {
            return None;
        }
        // By what is committed: a later entry may have added the id again, for another incarnation.
        let (index, committed) = self.membership.entry_at(self.commit_index);
        let was_named = self.membership.named_since().is_some_and(|since| since < index);
        let is_taken_back = committed.has_taken_back(self.config.id, self.config.addition, true);
        (is_taken_back || was_named && !self.is_named_by(committed)).then_some(index)
    }

    /// Whether any configuration in this node's log has named it, as far as that log is on its
    /// disk: what it says of itself has to be true after its next start.
    #[must_use]
    pub fn was_named(&self) -> bool {
        let durable_index = self.durability.durable_index();
        self.membership.named_since().is_some_and(|since| since <= durable_index)
    }

    /// Reports once that this node was removed. Then it ends, so its disk has to know it first:
    /// otherwise its next start would find a log that has never named it, and wait for an addition
    /// that nobody is going to order.
    pub(super) fn note_removal(&mut self) {
        if self.turn.removal_is_told || self.membership.names_own() {
            return;
        }
        let is_known = |index: &LogIndex| {
            *index <= self.durability.durable_index() || mutant::is_active(Mutant::RemovalForgotten)
        };
        if let Some(index) = self.removed_at().filter(is_known) {
            self.tell_removal(index);
        }
    }

    /// Whether a leader's snapshot shows that this node was removed: a committed entry has named
    /// it, and the snapshot, which covers a later one, does not. What names it on its disk must not
    /// give way to such a snapshot.
    pub(super) fn is_removed_by(&self, snapshot: &SnapshotMeta) -> bool {
        let is_without_roster = snapshot.configuration.roster().is_empty();
        if is_without_roster || mutant::is_active(Mutant::RemovedNodeCompacts) {
            return false;
        }
        let was_named = self.membership.named_since().is_some_and(|since| since <= self.commit_index);
        was_named && self.was_named() && !self.is_named_by(&snapshot.configuration)
    }

    pub(super) fn tell_removal(&mut self, index: LogIndex) {
        if !std::mem::replace(&mut self.turn.removal_is_told, true) {
            self.tell(Event::Removed { index });
        }
    }
}
