//! The local node in a handshake: its identity, its standing in a cluster, and the members that it
//! knows.

use std::collections::BTreeMap;

use super::founders::Founders;
use crate::identity::{ClusterId, Incarnation};
use crate::kv::Level;
use crate::raft::{Addition, Configuration, LogIndex, Member, NodeId, Roster, Voters};

/// The standing of a node in a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It waits for handshakes with the other founders to bootstrap a cluster; the roster has their
    /// addresses.
    Founding(Roster),
    /// It waits to be accepted by an existing cluster.
    Joining,
    /// It belongs to a cluster. The configuration is the latest that it knows.
    Member(Founders, Configuration),
}

/// How a node finds its cluster at its first start. Later its files state the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Bootstrap with these founders, including the node itself; the roster has their addresses.
    Found(Roster),
    /// Join through the member that peers reach at this address.
    Join(Box<str>),
    /// The node has found its cluster before.
    Known,
}

/// The local node's identity and knowledge, as a handshake needs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalNode {
    /// The node's id.
    pub id: NodeId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The address at which its clients connect, which other nodes report to clients.
    pub client_address: Option<Box<str>>,
    /// The number of its run (boot).
    pub boot: u64,
    /// Its standing in a cluster.
    pub standing: Standing,
    /// The log index up to which it knows the members.
    pub configuration_index: LogIndex,
    /// The log index up to which its log names this node, which it states in handshakes. A later
    /// configuration that does not name it may have been rolled back; with that index the node
    /// would pass for one that knows more than the members that have removed it.
    pub named_index: LogIndex,
    /// Whether that configuration is committed and no change is under way.
    pub is_settled: bool,
    /// Whether any configuration in its log names this node.
    pub was_named: bool,
    /// The addition by which it became a member; a founder's, or none yet.
    pub addition: Addition,
    /// The highest level that the program supports; lower only in tests of upgrades.
    pub supports: Level,
    /// The level of the cluster, as far as this node knows: it admits no node that supports less.
    pub level: Level,
}

/// A node's knowledge of the members, which its transport follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownMembers {
    /// The configuration in force.
    pub configuration: Configuration,
    /// The log index of that configuration.
    pub index: LogIndex,
    /// The log index up to which the log names this node: the same, unless the configuration in
    /// force does not name it.
    pub named_index: LogIndex,
    /// Whether that configuration is committed and no change is under way.
    pub is_settled: bool,
    /// Whether any configuration in the log names this node.
    pub was_named: bool,
    /// Whether there is a leader, as far as this node knows.
    pub has_leader: bool,
    /// The level of the cluster.
    pub level: Level,
}

impl LocalNode {
    /// Notes that the node has found its cluster, with this standing. A joiner was added by the
    /// configuration `joined`.
    pub fn enter(&mut self, standing: Standing, joined: Option<&Configuration>) {
        let own = joined.and_then(|joined| joined.roster().member(self.id));
        self.addition = own.map(|own| own.addition).unwrap_or_default();
        self.standing = standing;
    }

    /// Notes that another configuration is in force, or that the current one was committed.
    pub fn follow(&mut self, known: &KnownMembers) {
        (self.configuration_index, self.named_index) = (known.index, known.named_index);
        self.is_settled = known.is_settled;
        self.was_named = known.was_named;
        self.level = known.level;
        if let Standing::Member(_, configuration) = &mut self.standing {
            configuration.clone_from(&known.configuration);
        }
    }

    /// Returns the founders of the cluster if this node has completed a handshake with all of them.
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

    /// Returns the first configuration of a cluster. `None` when there are too many founders, or
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
