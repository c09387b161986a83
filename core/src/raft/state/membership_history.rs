//! The history of the membership: the configurations of the log, so that a cut brings the one
//! before back (§6).

use crate::identity::Incarnation;
use crate::mutant::{self, Mutant};
use crate::raft::configuration::Configuration;
use crate::raft::types::{LogIndex, NodeId};

/// The configurations of the log.
#[derive(Clone, Debug)]
pub(in crate::raft) struct Membership {
    /// Ascending. The first is that of the log's beginning, or an earlier one.
    history: Vec<(LogIndex, Configuration)>,
    /// Which node keeps this.
    own: (NodeId, Option<Incarnation>),
    /// The first configuration that named that node.
    named_since: Option<LogIndex>,
    /// Whether the one in force names that node: asked every turn, and changed hardly ever.
    names_own: bool,
}

impl Membership {
    /// The log of the node `own` begins with this configuration.
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

    /// A snapshot took the place of the log. What the log said up to `committed` is still true of
    /// the past.
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

    /// The earliest index of which it is known who took part.
    pub(in crate::raft) fn first_index(&self) -> LogIndex {
        self.history.first().map_or(LogIndex::ORIGIN, |(index, _)| *index)
    }

    /// The first configuration that named the node that keeps this, if one has.
    pub(in crate::raft) fn named_since(&self) -> Option<LogIndex> {
        self.named_since
    }

    /// The last configuration that named it, as far as this is known.
    pub(in crate::raft) fn last_naming(&self) -> Option<LogIndex> {
        let names =
            |(_, configuration): &&(LogIndex, Configuration)| configuration.names(self.own.0, self.own.1);
        self.history.iter().rev().find(names).map(|(index, _)| *index).or(self.named_since)
    }

    /// Whether the one in force names it.
    pub(in crate::raft) fn names_own(&self) -> bool {
        self.names_own
    }

    /// The one in force.
    pub(in crate::raft) fn current(&self) -> &Configuration {
        &self.latest().1
    }

    /// The index of the one in force.
    pub(in crate::raft) fn index(&self) -> LogIndex {
        self.latest().0
    }

    fn latest(&self) -> &(LogIndex, Configuration) {
        self.history.last().expect("there is always one")
    }

    /// The one in force when the log ended at `index`.
    pub(in crate::raft) fn at(&self, index: LogIndex) -> &Configuration {
        self.entry_at(index).1
    }

    /// That one, with its index.
    pub(in crate::raft) fn entry_at(&self, index: LogIndex) -> (LogIndex, &Configuration) {
        let later = self.history.partition_point(|(since, _)| *since <= index);
        let (index, configuration) = &self.history[later.saturating_sub(1)];
        (*index, configuration)
    }

    /// That one, and those after it.
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

    /// The log lost the entries from `from` on. Returns whether another one is in force now.
    pub(in crate::raft) fn cut(&mut self, from: LogIndex) -> bool {
        let before = self.history.len();
        if mutant::is_active(Mutant::ConfigurationKeptInCut) {
            return false;
        }
        self.named_since = self.named_since.filter(|since| *since < from);
        while self.history.len() > 1 && self.latest().0 >= from {
            self.history.pop();
        }
        self.names_own = self.current().names(self.own.0, self.own.1);
        self.history.len() != before
    }

    /// Nobody will ask for a time before `index` any more.
    pub(in crate::raft) fn forget_before(&mut self, index: LogIndex) {
        let later = self.history.partition_point(|(since, _)| *since <= index);
        self.history.drain(..later.saturating_sub(1));
    }
}
