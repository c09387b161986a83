//! What a node knows of itself and of its cluster when it meets another.

use std::collections::BTreeMap;

use super::founders::Founders;
use crate::identity::{ClusterId, Incarnation};
use crate::raft::{Addition, Configuration, LogIndex, Member, NodeId, Roster, Voters};

/// What a node is to a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It waits to meet the others with whom it will found one; the roster knows their addresses.
    Founding(Roster),
    /// It waits to be let into one that exists.
    Joining,
    /// It belongs to one. The configuration is the latest that it knows.
    Member(Founders, Configuration),
}

/// How a node finds its cluster at its first start. Afterwards its files know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Together with these, whose addresses the roster knows, itself among them.
    Found(Roster),
    /// By asking the member that its peers reach at this address.
    Join(Box<str>),
    /// It has found it before.
    Known,
}

/// What a node knows when it meets another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalNode {
    /// Which node it is.
    pub id: NodeId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Where its clients connect, for others to tell.
    pub client_address: Option<Box<str>>,
    /// Which of its runs this is.
    pub boot: u64,
    /// What it is to its cluster.
    pub standing: Standing,
    /// Up to which entry it knows who the members are.
    pub configuration_index: LogIndex,
    /// Up to which entry its log names this node: what it says of itself in a handshake. A later
    /// configuration that does not name it may have been rolled back, and must not pass for more
    /// than those know who have removed it.
    pub named_index: LogIndex,
    /// Whether that configuration is committed, and no change is under way.
    pub is_settled: bool,
    /// Whether any configuration in its log has named this node.
    pub was_named: bool,
    /// The addition that it was let in as; a founder's, or none yet.
    pub addition: Addition,
}

/// What a node knows of the members, for its transport to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownMembers {
    /// The configuration in force.
    pub configuration: Configuration,
    /// Up to which entry of the log it holds.
    pub index: LogIndex,
    /// Up to which entry the log names this node: the same, unless the configuration in force does
    /// not name it.
    pub named_index: LogIndex,
    /// Whether it is committed, and no change is under way.
    pub is_settled: bool,
    /// Whether any configuration in the log has named this node.
    pub was_named: bool,
    /// Whether there is a leader, as far as this node knows.
    pub has_leader: bool,
}

impl LocalNode {
    /// The node has found its cluster, and has this standing in it. A joiner was let in by this
    /// configuration.
    pub fn enter(&mut self, standing: Standing, joined: Option<&Configuration>) {
        let own = joined.and_then(|joined| joined.roster().member(self.id));
        self.addition = own.map(|own| own.addition).unwrap_or_default();
        self.standing = standing;
    }

    /// Another configuration is in force, or the one that is was committed.
    pub fn follow(&mut self, known: &KnownMembers) {
        (self.configuration_index, self.named_index) = (known.index, known.named_index);
        self.is_settled = known.is_settled;
        self.was_named = known.was_named;
        if let Standing::Member(_, configuration) = &mut self.standing {
            configuration.clone_from(&known.configuration);
        }
    }

    /// The founders of the cluster, when this node has met all of those with whom it founds one.
    #[must_use]
    pub fn found(&self, met: &BTreeMap<NodeId, Incarnation>) -> Option<Founders> {
        let Standing::Founding(peers) = &self.standing else { return None };
        let known = |(node, member): (NodeId, &Member)| {
            let incarnation = if node == self.id { self.incarnation } else { *met.get(&node)? };
            Some((node, Member { incarnation: Some(incarnation), ..member.clone() }))
        };
        let members = peers.iter().map(known).collect::<Option<Vec<_>>>()?;
        Some(Founders::new(Roster::new(members)))
    }

    /// The configuration that a cluster begins with. `None` when its founders are too many, or
    /// none.
    #[must_use]
    pub fn first_configuration(founders: &Founders) -> Option<Configuration> {
        Some(Configuration::of_voters(Voters::new(founders.ids())?).with_roster(&founders.roster))
    }

    pub(super) fn cluster(&self) -> Option<ClusterId> {
        match &self.standing {
            Standing::Member(founders, _) => Some(founders.cluster),
            Standing::Founding(_) | Standing::Joining => None,
        }
    }
}
