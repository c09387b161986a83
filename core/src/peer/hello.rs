//! Who may speak to whom: the two lines at the beginning of a connection.
//!
//! The dialler says who it is and whom it wants ([`Hello`]); the other side says who it is
//! ([`Welcome`]) or why it will not listen ([`PeerRefusal`]); the dialler then decides whether it
//! has reached the right one. Both look at the same three things: the cluster, the id, and the life
//! of the node that bears it. What passes is what Raft takes for granted: that a message comes from
//! the member that it names, and that this member has forgotten nothing.
//!
//! A node without files has no cluster yet. It tells its incarnation, which it has already written
//! down, and is told who founded the cluster, if it is a member in just this life, or one that
//! nobody has met. A cluster is founded when each of its founders has met all others
//! ([`LocalNode::found`]), so its members are known by their lives from the first entry on, and
//! whoever comes back without its files is recognised at once.

use serde::{Deserialize, Serialize};

use super::founders::Founders;
use super::local::{LocalNode, Standing};
use super::refusal::{PeerRefusal, RefusalText};
use crate::identity::{ClusterId, Incarnation};
use crate::mutant::{self, Mutant};
use crate::raft::{Addition, Configuration, LogIndex, Member, MemberText, NodeId, Roster};
use crate::replica::Input;

/// The name of the peers' protocol.
pub const PEER_FORMAT: &str = "coracle-peer";
/// Its version.
pub const PEER_VERSION: u64 = 3;
/// The longest line of a handshake, in bytes: two rosters of the longest addresses and some more.
pub const HELLO_BYTES_MAX: usize = 64 << 10;

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meeting {
    /// The node.
    pub node: NodeId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Where its peers reach it, as far as it says so itself.
    pub address: Option<Box<str>>,
    /// Where its clients connect.
    pub client_address: Option<Box<str>>,
    /// Up to which entry it knows who the members are.
    pub configuration_index: LogIndex,
    /// Which of its runs this is: what a dialler asks must be of this run. Zero: it does not say.
    pub boot: u64,
    /// The addition that it says it was let in as.
    pub addition: Addition,
    /// Whether both are of the same cluster, so that frames may follow. Otherwise one of them is
    /// not ready yet.
    pub is_of_cluster: bool,
}

impl Meeting {
    /// What the node is told of it.
    #[must_use]
    pub fn met(&self) -> Input {
        let &Self { node: peer, incarnation, addition, .. } = self;
        Input::PeerMet { peer, incarnation, addition }
    }
}

/// The dialler's line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    format: String,
    version: u64,
    node: u64,
    incarnation: String,
    /// `None`: whoever is there.
    to: Option<u64>,
    cluster: Option<String>,
    configuration_index: u64,
    boot: u64,
    /// Whether a configuration in the dialler's log has named it.
    #[serde(default)]
    named: bool,
    /// The addition that let the dialler in.
    #[serde(default, skip_serializing_if = "Addition::is_founding")]
    addition: Addition,
    /// Where the dialler's own peers reach it.
    address: Option<Box<str>>,
    client_address: Option<Box<str>>,
    /// With whom the dialler wants to found a cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    founding: Vec<MemberText>,
}

/// The other side's line when it listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    format: String,
    version: u64,
    node: u64,
    incarnation: String,
    cluster: Option<String>,
    configuration_index: u64,
    /// Whether a configuration in this node's log has named it.
    #[serde(default)]
    named: bool,
    /// The addition that let this node in.
    #[serde(default, skip_serializing_if = "Addition::is_founding")]
    addition: Addition,
    /// Which of this node's runs this is.
    #[serde(default)]
    boot: u64,
    client_address: Option<Box<str>>,
    /// Who founded the cluster, and the payload of the latest configuration, for who has no files
    /// yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    founders: Vec<MemberText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    configuration: Option<String>,
}

impl Hello {
    /// The line, with its line break.
    ///
    /// # Panics
    ///
    /// Never.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        line(self)
    }

    /// Reads a line, with or without its line break.
    ///
    /// # Errors
    ///
    /// [`PeerRefusal::NotUnderstood`].
    pub fn decode(line: &[u8]) -> Result<Self, PeerRefusal> {
        let hello: Self = serde_json::from_slice(line).map_err(|_| PeerRefusal::NotUnderstood)?;
        let is_known = hello.format == PEER_FORMAT && hello.version == PEER_VERSION;
        if is_known { Ok(hello) } else { Err(PeerRefusal::NotUnderstood) }
    }

    /// Who says so.
    #[must_use]
    pub fn node(&self) -> NodeId {
        NodeId(self.node)
    }
}

impl Welcome {
    /// The line, with its line break.
    ///
    /// # Panics
    ///
    /// Never.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        line(self)
    }

    /// Reads a line that welcomes or refuses.
    ///
    /// # Errors
    ///
    /// The refusal that the line says, or [`PeerRefusal::NotUnderstood`].
    pub fn decode(line: &[u8]) -> Result<Self, PeerRefusal> {
        if let Ok(text) = serde_json::from_slice::<RefusalText>(line) {
            return Err(text.refused);
        }
        let welcome: Self = serde_json::from_slice(line).map_err(|_| PeerRefusal::NotUnderstood)?;
        let is_known = welcome.format == PEER_FORMAT && welcome.version == PEER_VERSION;
        if is_known { Ok(welcome) } else { Err(PeerRefusal::NotUnderstood) }
    }

    /// Who founded the cluster of the node that says so, and its latest configuration, if it has a
    /// cluster.
    ///
    /// # Errors
    ///
    /// [`PeerRefusal::NotUnderstood`] when they are not what they should be.
    pub fn cluster(&self) -> Result<Option<(Founders, Configuration)>, PeerRefusal> {
        let Some(cluster) = &self.cluster else { return Ok(None) };
        let found = || {
            let cluster = ClusterId::from_text(cluster)?;
            let roster = Roster::from_texts(&self.founders)?;
            let configuration = Configuration::read(self.configuration.as_deref()?)?;
            Some((Founders { cluster, roster }, configuration))
        };
        found().map(Some).ok_or(PeerRefusal::NotUnderstood)
    }
}

pub(super) fn line(text: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(text).expect("text and numbers always encode");
    line.push(b'\n');
    line
}

impl LocalNode {
    /// The line to dial `to` with; `None`: whoever is there. `address` is where this node's peers
    /// reach it.
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
            address: address.map(Into::into),
            client_address: self.client_address.clone(),
            founding,
        }
    }

    /// Answers who dials.
    ///
    /// # Errors
    ///
    /// [`PeerRefusal`]: to be sent in the welcome's place.
    pub fn answer(&self, hello: &Hello) -> Result<(Welcome, Meeting), PeerRefusal> {
        let incarnation = Incarnation::from_text(&hello.incarnation).ok_or(PeerRefusal::NotUnderstood)?;
        let checked = self.check(&Claim {
            node: hello.node(),
            incarnation,
            cluster: hello.cluster.as_deref(),
            configuration_index: LogIndex(hello.configuration_index),
            was_named: hello.named,
            addition: hello.addition,
            address: hello.address.as_deref(),
        });
        let wrong_node = hello.to.filter(|wanted| *wanted != self.id.0);
        // A node that was removed long ago may know only addresses where other members have taken
        // over: any of them tells it.
        let is_removed = matches!(checked, Err(PeerRefusal::Removed { .. }));
        if let Some(wanted) = wrong_node.filter(|_| !is_removed) {
            return Err(PeerRefusal::WrongNode { wanted, found: self.id.0 });
        }
        let founds_with_it = match &self.standing {
            Standing::Founding(peers) => Roster::from_texts(&hello.founding).as_ref() == Some(peers),
            // It waits for a cluster that exists: with it another one would be founded, under the
            // ids of that one's members.
            Standing::Joining => mutant::is_active(Mutant::JoinerFoundsAlong),
            Standing::Member(..) => true,
        };
        if !hello.founding.is_empty() && !founds_with_it {
            return Err(PeerRefusal::OtherFounders);
        }
        let meeting = Meeting {
            node: hello.node(),
            incarnation,
            address: hello.address.clone(),
            client_address: hello.client_address.clone(),
            configuration_index: LogIndex(hello.configuration_index),
            boot: hello.boot,
            addition: hello.addition,
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
            client_address: self.client_address.clone(),
            founders,
            configuration,
        };
        Ok((welcome, meeting))
    }

    /// Decides whether the dialled node is the one that was wanted.
    ///
    /// # Errors
    ///
    /// [`PeerRefusal`]: hang up.
    pub fn accept(&self, wanted: Option<NodeId>, welcome: &Welcome) -> Result<Meeting, PeerRefusal> {
        let node = NodeId(welcome.node);
        if let Some(wanted) = wanted.filter(|wanted| *wanted != node) {
            return Err(PeerRefusal::WrongNode { wanted: wanted.0, found: node.0 });
        }
        let incarnation = Incarnation::from_text(&welcome.incarnation).ok_or(PeerRefusal::NotUnderstood)?;
        let is_of_cluster = match &self.standing {
            Standing::Founding(_) | Standing::Joining => false,
            // It is about to learn of the cluster, or to be told by somebody that it must not.
            Standing::Member(..) if welcome.cluster.is_none() => false,
            Standing::Member(..) => self.check(&Claim {
                node,
                incarnation,
                cluster: welcome.cluster.as_deref(),
                configuration_index: LogIndex(welcome.configuration_index),
                was_named: welcome.named,
                addition: welcome.addition,
                address: None,
            })?,
        };
        let client_address = welcome.client_address.clone();
        Ok(Meeting {
            node,
            incarnation,
            address: None,
            client_address,
            configuration_index: LogIndex(welcome.configuration_index),
            boot: welcome.boot,
            addition: welcome.addition,
            is_of_cluster,
        })
    }

    /// Whether the other node is of this one's cluster; `false`: one of them has none yet.
    fn check(&self, claim: &Claim<'_>) -> Result<bool, PeerRefusal> {
        let &Claim {
            node,
            incarnation: found,
            cluster,
            configuration_index: their_index,
            was_named,
            addition,
            address,
        } = claim;
        let Standing::Member(founders, configuration) = &self.standing else { return Ok(false) };
        let ours = founders.cluster.to_string();
        if let Some(theirs) = cluster.filter(|theirs| **theirs != ours) {
            return Err(PeerRefusal::OtherCluster { ours, theirs: theirs.to_owned() });
        }
        let known = configuration.roster().member(node).and_then(|member| member.incarnation);
        let is_member = configuration.contains(node) && known.is_none_or(|known| known == found);
        // A committed configuration as late as what the other knows, that does not name it although
        // an earlier one did: it was removed, and no later configuration will name this incarnation
        // again.
        let is_settled = self.is_settled || mutant::is_active(Mutant::RemovalByOpenConfiguration);
        let is_later =
            their_index < self.configuration_index || mutant::is_active(Mutant::RemovalByOldConfiguration);
        let is_the_same = their_index == self.configuration_index && !configuration.contains(node);
        let knows_better = is_settled && (is_later || is_the_same);
        let was_removed = was_named && knows_better && !is_member;
        let is_taken_back = configuration.has_taken_back(node, addition, is_settled);
        if cluster.is_some() && (was_removed || is_taken_back) {
            return Err(PeerRefusal::Removed { node: node.0, index: self.configuration_index.0 });
        }
        let is_as_late =
            their_index <= self.configuration_index || mutant::is_active(Mutant::LaterIncarnationRefused);
        match configuration.roster().member(node) {
            // Whoever knows of later members may have been let in again since, and be the leader
            // that this node needs to hear of it. A node that was wiped knows of no cluster at all.
            Some(Member { incarnation: Some(known), .. })
                if *known != found && (cluster.is_none() || is_as_late) =>
            {
                Err(PeerRefusal::OtherIncarnation {
                    node: node.0,
                    known: known.to_string(),
                    found: found.to_string(),
                })
            }
            // The first node that dials with an id that was added becomes the member for good. A
            // machine that lost its files and is started as before could dial first, from an
            // address that the other members do not dial.
            Some(Member { incarnation: None, address: expected, .. })
                if cluster.is_none()
                    && address.is_some_and(|address| address != &**expected)
                    && !mutant::is_active(Mutant::AnyAddressBound) =>
            {
                let found = address.unwrap_or_default().into();
                Err(PeerRefusal::OtherAddress { node: node.0, expected: expected.clone(), found })
            }
            None if cluster.is_none() => Err(PeerRefusal::NotMember { node: node.0 }),
            // By an addition that may be rolled back nobody is let in: its number may be another
            // member's then.
            Some(Member { incarnation: None, .. })
                if cluster.is_none()
                    && !self.is_settled
                    && !mutant::is_active(Mutant::OpenAdditionLetsIn) =>
            {
                Err(PeerRefusal::NotMember { node: node.0 })
            }
            // Somebody of the cluster who is no member may have been made one since.
            _ => Ok(cluster.is_some()),
        }
    }
}

/// What the other node says of itself.
struct Claim<'a> {
    node: NodeId,
    incarnation: Incarnation,
    cluster: Option<&'a str>,
    configuration_index: LogIndex,
    was_named: bool,
    addition: Addition,
    /// Where it says that its peers reach it.
    address: Option<&'a str>,
}

#[cfg(test)]
mod tests;
