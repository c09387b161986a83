//! The membership history: the configurations of the log with their indexes, so that a cut of the
//! log brings the previous one back (§6).

use crate::identity::Incarnation;
use crate::mutant::{self, Mutant};
use crate::raft::configuration::Configuration;
use crate::raft::types::{LogIndex, NodeId};

/// The configurations of the log, in ascending order of indexes.
#[derive(Clone, Debug)]
pub(in crate::raft) struct Membership {
    /// In ascending order. The first one is that of the beginning of the log, or an earlier one.
    history: Vec<(LogIndex, Configuration)>,
    /// The node that keeps this history.
    own: (NodeId, Option<Incarnation>),
    /// The index of the first configuration that named this node.
    named_since: Option<LogIndex>,
    /// Whether the configuration in force names this node: read in every turn, and rarely changed.
    names_own: bool,
}

impl Membership {
    /// Starts the history of the node `own`, whose log begins with this configuration.
    pub(in crate::raft) fn new(
        own: (NodeId, Option<Incarnation>),
        index: LogIndex,
        configuration: Configuration,
    ) -> Self {
        let names_own = configuration.names(own.0, own.1);
        Self {
            history: vec![(index, configuration)],
            own,
            named_since: names_own.then_some(index),
            names_own,
        }
    }

    /// Replaces the history when a snapshot has replaced the log. The configurations up to
    /// `committed` remain true of the past.
    pub(in crate::raft) fn restart(
        &mut self,
        index: LogIndex,
        configuration: Configuration,
        committed: LogIndex,
    ) {
        let named_before = self.named_since.filter(|since| *since <= committed);
        *self = Self::new(self.own, index, configuration);
        self.named_since = named_before.or(self.named_since);
    }

    /// The earliest index for which the configuration is known.
    pub(in crate::raft) fn first_index(&self) -> LogIndex {
        self.history.first().map_or(LogIndex::ORIGIN, |(index, _)| *index)
    }

    /// The index of the first configuration that named this node, if there is one.
    pub(in crate::raft) fn named_since(&self) -> Option<LogIndex> {
        self.named_since
    }

    /// The index of the last configuration that named this node, as far as the history is kept.
    pub(in crate::raft) fn last_naming(&self) -> Option<LogIndex> {
        let names =
            |(_, configuration): &&(LogIndex, Configuration)| configuration.names(self.own.0, self.own.1);
        self.history.iter().rev().find(names).map(|(index, _)| *index).or(self.named_since)
    }

    /// Returns whether the configuration in force names this node.
    pub(in crate::raft) fn names_own(&self) -> bool {
        self.names_own
    }

    /// The configuration in force.
    pub(in crate::raft) fn current(&self) -> &Configuration {
        &self.latest().1
    }

    /// The index of the configuration in force.
    pub(in crate::raft) fn index(&self) -> LogIndex {
        self.latest().0
    }

    fn latest(&self) -> &(LogIndex, Configuration) {
        self.history.last().expect("there is always one")
    }

    /// The configuration that was in force when the log ended at `index`.
    pub(in crate::raft) fn at(&self, index: LogIndex) -> &Configuration {
        self.entry_at(index).1
    }

    /// The configuration that was in force when the log ended at `index`, with its own index.
    pub(in crate::raft) fn entry_at(&self, index: LogIndex) -> (LogIndex, &Configuration) {
        let later = self.history.partition_point(|(since, _)| *since <= index);
        let (index, configuration) = &self.history[later.saturating_sub(1)];
        (*index, configuration)
    }

    /// Iterates over the configuration that was in force when the log ended at `index`, and all
    /// later ones.
    pub(in crate::raft) fn since(&self, index: LogIndex) -> impl Iterator<Item = &Configuration> {
        let later = self.history.partition_point(|(since, _)| *since <= index);
        self.history.iter().skip(later.saturating_sub(1)).map(|(_, configuration)| configuration)
    }

    pub(in crate::raft) fn append(&mut self, index: LogIndex, configuration: Configuration) {
        self.names_own = configuration.names(self.own.0, self.own.1);
        if self.names_own && self.named_since.is_none() {
            self.named_since = Some(index);
        }
        self.history.push((index, configuration));
    }

    /// Handles a cut of the log from `from` on. Returns whether another configuration is in force
    /// now.
    pub(in crate::raft) fn cut(&mut self, from: LogIndex) -> bool {
        let before = self.history.len();
        let stays = |index: LogIndex| index < from || mutant::is_active(Mutant::ConfigurationKeptInCut);
        self.named_since = self.named_since.filter(|since| stays(*since));
        while self.history.len() > 1 && !stays(self.latest().0) {
            self.history.pop();
        }
        self.names_own = self.current().names(self.own.0, self.own.1);
        self.history.len() != before
    }

    /// Drops the configurations that are needed only for indexes before `index`.
    pub(in crate::raft) fn forget_before(&mut self, index: LogIndex) {
        let later = self.history.partition_point(|(since, _)| *since <= index);
        self.history.drain(..later.saturating_sub(1));
    }
}
