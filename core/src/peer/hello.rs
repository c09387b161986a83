//! The handshake between nodes: the two lines at the start of a connection, which establish
//! cluster, node and incarnation on both ends.
//!
//! The dialler states its identity and the node that it expects ([`Hello`]); the other side states
//! its identity ([`Welcome`]) or why it refuses ([`HandshakeRefusal`]); the dialler then checks
//! whether it has reached the expected node. Both sides compare the cluster, the id and the
//! incarnation. A successful handshake establishes what Raft presumes: that a message comes from
//! the member that it names, and that this member has not lost any of its state.
//!
//! A node without files has no cluster yet. It states its incarnation, which is already durable,
//! and is told the founders of the cluster if it is a member with exactly this incarnation, or
//! takes the place of an added member whose incarnation is not known yet. A cluster is bootstrapped
//! when a founder has completed a handshake with all others ([`LocalNode::found`]). So the members'
//! incarnations are known from the first entry on, and a node that returns without its files is
//! recognised at once.

use serde::{Deserialize, Serialize};

use super::founders::Founders;
use super::local::{LocalNode, Standing};
use super::refusal::{HandshakeRefusal, RefusalText};
use crate::identity::{ClusterId, Incarnation};
use crate::kv::Level;
use crate::mutant::{self, Mutant};
use crate::raft::{Addition, Configuration, LogIndex, Member, MemberText, NodeId, Roster};
use crate::replica::Input;

/// The name of the peer protocol.
pub const PEER_FORMAT: &str = "coracle-peer";
/// The version of the peer protocol.
pub const PEER_VERSION: u64 = 3;
/// The longest line of a handshake, in bytes: two rosters of the longest addresses, and some spare
/// room.
pub const HELLO_BYTES_MAX: usize = 64 << 10;

/// The result of a handshake: the identity of the node at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeResult {
    /// The node's id.
    pub node: NodeId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The address at which its peers reach it, if it states one.
    pub address: Option<Box<str>>,
    /// The address at which its clients connect.
    pub client_address: Option<Box<str>>,
    /// The log index up to which it knows the members.
    pub configuration_index: LogIndex,
    /// The number of its run (boot): requests over a connection must come from the run that has
    /// dialled it. Zero: it does not state one.
    pub boot: u64,
    /// The addition by which it became a member, as it states.
    pub addition: Addition,
    /// The highest level that it supports.
    pub supports: Level,
    /// Whether both nodes belong to the same cluster, so that frames may follow. Otherwise one of
    /// them has no cluster yet.
    pub is_of_cluster: bool,
}

impl HandshakeResult {
    /// Returns the input that reports this handshake to the node.
    #[must_use]
    pub fn to_input(&self) -> Input {
        let &Self { node: peer, incarnation, addition, supports, .. } = self;
        Input::HandshakeCompleted { peer, incarnation, addition, supports }
    }
}

/// The first line of a handshake, from the dialler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    format: String,
    version: u64,
    node: u64,
    incarnation: String,
    /// The expected node; `None`: any node.
    to: Option<u64>,
    cluster: Option<String>,
    configuration_index: u64,
    boot: u64,
    /// Whether a configuration in the dialler's log names it.
    #[serde(default)]
    named: bool,
    /// The addition by which the dialler became a member.
    #[serde(default, skip_serializing_if = "Addition::is_founding")]
    addition: Addition,
    /// The highest level that the dialler supports. Programs without levels state none.
    #[serde(default)]
    level: u64,
    /// The address at which the dialler's peers reach it.
    address: Option<Box<str>>,
    client_address: Option<Box<str>>,
    /// The founders of the cluster that the dialler wants to bootstrap.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    founding: Vec<MemberText>,
}

/// The answer of the other side when it accepts the handshake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    format: String,
    version: u64,
    node: u64,
    incarnation: String,
    cluster: Option<String>,
    configuration_index: u64,
    /// Whether a configuration in this node's log names it.
    #[serde(default)]
    named: bool,
    /// The addition by which this node became a member.
    #[serde(default, skip_serializing_if = "Addition::is_founding")]
    addition: Addition,
    /// The number of this node's run (boot).
    #[serde(default)]
    boot: u64,
    /// The highest level that this node supports. Programs without levels state none.
    #[serde(default)]
    level: u64,
    client_address: Option<Box<str>>,
    /// The founders of the cluster, and the payload of its latest configuration, for a node without
    /// files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    founders: Vec<MemberText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    configuration: Option<String>,
}

impl Hello {
    /// Encodes the line, with its line break.
    ///
    /// # Panics
    ///
    /// Never.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        line(self)
    }

    /// Decodes a line, with or without its line break.
    ///
    /// # Errors
    ///
    /// [`HandshakeRefusal::NotUnderstood`].
    pub fn decode(line: &[u8]) -> Result<Self, HandshakeRefusal> {
        let hello: Self = serde_json::from_slice(line).map_err(|_| HandshakeRefusal::NotUnderstood)?;
        let is_known = hello.format == PEER_FORMAT && hello.version == PEER_VERSION;
        if is_known { Ok(hello) } else { Err(HandshakeRefusal::NotUnderstood) }
    }

    /// The dialler's id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        NodeId(self.node)
    }
}

impl Welcome {
    /// Encodes the line, with its line break.
    ///
    /// # Panics
    ///
    /// Never.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        line(self)
    }

    /// Decodes a line that welcomes or refuses.
    ///
    /// # Errors
    ///
    /// The refusal in the line, or [`HandshakeRefusal::NotUnderstood`].
    pub fn decode(line: &[u8]) -> Result<Self, HandshakeRefusal> {
        if let Ok(text) = serde_json::from_slice::<RefusalText>(line) {
            return Err(text.refused);
        }
        let welcome: Self = serde_json::from_slice(line).map_err(|_| HandshakeRefusal::NotUnderstood)?;
        let is_known = welcome.format == PEER_FORMAT && welcome.version == PEER_VERSION;
        if is_known { Ok(welcome) } else { Err(HandshakeRefusal::NotUnderstood) }
    }

    /// Returns the founders and the latest configuration of the cluster, if the other node has one.
    ///
    /// # Errors
    ///
    /// [`HandshakeRefusal::NotUnderstood`] when they cannot be decoded.
    pub fn cluster(&self) -> Result<Option<(Founders, Configuration)>, HandshakeRefusal> {
        let Some(cluster) = &self.cluster else { return Ok(None) };
        let found = || {
            let cluster = ClusterId::from_text(cluster)?;
            let roster = Roster::from_texts(&self.founders)?;
            let configuration = Configuration::read(self.configuration.as_deref()?)?;
            Some((Founders { cluster, roster }, configuration))
        };
        found().map(Some).ok_or(HandshakeRefusal::NotUnderstood)
    }
}

pub(super) fn line(text: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(text).expect("text and numbers always encode");
    line.push(b'\n');
    line
}

impl LocalNode {
    /// Returns the line with which to dial `to`; `None`: any node. `address` is the address at
    /// which this node's peers reach it.
    #[must_use]
    pub fn hello(&self, to: Option<NodeId>, address: Option<&str>) -> Hello {
        let founding = match &self.standing {
            Standing::Founding(peers) => peers.to_texts(),
            Standing::Joining | Standing::Member(..) => Vec::new(),
        };
        Hello {
            format: PEER_FORMAT.to_owned(),
            version: PEER_VERSION,
            node: self.id.0,
            incarnation: self.incarnation.to_string(),
            to: to.map(|node| node.0),
            cluster: self.cluster().map(|cluster| cluster.to_string()),
            configuration_index: self.named_index.0,
            boot: self.boot,
            named: self.was_named,
            addition: self.addition,
            level: self.supports.0,
            address: address.map(Into::into),
            client_address: self.client_address.clone(),
            founding,
        }
    }

    /// Answers a dialling node.
    ///
    /// # Errors
    ///
    /// [`HandshakeRefusal`]: to be sent instead of the welcome.
    pub fn answer(&self, hello: &Hello) -> Result<(Welcome, HandshakeResult), HandshakeRefusal> {
        let incarnation =
            Incarnation::from_text(&hello.incarnation).ok_or(HandshakeRefusal::NotUnderstood)?;
        let checked = self.check(&Claim {
            node: hello.node(),
            incarnation,
            cluster: hello.cluster.as_deref(),
            configuration_index: LogIndex(hello.configuration_index),
            was_named: hello.named,
            addition: hello.addition,
            supports: Level(hello.level),
            address: hello.address.as_deref(),
        });
        let wrong_node = hello.to.filter(|wanted| *wanted != self.id.0);
        // A node that was removed long ago may know only addresses at which other members run by
        // now: any of them reports the removal.
        let is_removed = matches!(checked, Err(HandshakeRefusal::Removed { .. }));
        if let Some(wanted) = wrong_node.filter(|_| !is_removed) {
            return Err(HandshakeRefusal::WrongNode { wanted, found: self.id.0 });
        }
        let founds_with_it = match &self.standing {
            Standing::Founding(peers) => Roster::from_texts(&hello.founding).as_ref() == Some(peers),
            // A joiner waits for an existing cluster. With it, a founder would bootstrap a second
            // cluster under the ids of that cluster's members.
            Standing::Joining => hello.founding.is_empty() || mutant::is_active(Mutant::JoinerFoundsAlong),
            Standing::Member(..) => true,
        };
        if !hello.founding.is_empty() && !founds_with_it {
            return Err(HandshakeRefusal::OtherFounders);
        }
        let handshake = HandshakeResult {
            node: hello.node(),
            incarnation,
            address: hello.address.clone(),
            client_address: hello.client_address.clone(),
            configuration_index: LogIndex(hello.configuration_index),
            boot: hello.boot,
            addition: hello.addition,
            supports: Level(hello.level),
            is_of_cluster: checked?,
        };
        let (founders, configuration) = match &self.standing {
            Standing::Member(founders, configuration) => {
                (founders.roster.to_texts(), Some(configuration.to_payload()))
            }
            Standing::Founding(_) | Standing::Joining => (Vec::new(), None),
        };
        let welcome = Welcome {
            format: PEER_FORMAT.to_owned(),
            version: PEER_VERSION,
            node: self.id.0,
            incarnation: self.incarnation.to_string(),
            cluster: self.cluster().map(|cluster| cluster.to_string()),
            configuration_index: self.named_index.0,
            named: self.was_named,
            addition: self.addition,
            boot: self.boot,
            level: self.supports.0,
            client_address: self.client_address.clone(),
            founders,
            configuration,
        };
        Ok((welcome, handshake))
    }

    /// Checks whether the dialled node is the expected one.
    ///
    /// # Errors
    ///
    /// [`HandshakeRefusal`]: close the connection.
    pub fn accept(
        &self,
        wanted: Option<NodeId>,
        welcome: &Welcome,
    ) -> Result<HandshakeResult, HandshakeRefusal> {
        let node = NodeId(welcome.node);
        if let Some(wanted) = wanted.filter(|wanted| *wanted != node) {
            return Err(HandshakeRefusal::WrongNode { wanted: wanted.0, found: node.0 });
        }
        let incarnation =
            Incarnation::from_text(&welcome.incarnation).ok_or(HandshakeRefusal::NotUnderstood)?;
        let is_of_cluster = match &self.standing {
            Standing::Founding(_) | Standing::Joining => false,
            // The other node has no cluster yet: a handshake that it dials will report the cluster
            // to it, or refuse it.
            Standing::Member(..) if welcome.cluster.is_none() => false,
            Standing::Member(..) => self.check(&Claim {
                node,
                incarnation,
                cluster: welcome.cluster.as_deref(),
                configuration_index: LogIndex(welcome.configuration_index),
                was_named: welcome.named,
                addition: welcome.addition,
                supports: Level(welcome.level),
                address: None,
            })?,
        };
        let client_address = welcome.client_address.clone();
        Ok(HandshakeResult {
            node,
            incarnation,
            address: None,
            client_address,
            configuration_index: LogIndex(welcome.configuration_index),
            boot: welcome.boot,
            addition: welcome.addition,
            supports: Level(welcome.level),
            is_of_cluster,
        })
    }

    /// Checks that the other node belongs to this node's cluster; `false`: one of them has none
    /// yet.
    fn check(&self, claim: &Claim<'_>) -> Result<bool, HandshakeRefusal> {
        let &Claim {
            node,
            incarnation: found,
            cluster,
            configuration_index: their_index,
            was_named,
            addition,
            supports,
            ..
        } = claim;
        let Standing::Member(founders, configuration) = &self.standing else { return Ok(false) };
        let ours = founders.cluster.to_string();
        if let Some(theirs) = cluster.filter(|theirs| **theirs != ours) {
            return Err(HandshakeRefusal::OtherCluster { ours, theirs: theirs.to_owned() });
        }
        let known = configuration.roster().member(node).and_then(|member| member.incarnation);
        let is_member = configuration.contains(node) && known.is_none_or(|known| known == found);
        // This configuration is committed and at least as late as the one that the other node
        // knows, and it does not name that node, although an earlier one did: the node was removed,
        // and no later configuration will name this incarnation again.
        let is_settled = self.is_settled || mutant::is_active(Mutant::RemovalByOpenConfiguration);
        let is_later =
            their_index < self.configuration_index || mutant::is_active(Mutant::RemovalByOldConfiguration);
        let is_the_same = their_index == self.configuration_index && !configuration.contains(node);
        let knows_better = is_settled && (is_later || is_the_same);
        let was_removed = was_named && knows_better && !is_member;
        let is_taken_back = configuration.has_taken_back(node, addition, is_settled);
        if cluster.is_some() && (was_removed || is_taken_back) {
            return Err(HandshakeRefusal::Removed { node: node.0, index: self.configuration_index.0 });
        }
        if supports < self.level {
            return Err(HandshakeRefusal::LevelTooLow { node: node.0, level: self.level.0 });
        }
        self.compare_member(claim)
    }

    /// Compares the other node with the member that has its id.
    fn compare_member(&self, claim: &Claim<'_>) -> Result<bool, HandshakeRefusal> {
        let &Claim { node, incarnation: found, cluster, configuration_index: their_index, address, .. } =
            claim;
        let Standing::Member(_, configuration) = &self.standing else { return Ok(false) };
        let is_as_late =
            their_index <= self.configuration_index || mutant::is_active(Mutant::LaterIncarnationRefused);
        match configuration.roster().member(node) {
            // A node that knows a later configuration may have been added again since, and may be
            // the leader from which this node must learn of it. A wiped node states no cluster at
            // all.
            Some(Member { incarnation: Some(known), .. })
                if *known != found && (cluster.is_none() || is_as_late) =>
            {
                Err(HandshakeRefusal::OtherIncarnation {
                    node: node.0,
                    known: known.to_string(),
                    found: found.to_string(),
                })
            }
            // The first node that dials with an added id becomes the member permanently. A machine
            // that lost its files and is started as before could dial first, from an address that
            // the other members do not dial.
            Some(Member { incarnation: None, address: expected, .. })
                if cluster.is_none()
                    && address.is_some_and(|address| address != &**expected)
                    && !mutant::is_active(Mutant::AnyAddressBound) =>
            {
                let found = address.unwrap_or_default().into();
                Err(HandshakeRefusal::OtherAddress { node: node.0, expected: expected.clone(), found })
            }
            None if cluster.is_none() => Err(HandshakeRefusal::NotMember { node: node.0 }),
            // An addition that may be rolled back admits no node: its number may be another
            // member's afterwards.
            Some(Member { incarnation: None, .. })
                if cluster.is_none()
                    && !self.is_settled
                    && !mutant::is_active(Mutant::OpenAdditionLetsIn) =>
            {
                Err(HandshakeRefusal::NotMember { node: node.0 })
            }
            // A node of the cluster that is not a member here may have been added since.
            _ => Ok(cluster.is_some()),
        }
    }
}

/// The statements of the other node about itself.
struct Claim<'a> {
    node: NodeId,
    incarnation: Incarnation,
    cluster: Option<&'a str>,
    configuration_index: LogIndex,
    was_named: bool,
    addition: Addition,
    /// The highest level that it supports.
    supports: Level,
    /// The address at which its peers reach it, as it states.
    address: Option<&'a str>,
}

#[cfg(test)]
mod tests;
